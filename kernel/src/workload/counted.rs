//! What was counted in a cell, by the kernel's own windows or by those of programs.

use crate::ledger::recorded::Notes;
use crate::ledger::{Snapshot, Taken};
use crate::object::meter::{Latencies, Metered};

/// What the windows of a cell counted.
#[derive(Default)]
pub(crate) struct Counted {
    /// By the CPU that operates; invalidations by all.
    pub(crate) counts: Snapshot,
    /// What the CPU that operates noted at its flushes and decisions.
    pub(crate) notes: Notes,
    /// What all CPUs did, while invalidations were counted.
    pub(crate) by_all: Notes,
    /// Instructions, from the begin of each operation to its end.
    pub(crate) instructions: u64,
    /// What the bystander took, where there is one.
    pub(crate) bystander: Taken,
    /// How long it was kept from its loop, of which only the longest is known, or took to run.
    pub(crate) gap: Latencies,
    /// Operations that were done.
    pub(crate) ops: u64,
    /// How often programs know to have had a strategy asked.
    pub(crate) asked: Option<u64>,
    /// Of programs: everything that all CPUs counted and noted, from before the first began until all were at rest.
    pub(crate) whole: Option<(Snapshot, Notes)>,
}

impl From<Metered> for Counted {
    fn from(metered: Metered) -> Counted {
        let Metered { ops, counts, instructions, bystander, latencies: gap, syncs: asked } = metered;
        Counted { counts, instructions, bystander, gap, ops, asked, ..Counted::default() }
    }
}
