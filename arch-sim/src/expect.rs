//! What each cell of the matrix must come to: what the strategy promises, but where the promise speaks of the kernel's own workloads only.

use kernel::record::cell::Verdict;
use kernel::tlb::transport::TransportId;
use kernel::workload::walker::WalkerClass;

use crate::model::scenario::{Operation, Scenario};
use crate::model::strategies::Listed;

/// What `strategy` must come to in `scenario`.
pub(crate) fn expected(strategy: &Listed, scenario: &Scenario) -> Verdict {
    let beyond = match strategy.name {
        "gather-flag" => gather_flag(scenario),
        // In the kernel's workloads an NMI that walks the mm interrupts walks of other mms only. Here also the other way round: the NMI's walk of another mm hides that of the mm.
        "targeted-v4" if scenario.walker == WalkerClass::NmiOther => Some(Verdict::Unsafe),
        _ => None,
    };
    beyond.unwrap_or_else(|| (strategy.promises)(scenario.setting()))
}

/// The bit of v3 is right only where no flush interrupts, or where each interrupts everybody who can walk. The kernel's workloads do not get into all of the
/// ways in which it is wrong, and the promise is about them.
fn gather_flag(scenario: &Scenario) -> Option<Verdict> {
    let wrong = match scenario.transport {
        // Never set: interrupts everybody.
        TransportId::Broadcast => return None,
        // Whoever is outside the mask was not interrupted with the others.
        _ if !scenario.walker.walks_loaded_mm_only() => true,
        TransportId::Ipi => false,
        // Frozen CPUs were not.
        TransportId::Paravirt => true,
        // It stays set over a second flush of the same gather, which may go by broadcast where the first one interrupted; and the last leaver's flush may interrupt its
        // own CPUs where an earlier one's went by broadcast.
        TransportId::Mixed => matches!(scenario.operation, Operation::CollapseInBatch | Operation::UnshareThree),
    };
    wrong.then_some(Verdict::Unsafe)
}
