//! Which instructions invalidate a range of an mm, in which order, between which barriers.
//!
//! # The sequence
//!
//! An update of a translation table is a store like any other; the table walker of every CPU is one more observer of
//! memory. What makes an old translation go away is always the same five steps, and each answers one question:
//!
//! 1. **The store** that changed the entry, by whoever changed it.
//! 2. **`DSB ISHST`**: *has every walker that looks from now on to see the new entry?* The barrier waits until the
//!    stores before it are visible to all table walkers of the inner shareable domain. Without it a walker may read the
//!    old entry *after* step 3 and cache it again, and nothing will ever remove it. A `DMB` is not enough: it orders
//!    accesses, and a TLB invalidation is none. One barrier serves a whole batch.
//! 3. **`TLBI …IS`**, as many as it takes: *which cached translations?* The suffix `IS` sends each to every CPU of the
//!    inner shareable domain, without an interrupt. Without the suffix it acts on the executing CPU only: such an
//!    instruction in an SMP kernel looks right, passes every test on one CPU, and leaves the others stale.
//! 4. **`DSB ISH`**: *is it done?* TLBIs are issued and forgotten. The barrier completes when every CPU has dropped the
//!    translations and has finished every memory access that used one of them. Only now may a page be reused; `ISHST`
//!    would not do, the barrier must also wait for the reads of others. One barrier serves the batch.
//! 5. **`ISB`**: *does this CPU know?* Instructions already fetched by this CPU through an old translation are thrown
//!    away. Remote CPUs take no such step: they are covered for data, and user code that they had fetched is none of
//!    the caller's concern.
//!
//! What the sequence does **not** do is wait for code on other CPUs that read an entry with an ordinary load. A
//! lockless walk holds a physical address in a register; step 4 waits for the load that fetched it, not for what the
//! walk does with it. That is why a broadcast flush is no walker synchronisation, and the reason that this project
//! exists.
//!
//! # Which operation
//!
//! | what changed | operation | drops |
//! |---|---|---|
//! | leaves only | `VALE1IS` | last-level translations of one address and ASID |
//! | tables were unlinked | `VAE1IS` | the same, and cached table descriptors on the way to the address |
//! | everything, or too many entries | `ASIDE1IS` | everything tagged with the ASID, table descriptors included |
//!
//! `VALE1IS` after an unlinked table is a use after free by hardware: the walk cache still holds the address of the
//! freed table. `VAE1IS` for leaves is correct and costs the neighbours their cached tables. One operation per entry of
//! the stride is enough for a block: any address within it drops its translation. The level hint (`TTL`) stays 0: a
//! wrong hint invalidates nothing.
//!
//! # On this CPU only
//!
//! A handler that was asked by an interrupt to invalidate locally uses the same sequence in the non-shareable domain:
//! `DSB NSHST`, `TLBI` without suffix, `DSB NSH`, `ISB`. The first barrier covers stores of this CPU. The stores of the
//! CPU that asked were complete before its request was visible: [`kernel::arch::Arch::ring`] has its own `DSB ISHST`
//! before the interrupt.
//!
//! # What QEMU hides
//!
//! TCG completes each TLBI before the next instruction, has no walk cache, ignores ASIDs in invalidations and drops too
//! much. So a missing barrier, a leaf-only operation after an unlinked table and a wrong ASID all work there. Hence the
//! division here: [`plan`] says the steps one by one to whoever listens. The tests listen and compare them with the
//! sequences above; the kernel (`run`) listens and executes each, one line for one instruction.

use kernel::addr::{Level, PAGE_SHIFT, VirtAddr};
use kernel::arch::Asid;
use kernel::mm::self_map::{Pages, Recursive};
use kernel::tlb::invalidation::Invalidation;

use crate::tlbi_range::{self, Ranges};

/// Where the mm that is loaded reads its own tables ([`kernel::arch::Arch::SELF_MAP`]): what the last entry of its root
/// maps.
pub const SELF_MAP: VirtAddr = VirtAddr(511 << 39);

/// Above this many entries the whole address space goes at once.
pub const CEILING: u64 = 512;

/// How far an invalidation reaches.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reach {
    /// The executing CPU.
    Local,
    /// All CPUs of the inner shareable domain.
    Broadcast,
}

/// The operand of an invalidation by address: ASID in 63:48, no level hint in 47:44, address bits 55:12 in 43:0.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Page(pub u64);

impl Page {
    /// `va` in the address space `asid`.
    #[inline(always)]
    pub const fn new(asid: Asid, va: VirtAddr) -> Page {
        Page((asid.0 as u64) << 48 | (va.0 >> PAGE_SHIFT) & ((1 << 44) - 1))
    }
}

/// The operand of an invalidation by ASID: ASID in 63:48.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Space(pub u64);

