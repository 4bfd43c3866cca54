//! The broadcast invalidation of some AMD processors: which INVLPGBs, with which operands, before which TLBSYNC.
//!
//! INVLPGB drops translations on every CPU, its own included, and interrupts none; it returns before that is done.
//! TLBSYNC waits until all INVLPGBs of *this* CPU are done everywhere; it says nothing of another CPU's, so both must
//! be executed by one CPU, which a flush is. INVLPGB is weakly ordered: a store that changed an entry must be visible
//! before it. It is: `begin_flush` has a full barrier between the store and the flush (AMD APM volume 3, INVLPGB and
//! TLBSYNC; the flags are also those of Linux's `tlb.h`).
//!
//! As on any machine with a broadcast, nobody acknowledges anything: a walk on another CPU goes on while its TLB is
//! invalidated under it.
//!
//! An operand that says "final translations only" leaves paging-structure caches alone: right for leaves, and a use
//! after free by hardware where tables were unlinked. QEMU has no such instruction, so [`plan`] says the steps one by
//! one to whoever listens; the tests compare them with the manual, the kernel (`run`) executes each.

use kernel::addr::{Level, PAGE_SIZE, VirtAddr};
use kernel::arch::Asid;
use kernel::mm::self_map::Pages;
use kernel::tlb::invalidation::Invalidation;

use crate::tlb::Plan;

/// The address counts.
pub const BY_ADDRESS: u64 = 1 << 0;
/// The PCID counts.
pub const BY_PCID: u64 = 1 << 1;
/// The ASID (of virtual machines; 0 is the host) counts.
pub const BY_ASID: u64 = 1 << 2;
/// Only final translations: no paging-structure caches.
pub const FINAL_ONLY: u64 = 1 << 4;

/// The operands of one INVLPGB.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Operands {
    /// Address in 63:12, what counts in 5:0.
    pub rax: u64,
    /// 2 MiB instead of 4 KiB from page to page in 31, pages beyond the first in 15:0.
    pub ecx: u32,
    /// PCID in 27:16, ASID in 15:0.
    pub edx: u32,
}

/// One instruction of the sequence.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// An invalidation is sent.
    Invlpgb(Operands),
    /// All that were sent from here are done.
    Tlbsync,
}

/// Who is flushed, and how much one instruction takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Target {
    /// The mm's tag; `None` where translations are not tagged: then those of every mm match.
    pub pcid: Option<Asid>,
    /// Pages that one INVLPGB takes, at least 1.
    pub pages: u32,
}

impl Target {
    const fn space(&self) -> Operands {
        match self.pcid {
            Some(pcid) => Operands { rax: BY_PCID | BY_ASID, ecx: 0, edx: (pcid.0 as u32) << 16 },
            None => Operands { rax: BY_ASID, ecx: 0, edx: 0 },
        }
    }

    /// `count` pages from `first` on, `step` bytes apart.
    fn run(&self, first: VirtAddr, step: u64, count: u64, final_only: bool, say: &mut impl FnMut(Step)) {
        // Steps of other sizes take an instruction each.
        let (large, most) = match step {
            PAGE_SIZE => (0, self.pages.into()),
            step if step == Level::Pmd.entry_size() => (1 << 31, self.pages.into()),
            _ => (0, 1),
        };
        let space = self.space();
        let mut done = 0;
        while done < count {
            let now = most.min(count - done);
            let address = first.0 + done * step;
            let rax = space.rax | BY_ADDRESS | address | if final_only { FINAL_ONLY } else { 0 };
            say(Step::Invlpgb(Operands { rax, ecx: large | (now - 1) as u32, edx: space.edx }));
            done += now;
        }
    }
}

/// Says to `say`, in order, the steps that invalidate `what` on every CPU. The ceiling is that of [`crate::tlb`].
pub fn plan(target: &Target, what: &Invalidation, mut say: impl FnMut(Step)) {
    match Plan::of(what) {
        Plan::Everything => say(Step::Invlpgb(target.space())),
        Plan::Pages { first, step, count, recursive } => {
            target.run(first, step, count, !what.tables, &mut say);
            // The last lookup ended on the entry that was cleared, and the caches may hold those on the way.
            for Pages { first, count } in recursive {
                target.run(first, PAGE_SIZE, count, false, &mut say);
            }
        }
    }
    say(Step::Tlbsync);
}

