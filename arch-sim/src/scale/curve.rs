//! Curves over the number of CPUs: one point for each strategy and size.

use kernel::tlb::transport::TransportId;
use serde::Serialize;

use super::costs::Preset;
use super::run::{Setting, Work, run};
use crate::model::strategies::Listed;

/// CPUs of the mm in the curves, if the machine has so many.
pub const MASK: u32 = 16;
/// Of these, the ones that walk.
pub const WALKERS: u32 = 4;
/// CPUs that leave shared tables at once in the curves, if the machine has so many.
pub const LEAVERS: u32 = 16;
/// What an operation of the curves takes beside flush and sync.
pub const OTHER_NS: u64 = 5_000;

/// One point. Everything is per operation.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Point {
    /// CPUs of the machine.
    pub cpus: u32,
    /// `collapse` or `unshare`.
    pub work: &'static str,
    /// Name of the strategy.
    pub strategy: &'static str,
    /// Name of the transport.
    pub transport: &'static str,
    /// Flush interrupts, in targets.
    pub flush_ipis: f64,
    /// Sync interrupts, in targets.
    pub sync_ipis: f64,
    /// Vectors raised.
    pub vectors: f64,
    /// Targets that had nothing to do with the mm.
    pub bystanders: f64,
    /// Time of the operation, by the model.
    pub model_ns: f64,
    /// Time that handlers took of other CPUs, by the model.
    pub model_stolen_ns: f64,
}

/// What the curves are drawn over.
#[derive(Clone, Debug)]
pub struct Range {
    /// The costs.
    pub costs: Preset,
    /// How flushes travel.
    pub transport: TransportId,
    /// Sizes, ascending.
    pub cpus: Vec<u32>,
    /// Operations of each CPU that works, in each point.
    pub ops: u64,
    /// The seed of the walkers.
    pub seed: u64,
}

/// Powers of two from `from` to `to`, both included whether they are one or not.
pub fn sizes(from: u32, to: u32) -> Vec<u32> {
    let powers = (0..32).map(|n| 1u32 << n).filter(|n| (from..=to).contains(n));
    let mut sizes: Vec<u32> = [from].into_iter().chain(powers).chain([to]).collect();
    sizes.sort_unstable();
    sizes.dedup();
    sizes
}

/// The points of `strategy`, of both kinds of work; `done` is told of each.
pub fn points(range: &Range, strategy: &Listed, mut done: impl FnMut()) -> Vec<Point> {
    let mut points = Vec::new();
    for &cpus in &range.cpus {
        let collapse = Work::Collapse { mask: MASK.min(cpus), walkers: WALKERS.min(cpus.saturating_sub(1)) };
        let unshare = Work::Unshare { leavers: LEAVERS.min(cpus) };
        for (name, work) in [("collapse", collapse), ("unshare", unshare)] {
            let setting = Setting {
                costs: range.costs.clone(),
                transport: range.transport,
                cpus,
                work,
                ops: range.ops,
                other_ns: OTHER_NS,
                seed: range.seed,
            };
            let outcome = run(&setting, strategy);
            let per_op = |n: u64| n as f64 / outcome.ops.max(1) as f64;
            let counts = outcome.counts;
            points.push(Point {
                cpus,
                work: name,
                strategy: strategy.name,
                transport: range.transport.name(),
                flush_ipis: per_op(counts.flush_ipis),
                sync_ipis: per_op(counts.sync_ipis),
                vectors: per_op(counts.vectors),
                bystanders: per_op(counts.bystanders),
                model_ns: per_op(outcome.latency_ns),
                model_stolen_ns: per_op(counts.stolen_ns),
            });
            done();
        }
    }
    points
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::strategies::everyone;

    #[test]
    fn sizes_are_powers_of_two_and_both_ends() {
        assert_eq!(sizes(2, 4096).len(), 12);
        assert_eq!(sizes(3, 20), [3, 4, 8, 16, 20]);
        assert_eq!(sizes(5, 5), [5]);
    }

    #[test]
    fn sync_all_grows_with_the_machine_and_coverage_does_not() {
        let costs = Preset::named(None, "arm-128").unwrap();
        let range = Range { costs, transport: TransportId::Broadcast, cpus: vec![64, 4096], ops: 2, seed: 1 };
        let of = |name: &str| {
            let strategy = everyone().into_iter().find(|s| s.name == name).unwrap();
            let all = points(&range, &strategy, || {});
            all.into_iter().filter(|p| p.work == "collapse").map(|p| p.sync_ipis).collect::<Vec<_>>()
        };
        assert_eq!(of("sync-all"), [63.0, 4095.0]);
        assert_eq!(of("coverage"), [15.0, 15.0]);
    }
}
