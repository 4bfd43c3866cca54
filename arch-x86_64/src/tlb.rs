//! Which instructions invalidate what on this CPU. What does it on all of them is in [`crate::invlpgb`].
//!
//! INVLPG drops the translations of one page (of whatever size it is), global ones too, and *all* paging-structure
//! caches of the current PCID whatever the address (Intel SDM volume 3, 4.10.4.1; AMD APM volume 2, 3.1.7, as long as
//! EFER.TCE is 0, which it is). So one INVLPG per changed leaf is enough also where tables were unlinked, as long as
//! there is at least one. A write of CR3 drops everything of its PCID that is not global; no user entry is.
//!
//! Where translations are not tagged ([`crate::features`]) the PCID is always 0, and an mm that is not loaded on this
//! CPU has nothing here to invalidate: loading another wrote CR3. Where they are, an mm may have left translations
//! here. INVPCID drops those, by address or all; by address it takes the caches on the way to *that* address and no
//! others, which is enough, since a plan names every leaf of its range. An mm that is loaded still takes INVLPG: it is
//! cheaper.

use kernel::addr::{PAGE_SIZE, VirtAddr};
use kernel::arch::Asid;
use kernel::mm::self_map::{Pages, Recursive};
use kernel::tlb::invalidation::Invalidation;
use x86_64::structures::paging::PageTableFlags as Flags;

/// Where the mm that is loaded reads its own tables ([`kernel::arch::Arch::SELF_MAP`]): entry 510 of the root, in the
/// kernel half but not shared by the roots.
pub const SELF_MAP: VirtAddr = VirtAddr(0xffff_ff00_0000_0000);
/// The bits of that entry. Rights are the least that any level allows, so all that is read through it is closed to user
/// mode (and to no refusal of user pages), read-only and not executable, though the table entries below allow
/// everything. Not global, and neither is a table entry, which is a leaf here.
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

/// Whose translations go, as the CPU that executes a plan sees it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Whose {
    /// The mm that is loaded; where nothing is tagged, whatever is there.
    Loaded,
    /// Another mm, with this tag.
    Tagged(Asid),
}

impl Whose {
    /// Those of `asid`, while the PCID of CR3 is `loaded`; `None` where nothing is tagged.
    #[inline]
    pub fn of(asid: Asid, loaded: Option<Asid>) -> Whose {
        if loaded.is_none_or(|loaded| loaded == asid) { Whose::Loaded } else { Whose::Tagged(asid) }
    }
}

/// One invalidation instruction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Op {
    /// CR3 is written with what it holds.
    WriteCr3,
    /// One page of the mm that is loaded, and its paging-structure caches.
    Invlpg(VirtAddr),
    /// One page of a tag, and the paging-structure caches on the way to it: INVPCID of type 0.
    InvpcidPage(Asid, VirtAddr),
    /// Everything of a tag: INVPCID of type 1.
    InvpcidSpace(Asid),
}

impl Plan {
    /// Says to `say` each instruction that carries this out. As many as [`Plan::instructions`].
    #[inline(always)]
    pub fn each(&self, whose: Whose, mut say: impl FnMut(Op)) {
        match (self, whose) {
            (Plan::Everything, Whose::Loaded) => say(Op::WriteCr3),
            (Plan::Everything, Whose::Tagged(asid)) => say(Op::InvpcidSpace(asid)),
            (Plan::Pages { .. }, Whose::Loaded) => self.each_page(|va| say(Op::Invlpg(va))),
            (Plan::Pages { .. }, Whose::Tagged(asid)) => self.each_page(|va| say(Op::InvpcidPage(asid, va))),
        }
    }

    #[inline(always)]
    fn each_page(&self, mut say: impl FnMut(VirtAddr)) {
        let Plan::Pages { first, step, count, recursive } = self else { return };
        (0..*count).for_each(|n| say(VirtAddr(first.0 + n * step)));
        for pages in recursive {
            (0..pages.count).for_each(|n| say(VirtAddr(pages.first.0 + n * PAGE_SIZE)));
        }
    }
}