/// Executes [`plan`] and returns how many INVLPGBs that took.
#[cfg(all(target_arch = "x86_64", target_os = "none"))]
pub fn run(target: &Target, what: &Invalidation) -> u32 {
    let mut count = 0;
    plan(target, what, |step| {
        count += u32::from(step != Step::Tlbsync);
        // SAFETY: the caller found the instructions by CPUID. Dropping cached translations is always allowed. Not
        // `nomem`, so that the compiler keeps stores before it and loads after it.
        unsafe {
            match step {
                Step::Invlpgb(Operands { rax, ecx, edx }) => {
                    core::arch::asm!("invlpgb", in("rax") rax, in("ecx") ecx, in("edx") edx, options(nostack, preserves_flags));
                }
                Step::Tlbsync => core::arch::asm!("tlbsync", options(nostack, preserves_flags)),
            }
        }
    });
    count
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use kernel::addr::PMD_SIZE;
    use kernel::mm::self_map::Recursive;

    use super::Step::{Invlpgb, Tlbsync};
    use super::*;
    use crate::tlb::CEILING;

    const START: u64 = 0x7f12_3440_0000;
    /// A Zen 3: eight pages.
    const TAGGED: Target = Target { pcid: Some(Asid(0xabc)), pages: 8 };
    const EDX: u32 = 0x0abc_0000;

    fn range(entries: u64, stride: Level, tables: bool) -> Invalidation {
        let (start, end) = (VirtAddr(START), VirtAddr(START + entries * stride.entry_size()));
        Invalidation { start, end, stride, tables, all: false, recursive: Recursive::Unused }
    }

    fn steps(target: &Target, what: &Invalidation) -> Vec<Step> {
        let mut said = Vec::new();
        plan(target, what, |step| said.push(step));
        said
    }

    #[test]
    fn one_leaf_is_a_final_translation() {
        let operands = Operands { rax: START | 0b10111, ecx: 0, edx: EDX };
        assert_eq!(steps(&TAGGED, &range(1, Level::Pte, false)), [Invlpgb(operands), Tlbsync]);
    }

    #[test]
    fn an_unlinked_table_takes_the_caches_on_the_way_as_well() {
        let operands = Operands { rax: START | 0b00111, ecx: 0, edx: EDX };
        assert_eq!(steps(&TAGGED, &range(1, Level::Pte, true)), [Invlpgb(operands), Tlbsync]);
    }

    #[test]
    fn runs_are_cut_at_what_one_takes() {
        let piece = |page: u64, more| Invlpgb(Operands { rax: (START + page * 0x1000) | 0b10111, ecx: more, edx: EDX });
        assert_eq!(steps(&TAGGED, &range(20, Level::Pte, false)), [piece(0, 7), piece(8, 7), piece(16, 3), Tlbsync],);
        let one = Target { pages: 1, ..TAGGED };
        assert_eq!(steps(&one, &range(20, Level::Pte, false)).len(), 21);
        let all = Target { pages: 1 << 16, ..TAGGED };
        assert_eq!(steps(&all, &range(CEILING, Level::Pte, false)), [piece(0, 32), Tlbsync]);
    }

    #[test]
    fn large_pages_are_2_mib_apart_and_larger_ones_alone() {
        let operands = Operands { rax: START | 0b10111, ecx: 1 << 31 | 2, edx: EDX };
        assert_eq!(steps(&TAGGED, &range(3, Level::Pmd, false)), [Invlpgb(operands), Tlbsync]);
        let gib = |n: u64| Invlpgb(Operands { rax: (n << 30) | 0b00111, ecx: 0, edx: EDX });
        let what = Invalidation { start: VirtAddr(1 << 30), end: VirtAddr(3 << 30), ..range(0, Level::Pud, true) };
        assert_eq!(steps(&TAGGED, &what), [gib(1), gib(2), Tlbsync]);
    }

    #[test]
    fn above_the_ceiling_the_whole_mm_goes_by_one() {
        let space = Invlpgb(Operands { rax: 0b110, ecx: 0, edx: EDX });
        assert_eq!(steps(&TAGGED, &range(CEILING + 1, Level::Pte, false)), [space, Tlbsync]);
        assert_eq!(steps(&TAGGED, &Invalidation::ALL), [space, Tlbsync]);
        assert_eq!(steps(&TAGGED, &range(0, Level::Pte, true)), [space, Tlbsync]);
    }

    /// Without tags PCID 0 is every mm's, and CR4 does not enable it: it must not count.
    #[test]
    fn where_nothing_is_tagged_no_pcid_counts() {
        let untagged = Target { pcid: None, ..TAGGED };
        assert_eq!(
            steps(&untagged, &range(1, Level::Pte, true)),
            [Invlpgb(Operands { rax: START | 0b101, ecx: 0, edx: 0 }), Tlbsync],
        );
        assert_eq!(steps(&untagged, &Invalidation::ALL), [Invlpgb(Operands { rax: 0b100, ecx: 0, edx: 0 }), Tlbsync]);
    }

    /// Nothing to invalidate still waits for what was sent before.
    #[test]
    fn an_empty_range_is_a_barrier() {
        assert_eq!(steps(&TAGGED, &range(0, Level::Pte, false)), [Tlbsync]);
    }

    #[test]
    fn a_removed_table_is_dropped_from_the_recursive_mapping_too() {
        let mut what = range(1, Level::Pmd, false);
        what.recursive = Recursive::Removed(Level::Pte);
        let [pages, ..] = what.recursive_pages(crate::tlb::SELF_MAP);
        assert_eq!(what.end.0 - what.start.0, PMD_SIZE);
        assert_eq!(
            steps(&TAGGED, &what),
            [
                Invlpgb(Operands { rax: START | 0b10111, ecx: 1 << 31, edx: EDX }),
                Invlpgb(Operands { rax: pages.first.0 | 0b00111, ecx: 0, edx: EDX }),
                Tlbsync,
            ],
        );
    }
}
