//! The verdict on an experiment's rows: what each row promises by itself, what the file expects, and that repetitions
//! of a deterministic engine agree.

use std::collections::{HashMap, HashSet};

use serde_json::{Value, json};

use super::file::Experiment;
use crate::records::{CELL, Record, identity, number, text};
use crate::table::count;

/// Notes in each row whether it is as expected, and in `problem` why not; returns how many are not.
pub(crate) fn judge(rows: &mut [Record], experiment: &Experiment) -> usize {
    for row in rows.iter_mut() {
        row.shift_remove("as_expected");
        row.shift_remove("problem");
    }
    // A control that one seed shows needs no other seed to show it.
    let shown: HashSet<String> =
        rows.iter().filter(|row| text(row, "verdict") == "unsafe").map(|row| identity(row, CELL)).collect();
    let is_shown = |row: &Record| text(row, "verdict") == "void" && shown.contains(&identity(row, CELL));
    let mut problems: Vec<Vec<String>> = rows.iter().map(|row| by_itself(row, experiment, is_shown(row))).collect();
    for condition in &experiment.expected {
        for (row, what) in condition.judge(rows) {
            problems[row].push(format!("{what} (line {})", condition.line));
        }
    }
    repetitions(rows, &mut problems);
    for (row, problems) in rows.iter_mut().zip(&problems) {
        row.insert("as_expected".to_owned(), json!(problems.is_empty()));
        if !problems.is_empty() {
            row.insert("problem".to_owned(), json!(problems.join("; ")));
        }
    }
    problems.iter().filter(|problems| !problems.is_empty()).count()
}

/// What a row promises by itself, unless the file expects something else of it.
fn by_itself(row: &Record, experiment: &Experiment, shown_elsewhere: bool) -> Vec<String> {
    let said_of = |key: &str| experiment.expected.iter().any(|c| c.means(row) && c.is_about(key));
    let mut problems = Vec::new();
    let (verdict, expected) = (text(row, "verdict"), text(row, "expected"));
    if verdict != expected && !shown_elsewhere && !said_of("verdict") {
        problems.push(format!("{verdict}, expected {expected}"));
    }
    if row.get("miscounted") == Some(&Value::Bool(true)) && !said_of("miscounted") {
        let mut wrong: Vec<String> = Vec::new();
        for what in ["flush_ipis", "sync_ipis", "syncs_elided"] {
            let counted = number(row, &format!("{what}_per_op"));
            if let Some(predicted) = number(row, &format!("predicted_{what}_per_op")).filter(|p| Some(*p) != counted) {
                wrong.push(format!("{what} {}, predicted {}", counted.map_or("-".into(), count), count(predicted)));
            }
        }
        problems.push(if wrong.is_empty() { "counts differ from the prediction".into() } else { wrong.join(", ") });
    }
    problems
}

/// Rows of the same cell and seed must be the same, where the engine promises it.
fn repetitions(rows: &[Record], problems: &mut [Vec<String>]) {
    let mut first: HashMap<String, usize> = HashMap::new();
    for (i, row) in rows.iter().enumerate().filter(|(_, row)| text(row, "engine") == "icount") {
        let key = format!("{}\u{1f}{}", identity(row, CELL), text(row, "seed"));
        let before = &rows[*first.entry(key).or_insert(i)];
        let differs = |key: &&String| {
            // Instructions are counted in the first repetition only.
            !["repetition", "instructions_per_op"].contains(&key.as_str()) && row.get(*key) != before.get(*key)
        };
        let different: Vec<&str> = row.keys().filter(differs).map(String::as_str).collect();
        if !different.is_empty() {
            problems[i].push(format!(
                "repetition {} is another run than the first: {}",
                text(row, "repetition"),
                different.join(", ")
            ));
        }
    }
}
