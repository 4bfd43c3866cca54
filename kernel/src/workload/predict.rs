//! What must come out: for each workload, mode and strategy, how many CPUs a flush and a sync interrupt, as a closed form.
//!
//! With `N` CPUs online: an operation makes `F` rounds of flush, each to every *other* CPU of the mm's mask, and `S` rounds of sync,
//! each to whom the strategy says. The forms do not look at what the kernel does; every run is compared with them exactly.

use super::WorkloadId;
use super::shared::BATCH;
use crate::suite::Mode;
use crate::sync::Setting;

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

/// Interrupts over all operations of a cell, in targets; elisions in rounds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Prediction {
    /// Flush interrupts.
    pub flush_ipis: u64,
    /// Sync interrupts.
    pub sync_ipis: u64,
    /// Syncs left out.
    pub elided: u64,
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
        // The mm ran on the initiator alone.
        UnshareExit => Rounds { flush: 0, flush_of_tables: 0, sync: ops },
    }
}

/// How many syncs of `rounds` a strategy sends, by its name: `None` if this file has no form for it.
const fn syncs_sent(strategy: &str, setting: Setting, rounds: u64) -> Option<u64> {
    match strategy.as_bytes() {
        b"none" => Some(0),
        b"sync-all" => Some(rounds),
        b"static-hook" => Some(if setting.hook { 0 } else { rounds }),
        _ => None,
    }
}

/// The counts of one cell, `None` where there is no closed form: in `contend` a collapse may be tried more than once.
pub fn predict(
    workload: WorkloadId,
    strategy: &str,
    setting: Setting,
    mode: Mode,
    cpus: u64,
    ops: u64,
) -> Option<Prediction> {
    let rounds = rounds(workload, ops);
    let others = cpus - 1;
    let interrupts = setting.transport.flush_implies_interrupt();
    let told = match mode {
        Mode::Contend => return None,
        // Every other CPU has the mm loaded.
        Mode::Same | Mode::Spin => rounds.flush,
        // Lazy CPUs are told of tables only, and only by the first flush of an operation: it makes them unload the mm.
        Mode::Lazy => rounds.flush_of_tables.min(ops),
        // No other CPU ever had it.
        Mode::Other | Mode::Idle => 0,
    };
    let sent = syncs_sent(strategy, setting, rounds.sync)?;
    Some(Prediction {
        flush_ipis: if interrupts { told * others } else { 0 },
        sync_ipis: sent * others,
        elided: rounds.sync - sent,
    })
}
