//! `cargo xtask sim --core`: the core itself in all interleavings of small scopes, beside the model's verdicts; and
//! `--replay`, one interleaving again.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use arch_sim::agreement::{self, Agreed, Cell, OPERATIONS, WALKERS};
use arch_sim::machine::prove::{Limits, Replayed, Search};
use arch_sim::machine::recording::{self, BadRecording};
use arch_sim::machine::scope::{Profile, Scope};
use arch_sim::model::scenario::{Operation, walker_name};
use arch_sim::model::strategies;
use arch_sim::told;
use clap::Args;
use kernel::record::cell::Verdict;
use kernel::tlb::transport::TransportId;
use kernel::workload::walker::WalkerClass;

use crate::{Cells, UnknownName, choose};

/// Of the core.
#[derive(Args)]
pub(crate) struct Core {
    /// Run the core itself, in every class of interleavings, and compare with the model
    #[arg(long)]
    pub(crate) core: bool,
    /// Machines: x86_64 (untagged, flushes by ipi), aarch64 (tagged, by broadcast), weakest (what either allows, by
    /// broadcast); all if not given
    #[arg(long, value_name = "NAME,..", value_delimiter = ',', requires = "core")]
    profile: Vec<String>,
    /// How many CPUs walk
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=3), requires = "core")]
    walkers: u8,
    /// Stores wait in buffers before other CPUs see them
    #[arg(long, requires = "core")]
    buffers: bool,
    /// Stop each cell after so many runs
    #[arg(long, value_name = "N", default_value_t = 1_000_000, requires = "core")]
    executions: u64,
    /// Not all interleavings, but those of N seeds
    #[arg(long, value_name = "N", requires = "core")]
    seeds: Option<u64>,
    /// Write the shortest wrong interleaving of each cell into this directory
    #[arg(long, value_name = "DIR", requires = "core")]
    record: Option<PathBuf>,
    /// Run a recorded interleaving again and tell it
    #[arg(long, value_name = "FILE", conflicts_with = "core")]
    pub(crate) replay: Option<PathBuf>,
    /// Write each interleaving that is told as a trace: .json for ui.perfetto.dev, .txt in two columns, .csv;
    /// target/trace.json if no PATH is given
    #[arg(long, value_name = "PATH", num_args = 0..=1, default_missing_value = "target/trace.json")]
    pub(crate) trace: Option<PathBuf>,
}

/// What is told of interleavings, for whoever makes a trace of it: `cargo xtask sim` does, and names the file.
pub(crate) struct Telling(Option<PathBuf>, String);

impl Telling {
    pub(crate) fn begin(core: &Core) -> Telling {
        Telling(core.trace.clone(), String::new())
    }

    pub(crate) fn add(&mut self, scope: &Scope, replayed: &Replayed) {
        if self.0.is_some() {
            self.1 += &told::line(scope, replayed);
        }
    }

    /// Writes it.
    pub(crate) fn end(self) -> Result<(), CoreError> {
        let Telling(Some(path), text) = self else { return Ok(()) };
        let folder = path.parent().map_or(Ok(()), std::fs::create_dir_all);
        folder.and_then(|()| std::fs::write(&path, text)).map_err(|error| CoreError::Write(path, error))
    }
}

/// Something that cannot be done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CoreError {
    #[error(transparent)]
    Name(#[from] UnknownName),
    #[error("{path} cannot be read: {error}", path = .0.display(), error = .1)]
    Read(PathBuf, std::io::Error),
    #[error("{path} cannot be written: {error}; name another (--record, --keep, --trace)", path = .0.display(), error = .1)]
    Write(PathBuf, std::io::Error),
    #[error("{path}: {error}", path = .0.display(), error = .1)]
    Recording(PathBuf, BadRecording),
}

impl CoreError {
    fn status(&self) -> u8 {
        match self {
            CoreError::Name(_) | CoreError::Recording(..) => 2,
            CoreError::Read(..) | CoreError::Write(..) => 3,
        }
    }
}

/// Explores the cells; the status of the program.
pub(crate) fn explore(core: &Core, cells: &Cells, seconds: u64) -> ExitCode {
    finish(try_explore(core, cells, seconds))
}

/// Replays a file; the status of the program.
pub(crate) fn replay(core: &Core, file: &Path) -> ExitCode {
    finish(try_replay(core, file))
}

pub(crate) fn finish(result: Result<bool, CoreError>) -> ExitCode {
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(error.status())
        }
    }
}

fn try_replay(core: &Core, file: &Path) -> Result<bool, CoreError> {
    let text = std::fs::read_to_string(file).map_err(|error| CoreError::Read(file.into(), error))?;
    let bad = |error| CoreError::Recording(file.into(), error);
    let (scope, wrong) = recording::read(&text).map_err(bad)?;
    let replayed = recording::again(&scope, &wrong).map_err(bad)?;
    print!("{}", recording::interleaving(&scope, &wrong, &replayed));
    let mut telling = Telling::begin(core);
    telling.add(&scope, &replayed);
    telling.end()?;
    Ok(true)
}

