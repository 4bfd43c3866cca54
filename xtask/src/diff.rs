//! `cargo xtask diff`: what moved between two sets of rows, cell by cell, and whether a budget is kept.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::Value;

use crate::document;
use crate::error::{Outcome, bad_input};
use crate::output;
use crate::page;
use crate::records::budget::Budget;
use crate::records::{self, IDENTITY, Record, heading, identity, number, text};
use crate::table::{count, paragraph};

/// Says what moved between two folders of experiments, and fails if a budget is exceeded
///
/// Rows are compared with those of the same cell, seed and repetition. On mttcg, where every run is another one,
/// verdicts are compared and counts are not.
#[derive(Args)]
pub(crate) struct Diff {
    /// Before and after: experiments' folders, folders with such folders, or files of `run --json`; with --budget, one
    /// is enough
    #[arg(value_name = "FOLDER", num_args = 1..=2, required = true)]
    folders: Vec<PathBuf>,
    /// A TOML file: what rows may cost at most
    #[arg(long, value_name = "FILE")]
    budget: Option<PathBuf>,
    /// Also what moves with every schedule: walks, pages, durations, numbers of violations
    #[arg(long)]
    every: bool,
}

/// What every change of a schedule moves.
const RESTLESS: [&str; 5] = ["walks", "pages", "violations", "violations_by_state", "violations_observed"];
/// What says nothing of a row's results.
const ASIDE: [&str; 6] = ["schema", "qemu", "first_violation", "problem", "as_expected", records::PROFILE];

impl Diff {
    /// Does it.
    pub(crate) fn run(self) -> anyhow::Result<Outcome> {
        if self.folders.len() < 2 && self.budget.is_none() {
            return Err(bad_input("two folders are compared; one alone needs --budget"));
        }
        let sets: Vec<Vec<Record>> = self.folders.iter().map(|path| rows(path)).collect::<anyhow::Result<_>>()?;
        let (before, after) = match &sets[..] {
            [before, after] => (Some(before), after),
            [.., after] => (None, after),
            [] => return Err(bad_input("there is no folder to read")),
        };
        let known: HashMap<String, &Record> =
            before.into_iter().flatten().map(|row| (identity(row, &IDENTITY), row)).collect();
        let mut out = String::new();
        if let Some(before) = before {
            out += &moved(before, after, &known, self.every);
        }
        let Some(path) = &self.budget else {
            output::print(&out)?;
            return Ok(Outcome::Expected);
        };
        let budget = read_budget(path)?;
        let idle = budget.idle(after);
        if !idle.is_empty() {
            return Err(document::refusal(path, &idle));
        }
        let exceeded = budget.exceeded(after, &|row| known.get(&identity(row, &IDENTITY)).copied());
        out += &verdict(&exceeded, after, path);
        output::print(&out)?;
        Ok(if exceeded.is_empty() { Outcome::Expected } else { Outcome::Unexpected })
    }
}

fn rows(path: &Path) -> anyhow::Result<Vec<Record>> {
    if !path.is_file() {
        return page::rows(path);
    }
    let not_rows =
        |e| bad_input(format!("{e:#}; give an experiment's folder, its rows.jsonl, or a file of run --json"));
    records::read(path).map_err(not_rows)
}

fn read_budget(path: &Path) -> anyhow::Result<Budget> {
    let text = std::fs::read_to_string(path).map_err(|e| bad_input(format!("cannot read {}: {e}", path.display())))?;
    Budget::parse(&text)?.map_err(|mistakes| document::refusal(path, &mistakes))
}

/// Whether the budget is kept.
fn verdict(exceeded: &[(usize, String)], rows: &[Record], path: &Path) -> String {
    use anstyle::AnsiColor::{Green, Red};
    if exceeded.is_empty() {
        let good = Green.on_default().bold();
        return format!("{good}Within the budget{good:#} of {}: rows: {}.\n", path.display(), rows.len());
    }
    let bad = Red.on_default().bold();
    let mut out = format!("{bad}Budget exceeded{bad:#} ({}):\n", path.display());
    for (row, what) in exceeded {
        out += &paragraph(2, &format!("{}: {what}", heading(&rows[*row])));
    }
    out
}

