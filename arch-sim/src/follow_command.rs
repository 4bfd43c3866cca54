//! `cargo xtask sim --replay-on-core`: the counterexample of each cell that the model finds unsafe, played step by step
//! on the unchanged core.

use std::path::PathBuf;
use std::process::ExitCode;

use arch_sim::follow::{Followed, follow};
use arch_sim::machine::recording;
use arch_sim::matrix::{Bounds, Verdict};
use arch_sim::model::scenario::walker_name;
use arch_sim::run;
use clap::Args;

use crate::core_command::{self, Core, CoreError, Telling};

/// Of counterexamples on the core.
#[derive(Args)]
pub(crate) struct Follow {
    /// Play the counterexample of each cell that is unsafe in the model on the core itself, whose oracle must find the
    /// same
    #[arg(long, conflicts_with_all = ["core", "replay"])]
    pub(crate) replay_on_core: bool,
    /// With --replay-on-core: write what was played into this directory, a file for each cell, for --replay
    #[arg(long, value_name = "DIR", requires = "replay_on_core")]
    keep: Option<PathBuf>,
}

/// Plays them; the status of the program.
pub(crate) fn run(how: &Follow, core: &Core, bounds: &Bounds) -> ExitCode {
    core_command::finish(play(how, core, bounds))
}

fn play(how: &Follow, core: &Core, bounds: &Bounds) -> Result<bool, CoreError> {
    if let Some(dir) = &how.keep {
        std::fs::create_dir_all(dir).map_err(|error| CoreError::Write(dir.clone(), error))?;
    }
    let mut telling = Telling::begin(core);
    println!(
        "{:<9} {:<10} {:<17} {:<17} {:>6} {:>6}  played on",
        "walker", "transport", "operation", "strategy", "model", "core"
    );
    let (mut unsafe_cells, mut played) = (0, 0);
    for verdict in run::unsafe_cells(bounds) {
        let exploration = verdict.explorations.last().expect("a cell that is unsafe was explored");
        unsafe_cells += 1;
        let mut line = format!(
            "{:<9} {:<10} {:<17} {:<17} {:>6}",
            walker_name(verdict.walker),
            verdict.transport.name(),
            verdict.operation.name(),
            verdict.strategy,
            exploration.counterexample.as_ref().map_or(0, |found| found.steps.len()),
        );
        match follow(verdict.strategy, exploration) {
            Ok(followed) => {
                played += 1;
                let (steps, profile) = (followed.wrong.schedule.0.len(), followed.scope.profile.name());
                line += &format!(" {steps:>6}  {profile}");
                keep(how, &verdict, &followed)?;
                if let (true, Ok(replayed)) = (core.trace.is_some(), recording::again(&followed.scope, &followed.wrong))
                {
                    telling.add(&followed.scope, &replayed);
                }
            }
            Err(error) => line += &format!("      -  {error}"),
        }
        println!("{line}");
    }
    telling.end()?;
    println!(
        "{played} of {unsafe_cells} counterexamples of the model are ones of the core: its oracle finds the same, about the same CPU."
    );
    Ok(played == unsafe_cells)
}

fn keep(how: &Follow, verdict: &Verdict, followed: &Followed) -> Result<(), CoreError> {
    let Some(dir) = &how.keep else { return Ok(()) };
    let name = [walker_name(verdict.walker), verdict.transport.name(), verdict.operation.name(), verdict.strategy];
    let path = dir.join(name.join("-") + ".toml");
    let text = recording::record(&followed.scope, &followed.wrong);
    std::fs::write(&path, text).map_err(|error| CoreError::Write(path, error))
}