fn chosen(core: &Core, cells: &Cells) -> Result<Vec<Cell>, UnknownName> {
    let names: Vec<(&str, &str)> = strategies::everyone().iter().map(|s| (s.name, s.name)).collect();
    let operations: Vec<(&str, Operation)> = OPERATIONS.iter().map(|(o, _)| (o.name(), *o)).collect();
    let walkers: Vec<(&str, WalkerClass)> = WALKERS.iter().map(|(w, _)| (walker_name(*w), *w)).collect();
    let strategies = choose("strategy", &cells.strategy, &names)?;
    let profiles = choose("profile", &core.profile, &Profile::NAMES)?;
    let transports = choose("transport", &cells.transport, &TransportId::ALL.map(|t| (t.name(), t)))?;
    let mut operations = choose("operation", &cells.operation, &operations)?;
    if cells.operation.is_empty() {
        operations.retain(|operation| !operation.is_chain());
    }
    let mut walkers = choose("walker", &cells.walker, &walkers)?;
    if cells.walker.is_empty() {
        walkers.retain(|walker| *walker == WalkerClass::Gup);
    }
    let mut found = Vec::new();
    for profile in profiles {
        for transport in transports.iter().filter(|t| !cells.transport.is_empty() || **t == profile.transport()) {
            for operation in &operations {
                for walker in &walkers {
                    for strategy in &strategies {
                        let cell = Cell::new(profile, strategy, *transport, *operation, *walker, core.walkers.into());
                        found.extend(cell);
                    }
                }
            }
        }
    }
    found.iter_mut().for_each(|cell| cell.scope.buffers = core.buffers);
    Ok(found)
}

fn try_explore(core: &Core, cells: &Cells, seconds: u64) -> Result<bool, CoreError> {
    let time = Duration::from_secs(seconds);
    let (search, executions) = match core.seeds {
        Some(seeds) => (Search::Seeded(1), seeds),
        None => (Search::Exhaustive, core.executions),
    };
    if let Some(dir) = &core.record {
        std::fs::create_dir_all(dir).map_err(|error| CoreError::Write(dir.clone(), error))?;
    }
    let chosen = chosen(core, cells)?;
    println!("{}", agreement::heading());
    let (mut expected, mut count, mut cut_short) = (0, 0, 0);
    let mut telling = Telling::begin(core);
    for cell in chosen {
        let agreed = cell.decide(search, Limits { executions, time }, &mut |_| {});
        println!("{}", agreed.line());
        tell(core, &agreed, &mut telling)?;
        count += 1;
        cut_short += usize::from(core.seeds.is_none() && agreed.core == Verdict::Void);
        // By seeds nothing is proved: there it is enough that nothing contradicts the model.
        let silent = core.seeds.is_some() && agreed.core == Verdict::Void;
        expected += usize::from(silent || agreed.agrees() && agreed.core == agreed.promised);
    }
    telling.end()?;
    if expected == count {
        println!("All {count} cells are as promised, and as in the model.");
    } else {
        if cut_short > 0 {
            println!(
                "{cut_short} of {count} cells were cut short, and called neither safe nor unsafe: --seconds gives each more time, --seeds N runs some of them."
            );
        }
        let otherwise = count - expected - cut_short;
        println!("{otherwise} of {count} cells are not as promised, or not as in the model.");
    }
    Ok(expected == count)
}

/// The shortest wrong interleaving, told, and written where that was asked for.
fn tell(core: &Core, agreed: &Agreed, telling: &mut Telling) -> Result<(), CoreError> {
    let scope = &agreed.cell.scope;
    let Some(wrong) = agreed.proof.as_ref().and_then(|proof| proof.shortest.as_ref()) else { return Ok(()) };
    match recording::again(scope, wrong) {
        Ok(replayed) => {
            print!("{}", recording::interleaving(scope, wrong, &replayed));
            telling.add(scope, &replayed);
        }
        Err(error) => println!("         it did not replay: {error}"),
    }
    if let Some(dir) = &core.record {
        let name = format!(
            "{}-{}-{}-{}-{}.toml",
            scope.profile.name(),
            scope.transport.name(),
            agreed.cell.operation.name(),
            walker_name(agreed.cell.walker),
            scope.strategy_name()
        );
        let path = dir.join(name);
        std::fs::write(&path, recording::record(scope, wrong))
            .map_err(|error| CoreError::Write(path.clone(), error))?;
        println!("         replays with: cargo xtask sim --replay {}", path.display());
    }
    Ok(())
}