/// What moved, row by row, and which rows are only on one side.
fn moved(before: &[Record], after: &[Record], known: &HashMap<String, &Record>, every: bool) -> String {
    let mut out = String::new();
    let (mut compared, mut differ) = (0, 0);
    let mut new: Vec<&Record> = Vec::new();
    for row in after {
        let Some(old) = known.get(&identity(row, &IDENTITY)) else {
            new.push(row);
            continue;
        };
        compared += 1;
        let changes = changes(old, row, every);
        if !changes.is_empty() {
            differ += 1;
            out += &format!("{}\n", heading(row));
            changes.iter().for_each(|line| out += &format!("  {line}\n"));
        }
    }
    let there: std::collections::HashSet<String> = after.iter().map(|row| identity(row, &IDENTITY)).collect();
    let gone: Vec<&Record> = before.iter().filter(|row| !there.contains(&identity(row, &IDENTITY))).collect();
    for (rows, side) in [(&gone, "before"), (&new, "after")] {
        if let Some(first) = rows.first() {
            out += &paragraph(0, &format!("Only {side}: {} rows, like {}.", rows.len(), heading(first)));
        }
    }
    out + &format!("{differ} of {compared} rows moved.\n")
}

/// The results of one row that are not what they were.
fn changes(before: &Record, after: &Record, every: bool) -> Vec<String> {
    let judged_only = text(after, "engine") == "mttcg";
    let keys = after.keys().chain(before.keys().filter(|key| !after.contains_key(*key)));
    let mut out = Vec::new();
    for key in keys {
        let skipped = IDENTITY.contains(&key.as_str())
            || ASIDE.contains(&key.as_str())
            || (!every && (RESTLESS.contains(&key.as_str()) || key.contains("_ticks_")))
            || (judged_only && key != "verdict" && key != "expected");
        let null = |row: &Record| matches!(row.get(key), None | Some(Value::Null));
        if skipped || before.get(key) == after.get(key) || (null(before) && null(after)) {
            continue;
        }
        let side = |row: &Record| {
            number(row, key).map_or_else(|| Some(text(row, key)).filter(|t| !t.is_empty()), |n| Some(count(n)))
        };
        let said = |row: &Record| side(row).unwrap_or_else(|| "-".into());
        let part = match (number(before, key), number(after, key)) {
            (Some(was), Some(is)) if was != 0.0 => format!("  ({:+.1} %)", 100.0 * (is - was) / was),
            _ => String::new(),
        };
        out.push(format!("{key:30} {} -> {}{part}", said(before), said(after)));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(text: &str) -> Record {
        serde_json::from_str(text).unwrap()
    }

    fn compared(before: &[Record], after: &[Record]) -> String {
        let known = before.iter().map(|row| (identity(row, &IDENTITY), row)).collect();
        moved(before, after, &known, false)
    }

    const ONE: &str = r#"{"arch":"x86_64","seed":1,"engine":"icount","sync_ipis_per_op":3.0,"walks":7,"verdict":"safe","instructions_per_op":null}"#;

    #[test]
    fn what_moved_is_told_with_both_values() {
        let before = [row(ONE), row(&ONE.replace("\"seed\":1", "\"seed\":2"))];
        let after = [row(&ONE.replace("3.0", "1.5").replace("\"safe\"", "\"void\"").replace("7", "8"))];
        let text = compared(&before, &after);
        assert!(text.contains("  sync_ipis_per_op               3 -> 1.5  (-50.0 %)\n"), "{text}");
        assert!(text.contains("  verdict                        safe -> void\n"), "{text}");
        assert!(!text.contains("walks") && text.contains("Only before: 1 rows"), "{text}");
        assert!(text.ends_with("1 of 1 rows moved.\n"), "{text}");
    }

    #[test]
    fn the_same_rows_did_not_move() {
        assert_eq!(
            compared(&[row(ONE)], &[row(&ONE.replace("null", "null,\"problem\":\"p\""))]),
            "0 of 1 rows moved.\n"
        );
    }

    #[test]
    fn counts_of_an_engine_that_is_never_the_same_are_not_compared() {
        let before = row(&ONE.replace("icount", "mttcg"));
        let after = row(&ONE.replace("icount", "mttcg").replace("3.0", "2.0"));
        assert!(compared(std::slice::from_ref(&before), &[after]).starts_with("0 of 1"));
        let other = row(&ONE.replace("icount", "mttcg").replace("safe", "unsafe"));
        assert!(compared(&[before], &[other]).contains("safe -> unsafe"));
    }
}
