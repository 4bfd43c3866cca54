//! What came out of cells, as it is kept and shown: rows in a checkpoint, tables, and the verdicts that the runner
//! shows beside those of QEMU.

use std::collections::BTreeMap;
use std::fmt::Write;

use kernel::record::cell::Verdict as Outcome;
use serde::{Deserialize, Serialize};

use crate::by_core;
use crate::matrix::{Bounds, Verdict};
use crate::model::scenario::walker_name;
use crate::model::strategies::everyone;
use crate::model::words;

/// One cell.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Row {
    /// The strategy's name.
    pub strategy: String,
    /// The transport's name.
    pub transport: String,
    /// The operation's name.
    pub operation: String,
    /// The name of the class of walkers.
    pub walker: String,
    /// The verdict, by name.
    pub found: String,
    /// The verdict that the strategy promises, by name.
    pub expected: Option<String>,
    /// Whether that was expected.
    pub as_expected: bool,
    /// Different states.
    pub states: u64,
    /// States generated.
    pub generated: u64,
    /// Seconds that took.
    pub seconds: f64,
    /// What was violated, and after how many steps, if something was.
    pub violation: Option<String>,
    /// How it came to that: the steps, a line for each.
    pub interleaving: Option<String>,
    /// It is of the core, not of the model: states are classes of interleavings then, and generated ones are steps.
    pub by_core: bool,
    /// Bounds, sizes, and the counterexample, if there is one.
    pub report: String,
}

impl Row {
    /// The row of a cell.
    pub fn of(verdict: &Verdict) -> Row {
        let sum =
            |of: fn(&crate::model::check::Exploration) -> usize| verdict.explorations.iter().map(of).sum::<usize>();
        let counterexample = verdict.explorations.last().and_then(|last| last.counterexample.as_ref());
        Row {
            strategy: verdict.strategy.into(),
            transport: verdict.transport.name().into(),
            operation: verdict.operation.name().into(),
            walker: walker_name(verdict.walker).into(),
            found: verdict.found.name().into(),
            expected: verdict.expected.map(|expected| expected.name().into()),
            as_expected: verdict.is_as_expected(),
            states: sum(|e| e.states) as u64,
            generated: sum(|e| e.generated) as u64,
            seconds: verdict.explorations.iter().map(|e| e.time.as_secs_f64()).sum(),
            violation: counterexample.map(|c| format!("{}, after {} steps", c.broken.in_words(), c.steps.len())),
            interleaving: counterexample
                .zip(verdict.explorations.last())
                .map(|(c, exploration)| words::interleaving(&exploration.scenario, c)),
            by_core: false,
            report: verdict.report(),
        }
    }

    /// Whether both are of the same cell.
    pub fn is_of(&self, other: &Row) -> bool {
        let key = |row: &Row| (row.strategy.clone(), row.transport.clone(), row.operation.clone(), row.walker.clone());
        key(self) == key(other)
    }

    fn letter(&self) -> char {
        match &*self.found {
            "safe" => 's',
            "unsafe" => 'U',
            "refused" => '-',
            _ => '?',
        }
    }
}

/// The verdicts as one table per class of walker, at most 100 columns wide.
pub fn table(rows: &[Row], bounds: &Bounds) -> String {
    let mut text = String::new();
    let width = (3 * bounds.operations.len()).max(9);
    for walker in &bounds.walkers {
        let _ = write!(text, "walker {:<12}", walker_name(*walker));
        for transport in &bounds.transports {
            let _ = write!(text, " {:<width$}", transport.name());
        }
        text.push('\n');
        for strategy in everyone() {
            let of = |row: &&Row| row.strategy == strategy.name && row.walker == walker_name(*walker);
            let mut rows = rows.iter().filter(of).peekable();
            if rows.peek().is_none() {
                continue;
            }
            let _ = write!(text, "  {:<17}", strategy.name);
            for transport in &bounds.transports {
                let cells: String = rows
                    .clone()
                    .filter(|row| row.transport == transport.name())
                    .map(|row| format!("{}{} ", row.letter(), if row.as_expected { ' ' } else { '!' }))
                    .collect();
                let _ = write!(text, " {cells:<width$}");
            }
            let trimmed = text.trim_end().len();
            text.truncate(trimmed);
            text.push('\n');
        }
    }
    let operations: Vec<&str> = bounds.operations.iter().map(|operation| operation.name()).collect();
    let _ = writeln!(text, "columns: {}", operations.join(", "));
    text.push_str(
        "s safe, everything within the bounds explored; U unsafe; - refused; ? not exhausted; ! unexpected\n",
    );
    text
}

