//! The closed forms of invalidations: how many invalidation instructions all CPUs together execute in a cell.
//!
//! One flush of one range costs a CPU `c`:
//!
//! - 1 if the range has more entries than the architecture's ceiling, for then everything of the mm goes at once;
//! - else 1 for each entry; or where there is an instruction for runs of pages, which takes one digit of their number
//!   in base 32 (`FEAT_TLBIRANGE`: an even number, times a power of 32), 1 for each digit that is not 0, and 1 for the
//!   odd page: so 1 for what a whole table maps;
//! - and 1 more for the recursive address of a PTE table that was removed, where walks read through the recursive
//!   mapping (for a PMD table there are 513, and everything goes at once).
//!
//! Who executes them is a matter of the transport ([`super`]) and of two exceptions. A CPU that is lazy, and told of
//! removed tables, unloads the mm: where translations are not tagged that drops them and no instruction is needed;
//! where they are tagged, everything of the mm goes twice, for what it missed while it was lazy and for what it is
//! told. And an mm that is not loaded here is invalidated here only where translations are tagged, since those outlive
//! the switch away from it, or where its flush is a broadcast that finds nobody else in the mask.

use super::{Rounds, WorkloadId};
use crate::addr::{ENTRIES, Level, PAGE_SIZE, PMD_SIZE};
use crate::arch::Arch;
use crate::mm::self_map::Recursive;
use crate::tlb::invalidation::Invalidation;
use crate::tlb::transport::TransportId;

/// What the forms depend on of a machine's hardware.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Hardware {
    /// [`Arch::INVALIDATION_CEILING`].
    pub ceiling: u64,
    /// One instruction invalidates a run of pages.
    pub runs: bool,
    /// Translations are tagged.
    pub tagged: bool,
    /// A broadcast is one CPU's instruction; else an NMI plays it on every CPU of the mask.
    pub broadcasts: bool,
}

impl Hardware {
    /// That of `A`.
    pub fn of<A: Arch>() -> Hardware {
        Hardware {
            ceiling: A::INVALIDATION_CEILING,
            runs: A::has_range_invalidation(),
            tagged: A::tagged(),
            broadcasts: A::has_broadcast_invalidation(),
        }
    }
}

/// How a cell's flushes travel, and to whom.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Flushes {
    /// The transport.
    pub transport: TransportId,
    /// On `mixed`: the mm is promoted to broadcast.
    pub promoted: bool,
    /// All of them.
    pub rounds: Rounds,
    /// If it is promoted: flushes before it is.
    pub by_interrupt: u64,
    /// Other CPUs that have the mm loaded.
    pub loaded: u64,
    /// These are lazy.
    pub lazy: bool,
    /// Operations.
    pub ops: u64,
}

/// What the flush of a workload's operation covers: entries, and the level of the tables that are removed with them.
const fn range(workload: WorkloadId) -> (u64, Option<Level>) {
    use WorkloadId::*;
    match workload {
        Dontneed4k | Mprotect4k => (1, None),
        Mprotect2m => (ENTRIES as u64, None),
        // By 2 MiB entries; and where the PUD table goes, by 1 GiB entries, as many.
        UnshareMunmapLast | UnshareMunmap3way | UnshareMprotectLast | UnshareExit | UnshareChain => {
            (ENTRIES as u64, Some(Level::Pmd))
        }
        // What the PTE table could map, however much it did.
        _ => (ENTRIES as u64, Some(Level::Pte)),
    }
}

/// What one flush costs one CPU: `c`.
pub(super) const fn cost(hardware: &Hardware, workload: WorkloadId, self_map: bool) -> u64 {
    let (entries, removed) = range(workload);
    let run = if hardware.runs { 1 } else { entries };
    let (recursive, too_many) = match removed {
        Some(Level::Pte) if self_map => (1, false),
        Some(_) => (0, self_map && !matches!(removed, Some(Level::Pte))),
        None => (0, false),
    };
    if entries > hardware.ceiling || too_many { 1 } else { run + recursive }
}

