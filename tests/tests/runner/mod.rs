//! The runner as a person uses it, for tests that boot QEMU. `cargo xtask test` leaves its path in `XTASK`.

use std::path::PathBuf;
use std::process::{Command, Output};

use serde_json::Value;

/// Runs the runner with these words.
pub(crate) fn xtask(words: &str) -> Output {
    let program = std::env::var_os("XTASK").expect("`cargo xtask test` runs these tests");
    Command::new(program).args(words.split_whitespace()).output().expect("the runner starts")
}

/// What a program said on standard error.
pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A file or directory of this test's own.
pub(crate) fn scratch(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name)
}

/// Runs a suite and returns its rows; every verdict and count must be the expected one.
#[track_caller]
pub(crate) fn rows(name: &str, words: &str) -> Vec<Value> {
    let path = scratch(&format!("{name}.json"));
    let output = xtask(&format!("run {words} --json {}", path.display()));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{words}\n{text}\n{}", stderr(&output));
    let file = std::fs::read_to_string(path).expect("the results are there");
    let mut rows: Vec<Value> = file.lines().map(|l| serde_json::from_str(l).expect("each line is JSON")).collect();
    let summary = rows.pop().expect("the file is not empty");
    assert_eq!(summary["summary"], true, "the last object is the summary");
    assert_eq!(summary["rows"], rows.len());
    assert_eq!(summary["unexpected"], 0);
    rows
}

/// The row of one cell.
#[track_caller]
pub(crate) fn row<'r>(rows: &'r [Value], strategy: &str, workload: &str, mode: &str) -> &'r Value {
    let found = rows.iter().find(|r| r["strategy"] == strategy && r["workload"] == workload && r["mode"] == mode);
    found.unwrap_or_else(|| panic!("no row for {strategy}, {workload}, {mode}"))
}
