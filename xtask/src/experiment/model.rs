//! The simulated machine as an engine of experiments: the cells of the model (`cargo xtask sim`), each explored to its
//! end within its bounds.
//!
//! To the model there is no architecture, no seed and no number of operations: a strategy, a transport, an operation
//! and a class of walkers are a cell. Its verdict is what mode `contend` asks for, so its rows are of that mode. It
//! counts no interrupts.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::{Value, json};

use super::file::Experiment;
use super::folder::Folder;
use super::plan::{Unit, Work};
use crate::child;
use crate::engines;
use crate::records::{self, Record, text};
use crate::sim;
use crate::table::JUDGED;

/// What one exploration may take. They take less than a second each; one that is cut short is no verdict.
const LIMIT: Duration = Duration::from_secs(600);

/// The cells of one strategy on one transport under one class of walkers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct ModelWork {
    /// A name that the model has.
    pub(crate) strategy: &'static str,
    /// A name from [`kernel::tlb::transport::NAMES`].
    pub(crate) transport: &'static str,
    /// A name that the model has.
    pub(crate) walker: &'static str,
    /// Workloads of the experiment that the model has as operations.
    pub(crate) workloads: Vec<&'static str>,
}

/// All of the model's work for `experiment`, in the order of the rows.
pub(crate) fn works(experiment: &Experiment) -> Vec<ModelWork> {
    let mut works = Vec::new();
    if !experiment.model || hindrance(experiment).is_some() {
        return works;
    }
    for transport in &experiment.transports {
        let transports = match transport {
            Some(name) => vec![*name],
            None => experiment.archs.iter().map(|arch| arch.native_transport()).collect(),
        };
        for transport in transports {
            for &strategy in &experiment.strategies {
                for &walker in &experiment.walkers {
                    let has = |workload: &&&str| engines::operation(workload).is_some();
                    let workloads: Vec<&'static str> = experiment.workloads.iter().filter(has).copied().collect();
                    let work = ModelWork { strategy, transport, walker, workloads };
                    let knows = engines::knows(strategy, transport, walker) && !work.workloads.is_empty();
                    // Two architectures may have the same transport.
                    if knows && !works.contains(&work) {
                        works.push(work);
                    }
                }
            }
        }
    }
    works
}

/// Why the model has no row for `experiment` at all, if that is so.
pub(crate) fn nothing(experiment: &Experiment) -> Option<String> {
    let reason = hindrance(experiment).or_else(|| {
        let known =
            |kind: &str, names: Vec<&str>| format!("the model has no {kind} of these, but {}", names.join(", "));
        let (workloads, strategies) = (&experiment.workloads, &experiment.strategies);
        if !workloads.iter().any(|name| engines::operation(name).is_some()) {
            return Some(known("workload", engines::workloads().collect()));
        }
        if !strategies.iter().any(|name| engines::strategies().any(|known| known == *name)) {
            return Some(known("strategy", engines::strategies().collect()));
        }
        let walkers = || engines::walkers();
        let any = experiment.walkers.iter().any(|name| walkers().any(|known| known == *name));
        (!any).then(|| known("class of walkers", walkers().collect()))
    });
    reason.map(|reason| format!("engine sim has no row of this experiment: {reason}"))
}

/// What no cell of the model can be.
fn hindrance(experiment: &Experiment) -> Option<String> {
    let e = experiment;
    if !e.without.is_empty() || !e.inject.is_empty() {
        return Some("the model has every guard and no faults; leave out \"without\" and \"inject\"".into());
    }
    if !e.modes.contains(&JUDGED) {
        return Some(format!("its verdicts are those of mode {JUDGED}"));
    }
    (!e.hooks.contains(&crate::suite::Hook::Auto))
        .then(|| "to the model the hook is what the transport says (auto)".into())
}

/// What of `experiment` the model leaves out, in a sentence; nothing if it has all, or is not asked.
pub(crate) fn left_out(experiment: &Experiment) -> Option<String> {
    if !experiment.model {
        return None;
    }
    let without = |kind: &str, names: &[&'static str], has: &dyn Fn(&str) -> bool| {
        let missing: Vec<&str> = names.iter().copied().filter(|name| !has(name)).collect();
        (!missing.is_empty()).then(|| format!("{kind} {}", missing.join(", ")))
    };
    let parts: Vec<String> = [
        without("workloads", &experiment.workloads, &|name| engines::operation(name).is_some()),
        without("strategies", &experiment.strategies, &|name| engines::strategies().any(|known| known == name)),
        without("walkers", &experiment.walkers, &|name| engines::walkers().any(|known| known == name)),
    ]
    .into_iter()
    .flatten()
    .collect();
    (!parts.is_empty()).then(|| format!("Engine sim has no rows of {}.", parts.join("; ")))
}

