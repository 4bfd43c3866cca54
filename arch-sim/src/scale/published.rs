//! Numbers that others have published, and what the model has for them. Where the two differ, that is said, with what
//! the model leaves out.

use kernel::tlb::transport::TransportId;
use serde::Serialize;

use super::costs::{Preset, PresetError};
use super::run::{Outcome, Setting, Work, run};
use super::sensitivity::{Need, crossing};
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
    /// What would have to be otherwise, each alone, for the two to agree; empty where they do, or where it is no matter
    /// of costs.
    pub needs: Vec<Need>,
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
            needs: Vec::new(),
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
            needs: Vec::new(),
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
/// Tables of the runs that look for what would have to be otherwise.
const SHORT: u64 = 8;

/// How many times slower leaving shared tables is with a sync for each, when so many processes leave at once.
fn slowdown(costs: &Preset, processes: u32, table_ns: u64, tables: u64) -> (f64, f64) {
    let setting = Setting {
        costs: costs.clone(),
        transport: TransportId::Ipi,
        cpus: CPUS,
        work: Work::Unshare { leavers: processes },
        // Time grows evenly with the tables, so a part of them is enough for a ratio.
        ops: tables,
        other_ns: table_ns,
        seed: 1,
    };
    let (with, without) = (outcome(&setting, "sync-all"), outcome(&setting, "none"));
    (with.took_ns as f64 / without.took_ns.max(1) as f64, with.took_ns as f64 / tables as f64)
}

fn fork_and_exit(costs: &Preset) -> Comparison {
    const PUBLISHED: f64 = 4.0;
    let (model, leaves_ns) = slowdown(costs, PROCESSES, TABLE_NS, TABLES / 40);
    let changed = |change: fn(&mut Preset) -> &mut u64| {
        move |value: u64| {
            let mut costs = costs.clone();
            *change(&mut costs) = value;
            slowdown(&costs, PROCESSES, TABLE_NS, SHORT).0
        }
    };
    let table = crossing(1_000_000, PUBLISHED, |ns| slowdown(costs, PROCESSES, ns, SHORT).0);
    let cost = |name, cost, change| Need::of_cost(name, cost, cost.ns, PUBLISHED, changed(change));
    let needs = vec![
        Need {
            parameter: "what fork and exit do beside, for each table,",
            unit: "ns",
            has: TABLE_NS,
            published: false,
            needs: table,
        },
        cost("the initiator's work for each target", &costs.send, |costs| &mut costs.send.ns),
        cost("the delivery of an interrupt", &costs.delivery, |costs| &mut costs.delivery.ns),
        cost("a handler", &costs.handler, |costs| &mut costs.handler.ns),
        Need {
            parameter: "the number of processes",
            unit: "at once",
            has: PROCESSES.into(),
            published: false,
            needs: crossing(PROCESSES.into(), PUBLISHED, |n| slowdown(costs, (n as u32).max(1), TABLE_NS, SHORT).0),
        },
    ];
    let process_ms = table.map_or(0.0, |ns| ns as f64 * TABLES as f64 / 1e6);
    // Of a run of which this share is spent on leaving tables, without syncs, the rest stays as it is.
    let share = 100.0 * (PUBLISHED - 1.0) / (model - 1.0);
    Comparison {
        what: "fork and exit, 196 CPUs, 1.2 TB of shared tables, with a sync for each table against without (Amazon)",
        unit: "times slower",
        published: PUBLISHED,
        model,
        why: format!(
            "with a sync for each, leaving a table takes {:.0} us when {PROCESSES} processes leave at once, most of it the initiator's, who tells {} CPUs one after the other. The model \
             has nothing in fork and exit but {TABLE_NS} ns for each table (assumed): it agrees with a process of which leaving its tables is {share:.0} % without syncs, that is, with some {process_ms:.0} ms of \
             other work. What the report's processes did beside, it does not say",
            leaves_ns / 1e3,
            CPUS - 1,
        ),
        needs,
        mark: Some(Mark {
            work: "unshare",
            quantity: "slowdown",
            strategy: "sync-all",
            cpus: CPUS,
            value: PUBLISHED,
            words: "4 times, all of fork and exit (Amazon)",
        }),
    }
}

/// 60 threads, 500,000 calls of 8 pages each: 1.489 s without and 1.533 s with publication.
const CALL_NS: f64 = 1.489e9 / 500_000.0;

fn walker(costs: &Preset) -> Comparison {
    const PUBLISHED: f64 = 2.96;
    let barrier = costs.barrier.ns as f64;
    let percent = |barrier: f64, call: f64| 100.0 * barrier / call;
    let needs = vec![
        Need::of_cost("a full barrier", &costs.barrier, 1_000, PUBLISHED, |ns| percent(ns as f64, CALL_NS)),
        Need {
            parameter: "a call of 8 pages",
            unit: "ns",
            has: CALL_NS as u64,
            published: true,
            needs: crossing(10_000, PUBLISHED, |ns| percent(barrier, (ns as f64).max(1.0))),
        },
    ];
    Comparison {
        what: "a walk of 8 pages that publishes itself, against one that does not (Lance Yang, v4)",
        unit: "percent slower",
        published: PUBLISHED,
        model: percent(barrier, CALL_NS),
        why: format!(
            "one full barrier of {barrier} ns on a CPU with nothing to wait for, in a call of {CALL_NS:.0} ns (published); of what else the published 88 ns are, the mail \
             says nothing: its 60 threads may wait for each other's reference counts, which the model has not"
        ),
        needs,
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

    /// What is said to be needed is: with that value the model has the published number.
    #[test]
    fn what_would_have_to_be_otherwise_would_do() {
        let costs = Preset::named(None, "x86-2s").unwrap();
        let comparison = fork_and_exit(&costs);
        let needs = |name: &str| comparison.needs.iter().find(|need| need.parameter.contains(name)).unwrap().needs;
        let close = |model: f64| (model - comparison.published).abs() < 0.1;
        let table = needs("for each table").expect("enough other work hides everything");
        assert!(close(slowdown(&costs, PROCESSES, table, SHORT).0), "{comparison:?}");
        assert_eq!(needs("delivery"), None, "who sends takes longer than that");
        let walker = walker(&costs);
        assert_eq!(walker.needs[0].needs.map(|ns| (88..=89).contains(&ns)), Some(true), "{walker:?}");
    }

    #[test]
    fn the_barrier_costs_the_walk_something_and_less_than_published() {
        let comparison = walker(&Preset::named(None, "x86-2s").unwrap());
        assert!(0.0 < comparison.model && comparison.model < comparison.published, "{comparison:?}");
    }
}
