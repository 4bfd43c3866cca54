//! What must come out: for each workload, mode and strategy, how many CPUs a flush and a sync interrupt, as a closed form.
//!
//! With `N` CPUs online: an operation makes `F` rounds of flush, each to every *other* CPU of the mm's mask, and `S` rounds of sync,
//! each to whom the strategy says. The forms do not look at what the kernel does; every run is compared with them exactly.

use super::WorkloadId;
use super::shared::BATCH;
use crate::arch::Arch;
use crate::ledger::{Snapshot, Taken};
use crate::suite::Mode;
use crate::sync::{self, Predicted, Round, Setting};
use crate::tlb::transport::TransportId;

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

/// Interrupts over all operations of a cell, in targets; elisions in rounds. `None` where there is no closed form.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Prediction {
    /// Flush interrupts.
    pub flush_ipis: Option<u64>,
    /// Sync interrupts.
    pub sync_ipis: Option<u64>,
    /// Syncs left out.
    pub elided: Option<u64>,
    /// Sync interrupts that the bystander takes; other interrupts it takes none.
    pub bystander: Option<u64>,
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
        // For scenarios, and of programs, where nothing is predicted.
        Fork | MunmapMany | UserFaults => Rounds { flush: 0, flush_of_tables: 0, sync: 0 },
        // The mm ran on the initiator alone.
        UnshareExit => Rounds { flush: 0, flush_of_tables: 0, sync: ops },
        // Two mms leave one after the other. The first flushes once for the shared table and once for its PUD table, which held nothing else; the second is loaded nowhere.
        UnshareChain => Rounds { flush: 2 * ops, flush_of_tables: 2 * ops, sync: ops },
    }
}

/// The counts of one cell; a count is `None` where there is no closed form.
///
/// There is none in `contend`, where a collapse may be tried more than once, nor on `mixed`, where it depends on when the mm was promoted.
pub fn predict<A: Arch>(
    workload: WorkloadId,
    strategy: &sync::Entry<A>,
    setting: Setting,
    mode: Mode,
    cpus: u64,
    ops: u64,
) -> Prediction {
    let none = Prediction { flush_ipis: None, sync_ipis: None, elided: None, bystander: None };
    if matches!(mode, Mode::Contend | Mode::Scripted) || setting.transport == TransportId::Mixed {
        return none;
    }
    let rounds = rounds(workload, ops);
    let others = cpus - 1;
    // The bystander has nothing to do with the mm.
    let users = if mode == Mode::Isolated { others.saturating_sub(1) } else { others };
    let interrupts = matches!(setting.transport, TransportId::Ipi | TransportId::Paravirt);
    let (told, loaded) = match mode {
        Mode::Contend | Mode::Scripted => return none,
        // Every other CPU has the mm loaded, but for a bystander.
        Mode::Same | Mode::Spin | Mode::Isolated => (rounds.flush, true),
        // Lazy CPUs are told of tables only, and only by the first flush of an operation: it makes them unload the mm.
        Mode::Lazy => (rounds.flush_of_tables.min(ops), true),
        // No other CPU ever had it.
        Mode::Other | Mode::Idle => (0, false),
    };
    let flush_ipis = if interrupts { told * users } else { 0 };
    let uses = if loaded && mode != Mode::Lazy { users } else { 0 };
    let round = match workload {
        // The mm that asks has run on the initiator alone, whatever the others do.
        WorkloadId::UnshareExit => Round { setting, others, in_mask: 0, in_use: 0, interrupted: 0, left_behind: 0 },
        // The one that asks is loaded nowhere; the first to leave was loaded where the mode says, and its flush either interrupted them or left them behind.
        WorkloadId::UnshareChain => {
            let left_behind = if interrupts { 0 } else { uses };
            Round { setting, others, in_mask: 0, in_use: 0, interrupted: 0, left_behind }
        }
        _ => Round {
            setting,
            others,
            in_mask: if loaded && (mode != Mode::Lazy || !interrupts) { users } else { 0 },
            in_use: uses,
            interrupted: if loaded && interrupts { users } else { 0 },
            left_behind: 0,
        },
    };
    let predicted = (strategy.predicts)(&round);
    let (sync_ipis, elided) = match predicted {
        _ if rounds.sync == 0 => (Some(0), Some(0)),
        None | Some(Predicted::SomeUsers) => (None, None),
        Some(Predicted::Interrupts(targets)) => (Some(rounds.sync * targets), Some(0)),
        Some(Predicted::Elided) => (Some(0), Some(rounds.sync)),
        Some(Predicted::Waits) => (Some(0), Some(0)),
    };
    let bystander = match predicted {
        _ if rounds.sync == 0 || mode != Mode::Isolated || others == 0 => Some(0),
        None => None,
        // Whoever interrupts all others interrupts it too, once in a round; whoever interrupts fewer has looked who has to do with the mm.
        Some(Predicted::Interrupts(targets)) if targets == others => Some(rounds.sync),
        Some(_) => Some(0),
    };
    Prediction { flush_ipis: Some(flush_ipis), sync_ipis, elided, bystander }
}

impl Prediction {
    /// Whether what was counted is what was predicted, as far as it was.
    pub fn agrees(&self, counted: &Snapshot, bystander: &Taken) -> bool {
        let counts = [
            (self.flush_ipis, counted.flush_ipis),
            (self.sync_ipis, counted.sync_ipis),
            (self.elided, counted.syncs_elided),
            (self.bystander, bystander.sync),
        ];
        counts.into_iter().all(|(form, count)| form.is_none_or(|form| form == count))
            && (bystander.flush, bystander.nmi) == (0, 0)
    }
}
