//! The closed forms of workloads of programs, whose threads are preempted at any moment and go idle when they wait.
//! Which CPUs an mm is on when something is flushed is a matter of the schedule then, and so are flush interrupts and
//! invalidations. How often a table is about to be used again is not: so there is a form for syncs wherever the
//! strategy's answer is the same, whoever is in the mask.
//!
//! For all else the form is in what each CPU noted at the moment of decision ([`noted`]): every CPU that a flush or a
//! sync was to interrupt was, and no other; each invalidated as often as the flushes that it was told of take, or once
//! for those that it had missed; and where the strategy promises to be safe, none that held a table was left out.
//! Nobody knows where a flush that another CPU makes is when an operation begins or ends, so this is a form for
//! everything from before the first program began until all were at rest.
//!
//! What has no form is what depends on when threads wait: how many CPUs a flush finds in the mask, and of these how
//! many idle (they are told of tables only, and catch up when they go on); how often a fault finds that another CPU has
//! made its page writable, and drops one translation; and how often a tag is taken away. Each of these is noted where
//! it is decided, and the counts are compared with the notes.

use super::{Prediction, WorkloadId, recorded};
use crate::arch::Arch;
use crate::ledger::recorded::Notes;
use crate::record::cell::Verdict;
use crate::sync::{self, Predicted, Round, Setting};
use crate::tlb::transport::TransportId;

/// Processes that exit in one operation of `db_exit`.
pub const EXITS: u64 = 24;
/// Tables that each of them shares with all others and with one that stays.
pub const EXITS_SHARE: u64 = 4;

/// How often a strategy is asked, over all operations; `told` is what the programs say. `None` where nobody knows.
const fn asked(workload: WorkloadId, ops: u64, told: Option<u64>) -> Option<u64> {
    match workload {
        // Every collapse that found all pages, whether or not it then gave up; and every shared table that the first of
        // two left. The programs have counted them.
        WorkloadId::IpcStorm | WorkloadId::UserFaults => told,
        // Of those who share a table with the one that stays, one is the last to leave, in whatever order they exit: so
        // it does not matter how many there are.
        WorkloadId::DbExit => Some(ops * EXITS_SHARE),
        // Nothing is used again: tables go with their processes, after a grace period.
        WorkloadId::ForkExec | WorkloadId::NullCall | WorkloadId::CallReply | WorkloadId::CallReplyFar => Some(0),
        WorkloadId::TakeTurns | WorkloadId::CallReplyApart | WorkloadId::BreakIn | WorkloadId::HandOver => Some(0),
        WorkloadId::Message4k | WorkloadId::Message64k | WorkloadId::Message1m => Some(0),
        _ => None,
    }
}

/// What `strategy` does whenever it is asked on a machine with `cpus` CPUs, if that is always the same.
fn always<A: Arch>(strategy: &sync::Entry<A>, setting: Setting, cpus: u64) -> Option<Predicted> {
    let others = cpus - 1;
    let round = |in_mask, interrupts: bool, left_behind| {
        let interrupted = if interrupts { in_mask } else { 0 };
        (strategy.predicts)(&Round { setting, others, in_mask, in_use: in_mask, interrupted, left_behind })
    };
    let interrupting: &[bool] = match setting.transport {
        TransportId::Broadcast => &[false],
        TransportId::Ipi | TransportId::Paravirt | TransportId::Mixed => &[true, false],
    };
    let all = interrupting.iter().flat_map(|interrupts| {
        let masks = [(0, 0), (others, 0), (0, others), (others, others)];
        masks.map(|(in_mask, left_behind)| round(in_mask, *interrupts, left_behind))
    });
    let mut all = all.collect::<alloc::vec::Vec<_>>().into_iter();
    let first = all.next()??;
    all.all(|other| other == Some(first)).then_some(first)
}

/// The counts of everything that programs did, by what was noted.
pub fn noted<A: Arch>(strategy: &sync::Entry<A>, setting: Setting, notes: &Notes) -> Prediction {
    Prediction {
        flush_ipis: Some(notes.told - notes.owed),
        sync_ipis: Some(notes.decided),
        elided: Some(notes.left_out),
        tlbi: Some(recorded::of_all(notes)),
        uncovered: ((strategy.promises)(setting) == Verdict::Safe).then_some(0),
        ..Prediction::NONE
    }
}

/// The counts of one cell.
pub fn predict<A: Arch>(
    workload: WorkloadId,
    strategy: &sync::Entry<A>,
    setting: Setting,
    cpus: u64,
    ops: u64,
    told: Option<u64>,
) -> Prediction {
    let Some(asked) = asked(workload, ops, told) else { return Prediction::NONE };
    let (sync_ipis, elided) = match always(strategy, setting, cpus) {
        _ if asked == 0 => (Some(0), Some(0)),
        Some(Predicted::Interrupts(targets)) => (Some(asked * targets), Some(0)),
        Some(Predicted::Elided) => (Some(0), Some(asked)),
        Some(Predicted::Waits) => (Some(0), Some(0)),
        Some(Predicted::SomeUsers) | None => (None, None),
    };
    Prediction { sync_ipis, elided, ..Prediction::NONE }
}
