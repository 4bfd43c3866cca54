//! `cargo xtask sim`: the simulated machine. It explores millions of states, so it is a program of its own, built for
//! speed; this builds it and hands the options on.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::bail;
use clap::Args;

use crate::build::repository;
use crate::child;
use crate::error::{Outcome, bad_input};
use crate::progress::Step;
use crate::toolchain;
use crate::trace::TraceOption;

/// How it is built.
const PROFILE: &str = "explore";

const LIMIT: Duration = Duration::from_secs(24 * 3600);

/// What the simulated machine tells of the interleavings that it plays.
const TOLD: &str = "target/sim/told.jsonl";

/// Explores every strategy in a model of the machine, exhaustively within bounds (--help for the options)
#[derive(Args)]
#[command(disable_help_flag = true)]
pub(crate) struct Sim {
    /// Handed on to the simulated machine
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "OPTION")]
    options: Vec<String>,
}

/// Builds it; where the program is.
pub(crate) fn build() -> anyhow::Result<PathBuf> {
    let mut command = toolchain::cargo();
    command.current_dir(repository()).args(["build", "--quiet", "--profile", PROFILE, "--package", "arch-sim"]);
    let program = repository().join("target").join(PROFILE).join("arch-sim");
    let first = if program.is_file() { "" } else { "; the first time takes minutes" };
    let step = Step::begin(format!("making the simulated machine ready{first}"));
    match child::run(&mut command, LIMIT, false) {
        Ok(done) if done.status.success() => step.done(),
        Ok(done) => {
            step.failed();
            bail!("the simulated machine could not be built:\n{}", child::last_lines(&done.stderr, 20).join("\n"));
        }
        Err(error) => {
            step.failed();
            return Err(error);
        }
    }
    Ok(program)
}

impl Sim {
    /// Builds it and runs it; its status is this command's. A trace is made here, of what it tells.
    pub(crate) fn run(mut self) -> anyhow::Result<Outcome> {
        let trace = TraceOption::taken_from(&mut self.options).begin()?;
        let told = repository().join(TOLD);
        if trace.is_some() {
            self.options.extend(["--trace".to_owned(), told.display().to_string()]);
        }
        let mut command = Command::new(build()?);
        command.current_dir(repository());
        let outcome = match child::run_visibly(command.args(&self.options), LIMIT)?.code() {
            Some(0) => Outcome::Expected,
            Some(1) => Outcome::Unexpected,
            Some(2) => return Err(bad_input("the simulated machine was asked for something that it does not know")),
            status => bail!("the simulated machine did not come to its end (status {status:?})"),
        };
        if let Some(mut trace) = trace {
            trace.add_simulated(&told)?;
            trace.finish()?;
        }
        Ok(outcome)
    }
}