/// The same of any flush, by what it covers.
pub(crate) const fn of(hardware: &Hardware, what: &Invalidation) -> u64 {
    if what.all {
        // It has no range.
        return 1;
    }
    let entries = what.entries();
    let (recursive, too_many) = match what.recursive {
        Recursive::Unused => (0, false),
        // One page has the entries of one PTE table. As a run they are one instruction more.
        Recursive::Removed(Level::Pte) => (what.end.0.div_ceil(PMD_SIZE) - what.start.0 / PMD_SIZE, false),
        Recursive::Removed(_) => (0, true),
        // The control: nothing but the range, entry by entry.
        Recursive::LeftOut => return entries,
    };
    let counted = if hardware.runs { entries } else { entries + recursive };
    if too_many || counted > hardware.ceiling {
        return 1;
    }
    if hardware.runs { runs(entries * (what.stride.entry_size() / PAGE_SIZE)) + runs(recursive) } else { counted }
}

/// How many runs make up `pages` pages.
const fn runs(pages: u64) -> u64 {
    let (mut runs, mut digits) = (pages % 2, pages / 2);
    while digits != 0 {
        runs += (digits % 32 != 0) as u64;
        digits /= 32;
    }
    runs
}

/// The form.
pub fn count(hardware: &Hardware, workload: WorkloadId, flushes: &Flushes, self_map: bool) -> u64 {
    let c = cost(hardware, workload, self_map);
    let Flushes { rounds, loaded, ops, .. } = *flushes;
    let broadcast = flushes.transport == TransportId::Broadcast;
    if workload == WorkloadId::UnshareExit {
        // Two flushes, for the shared table and for everything, of an mm that has just been unloaded.
        return ops
            * match (broadcast, hardware.tagged) {
                (true, _) => c + 1,
                // The first one takes everything, and this CPU out of the mask.
                (false, true) => 1,
                (false, false) => 0,
            };
    }
    // The second one to leave is loaded nowhere; its two flushes are broadcasts that find nobody in the mask.
    let second = if workload == WorkloadId::UnshareChain && broadcast { 2 * ops * c } else { 0 };
    let everywhere = if hardware.broadcasts { c } else { (1 + loaded) * c };
    // Lazy CPUs handle the first flush of tables in an operation, and no other.
    let by_interrupt = match (flushes.lazy, hardware.tagged) {
        (false, _) => rounds.flush * (1 + loaded) * c,
        (true, false) => rounds.flush * c,
        (true, true) => rounds.flush * c + 2 * loaded * least(rounds.flush_of_tables, ops),
    };
    second
        + match flushes.transport {
            TransportId::Ipi | TransportId::Paravirt => by_interrupt,
            TransportId::Broadcast => rounds.flush * everywhere,
            TransportId::Mixed if !flushes.promoted => by_interrupt,
            TransportId::Mixed => {
                let first = flushes.by_interrupt;
                let here_and_there = if flushes.lazy { c } else { (1 + loaded) * c };
                // The second flush of the mm's life, if it is among these, does both.
                first * here_and_there + (rounds.flush - first + first.saturating_sub(1)) * everywhere
            }
        }
}

