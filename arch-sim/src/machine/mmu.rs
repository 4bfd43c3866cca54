//! One CPU's MMU: a TLB, a cache of the entries above the leaves, and invalidations that have not arrived yet.

use kernel::addr::{Level, PhysAddr, VirtAddr};
use kernel::mm::entry::{Entry, EntryCodec, Perm};
use kernel::tlb::invalidation::Invalidation;

use super::codec::Codec;

/// A cached translation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Leaf {
    pub(super) asid: u16,
    /// The root that it was found by.
    pub(super) root: PhysAddr,
    /// The level of the entry that says so.
    pub(super) at: Level,
    pub(super) start: u64,
    pub(super) bytes: u64,
    pub(super) page: PhysAddr,
    pub(super) write: bool,
}

/// A cached entry that points at a table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Above {
    pub(super) asid: u16,
    /// The root that it was found by.
    pub(super) root: PhysAddr,
    /// The level of the entry that says so.
    pub(super) at: Level,
    pub(super) start: u64,
    pub(super) bytes: u64,
    /// The level of the table that it points at.
    pub(super) level: Level,
    pub(super) table: PhysAddr,
}

/// What each of the caches keeps at most; the oldest goes.
const CAPACITY: usize = 64;

#[derive(Default, Debug)]
pub(super) struct Mmu {
    pub(super) root: Option<(PhysAddr, u16)>,
    pub(super) leaves: Vec<Leaf>,
    pub(super) above: Vec<Above>,
    pub(super) arriving: Vec<(u16, Invalidation)>,
}

fn overlaps(start: u64, bytes: u64, what: &Invalidation) -> bool {
    what.all || (start < what.end.0 && what.start.0 < start + bytes)
}

fn remember<T: PartialEq>(cache: &mut Vec<T>, entry: T) {
    if cache.contains(&entry) {
        return;
    }
    if cache.len() == CAPACITY {
        cache.remove(0);
    }
    cache.push(entry);
}

impl Mmu {
    /// Loads a root; where translations are not tagged, nothing cached is left.
    pub(super) fn load(&mut self, root: Option<(PhysAddr, u16)>, tagged: bool) {
        self.root = root;
        if !tagged {
            self.leaves.clear();
            self.above.clear();
        }
    }

    /// Drops what `what` names; entries above the leaves only if it says so and the hardware does so.
    pub(super) fn invalidate(&mut self, asid: u16, what: &Invalidation, all_levels: bool) {
        self.leaves.retain(|leaf| leaf.asid != asid || !overlaps(leaf.start, leaf.bytes, what));
        if what.tables && all_levels {
            self.above.retain(|above| above.asid != asid || !overlaps(above.start, above.bytes, what));
        }
    }

    /// The cached translation of `va`.
    pub(super) fn cached(&self, va: VirtAddr) -> Option<Leaf> {
        let (_, asid) = self.root?;
        self.leaves.iter().rev().find(|l| l.asid == asid && l.start <= va.0 && va.0 < l.start + l.bytes).copied()
    }

    /// Walks for `va` and caches what it meets; `from_cache`: from the lowest table that is cached, else from the root.
    pub(super) fn walk(&mut self, va: VirtAddr, from_cache: bool, read: impl Fn(PhysAddr) -> u64) -> Option<Leaf> {
        let (root, asid) = self.root?;
        let (mut table, mut level) = (root, Level::Pgd);
        if from_cache {
            let known = self.above.iter().filter(|a| a.asid == asid && a.start <= va.0 && va.0 < a.start + a.bytes);
            if let Some(lowest) = known.min_by_key(|a| a.level) {
                (table, level) = (lowest.table, lowest.level);
            }
        }
        self.walk_from(root, asid, table, level, va, read)
    }

    /// Caches everything that could be cached of `va`: from the root, and from each table that is cached.
    pub(super) fn fill(&mut self, va: VirtAddr, read: impl Fn(PhysAddr) -> u64) {
        let Some((root, asid)) = self.root else { return };
        self.walk_from(root, asid, root, Level::Pgd, va, &read);
        for known in 0..self.above.len() {
            let above = self.above[known];
            if above.asid == asid && above.start <= va.0 && va.0 < above.start + above.bytes {
                self.walk_from(above.root, asid, above.table, above.level, va, &read);
            }
        }
    }

    fn walk_from(
        &mut self,
        root: PhysAddr,
        asid: u16,
        mut table: PhysAddr,
        mut level: Level,
        va: VirtAddr,
        read: impl Fn(PhysAddr) -> u64,
    ) -> Option<Leaf> {
        loop {
            let raw = read(PhysAddr(table.0 + 8 * va.index(level) as u64));
            let (start, bytes) = (va.align_down(level).0, level.entry_size());
            match Codec::decode(level, raw) {
                Entry::Absent => return None,
                Entry::Leaf { page, perm } => {
                    let leaf = Leaf { asid, root, at: level, start, bytes, page, write: perm.contains(Perm::WRITE) };
                    remember(&mut self.leaves, leaf);
                    return Some(leaf);
                }
                Entry::Table(next) => {
                    let at = level;
                    level = level.below()?;
                    table = next;
                    remember(&mut self.above, Above { asid, root, at, start, bytes, level, table });
                }
            }
        }
    }

    /// What is cached here and is no longer what memory says, in words: of entries above the leaves, and, if `leaves`, of translations.
    pub(super) fn stale(&self, leaves: bool, read: impl Fn(PhysAddr) -> u64) -> Option<String> {
        let now = |root: PhysAddr, start: u64, at: Level| {
            let (mut table, mut level) = (root, Level::Pgd);
            loop {
                let entry = Codec::decode(level, read(PhysAddr(table.0 + 8 * VirtAddr(start).index(level) as u64)));
                match entry {
                    Entry::Table(next) if level != at => (table, level) = (next, level.below()?),
                    entry => return (level == at).then_some(entry),
                }
            }
        };
        let above = self.above.iter().find(|a| now(a.root, a.start, a.at) != Some(Entry::Table(a.table)));
        let leads = |l: &Leaf| matches!(now(l.root, l.start, l.at), Some(Entry::Leaf { page, .. }) if page == l.page);
        let leaf = self.leaves.iter().find(|leaf| leaves && !leads(leaf));
        match (above, leaf) {
            (Some(above), _) => {
                Some(format!("the entry for {} that pointed at {}", VirtAddr(above.start), above.table))
            }
            (None, Some(leaf)) => Some(format!("a translation of {} to {}", VirtAddr(leaf.start), leaf.page)),
            (None, None) => None,
        }
    }

    /// Whether anything cached leads to the 4 KiB at `frame`: (a leaf, an entry above).
    pub(super) fn leads_to(&self, frame: PhysAddr) -> (bool, bool) {
        let leaf = self.leaves.iter().any(|l| l.page.0 <= frame.0 && frame.0 < l.page.0 + l.bytes);
        (leaf, self.above.iter().any(|a| a.table == frame))
    }
}
