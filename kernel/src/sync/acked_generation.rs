//! `acked-generation`: every unlink gets a number; a CPU that takes any interrupt acknowledges all numbers given so
//! far; the sync interrupts only CPUs of the mm that have not acknowledged this one. After a remark of Dave Hansen on
//! v2: keep state that says whether an IPI is still owed.
//!
//! The unlink clears the entry, then increments the number (release); the interrupt handler reads the number (acquire).
//! A CPU that shows this number or a later one was at interrupt level after the entry was cleared: the walk it was in
//! is over, and later ones see the entry cleared. Flushes by interrupt acknowledge as well, so after one of those
//! nothing is owed.
//!
//! It asks the mask which CPUs can walk, so it covers walks of a loaded mm only.

use super::{Ask, Decision, Predicted, Round, Setting, Strategy, View, cpus_where};
use crate::ledger::Elision;
use crate::record::cell::Verdict;

/// Interrupt who has taken no interrupt since the unlink.
pub struct AckedGeneration;

impl Strategy for AckedGeneration {
    const NAME: &'static str = "acked-generation";
    const ABOUT: &'static str = "interrupt the CPUs of the mm that took no interrupt since the unlink";

    fn promises(setting: Setting) -> Verdict {
        // The mask says who can walk a loaded mm; of other walks it knows nothing.
        if setting.walker.walks_loaded_mm_only() { Verdict::Safe } else { Verdict::Refused }
    }

    fn predicts(round: &Round) -> Option<Predicted> {
        // The flush's own interrupts acknowledge; without them it depends on which CPUs took any interrupt meanwhile.
        let nobody = round.in_mask <= round.interrupted && round.left_behind == 0;
        Some(if nobody { Predicted::Elided } else { Predicted::SomeUsers })
    }

    fn decide(view: &dyn View, ask: &Ask<'_>) -> Decision {
        // Full: the entry was cleared, then read who acknowledged. A CPU that enters the mask after this sees the entry
        // cleared.
        view.fence();
        let candidates = ask.party.mask.union(ask.left_behind);
        let targets = cpus_where(&candidates, |cpu| {
            cpu != view.initiator() && view.acknowledged_generation(cpu) < ask.generation
        });
        if targets.is_empty() { Decision::Elide(Elision::Covered) } else { Decision::Interrupt(targets) }
    }
}