const fn least(a: u64, b: u64) -> u64 {
    if a < b { a } else { b }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::predict::rounds;

    /// No tags, a ceiling of 33, no broadcast.
    const UNTAGGED: Hardware = Hardware { ceiling: 33, runs: false, tagged: false, broadcasts: false };
    /// Tags, a ceiling of 512, a broadcast; without an instruction for runs.
    const TAGGED: Hardware = Hardware { ceiling: 512, runs: false, tagged: true, broadcasts: true };
    const RUNS: Hardware = Hardware { runs: true, ..TAGGED };

    fn flushes(workload: WorkloadId, transport: TransportId, loaded: u64, ops: u64) -> Flushes {
        let rounds = rounds(workload, ops);
        Flushes { transport, promoted: false, rounds, by_interrupt: 2, loaded, lazy: false, ops }
    }

    #[test]
    fn by_interrupt_each_cpu_of_the_mask_invalidates() {
        for loaded in 0..64 {
            let all = flushes(WorkloadId::CollapseAnon, TransportId::Ipi, loaded, 10);
            assert_eq!(count(&UNTAGGED, WorkloadId::CollapseAnon, &all, false), 10 * (1 + loaded));
            assert_eq!(count(&RUNS, WorkloadId::CollapseAnon, &all, false), 10 * (1 + loaded));
            assert_eq!(count(&TAGGED, WorkloadId::CollapseAnon, &all, false), 10 * 512 * (1 + loaded));
            let one = flushes(WorkloadId::Dontneed4k, TransportId::Ipi, loaded, 10);
            assert_eq!(count(&UNTAGGED, WorkloadId::Dontneed4k, &one, false), 10 * (1 + loaded));
        }
    }

    #[test]
    fn a_broadcast_is_for_all() {
        let all = flushes(WorkloadId::CollapseAnon, TransportId::Broadcast, 3, 10);
        assert_eq!(count(&RUNS, WorkloadId::CollapseAnon, &all, false), 10);
        assert_eq!(count(&RUNS, WorkloadId::CollapseAnon, &all, true), 20);
        assert_eq!(count(&UNTAGGED, WorkloadId::CollapseAnon, &all, true), 40);
        let last = flushes(WorkloadId::UnshareMunmapLast, TransportId::Broadcast, 3, 16);
        assert_eq!(count(&RUNS, WorkloadId::UnshareMunmapLast, &last, false), 18);
        assert_eq!(count(&TAGGED, WorkloadId::UnshareMunmapLast, &last, true), 18);
    }

    #[test]
    fn promotion_costs_one_flush_twice() {
        let all = Flushes { promoted: true, ..flushes(WorkloadId::Munmap2m, TransportId::Mixed, 3, 10) };
        // Two by interrupt on four CPUs, one of these and the other eight by broadcast.
        assert_eq!(count(&RUNS, WorkloadId::Munmap2m, &all, false), 2 * 4 + 9);
        assert_eq!(count(&UNTAGGED, WorkloadId::Munmap2m, &all, false), 2 * 4 + 9 * 4);
    }

    #[test]
    fn lazy_cpus_that_are_told_of_tables_drop_all_that_is_tagged() {
        let tables = Flushes { lazy: true, ..flushes(WorkloadId::UnshareMunmapLast, TransportId::Ipi, 3, 8) };
        assert_eq!(count(&UNTAGGED, WorkloadId::UnshareMunmapLast, &tables, false), 9);
        assert_eq!(count(&RUNS, WorkloadId::UnshareMunmapLast, &tables, false), 9 + 2 * 3 * 8);
        let pages = Flushes { lazy: true, ..flushes(WorkloadId::Mprotect2m, TransportId::Ipi, 3, 8) };
        assert_eq!(count(&RUNS, WorkloadId::Mprotect2m, &pages, false), 8);
    }

    #[test]
    fn an_mm_that_exits_is_loaded_nowhere() {
        let exit = |transport| flushes(WorkloadId::UnshareExit, transport, 3, 8);
        assert_eq!(count(&UNTAGGED, WorkloadId::UnshareExit, &exit(TransportId::Ipi), false), 0);
        assert_eq!(count(&UNTAGGED, WorkloadId::UnshareExit, &exit(TransportId::Broadcast), false), 16);
        assert_eq!(count(&RUNS, WorkloadId::UnshareExit, &exit(TransportId::Ipi), false), 8);
        assert_eq!(count(&RUNS, WorkloadId::UnshareExit, &exit(TransportId::Broadcast), false), 16);
    }
}
