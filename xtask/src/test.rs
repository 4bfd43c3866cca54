//! `cargo xtask test`: all tests, on the host and in QEMU.

use std::path::{Path, PathBuf};
use std::process;
use std::time::Duration;

use anyhow::Context;
use clap::Args;

use crate::arch::{self, Arch};
use crate::build::{self, Kind, repository};
use crate::child;
use crate::error::Outcome;
use crate::mutate::orderings;
use crate::setup;
use crate::soak::Soak;
use crate::toolchain;

/// The tests that boot QEMU, and what cargo calls them.
const GUEST_TESTS: [&str; 18] = [
    "test",
    "--no-fail-fast",
    "--package",
    "tests",
    "--test",
    "qemu",
    "--test",
    "qemu_counts",
    "--test",
    "qemu_user",
    "--test",
    "docs",
    "--test",
    "experiment",
    "--test",
    "qemu_trace",
    "--test",
    "qemu_debugger",
];
const LIMIT: Duration = Duration::from_secs(3600);

/// Runs the tests: on the host, and in QEMU on both architectures
#[derive(Args)]
pub(crate) struct Test {
    /// Only the tests that need no QEMU
    #[arg(long, conflicts_with = "arch")]
    host: bool,
    /// Only the tests in QEMU, on this architecture or on all
    #[arg(long, value_name = "ARCH")]
    arch: Option<String>,
}

impl Test {
    /// Runs them, and goes on after a group that fails: each says what it has to say.
    pub(crate) fn run(self) -> anyhow::Result<Outcome> {
        let archs = match &self.arch {
            Some(given) => arch::choose(given)?.0,
            None if self.host => Vec::new(),
            None => Arch::ALL.to_vec(),
        };
        let runner = keep_runner()?;
        if self.arch.is_none() {
            setup::try_browser()?;
        }
        let mut failed = Vec::new();
        if self.arch.is_none() {
            if !passed(&["test", "--workspace", "--no-fail-fast"], &[], &runner)? {
                failed.push("on the host".to_owned());
            }
            eprintln!("$ cargo xtask mutate --orderings=only");
            if !orderings::run(LIMIT_OF_MUTANT, true, false)? {
                failed.push("under loom".to_owned());
            }
        }
        if archs.is_empty() {
            return Ok(outcome(&failed));
        }
        // Set-up and build have limits of their own, and say what they do.
        setup::ensure_ready(&archs, true)?;
        let images: Vec<(Arch, Kind)> = archs.iter().flat_map(|&a| Kind::ALL.map(|k| (a, k))).collect();
        build::build(&build::stale(&images), false)?;
        for arch in archs {
            let filter = format!("{}::", arch.name());
            let options = ["--ignored", "--test-threads=1", &filter];
            if !passed(&GUEST_TESTS, &options, &runner)? {
                failed.push(format!("in QEMU on {}", arch.name()));
            }
            let soak = Soak::short(arch, SOAK_SEED);
            eprintln!("$ cargo xtask {soak}");
            if soak.run()? != Outcome::Expected {
                failed.push(format!("the soak on {}", arch.name()));
            }
        }
        Ok(outcome(&failed))
    }
}

/// What it comes to, said last, where a reader of a long log looks first.
fn outcome(failed: &[String]) -> Outcome {
    if failed.is_empty() {
        return Outcome::Expected;
    }
    eprintln!("failed: {}; each names its tests above", failed.join(", "));
    Outcome::Unexpected
}

/// The tests are the same for everybody; `cargo xtask soak --seed` takes others.
const SOAK_SEED: u64 = 1;

/// A copy of this program, which the tests that boot QEMU use: cargo may build the original anew meanwhile.
fn keep_runner() -> anyhow::Result<PathBuf> {
    let (copy, new) = (build::guest_dir().join("runner"), build::guest_dir().join(format!("runner.{}", process::id())));
    std::fs::create_dir_all(build::guest_dir())?;
    std::fs::copy(std::env::current_exe()?, &new).context("cannot copy this program for the tests")?;
    std::fs::rename(&new, &copy)?;
    Ok(copy)
}

/// For each loom test without a half of an ordering; seconds on an idle machine.
const LIMIT_OF_MUTANT: Duration = Duration::from_secs(600);

fn passed(arguments: &[&str], test_arguments: &[&str], runner: &Path) -> anyhow::Result<bool> {
    let mut command = toolchain::cargo();
    command.current_dir(repository()).args(arguments);
    if !test_arguments.is_empty() {
        command.arg("--").args(test_arguments);
    }
    command.env("XTASK", runner);
    let separator: &[&str] = if test_arguments.is_empty() { &[] } else { &["--"] };
    eprintln!("$ cargo {}", [arguments, separator, test_arguments].concat().join(" "));
    Ok(child::run_visibly(&mut command, LIMIT)?.success())
}
