//! Traces: what the CPUs' rings of events still hold when a guest has ended, as a file to look at, to mail, or to
//! compute with.

mod csv;
mod lives;
mod perfetto;
mod simulated;
mod spans;
mod text;
pub(crate) mod timeline;
mod words;

use std::path::{Path, PathBuf};

use anyhow::Context;
use kernel::record::cell::{CellRow, Violation};
use kernel::record::event::Event;

use crate::arch::Arch;
use crate::error::bad_input;
use crate::qemu::Launch;
use crate::rows::Row;
use crate::shared_memory::CpuEvents;
use crate::violation;

/// The option, for the commands that have it.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct TraceOption {
    /// Writes what each CPU did last, by the ending of PATH: .json for ui.perfetto.dev, .txt in two columns, .csv;
    /// target/trace.json if no PATH is given
    #[arg(long, value_name = "PATH", num_args = 0..=1, default_missing_value = "target/trace.json")]
    trace: Option<PathBuf>,
}

/// How a trace is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Format {
    Perfetto,
    Text,
    Csv,
}

/// One guest: what is left of its events, and what is known of its cells.
#[derive(Clone, Debug, Default)]
pub(crate) struct Recording {
    /// Architecture, strategy, transport.
    pub(crate) title: String,
    /// Names of the cells, in their order.
    pub(crate) cells: Vec<String>,
    /// Each CPU's ring.
    pub(crate) cpus: Vec<CpuEvents>,
    /// The first violation of each cell that has one, with a heading.
    pub(crate) violations: Vec<(String, Violation)>,
}

impl Recording {
    /// Of the guest that was started so, titled by the first words of its command line: strategy and transport.
    pub(crate) fn of(launch: &Launch, cells: &[CellRow], cpus: Vec<CpuEvents>) -> Recording {
        let words: Vec<&str> = launch.command_line.split(' ').take(2).collect();
        Recording::new(launch.arch, format!("{} {}", launch.arch.name(), words.join(" ")), cells, cpus)
    }

    /// Of a guest that left these rows and events.
    pub(crate) fn new(arch: Arch, title: String, cells: &[CellRow], cpus: Vec<CpuEvents>) -> Recording {
        let rows: Vec<Row> = cells.iter().filter_map(|cell| Row::resolve(arch, *cell).ok()).collect();
        let unsafe_rows = rows.iter().filter(|row| row.violation().is_some());
        Recording {
            title,
            cells: rows.iter().map(violation::heading).collect(),
            violations: unsafe_rows
                .map(|row| (format!("{}: {}.", violation::heading(row), violation::in_words(row)), row.cell.first))
                .collect(),
            cpus,
        }
    }
}

/// A trace that was asked for: recordings are added, and written in the end.
#[derive(Debug)]
pub(crate) struct Trace {
    path: PathBuf,
    format: Format,
    recordings: Vec<(usize, Recording)>,
}

impl TraceOption {
    /// As if it had not been given.
    pub(crate) fn none() -> TraceOption {
        TraceOption { trace: None }
    }

    /// The trace to write, if one is wanted. A path that cannot be is told before anything is run.
    pub(crate) fn begin(&self) -> anyhow::Result<Option<Trace>> {
        let Some(path) = self.trace.clone() else { return Ok(None) };
        let format = match path.extension().and_then(|e| e.to_str()) {
            Some("json") => Format::Perfetto,
            Some("txt") => Format::Text,
            Some("csv") => Format::Csv,
            _ => {
                return Err(bad_input(format!(
                    "--trace {} names no format: end it in .json (for ui.perfetto.dev), .txt or .csv",
                    path.display()
                )));
            }
        };
        let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        if !folder.is_dir() || path.is_dir() {
            return Err(bad_input(format!("--trace {} cannot be written: there is no such folder", path.display())));
        }
        Ok(Some(Trace { path, format, recordings: Vec::new() }))
    }
}

impl Trace {
    /// Adds what a guest left; recordings are written by their `order`.
    pub(crate) fn add(&mut self, order: usize, recording: Recording) {
        self.recordings.push((order, recording));
    }

