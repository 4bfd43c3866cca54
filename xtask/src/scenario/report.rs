//! What the scenarios print: verdicts and steps. It depends on the files, the options and what the guests found only.

use kernel::record::cell::Verdict;
use kernel::record::shared::Doing;
use kernel::record::step::{StepOutcome, StepRecord};
use kernel::scenario::Point;

use super::cells::Cell;
use super::parse::{Scenario, Shown};
use crate::rows::Row;
use crate::table::paragraph;
use crate::violation;

/// What a guest said of one cell.
pub(crate) enum Found {
    /// Its row.
    Row(Box<Row>),
    /// The kernel fell over.
    Fell(String),
}

/// One cell, and what became of it.
pub(crate) struct Played {
    /// Which.
    pub(crate) cell: Cell,
    /// What was found.
    pub(crate) found: Found,
}

impl Played {
    pub(super) fn verdict(&self) -> Option<Verdict> {
        match &self.found {
            Found::Row(row) => Some(row.verdict),
            Found::Fell(_) => None,
        }
    }

    /// Counts that are not the expected ones, in words.
    fn miscounted(&self) -> Vec<String> {
        let Found::Row(row) = &self.found else { return Vec::new() };
        let of = |name| match name {
            "flush_ipis" => row.cell.flush_ipis,
            "sync_ipis" => row.cell.sync_ipis,
            _ => row.cell.vectors,
        };
        let wrong = self.cell.counts.iter().filter(|(name, n)| of(name) != *n);
        wrong.map(|(name, n)| format!("{name} {}, expected {n}", of(name))).collect()
    }

    /// Whether it is not what it was to be.
    pub(crate) fn is_unexpected(&self) -> bool {
        self.verdict().is_none()
            || !self.miscounted().is_empty()
            || self.cell.expected.is_some_and(|e| Some(e) != self.verdict())
    }

    pub(super) fn heading(&self) -> String {
        let verdict = self.verdict().map_or("no verdict", Verdict::name);
        match self.cell.expected {
            _ if self.verdict().is_none() => verdict.into(),
            None => format!("{verdict} (the scenario does not say what to expect)"),
            Some(expected) if Some(expected) == self.verdict() => format!("{verdict}, as expected"),
            Some(expected) => format!("{verdict}, but {} was expected", expected.name().to_uppercase()),
        }
    }

    /// The steps with what happened, and the violation.
    fn details(&self, scenario: &Scenario) -> String {
        let row = match &self.found {
            Found::Row(row) => row,
            Found::Fell(sentence) => return paragraph(6, sentence),
        };
        let mut out = String::new();
        let width = scenario.steps.iter().map(|s| s.len()).max().unwrap_or(0);
        for (i, text) in scenario.steps.iter().enumerate() {
            out += &format!("      {:2}  {text:width$}  {}\n", i + 1, in_words(row.cell.steps[i]));
        }
        if !self.cell.counts.is_empty() {
            let (wrong, right) = (self.miscounted(), &self.cell.counts);
            let right: Vec<String> = right.iter().map(|(name, n)| format!("{name} {n}")).collect();
            let words = if wrong.is_empty() { format!("{}, as expected", right.join(", ")) } else { wrong.join("; ") };
            out += &paragraph(10, &words);
        }
        if row.verdict == Verdict::Unsafe {
            out += &paragraph(10, &format!("{}.", violation::in_words(row)));
        }
        out
    }

    /// The steps with what happened, without anything that two cells may differ in though the same happened.
    fn course(&self) -> Vec<(StepOutcome, u8)> {
        match &self.found {
            Found::Row(row) => {
                row.cell.steps.iter().filter_map(|w| StepRecord::unpack(*w)).map(|r| (r.outcome, r.doing)).collect()
            }
            Found::Fell(_) => Vec::new(),
        }
    }
}

/// One step's end.
pub(super) fn in_words(word: u64) -> String {
    let Some(record) = StepRecord::unpack(word) else { return format!("wrote {word:#x}, which means nothing") };
    let at =
        record.at.and_then(Point::from_number).map_or("before its first point".into(), |p| format!("at {}", p.name()));
    match record.outcome {
        StepOutcome::Blocked => {
            let doing = Doing::from_number(record.doing.into()).map_or("waits", Doing::in_words);
            format!("blocked: {doing} ({at})")
        }
        StepOutcome::Frozen | StepOutcome::Stuck => format!("{} ({at})", record.outcome.in_words()),
        outcome => outcome.in_words().into(),
    }
}

/// One scenario's part of the report. Cells in which the same happened are told of together.
pub(crate) fn one(scenario: &Scenario, played: &[Played]) -> String {
    let bold = anstyle::Style::new().bold();
    let mut out = format!("{bold}{}{bold:#}: {}\n", scenario.name, scenario.story[0]);
    if let Shown::Elsewhere(engine, reason) = &scenario.shown {
        out += &paragraph(2, &format!("n/a (TCG), engine {engine}: {reason}"));
        return out;
    }
    let mut told = vec![false; played.len()];
    for i in 0..played.len() {
        if told[i] {
            continue;
        }
        let (heading, course) = (played[i].heading(), played[i].course());
        let alike = |p: &Played| p.heading() == heading && p.course() == course && p.cell.kept == played[i].cell.kept;
        let mut places: Vec<(String, Vec<String>)> = Vec::new();
        for (j, other) in played.iter().enumerate().skip(i).filter(|(_, p)| alike(p)) {
            told[j] = true;
            let place = format!("{} {}", other.cell.arch.name(), other.cell.transport);
            match places.last_mut() {
                Some((last, strategies)) if *last == place => strategies.push(other.cell.strategy()),
                _ => places.push((place, vec![other.cell.strategy()])),
            }
        }
        let guards = if played[i].cell.kept { ", with all guards" } else { "" };
        out += &format!("  {heading}{guards}:\n");
        for (place, strategies) in places {
            out += &paragraph(4, &format!("{place}: {}", strategies.join(", ")));
        }
        out += &played[i].details(scenario);
    }
    out
}

/// The last line.
pub(crate) fn verdict(scenarios: usize, elsewhere: usize, cells: usize, unexpected: usize) -> String {
    use anstyle::AnsiColor::{Green, Red};
    let others = if elsewhere == 0 { String::new() } else { format!(", {elsewhere} belong to other engines") };
    if unexpected == 0 {
        let good = Green.on_default().bold();
        format!("{good}As expected{good:#}: scenarios: {scenarios}{others}; cells: {cells}.\n")
    } else {
        let bad = Red.on_default().bold();
        format!("{bad}NOT as expected{bad:#}: {unexpected} of {cells} cells.\n")
    }
}
