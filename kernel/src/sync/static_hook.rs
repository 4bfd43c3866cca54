//! `static-hook`: a boolean fixed at boot says whether flushes of tables interrupt; if so no sync is sent, else it is
//! `sync-all`. As posted in the RFC, v1, v2 and v5 to v10 of "skip redundant TLB sync IPIs".
//!
//! It never looks at the flush that was really made. Where the boolean is right for every flush that is right as well;
//! overridden to `true` on a transport that interrupts nobody it is `none`.

use super::{Ask, Decision, Predicted, Round, Setting, Strategy, View, none, sync_all};
use crate::ledger::Elision;
use crate::record::cell::Verdict;

/// Ask the boolean.
pub struct StaticHook;

impl Strategy for StaticHook {
    const NAME: &'static str = "static-hook";
    const ABOUT: &'static str = "skip the sync if the transport's flush interrupts (RFC, v1, v2, v5 to v10)";

    fn promises(setting: Setting) -> Verdict {
        if setting.hook { none::promises(setting) } else { sync_all::promises(setting) }
    }

    fn frees_without_grace(hook: bool) -> bool {
        hook
    }

    fn predicts(round: &Round) -> Option<Predicted> {
        // The boolean decides for all rounds alike.
        Some(if round.setting.hook { Predicted::Elided } else { Predicted::Interrupts(round.others) })
    }

    fn decide(view: &dyn View, _ask: &Ask<'_>) -> Decision {
        if view.hook() { Decision::Elide(Elision::StaticHook) } else { Decision::Interrupt(view.online()) }
    }
}
