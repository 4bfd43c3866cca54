//! The closed forms of mode `contend`, where walkers are in the way and nobody can foresee how often an operation is
//! tried, nor who is frozen or promoted when. They are forms in what was noted at each flush and each decision
//! ([`crate::ledger::recorded`]): `F` flushes, `H` of them by a CPU that was in the mm's mask itself, each with `M`
//! other CPUs in the mask, of which `o` were frozen.
//!
//! | transport | flush interrupts | invalidations, `c` for one flush on one CPU ([`super::invalidations`]) |
//! |---|---|---|
//! | `ipi` | `ΣM` | `c·(H + ΣM)` |
//! | `paravirt` | `ΣM − Σo` | `c·(H + ΣM − Σo − L) + R`: each of the `R` frozen CPUs that came to owe a flush invalidates once, everything, when it resumes, and `L` of them with that the next flush too |
//! | `broadcast` | 0 | `c·F`, or by NMI `c·(F + ΣM)` |
//! | `mixed` | as `ipi`, before the mm is promoted | each flush as on the transport that it took; the one that did both, as both |
//!
//! Where others flush too (`MADV_DONTNEED`, which they also do) no flush is like another, and a CPU may find that it
//! has caught up with one, or that it has more to make good. There, and where a gather that finds no room flushes
//! whenever the chance has it, `c` is summed over the flushes of all CPUs, as each begins: `of_all`.
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

/// Invalidations, given what all CPUs noted, whatever was flushed by whom:
///
/// - by interrupt, the cost of each flush for its own CPU, if that is in the mask, and for each other one that it was
///   decided to tell, less those that are frozen;
/// - by broadcast, the cost of each flush once, and played by NMI for each CPU to which that was sent;
/// - less what a CPU had caught up with, or made good otherwise; and one for each time that it did, and for each frozen
///   CPU that came to owe a flush.
pub(super) fn of_all(noted: &Notes) -> u64 {
    let (interrupts, both, broadcast) = (Way::Interrupts as usize, Way::Both as usize, Way::Broadcast as usize);
    let in_handlers = noted.cost_here[interrupts] + noted.cost_here[both] + noted.cost_told;
    let everywhere = noted.cost[both] + noted.cost[broadcast] + noted.cost_by_nmi;
    (in_handlers + everywhere + noted.alone + noted.indebted).saturating_sub(noted.cost_owed + noted.cost_left_out)
}

