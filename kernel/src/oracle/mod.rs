//! The oracle: was a table used again, or freed, while a walk could still read it; was a page returned that was not
//! there?
//!
//! It judges by *state* first ([`ghost`]): every CPU notes which tables its walk can still touch, and whoever reuses or
//! frees a table looks at all notes. That needs no luck: the walk does not have to read the wrong thing. It judges by
//! *value* second ([`value`]): what walks return is compared with what the frames are, and freed memory is poisoned.
//! Reports say which of the two it was.
//!
//! All of it is compiled in only with `checking`, and writes only plain words of its own CPU: it adds no barrier to the
//! protocols it watches.

pub mod ghost;
pub(crate) mod recursive;
pub mod value;

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::addr::{Pfn, VirtAddr};
use crate::arch::Arch;
use crate::ledger::Cause;
use crate::mm::address_space::Mm;
use crate::mm::frame::FrameState;
use crate::mm::table::Table;
use crate::record::cell::{Violation, ViolationKind};
use crate::record::event::EventKind;
use crate::smp::cpu::Cpu;
use crate::smp::mask::CpuMask;

/// Version of the rules by which verdicts are made; part of every report.
pub const VERSION: u32 = 3;

/// What freed memory is filled with: no entry of any architecture, and no page's tag.
pub const POISON: u64 = 0xdead_7ab1_e000_0000;

static OFF: AtomicBool = AtomicBool::new(false);

/// Turns the oracle off, to measure what it costs. Before the first cell; from then on no cell has a verdict.
#[inline(always)]
pub fn turn_off() {
    if cfg!(feature = "checking") {
        OFF.store(true, Ordering::Relaxed);
    }
}

/// Whether it judges: in a build with `checking`, unless it was turned off.
#[inline(always)]
pub fn is_on() -> bool {
    cfg!(feature = "checking") && !OFF.load(Ordering::Relaxed)
}

/// Keeps `value` whole until here in a checking build, so that a debugger which stops in the oracle finds it in the
/// frame of its caller. The compiler would otherwise keep what is still needed of it, in registers.
#[inline(always)]
pub(crate) fn whole_until_here<T>(value: &T) {
    if cfg!(feature = "checking") {
        core::hint::black_box(value);
    }
}

/// Fills the first `bytes` of a frame that is about to be free.
pub(crate) fn poison<A: Arch>(pfn: Pfn, bytes: u64) {
    if is_on() {
        // SAFETY: the direct map covers all RAM; the caller owns the frame, or as many as the bytes are; all accesses
        // to it are atomic.
        let words: &[AtomicU64] =
            unsafe { core::slice::from_raw_parts(A::direct_map(pfn.addr()).cast(), bytes as usize / 8) };
        let (eights, rest) = words.as_chunks::<8>();
        eights.iter().for_each(|words| words.iter().for_each(|word| word.store(POISON, Ordering::Relaxed)));
        rest.iter().for_each(|word| word.store(POISON, Ordering::Relaxed));
    }
}

/// Writes a violation down: the first of a cell in full, all of them in the counts. Not inlined: a debugger stops here.
#[cold]
#[inline(never)]
pub(crate) fn report<A: Arch>(cpu: &Cpu<A>, violation: Violation) {
    let by_state = ViolationKind::from_number(violation.kind).is_some_and(ViolationKind::by_state);
    if by_state {
        cpu.ledger.violations_ghost.add(1);
        cpu.ledger.missing_syncs.add(1);
    } else {
        cpu.ledger.violations_value.add(1);
    }
    cpu.events.write(EventKind::Violation, violation.mm, violation.pfn.into(), violation.walker.into());
    A::machine().first_violation.note(violation);
}

/// `table` is about to be used again; `unlinkers` are the mms that have unlinked it.
#[doc(hidden)]
pub fn on_reuse<A: Arch>(cpu: &'static Cpu<A>, table: Table<A>, unlinkers: &[u32]) {
    if is_on() {
        ghost::judge(cpu, table, ViolationKind::ReusedWhileHeld, |walk| unlinkers.contains(&walk));
    }
}

/// `table` is about to be freed.
#[doc(hidden)]
pub fn on_free<A: Arch>(cpu: &'static Cpu<A>, table: Table<A>) {
    if is_on() && table.frame().state() == FrameState::UnlinkedTable {
        ghost::judge(cpu, table, ViolationKind::FreedWhileHeld, |_| true);
    }
}

/// `table`, a PTE table or above, was flushed and waits to be freed: it must map nothing any more, unless its leaves
/// belong to a file and were dropped with it.
#[doc(hidden)]
pub fn on_retire<A: Arch>(cpu: &'static Cpu<A>, table: Table<A>) {
    if is_on() {
        value::judge_retired(cpu, table);
    }
}

/// A flush is about to interrupt `targets`: those that have another mm loaded are interrupted for nothing.
pub(crate) fn judge_flush<A: Arch>(cpu: &Cpu<A>, mm: &Mm<A>, targets: &CpuMask, cause: Cause) {
    if is_on() {
        let needless = targets.iter().filter(|id| A::machine().cpu(*id).loaded.mm() != mm.id).count();
        cpu.ledger.redundant(cause, needless as u64);
    }
}

/// A sync for `table` is about to interrupt `targets`: those that hold nothing of it are interrupted for nothing.
pub(crate) fn judge_sync<A: Arch>(cpu: &Cpu<A>, table: Table<A>, unlinkers: &[u32], targets: &CpuMask) {
    if is_on() {
        let needless =
            targets.iter().filter(|id| !ghost::holds(A::machine().cpu(*id), table.pfn(), |mm| unlinkers.contains(&mm)));
        cpu.ledger.redundant(Cause::Sync, needless.count() as u64);
    }
}

/// `cpu` has had references to `pages`, which a walk from `start` returned, for a while: they must still be what they
/// were.
pub fn on_put<A: Arch>(cpu: &'static Cpu<A>, mm: &Mm<A>, start: VirtAddr, pages: &[Pfn]) {
    if is_on() {
        value::judge_walk(cpu, mm, start, pages);
    }
}

/// A CPU dropped the page at `va` of its mm, and reads there what it had written before.
pub fn on_outlived_drop<A: Arch>(cpu: &'static Cpu<A>, va: VirtAddr) {
    if is_on() {
        report(cpu, ghost::describe(cpu, cpu, Pfn(0), ViolationKind::StaleTranslation, va));
    }
}

/// A CPU read `observed` at `va` of `mm` through its TLB.
pub fn on_user_read<A: Arch>(cpu: &'static Cpu<A>, mm: &Mm<A>, va: VirtAddr, observed: u64) {
    if is_on() {
        value::judge_translation(cpu, mm, va, observed);
    }
}

/// A leaf for `va` was set in `pte`, under its lock.
pub(crate) fn on_fill<A: Arch>(cpu: &'static Cpu<A>, pte: Table<A>, va: VirtAddr) {
    if is_on() {
        value::judge_fill(cpu, pte, va);
    }
}
