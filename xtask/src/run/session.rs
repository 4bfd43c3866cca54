//! What lives from the first row of a run to its verdict.

use std::time::Duration;

use kernel::record::cell::CellRow;

use crate::arch::Arch;
use crate::error::Outcome;
use crate::guest::Report;
use crate::guests::{Job, Observer};
use crate::output;
use crate::progress::Cells;
use crate::report;
use crate::results_file::ResultsFile;
use crate::rows::{Row, SCHEMA, Setting, Summary};
use crate::shared_memory::CpuEvents;
use crate::trace::{Recording, Trace};
use crate::violation;

/// What lives from the first row to the verdict.
pub(super) struct Session {
    pub(super) setting: Option<Setting>,
    pub(super) results: Option<ResultsFile>,
    pub(super) trace: Option<Trace>,
    pub(super) verbose: bool,
    pub(super) bar: Option<Cells>,
    /// The latest first output of any guest.
    pub(super) first_output: Option<Duration>,
}

impl Observer for Session {
    fn row(&mut self, row: &Row) -> anyhow::Result<()> {
        match (&mut self.results, &self.setting) {
            (Some(results), Some(setting)) => results.add(row, setting),
            _ => Ok(()),
        }
    }

    fn cell(&mut self, row: &Row) {
        if let Some(bar) = &self.bar {
            bar.one_more(violation::heading(row));
        }
    }

    fn wants_events(&self) -> bool {
        self.trace.is_some()
    }

    fn events(&mut self, number: usize, job: &Job, cells: &[CellRow], events: Vec<CpuEvents>) {
        let Some(trace) = &mut self.trace else { return };
        trace.add(number, Recording::of(&job.launch, cells, events));
    }

    fn ended(&mut self, job: &Job, report: &Report) {
        let strategy = job.launch.command_line.split(' ').next().unwrap_or_default();
        let name = format!("{} {} {strategy}", job.launch.arch.name(), job.kind.name());
        if self.verbose {
            report.log.iter().for_each(|line| eprintln!("{name}| {line}"));
        }
        self.first_output = self.first_output.max(report.first_output);
        let first = report.first_output.map_or("none".into(), |t| format!("{} ms", t.as_millis()));
        if self.verbose {
            eprintln!("{name}: {:.2} s, first output after {first}", report.took.as_secs_f64());
        }
    }
}

impl Session {
    pub(super) fn finish(mut self, rows: anyhow::Result<Vec<Row>>, archs: &[Arch]) -> anyhow::Result<Outcome> {
        // Before anything else: what a guest did that failed is wanted most.
        let traced = self.trace.take().map_or(Ok(()), Trace::finish);
        let (rows, setting) = match (rows, self.setting.take()) {
            (Ok(rows), Some(setting)) => (rows, setting),
            (Ok(_), None) => anyhow::bail!("nothing was run"),
            (Err(error), _) => {
                if let Some(kept) = self.results.and_then(ResultsFile::abandon) {
                    eprintln!("run: it did not finish; {kept}");
                }
                return Err(error);
            }
        };
        let unexpected = rows.iter().filter(|r| r.is_unexpected()).count();
        let printed = output::print(&report::text(&rows, archs, &setting));
        if let Some(results) = self.results {
            results.finish(&Summary {
                schema: SCHEMA,
                summary: true,
                rows: rows.len(),
                unexpected,
                archs: archs.iter().map(|a| a.name()).collect(),
                cpus: setting.cpus,
                ops: setting.ops,
                seed: setting.seed,
                engine: setting.engine,
            })?;
        }
        printed?;
        traced?;
        Ok(if unexpected == 0 { Outcome::Expected } else { Outcome::Unexpected })
    }
}
