//! `any-mm`: interrupt the CPUs that have an mm loaded and in use, whichever it is.
//!
//! A walk runs on a CPU that has its mm loaded. So a CPU that is idle, or has nothing loaded, holds no table. Which mm a CPU has does not matter here: the
//! table may have been left by another one, whose CPUs walk it still.

use kernel::ledger::Elision;
use kernel::record::cell::Verdict;
use kernel::smp::mask::CpuMask;
use kernel::sync::{Ask, Decision, LoadedMm, Setting, Strategy, View};

/// Interrupt who has anything loaded.
pub struct AnyMm;

impl Strategy for AnyMm {
    const NAME: &'static str = "any-mm";
    const ABOUT: &'static str = "interrupt the CPUs that have any mm loaded and in use";

    fn promises(setting: Setting) -> Verdict {
        // What a CPU has loaded says nothing about walks of other mms.
        if setting.walker.walks_loaded_mm_only() { Verdict::Safe } else { Verdict::Refused }
    }

    fn decide(view: &dyn View, ask: &Ask<'_>) -> Decision {
        // Full: the entry was cleared, then read what CPUs have loaded. Pairs with the fence of a CPU that loads an mm: one
        // that is not seen here loads it later, and its walks see the entry cleared.
        view.fence();
        // Who acknowledged this flush was at interrupt level since, which no walk survives.
        let others = view.online().without(ask.party.coverage.acknowledged());
        let in_use = |cpu| matches!(view.loaded(cpu), LoadedMm::Mm(_) | LoadedMm::Unknown);
        let targets: CpuMask = others.iter().filter(|cpu| in_use(*cpu)).collect();
        if targets.is_empty() { Decision::Elide(Elision::NoWalker) } else { Decision::Interrupt(targets) }
    }
}
