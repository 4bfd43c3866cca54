//! How far an experiment has come, and the time that is left: a bar on a terminal, a line now and then elsewhere.

use std::io::IsTerminal;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use super::plan::Unit;

/// How often a line is written where there is no terminal.
const EVERY: Duration = Duration::from_secs(10);

/// The progress of one experiment, in cells.
pub(crate) struct Progress {
    name: String,
    bar: Option<ProgressBar>,
    begin: Instant,
    total: usize,
    state: Mutex<State>,
}

struct State {
    /// Cells done before this call.
    before: usize,
    done: usize,
    last_line: Instant,
}

impl Progress {
    /// Of `units`, those in `missing` are still to be done.
    pub(crate) fn begin(name: &str, units: &[Unit], missing: &[&Unit]) -> Progress {
        let total: usize = units.iter().map(Unit::cells).sum();
        let before = total - missing.iter().map(|unit| unit.cells()).sum::<usize>();
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new(total as u64).with_position(before as u64);
            let style = ProgressStyle::with_template(
                "{prefix} {bar:20} {pos}/{len} cells, {elapsed} gone, {eta} left {wide_msg}",
            );
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
            bar.set_prefix(name.to_owned());
            // What was done before says nothing of how fast this machine is now.
            bar.reset_eta();
            bar.enable_steady_tick(Duration::from_millis(200));
            bar
        });
        let state = Mutex::new(State { before, done: before, last_line: Instant::now() });
        let progress = Progress { name: name.to_owned(), bar, begin: Instant::now(), total, state };
        if progress.bar.is_none() && before < total {
            eprintln!("{name}: {before} of {total} cells are done");
        }
        progress
    }

    /// So many more cells of `unit` are done.
    pub(crate) fn cells(&self, unit: &Unit, count: usize) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.done += count;
        if let Some(bar) = &self.bar {
            bar.set_position(state.done as u64);
            bar.set_message(unit.name.clone());
        } else if state.last_line.elapsed() > EVERY {
            state.last_line = Instant::now();
            let left = left(self.begin.elapsed(), state.done - state.before, self.total - state.done);
            eprintln!("{}: {} of {} cells are done, {} s left", self.name, state.done, self.total, left.as_secs());
        }
    }

    /// Takes the bar away.
    pub(crate) fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// The time left, if what is to be done is like what was done.
fn left(gone: Duration, done: usize, to_do: usize) -> Duration {
    gone.mul_f64(to_do as f64 / done.max(1) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_left_is_in_proportion() {
        assert_eq!(left(Duration::from_secs(10), 5, 20), Duration::from_secs(40));
        assert_eq!(left(Duration::from_secs(10), 0, 0), Duration::ZERO);
    }
}