impl Space {
    /// The address space `asid`.
    #[inline(always)]
    pub const fn new(asid: Asid) -> Space {
        Space((asid.0 as u64) << 48)
    }
}

/// The operand of an invalidation by range: see [`crate::tlbi_range`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Range(pub u64);

/// One TLB invalidation instruction. Named as in the architecture.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TlbiOp {
    /// All levels of one address, everywhere.
    Vae1is(Page),
    /// The last level of one address, everywhere.
    Vale1is(Page),
    /// An address space, everywhere.
    Aside1is(Space),
    /// All levels of a range, everywhere.
    Rvae1is(Range),
    /// The last level of a range, everywhere.
    Rvale1is(Range),
    /// All levels of one address, here.
    Vae1(Page),
    /// The last level of one address, here.
    Vale1(Page),
    /// An address space, here.
    Aside1(Space),
    /// All levels of a range, here.
    Rvae1(Range),
    /// The last level of a range, here.
    Rvale1(Range),
}

/// One instruction of the sequence.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// Stores before it are visible to all table walkers.
    DsbIshst,
    /// Stores before it are visible to this CPU's table walker.
    DsbNshst,
    /// An invalidation.
    Tlbi(TlbiOp),
    /// Invalidations before it are complete everywhere.
    DsbIsh,
    /// Invalidations before it are complete here.
    DsbNsh,
    /// Later instructions of this CPU are fetched anew.
    Isb,
}

/// Says to `say`, in order, the steps that invalidate `what` in the address space `asid`. `range` allows operations on
/// ranges, which not every CPU has.
///
/// An empty range gives the barriers alone: they order and complete whatever came before.
///
/// Every call of `say` is with a step whose kind is known at compile time, in a loop of its own where there are many:
/// executing a plan costs the instructions of the plan and three more for each iteration.
#[inline(always)]
pub fn plan(asid: Asid, what: &Invalidation, reach: Reach, range: bool, mut say: impl FnMut(Step)) {
    match reach {
        Reach::Broadcast => {
            say(Step::DsbIshst);
            operations::<Everywhere>(asid, what, range, |op| say(Step::Tlbi(op)));
            say(Step::DsbIsh);
        }
        Reach::Local => {
            say(Step::DsbNshst);
            operations::<Here>(asid, what, range, |op| say(Step::Tlbi(op)));
            say(Step::DsbNsh);
        }
    }
    say(Step::Isb);
}

/// Executes [`plan`] and returns how many TLB invalidation instructions that took.
#[cfg(all(target_arch = "aarch64", target_os = "none"))]
#[inline(always)]
pub fn run(asid: Asid, what: &Invalidation, reach: Reach, range: bool) -> u32 {
    let mut count = 0;
    plan(asid, what, reach, range, |step| {
        count += matches!(step, Step::Tlbi(_)) as u32;
        step.execute();
    });
    count
}

/// The five operations of one reach.
trait Operations {
    fn space(space: Space) -> TlbiOp;
    fn all_levels(page: Page) -> TlbiOp;
    fn last_level(page: Page) -> TlbiOp;
    fn range_all_levels(range: Range) -> TlbiOp;
    fn range_last_level(range: Range) -> TlbiOp;
}

macro_rules! operations {
    ($name:ident, $space:ident, $all:ident, $last:ident, $range_all:ident, $range_last:ident) => {
        struct $name;
        impl Operations for $name {
            #[inline(always)]
            fn space(space: Space) -> TlbiOp {
                TlbiOp::$space(space)
            }
            #[inline(always)]
            fn all_levels(page: Page) -> TlbiOp {
                TlbiOp::$all(page)
            }
            #[inline(always)]
            fn last_level(page: Page) -> TlbiOp {
                TlbiOp::$last(page)
            }
            #[inline(always)]
            fn range_all_levels(range: Range) -> TlbiOp {
                TlbiOp::$range_all(range)
            }
            #[inline(always)]
            fn range_last_level(range: Range) -> TlbiOp {
                TlbiOp::$range_last(range)
            }
        }
    };
}
operations!(Everywhere, Aside1is, Vae1is, Vale1is, Rvae1is, Rvale1is);
operations!(Here, Aside1, Vae1, Vale1, Rvae1, Rvale1);

/// The entries of `what`, from the one that its start lies in.
struct Entries {
    first: VirtAddr,
    count: u64,
}

impl Entries {
    #[inline(always)]
    fn of(what: &Invalidation) -> Entries {
        let first = what.start.align_down(what.stride);
        let bytes = what.end.0.saturating_sub(first.0);
        let count = if what.end <= what.start { 0 } else { bytes.div_ceil(what.stride.entry_size()) };
        Entries { first, count }
    }
}

