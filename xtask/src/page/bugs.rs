//! The matrix of known bugs: each scenario under each strategy, in QEMU, as `cargo xtask scenario --json` left it in
//! the folder.

use std::path::Path;

use super::matrix::{Field, Found, Matrix};
use super::source::distinct;
use crate::records::{self, Record, text};

/// The file that is looked for.
pub(super) const FILE: &str = "scenarios.jsonl";

/// The matrix, if `folder` has the file.
pub(super) fn matrix(folder: &Path) -> anyhow::Result<Option<Matrix>> {
    let path = folder.join(FILE);
    if !path.is_file() {
        return Ok(None);
    }
    let all = records::read(&path)?;
    let command = format!("cargo xtask scenario --json {}", path.display());
    Ok((!all.is_empty()).then(|| of(&all, command)))
}

fn of(all: &[Record], command: String) -> Matrix {
    let rows: Vec<&Record> = all.iter().collect();
    // A strategy whose hook is overridden comes behind the others.
    let mut strategies = distinct(&rows, "strategy");
    strategies.retain(|name| !name.is_empty());
    let by_rule = |name: &String| kernel::sync::NAMES.iter().position(|(n, _)| n == name).unwrap_or(usize::MAX);
    strategies.sort_by_key(by_rule);
    let lines = distinct(&rows, "scenario").into_iter().map(|scenario| {
        let of_it: Vec<&Record> = rows.iter().copied().filter(|row| text(row, "scenario") == scenario).collect();
        let fields = strategies.iter().map(|strategy| field(&of_it, strategy)).collect();
        // A strategy is not to be blamed for what the kernel lacks.
        let lacks = of_it.iter().map(|row| text(row, "without")).find(|guards| !guards.is_empty());
        (scenario + &lacks.map_or(String::new(), |guards| format!(", without {guards}")), fields)
    });
    Matrix {
        title: "Verdicts: known bugs",
        shows: "Each scenario is a bug that this area has had, or a design that was posted, played step by step on both architectures and every transport that it is about. \
                Unsafe: some of them show it under this strategy, where they must; which, is in the field's tooltip. Where the bug is a guard that the kernel lacked, it is taken away, and the line names it. \
                n/a (TCG): the engine cannot show it; which one can, if any, is in the tooltip with the reason."
            .to_owned(),
        command,
        of: "scenario",
        columns: strategies.iter().map(|name| vec!["icount".to_owned(), name.clone()]).collect(),
        lines: lines.collect(),
    }
}

/// What became of one scenario under one strategy, everywhere it was played without the guards that it takes away.
fn field(scenario: &[&Record], strategy: &str) -> Option<Field> {
    if let Some(row) = scenario.iter().find(|row| text(row, "verdict") == "na") {
        let note = format!("engine {}: {}", text(row, "engine"), text(row, "reason"));
        return Some(Field { found: Found::NotApplicable, note });
    }
    // With all its guards the kernel is safe, or the scenario unexpected: that is no column of its own.
    let bare = scenario.iter().any(|row| !text(row, "without").is_empty());
    let meant = |row: &&Record| text(row, "strategy") == strategy && (!bare || !text(row, "without").is_empty());
    let rows: Vec<&Record> = scenario.iter().copied().filter(meant).collect();
    let found = Found::of(&rows)?;
    let shows = |row: &&&Record| found != Found::Unsafe || text(row, "verdict") == "unsafe";
    let mut places: Vec<String> =
        rows.iter().filter(shows).map(|row| format!("{} {}", text(row, "arch"), text(row, "transport"))).collect();
    places.dedup();
    Some(Field { found, note: format!("{}: {}", found.words(), places.join(", ")) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows() -> Vec<Record> {
        let lines = [
            r#"{"scenario":"a","arch":"x86_64","transport":"ipi","strategy":"none","without":"","verdict":"safe"}"#,
            r#"{"scenario":"a","arch":"x86_64","transport":"mixed","strategy":"none","without":"","verdict":"unsafe"}"#,
            r#"{"scenario":"a","arch":"x86_64","transport":"mixed","strategy":"static-hook(hook=true)","without":"","verdict":"safe"}"#,
            r#"{"scenario":"b","arch":"aarch64","transport":"ipi","strategy":"sync-all","without":"","verdict":"safe"}"#,
            r#"{"scenario":"b","arch":"aarch64","transport":"ipi","strategy":"sync-all","without":"G","verdict":"unsafe"}"#,
            r#"{"scenario":"b","arch":"aarch64","transport":"ipi","strategy":"none","without":"G","verdict":"safe","problem":"p"}"#,
            r#"{"scenario":"c","engine":"sim","reason":"no caches","without":"","verdict":"na"}"#,
        ];
        lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    #[test]
    fn a_bug_is_a_line_and_a_strategy_a_column() {
        let m = of(&rows(), String::new());
        let columns: Vec<&str> = m.columns.iter().map(|column| column[1].as_str()).collect();
        assert_eq!(columns, ["none", "sync-all", "static-hook(hook=true)"]);
        let told = |line: usize, column: usize| {
            m.lines[line].1[column].as_ref().map(|field| (field.found, field.note.as_str()))
        };
        assert_eq!(told(0, 0), Some((Found::Unsafe, "unsafe: x86_64 mixed")));
        assert_eq!((told(0, 1), told(0, 2)), (None, Some((Found::Safe, "safe: x86_64 mixed"))));
        // Without its guard; that it is safe with it is no news.
        assert_eq!(told(1, 1), Some((Found::Unsafe, "unsafe: aarch64 ipi")));
        assert_eq!(told(1, 0).map(|(found, _)| found), Some(Found::Wrong));
        assert_eq!((m.lines[0].0.as_str(), m.lines[1].0.as_str()), ("a", "b, without G"));
        assert_eq!(told(2, 0), Some((Found::NotApplicable, "engine sim: no caches")));
    }
}
