//! What must come out: for each workload, mode and strategy, how many CPUs a flush and a sync interrupt, and how many
//! invalidations that takes, as closed forms.
//!
//! With `N` CPUs online, of which `U` besides the initiator use the mm: an operation makes `F` rounds of flush, each to
//! every *other* CPU of the mm's mask, and `S` rounds of sync, each to whom the strategy says. The forms do not look at
//! what the kernel does, nor at the plans of the architectures; every run is compared with them exactly.
//!
//! | transport | flush interrupts | invalidations, `c` for one flush on one CPU |
//! |---|---|---|
//! | `ipi`, `paravirt` | `F·U` | `F·(1 + U)·c`: here, and in each handler |
//! | `broadcast`, native | 0 | `F·c`: one CPU for all |
//! | `broadcast`, by NMI | 0 | `F·(1 + U)·c`: here, and in each NMI |
//! | `mixed` | those of the first two flushes of the mm's life, if it is on many CPUs | those flushes as on `ipi`, the second one once more and all others as on `broadcast` |
//!
//! Nothing is frozen in these modes, so `paravirt` is `ipi`. The forms of invalidations are in [`invalidations`], those
//! of mode `contend`, and of targets that depend on the schedule, in [`recorded`].

pub mod invalidations;
pub mod programs;
pub mod recorded;

use self::invalidations::Hardware;
use super::WorkloadId;
use super::shared::BATCH;
use crate::arch::Arch;
use crate::ledger::recorded::Notes;
use crate::ledger::{Snapshot, Taken};
use crate::suite::Mode;
use crate::sync::{self, Predicted, Round, Setting};
use crate::tlb::transport::TransportId;
use crate::tlb::transport::mixed::FEW;

/// Rounds over all operations of a cell.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rounds {
    /// Flushes that every CPU of the mask is told of, tables or not.
    pub flush: u64,
    /// Of these, flushes of tables, which lazy CPUs are told of as well.
    pub flush_of_tables: u64,
    /// Syncs that are asked for.
    pub sync: u64,
}

/// Counts over all operations of a cell: interrupts in targets, elisions in rounds, invalidations in instructions.
/// `None` where there is no closed form.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Prediction {
    /// Flush interrupts.
    pub flush_ipis: Option<u64>,
    /// Sync interrupts.
    pub sync_ipis: Option<u64>,
    /// Syncs left out.
    pub elided: Option<u64>,
    /// Invalidations, by all CPUs.
    pub tlbi: Option<u64>,
    /// Sync interrupts that the bystander takes; other interrupts it takes none.
    pub bystander: Option<u64>,
    /// Flushes that were begun ([`recorded`]).
    pub flushes: Option<u64>,
    /// CPUs that held the table at a decision that did not wait for them ([`recorded`]).
    pub uncovered: Option<u64>,
}

/// The rounds of `ops` operations.
pub const fn rounds(workload: WorkloadId, ops: u64) -> Rounds {
    use WorkloadId::*;
    match workload {
        // One flush at the end of the gather; the PTE table goes with it.
        Munmap2m | Munmap4k | Dontneed2m => Rounds { flush: ops, flush_of_tables: ops, sync: 0 },
        // The one page is alone in its table, and the range does not cover the table: it stays.
        Dontneed4k => Rounds { flush: ops, flush_of_tables: 0, sync: 0 },
        Mprotect2m | Mprotect4k => Rounds { flush: ops, flush_of_tables: 0, sync: 0 },
        // The collapse's own flush; the table is deposited, which is using it again.
        CollapseAnon => Rounds { flush: ops, flush_of_tables: ops, sync: ops },
        // The table is freed after a grace period: nothing is used again.
        CollapseShmem | RetractTruncate => Rounds { flush: ops, flush_of_tables: ops, sync: 0 },
        // One flush per table that is left; every eighth operation frees the PUD table, with a flush of its own.
        UnshareMunmapLast => Rounds { flush: ops + ops / BATCH, flush_of_tables: ops + ops / BATCH, sync: ops },
        UnshareMunmap3way => Rounds { flush: ops + ops / BATCH, flush_of_tables: ops + ops / BATCH, sync: 0 },
        // Linux makes one round more here, by a nested gather that ours does not need.
        UnshareMprotectLast => Rounds { flush: ops, flush_of_tables: ops, sync: ops },
        // A shared table that is left, and its PUD table, which held nothing else; a collapse; the reclaim of a PTE
        // table.
        RtBystander => Rounds { flush: 4 * ops, flush_of_tables: 4 * ops, sync: 2 * ops },
        // The mm ran on the initiator alone.
        UnshareExit => Rounds { flush: 0, flush_of_tables: 0, sync: ops },
        // Two mms leave one after the other. The first flushes once for the shared table and once for its PUD table,
        // which held nothing else; the second is loaded nowhere.
        UnshareChain => Rounds { flush: 2 * ops, flush_of_tables: 2 * ops, sync: ops },
        // For scenarios, and of programs, where nothing is predicted.
        _ => Rounds { flush: 0, flush_of_tables: 0, sync: 0 },
    }
}

