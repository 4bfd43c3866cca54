//! The command line as a person meets it: what it prints and how it ends. Nothing here needs QEMU or a kernel.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Output};

fn xtask(words: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_xtask")).args(words.split_whitespace()).output().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Asserts that the command ends with status 2 and one sentence that contains all of `parts`.
#[track_caller]
fn refused(words: &str, parts: &[&str]) {
    let output = xtask(words);
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(2), "{words}: {said}");
    assert_eq!(said.trim().lines().count(), 1, "{words}: {said}");
    assert!(said.starts_with("error: "), "{words}: {said}");
    for part in parts {
        assert!(said.contains(part), "{words}: no \"{part}\" in: {said}");
    }
    assert!(output.stdout.is_empty(), "{words}: {}", stdout(&output));
}

#[test]
fn unknown_names_are_answered_with_the_nearest() {
    refused("run --arch x86-64", &["x86-64", "\"x86_64\""]);
    refused("run --arch all --strategy none,static_hook", &["static_hook", "\"static-hook\""]);
    refused("run --arch all --transport brodcast", &["brodcast", "\"broadcast\""]);
    refused("run --arch all --workload collapse", &["collapse", "\"collapse_anon\""]);
    refused("run --arch all --mode contention", &["contention", "\"contend\""]);
    refused("run --arch all --without PmdRechek", &["PmdRechek", "\"PmdRecheck\""]);
    refused("run --arch all --log loud", &["loud", "log level"]);
    refused("build --arch arm64", &["arm64", "\"aarch64\""]);
    refused("test --arch riscv", &["riscv"]);
}

#[test]
fn impossible_machines_are_refused() {
    refused("run --arch x86_64 --smp 0", &["--smp 0", "1 to 255"]);
    refused("run --arch x86_64 --smp 256", &["--smp 256", "1 to 255"]);
    refused("run --arch aarch64 --smp 513", &["--smp 513", "1 to 512"]);
    refused("run --arch all --smp 300", &["x86_64", "1 to 255"]);
    refused("run --arch x86_64 --memory 0", &["--memory 0"]);
    refused("run --arch x86_64 --memory 4096", &["--memory 4096", "3072"]);
    refused("run --arch x86_64 --ops 0", &["--ops 0"]);
    refused("run --arch x86_64 --patience 0", &["--patience 0"]);
    refused("run --arch all --gdb", &["--gdb"]);
}

#[test]
fn programs_walk_as_the_kernel_walks_for_them() {
    refused("run --arch x86_64 --user --walker nmi", &["--user", "gup", "--walker"]);
    refused("hunt --arch x86_64 --strategy none --user --walker nmi", &["--user", "gup", "--walker"]);
}

#[test]
fn a_missing_and_an_old_emulator_are_refused() {
    refused("run --arch x86_64 --qemu /no/such/qemu", &["/no/such/qemu"]);
    let old = program("old-qemu", "echo QEMU emulator version 5.2.0");
    refused(&format!("run --arch x86_64 --qemu {}", old.display()), &["5.2.0", "7.2.0"]);
    let other = program("other-program", "echo hello");
    let output = xtask(&format!("run --arch x86_64 --qemu {}", other.display()));
    assert_eq!(output.status.code(), Some(3));
    assert!(stderr(&output).contains("did not name a version"), "{}", stderr(&output));
}

#[test]
fn results_that_cannot_be_written_are_refused_before_anything_runs() {
    refused("run --arch x86_64 --json /no/such/directory/r.json", &["/no/such/directory/r.json"]);
    refused("run --arch x86_64 --json /", &["directory"]);
}

#[test]
fn where_nothing_may_be_installed_the_command_is_given() {
    let empty = directory("empty-path");
    let output = Command::new(env!("CARGO_BIN_EXE_xtask"))
        .args(["run", "--arch", "x86_64"])
        .env("PATH", &empty)
        .env("RUSTUP_AUTO_INSTALL", "0")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(3));
    let said = stderr(&output);
    assert!(said.contains("qemu-system-x86_64 7.2.0 or newer") && said.contains("run: "), "{said}");
}

#[test]
fn a_dry_run_prints_the_command_lines_and_stops() {
    let output = xtask("run --arch all --strategy sync-all --smp 2 --dry-run");
    assert_eq!(output.status.code(), Some(0));
    let text = stdout(&output);
    assert_eq!(text.lines().count(), 4, "{text}");
    assert!(text.lines().all(|l| l.contains(" -smp 2 ") && l.contains("seed=1")), "{text}");
    assert_eq!(text.matches("modes=idle ").count(), 2);
    assert_eq!(text.matches("transport=broadcast ").count(), 2);
    let one_thread_each = xtask("run --arch x86_64 --strategy none --mttcg --dry-run");
    assert_eq!(stdout(&one_thread_each).lines().count(), 1);
    assert!(stdout(&one_thread_each).contains("thread=multi"));
}

#[test]
fn help_and_list_name_what_there_is() {
    let help = stdout(&xtask("--help"));
    for word in ["run", "list", "doctor", "build", "test", "ci", "Exit status"] {
        assert!(help.contains(word), "{help}");
    }
    let options = stdout(&xtask("run --help"));
    for word in [
        "smp",
        "strategy",
        "transport",
        "workload",
        "mode",
        "ops",
        "seed",
        "hook",
        "json",
        "gdb",
        "qemu",
        "dry-run",
        "mttcg",
    ] {
        assert!(options.contains(&format!("--{word}")), "{word}: {options}");
    }
    let list = stdout(&xtask("list"));
    for word in ["static-hook", "broadcast", "retract_truncate", "contend"] {
        assert!(list.contains(word), "{list}");
    }
    assert!(!list.contains('\u{1b}'), "colours only on a terminal");
}

fn directory(name: &str) -> PathBuf {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::create_dir_all(&path).unwrap();
    path
}

/// A shell script that can be run.
fn program(name: &str, script: &str) -> PathBuf {
    let path = directory("programs").join(name);
    std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}

#[test]
fn a_linux_that_is_not_possible_is_refused_before_anything_is_fetched() {
    refused("linux --arch arm64", &["arm64", "\"aarch64\""]);
    refused("linux --arch all --kernel newest", &["newest", "6.12"]);
    refused("linux --arch all --workload munmap", &["munmap", "\"munmap_2m\""]);
    refused("linux --arch all --mode contend", &["contend", "same, other, idle, spin"]);
    refused("linux --arch all --smp 1", &["--smp 1", "2 to 64"]);
    refused("linux --arch all --ops 12", &["--ops 12", "multiple of 8"]);
    refused("linux --arch all --patience 0", &["--patience 0"]);
    refused("linux --arch all --package x.deb", &["--package", "one architecture"]);
    refused("linux --arch x86_64 --package no-such.deb", &["no-such.deb", "not a file"]);
}
