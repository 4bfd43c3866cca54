//! Scenarios as lines of JSON: one for each cell that was played, with its steps, and one for each scenario that QEMU
//! cannot show, with the reason.

use kernel::record::cell::Verdict;
use serde::Serialize;

use super::parse::{Scenario, Shown};
use super::report::{self, Found, Played};
use crate::results_file::ResultsFile;
use crate::violation;

/// The version of the keys below.
const SCHEMA: u32 = 1;

/// One line. Keys that rows of `run --json` have too mean the same.
#[derive(Serialize)]
pub(super) struct Line<'s> {
    schema: u32,
    scenario: &'s str,
    /// Its title.
    story: &'s str,
    /// The engine that it was played on; of one that was not played, which could show it.
    engine: &'s str,
    workload: &'s str,
    arch: Option<&'s str>,
    transport: Option<&'s str>,
    strategy: Option<String>,
    /// Guards that were taken away, with spaces between.
    without: String,
    /// `na` where QEMU cannot show it, `none` where the kernel fell over.
    verdict: &'s str,
    expected: Option<&'s str>,
    /// Why QEMU cannot show it.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'s str>,
    /// What is not as expected.
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
    steps: Vec<Step<'s>>,
    first_violation: Option<String>,
}

/// One step, and how it ended.
#[derive(Serialize)]
struct Step<'s> {
    step: &'s str,
    ended: String,
}

/// The last line.
#[derive(Serialize)]
struct Summary {
    schema: u32,
    summary: bool,
    scenarios: usize,
    cells: usize,
    unexpected: usize,
}

/// The line of a cell that was played.
pub(super) fn played<'s>(scenario: &'s Scenario, played: &'s Played) -> Line<'s> {
    let cell = &played.cell;
    let row = match &played.found {
        Found::Row(row) => Some(row),
        Found::Fell(_) => None,
    };
    let ended = |i: usize| row.map_or(String::new(), |row| report::in_words(row.cell.steps[i]));
    Line {
        schema: SCHEMA,
        scenario: &scenario.name,
        story: &scenario.story[0],
        engine: "icount",
        workload: scenario.workload,
        arch: Some(cell.arch.name()),
        transport: Some(cell.transport),
        strategy: Some(cell.strategy()),
        without: if cell.kept { String::new() } else { scenario.without.join(" ") },
        verdict: played.verdict().map_or("none", Verdict::name),
        expected: cell.expected.map(Verdict::name),
        reason: None,
        problem: played.is_unexpected().then(|| match &played.found {
            Found::Row(_) => played.heading(),
            Found::Fell(sentence) => sentence.clone(),
        }),
        steps: scenario.steps.iter().enumerate().map(|(i, step)| Step { step, ended: ended(i) }).collect(),
        first_violation: row.map(|row| violation::in_words(row)).filter(|words| !words.is_empty()),
    }
}

/// The line of a scenario that QEMU cannot show.
pub(super) fn elsewhere(scenario: &Scenario) -> Option<Line<'_>> {
    let Shown::Elsewhere(engine, reason) = &scenario.shown else { return None };
    Some(Line {
        schema: SCHEMA,
        scenario: &scenario.name,
        story: &scenario.story[0],
        engine,
        workload: scenario.workload,
        arch: None,
        transport: None,
        strategy: None,
        without: scenario.without.join(" "),
        verdict: "na",
        expected: None,
        reason: Some(reason),
        problem: None,
        steps: Vec::new(),
        first_violation: None,
    })
}

/// Writes all that was played to `file`, and the summary.
pub(super) fn write(
    mut file: ResultsFile,
    scenarios: &[Scenario],
    all: &[Vec<Played>],
    unexpected: usize,
) -> anyhow::Result<()> {
    for (scenario, cells) in scenarios.iter().zip(all) {
        elsewhere(scenario).map_or(Ok(()), |line| file.add_object(&line))?;
        cells.iter().try_for_each(|cell| file.add_object(&played(scenario, cell)))?;
    }
    let cells = all.iter().map(Vec::len).sum();
    file.finish(&Summary { schema: SCHEMA, summary: true, scenarios: scenarios.len(), cells, unexpected })
}
