//! `none`: never sync. The negative control of every other strategy.
//!
//! On a transport whose flush interrupts it is right all the same, for walks of the mm that is loaded: the flush was
//! the sync.

use super::{Ask, Decision, Predicted, Round, Setting, Strategy, View};
use crate::ledger::Elision;
use crate::record::cell::Verdict;

/// Never sync.
pub struct None;

/// What comes of doing nothing after the flush: for walks of the loaded mm a flush that interrupts everybody is enough,
/// nothing else is.
pub(super) fn promises(setting: Setting) -> Verdict {
    let waited_for = setting.walker.walks_loaded_mm_only() && setting.walker.masks_interrupts();
    if waited_for && setting.transport.flush_implies_interrupt() { Verdict::Safe } else { Verdict::Unsafe }
}

impl Strategy for None {
    const NAME: &'static str = "none";
    const ABOUT: &'static str = "never sync (negative control)";

    fn promises(setting: Setting) -> Verdict {
        promises(setting)
    }

    fn predicts(_round: &Round) -> Option<Predicted> {
        // Never asked of anybody.
        Some(Predicted::Elided)
    }

    fn decide(_view: &dyn View, _ask: &Ask<'_>) -> Decision {
        Decision::Elide(Elision::Never)
    }
}
