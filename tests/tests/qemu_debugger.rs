//! The guest under gdb, as `run --gdb` starts it. Where there is no gdb for other architectures, a word says so.
//! `cargo xtask test` runs these.

mod runner;

use std::process::Command;

use runner::{row, rows, stderr};

const CELL: &str = "--strategy none --transport broadcast --workload collapse_anon --mode contend --ops 32";

/// What gdb says of the cell, stopped at `stop`, when it is given these commands; nothing where there is none.
fn session(arch: &str, stop: &str, commands: &[&str]) -> Option<String> {
    if Command::new("gdb-multiarch").arg("--version").output().is_err() {
        eprintln!("SKIPPED: there is no gdb-multiarch, so nobody looked at the guest with it");
        return None;
    }
    let program = std::env::var_os("XTASK").expect("`cargo xtask test` runs these tests");
    let mut runner = Command::new(program);
    runner.args(["run", "--arch", arch, &format!("--gdb={stop}")]).args(CELL.split(' '));
    for command in commands {
        runner.args(["--gdb-command", command]);
    }
    let output = runner.output().expect("the runner starts");
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &stderr(&output);
    assert!(output.status.success(), "{text}");
    Some(text)
}

/// The word after `words` in `text`.
#[track_caller]
fn after<'t>(text: &'t str, words: &str) -> &'t str {
    let rest = text.split_once(words).unwrap_or_else(|| panic!("no {words:?} in {text}")).1;
    rest.split(|c: char| !c.is_ascii_alphanumeric()).next().unwrap_or_default()
}

/// The same seed is the same run with a debugger and without one: it stops at the violation that the row tells, with
/// every CPU a thread, and shows the table in words and the walk that holds it. Returns what gdb said.
#[track_caller]
fn stops_at_the_violation(arch: &str) -> Option<String> {
    let text = session(arch, "violation", &["info threads", "backtrace 8", "kernel cpus"])?;
    let rows = rows(&format!("{arch}-debugged"), &format!("--arch {arch} {CELL}"));
    let told = row(&rows, "none", "collapse_anon", "contend")["first_violation"].as_str().expect("it is unsafe");
    for thread in 1..=4 {
        assert!(text.contains(&format!("Thread 1.{thread} (CPU#{}", thread - 1)), "every CPU is a thread: {text}");
    }
    let line = |words: &str| {
        let found = text.lines().find(|line| line.contains(words));
        found.unwrap_or_else(|| panic!("nothing of {words:?} in {text}"))
    };
    let frame = after(told, "in frame ");
    assert_eq!(after(line("kernel::oracle::ghost::judge<"), "table=table in frame "), frame, "{told}");
    let holder = line(&format!("cpu {}: ", after(told, "cpu ")));
    assert_eq!((after(holder, "in walk "), after(holder, "PTE ")), (after(told, "in its walk "), frame), "{told}");
    Some(text)
}

/// A pause point is a place to stop, and the tables there are shown in words.
#[track_caller]
fn stops_at_a_pause_point(arch: &str) {
    let Some(text) = session(arch, "after_unlink", &["up", "info locals"]) else { return };
    assert!(text.contains("(PMD table of mm "), "the parent is shown in words: {text}");
}

mod x86_64 {
    #[test]
    #[ignore = "boots QEMU"]
    fn it_stops_at_the_violation_of_a_seed() {
        let Some(text) = super::stops_at_the_violation("x86_64") else { return };
        assert!(text.contains("self=DRAINED, may be used again: table in frame "), "the type state is shown: {text}");
    }

    #[test]
    #[ignore = "boots QEMU"]
    fn it_stops_at_a_pause_point() {
        super::stops_at_a_pause_point("x86_64");
    }
}

mod aarch64 {
    #[test]
    #[ignore = "boots QEMU"]
    fn it_stops_at_the_violation_of_a_seed() {
        super::stops_at_the_violation("aarch64");
    }

    #[test]
    #[ignore = "boots QEMU"]
    fn it_stops_at_a_pause_point() {
        super::stops_at_a_pause_point("aarch64");
    }
}
