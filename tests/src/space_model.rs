//! What an address space is to its user, as simply as it can be said: regions, and what each page contains. It knows no
//! tables, frames or TLBs, and shares no code with the core.

use std::collections::BTreeMap;

/// A request that the model refuses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// Something else is there.
    Overlaps,
    /// Nothing is there.
    NotMapped,
    /// The region does not allow it.
    Forbidden,
}

/// Pages from `start` up to `end` are alike.
#[derive(Clone, Debug)]
struct Part {
    start: u64,
    end: u64,
    writable: bool,
}

/// An address space, by page numbers.
#[derive(Clone, Default, Debug)]
pub struct Space {
    parts: Vec<Part>,
    /// Pages that were ever touched since they were last dropped, with what they contain.
    pages: BTreeMap<u64, u64>,
}

impl Space {
    fn part(&self, page: u64) -> Option<&Part> {
        self.parts.iter().find(|p| p.start <= page && page < p.end)
    }

    /// No part reaches over `at` any more.
    fn cut(&mut self, at: u64) {
        let mut cut = Vec::new();
        for part in self.parts.drain(..) {
            if part.start < at && at < part.end {
                cut.push(Part { end: at, ..part.clone() });
                cut.push(Part { start: at, ..part });
            } else {
                cut.push(part);
            }
        }
        self.parts = cut;
    }

    /// Maps anonymous pages.
    pub fn map(&mut self, start: u64, end: u64, writable: bool) -> Result<(), Refusal> {
        if (start..end).any(|page| self.part(page).is_some()) {
            return Err(Refusal::Overlaps);
        }
        self.parts.push(Part { start, end, writable });
        Ok(())
    }

    /// Unmaps whatever is there.
    pub fn unmap(&mut self, start: u64, end: u64) {
        self.cut(start);
        self.cut(end);
        self.parts.retain(|p| p.end <= start || end <= p.start);
        self.pages.retain(|page, _| *page < start || end <= *page);
    }

    /// Changes what the mapped pages of the range allow.
    pub fn protect(&mut self, start: u64, end: u64, writable: bool) -> Result<(), Refusal> {
        self.cut(start);
        self.cut(end);
        let mut inside = self.parts.iter_mut().filter(|p| start <= p.start && p.end <= end).peekable();
        if inside.peek().is_none() {
            return Err(Refusal::NotMapped);
        }
        inside.for_each(|p| p.writable = writable);
        Ok(())
    }

    /// Drops the contents of a range that lies in one part.
    pub fn drop_contents(&mut self, start: u64, end: u64) -> Result<(), Refusal> {
        if !self.in_one_part(start, end) {
            return Err(Refusal::NotMapped);
        }
        self.pages.retain(|page, _| *page < start || end <= *page);
        Ok(())
    }

    /// Whether one part has the whole range.
    pub fn in_one_part(&self, start: u64, end: u64) -> bool {
        self.parts.iter().any(|p| p.start <= start && end <= p.end)
    }

    /// What is in `page`.
    pub fn read(&mut self, page: u64) -> Result<u64, Refusal> {
        self.part(page).ok_or(Refusal::NotMapped)?;
        Ok(*self.pages.entry(page).or_insert(0))
    }

    /// Puts `value` into `page`.
    pub fn write(&mut self, page: u64, value: u64) -> Result<(), Refusal> {
        if !self.part(page).ok_or(Refusal::NotMapped)?.writable {
            return Err(Refusal::Forbidden);
        }
        self.pages.insert(page, value);
        Ok(())
    }

    /// Whether `page` may be written.
    pub fn is_writable(&self, page: u64) -> bool {
        self.part(page).is_some_and(|p| p.writable)
    }

    /// Whether every page of the range has been touched since it was last dropped.
    pub fn all_touched(&self, start: u64, end: u64) -> bool {
        (start..end).all(|page| self.pages.contains_key(&page))
    }

    /// What a page contains if it was touched.
    pub fn contents(&self, page: u64) -> Option<u64> {
        self.pages.get(&page).copied()
    }

    /// All mapped pages of the range.
    pub fn mapped(&self, start: u64, end: u64) -> Vec<u64> {
        (start..end).filter(|page| self.part(*page).is_some()).collect()
    }
}
