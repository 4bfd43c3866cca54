//! `targeted-v4`: each CPU publishes the mm that it walks, and the sync interrupts the CPUs that walk this mm. As
//! posted in v4 of "skip redundant TLB sync IPIs", with what is wrong in it.
//!
//! 1. The updater has a read barrier between clearing the entry and reading what is published. Nothing orders the store
//!    against the loads: both sides may miss each other. An exchange or a completed flush in between hides it.
//! 2. It looks for walkers of the mm that left the table last. Walkers of an mm that left it before are not looked for.
//! 3. There is one slot: when a walk in an NMI ends, it says that the CPU walks nothing, though the walk that the NMI
//!    interrupted goes on.
//! 4. Where a property found at boot says that flushes interrupt, it does nothing at all, and the property is true for
//!    paravirtual flushes too, which leave frozen CPUs out.

use core::sync::atomic::Ordering;

use super::{Ask, Decision, LookBarrier, Predicted, Publication, Round, Setting, Strategy, View, cpus_where, none};
use crate::arch::Arch;
use crate::ledger::Elision;
use crate::mm::address_space::Mm;
use crate::record::cell::Verdict;
use crate::smp::cpu::Cpu;
use crate::tlb::transport::TransportId;
use crate::workload::walker::WalkerClass;

/// Interrupt who walks this mm, or nobody where flushes are said to interrupt.
pub struct TargetedV4;

/// The property as v4 sets it: native and KVM.
const fn property(transport: TransportId) -> bool {
    matches!(transport, TransportId::Ipi | TransportId::Paravirt)
}

/// Orders no store before any load.
const POSTED: LookBarrier = LookBarrier::Reads;

impl Strategy for TargetedV4 {
    const NAME: &'static str = "targeted-v4";
    const ABOUT: &'static str = "interrupt the CPUs that have published a walk of this mm (v4, as posted)";
    const PUBLISHES: Publication = Publication::StoreFence;

    fn promises(setting: Setting) -> Verdict {
        if property(setting.transport) {
            return none::promises(setting);
        }
        match setting.walker {
            // The missing barrier cannot show where nothing is reordered, and the flush masks it; the forgotten sharers
            // can.
            WalkerClass::Gup | WalkerClass::TwoWord | WalkerClass::Foreign if !setting.has_earlier_walks() => {
                Verdict::Safe
            }
            // The end of a nested walk says that nobody walks; a reader under RCU says nothing at all.
            _ => Verdict::Unsafe,
        }
    }

    fn predicts(round: &Round) -> Option<Predicted> {
        // By the property nobody; else it depends on who is walking at that moment, but for walkers of other mms.
        let nobody = property(round.setting.transport) || round.in_use == 0;
        Some(if nobody { Predicted::Elided } else { Predicted::SomeUsers })
    }

    #[inline(always)]
    fn walk_begin<A: Arch>(cpu: &Cpu<A>, mm: &Mm<A>) -> u64 {
        cpu.walk_slot.0.store(mm.id.into(), Ordering::Relaxed);
        // Full: published, then read tables. Meant to pair with the read barrier in `decide`; it cannot, but does with
        // an entry that was cleared by an exchange (tests/litmus/exchange-clear).
        A::fence();
        0
    }

    #[inline(always)]
    fn walk_end<A: Arch>(cpu: &Cpu<A>, _outer: u64) {
        // Release: pairs with the acquire of `View::slot` (tests/litmus/walk-end).
        cpu.walk_slot.0.store(0, Ordering::Release);
    }

    #[inline(always)]
    fn look_barrier() -> Option<LookBarrier> {
        Some(POSTED)
    }

    fn decide(view: &dyn View, ask: &Ask<'_>) -> Decision {
        if property(view.transport()) {
            return Decision::Elide(Elision::StaticHook);
        }
        POSTED.of_view(view);
        let targets = cpus_where(&view.online(), |cpu| view.slot(cpu) == ask.party.mm.into());
        if targets.is_empty() { Decision::Elide(Elision::NoWalker) } else { Decision::Interrupt(targets) }
    }
}
