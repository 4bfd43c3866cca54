//! `cargo xtask sim`: the simulated machine. It explores millions of states, so it is a program of its own, built for speed; this
//! builds it and hands the options on.

use std::time::Duration;

use clap::Args;

use crate::build::repository;
use crate::child;
use crate::error::{Outcome, bad_input};
use crate::toolchain;
use crate::trace::TraceOption;

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

impl Sim {
    /// Builds it and runs it; its status is this command's. A trace is made here, of what it tells.
    pub(crate) fn run(mut self) -> anyhow::Result<Outcome> {
        let trace = TraceOption::taken_from(&mut self.options).begin()?;
        let told = repository().join(TOLD);
        if trace.is_some() {
            self.options.extend(["--trace".to_owned(), told.display().to_string()]);
        }
        let mut command = toolchain::cargo();
        command.current_dir(repository()).args([
            "run",
            "--quiet",
            "--profile",
            "explore",
            "--package",
            "arch-sim",
            "--",
        ]);
        let outcome = match child::run_visibly(command.args(&self.options), LIMIT)?.code() {
            Some(0) => Outcome::Expected,
            Some(1) => Outcome::Unexpected,
            Some(2) => return Err(bad_input("the simulated machine was asked for something that it does not know")),
            status => anyhow::bail!("the simulated machine could not be built or run (status {status:?})"),
        };
        if let Some(mut trace) = trace {
            trace.add_simulated(&told)?;
            trace.finish()?;
        }
        Ok(outcome)
    }
}
