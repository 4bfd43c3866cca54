//! The guests of one run, some at a time, and their rows put together in a fixed order.
//!
//! A group is what two images do together: the checking image gives the rows, the plain one their instructions. There
//! is a group for each architecture and strategy, whatever the host, so that a strategy's rows do not depend on which
//! others were run.

use std::collections::HashMap;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError, mpsc};
use std::time::Duration;

use kernel::record::cell::CellRow;

use crate::build::Kind;
use crate::error::Interrupted;
use crate::guest::{Guest, Report};
use crate::profile::Profile;
use crate::qemu::Launch;
use crate::rows::{Gap, Row};
use crate::shared_memory::{CpuEvents, GuestMemory};

/// One guest to run.
pub(crate) struct Job {
    /// Groups are reported in the order of their numbers, from 0.
    pub(crate) group: usize,
    /// Which image.
    pub(crate) kind: Kind,
    /// The machine.
    pub(crate) launch: Launch,
}

enum Event {
    Row(usize, Box<CellRow>, Option<Box<Profile>>),
    Traced(usize, Vec<CellRow>, Vec<CpuEvents>),
    Ended(usize, anyhow::Result<Report>),
}

/// Measurements by strategy and workload.
#[derive(Default)]
struct Measured {
    /// Instructions per operation.
    instructions: HashMap<(&'static str, &'static str), f64>,
    /// Gaps of the bystander.
    gaps: HashMap<(&'static str, &'static str), Gap>,
}

/// What one group's guests have said so far.
#[derive(Default)]
struct Collected {
    rows: Vec<Row>,
    /// Rows handed on.
    handed_on: usize,
    /// What the plain image measured so far; `None` once no more will come.
    measured: Option<Measured>,
    known: Measured,
    /// Whether all rows are there.
    complete: bool,
}

/// What a run hands on while it runs.
pub(crate) trait Observer {
    /// A row is final; rows come in the order of the report.
    fn row(&mut self, row: &Row) -> anyhow::Result<()>;
    /// A cell of the checking image is done.
    fn cell(&mut self, row: &Row);
    /// A guest finished.
    fn ended(&mut self, job: &Job, report: &Report);
    /// Whether the events of the checking image's guests are wanted.
    fn wants_events(&self) -> bool {
        false
    }
    /// How a guest ended, whichever way: its finished cells and what its rings still hold. Guests have the numbers of
    /// their jobs.
    fn events(&mut self, _number: usize, _job: &Job, _cells: &[CellRow], _events: Vec<CpuEvents>) {}
}

/// Runs all jobs, in their order, and returns the rows, group by group. The first failure stops everything; rows of
/// finished cells have been handed on by then.
pub(crate) fn run(
    jobs: &[Job],
    at_once: usize,
    patience: Option<Duration>,
    observer: &mut dyn Observer,
) -> anyhow::Result<Vec<Row>> {
    let queue: Mutex<VecDeque<usize>> = Mutex::new((0..jobs.len()).collect());
    let stop = AtomicBool::new(false);
    let (send, receive) = mpsc::channel();
    let wants_events = observer.wants_events();
    std::thread::scope(|scope| {
        for _ in 0..at_once.clamp(1, jobs.len().max(1)) {
            let (queue, stop, send) = (&queue, &stop, send.clone());
            scope.spawn(move || {
                // A closure, so that the queue is not locked while a guest runs.
                let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
                while let Some(index) = next() {
                    if stop.load(Ordering::SeqCst) {
                        return;
                    }
                    let stopped = || stop.load(Ordering::SeqCst);
                    let traced = wants_events && jobs[index].kind == Kind::Checking;
                    let (mut cells, mut events) = (Vec::new(), Vec::new());
                    let on_row = &mut |row, profile: Option<Profile>| {
                        cells.extend(traced.then_some(row));
                        let _ = send.send(Event::Row(index, Box::new(row), profile.map(Box::new)));
                    };
                    let at_end = &mut |memory: &GuestMemory| {
                        if traced {
                            events = memory.events().unwrap_or_default();
                        }
                    };
                    let result = Guest::start(jobs[index].launch.clone())
                        .and_then(|guest| guest.supervise_and(patience, &stopped, on_row, at_end));
                    if traced {
                        let _ = send.send(Event::Traced(index, cells, events));
                    }
                    if result.is_err() {
                        stop.store(true, Ordering::SeqCst);
                    }
                    let _ = send.send(Event::Ended(index, result));
                }
            });
        }
        drop(send);
        let collected = collect(jobs, &receive, observer);
        if collected.is_err() {
            stop.store(true, Ordering::SeqCst);
        }
        collected
    })
}

