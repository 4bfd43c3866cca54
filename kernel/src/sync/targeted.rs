//! `targeted`: each CPU publishes the mm that it walks, and the sync interrupts those that may walk the table. The idea
//! of v4, repaired.
//!
//! The walker stores its mm, has a full barrier, and reads tables; the updater clears the entry, has a full barrier,
//! and reads what is published. At least one sees the other: a CPU that is not seen walking will see the entry cleared.
//! Two things more are needed:
//!
//! - CPUs that acknowledged this flush at interrupt level have left their walks already, whatever they publish now.
//! - Walkers of mms that left the table earlier count too. Which mms those were is not kept; where there were any,
//!   every CPU that walks anything is interrupted.
//! - A walk may be interrupted by an NMI that walks too, perhaps another mm. There is one slot, so while two walks of
//!   different mms are under way on a CPU it says *any*.

use core::sync::atomic::Ordering;

use super::{Ask, Decision, LookBarrier, Predicted, Publication, Round, Setting, Strategy, View, cpus_where};
use crate::arch::Arch;
use crate::atomic::fence;
use crate::guard;
use crate::ledger::Elision;
use crate::mm::address_space::Mm;
use crate::record::cell::Verdict;
use crate::smp::cpu::Cpu;

/// Interrupt who may walk the table.
pub struct Targeted;

/// In a slot: walks of more than one mm are under way.
pub(super) const ANY: u64 = u64::MAX;

/// What the slot shall say while a walk of `mm` is under way inside what it says now.
#[inline(always)]
pub(super) fn inside(outer: u64, mm: u32) -> u64 {
    if outer == 0 || outer == mm.into() { mm.into() } else { ANY }
}

/// Full: the entry was cleared, then read what is published. Pairs with the barrier of `walk_begin`.
#[inline(always)]
pub(super) fn look_barrier() -> LookBarrier {
    if guard!(DecideFence) { LookBarrier::Full } else { LookBarrier::Reads }
}

/// The decision, for every strategy whose walks publish their mm in a way that a full barrier of the updater pairs
/// with.
pub(super) fn decide(view: &dyn View, ask: &Ask<'_>) -> Decision {
    look_barrier().of_view(view);
    let acknowledged = ask.party.coverage.acknowledged();
    let targets = cpus_where(&view.online().without(acknowledged), |cpu| {
        let walked = view.slot(cpu);
        walked == ask.party.mm.into() || walked == ANY || (walked != 0 && ask.left_before)
    });
    if targets.is_empty() { Decision::Elide(Elision::NoWalker) } else { Decision::Interrupt(targets) }
}

/// What strategies promise that see walks by what walks publish: a reader under RCU publishes nothing.
pub(super) fn promises(setting: Setting) -> Verdict {
    if setting.walker.masks_interrupts() { Verdict::Safe } else { Verdict::Refused }
}

/// The closed form of [`decide`].
pub(super) fn predicts(round: &Round) -> Option<Predicted> {
    // Who was interrupted by the flush is in no walk of before; the rest depends on who is walking at that moment: the
    // mm, or, if others have left the table before, anything.
    let walkers = if round.setting.chain { round.others } else { round.in_use };
    let nobody = walkers <= round.interrupted && round.left_behind == 0;
    Some(if nobody { Predicted::Elided } else { Predicted::SomeUsers })
}

impl Strategy for Targeted {
    const NAME: &'static str = "targeted";
    const ABOUT: &'static str = "interrupt the CPUs that may walk the table, by what walks publish (v4 repaired)";
    const PUBLISHES: Publication = Publication::StoreFence;
    const RESTORES: bool = true;

    fn promises(setting: Setting) -> Verdict {
        promises(setting)
    }

    fn predicts(round: &Round) -> Option<Predicted> {
        predicts(round)
    }

    #[inline(always)]
    fn walk_begin<A: Arch>(cpu: &Cpu<A>, mm: &Mm<A>) -> u64 {
        let outer = cpu.walk_slot.0.load(Ordering::Relaxed);
        cpu.walk_slot.0.store(inside(outer, mm.id), Ordering::Relaxed);
        // Full: published, then read tables. Pairs with the fence in `decide`.
        if guard!(PublishFence) {
            A::fence();
        } else {
            // What is left without the guard: enough for nothing (tests/litmus/publish-scan-no-barrier).
            fence(Ordering::Acquire);
        }
        outer
    }

    #[inline(always)]
    fn walk_end<A: Arch>(cpu: &Cpu<A>, outer: u64) {
        // Release: pairs with the acquire of `View::slot`; who sees the walk ended, sees it ended.
        cpu.walk_slot.0.store(outer, Ordering::Release);
    }

    #[inline(always)]
    fn look_barrier() -> Option<LookBarrier> {
        Some(look_barrier())
    }

    fn decide(view: &dyn View, ask: &Ask<'_>) -> Decision {
        decide(view, ask)
    }
}
