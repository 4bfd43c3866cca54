//! What capabilities, mappings and accounts are to their users, as simply as it can be said. It knows no tables, no
//! trees and no locks, and shares no code with the core; statuses are written as the names that programs know them by.

use std::collections::{BTreeMap, BTreeSet};

/// Rights, as bits: read 1, write 2, execute 4, grant 8, manage 16.
pub const READ: u32 = 1;
/// See [`READ`].
pub const WRITE: u32 = 2;
/// See [`READ`].
pub const EXECUTE: u32 = 4;
/// See [`READ`].
pub const GRANT: u32 = 8;
/// All of them.
pub const ALL: u32 = 31;

/// What an object is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum What {
    /// Frames, so many.
    Frames(u64),
    /// An endpoint.
    Endpoint,
    /// A process that was made by a fork, by its number.
    Fork(usize),
}

/// A capability.
#[derive(Clone, Debug)]
pub struct Cap {
    /// Its number, never used again.
    pub id: usize,
    parent: Option<usize>,
    /// Process and slot.
    pub at: (usize, u64),
    /// The object's number.
    pub object: usize,
    /// Bits.
    pub rights: u32,
    /// 0 for none.
    pub badge: u32,
}

/// A mapping, in pages.
#[derive(Clone, Debug)]
pub struct Map {
    cap: Option<usize>,
    /// Whose address space.
    pub process: usize,
    /// First page and number of pages.
    pub at: u64,
    /// See above.
    pub pages: u64,
    /// What it shows: an object and its page, or a number of its own.
    show: (usize, u64),
    /// What it allows.
    pub rights: u32,
    most: u32,
    payer: usize,
}

/// All of it.
#[derive(Default, Debug)]
pub struct Model {
    /// Slots of each process.
    pub slots: u64,
    /// Frames that each process's account has.
    pub limits: Vec<u64>,
    /// Address spaces that each may have made at a time.
    pub spaces: u64,
    /// Frames in use at the start.
    pub base: Vec<u64>,
    /// Capabilities.
    pub caps: Vec<Cap>,
    /// Objects: what, and who pays.
    pub objects: BTreeMap<usize, (What, usize)>,
    /// Mappings.
    pub maps: Vec<Map>,
    memory: BTreeMap<(usize, u64), u64>,
    next: usize,
}

/// How a request ends.
pub type Answer = Result<(), &'static str>;

/// A mapping is readable, and nothing is both written and executed.
fn bad_rights(rights: u32) -> bool {
    let both = WRITE | EXECUTE;
    rights & READ == 0 || rights & !(READ | both) != 0 || rights & both == both
}

impl Model {
    /// `processes` processes with nothing but `frames` frames each, and tables of `slots`.
    pub fn new(processes: usize, slots: u64, frames: u64, spaces: u64) -> Model {
        Model { slots, spaces, limits: vec![frames; processes], base: vec![0; processes], ..Model::default() }
    }

    fn number(&mut self) -> usize {
        self.next += 1;
        self.next
    }

