//! `cargo xtask scale`: the event model of many CPUs. It is a program of the simulated machine's package; this builds
//! it for speed and hands the options on.

use std::time::Duration;

use clap::Args;

use crate::build::repository;
use crate::child;
use crate::error::{Outcome, bad_input};
use crate::toolchain;

const LIMIT: Duration = Duration::from_secs(4 * 3600);

/// Models every strategy on 2 to 4,096 CPUs: interrupts, times by a cost model, published numbers beside them (--help
/// for the options)
#[derive(Args)]
#[command(disable_help_flag = true)]
pub(crate) struct Scale {
    /// Handed on to the model
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "OPTION")]
    options: Vec<String>,
}

impl Scale {
    /// Builds it and runs it; its status is this command's.
    pub(crate) fn run(self) -> anyhow::Result<Outcome> {
        let mut command = toolchain::cargo();
        let words = ["run", "--quiet", "--release", "--package", "arch-sim", "--bin", "scale", "--"];
        command.current_dir(repository()).args(words);
        match child::run_visibly(command.args(&self.options), LIMIT)?.code() {
            Some(0) => Ok(Outcome::Expected),
            Some(2) => Err(bad_input("the event model was asked for something that it does not know")),
            status => anyhow::bail!("the event model could not be built or run (status {status:?})"),
        }
    }
}