/// Sizes and speed of all cells together.
pub fn totals(rows: &[Row]) -> String {
    let of = |by_core: bool| {
        let rows = rows.iter().filter(move |row| row.by_core == by_core);
        rows.fold((0, 0, 0, 0.0), |(count, states, generated, seconds), row| {
            (count + 1, states + row.states, generated + row.generated, seconds + row.seconds)
        })
    };
    let mut lines = Vec::new();
    let (count, states, generated, seconds): (usize, u64, u64, f64) = of(false);
    if count > 0 {
        let speed = generated as f64 / seconds.max(1e-9) / 1e6;
        lines.push(format!(
            "{count} cells, {states} states ({generated} generated) in {seconds:.1} s of threads: {speed:.2} M states/s on each"
        ));
    }
    let (count, classes, steps, seconds) = of(true);
    if count > 0 {
        lines.push(format!(
            "{count} cells by the core itself, {classes} classes of interleavings ({steps} steps) in {seconds:.1} s"
        ));
    }
    lines.join("\n")
}

/// A row for machines (`--json`). Every run of the same program prints the same: speed is not in it.
#[derive(Serialize)]
struct Line<'a> {
    schema: u32,
    engine: &'a str,
    strategy: &'a str,
    transport: &'a str,
    operation: &'a str,
    walker: &'a str,
    expected: Option<&'a str>,
    verdict: &'a str,
    as_expected: bool,
    states: u64,
    cpus: u8,
    bounds: String,
    violation: Option<&'a str>,
    interleaving: Option<&'a str>,
}

/// Version of the lines of [`json()`].
pub const SCHEMA: u32 = 1;

/// The rows as JSON: a line for each, then one that says how it ended.
pub fn json(rows: &[Row], bounds: &Bounds) -> String {
    let mut text = String::new();
    for row in rows {
        let line = Line {
            schema: SCHEMA,
            engine: "sim",
            strategy: &row.strategy,
            transport: &row.transport,
            operation: &row.operation,
            walker: &row.walker,
            expected: row.expected.as_deref(),
            verdict: &row.found,
            as_expected: row.as_expected,
            states: row.states,
            cpus: if row.by_core { 2 } else { bounds.rounds.iter().map(|round| round.cpus).max().unwrap_or(0) },
            bounds: if row.by_core { by_core::BOUNDS.into() } else { bounds.in_words() },
            violation: row.violation.as_deref(),
            interleaving: row.interleaving.as_deref(),
        };
        text += &serde_json::to_string(&line).expect("strings and numbers");
        text.push('\n');
    }
    let unexpected = rows.iter().filter(|row| !row.as_expected).count();
    let end = serde_json::json!({ "schema": SCHEMA, "summary": true, "rows": rows.len(), "unexpected": unexpected });
    text + &format!("{end}\n")
}

/// Version of [`Verdicts`].
pub const VERSION: u32 = 2;

/// The verdicts of a whole matrix, for whoever shows them beside others: one letter for each operation, as in
/// [`table`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Verdicts {
    /// Of the format.
    pub version: u32,
    /// Within which everything was explored.
    pub bounds: String,
    /// By strategy, other bounds.
    pub other_bounds: BTreeMap<String, String>,
    /// What the letters are of, in this order.
    pub operations: Vec<String>,
    /// By walker, transport and strategy.
    pub verdicts: BTreeMap<String, BTreeMap<String, BTreeMap<String, String>>>,
}

/// Why a matrix is not kept.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "{0} on {1}, {2}, walker {3} was not explored to its end: the verdicts are not kept; give it more time (--seconds, --minutes)"
)]
pub struct NotExhausted(String, String, String, String);

impl Verdicts {
    /// The verdicts of `rows`, all of which were explored to their end.
    pub fn of(rows: &[Row], bounds: &Bounds) -> Result<Verdicts, NotExhausted> {
        let mut verdicts = BTreeMap::<String, BTreeMap<String, BTreeMap<String, String>>>::new();
        for row in rows {
            if row.found == Outcome::Void.name() {
                let name = |name: &String| name.clone();
                let (strategy, transport) = (name(&row.strategy), name(&row.transport));
                return Err(NotExhausted(strategy, transport, name(&row.operation), name(&row.walker)));
            }
            let of_walker = verdicts.entry(row.walker.clone()).or_default();
            let of_transport = of_walker.entry(row.transport.clone()).or_default();
            of_transport.entry(row.strategy.clone()).or_default().push(row.letter());
        }
        Ok(Verdicts {
            version: VERSION,
            bounds: bounds.in_words(),
            other_bounds: rows
                .iter()
                .filter(|row| row.by_core)
                .map(|row| (row.strategy.clone(), by_core::BOUNDS.into()))
                .collect(),
            operations: bounds.operations.iter().map(|operation| operation.name().into()).collect(),
            verdicts,
        })
    }
}
