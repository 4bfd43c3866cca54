//! `rcu`: wait for a grace period (`tlb_remove_table_sync_rcu`). No interrupt, and the only one that also waits for
//! readers with interrupts on; paid for in time by whoever waits.

use super::{Ask, Decision, Predicted, Round, Setting, Strategy, View};
use crate::record::cell::Verdict;

/// Wait for everybody, interrupt nobody.
pub struct Rcu;

impl Strategy for Rcu {
    const NAME: &'static str = "rcu";
    const ABOUT: &'static str = "wait for a grace period";

    fn promises(_setting: Setting) -> Verdict {
        Verdict::Safe
    }

    fn predicts(_round: &Round) -> Option<Predicted> {
        // A wait, whoever walks.
        Some(Predicted::Waits)
    }

    fn decide(_view: &dyn View, _ask: &Ask<'_>) -> Decision {
        Decision::Grace
    }
}
