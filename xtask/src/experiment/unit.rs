//! Running units: side by side, within the machine's cores; each leaves its rows and its log in the folder, or nothing.

use std::collections::HashMap;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use serde_json::json;

use super::Ready;
use super::folder::Folder;
use super::model::ModelWork;
use super::plan::{GuestWork, Unit, Work};
use super::progress::Progress;
use crate::build::Kind;
use crate::guest::{Guest, KernelFault};
use crate::probe;
use crate::records::Record;
use crate::rows::{Gap, Row, Setting};

/// Where units run.
pub(crate) struct Runner<'f> {
    folder: &'f Folder,
    machines: &'f Ready,
    at_once: usize,
    patience: Duration,
    /// Host threads that are not in use.
    free: Mutex<usize>,
    freed: Condvar,
}

/// Threads that are in use as long as this lives.
struct Threads<'r, 'f> {
    runner: &'r Runner<'f>,
    count: usize,
}

impl Drop for Threads<'_, '_> {
    fn drop(&mut self) {
        *self.runner.free.lock().unwrap_or_else(PoisonError::into_inner) += self.count;
        self.runner.freed.notify_all();
    }
}

impl<'f> Runner<'f> {
    /// A runner that keeps `at_once` threads busy.
    pub(crate) fn new(folder: &'f Folder, machines: &'f Ready, at_once: usize, patience: Duration) -> Runner<'f> {
        Runner { folder, machines, at_once, patience, free: Mutex::new(at_once), freed: Condvar::new() }
    }

    /// Runs `units`; returns how kernels failed, a sentence each. Whatever else fails ends it.
    pub(crate) fn run(&self, units: &[&Unit], progress: &Progress) -> anyhow::Result<Vec<String>> {
        let work = |unit: &&Unit, stop: &dyn Fn() -> bool| {
            let _threads = self.wait_for(unit.threads());
            match &unit.work {
                Work::Guest(guest) => self.guest(unit, guest, progress, stop),
                Work::Model(work) => self.model(unit, work, progress).map(|()| None),
            }
            .with_context(|| format!("in {}", unit.name))
        };
        // Interrupted is a kind of its own, and is told as such.
        let work = |unit: &&Unit, stop: &dyn Fn() -> bool| {
            crate::child::check_interrupted()?;
            work(unit, stop)
        };
        Ok(probe::in_order(units, self.at_once, work, |_| false)?.into_iter().flatten().collect())
    }

    /// Waits until so many threads are free; a unit with more than there are gets all.
    fn wait_for(&self, threads: usize) -> Threads<'_, 'f> {
        let count = threads.min(self.at_once);
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        while *free < count {
            free = self.freed.wait(free).unwrap_or_else(PoisonError::into_inner);
        }
        *free -= count;
        Threads { runner: self, count }
    }

    /// Has the simulated machine explore.
    fn model(&self, unit: &Unit, work: &ModelWork, progress: &Progress) -> anyhow::Result<()> {
        let program = self.machines.model.as_deref().context("the simulated machine was not made ready")?;
        work.run(unit, program, self.folder)?;
        progress.cells(unit, unit.cells());
        Ok(())
    }

    /// Runs a guest, or two; a kernel that failed by itself is an answer.
    fn guest(
        &self,
        unit: &Unit,
        guest: &GuestWork,
        progress: &Progress,
        stop: &dyn Fn() -> bool,
    ) -> anyhow::Result<Option<String>> {
        let qemu = self.machines.qemus.iter().find(|(arch, _)| *arch == guest.arch).map(|(_, qemu)| qemu);
        let qemu = qemu.with_context(|| format!("nothing was made ready for {}", guest.arch.name()))?;
        let mut log = Vec::new();
        let mut instructions: HashMap<&'static str, f64> = HashMap::new();
        let mut gaps: HashMap<&'static str, Gap> = HashMap::new();
        let mut rows = Vec::new();
        for &kind in guest.kinds() {
            let mut cells = Vec::new();
            let started = Guest::start(guest.launch(kind, qemu.path.clone()))?;
            let result = started.supervise(Some(self.patience), stop, &mut |cell, profile| {
                cells.push((cell, profile));
                if kind == Kind::Checking {
                    progress.cells(unit, 1);
                }
            });
            match result {
                Ok(report) => log.extend(report.log.into_iter().map(|line| format!("{}| {line}", kind.name()))),
                Err(error) => {
                    let fault = error.downcast::<KernelFault>()?;
                    log.push(format!("{}| {fault}", kind.name()));
                    self.folder.log(unit, &log)?;
                    return Ok(Some(format!("{}: {}", unit.name, fault.sentence())));
                }
            }
            for (cell, profile) in cells {
                let row = Row { profile, ..Row::resolve(guest.arch, cell)? };
                match kind {
                    Kind::Checking => rows.push(row),
                    Kind::Plain if row.has_bystander() => drop(gaps.insert(row.workload, Gap::of(&row.cell))),
                    Kind::Plain => {
                        let measured = row.per_op(row.cell.instructions).filter(|n| *n > 0.0);
                        instructions.extend(measured.map(|n| (row.workload, n)));
                    }
                }
            }
        }
        let setting = Setting {
            cpus: guest.cpus,
            ops: guest.suite.ops,
            seed: guest.suite.seed,
            engine: guest.suite.engine.name(),
            qemu: qemu.version.to_string(),
        };
        let records = rows.into_iter().map(|row| {
            let gap = gaps.get(row.workload).copied().filter(|_| row.has_bystander());
            let row = Row { instructions_per_op: instructions.get(row.workload).copied(), gap, ..row };
            record(&row, &setting, guest)
        });
        self.folder.log(unit, &log)?;
        self.folder.keep(unit, &records.collect::<anyhow::Result<Vec<_>>>()?)?;
        Ok(None)
    }
}

/// A row with what an experiment varies beyond it.
fn record(row: &Row, setting: &Setting, guest: &GuestWork) -> anyhow::Result<Record> {
    let mut record: Record = serde_json::from_str(&row.json(setting)?)?;
    record.insert("repetition".to_owned(), json!(guest.repetition));
    record.insert("without".to_owned(), json!(guest.suite.without.join(",")));
    record.insert("inject".to_owned(), json!(guest.suite.inject.join(",")));
    Ok(record)
}
