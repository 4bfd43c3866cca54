//! Which instructions invalidate what.
//!
//! INVLPG drops the translations of one page (of whatever size it is), global ones too, and *all* paging-structure caches of the
//! current PCID whatever the address (Intel SDM volume 3, 4.10.4.1; AMD APM volume 2, 3.1.7, as long as EFER.TCE
//! is 0, which it is). So one INVLPG per changed leaf is
//! enough also where tables were unlinked, as long as there is at least one. A write of CR3 drops everything that is not
//! global; no user entry is. PCID is not used, so the "current PCID" is always 0, and an mm that is not loaded on this CPU has nothing
//! here to invalidate: loading it wrote CR3.
//!
//! There is no broadcast: INVLPGB exists on some AMD processors and not in QEMU.

use kernel::addr::VirtAddr;
use kernel::mm::self_map::{Pages, Recursive};
use kernel::tlb::invalidation::Invalidation;
use x86_64::structures::paging::PageTableFlags as Flags;

/// Where the mm that is loaded reads its own tables ([`kernel::arch::Arch::SELF_MAP`]): entry 510 of the root, in the kernel half but not shared by the roots.
pub const SELF_MAP: VirtAddr = VirtAddr(0xffff_ff00_0000_0000);
/// The bits of that entry. Rights are the least that any level allows, so all that is read through it is closed to user mode (and to no refusal of user
/// pages), read-only and not executable, though the table entries below allow everything. Not global, and neither is a table entry, which is a leaf here.
pub const SELF_ENTRY: u64 = Flags::PRESENT.union(Flags::ACCESSED).union(Flags::NO_EXECUTE).bits();

/// Above this many leaves, CR3 is written instead.
pub const CEILING: u64 = 33;

/// How one invalidation is done on one CPU.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Plan {
    /// One write of CR3.
    Everything,
    /// `count` times INVLPG, every `step` bytes from `first`.
    Pages {
        /// First address.
        first: VirtAddr,
        /// Bytes from one to the next.
        step: u64,
        /// How many.
        count: u64,
        /// Pages of the recursive mapping, after them.
        recursive: [Pages; 3],
    },
}

/// How many pages that is.
const fn total(recursive: &[Pages; 3]) -> u64 {
    recursive[0].count + recursive[1].count + recursive[2].count
}

impl Plan {
    /// The cheapest plan that covers `what`.
    #[inline]
    pub const fn of(what: &Invalidation) -> Plan {
        if what.all {
            return Plan::Everything;
        }
        let first = what.start.align_down(what.stride);
        let step = what.stride.entry_size();
        let count = (what.end.0 - first.0).div_ceil(step);
        let recursive = what.recursive_pages(SELF_MAP);
        // The control must not drop by accident what it leaves out.
        let exact = matches!(what.recursive, Recursive::LeftOut);
        // An empty range with tables unlinked still has paging-structure caches to drop.
        if (count + total(&recursive) > CEILING && !exact) || (count == 0 && what.tables) {
            return Plan::Everything;
        }
        Plan::Pages { first, step, count, recursive }
    }

    /// How many instructions that is.
    #[inline]
    pub const fn instructions(&self) -> u32 {
        match self {
            Plan::Everything => 1,
            Plan::Pages { count, recursive, .. } => (*count + total(recursive)) as u32,
        }
    }
}

/// Carries `plan` out on this CPU.
#[cfg(all(target_arch = "x86_64", target_os = "none"))]
#[inline]
pub fn execute(plan: Plan) {
    use x86_64::instructions::tlb;
    match plan {
        Plan::Everything => tlb::flush_all(),
        Plan::Pages { first, step, count, recursive } => {
            flush(first, step, count);
            for pages in recursive {
                flush(pages.first, kernel::addr::PAGE_SIZE, pages.count);
            }
        }
    }
}

