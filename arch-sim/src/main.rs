//! The simulated machine on the command line. `cargo xtask sim` builds and calls this.

mod core_command;
mod follow_command;

use std::io::{self, IsTerminal};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use arch_sim::matrix::{Bounds, Round};
use arch_sim::model::check::Limits;
use arch_sim::model::scenario::{Operation, walker_name};
use arch_sim::model::strategies;
use arch_sim::results;
use arch_sim::run::{self, Checkpoint, Running};
use clap::{Args, Parser, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use kernel::record::cell::Verdict;
use kernel::tlb::transport::TransportId;
use kernel::workload::walker::WalkerClass;

/// Explores the strategies' decisions in a model of everything around them, exhaustively within bounds
#[derive(Parser)]
#[command(name = "cargo xtask sim", version, after_help = EXIT_STATUS)]
struct Cli {
    #[command(flatten)]
    cells: Cells,
    #[command(flatten)]
    how: How,
    #[command(flatten)]
    core: core_command::Core,
    #[command(flatten)]
    follow: follow_command::Follow,
}

const EXIT_STATUS: &str = "Exit status: 0 when every cell is as expected, 1 when one is not, or was not explored to its \
                           end, 2 for bad input, 3 when a file cannot be read or written.";

/// Where what is explored is kept until all is.
const CHECKPOINT: &str = "target/sim/checkpoint";

/// Which cells.
#[derive(Args)]
struct Cells {
    /// Strategies; all if not given
    #[arg(long, value_name = "NAME,..", value_delimiter = ',')]
    strategy: Vec<String>,
    /// Transports; all if not given
    #[arg(long, value_name = "NAME,..", value_delimiter = ',')]
    transport: Vec<String>,
    /// Operations: collapse, collapse-in-batch, unshare-last, unshare-three; all if not given
    #[arg(long, value_name = "NAME,..", value_delimiter = ',')]
    operation: Vec<String>,
    /// Walkers: gup, nmi, nmi-other, foreign, rcu, two-word; all if not given
    #[arg(long, value_name = "NAME,..", value_delimiter = ',')]
    walker: Vec<String>,
}

/// How far, and what is printed.
#[derive(Args)]
struct How {
    /// Explore N CPUs that load and unload mms, instead of two that do and three that keep what they have
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(2..=4))]
    cpus: Option<u8>,
    /// Explore three CPUs also where walks are nested in walks: some 10 minutes more
    #[arg(long)]
    all_rounds: bool,
    /// Stop each exploration after so many seconds; 60 if not given, and 600 for the core
    #[arg(long, value_name = "S")]
    seconds: Option<u64>,
    /// Stop each exploration after so many states
    #[arg(long, value_name = "N", default_value_t = 50_000_000)]
    states: usize,
    /// Stop after so many minutes; what was not explored by then is not called safe
    #[arg(long, value_name = "M")]
    minutes: Option<u64>,
    /// Go on where an earlier run of the same bounds was interrupted
    #[arg(long)]
    resume: bool,
    /// Where what is explored is kept until all is, for --resume
    #[arg(long, value_name = "FILE", default_value = CHECKPOINT)]
    checkpoint: PathBuf,
    /// How many cells at once; as many as there are processors if not given
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    threads: Option<u16>,
    /// Write the verdicts into this file, if everything was explored
    #[arg(long, value_name = "FILE")]
    save: Option<PathBuf>,
    /// Print a line of JSON for each cell, and one that says how it ended
    #[arg(long, conflicts_with_all = ["print", "core", "replay", "replay_on_core"])]
    json: bool,
    /// Which cells to print in full: bounds, states, states per second, the shortest counterexample
    #[arg(long, value_enum, default_value_t = Print::Unexpected)]
    print: Print,
}

/// Which cells to print in full.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Print {
    /// None.
    None,
    /// Those that are not as expected.
    Unexpected,
    /// The one that is not as expected and takes the fewest steps to tell.
    Shortest,
    /// Those with a counterexample.
    Unsafe,
    /// All.
    All,
}

/// A name that is in no list.
#[derive(Debug, thiserror::Error)]
#[error("there is no {kind} \"{name}\"; there are: {all}")]
struct UnknownName {
    kind: &'static str,
    name: String,
    all: String,
}

/// What the names stand for; all where none is given.
fn choose<T: Copy>(kind: &'static str, given: &[String], all: &[(&str, T)]) -> Result<Vec<T>, UnknownName> {
    if given.is_empty() {
        return Ok(all.iter().map(|(_, value)| *value).collect());
    }
    let one = |name: &String| {
        let found = all.iter().find(|(known, _)| known == name).map(|(_, value)| *value);
        found.ok_or_else(|| {
            let names: Vec<&str> = all.iter().map(|(known, _)| *known).collect();
            UnknownName { kind, name: name.clone(), all: names.join(", ") }
        })
    };
    given.iter().map(one).collect()
}