    fn find(&self, process: usize, slot: u64) -> Result<Cap, &'static str> {
        self.caps.iter().find(|cap| cap.at == (process, slot)).cloned().ok_or("NoCapability")
    }

    fn free(&self, process: usize, slot: u64) -> Answer {
        if slot >= self.slots {
            return Err("NoCapability");
        }
        if self.find(process, slot).is_ok() { Err("SlotTaken") } else { Ok(()) }
    }

    /// Tables that pages `at..at + pages` need: of 512 pages, of 512 of those, and of 512 of those.
    fn tables(at: u64, pages: u64) -> u64 {
        let mut touched = BTreeSet::new();
        for page in at..at + pages {
            touched.extend([(1, page >> 9), (2, page >> 18), (3, page >> 27)]);
        }
        touched.len() as u64
    }

    /// Frames that a process pays for.
    pub fn used(&self, process: usize) -> u64 {
        let objects = self.objects.values().filter(|(_, payer)| *payer == process);
        let frames = |what: &What| match what {
            What::Frames(pages) => *pages,
            What::Endpoint => 0,
            // The table that all others hang from.
            What::Fork(_) => 1,
        };
        let pages = objects.map(|(what, _)| frames(what)).sum::<u64>();
        let maps = self.maps.iter().filter(|map| map.payer == process);
        let anonymous = |map: &Map| if map.cap.is_none() { map.pages } else { 0 };
        self.base[process] + pages + maps.map(|map| Model::tables(map.at, map.pages) + anonymous(map)).sum::<u64>()
    }

    fn pay(&self, process: usize, frames: u64) -> Answer {
        if self.used(process) + frames <= self.limits[process] { Ok(()) } else { Err("Quota") }
    }

    /// Makes an object.
    pub fn make(&mut self, process: usize, slot: u64, what: What) -> Answer {
        self.free(process, slot)?;
        if let What::Frames(pages) = what {
            if pages == 0 {
                return Err("BadArgument");
            }
            self.pay(process, pages)?;
        }
        let (id, object) = (self.number(), self.number());
        self.objects.insert(object, (what, process));
        self.caps.push(Cap { id, parent: None, at: (process, slot), object, rights: ALL, badge: 0 });
        Ok(())
    }

    /// Derives a capability, in the same table or another.
    pub fn derive(&mut self, from: (usize, u64), to: (usize, u64), rights: u32, badge: u32, given: bool) -> Answer {
        let cap = self.find(from.0, from.1)?;
        if (given && cap.rights & GRANT == 0) || rights & !cap.rights != 0 {
            return Err("Forbidden");
        }
        if cap.badge != 0 && badge != 0 && badge != cap.badge {
            return Err("Forbidden");
        }
        self.free(to.0, to.1)?;
        let badge = if cap.badge != 0 { cap.badge } else { badge };
        let id = self.number();
        self.caps.push(Cap { id, parent: Some(cap.id), at: to, object: cap.object, rights, badge });
        Ok(())
    }

    fn drop_maps_of(&mut self, cap: usize) {
        self.maps.retain(|map| map.cap != Some(cap));
    }

    fn drop_descendants(&mut self, of: usize) {
        while let Some(at) = self.caps.iter().position(|cap| cap.parent == Some(of)) {
            let cap = self.caps.swap_remove(at);
            self.drop_descendants(cap.id);
            self.drop_maps_of(cap.id);
        }
        self.drop_maps_of(of);
    }

    /// Deletes all that descends from a capability.
    pub fn revoke(&mut self, process: usize, slot: u64) -> Answer {
        let cap = self.find(process, slot)?;
        self.drop_descendants(cap.id);
        Ok(())
    }

    /// Deletes a capability.
    pub fn delete(&mut self, process: usize, slot: u64) -> Answer {
        let cap = self.find(process, slot)?;
        if cap.parent.is_none() {
            self.drop_descendants(cap.id);
            if let Some((What::Fork(process), _)) = self.objects.remove(&cap.object) {
                self.maps.retain(|map| map.process != process);
            }
            self.memory.retain(|(object, _), _| *object != cap.object);
        }
        self.drop_maps_of(cap.id);
        for other in self.caps.iter_mut().filter(|other| other.parent == Some(cap.id)) {
            other.parent = cap.parent;
        }
        self.caps.retain(|other| other.id != cap.id);
        Ok(())
    }

    /// Maps frames, or memory of its own if `from` is `None`. Pages throughout.
    #[allow(clippy::too_many_arguments)]
    pub fn map(
        &mut self,
        who: usize,
        process: usize,
        from: Option<(u64, u64)>,
        at: u64,
        pages: u64,
        rights: u32,
    ) -> Answer {
        let mut cap = None;
        let mut most = ALL;
        let mut show = (0, 0);
        if let Some((slot, offset)) = from {
            let found = self.find(who, slot)?;
            let What::Frames(there) = self.objects[&found.object].0 else { return Err("WrongKind") };
            if bad_rights(rights) {
                return Err("BadArgument");
            }
            if rights & !found.rights != 0 {
                return Err("Forbidden");
            }
            if pages == 0 || offset + pages > there {
                return Err("BadArgument");
            }
            most = if who == process { found.rights } else { rights };
            (cap, show) = (Some(found.id), (found.object, offset));
        } else if bad_rights(rights) || pages == 0 {
            return Err("BadArgument");
        }
        self.pay(who, Model::tables(at, pages) + if cap.is_none() { pages } else { 0 })?;
        let overlaps = |map: &&Map| map.process == process && map.at < at + pages && at < map.at + map.pages;
        if self.maps.iter().any(|map| overlaps(&map)) {
            return Err("Overlaps");
        }
        if cap.is_none() {
            show = (self.number(), 0);
        }
        self.maps.push(Map { cap, process, at, pages, show, rights, most, payer: who });
        Ok(())
    }

    /// Drops what is in pages of frames.
    pub fn truncate(&mut self, who: usize, slot: u64, first: u64, pages: u64) -> Answer {
        let found = self.find(who, slot)?;
        if found.rights & WRITE == 0 {
            return Err("Forbidden");
        }
        let What::Frames(there) = self.objects[&found.object].0 else { return Err("WrongKind") };
        if pages == 0 || first + pages > there {
            return Err("BadArgument");
        }
        self.memory.retain(|(object, page), _| *object != found.object || *page < first || first + pages <= *page);
        Ok(())
    }

    /// Makes a process with a copy of the anonymous memory of `of`, without a limit of its own; its number.
    pub fn fork(&mut self, who: usize, of: usize, slot: u64) -> Result<usize, &'static str> {
        self.free(who, slot)?;
        let spaces = self.objects.values().filter(|(what, payer)| matches!(what, What::Fork(_)) && *payer == who);
        if spaces.count() as u64 == self.spaces {
            return Err("Quota");
        }
        let mut copies: Vec<Map> =
            self.maps.iter().filter(|map| map.process == of && map.cap.is_none()).cloned().collect();
        let frames = copies.iter().map(|map| Model::tables(map.at, map.pages) + map.pages).sum::<u64>();
        self.pay(who, 1 + frames)?;
        let child = 1000 + self.number();
        for map in &mut copies {
            let original = map.show.0;
            map.show.0 = self.number();
            (map.process, map.payer) = (child, who);
            let inside = |(place, _): &(&(usize, u64), &u64)| place.0 == original;
            let written: Vec<_> = self.memory.iter().filter(inside).map(|(place, value)| (place.1, *value)).collect();
            self.memory.extend(written.into_iter().map(|(page, value)| ((map.show.0, page), value)));
        }
        self.maps.extend(copies);
        let (id, object) = (self.number(), self.number());
        self.objects.insert(object, (What::Fork(child), who));
        self.caps.push(Cap { id, parent: None, at: (who, slot), object, rights: ALL, badge: 0 });
        Ok(child)
    }

    /// Undoes the mapping that begins at `at`.
    pub fn unmap(&mut self, process: usize, at: u64) -> Answer {
        let found = self.maps.iter().position(|map| map.process == process && map.at == at);
        self.maps.swap_remove(found.ok_or("NotMapped")?);
        Ok(())
    }

    /// Changes what the mapping that begins at `at` allows.
    pub fn protect(&mut self, process: usize, at: u64, rights: u32) -> Answer {
        if bad_rights(rights) {
            return Err("BadArgument");
        }
        let map = self.maps.iter_mut().find(|map| map.process == process && map.at == at).ok_or("NotMapped")?;
        if rights & !map.most != 0 {
            return Err("Forbidden");
        }
        map.rights = rights;
        Ok(())
    }

    fn place(&self, process: usize, page: u64) -> Option<(&Map, (usize, u64))> {
        let map = self.maps.iter().find(|m| m.process == process && m.at <= page && page < m.at + m.pages)?;
        Some((map, (map.show.0, map.show.1 + page - map.at)))
    }

    /// What a program reads from a page.
    pub fn read(&self, process: usize, page: u64) -> Result<u64, &'static str> {
        let (_, place) = self.place(process, page).ok_or("NotMapped")?;
        Ok(self.memory.get(&place).copied().unwrap_or(0))
    }

    /// A program writes to a page.
    pub fn write(&mut self, process: usize, page: u64, value: u64) -> Answer {
        let (map, place) = self.place(process, page).ok_or("NotMapped")?;
        if map.rights & WRITE == 0 {
            return Err("Forbidden");
        }
        self.memory.insert(place, value);
        Ok(())
    }
}
