//! `cargo xtask sim`: the simulated machine. It explores millions of states, so it is a program of its own, built for speed; this
//! builds it and hands the options on.

use std::time::Duration;

use clap::Args;

use crate::build::repository;
use crate::child;
use crate::error::{Outcome, bad_input};
use crate::toolchain;

const LIMIT: Duration = Duration::from_secs(24 * 3600);

/// Explores every strategy in a model of the machine, exhaustively within bounds (--help for the options)
#[derive(Args)]
#[command(disable_help_flag = true)]
pub(crate) struct Sim {
    /// Handed on to the simulated machine
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "OPTION")]
    options: Vec<String>,
}

impl Sim {
    /// Builds it and runs it; its status is this command's.
    pub(crate) fn run(self) -> anyhow::Result<Outcome> {
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
        match child::run_visibly(command.args(&self.options), LIMIT)?.code() {
            Some(0) => Ok(Outcome::Expected),
            Some(1) => Ok(Outcome::Unexpected),
            Some(2) => Err(bad_input("the simulated machine was asked for something that it does not know")),
            status => anyhow::bail!("the simulated machine could not be built or run (status {status:?})"),
        }
    }
}
