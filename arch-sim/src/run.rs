//! The matrix, cell by cell, on several threads; what is done is kept in a file, so that an interrupted run goes on
//! where it was.

use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use kernel::record::cell::Verdict as Outcome;

use crate::by_core;
use crate::matrix::{Bounds, Verdict, cell, scenario};
use crate::model::check::Limits;
use crate::model::strategies::{everyone, listed};
use crate::results::Row;

/// How the cells are run.
#[derive(Debug)]
pub struct Running {
    /// On so many threads.
    pub threads: usize,
    /// Cells that have not begun by then do not.
    pub deadline: Option<Instant>,
    /// Where what is done is kept.
    pub checkpoint: Option<Checkpoint>,
}

/// A file that says what is done: a line that says of what, then one for each cell.
#[derive(Debug)]
pub struct Checkpoint {
    path: PathBuf,
    /// What the rows are of: bounds, and the program that explored them.
    of: String,
    done: Vec<Row>,
}

impl Checkpoint {
    /// The file at `path`, for `bounds`. `resume`: what it has of the same bounds, explored by the same program, need
    /// not be done again.
    pub fn open(path: &Path, bounds: &Bounds, resume: bool) -> io::Result<Checkpoint> {
        let mut hasher = DefaultHasher::new();
        fs::read(std::env::current_exe()?)?.hash(&mut hasher);
        // Not the limits: what is done was explored to its end, or until something was found.
        let of = format!("{:016x} {:?} {}", hasher.finish(), bounds.rounds, bounds.all_rounds);
        let mut done = Vec::new();
        if resume && let Ok(text) = fs::read_to_string(path) {
            let mut lines = text.lines();
            if lines.next() == Some(of.as_str()) {
                // The last line may have been cut off.
                done = lines.filter_map(|line| serde_json::from_str(line).ok()).collect();
            }
        }
        Ok(Checkpoint { path: path.into(), of, done })
    }

    /// How many cells are done.
    pub fn len(&self) -> usize {
        self.done.len()
    }

    /// Whether there is nothing to resume.
    pub fn is_empty(&self) -> bool {
        self.done.is_empty()
    }

    fn write(&self) -> io::Result<File> {
        if let Some(directory) = self.path.parent() {
            fs::create_dir_all(directory)?;
        }
        let mut file = File::create(&self.path)?;
        writeln!(file, "{}", self.of)?;
        self.done.iter().try_for_each(|row| keep(&mut file, row))?;
        Ok(file)
    }
}

fn keep(file: &mut File, row: &Row) -> io::Result<()> {
    writeln!(file, "{}", serde_json::to_string(row)?)
}

/// All cells of `bounds` in their order: walkers, strategies, transports, operations.
fn cells(bounds: &Bounds) -> Vec<Verdict> {
    let mut all = Vec::new();
    let wanted = |name: &str| bounds.strategies.is_empty() || bounds.strategies.iter().any(|n| n == name);
    for walker in &bounds.walkers {
        for strategy in everyone().iter().filter(|strategy| wanted(strategy.name)) {
            for transport in &bounds.transports {
                for operation in &bounds.operations {
                    all.push(Verdict {
                        strategy: strategy.name,
                        transport: *transport,
                        operation: *operation,
                        walker: *walker,
                        expected: None,
                        found: Outcome::Void,
                        explorations: Vec::new(),
                    });
                }
            }
        }
    }
    all
}

/// How many cells `bounds` have.
pub fn count(bounds: &Bounds) -> usize {
    cells(bounds).len()
}

/// The cells of `bounds` that must be unsafe, and that the model finds so, with their counterexamples, one after the
/// other.
pub fn unsafe_cells(bounds: &Bounds) -> impl Iterator<Item = Verdict> {
    let strategies = listed();
    let explored = cells(bounds).into_iter().filter_map(move |empty| {
        let strategy = strategies.iter().find(|s| s.name == empty.strategy)?;
        let scenario = scenario(strategy, empty.transport, empty.operation, empty.walker, *bounds.rounds.first()?);
        // That the others are not unsafe is what the matrix itself says.
        let suspect = (strategy.promises)(scenario.setting()) == Outcome::Unsafe;
        suspect.then(|| cell(strategy, empty.transport, empty.operation, empty.walker, bounds))
    });
    explored.filter(|verdict| verdict.found == Outcome::Unsafe)
}

/// The row of a cell of which nothing is known.
fn unexplored(cell: &Verdict) -> Row {
    match by_core::listed().any(|name| name == cell.strategy) {
        true => by_core::unexplored(cell.strategy, cell.transport, cell.operation, cell.walker),
        false => Row::of(cell),
    }
}

/// Explores one cell, with what is left of the time.
fn one(empty: &Verdict, bounds: &Bounds, deadline: Option<Instant>) -> Row {
    let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
    if left.is_some_and(|left| left.is_zero()) {
        return unexplored(empty);
    }
    let within = |time: Duration| left.map_or(time, |left| left.min(time));
    let Some(strategy) = listed().into_iter().find(|s| s.name == empty.strategy) else {
        let time = within(bounds.core_time);
        return by_core::row(empty.strategy, empty.transport, empty.operation, empty.walker, time);
    };
    let time = within(bounds.limits.time);
    let bounds = Bounds { limits: Limits { time, ..bounds.limits }, ..bounds.clone() };
    Row::of(&cell(&strategy, empty.transport, empty.operation, empty.walker, &bounds))
}

/// Explores all cells; `progress` is told of each as it comes, and gets them in no particular order. The rows are in
/// the order of the cells.
pub fn run(bounds: &Bounds, running: Running, mut progress: impl FnMut(&Row)) -> io::Result<Vec<Row>> {
    let all = cells(bounds);
    let mut file = running.checkpoint.as_ref().map(Checkpoint::write).transpose()?;
    let done = running.checkpoint.map(|checkpoint| checkpoint.done).unwrap_or_default();
    let mut rows: Vec<Option<Row>> =
        all.iter().map(|empty| done.iter().find(|row| row.is_of(&unexplored(empty))).cloned()).collect();
    rows.iter().flatten().for_each(&mut progress);
    let open: Vec<usize> = (0..all.len()).filter(|i| rows[*i].is_none()).collect();
    let next = AtomicUsize::new(0);
    let (send, receive) = mpsc::channel();
    std::thread::scope(|scope| -> io::Result<()> {
        for _ in 0..running.threads.clamp(1, open.len().max(1)) {
            let (send, next, open, all) = (send.clone(), &next, &open, &all);
            scope.spawn(move || {
                while let Some(index) = open.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if send.send((*index, one(&all[*index], bounds, running.deadline))).is_err() {
                        return;
                    }
                }
            });
        }
        drop(send);
        for (index, row) in receive {
            progress(&row);
            // What was cut short by the clock is done again next time.
            if let Some(file) = file.as_mut().filter(|_| row.found != Outcome::Void.name()) {
                keep(file, &row)?;
            }
            rows[index] = Some(row);
        }
        Ok(())
    })?;
    Ok(rows.into_iter().flatten().collect())
}
