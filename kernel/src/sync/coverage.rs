//! `coverage`: interrupt only CPUs that this flush has not already interrupted and that can hold the table. Ours.
//!
//! A walk runs on a CPU that has its mm loaded. So a CPU can hold the table only if, after the entry was cleared, it
//! has the mm loaded and in use, or is changing over; all others are either not walking, or will load the mm later and
//! then see the entry cleared ([`crate::tlb::switch`]). Of these, the CPUs in the flush's coverage have been at
//! interrupt level since, which no walk survives. For mms that left the table before, [`Ask::left_behind`] holds the
//! same set as it was then.
//!
//! Nothing is asked of the walk: it has not one instruction more than under `sync-all`. On a transport whose flush
//! interrupts, nobody is left to interrupt; where the flush is a broadcast, the CPUs that have the mm loaded are; a
//! bystander never is, nor anybody for an mm that runs on one CPU.

use super::{Ask, Decision, LoadedMm, Predicted, Round, Setting, Strategy, View, cpus_where};
use crate::ledger::Elision;
use crate::record::cell::Verdict;
use crate::smp::mask::CpuMask;

/// Interrupt who is left.
pub struct Coverage;

/// The CPUs that can hold a table that `mm` unlinked before a full barrier, by what they have loaded after it.
pub fn can_hold(view: &dyn View, mm: u32, mask: &CpuMask) -> CpuMask {
    cpus_where(mask, |cpu| match view.loaded(cpu) {
        LoadedMm::Mm(loaded) => loaded == mm,
        LoadedMm::Unknown => true,
        LoadedMm::Lazy(_) | LoadedMm::None => false,
    })
}

impl Strategy for Coverage {
    const NAME: &'static str = "coverage";
    const ABOUT: &'static str = "interrupt only CPUs that this flush did not and that can hold the table (ours)";

    fn promises(setting: Setting) -> Verdict {
        // The mask says who can walk a loaded mm; of other walks it knows nothing.
        if setting.walker.walks_loaded_mm_only() { Verdict::Safe } else { Verdict::Refused }
    }

    fn predicts(round: &Round) -> Option<Predicted> {
        // The CPUs that use the mm and were not interrupted by the flush; a flush by interrupt reaches all of them.
        Some(Predicted::interrupts_or_elided(round.in_use.saturating_sub(round.interrupted) + round.left_behind))
    }

    fn decide(view: &dyn View, ask: &Ask<'_>) -> Decision {
        // Full: the entry was cleared, then read what CPUs have loaded. Pairs with the fence of a CPU that loads the
        // mm.
        view.fence();
        let now = can_hold(view, ask.party.mm, &ask.party.mask);
        let mut targets = now.union(ask.left_behind).without(ask.party.coverage.acknowledged());
        targets.remove(view.initiator());
        if targets.is_empty() { Decision::Elide(Elision::Covered) } else { Decision::Interrupt(targets) }
    }
}