    /// Writes the file, and says on standard error what is in it and what is not.
    pub(crate) fn finish(mut self) -> anyhow::Result<()> {
        self.recordings.sort_by_key(|(order, _)| *order);
        let recordings: Vec<Recording> = self.recordings.into_iter().map(|(_, recording)| recording).collect();
        let content = match self.format {
            Format::Perfetto => perfetto::document(&recordings).to_string() + "\n",
            Format::Text => text::text(&recordings),
            Format::Csv => csv::text(&recordings)?,
        };
        let path = self.path.display();
        std::fs::write(&self.path, content).with_context(|| format!("the trace cannot be written to {path}"))?;
        let rings = || recordings.iter().flat_map(|r| &r.cpus);
        let events: usize = rings().map(|c| c.events.len()).sum();
        let lost: u64 = rings().map(|c| c.overwritten + c.dropped).sum();
        eprintln!("trace: {path} has {events} events; guests: {}", recordings.len());
        if lost > 0 {
            eprintln!(
                "trace: {lost} earlier events are not, since the rings were full; fewer workloads, modes or --ops keep more"
            );
            for recording in &recordings {
                text::lost(recording).iter().for_each(|line| eprintln!("trace: {}: {line}", recording.title));
            }
        }
        Ok(())
    }
}

/// The events of all CPUs by time; those of one CPU stay in the order in which it wrote them.
fn in_order(rings: &[CpuEvents]) -> Vec<&Event> {
    let mut events: Vec<&Event> = rings.iter().flat_map(|ring| &ring.events).collect();
    events.sort_by_key(|e| e.time);
    events
}

#[cfg(test)]
pub(crate) mod forged {
    //! Rings as a test writes them.

    use kernel::ledger::Cause;
    use kernel::record::event::EventKind;

    use super::*;

    pub(crate) fn event(time: u64, cpu: u16, kind: EventKind, a: u64, b: u64) -> Event {
        Event { time, kind: kind as u16, cpu, mm: 3, a, b }
    }

    pub(crate) fn ring(events: Vec<Event>) -> CpuEvents {
        CpuEvents { events, ..CpuEvents::default() }
    }

    /// CPU 0 reuses table 0x77 after a flush that CPU 2 acknowledges, while CPU 1 holds it.
    pub(crate) fn story() -> Vec<CpuEvents> {
        use EventKind as K;
        let updater = vec![
            event(5, 0, K::CellStart, 0, 0),
            event(15, 0, K::Link, 0x77, 0x4000),
            event(110, 0, K::OperationBegin, 0, 0),
            event(120, 0, K::Unlink, 0x77, 0x4000),
            event(130, 0, K::FlushBegin, 0x4000, 0),
            event(140, 0, K::Interrupt, Cause::FlushTables as u64, 2),
            event(150, 0, K::WaitBegin, 4, 0),
            event(290, 0, K::WaitEnd, 4, 0),
            event(300, 0, K::FlushEnd, 0x4000, 1),
            event(305, 0, K::SyncElided, 0x77, 0),
            event(310, 0, K::Drained, 0x77, 0),
            event(320, 0, K::Violation, 0x77, 1),
            event(325, 0, K::Reuse, 0x77, 0x4000),
            event(360, 0, K::OperationEnd, 0, 0),
            event(400, 0, K::CellEnd, 0, 1),
        ];
        let walker = vec![
            event(20, 1, K::WalkBegin, 0x1000, 1),
            event(30, 1, K::WalkEnd, 0x1000, 1),
            event(100, 1, K::WalkBegin, 0x4000, 1),
            event(115, 1, K::WalkHolds, 0x77, 0x4000),
            event(340, 1, K::WalkEnd, 0x4000, 0),
        ];
        let other = vec![
            event(200, 2, K::HandlerBegin, 0, 0),
            event(210, 2, K::Acknowledge, Cause::FlushTables as u64, 0),
            event(220, 2, K::HandlerEnd, 0, 0),
        ];
        vec![ring(updater), ring(walker), ring(other)]
    }

    /// The same, with some events lost.
    pub(crate) fn recording() -> Recording {
        let mut cpus = story();
        cpus[0].overwritten = 9;
        cpus[2].dropped = 1;
        let violation = Violation { kind: 1, walker: 1, updater: 0, pfn: 0x77, ..Violation::default() };
        Recording {
            title: "aarch64, none on broadcast".into(),
            cells: vec!["collapse_anon".into()],
            cpus,
            violations: vec![("the violation's heading".into(), violation)],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn option(path: &str) -> TraceOption {
        TraceOption { trace: Some(path.into()) }
    }

    #[test]
    fn the_ending_says_the_format() {
        for (path, format) in [("a.json", Format::Perfetto), ("a.txt", Format::Text), ("a.csv", Format::Csv)] {
            assert_eq!(option(path).begin().unwrap().unwrap().format, format);
        }
        assert!(TraceOption::none().begin().unwrap().is_none());
    }

    #[test]
    fn a_path_that_cannot_be_is_refused_with_a_hint() {
        let refused = |path: &str| option(path).begin().unwrap_err();
        assert!(refused("fork").is::<crate::error::BadInput>());
        assert!(refused("fork").to_string().contains(".json"), "{}", refused("fork"));
        assert!(refused("/nowhere/at/all/a.json").to_string().contains("no such folder"));
    }
}
