//! Progress on standard error: one line for each step, moving on a terminal, plain elsewhere.

use std::io::IsTerminal;
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

/// Counts cells on a terminal; says nothing elsewhere.
pub(crate) struct Cells(ProgressBar);

impl Cells {
    /// Of `total` cells none is done.
    pub(crate) fn begin(total: u64) -> Cells {
        Cells::of(total, "cells")
    }

    /// The same for something else than cells: `what`, in the plural.
    pub(crate) fn of(total: u64, what: &str) -> Cells {
        let bar = ProgressBar::new(if std::io::stderr().is_terminal() { total } else { 0 });
        if !std::io::stderr().is_terminal() {
            return Cells(ProgressBar::hidden());
        }
        if let Ok(style) =
            ProgressStyle::with_template(&format!("{{bar:30}} {{pos}}/{{len}} {what}, {{elapsed}} {{msg}}"))
        {
            bar.set_style(style);
        }
        bar.enable_steady_tick(Duration::from_millis(200));
        Cells(bar)
    }

    /// One more is done; `latest` names it.
    pub(crate) fn one_more(&self, latest: String) {
        self.0.set_message(latest);
        self.0.inc(1);
    }

    /// Takes the bar away.
    pub(crate) fn end(self) {
        self.0.finish_and_clear();
    }
}