/// Carries `plan` out on this CPU, for the mm tagged `asid`.
#[cfg(all(target_arch = "x86_64", target_os = "none"))]
#[inline]
pub fn execute(plan: Plan, asid: Asid) {
    use crate::features;
    use x86_64::instructions::tlb::{InvPcidCommand, Pcid, flush, flush_pcid};
    use x86_64::registers::control::Cr3;

    const TAG: &str = "the kernel hands out no tag above 4095";
    let tags = features::tags();
    let loaded = tags.then(|| Asid(Cr3::read_raw().1));
    plan.each(Whose::of(asid, loaded), |op| match op {
        Op::WriteCr3 => {
            let (root, low) = Cr3::read_raw();
            // SAFETY: what CR3 holds already. Where PCID is off its low bits are 0.
            unsafe { Cr3::write_raw(root, low) }
        }
        Op::Invlpg(va) => flush(x86_64::VirtAddr::new_truncate(va.0)),
        // SAFETY, both: only where PCID and INVPCID were found is anything tagged.
        Op::InvpcidPage(asid, va) => unsafe {
            flush_pcid(InvPcidCommand::Address(x86_64::VirtAddr::new_truncate(va.0), Pcid::new(asid.0).expect(TAG)))
        },
        Op::InvpcidSpace(asid) => unsafe { flush_pcid(InvPcidCommand::Single(Pcid::new(asid.0).expect(TAG))) },
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use kernel::addr::{Level, PMD_SIZE, PhysAddr};
    use kernel::mm::entry::{Entry, EntryCodec, Perm};

    use crate::entry::Codec;

    const NONE: [Pages; 3] = [Pages { first: VirtAddr(0), count: 0 }; 3];

    fn range(start: u64, end: u64, stride: Level, tables: bool) -> Invalidation {
        let recursive = Recursive::Unused;
        Invalidation { start: VirtAddr(start), end: VirtAddr(end), stride, tables, all: false, recursive }
    }

    fn said(plan: Plan, whose: Whose) -> std::vec::Vec<Op> {
        let mut said = std::vec::Vec::new();
        plan.each(whose, |op| said.push(op));
        assert_eq!(said.len(), plan.instructions() as usize);
        said
    }

    #[test]
    fn an_mm_that_is_loaded_takes_invlpg_and_another_invpcid() {
        let asid = Asid(0xabc);
        let two = Plan::of(&range(0x1000, 0x3000, Level::Pte, true));
        assert_eq!(said(two, Whose::of(asid, Some(asid))), [0x1000, 0x2000].map(|va| Op::Invlpg(VirtAddr(va))));
        assert_eq!(said(two, Whose::of(asid, None)), [0x1000, 0x2000].map(|va| Op::Invlpg(VirtAddr(va))));
        let elsewhere = Whose::of(asid, Some(Asid(0)));
        assert_eq!(said(two, elsewhere), [0x1000, 0x2000].map(|va| Op::InvpcidPage(asid, VirtAddr(va))));
        let all = Plan::of(&Invalidation::ALL);
        assert_eq!(said(all, Whose::of(asid, Some(asid))), [Op::WriteCr3]);
        assert_eq!(said(all, elsewhere), [Op::InvpcidSpace(asid)]);
    }

    #[test]
    fn the_recursive_addresses_come_after_the_range() {
        let mut what = range(PMD_SIZE, 2 * PMD_SIZE, Level::Pmd, false);
        what.recursive = Recursive::Removed(Level::Pte);
        let pages = [PMD_SIZE, 0xffff_ff00_0000_1000].map(VirtAddr);
        assert_eq!(said(Plan::of(&what), Whose::Loaded), pages.map(Op::Invlpg));
        assert_eq!(said(Plan::of(&what), Whose::Tagged(Asid(7))), pages.map(|va| Op::InvpcidPage(Asid(7), va)));
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

    /// What the last lookup of a recursive walk makes of entries: a table entry is a page, and so, on this
    /// architecture, is a 2 MiB leaf, whose first 4 KiB are then read as entries. The hazard that `LEAF_READS_AS_TABLE`
    /// stands for.
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
