//! Progress on standard error: one line for each step, moving on a terminal, plain elsewhere.

use std::io::IsTerminal;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// A step that is under way.
pub(crate) struct Step {
    text: String,
    begin: Instant,
    bar: Option<ProgressBar>,
}

impl Step {
    /// Says that the step begins.
    pub(crate) fn begin(text: impl Into<String>) -> Step {
        let text = text.into();
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new_spinner().with_message(text.clone());
            bar.enable_steady_tick(Duration::from_millis(100));
            bar
        });
        if bar.is_none() {
            eprintln!("{text}");
        }
        Step { text, begin: Instant::now(), bar }
    }

    /// Says that it ended well.
    pub(crate) fn done(self) {
        if let Some(bar) = self.bar {
            bar.finish_and_clear();
            eprintln!("{} ({:.1} s)", self.text, self.begin.elapsed().as_secs_f64());
        }
    }

    /// Takes the moving line away, so that an error can be shown.
    pub(crate) fn failed(self) {
        if let Some(bar) = self.bar {
            bar.abandon();
        }
    }
}

/// How often a line is written where there is no terminal.
const EVERY: Duration = Duration::from_secs(15);

/// Counts cells on a terminal; elsewhere says nothing, or a line now and then.
pub(crate) struct Cells {
    bar: ProgressBar,
    told: Option<Told>,
}

/// How far it is, for lines.
struct Told {
    what: String,
    total: u64,
    begin: Instant,
    /// How many are done, and when that was last said.
    state: Mutex<(u64, Instant)>,
}

impl Cells {
    /// Of `total` cells none is done.
    pub(crate) fn begin(total: u64) -> Cells {
        Cells::of(total, "cells")
    }

    /// The same for something else than cells: `what`, in the plural.
    pub(crate) fn of(total: u64, what: &str) -> Cells {
        let bar = ProgressBar::new(if std::io::stderr().is_terminal() { total } else { 0 });
        if !std::io::stderr().is_terminal() {
            return Cells { bar: ProgressBar::hidden(), told: None };
        }
        if let Ok(style) =
            ProgressStyle::with_template(&format!("{{bar:30}} {{pos}}/{{len}} {what}, {{elapsed}} {{msg}}"))
        {
            bar.set_style(style);
        }
        bar.enable_steady_tick(Duration::from_millis(200));
        Cells { bar, told: None }
    }

    /// The same for what takes minutes: without a terminal it says a line now and then.
    pub(crate) fn told(total: u64, what: &str) -> Cells {
        let state = Mutex::new((0, Instant::now()));
        let told = Told { what: what.to_owned(), total, begin: Instant::now(), state };
        Cells { told: (!std::io::stderr().is_terminal()).then_some(told), ..Cells::of(total, what) }
    }

    /// `what` is under way.
    pub(crate) fn now(&self, what: String) {
        self.tell(0, &what);
        self.bar.set_message(what);
    }

    /// One more is done; `latest` names it.
    pub(crate) fn one_more(&self, latest: String) {
        self.tell(1, &latest);
        self.bar.set_message(latest);
        self.bar.inc(1);
    }

    fn tell(&self, more: u64, latest: &str) {
        let Some(Told { what, total, begin, state }) = &self.told else { return };
        let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
        state.0 += more;
        if state.1.elapsed() > EVERY {
            state.1 = Instant::now();
            eprintln!("{} of {total} {what}, {} s: {latest}", state.0, begin.elapsed().as_secs());
        }
    }

    /// Takes the bar away.
    pub(crate) fn end(self) {
        self.bar.finish_and_clear();
    }
}
