//! Numbers that others have published, and what the model has for them. Where the two differ, that is said, with what the model leaves out.

use kernel::tlb::transport::TransportId;
use serde::Serialize;

use super::costs::{Preset, PresetError};
use super::run::{Outcome, Setting, Work, run};
use crate::model::strategies::{Listed, everyone};

/// One comparison.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Comparison {
    /// What was counted or measured, and by whom.
    pub what: &'static str,
    /// Unit of both numbers.
    pub unit: &'static str,
    /// What was published.
    pub published: f64,
    /// What the model has.
    pub model: f64,
    /// What the difference comes from.
    pub why: String,
    /// Where the published number stands among the curves, if it is one of a size and a strategy that they have.
    pub mark: Option<Mark>,
}

/// A published number as a point of a curve.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub struct Mark {
    /// `collapse` or `unshare`.
    pub work: &'static str,
    /// `sync_ipis`, of one operation, or `slowdown`, against the same without a sync.
    pub quantity: &'static str,
    /// Of this strategy.
    pub strategy: &'static str,
    /// On so many CPUs.
    pub cpus: u32,
    /// What was published, in that unit.
    pub value: f64,
    /// In a few words, with whose it is.
    pub words: &'static str,
}

impl Comparison {
    /// The model's number less the published one, in percent of that.
    pub fn difference(&self) -> f64 {
        100.0 * (self.model - self.published) / self.published
    }
}

/// All comparisons, on the presets of `text` or those that come with the model.
pub fn all(text: Option<&str>) -> Result<Vec<Comparison>, PresetError> {
    let costs = Preset::named(text, "x86-2s")?;
    let mut all = collapse(&costs);
    all.push(fork_and_exit(&costs));
    all.push(walker(&costs));
    Ok(all)
}

fn strategy(name: &str) -> Option<Listed> {
    everyone().into_iter().find(|s| s.name == name)
}

fn outcome(setting: &Setting, name: &str) -> Outcome {
    strategy(name).map(|strategy| run(setting, &strategy)).unwrap_or_default()
}

/// 20 GiB in huge pages of 2 MiB.
const COLLAPSES: u64 = 20 * 1024 / 2;

/// The kernel's thread that collapses runs on one CPU, and the process whose memory it is on that CPU or no other.
fn collapse(costs: &Preset) -> Vec<Comparison> {
    let work = Work::Collapse { mask: 1, walkers: 0 };
    let transport = TransportId::Ipi;
    let setting = Setting { costs: costs.clone(), transport, cpus: 64, work, ops: COLLAPSES, other_ns: 5_000, seed: 1 };
    let sync = |name| outcome(&setting, name).counts.sync_ipis as f64;
    vec![
        Comparison {
            what: "collapsing 20 GiB on 64 CPUs, every collapse synced (Lance Yang, v8)",
            unit: "function-call interrupts",
            published: 646_316.0,
            model: sync("sync-all"),
            why: "10,240 collapses, each interrupts the 63 others; what is left over has other causes than syncs"
                .into(),
            mark: Some(Mark {
                work: "collapse",
                quantity: "sync_ipis",
                strategy: "sync-all",
                cpus: 64,
                value: 646_316.0 / COLLAPSES as f64,
                words: "646,316 for 10,240 collapses (Lance Yang, v8)",
            }),
        },
        Comparison {
            what: "the same with the sync left out where the flush interrupts (v8)",
            unit: "function-call interrupts",
            published: 785.0,
            model: sync("static-hook"),
            why: "the model has no other function calls: the 785 are of the rest of that machine".into(),
            mark: Some(Mark {
                work: "collapse",
                quantity: "sync_ipis",
                strategy: "static-hook",
                cpus: 64,
                value: 785.0 / COLLAPSES as f64,
                words: "785 with the sync left out (the same)",
            }),
        },
    ]
}

/// CPUs and GiB of the report; a PMD table is shared for each GiB.
const CPUS: u32 = 196;
const TABLES: u64 = 1_200;
/// Processes that fork and exit at once; the report says dozens to hundreds.
const PROCESSES: u32 = 64;
/// What fork and exit do for each shared table beside flush and sync: assumed.
const TABLE_NS: u64 = 1_000;

fn fork_and_exit(costs: &Preset) -> Comparison {
    let setting = Setting {
        costs: costs.clone(),
        transport: TransportId::Ipi,
        cpus: CPUS,
        work: Work::Unshare { leavers: PROCESSES },
        // Time grows evenly with the tables, so a part of them is enough for a ratio.
        ops: TABLES / 40,
        other_ns: TABLE_NS,
        seed: 1,
    };
    let (with, without) = (outcome(&setting, "sync-all"), outcome(&setting, "none"));
    let model = with.took_ns as f64 / without.took_ns.max(1) as f64;
    let leaves = with.took_ns as f64 / 1e3 / setting.ops as f64;
    // How much other work each table would need for the published ratio.
    let needed = (with.took_ns as f64 - without.took_ns as f64) / setting.ops as f64 / 3.0 / 1e3;
    Comparison {
        what: "fork and exit, 196 CPUs, 1.2 TB of shared tables, with a sync for each table against without (Amazon)",
        unit: "times slower",
        published: 4.0,
        model,
        why: format!(
            "with a sync for each, leaving a table takes {leaves:.0} us when {PROCESSES} processes leave at once; the model has nothing else in fork and exit than \
             {TABLE_NS} ns for each table (assumed), and would agree if there were {needed:.0} us, {:.0} ms for a whole process: what the report's processes did beside, it \
             does not say",
            needed * TABLES as f64 / 1e3
        ),
        mark: Some(Mark {
            work: "unshare",
            quantity: "slowdown",
            strategy: "sync-all",
            cpus: CPUS,
            value: 4.0,
            words: "4 times, all of fork and exit (Amazon)",
        }),
    }
}

/// 60 threads, 500,000 calls of 8 pages each: 1.489 s without and 1.533 s with publication.
const CALL_NS: f64 = 1.489e9 / 500_000.0;

fn walker(costs: &Preset) -> Comparison {
    let barrier = costs.barrier.ns as f64;
    Comparison {
        what: "a walk of 8 pages that publishes itself, against one that does not (Lance Yang, v4)",
        unit: "percent slower",
        published: 2.96,
        model: 100.0 * barrier / CALL_NS,
        why: format!(
            "one full barrier of {barrier} ns on a CPU with nothing to wait for, in a call of {CALL_NS:.0} ns (published); of what else the published 88 ns are, the mail \
             says nothing: its 60 threads may wait for each other's reference counts, which the model has not"
        ),
        mark: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn collapse_has_the_published_shape() {
        let costs = Preset::named(None, "x86-2s").unwrap();
        let [with, without] = &collapse(&costs)[..] else { panic!("two") };
        assert_eq!(with.model, 10_240.0 * 63.0);
        assert!(with.difference().abs() < 0.5, "{}", with.difference());
        assert_eq!(without.model, 0.0);
    }

    #[test]
    fn a_sync_for_each_table_makes_fork_and_exit_slower_by_times() {
        let costs = Preset::named(None, "x86-2s").unwrap();
        let comparison = fork_and_exit(&costs);
        assert!(comparison.model > comparison.published, "{comparison:?}");
        assert!(comparison.why.contains("assumed"));
    }

    #[test]
    fn the_barrier_costs_the_walk_something_and_less_than_published() {
        let comparison = walker(&Preset::named(None, "x86-2s").unwrap());
        assert!(0.0 < comparison.model && comparison.model < comparison.published, "{comparison:?}");
    }
}