fn collect(jobs: &[Job], events: &mpsc::Receiver<Event>, observer: &mut dyn Observer) -> anyhow::Result<Vec<Row>> {
    let groups = jobs.iter().map(|j| j.group + 1).max().unwrap_or(0);
    let mut all: Vec<Collected> = (0..groups).map(|_| Collected::default()).collect();
    for job in jobs.iter().filter(|j| j.kind == Kind::Plain) {
        all[job.group].measured = Some(Measured::default());
    }
    let mut failure = None;
    for event in events {
        match event {
            Event::Row(index, cell, profile) => {
                let row = Row { profile: profile.map(|p| *p), ..Row::resolve(jobs[index].launch.arch, *cell)? };
                take_row(&mut all[jobs[index].group], &jobs[index], row, observer);
            }
            Event::Traced(index, cells, events) => observer.events(index, &jobs[index], &cells, events),
            Event::Ended(index, Ok(report)) => {
                let job = &jobs[index];
                let collected = &mut all[job.group];
                match job.kind {
                    Kind::Checking => collected.complete = true,
                    Kind::Plain => collected.known = collected.measured.take().unwrap_or_default(),
                }
                observer.ended(job, &report);
            }
            // The first failure is the cause; others were stopped because of it, and may say so first.
            Event::Ended(_, Err(error)) => {
                failure = failure.filter(|first: &anyhow::Error| !first.is::<Interrupted>()).or(Some(error));
            }
        }
        hand_on(&mut all, false, observer)?;
    }
    hand_on(&mut all, true, observer)?;
    match failure {
        Some(error) => Err(error),
        None => Ok(all.into_iter().flat_map(|c| c.rows).collect()),
    }
}

fn take_row(collected: &mut Collected, job: &Job, row: Row, observer: &mut dyn Observer) {
    match job.kind {
        Kind::Checking => {
            observer.cell(&row);
            collected.rows.push(row);
        }
        Kind::Plain => {
            let per_op = row.per_op(row.cell.instructions).filter(|n| *n > 0.0);
            let pair = (row.strategy, row.workload);
            let Some(measured) = &mut collected.measured else { return };
            if row.has_bystander() {
                measured.gaps.insert(pair, Gap::of(&row.cell));
            }
            // Of a mode of its own, which is measured with all other CPUs idle besides.
            if let Some(n) = per_op.filter(|_| !row.has_bystander() || row.has_periodic_thread()) {
                measured.instructions.insert(pair, n);
            }
        }
    }
}

