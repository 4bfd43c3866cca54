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
use kernel::tlb::invalidation::Invalidation;

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
    },
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
        // An empty range with tables unlinked still has paging-structure caches to drop.
        if count > CEILING || (count == 0 && what.tables) {
            return Plan::Everything;
        }
        Plan::Pages { first, step, count }
    }

    /// How many instructions that is.
    #[inline]
    pub const fn instructions(&self) -> u32 {
        match self {
            Plan::Everything => 1,
            Plan::Pages { count, .. } => *count as u32,
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
        Plan::Pages { first, step, count } => {
            for i in 0..count {
                tlb::flush(x86_64::VirtAddr::new_truncate(first.0 + i * step));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kernel::addr::{Level, PAGE_SIZE, PMD_SIZE};

    fn range(start: u64, end: u64, stride: Level, tables: bool) -> Invalidation {
        Invalidation { start: VirtAddr(start), end: VirtAddr(end), stride, tables, all: false }
    }

    #[test]
    fn one_instruction_for_each_leaf_up_to_the_ceiling() {
        let plan = Plan::of(&range(0x1000, 0x1000 + CEILING * PAGE_SIZE, Level::Pte, false));
        assert_eq!(plan, Plan::Pages { first: VirtAddr(0x1000), step: PAGE_SIZE, count: CEILING });
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
        assert_eq!(plan, Plan::Pages { first: VirtAddr(PMD_SIZE), step: PMD_SIZE, count: 1 });
    }

    #[test]
    fn a_range_within_an_entry_takes_that_entry() {
        let plan = Plan::of(&range(PMD_SIZE + 0x3000, PMD_SIZE + 0x4000, Level::Pmd, true));
        assert_eq!(plan, Plan::Pages { first: VirtAddr(PMD_SIZE), step: PMD_SIZE, count: 1 });
        let plan = Plan::of(&range(PMD_SIZE - 0x1000, PMD_SIZE + 0x1000, Level::Pmd, true));
        assert_eq!(plan, Plan::Pages { first: VirtAddr(0), step: PMD_SIZE, count: 2 });
    }

    #[test]
    fn unlinked_tables_are_never_forgotten() {
        assert_eq!(Plan::of(&range(0x5000, 0x5000, Level::Pte, true)), Plan::Everything);
        assert_eq!(Plan::of(&range(0x5000, 0x5000, Level::Pte, false)).instructions(), 0);
        assert_eq!(Plan::of(&Invalidation::ALL), Plan::Everything);
    }
}