/// On `mixed`, where the mm is on more than [`FEW`] CPUs: how many operations, and how many of their flushes, come
/// before the mm flushes by broadcast alone. The first flush of its life goes by interrupt and promotes it, the second
/// one does both.
const fn by_interrupt(workload: WorkloadId, ops: u64) -> (u64, u64) {
    use WorkloadId::*;
    let first_two = if ops < 2 { ops } else { 2 };
    match workload {
        // Between the first operation and the second, what the first one left is flushed: that was the second flush.
        CollapseAnon | CollapseShmem | RetractTruncate | Mprotect2m | Mprotect4k | UnshareMprotectLast => (1, 1),
        // Both are in the first operation, before its last sync.
        UnshareChain | RtBystander => (1, 2),
        _ => (first_two, first_two),
    }
}

/// What the other CPUs are to the mm, in a mode whose members are where the mode says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Crowd {
    /// Online CPUs but the initiator: N - 1.
    others: u64,
    /// Of these, the ones that have the mm loaded.
    loaded: u64,
    /// Of these, the ones that use it: all, or where they are lazy none.
    users: u64,
}

impl Crowd {
    /// `None` in `contend`, which has forms of its own, and in scenarios.
    const fn of(mode: Mode, cpus: u64) -> Option<Crowd> {
        let others = cpus - 1;
        let (loaded, users) = match mode {
            Mode::Same | Mode::Spin => (others, others),
            // The bystander has nothing to do with the mm.
            Mode::Isolated => (others.saturating_sub(1), others.saturating_sub(1)),
            Mode::Lazy => (others, 0),
            // No other CPU ever had it.
            Mode::Other | Mode::Idle => (0, 0),
            Mode::Contend | Mode::Scripted => return None,
        };
        Some(Crowd { others, loaded, users })
    }

    /// Lazy CPUs are told of tables only, and unload the mm then.
    const fn lazy(&self) -> bool {
        self.loaded > self.users
    }
}

/// The round of sync of `workload` after a flush that interrupts, or one that does not.
fn round(workload: WorkloadId, setting: Setting, crowd: Crowd, interrupts: bool) -> Round {
    let Crowd { others, loaded, users } = crowd;
    match workload {
        // The mm that asks has run on the initiator alone, whatever the others do.
        WorkloadId::UnshareExit => Round { setting, others, in_mask: 0, in_use: 0, interrupted: 0, left_behind: 0 },
        // The one that asks is loaded nowhere; the first to leave was loaded where the mode says, and its flush either
        // interrupted them or left them behind.
        WorkloadId::UnshareChain => {
            let left_behind = if interrupts { 0 } else { users };
            Round { setting, others, in_mask: 0, in_use: 0, interrupted: 0, left_behind }
        }
        _ => Round {
            setting,
            others,
            in_mask: if crowd.lazy() && interrupts { 0 } else { loaded },
            in_use: users,
            interrupted: if interrupts { loaded } else { 0 },
            left_behind: 0,
        },
    }
}