/// Hands on every row that is final and whose predecessors are; with `rest`, all that are there.
fn hand_on(all: &mut [Collected], rest: bool, observer: &mut dyn Observer) -> anyhow::Result<()> {
    for collected in all {
        while let Some(row) = collected.rows.get_mut(collected.handed_on) {
            let pair = (row.strategy, row.workload);
            let pending = collected.measured.as_ref();
            let measured = pending.unwrap_or(&collected.known);
            row.instructions_per_op = measured.instructions.get(&pair).copied();
            row.gap = measured.gaps.get(&pair).copied().filter(|_| row.has_bystander());
            let missing = row.instructions_per_op.is_none() || (row.has_bystander() && row.gap.is_none());
            if missing && pending.is_some() && !rest {
                return Ok(());
            }
            observer.row(row)?;
            collected.handed_on += 1;
        }
        if !collected.complete && !rest {
            return Ok(());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arch::Arch;
    use crate::rows::tests::cell;
    use crate::suite::Engine;
    use kernel::suite::Mode;

    #[derive(Default)]
    struct Log(Vec<String>);

    impl Observer for Log {
        fn row(&mut self, row: &Row) -> anyhow::Result<()> {
            self.0.push(format!("{} {} {:?}", row.arch.name(), row.strategy, row.instructions_per_op));
            Ok(())
        }
        fn cell(&mut self, _row: &Row) {}
        fn ended(&mut self, _job: &Job, _report: &Report) {}
    }

    fn job(group: usize, arch: Arch, kind: Kind) -> Job {
        let launch = Launch {
            arch,
            qemu: "qemu".into(),
            cpus: 4,
            memory_mib: 512,
            image: "k".into(),
            ram: "r".into(),
            serial: "s".into(),
            module: None,
            command_line: String::new(),
            engine: Engine::Icount,
            gdb: false,
        };
        Job { group, kind, launch }
    }

    fn collected(jobs: &[Job], events: Vec<Event>) -> (anyhow::Result<Vec<Row>>, Vec<String>) {
        let (send, receive) = mpsc::channel();
        events.into_iter().for_each(|e| send.send(e).unwrap());
        drop(send);
        let mut log = Log::default();
        (collect(jobs, &receive, &mut log), log.0)
    }

    fn checked(strategy: u16) -> CellRow {
        cell(strategy, 0, Mode::Same)
    }

    fn measured(strategy: u16, per_op: u64) -> CellRow {
        CellRow { instructions: per_op * 64, ..cell(strategy, 0, Mode::Idle) }
    }

    #[test]
    fn rows_come_in_the_order_of_the_report_whatever_the_order_of_events() {
        let jobs = [
            job(0, Arch::X86_64, Kind::Checking),
            job(0, Arch::X86_64, Kind::Plain),
            job(1, Arch::Aarch64, Kind::Checking),
            job(1, Arch::Aarch64, Kind::Plain),
        ];
        let ended = |index| Event::Ended(index, Ok(Report::default()));
        let (rows, log) = collected(
            &jobs,
            vec![
                Event::Row(2, Box::new(checked(0)), None),
                ended(2),
                Event::Row(3, Box::new(measured(0, 30)), None),
                Event::Row(0, Box::new(checked(0)), None),
                Event::Row(0, Box::new(checked(1)), None),
                Event::Row(1, Box::new(measured(0, 10)), None),
                ended(3),
                ended(0),
                Event::Row(1, Box::new(measured(1, 20)), None),
                ended(1),
            ],
        );
        assert_eq!(rows.unwrap().len(), 3);
        assert_eq!(log, ["x86_64 none Some(10.0)", "x86_64 sync-all Some(20.0)", "aarch64 none Some(30.0)"]);
    }

    #[test]
    fn without_a_measurement_there_are_no_instructions() {
        let jobs = [job(0, Arch::X86_64, Kind::Checking)];
        let (rows, log) =
            collected(&jobs, vec![Event::Row(0, Box::new(checked(2)), None), Event::Ended(0, Ok(Report::default()))]);
        assert!(rows.is_ok());
        assert_eq!(log, ["x86_64 static-hook None"]);
    }

    #[test]
    fn a_failure_is_told_after_the_finished_rows_were_handed_on() {
        let jobs = [job(0, Arch::X86_64, Kind::Checking), job(0, Arch::X86_64, Kind::Plain)];
        let failed = |text: &str| Err(anyhow::anyhow!("{text}"));
        let (rows, log) = collected(
            &jobs,
            vec![
                Event::Row(0, Box::new(checked(0)), None),
                Event::Ended(0, Err(Interrupted.into())),
                Event::Ended(1, failed("the cause")),
                Event::Ended(0, failed("the second")),
            ],
        );
        assert_eq!(rows.unwrap_err().to_string(), "the cause");
        assert_eq!(log, ["x86_64 none None"]);
    }
}
