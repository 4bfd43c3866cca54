//! One CPU's MMU: a TLB, a cache of the entries above the leaves, and invalidations that have not arrived yet.
//!
//! A walk may begin at the root or at any table that a cached entry points at. It knows the last level only by
//! counting: so a walk through the recursive slot ends on an entry that points at a table, and takes the table for a
//! page. Where a 2 MiB leaf reads as a page of entries (x86_64: the bit that says 2 MiB is another one at the last
//! level) it takes that for a page as well.

use kernel::addr::{Level, PhysAddr, VirtAddr};
use kernel::mm::entry::{Entry, EntryCodec, Perm};
use kernel::tlb::invalidation::Invalidation;

use super::codec::{self, Codec};
use super::hardware::{Hardware, Parts};

/// Where an mm's tables can be read through its own root: entry 510 of it, as on x86_64.
pub(super) const SELF_MAP: VirtAddr = VirtAddr(0xffff_ff00_0000_0000);

/// A cached translation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Leaf {
    pub(super) asid: u16,
    /// It matches whatever tag is current.
    pub(super) global: bool,
    /// The root that it was found by.
    pub(super) root: PhysAddr,
    /// The level of the entry that says so.
    pub(super) at: Level,
    pub(super) start: u64,
    pub(super) bytes: u64,
    pub(super) page: PhysAddr,
    pub(super) write: bool,
    /// Where the entry is.
    pub(super) slot: PhysAddr,
    /// The entry is dirty: hardware need not look at it again before it writes.
    pub(super) dirty: bool,
}

impl Leaf {
    /// Where `va` leads by it.
    pub(super) fn leads(&self, va: VirtAddr) -> PhysAddr {
        PhysAddr(self.page.0 + (va.0 - self.start))
    }
}

/// An entry that points at a table: cached, or where a walk is.
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
    /// No cache has it, but a walk that is under way.
    pub(super) under_way: bool,
}

/// What each of the caches keeps at most; the oldest goes.
const CAPACITY: usize = 64;

#[derive(Debug)]
pub(super) struct Mmu {
    pub(super) root: Option<(PhysAddr, u16)>,
    /// A 2 MiB leaf is a page where a walk of four levels ends on it.
    pub(super) leaf_reads: bool,
    /// Entries are made global.
    pub(super) global: bool,
    pub(super) leaves: Vec<Leaf>,
    pub(super) above: Vec<Above>,
    pub(super) arriving: Vec<(u16, Invalidation)>,
    pub(super) parts: Parts,
}

impl Default for Mmu {
    fn default() -> Mmu {
        let (leaves, above, arriving) = (Vec::new(), Vec::new(), Vec::new());
        Mmu { root: None, leaf_reads: false, global: false, leaves, above, arriving, parts: Parts::ALL }
    }
}

fn covers(start: u64, bytes: u64, va: VirtAddr) -> bool {
    start <= va.0 && va.0 - start < bytes
}

