//! Rows that were written to files and are read again: for the verdict of an experiment, for reports and for
//! comparisons.
//!
//! A record is a row's JSON object as it is, so that what a later kernel counts is judged and compared without a change
//! here.

pub(crate) mod budget;
pub(crate) mod condition;

use std::path::Path;

use anyhow::Context;
use kernel::record::cell::CellRow;
use kernel::suite::Mode;
use serde_json::{Map, Value};

use self::condition::{KERNEL, PROGRAMS};
use crate::arch::Arch;
use crate::profile::Profile;
use crate::rows::{Gap, Row, Setting};

/// A row's JSON object.
pub(crate) type Record = Map<String, Value>;

/// What says which cell a row is of; the rest is what came out. The last two tell rows of one cell apart. `experiment`
/// is there where rows of several are read together.
pub(crate) const IDENTITY: [&str; 16] = [
    "experiment",
    "arch",
    "cpus",
    "transport",
    "strategy",
    "hook",
    "workload",
    "mode",
    "walker",
    "by",
    "engine",
    "ops",
    "without",
    "inject",
    "seed",
    "repetition",
];

/// Of [`IDENTITY`], what is the same for all rows of a cell.
pub(crate) const CELL: &[&str] = IDENTITY.split_at(14).0;

/// The key of a row's profile, which is no single result: [`crate::profile::Summary`] says it in numbers.
pub(crate) const PROFILE: &str = "profile";

/// The rows of a file of JSON lines; summaries are left out.
pub(crate) fn read(path: &Path) -> anyhow::Result<Vec<Record>> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    parse(&text, &path.display().to_string())
}

/// The rows of `text`, which are lines of JSON; summaries are left out. Mistakes are told of `name`.
pub(crate) fn parse(text: &str, name: &str) -> anyhow::Result<Vec<Record>> {
    let mut records = Vec::new();
    for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let record: Record =
            serde_json::from_str(line).with_context(|| format!("{name}:{}: this is no row", number + 1))?;
        if !record.contains_key("summary") {
            records.push(record);
        }
    }
    Ok(records)
}

/// A value as text, without quotes.
pub(crate) fn text(record: &Record, key: &str) -> String {
    match record.get(key) {
        Some(Value::String(text)) => text.clone(),
        // Rows of before there was another.
        None if key == "by" => KERNEL.to_owned(),
        Some(Value::Null) | None => String::new(),
        Some(other) => other.to_string(),
    }
}

/// A value as a number.
pub(crate) fn number(record: &Record, key: &str) -> Option<f64> {
    record.get(key).and_then(Value::as_f64)
}

/// The values of `keys`, put together: rows with the same are of the same cell.
pub(crate) fn identity(record: &Record, keys: &[&str]) -> String {
    keys.iter().map(|key| text(record, key)).collect::<Vec<_>>().join("\u{1f}")
}

/// What a person calls a row: its cell, and what tells it from others of it.
pub(crate) fn heading(record: &Record) -> String {
    let t = |key| text(record, key);
    let experiment = Some(t("experiment")).filter(|name| !name.is_empty()).map_or(String::new(), |name| name + ": ");
    let mut words = experiment;
    words += &format!(
        "{} {} cpus {}, {}, {}, {}, {} {}",
        t("arch"),
        t("cpus"),
        t("transport"),
        t("workload"),
        t("strategy"),
        t("mode"),
        t("walker"),
        t("engine")
    );
    if t("by") == PROGRAMS {
        words += &format!(", by {PROGRAMS}");
    }
    for key in ["without", "inject", "seed"].into_iter().filter(|key| !t(key).is_empty()) {
        words += &format!(", {key} {}", t(key));
    }
    match number(record, "repetition") {
        Some(n) if n > 1.0 => words + &format!(", repetition {n}"),
        _ => words,
    }
}

/// One in which something of everything was recorded.
fn profile() -> Profile {
    let one = || vec![(1, 1)];
    Profile { initiator: one(), responder: one(), walker: one(), waiting: vec![1], ..Profile::default() }
}

/// The keys of a row that are not its identity, with a value of their kind.
pub(crate) fn results() -> anyhow::Result<Record> {
    // The mode in which every count is made.
    let row =
        Row::resolve(Arch::X86_64, CellRow { ops: 1, cpus: 2, mode: Mode::Isolated as u16, ..CellRow::default() })?;
    let row = Row {
        instructions_per_op: Some(0.0),
        gap: Some(Gap::of(&CellRow::default())),
        profile: Some(profile()),
        ..row
    };
    let setting = Setting { cpus: 1, ops: 1, seed: 1, engine: "icount", qemu: String::new() };
    let mut record: Record = serde_json::from_str(&row.json(&setting)?)?;
    record.retain(|key, _| !IDENTITY.contains(&key.as_str()) && !["schema", "qemu", PROFILE].contains(&key.as_str()));
    Ok(record)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_be_judged_is_what_a_row_says() {
        let results = results().unwrap();
        for key in ["verdict", "sync_ipis_per_op", "instructions_per_op", "missing_syncs_per_op", "miscounted"] {
            assert!(results.contains_key(key), "{key}");
        }
        assert!(results.values().all(|value| !value.is_null()), "{results:?}");
        assert!(!results.contains_key("arch") && !results.contains_key("seed"));
    }

    #[test]
    fn a_file_that_is_no_rows_is_named_with_its_line() {
        let path = std::env::temp_dir().join(format!("xtask-records-{}", std::process::id()));
        std::fs::write(&path, "{\"arch\":\"x86_64\"}\nnot a row\n").unwrap();
        let error = format!("{:#}", read(&path).unwrap_err());
        std::fs::write(&path, "{\"arch\":\"x86_64\"}\n{\"schema\":1,\"summary\":true}\n").unwrap();
        assert_eq!(read(&path).unwrap().len(), 1);
        std::fs::remove_file(&path).unwrap();
        assert!(error.contains(":2: this is no row"), "{error}");
    }
}
