//! `mask-targeted`: interrupt the CPUs of the mm's mask, as powerpc does, and as Yair Podemsky proposed in 2023.
//!
//! The mask names every CPU that has the mm loaded, so it covers every walk of a loaded mm. CPUs that could walk the
//! table for mms that left it before come on top; without them the sync of the last sharer would reach walkers of one
//! mm only.

use super::{Ask, Decision, Predicted, Round, Setting, Strategy, View};
use crate::ledger::Elision;
use crate::record::cell::Verdict;

/// Interrupt the mask.
pub struct MaskTargeted;

impl Strategy for MaskTargeted {
    const NAME: &'static str = "mask-targeted";
    const ABOUT: &'static str = "interrupt the CPUs of the mm's mask (powerpc; Podemsky 2023)";

    fn promises(setting: Setting) -> Verdict {
        // The mask says who can walk a loaded mm; of other walks it knows nothing.
        if setting.walker.walks_loaded_mm_only() { Verdict::Safe } else { Verdict::Refused }
    }

    fn predicts(round: &Round) -> Option<Predicted> {
        // The mask as it is after the flush, which lazy CPUs may have left.
        Some(Predicted::interrupts_or_elided(round.in_mask + round.left_behind))
    }

    fn decide(view: &dyn View, ask: &Ask<'_>) -> Decision {
        let mut targets = ask.party.mask.union(ask.left_behind);
        targets.remove(view.initiator());
        if targets.is_empty() { Decision::Elide(Elision::NoWalker) } else { Decision::Interrupt(targets) }
    }
}
