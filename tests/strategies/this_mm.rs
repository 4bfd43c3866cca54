//! `this-mm`: interrupt the CPUs that have this mm loaded and in use. It looks like a better `any-mm`, and is wrong: a table that several mms shared may be
//! walked on CPUs of an mm that left it earlier, and these are not looked for.

use kernel::ledger::Elision;
use kernel::record::cell::Verdict;
use kernel::smp::mask::CpuMask;
use kernel::sync::{Ask, Decision, LoadedMm, Setting, Strategy, View};

/// Interrupt who has this mm loaded.
pub struct ThisMm;

impl Strategy for ThisMm {
    const NAME: &'static str = "this-mm";
    const ABOUT: &'static str = "interrupt the CPUs that have this mm loaded and in use";

    fn promises(setting: Setting) -> Verdict {
        // What a CPU has loaded says nothing about walks of other mms.
        if setting.walker.walks_loaded_mm_only() { Verdict::Safe } else { Verdict::Refused }
    }

    fn decide(view: &dyn View, ask: &Ask<'_>) -> Decision {
        view.fence();
        let others = view.online().without(ask.party.coverage.acknowledged());
        let in_use = |cpu| match view.loaded(cpu) {
            LoadedMm::Mm(mm) => mm == ask.party.mm,
            LoadedMm::Unknown => true,
            LoadedMm::Lazy(_) | LoadedMm::None => false,
        };
        let targets: CpuMask = others.iter().filter(|cpu| in_use(*cpu)).collect();
        if targets.is_empty() { Decision::Elide(Elision::NoWalker) } else { Decision::Interrupt(targets) }
    }
}