/// Whether what is cached for `start` is among what an invalidation names: the range, and pages of the recursive
/// mapping.
fn named(start: u64, bytes: u64, what: &Invalidation) -> bool {
    let overlaps =
        |first: u64, length: u64| start < first.saturating_add(length) && first < start.saturating_add(bytes);
    let pages = what.recursive_pages(SELF_MAP);
    overlaps(what.start.0, what.end.0.saturating_sub(what.start.0))
        || pages.iter().any(|pages| overlaps(pages.first.0, pages.count << 12))
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
    /// Loads a root; where translations are not tagged, nothing cached is left but what is global.
    pub(super) fn load(&mut self, root: Option<(PhysAddr, u16)>, tagged: bool) {
        self.root = root;
        if !tagged {
            self.leaves.retain(|leaf| leaf.global);
            self.above.clear();
        }
    }

    /// Drops what `what` names; entries above the leaves only if it says so and the hardware does so.
    pub(super) fn invalidate(&mut self, asid: u16, what: &Invalidation, hardware: &Hardware) {
        let what = &match self.parts.by_address {
            true => *what,
            false => Invalidation { tables: true, ..Invalidation::ALL },
        };
        // By address space it leaves what is global, by address it does not.
        let gone = |leaf: &Leaf| match what.all {
            true => leaf.asid == asid && !leaf.global,
            false => (leaf.asid == asid || leaf.global) && named(leaf.start, leaf.bytes, what),
        };
        self.leaves.retain(|leaf| !gone(leaf));
        let recursive = what.recursive_pages(SELF_MAP).iter().any(|pages| pages.count > 0);
        if (what.tables || recursive) && hardware.all_levels {
            let all = what.all || !hardware.on_the_way;
            self.above.retain(|above| above.asid != asid || !(all || named(above.start, above.bytes, what)));
        }
    }

    /// The translations of `va` that are cached, the newest first. More than one: see [`super::hardware::Conflict`].
    pub(super) fn cached(&self, va: VirtAddr) -> impl Iterator<Item = Leaf> + '_ {
        let asid = self.root.map(|(_, asid)| asid);
        let here = move |l: &&Leaf| asid.is_some_and(|a| l.global || l.asid == a) && covers(l.start, l.bytes, va);
        self.leaves.iter().rev().filter(here).copied()
    }

    /// Walks for `va` and caches what it meets; `from_cache`: from the lowest table that is cached, else from the root.
    pub(super) fn walk(&mut self, va: VirtAddr, from_cache: bool, read: impl Fn(PhysAddr) -> u64) -> Option<Leaf> {
        let (root, asid) = self.root?;
        let (mut table, mut level) = (root, Level::Pgd);
        if from_cache {
            let known = self.above.iter().filter(|a| a.asid == asid && covers(a.start, a.bytes, va));
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
            if above.asid == asid && covers(above.start, above.bytes, va) {
                self.walk_from(above.root, asid, above.table, above.level, va, &read);
            }
        }
    }

    /// Hardware has written by `leaf`, and its entry is dirty now.
    pub(super) fn dirtied(&mut self, leaf: Leaf) {
        remember(&mut self.leaves, Leaf { dirty: true, ..leaf });
    }

    /// Everything that a translation of `va` could read: entries on the way, from the root and from each table that is
    /// cached, and what it leads to.
    pub(super) fn could_read(&self, va: VirtAddr, read: impl Fn(PhysAddr) -> u64) -> Vec<PhysAddr> {
        let Some((root, asid)) = self.root else { return Vec::new() };
        let cached = self.above.iter().filter(|a| a.asid == asid && covers(a.start, a.bytes, va));
        let begins = cached.map(|a| (a.table, a.level)).chain([(root, Level::Pgd)]);
        let mut found: Vec<PhysAddr> = self.cached(va).map(|leaf| leaf.leads(va)).collect();
        for (mut table, mut level) in begins {
            loop {
                let at = slot(table, level, va);
                found.push(at);
                match (self.says(level, read(at)), level.below()) {
                    (Entry::Table(next), Some(below)) => (table, level) = (next, below),
                    (Entry::Leaf { page, .. }, _) => {
                        found.push(PhysAddr(page.0 + va.0 % level.entry_size()));
                        break;
                    }
                    _ => break,
                }
            }
        }
        found
    }

    /// Where the leaf for `va` is, if there is one.
    pub(super) fn leaf_slot(&self, va: VirtAddr, read: impl Fn(PhysAddr) -> u64) -> Option<PhysAddr> {
        let (mut table, mut level) = (self.root?.0, Level::Pgd);
        loop {
            let at = slot(table, level, va);
            match self.says(level, read(at)) {
                Entry::Table(next) => (table, level) = (next, level.below()?),
                Entry::Leaf { .. } => return Some(at),
                Entry::Absent => return None,
            }
        }
    }

    /// What an entry is to the hardware.
    fn says(&self, level: Level, raw: u64) -> Entry {
        match Codec::decode(level, raw) {
            Entry::Table(page) if level == Level::Pte => Entry::Leaf { page, perm: Perm::empty() },
            Entry::Leaf { .. } if level == Level::Pte && codec::is_huge(raw) && !self.leaf_reads => Entry::Absent,
            entry => entry,
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
            let raw = read(slot(table, level, va));
            let (start, bytes) = (va.align_down(level).0, level.entry_size());
            match self.says(level, raw) {
                Entry::Absent => return None,
                Entry::Leaf { page, perm } => {
                    let (write, global) = (perm.contains(Perm::WRITE), self.global);
                    let (slot, dirty) = (slot(table, level, va), codec::is_dirty(raw));
                    let leaf = Leaf { asid, global, root, at: level, start, bytes, page, write, slot, dirty };
                    if self.parts.tlb {
                        remember(&mut self.leaves, leaf);
                    }
                    return Some(leaf);
                }
                Entry::Table(next) => {
                    let at = level;
                    level = level.below()?;
                    table = next;
                    let cached = self.parts.walk_caches[3 - at as usize];
                    if cached || self.parts.stepwise {
                        let under_way = !cached;
                        remember(&mut self.above, Above { asid, root, at, start, bytes, level, table, under_way });
                    }
                }
            }
        }
    }

    /// What the entry of level `at` for `va` is now, by the tables from `root` on.
    fn now(&self, root: PhysAddr, va: VirtAddr, at: Level, read: impl Fn(PhysAddr) -> u64) -> Option<Entry> {
        let (mut table, mut level) = (root, Level::Pgd);
        loop {
            match self.says(level, read(slot(table, level, va))) {
                Entry::Table(next) if level != at => (table, level) = (next, level.below()?),
                entry => return (level == at).then_some(entry),
            }
        }
    }

    /// What is cached here and is no longer what memory says, in words: of entries above the leaves, and, if `leaves`,
    /// of translations.
    pub(super) fn stale(&self, leaves: bool, read: impl Fn(PhysAddr) -> u64) -> Option<String> {
        let now = |root, start, at| self.now(root, VirtAddr(start), at, &read);
        let above = self.above.iter().find(|a| now(a.root, a.start, a.at) != Some(Entry::Table(a.table)));
        let leads = |l: &Leaf| matches!(now(l.root, l.start, l.at), Some(Entry::Leaf { page, .. }) if page == l.page);
        let leaf = self.leaves.iter().find(|leaf| leaves && !leads(leaf));
        match (above, leaf) {
            (Some(above), _) => {
                let what = if above.under_way { "a walk under way by the entry" } else { "the entry" };
                Some(format!("{what} for {} that pointed at {}", VirtAddr(above.start), above.table))
            }
            (None, Some(leaf)) => Some(format!("a translation of {} to {}", VirtAddr(leaf.start), leaf.page)),
            (None, None) => None,
        }
    }

    /// What is cached under `asid` and was found by another root than `root`, in words: by it `root`'s address space
    /// would be translated wrongly.
    pub(super) fn of_another(&self, asid: u16, root: PhysAddr) -> Option<String> {
        let leaf = self.leaves.iter().find(|l| (l.asid == asid || l.global) && l.root != root);
        let above = self.above.iter().find(|a| a.asid == asid && a.root != root);
        let leaf = leaf.map(|l| format!("a translation of {} to {}", VirtAddr(l.start), l.page));
        leaf.or_else(|| above.map(|a| format!("the entry for {} that points at {}", VirtAddr(a.start), a.table)))
    }

    /// An address for which two translations are cached under the present tag that do not agree where they lead.
    pub(super) fn conflict(&self, va: VirtAddr) -> Option<(PhysAddr, PhysAddr)> {
        let first = self.cached(va).next()?.leads(va);
        self.cached(va).map(|leaf| leaf.leads(va)).find(|other| *other != first).map(|other| (first, other))
    }

    /// Whether anything cached leads to the 4 KiB at `frame`: (a leaf, an entry above).
    pub(super) fn leads_to(&self, frame: PhysAddr) -> (bool, bool) {
        let leaf = self.leaves.iter().any(|l| covers(l.page.0, l.bytes, VirtAddr(frame.0)));
        (leaf, self.above.iter().any(|a| a.table == frame))
    }
}

/// Where the entry for `va` of a table of `level` is.
fn slot(table: PhysAddr, level: Level, va: VirtAddr) -> PhysAddr {
    PhysAddr(table.0 + 8 * va.index(level) as u64)
}