fn bounds(cli: &Cli) -> Result<Bounds, UnknownName> {
    let default = Bounds::default();
    let listed = if cli.follow.replay_on_core { strategies::listed() } else { strategies::everyone() };
    let strategies: Vec<(&str, &str)> = listed.iter().map(|s| (s.name, s.name)).collect();
    let transports = TransportId::ALL.map(|t| (t.name(), t));
    let operations: Vec<(&str, Operation)> = default.operations.iter().map(|o| (o.name(), *o)).collect();
    let known: Vec<_> = WalkerClass::ALL.into_iter().map(|w| (walker_name(w), w)).collect();
    let chosen = choose("strategy", &cli.cells.strategy, &strategies)?;
    Ok(Bounds {
        rounds: cli.how.cpus.map_or(default.rounds, |cpus| vec![Round { cpus, moves: true }]),
        all_rounds: cli.how.all_rounds,
        strategies: chosen.into_iter().map(String::from).collect(),
        transports: choose("transport", &cli.cells.transport, &transports)?,
        operations: choose("operation", &cli.cells.operation, &operations)?,
        walkers: choose("walker", &cli.cells.walker, &known)?,
        limits: Limits { states: cli.how.states, time: Duration::from_secs(cli.how.seconds.unwrap_or(60)) },
        core_time: cli.how.seconds.map_or(default.core_time, Duration::from_secs),
    })
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    if let Some(file) = &cli.core.replay {
        return core_command::replay(&cli.core, file);
    }
    if cli.core.core {
        return core_command::explore(&cli.core, &cli.cells, cli.how.seconds.unwrap_or(600));
    }
    if cli.core.trace.is_some() && !cli.follow.replay_on_core {
        eprintln!("error: --trace writes interleavings of the core: add --replay FILE, --core or --replay-on-core");
        return ExitCode::from(2);
    }
    let bounds = match bounds(&cli) {
        Ok(bounds) => bounds,
        Err(error) => {
            eprintln!("error: {error}");
            return ExitCode::from(2);
        }
    };
    if cli.follow.replay_on_core {
        return follow_command::run(&cli.follow, &cli.core, &bounds);
    }
    let deadline = cli.how.minutes.map(|minutes| Instant::now() + Duration::from_secs(60 * minutes));
    match explore(&cli, &bounds, deadline) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(3)
        }
    }
}

/// Something that could not be read or written.
#[derive(Debug, thiserror::Error)]
enum FileError {
    #[error("what was explored cannot be kept in {path}: {error}; name a file that can be written (--checkpoint)", path = .0.display(), error = .1)]
    Checkpoint(PathBuf, io::Error),
    #[error("{path} cannot be written: {error}; name a file that can be (--save)", path = .0.display(), error = .1)]
    Save(PathBuf, io::Error),
    #[error(transparent)]
    NotExhausted(#[from] results::NotExhausted),
}

/// Explores the matrix; whether everything is as expected.
fn explore(cli: &Cli, bounds: &Bounds, deadline: Option<Instant>) -> Result<bool, FileError> {
    let resume = cli.how.resume;
    let not_kept = |error| FileError::Checkpoint(cli.how.checkpoint.clone(), error);
    let checkpoint = Checkpoint::open(&cli.how.checkpoint, bounds, resume).map_err(not_kept)?;
    if resume && checkpoint.is_empty() {
        eprintln!("There is nothing to go on with: no earlier run of these bounds by this program was interrupted.");
    }
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let running =
        Running { threads: cli.how.threads.map_or(processors, usize::from), deadline, checkpoint: Some(checkpoint) };
    let bar = progress_bar(run::count(bounds) as u64);
    let rows = run::run(bounds, running, |row| {
        bar.inc(1);
        let wanted = match cli.how.print {
            _ if cli.how.json => false,
            Print::None | Print::Shortest => false,
            Print::Unexpected => !row.as_expected,
            Print::Unsafe => row.found == Verdict::Unsafe.name(),
            Print::All => true,
        };
        if wanted {
            bar.suspend(|| println!("{}", row.report));
        }
    });
    bar.finish_and_clear();
    let rows = rows.map_err(not_kept)?;
    if cli.how.json {
        print!("{}", results::json(&rows, bounds));
    } else {
        if cli.how.print == Print::Shortest {
            let unexpected = rows.iter().filter(|row| !row.as_expected);
            let shortest = unexpected.min_by_key(|row| row.report.lines().count());
            shortest.into_iter().for_each(|row| println!("{}", row.report));
        }
        print!("{}", results::table(&rows, bounds));
        eprintln!("{}", results::totals(&rows));
    }
    if let Some(path) = &cli.how.save {
        let verdicts = results::Verdicts::of(&rows, bounds)?;
        let mut text = serde_json::to_string_pretty(&verdicts).expect("strings and numbers");
        text.push('\n');
        std::fs::write(path, text).map_err(|error| FileError::Save(path.clone(), error))?;
    }
    let unexpected = rows.iter().filter(|row| !row.as_expected).count();
    match unexpected {
        _ if cli.how.json => {}
        0 => println!("All {} cells are as expected.", rows.len()),
        _ => println!("{unexpected} of {} cells are not as expected, or were not explored to their end.", rows.len()),
    }
    Ok(unexpected == 0)
}

/// Counts cells on a terminal; says nothing elsewhere.
fn progress_bar(total: u64) -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{bar:40} {pos} of {len} cells, {elapsed}, {eta} left");
    ProgressBar::new(total).with_style(style.expect("the template is right"))
}
