//! Running units: side by side, within the machine's cores; each leaves its rows and its log in the folder, or nothing.

use std::collections::HashMap;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use serde_json::json;

use super::folder::Folder;
use super::plan::Unit;
use super::progress::Progress;
use crate::arch::Arch;
use crate::build::Kind;
use crate::guest::{Guest, KernelFault};
use crate::probe;
use crate::records::Record;
use crate::rows::{Row, Setting};
use crate::setup::Qemu;

/// Where units run.
pub(crate) struct Runner<'f> {
    folder: &'f Folder,
    qemus: &'f [(Arch, Qemu)],
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
    pub(crate) fn new(folder: &'f Folder, qemus: &'f [(Arch, Qemu)], at_once: usize, patience: Duration) -> Runner<'f> {
        Runner { folder, qemus, at_once, patience, free: Mutex::new(at_once), freed: Condvar::new() }
    }

    /// Runs `units`; returns how kernels failed, a sentence each. Whatever else fails ends it.
    pub(crate) fn run(&self, units: &[&Unit], progress: &Progress) -> anyhow::Result<Vec<String>> {
        let work = |unit: &&Unit, stop: &dyn Fn() -> bool| {
            let _threads = self.wait_for(unit.threads());
            self.one(unit, progress, stop).with_context(|| format!("in {}", unit.name))
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

    /// Runs one unit; a kernel that failed by itself is an answer.
    fn one(&self, unit: &Unit, progress: &Progress, stop: &dyn Fn() -> bool) -> anyhow::Result<Option<String>> {
        let qemu = self.qemus.iter().find(|(arch, _)| *arch == unit.arch).map(|(_, qemu)| qemu);
        let qemu = qemu.with_context(|| format!("nothing was made ready for {}", unit.arch.name()))?;
        let mut log = Vec::new();
        let mut instructions: HashMap<&'static str, f64> = HashMap::new();
        let mut gaps: HashMap<&'static str, u64> = HashMap::new();
        let mut rows = Vec::new();
        for &kind in unit.kinds() {
            let mut cells = Vec::new();
            let guest = Guest::start(unit.launch(kind, qemu.path.clone()))?;
            let result = guest.supervise(Some(self.patience), stop, &mut |cell, profile| {
                cells.push((cell, profile));
                if kind == Kind::Checking {
                    progress.cell(unit);
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
                let row = Row { profile, ..Row::resolve(unit.arch, cell)? };
                match kind {
                    Kind::Checking => rows.push(row),
                    Kind::Plain if row.has_bystander() => drop(gaps.insert(row.workload, row.cell.bystander_gap)),
                    Kind::Plain => {
                        let measured = row.per_op(row.cell.instructions).filter(|n| *n > 0.0);
                        instructions.extend(measured.map(|n| (row.workload, n)));
                    }
                }
            }
        }
        let setting = Setting {
            cpus: unit.cpus,
            ops: unit.suite.ops,
            seed: unit.suite.seed,
            engine: unit.suite.engine.name(),
            qemu: qemu.version.to_string(),
        };
        let records = rows.into_iter().map(|row| {
            let longest_gap = gaps.get(row.workload).copied().filter(|_| row.has_bystander());
            let row = Row { instructions_per_op: instructions.get(row.workload).copied(), longest_gap, ..row };
            record(&row, &setting, unit)
        });
        self.folder.log(unit, &log)?;
        self.folder.keep(unit, &records.collect::<anyhow::Result<Vec<_>>>()?)?;
        Ok(None)
    }
}

/// A row with what an experiment varies beyond it.
fn record(row: &Row, setting: &Setting, unit: &Unit) -> anyhow::Result<Record> {
    let mut record: Record = serde_json::from_str(&row.json(setting)?)?;
    record.insert("repetition".to_owned(), json!(unit.repetition));
    record.insert("without".to_owned(), json!(unit.suite.without.join(",")));
    record.insert("inject".to_owned(), json!(unit.suite.inject.join(",")));
    Ok(record)
}
