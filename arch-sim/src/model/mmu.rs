//! What the hardware does on its own: it fills TLBs and paging-structure caches whenever it may, and invalidates when
//! an invalidation reaches it.
//!
//! The table is one, so an mm's share of a TLB is one bit (a translation through the table) and of a paging-structure
//! cache another (the entry that points at the table). An entry enters a cache when memory has it and the CPU
//! translates by the mm's root, also speculatively and while the CPU is lazy; a translation can then be made from the
//! cached entry alone, whatever memory says by now.

use super::scenario::{MmNumber, Operation, Removal, Scenario};
use super::state::{CpuState, State};

/// Both caches of `mm` on `cpu` can be filled further now: (leaf, table).
pub(crate) fn fillable(scenario: &Scenario, state: &State, cpu: CpuState) -> (bool, bool) {
    let mm = cpu.root();
    if mm == 0 || cpu.frozen() == 1 {
        return (false, false);
    }
    let bit = 1 << (mm - 1);
    let linked = state.common.links(mm);
    if scenario.operation == Operation::Pages {
        // What is cleared is the leaf itself; the tables stay.
        return (linked && cpu.leaves() & bit == 0, false);
    }
    let table = linked;
    let leaf = table || cpu.tables() & bit != 0;
    (leaf && cpu.leaves() & bit == 0, table && cpu.tables() & bit == 0)
}

/// Fills everything that could be filled. Entries in caches never hinder anybody, so the fullest caches are the worst
/// case.
pub(crate) fn fill_all(scenario: &Scenario, state: &mut State) {
    for i in 0..scenario.cpus as usize {
        let cpu = state.cpus[i];
        let (leaf, table) = fillable(scenario, state, cpu);
        if leaf || table {
            let bit = 1 << (cpu.root() - 1);
            state.cpus[i].set_leaves(cpu.leaves() | bit);
            if table {
                state.cpus[i].set_tables(cpu.tables() | bit);
            }
        }
    }
}

/// Drops what `cpu` has cached of `mm`.
pub(crate) fn invalidate(scenario: &Scenario, cpu: &mut CpuState, mm: MmNumber) {
    let keep = !(1 << (mm - 1));
    cpu.set_leaves(cpu.leaves() & keep);
    if !scenario.removed.has(Removal::AllLevels) {
        cpu.set_tables(cpu.tables() & keep);
    }
}

/// Loads a root: where translations are not tagged, nothing of before is left.
pub(crate) fn load_root(scenario: &Scenario, cpu: &mut CpuState, mm: MmNumber) {
    cpu.set_root(mm);
    if !scenario.tagged {
        cpu.set_leaves(0);
        cpu.set_tables(0);
    }
}