impl ModelWork {
    /// The options of `cargo xtask sim` that explore it.
    pub(crate) fn options(&self) -> Vec<String> {
        let mut operations: Vec<&str> = Vec::new();
        for operation in self.workloads.iter().filter_map(|workload| engines::operation(workload)) {
            if !operations.contains(&operation) {
                operations.push(operation);
            }
        }
        let words = [
            ("--strategy", self.strategy.to_owned()),
            ("--transport", self.transport.to_owned()),
            ("--walker", self.walker.to_owned()),
            ("--operation", operations.join(",")),
            ("--seconds", LIMIT.as_secs().to_string()),
        ];
        words.into_iter().flat_map(|(option, value)| [option.to_owned(), value]).chain(["--json".to_owned()]).collect()
    }

    /// What is known of each row before it is explored.
    pub(crate) fn cells(&self) -> Vec<Record> {
        let cell = |workload: &&'static str| {
            let words = [
                ("arch", "model"),
                ("transport", self.transport),
                ("strategy", self.strategy),
                ("workload", workload),
                ("mode", JUDGED),
                ("walker", self.walker),
                ("engine", "sim"),
            ];
            words.map(|(key, word)| (key.to_owned(), word.into())).into_iter().collect()
        };
        self.workloads.iter().map(cell).collect()
    }

    /// Explores its cells with `program`, and keeps rows and counterexamples in `folder`. What is explored when it is
    /// interrupted need not be explored again.
    pub(crate) fn run(&self, unit: &Unit, program: &Path, folder: &Folder) -> anyhow::Result<()> {
        let explored = folder.path().join("parts").join(format!("{}.explored", unit.name));
        let mut command = std::process::Command::new(program);
        command.args(self.options()).args(["--threads", "1", "--resume", "--checkpoint"]).arg(&explored);
        let done = child::run(&mut command, LIMIT * 4, false)?;
        // 1 is a verdict that is not as expected, which is judged with all others.
        ensure!(
            matches!(done.status.code(), Some(0 | 1)),
            "the simulated machine failed ({}): {}",
            done.status,
            child::last_lines(&done.stderr, 1).concat()
        );
        let told = records::parse(&done.stdout, "the simulated machine")?;
        let mut rows = Vec::new();
        for &workload in &self.workloads {
            let operation = engines::operation(workload).unwrap_or_default();
            let cell = told.iter().find(|cell| text(cell, "operation") == operation);
            rows.push(self.row(workload, cell.with_context(|| format!("it says nothing of {operation}"))?));
        }
        let log: Vec<String> = told.iter().flat_map(story).collect();
        folder.log(unit, &log)?;
        folder.keep(unit, &rows)
    }

    /// The row of a workload, with the keys of every row; what the model does not count is null.
    fn row(&self, workload: &str, cell: &Record) -> Record {
        let of_cell = |key: &str| cell.get(key).cloned().unwrap_or(Value::Null);
        let mut row = Record::new();
        let mut put = |key: &str, value: Value| drop(row.insert(key.to_owned(), value));
        put("schema", json!(crate::rows::SCHEMA));
        put("arch", json!("model"));
        put("cpus", of_cell("cpus"));
        put("transport", json!(self.transport));
        put("strategy", json!(self.strategy));
        put("hook", Value::Null);
        put("workload", json!(workload));
        put("mode", json!(JUDGED));
        for key in ["seed", "ops"].into_iter().chain(COUNTS) {
            put(key, Value::Null);
        }
        put("expected", of_cell("expected"));
        put("verdict", of_cell("verdict"));
        put("engine", json!("sim"));
        put("walker", json!(self.walker));
        put("operation", of_cell("operation"));
        put("bounds", of_cell("bounds"));
        put("states", of_cell("states"));
        if !of_cell("violation").is_null() {
            put("first_violation", of_cell("violation"));
        }
        put("repetition", json!(1));
        put("without", json!(""));
        put("inject", json!(""));
        row
    }
}

/// What is counted elsewhere.
const COUNTS: [&str; 7] = [
    "flush_ipis_per_op",
    "sync_ipis_per_op",
    "syncs_elided_per_op",
    "redundant_sync_ipis_per_op",
    "missing_syncs_per_op",
    "tlbi_per_op",
    "instructions_per_op",
];

/// A cell in the log: its verdict, and how it came to a violation.
fn story(cell: &Record) -> Vec<String> {
    let t = |key| text(cell, key);
    let states = t("states");
    let mut lines = vec![format!("{}: {}, {states} states; {}", t("operation"), t("verdict"), t("bounds"))];
    lines.extend(t("interleaving").lines().map(str::to_owned));
    lines
}

/// The simulated machine, built, if any of `units` is its work.
pub(crate) fn ready(units: &[Unit]) -> anyhow::Result<Option<PathBuf>> {
    units.iter().any(|unit| matches!(unit.work, Work::Model(_))).then(sim::build).transpose()
}
