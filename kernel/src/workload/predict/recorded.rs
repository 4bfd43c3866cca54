//! The closed forms of mode `contend`, where walkers are in the way and nobody can foresee how often an operation is
//! tried, nor who is frozen or promoted when. They are forms in what was noted at each flush and each decision
//! ([`crate::ledger::recorded`]): `F` flushes, `H` of them by a CPU that was in the mm's mask itself, each with `M`
//! other CPUs in the mask, of which `o` were frozen.
//!
//! | transport | flush interrupts | invalidations, `c` for one flush on one CPU ([`super::invalidations`]) |
//! |---|---|---|
//! | `ipi` | `ΣM` | `c·(H + ΣM)` |
//! | `paravirt` | `ΣM − Σo` | the same if nobody was frozen, else none: a frozen CPU invalidates when it resumes |
//! | `broadcast` | 0 | `c·F`, or by NMI `c·(F + ΣM)` |
//! | `mixed` | as `ipi`, before the mm is promoted | each flush as on the transport that it took; the one that did both, as both |
//!
//! Where all other CPUs have the one mm loaded, `ΣM` is `F·(N − 1)`; and `F` is that of the other modes, but for
//! operations that are tried again when a walker is in the way. Syncs are the sums of the strategy's form over all
//! rounds, with what was true at the moment of decision; where even then the targets depend on the schedule they are
//! those of the decision. And in each round, every CPU in a walk that held the table must be among them, if the
//! strategy promises to be safe.

use super::invalidations::{self, Flushes, Hardware};
use super::{Prediction, Rounds, WorkloadId, rounds};
use crate::arch::Arch;
use crate::ledger::recorded::{Notes, Way};
use crate::record::cell::Verdict;
use crate::sync::{self, Setting};
use crate::workload::walker::WalkerClass;

/// How often `workload` flushes, where walkers do not change that.
const fn flushes(workload: WorkloadId, ops: u64) -> Option<u64> {
    use WorkloadId::*;
    match workload {
        // Tried again, or given up, where a walker has a reference or a lock was taken.
        CollapseAnon | CollapseShmem | RetractTruncate => None,
        // The table may be left for another time; others drop pages too.
        Dontneed2m | Dontneed4k => None,
        // Of the shared table, and of all that is left.
        UnshareExit => Some(2 * ops),
        // Each of the two that leave flushes for the shared table and for its PUD table.
        UnshareChain => Some(4 * ops),
        _ => Some(rounds(workload, ops).flush),
    }
}

/// Whether all other CPUs have the one mm loaded that is flushed.
const fn all_have_it(workload: WorkloadId, walker: WalkerClass) -> bool {
    // Each mm that exits has been on one CPU; in a chain there are two.
    let one = !matches!(workload, WorkloadId::UnshareExit | WorkloadId::UnshareChain);
    one && matches!(walker, WalkerClass::Gup | WalkerClass::TwoWord | WalkerClass::Nmi | WalkerClass::Rcu)
}

/// The flushes that travelled one way, and whom they concerned.
struct Concerned {
    flushes: u64,
    /// Flushes by a CPU that was in the mask itself.
    here: u64,
    /// Other CPUs, summed.
    others: u64,
}

/// The counts of a cell of mode `contend` on `cpus` CPUs, given what was noted.
pub fn predict<A: Arch>(
    workload: WorkloadId,
    strategy: &sync::Entry<A>,
    setting: Setting,
    cpus: u64,
    ops: u64,
    noted: &Notes,
) -> Prediction {
    let hardware = Hardware::of::<A>();
    let concerned = |way: Way| {
        let way = way as usize;
        let flushes = noted.flushes[way];
        let others = if all_have_it(workload, setting.walker) { flushes * (cpus - 1) } else { noted.others[way] };
        Concerned { flushes, here: noted.here[way], others }
    };
    let (by_interrupt, both, broadcast) = (concerned(Way::Interrupts), concerned(Way::Both), concerned(Way::Broadcast));
    let everywhere = |c: &Concerned| if hardware.broadcasts { c.flushes } else { c.flushes + c.others };
    let in_handlers = |c: &Concerned| c.here + c.others;
    let instructions = in_handlers(&by_interrupt) + in_handlers(&both) + everywhere(&both) + everywhere(&broadcast);
    let tlbi = match workload {
        // Others flush meanwhile.
        WorkloadId::Dontneed2m | WorkloadId::Dontneed4k => None,
        _ if noted.owed > 0 => None,
        WorkloadId::UnshareExit => {
            let rounds: Rounds = rounds(workload, ops);
            let transport = setting.transport;
            let flushes = Flushes { transport, promoted: false, rounds, by_interrupt: 0, loaded: 0, lazy: false, ops };
            Some(invalidations::count(&hardware, workload, &flushes, strategy.self_map))
        }
        _ => Some(instructions * invalidations::cost(&hardware, workload, strategy.self_map)),
    };
    let promised = (strategy.promises)(setting);
    Prediction {
        flush_ipis: Some(by_interrupt.others + both.others - noted.owed),
        sync_ipis: Some(noted.targets),
        elided: Some(noted.elided),
        tlbi,
        bystander: Some(0),
        flushes: flushes(workload, ops),
        uncovered: (promised == Verdict::Safe).then_some(0),
    }
}
