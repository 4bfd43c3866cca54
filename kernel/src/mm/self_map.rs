//! The recursive mapping: an mm's root has one entry that points at the root itself, and through it every table of the
//! mm can be read at an address that depends only on what it maps.
//!
//! In the 512 GiB from [`Arch::SELF_MAP`] on, the last lookup of a translation ends not on a leaf but on the entry that
//! points at a table, one level up. So entry `n` of the PTE tables, counted over the whole mm, is word `n` from the
//! base on; of the PMD tables, word `n` of the part whose second index is the slot's again; and so on
//! ([`entry_address`]). The translation of such an address is cached like any other, and so it has to be flushed like
//! any other: once the entry that points at a table has been cleared *and a flush has covered the table's recursive
//! address*, reading there faults.
//!
//! That is what strategy [`crate::sync::self_map`] rests on, and no other: what is asked for here is
//! [`Recursive::Unused`] for all others. Two things have to be flushed:
//!
//! - every **table that was unlinked**: one page for each PTE table; for a PMD table one page, and 512 for all that
//!   could be read below it;
//! - where a 2 MiB leaf reads as a page of entries ([`Arch::LEAF_READS_AS_TABLE`]), every **such leaf that is
//!   removed**, and that before a table is linked in its place: else a walk that finds the new table would read entries
//!   from the old page, whose contents are the user's.

use crate::addr::{ENTRIES, Level, PAGE_SIZE, VirtAddr};
use crate::arch::Arch;
use crate::guard;
use crate::mm::address_space::Mm;
use crate::smp::cpu::Cpu;
use crate::tlb::invalidation::Invalidation;
use crate::tlb::transport;

/// Which translations of the recursive mapping an invalidation must cover beside the range itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Recursive {
    /// None: nobody reads through it, or nothing that could be read was removed.
    #[default]
    Unused,
    /// Those that reach tables up to this level, for the range.
    Removed(Level),
    /// None, though they are used: the control without guard `SelfMapFlush`. What is invalidated is then the range,
    /// entry by entry, and nothing that would cover more by accident.
    LeftOut,
}

/// Pages in a row.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Pages {
    /// The first one.
    pub first: VirtAddr,
    /// How many.
    pub count: u64,
}

/// Where the recursive addresses of the entries of `level` begin, if the mapping begins at `base`.
const fn origin(base: VirtAddr, level: Level) -> u64 {
    let slot = (base.0 >> Level::Pgd.shift()) % ENTRIES as u64;
    let mut origin = base.0;
    let mut at = Level::Pte;
    while (at as u8) < level as u8 {
        // The slot's index once more, one level further down.
        origin += slot << (Level::Pgd.shift() - 9 * (at as u32 + 1));
        at = match at {
            Level::Pte => Level::Pmd,
            Level::Pmd => Level::Pud,
            _ => Level::Pgd,
        };
    }
    origin
}

/// Where the entry of `level` for `va` can be read, if the mapping begins at `base`. `va` is in the user half.
#[inline(always)]
pub const fn entry_address(base: VirtAddr, level: Level, va: VirtAddr) -> VirtAddr {
    VirtAddr(origin(base, level) + (va.0 >> level.shift() << 3))
}

/// For each level from PTE up to `level`, the pages through which the entries for `start..end` are read. Unused ones
/// are empty.
pub const fn pages(base: VirtAddr, level: Level, start: VirtAddr, end: VirtAddr) -> [Pages; 3] {
    let mut all = [Pages { first: VirtAddr(0), count: 0 }; 3];
    if start.0 >= end.0 {
        return all;
    }
    let levels = [Level::Pte, Level::Pmd, Level::Pud];
    let mut i = 0;
    while i < levels.len() && levels[i] as u8 <= level as u8 {
        let first = entry_address(base, levels[i], start).align_down(Level::Pte);
        let last = entry_address(base, levels[i], VirtAddr(end.0 - 1)).align_down(Level::Pte);
        all[i] = Pages { first, count: (last.0 - first.0) / PAGE_SIZE + 1 };
        i += 1;
    }
    all
}

impl Invalidation {
    /// The pages of the recursive mapping at `base` that go with this invalidation.
    #[inline]
    pub const fn recursive_pages(&self, base: VirtAddr) -> [Pages; 3] {
        match self.recursive {
            Recursive::Removed(level) => pages(base, level, self.start, self.end),
            Recursive::Unused | Recursive::LeftOut => [Pages { first: VirtAddr(0), count: 0 }; 3],
        }
    }
}

/// What an invalidation must cover after tables up to level `removed` were unlinked, under the strategy of the run.
pub(crate) fn covering<A: Arch>(removed: Option<Level>) -> Recursive {
    match removed {
        Some(level) if A::machine().policy.strategy().self_map => {
            if guard!(SelfMapFlush) {
                Recursive::Removed(level)
            } else {
                Recursive::LeftOut
            }
        }
        _ => Recursive::Unused,
    }
}