/// The counts of a cell of mode `contend` on `cpus` CPUs, given what was noted by the CPU that operates, and by all.
pub fn predict<A: Arch>(
    workload: WorkloadId,
    strategy: &sync::Entry<A>,
    setting: Setting,
    cpus: u64,
    ops: u64,
    (noted, by_all): (&Notes, &Notes),
    batches_fail: bool,
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
        WorkloadId::Dontneed2m | WorkloadId::Dontneed4k => of_all(by_all),
        _ if batches_fail => of_all(by_all),
        WorkloadId::UnshareExit => {
            let rounds: Rounds = rounds(workload, ops);
            let transport = setting.transport;
            let flushes = Flushes { transport, promoted: false, rounds, by_interrupt: 0, loaded: 0, lazy: false, ops };
            invalidations::count(&hardware, workload, &flushes, strategy.self_map)
        }
        _ => {
            // A CPU that resumes when the next flush has begun, and has not looked at it, makes good both.
            let made_good = if noted.owed > 0 { by_all.cost_left_out } else { 0 };
            let each = invalidations::cost(&hardware, workload, strategy.self_map);
            ((instructions - noted.owed) * each + noted.indebted).saturating_sub(made_good)
        }
    };
    let promised = (strategy.promises)(setting);
    Prediction {
        flush_ipis: Some(by_interrupt.others + both.others - noted.owed),
        // Where a table is given up, readers of two words are waited for on all CPUs, whatever the strategy.
        sync_ipis: Some(noted.targets + noted.waits_for_readers * (cpus - 1)),
        elided: Some(noted.elided),
        tlbi: Some(tlbi),
        bystander: Some(0),
        flushes: flushes(workload, ops).filter(|_| !batches_fail),
        uncovered: (promised == Verdict::Safe).then_some(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::{Level, PAGE_SIZE, PMD_SIZE, VirtAddr};
    use crate::mm::self_map::Recursive;
    use crate::tlb::invalidation::Invalidation;

    const BY_NMI: Hardware = Hardware { ceiling: 33, runs: false, tagged: false, broadcasts: false };
    const RUNS: Hardware = Hardware { ceiling: 512, runs: true, tagged: true, broadcasts: true };

    /// Two flushes of two pages by a CPU of the mask, each for three others, on `way`.
    fn two(way: Way, hardware: &Hardware) -> Notes {
        let pages = Invalidation { end: VirtAddr(2 * PAGE_SIZE), ..Invalidation::page(VirtAddr(0)) };
        let cost = invalidations::of(hardware, &pages);
        let mut notes = Notes::default();
        (notes.cost[way as usize], notes.cost_here[way as usize]) = (2 * cost, 2 * cost);
        if way != Way::Broadcast {
            notes.cost_told = 6 * cost;
        }
        if way != Way::Interrupts && !hardware.broadcasts {
            notes.cost_by_nmi = 6 * cost;
        }
        notes
    }

    #[test]
    fn each_way_of_two_flushes() {
        assert_eq!(of_all(&two(Way::Interrupts, &BY_NMI)), 16);
        assert_eq!(of_all(&two(Way::Broadcast, &BY_NMI)), 16);
        assert_eq!(of_all(&two(Way::Both, &BY_NMI)), 32);
        assert_eq!(of_all(&two(Way::Interrupts, &RUNS)), 8);
        assert_eq!(of_all(&two(Way::Broadcast, &RUNS)), 2);
        assert_eq!(of_all(&two(Way::Both, &RUNS)), 10);
    }

    #[test]
    fn what_a_cpu_makes_good_otherwise_is_one_instruction() {
        let all = two(Way::Interrupts, &BY_NMI);
        // One CPU was frozen for both flushes; another had caught up with one of them.
        let notes = Notes { cost_owed: 4, indebted: 1, cost_left_out: 2, ..all };
        assert_eq!(of_all(&notes), 16 - 4 + 1 - 2);
        // One that is behind takes everything, in place of the range.
        assert_eq!(of_all(&Notes { cost_left_out: 2, alone: 1, ..all }), 15);
    }

    /// By the table at the head of [`invalidations`].
    #[test]
    fn any_flush_costs_what_its_range_does() {
        let one = Invalidation::page(VirtAddr(PMD_SIZE));
        let of = |end: u64, tables, recursive| Invalidation { end: VirtAddr(end), tables, recursive, ..one };
        let table = |recursive| of(2 * PMD_SIZE, true, recursive);
        for (what, each, run) in [
            (one, 1, 1),
            (of(PMD_SIZE + 33 * PAGE_SIZE, false, Recursive::Unused), 33, 2),
            (of(PMD_SIZE + 34 * PAGE_SIZE, false, Recursive::Unused), 1, 1),
            // 1 + 2 · (31 + 32 · 7)
            (of(PMD_SIZE + 511 * PAGE_SIZE, false, Recursive::Unused), 1, 3),
            (table(Recursive::Unused), 1, 1),
            (table(Recursive::Removed(Level::Pte)), 1, 2),
            (table(Recursive::Removed(Level::Pmd)), 1, 1),
            (Invalidation { stride: Level::Pmd, ..table(Recursive::Removed(Level::Pte)) }, 2, 2),
            (Invalidation::ALL, 1, 1),
        ] {
            assert_eq!((invalidations::of(&BY_NMI, &what), invalidations::of(&RUNS, &what)), (each, run), "{what:?}");
        }
    }
}