#[cfg(all(target_arch = "x86_64", target_os = "none"))]
#[inline]
fn flush(first: VirtAddr, step: u64, count: u64) {
    for i in 0..count {
        x86_64::instructions::tlb::flush(x86_64::VirtAddr::new_truncate(first.0 + i * step));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kernel::addr::{Level, PAGE_SIZE, PMD_SIZE, PhysAddr};
    use kernel::mm::entry::{Entry, EntryCodec, Perm};

    use crate::entry::Codec;

    const NONE: [Pages; 3] = [Pages { first: VirtAddr(0), count: 0 }; 3];

    fn range(start: u64, end: u64, stride: Level, tables: bool) -> Invalidation {
        let recursive = Recursive::Unused;
        Invalidation { start: VirtAddr(start), end: VirtAddr(end), stride, tables, all: false, recursive }
    }

    #[test]
    fn one_instruction_for_each_leaf_up_to_the_ceiling() {
        let plan = Plan::of(&range(0x1000, 0x1000 + CEILING * PAGE_SIZE, Level::Pte, false));
        assert_eq!(plan, Plan::Pages { first: VirtAddr(0x1000), step: PAGE_SIZE, count: CEILING, recursive: NONE });
        assert_eq!(plan.instructions(), 33);
    }

    #[test]
    fn everything_above_the_ceiling() {
        let plan = Plan::of(&range(0, (CEILING + 1) * PAGE_SIZE, Level::Pte, false));
        assert_eq!(plan, Plan::Everything);
        assert_eq!(plan.instructions(), 1);
    }

    #[test]
    fn a_large_page_takes_one() {
        let plan = Plan::of(&range(PMD_SIZE, 2 * PMD_SIZE, Level::Pmd, false));
        assert_eq!(plan, Plan::Pages { first: VirtAddr(PMD_SIZE), step: PMD_SIZE, count: 1, recursive: NONE });
    }

    #[test]
    fn a_range_within_an_entry_takes_that_entry() {
        let plan = Plan::of(&range(PMD_SIZE + 0x3000, PMD_SIZE + 0x4000, Level::Pmd, true));
        assert_eq!(plan, Plan::Pages { first: VirtAddr(PMD_SIZE), step: PMD_SIZE, count: 1, recursive: NONE });
        let plan = Plan::of(&range(PMD_SIZE - 0x1000, PMD_SIZE + 0x1000, Level::Pmd, true));
        assert_eq!(plan, Plan::Pages { first: VirtAddr(0), step: PMD_SIZE, count: 2, recursive: NONE });
    }

    #[test]
    fn a_removed_table_costs_one_more_and_a_leaf_too() {
        let mut what = range(PMD_SIZE, 2 * PMD_SIZE, Level::Pmd, false);
        what.recursive = Recursive::Removed(Level::Pte);
        let plan = Plan::of(&what);
        assert_eq!(plan.instructions(), 2);
        let Plan::Pages { recursive, .. } = plan else { panic!("{plan:?}") };
        assert_eq!(recursive[0], Pages { first: VirtAddr(0xffff_ff00_0000_1000), count: 1 });
        // With the 512 pages of the table's own range, all go at once, the recursive addresses among them.
        let mut what = range(PMD_SIZE, 2 * PMD_SIZE, Level::Pte, true);
        what.recursive = Recursive::Removed(Level::Pte);
        assert_eq!(Plan::of(&what), Plan::Everything);
        let mut what = range(0, 1 << 30, Level::Pud, true);
        what.recursive = Recursive::Removed(Level::Pmd);
        assert_eq!(Plan::of(&what), Plan::Everything);
    }

    /// The control invalidates the range and nothing by accident.
    #[test]
    fn what_is_left_out_is_left_out() {
        let mut what = range(PMD_SIZE, 2 * PMD_SIZE, Level::Pte, true);
        what.recursive = Recursive::LeftOut;
        assert_eq!(
            Plan::of(&what),
            Plan::Pages { first: VirtAddr(PMD_SIZE), step: PAGE_SIZE, count: 512, recursive: NONE }
        );
    }

    /// What the last lookup of a recursive walk makes of entries: a table entry is a page, and so, on this architecture, is a 2 MiB leaf, whose first
    /// 4 KiB are then read as entries. The hazard that `LEAF_READS_AS_TABLE` stands for.
    #[test]
    fn a_table_reads_as_a_page_and_so_does_a_large_leaf() {
        let table = PhysAddr(0x1234_5000);
        assert!(matches!(Codec::decode(Level::Pte, Codec::table(table)), Entry::Leaf { page, .. } if page == table));
        let large = PhysAddr(0x40_0000);
        for perm in [Perm::empty(), Perm::WRITE, Perm::EXEC] {
            let raw = Codec::leaf(Level::Pmd, large, perm);
            assert!(matches!(Codec::decode(Level::Pte, raw), Entry::Leaf { page, .. } if page == large));
        }
    }

    #[test]
    fn the_recursive_mapping_is_closed_read_only_and_not_global() {
        let entry = Flags::from_bits_retain(SELF_ENTRY);
        assert!(entry.contains(Flags::PRESENT | Flags::NO_EXECUTE));
        assert!(!entry.intersects(Flags::WRITABLE | Flags::USER_ACCESSIBLE | Flags::GLOBAL | Flags::HUGE_PAGE));
        assert_eq!(Codec::table(PhysAddr(0x1000)) & Flags::GLOBAL.bits(), 0);
        assert_eq!(SELF_MAP.index(Level::Pgd), 510);
        assert!(SELF_MAP.is_aligned(Level::Pgd));
    }

    #[test]
    fn unlinked_tables_are_never_forgotten() {
        assert_eq!(Plan::of(&range(0x5000, 0x5000, Level::Pte, true)), Plan::Everything);
        assert_eq!(Plan::of(&range(0x5000, 0x5000, Level::Pte, false)).instructions(), 0);
        assert_eq!(Plan::of(&Invalidation::ALL), Plan::Everything);
    }
}
