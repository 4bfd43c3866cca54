//! `sync-all`: interrupt every other online CPU and wait, as Linux 6.1 to 7.3 do (`tlb_remove_table_sync_one`).
//!
//! Right for every walk that masks interrupts, on every transport, whatever the flush did; and paid for by every CPU,
//! bystanders included.

use super::{Ask, Decision, Predicted, Round, Setting, Strategy, View};
use crate::record::cell::Verdict;

/// Interrupt everybody.
pub struct SyncAll;

/// An interrupt to everybody waits for every walk that masks interrupts, and for no other.
pub(super) fn promises(setting: Setting) -> Verdict {
    if setting.walker.masks_interrupts() { Verdict::Safe } else { Verdict::Unsafe }
}

impl Strategy for SyncAll {
    const NAME: &'static str = "sync-all";
    const ABOUT: &'static str = "interrupt every other CPU (Linux 6.1 to 7.3)";

    fn promises(setting: Setting) -> Verdict {
        promises(setting)
    }

    fn predicts(round: &Round) -> Option<Predicted> {
        // Everybody else.
        Some(Predicted::Interrupts(round.others))
    }

    fn decide(view: &dyn View, _ask: &Ask<'_>) -> Decision {
        Decision::Interrupt(view.online())
    }
}
