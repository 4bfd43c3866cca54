//! `gather-flag`: a bit in the gather says that its flush sent interrupts; if it is set no sync is sent, else it is
//! `sync-all`. As posted in v3 of "skip redundant TLB sync IPIs", with what is wrong in it.
//!
//! The bit says that *some* flush of this gather interrupted *somebody*. It is not cleared by a later flush that
//! interrupts nobody, and it does not say that everybody who could walk was interrupted: a frozen CPU that was
//! acknowledged for, or a walker of an mm that left the table earlier, was not.

use super::{Ask, Decision, Predicted, Round, Setting, Strategy, View, sync_all};
use crate::ledger::Elision;
use crate::record::cell::Verdict;
use crate::tlb::transport::TransportId;

/// Ask the gather.
pub struct GatherFlag;

impl Strategy for GatherFlag {
    const NAME: &'static str = "gather-flag";
    const ABOUT: &'static str = "skip the sync if a flush of this gather sent interrupts (v3, as posted)";

    fn promises(setting: Setting) -> Verdict {
        let wrong = match setting.transport {
            // Never set: everybody is interrupted.
            TransportId::Broadcast => false,
            // Who walks without having the mm loaded was not interrupted with the others.
            _ if !setting.walker.walks_loaded_mm_only() => true,
            TransportId::Ipi => false,
            // Nor were frozen CPUs.
            TransportId::Paravirt => true,
            // A flush by interrupt is taken for one that was a broadcast: an earlier one of the same gather, or that of
            // another mm that left the table.
            TransportId::Mixed => setting.has_earlier_walks() || setting.batch,
        };
        if wrong { Verdict::Unsafe } else { sync_all::promises(setting) }
    }

    fn predicts(round: &Round) -> Option<Predicted> {
        // Nobody if the flush interrupted anybody, else everybody: also where the mm runs on one CPU.
        Some(if round.interrupted > 0 { Predicted::Elided } else { Predicted::Interrupts(round.others) })
    }

    fn decide(view: &dyn View, ask: &Ask<'_>) -> Decision {
        if ask.gather_interrupted { Decision::Elide(Elision::Covered) } else { Decision::Interrupt(view.online()) }
    }
}