#[inline(always)]
fn operations<O: Operations>(asid: Asid, what: &Invalidation, range: bool, mut say: impl FnMut(TlbiOp)) {
    let entries = Entries::of(what);
    let recursive = what.recursive_pages(SELF_MAP);
    // The control must not drop by accident what it leaves out, as an emulator may that is asked for many pages at
    // once.
    let range = range && !matches!(what.recursive, Recursive::LeftOut);
    let pages = entries.count << (what.stride.shift() - Level::Pte.shift());
    // Terabytes, by whole tables of gigabytes: more than an operation on a range can say.
    let too_long = range && pages > tlbi_range::MAX_PAGES;
    if what.all || entries.count > CEILING || too_long || recursive.iter().any(|pages| pages.count >= CEILING) {
        say(O::space(Space::new(asid)));
        return;
    }
    // Tables that were read as pages: the last lookup ended on the descriptor that was cleared, and the walk cache may
    // hold those on the way.
    for Pages { first, count } in recursive {
        if range {
            Ranges::new(asid, first, count).for_each(|piece| {
                say(match piece {
                    Ok(range) => O::range_all_levels(range),
                    Err(page) => O::all_levels(page),
                })
            });
        } else {
            let first = Page::new(asid, first);
            (0..count).for_each(|n| say(O::all_levels(Page(first.0 + n))));
        }
    }
    if range {
        for piece in Ranges::new(asid, entries.first, pages) {
            say(match (piece, what.tables) {
                (Ok(range), true) => O::range_all_levels(range),
                (Ok(range), false) => O::range_last_level(range),
                (Err(page), true) => O::all_levels(page),
                (Err(page), false) => O::last_level(page),
            });
        }
    } else {
        // The next entry's operand is an addition: addresses of one half never carry out of the operand's 44 bits.
        let step = what.stride.entry_size() >> PAGE_SHIFT;
        let first = Page::new(asid, entries.first);
        let operands = (0..entries.count).map(|n| Page(first.0 + n * step));
        if what.tables {
            operands.for_each(|page| say(O::all_levels(page)));
        } else {
            operands.for_each(|page| say(O::last_level(page)));
        }
    }
}

#[cfg(all(target_arch = "aarch64", target_os = "none"))]
mod execute {
    use aarch64_cpu::asm::barrier;
    use core::arch::asm;

    use super::{Page, Range, Space, Step, TlbiOp};

    macro_rules! tlbi {
        ($name:literal, $operand:expr) => {
            // SAFETY: dropping cached translations is always allowed; memory is not touched. Not `nomem`, so that the
            // compiler keeps stores before it and loads after it.
            unsafe { asm!(concat!("tlbi ", $name, ", {}"), in(reg) $operand, options(nostack, preserves_flags)) }
        };
    }
    /// The range forms by their encoding, since the assembler knows them only with an extension that the target lacks.
    macro_rules! tlbi_range {
        ($crm:literal, $op2:literal, $operand:expr) => {
            // SAFETY: as above; `tlbi_range` operations are planned only where ID_AA64ISAR0_EL1.TLB says that they
            // exist.
            unsafe {
                asm!(concat!("sys #0, c8, c", $crm, ", #", $op2, ", {}"), in(reg) $operand, options(nostack, preserves_flags))
            }
        };
    }

    impl Step {
        /// Executes this one instruction.
        #[inline(always)]
        pub fn execute(self) {
            match self {
                Step::DsbIshst => barrier::dsb(barrier::ISHST),
                Step::DsbNshst => barrier::dsb(barrier::NSHST),
                Step::DsbIsh => barrier::dsb(barrier::ISH),
                Step::DsbNsh => barrier::dsb(barrier::NSH),
                Step::Isb => barrier::isb(barrier::SY),
                Step::Tlbi(TlbiOp::Vae1is(Page(x))) => tlbi!("vae1is", x),
                Step::Tlbi(TlbiOp::Vale1is(Page(x))) => tlbi!("vale1is", x),
                Step::Tlbi(TlbiOp::Aside1is(Space(x))) => tlbi!("aside1is", x),
                Step::Tlbi(TlbiOp::Rvae1is(Range(x))) => tlbi_range!(2, 1, x),
                Step::Tlbi(TlbiOp::Rvale1is(Range(x))) => tlbi_range!(2, 5, x),
                Step::Tlbi(TlbiOp::Vae1(Page(x))) => tlbi!("vae1", x),
                Step::Tlbi(TlbiOp::Vale1(Page(x))) => tlbi!("vale1", x),
                Step::Tlbi(TlbiOp::Aside1(Space(x))) => tlbi!("aside1", x),
                Step::Tlbi(TlbiOp::Rvae1(Range(x))) => tlbi_range!(6, 1, x),
                Step::Tlbi(TlbiOp::Rvale1(Range(x))) => tlbi_range!(6, 5, x),
            }
        }
    }
}

#[cfg(test)]
mod tests;