/// What can be read through a 2 MiB leaf as if it were a table, for [`covering`].
pub(super) fn read_through_leaf<A: Arch>() -> Option<Level> {
    (A::LEAF_READS_AS_TABLE && guard!(SelfMapLeaf)).then_some(Level::Pte)
}

/// A 2 MiB leaf at `va` was cleared by an operation that does not keep faults away, and its PMD table's lock is still
/// held. Flushes it if a walk could read entries from what will be there next through a translation of the leaf; says
/// whether it did.
pub(super) fn leaf_goes<A: Arch>(cpu: &'static Cpu<A>, mm: &Mm<A>, va: VirtAddr) -> bool {
    let recursive = covering::<A>(read_through_leaf::<A>());
    if recursive == Recursive::Unused {
        return false;
    }
    let end = va.add(Level::Pmd.entry_size());
    let what = Invalidation { start: va, end, stride: Level::Pmd, tables: false, all: false, recursive };
    let _ = transport::flush(cpu, mm, what);
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    /// In the upper half (canonical form), and in the lower one.
    const BASES: [u64; 2] = [0xffff_ff00_0000_0000, 511 << 39];

    /// One step of recursion, by what the hardware does: the indices of `address` move down by one level, and the
    /// slot's comes in on top.
    fn once_more(base: VirtAddr, address: u64) -> u64 {
        base.0 + ((address & ((1 << 48) - 1)) >> 9 & !7)
    }

    fn some_addresses() -> impl Iterator<Item = VirtAddr> {
        let edges = [0, 0x1000, 0x1f_f000, 0x20_0000, 0x3fff_f000, 0x4000_0000, 0x10_0400_0000, (511 << 39) - 0x1000];
        edges.into_iter().chain((12..48).map(|bit| 1 << bit)).filter(|va| *va < 511 << 39).map(VirtAddr)
    }

    #[test]
    fn an_entry_is_where_recursion_puts_it() {
        for base in BASES.map(VirtAddr) {
            for va in some_addresses() {
                let mut expected = va.0;
                for level in [Level::Pte, Level::Pmd, Level::Pud, Level::Pgd] {
                    expected = once_more(base, expected);
                    assert_eq!(entry_address(base, level, va), VirtAddr(expected), "{va} at {level:?} from {base}");
                }
            }
        }
    }

    /// Walks an address as the MMU does, over an mm in which every entry exists, and says which table the last lookup
    /// ends on: the indices that lead there from the root after the slots were used up.
    #[test]
    fn the_last_lookup_ends_on_the_right_table() {
        for base in BASES.map(VirtAddr) {
            let slot = base.index(Level::Pgd);
            for va in some_addresses() {
                for (level, recursions) in [(Level::Pte, 1), (Level::Pmd, 2), (Level::Pud, 3)] {
                    let at = entry_address(base, level, va);
                    let down = [Level::Pgd, Level::Pud, Level::Pmd, Level::Pte];
                    let used: [usize; 4] = down.map(|l| at.index(l));
                    assert!(used[..recursions].iter().all(|i| *i == slot));
                    let led: [usize; 4] = down.map(|l| va.index(l));
                    assert_eq!(used[recursions..], led[..4 - recursions]);
                    assert_eq!(at.0 % PAGE_SIZE, va.index(level) as u64 * 8);
                }
            }
        }
    }

    #[test]
    fn one_page_for_a_pte_table_and_513_for_a_pmd_table() {
        let base = VirtAddr(BASES[1]);
        let count = |level, start, bytes| {
            pages(base, level, VirtAddr(start), VirtAddr(start + bytes)).iter().map(|p| p.count).sum::<u64>()
        };
        assert_eq!(count(Level::Pte, 0x4000_0000, 1 << 21), 1);
        assert_eq!(count(Level::Pmd, 0x4000_0000, 1 << 30), 513);
        assert_eq!(count(Level::Pud, 0, 1 << 39), 512 * 512 + 512 + 1);
        // A gather's range need not be aligned: both ends' tables count.
        assert_eq!(count(Level::Pte, 0x3f_f000, 0x2000), 2);
        assert_eq!(count(Level::Pte, 0x4000_0000, 0), 0);
    }

    #[test]
    fn every_entry_of_the_range_lies_in_its_pages() {
        let base = VirtAddr(BASES[0]);
        let (start, end) = (VirtAddr(0x3f_f000), VirtAddr(0x8123_4000));
        let all = pages(base, Level::Pud, start, end);
        for (level, run) in [Level::Pte, Level::Pmd, Level::Pud].into_iter().zip(all) {
            let mut va = start;
            while va < end {
                let at = entry_address(base, level, va).0;
                assert!(run.first.0 <= at && at < run.first.0 + run.count * PAGE_SIZE);
                va = va.add(PAGE_SIZE);
            }
        }
    }
}