/// The counts of one cell; a count is `None` where there is no closed form.
pub fn predict<A: Arch>(
    workload: WorkloadId,
    strategy: &sync::Entry<A>,
    setting: Setting,
    mode: Mode,
    cpus: u64,
    ops: u64,
) -> Prediction {
    // Of programs, whoever else is there stays with the mm all the time, but for the bystander.
    let mode = if workload.has_bystander() { Mode::Isolated } else { mode };
    let crowd = if workload.is_unscheduled() { None } else { Crowd::of(mode, cpus) };
    let Some(crowd) = crowd else { return Prediction::NONE };
    let rounds = rounds(workload, ops);
    let syncs_per_op = rounds.sync / ops.max(1);
    // Lazy CPUs are told by the first flush of an operation only: it makes them unload the mm.
    let told = if crowd.lazy() { rounds.flush_of_tables.min(ops) } else { rounds.flush };
    // A flush of tables takes lazy CPUs out of the mask: then the mm is never on many.
    let promoted = setting.transport == TransportId::Mixed
        && 1 + crowd.loaded > FEW.into()
        && !(crowd.lazy() && rounds.flush_of_tables > 0);
    let (interrupting_ops, interrupting_flushes) = match setting.transport {
        TransportId::Broadcast => (0, 0),
        TransportId::Mixed if promoted => {
            let (ops, flushes) = by_interrupt(workload, ops);
            (ops, flushes.min(told))
        }
        _ => (ops, told),
    };
    let flush_ipis = interrupting_flushes * crowd.loaded;

    let (mut sync_ipis, mut elided, mut bystander) = (Some(0), Some(0), Some(0));
    let groups = if rounds.sync == 0 {
        [(0, true), (0, false)]
    } else {
        let by_interrupt = match workload {
            // Its first operation begins with the shared table, whose flush and its PUD table's are those by interrupt.
            WorkloadId::RtBystander if promoted => interrupting_ops,
            _ => syncs_per_op * interrupting_ops,
        };
        [(by_interrupt, true), (rounds.sync - by_interrupt, false)]
    };
    for (syncs, interrupts) in groups.into_iter().filter(|(syncs, _)| *syncs > 0) {
        let predicted = (strategy.predicts)(&round(workload, setting, crowd, interrupts));
        let (interrupted, left_out) = match predicted {
            None | Some(Predicted::SomeUsers) => (None, None),
            Some(Predicted::Interrupts(targets)) => (Some(syncs * targets), Some(0)),
            Some(Predicted::Elided) => (Some(0), Some(syncs)),
            Some(Predicted::Waits) => (Some(0), Some(0)),
        };
        let stands_by = match predicted {
            _ if mode != Mode::Isolated || crowd.others == 0 => Some(0),
            None => None,
            // Whoever interrupts all others interrupts it too, once in a round; whoever interrupts fewer has looked who
            // has to do with the mm.
            Some(Predicted::Interrupts(targets)) if targets == crowd.others => Some(syncs),
            Some(_) => Some(0),
        };
        let add = |sum: &mut Option<u64>, n: Option<u64>| *sum = sum.zip(n).map(|(sum, n)| sum + n);
        add(&mut sync_ipis, interrupted);
        add(&mut elided, left_out);
        add(&mut bystander, stands_by);
    }
    let flushes = invalidations::Flushes {
        transport: setting.transport,
        promoted,
        rounds,
        by_interrupt: by_interrupt(workload, ops).1.min(rounds.flush),
        loaded: crowd.loaded,
        lazy: crowd.lazy(),
        ops,
    };
    // Flushes of several kinds have no one form.
    let count = || invalidations::count(&Hardware::of::<A>(), workload, &flushes, strategy.self_map);
    let tlbi = (!workload.runs_programs()).then(count);
    Prediction { flush_ipis: Some(flush_ipis), sync_ipis, elided, tlbi, bystander, ..Prediction::NONE }
}

impl Prediction {
    /// No closed form at all.
    pub const NONE: Prediction = Prediction {
        flush_ipis: None,
        sync_ipis: None,
        elided: None,
        tlbi: None,
        bystander: None,
        flushes: None,
        uncovered: None,
    };

    /// The same, of counts that are the same in both.
    pub fn where_the_same(&self, one: &Snapshot, other: &Snapshot) -> Prediction {
        Prediction {
            flush_ipis: self.flush_ipis.filter(|_| one.flush_ipis == other.flush_ipis),
            sync_ipis: self.sync_ipis.filter(|_| one.sync_ipis == other.sync_ipis),
            elided: self.elided.filter(|_| one.syncs_elided == other.syncs_elided),
            tlbi: self.tlbi.filter(|_| one.tlbi == other.tlbi),
            ..Prediction::NONE
        }
    }

    /// The same; what it has no form for is as in `other`.
    pub fn or(self, other: &Prediction) -> Prediction {
        Prediction {
            flush_ipis: self.flush_ipis.or(other.flush_ipis),
            sync_ipis: self.sync_ipis.or(other.sync_ipis),
            elided: self.elided.or(other.elided),
            tlbi: self.tlbi.or(other.tlbi),
            ..self
        }
    }

    /// The same; where the targets of syncs depend on the schedule, with what was noted when they were decided.
    pub fn or_noted(self, noted: &Notes) -> Prediction {
        let (sync_ipis, elided) = (self.sync_ipis.or(Some(noted.targets)), self.elided.or(Some(noted.elided)));
        Prediction { sync_ipis, elided, ..self }
    }

    /// Whether what was counted is what was predicted, as far as it was.
    pub fn agrees(&self, counted: &Snapshot, bystander: &Taken, noted: &Notes) -> bool {
        let counts = [
            (self.flush_ipis, counted.flush_ipis),
            (self.sync_ipis, counted.sync_ipis),
            (self.elided, counted.syncs_elided),
            (self.tlbi, counted.tlbi),
            (self.bystander, bystander.sync),
            (self.flushes, noted.flushes.iter().sum()),
            (self.uncovered, noted.uncovered),
        ];
        counts.into_iter().all(|(form, count)| form.is_none_or(|form| form == count))
            && (bystander.flush, bystander.nmi) == (0, 0)
    }
}
