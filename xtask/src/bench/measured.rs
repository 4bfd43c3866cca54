//! What was measured: rows of guests as instructions of one operation, walk or message, each beside what it is compared
//! with.

use serde::Serialize;

use super::others::{LINUX, linux_null_call};
use super::{IPC, What, YARDSTICK};
use crate::arch::Arch;
use crate::linux::Reference;
use crate::rows::{Row, SCHEMA};

/// What a walk is to cost: the first page, and each further one.
const AIM: (u64, u64) = (120, 25);

/// One measured number.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub(super) struct Measured {
    pub(super) schema: u32,
    pub(super) bench: &'static str,
    #[serde(serialize_with = "by_name")]
    pub(super) arch: Arch,
    pub(super) strategy: &'static str,
    /// The workload, or how many pages a walk asked for.
    pub(super) subject: String,
    pub(super) instructions: f64,
    /// Ratios, each to what its name says.
    #[serde(serialize_with = "as_object")]
    pub(super) ratios: Vec<(String, f64)>,
}

fn by_name<S: serde::Serializer>(arch: &Arch, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(arch.name())
}

fn as_object<S: serde::Serializer>(ratios: &[(String, f64)], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(ratios.iter().map(|(name, ratio)| (name, ratio)))
}

impl Measured {
    /// Under which name it is kept.
    pub(super) fn key(&self) -> String {
        format!("{} {} {} {}", self.bench, self.arch.name(), self.strategy, self.subject)
    }
}

/// Instructions per operation, each against Linux.
pub(super) fn operations(rows: &[Row], linux: &Reference) -> Vec<Measured> {
    let measured = |row: &Row| {
        let instructions = row.per_op(row.cell.instructions).filter(|n| *n > 0.0)?;
        let ratio = |kernel: &str| {
            let theirs = linux.instructions_of(kernel, row.arch, row.workload)?;
            Some((format!("Linux {kernel}"), instructions / theirs as f64))
        };
        Some(Measured {
            schema: SCHEMA,
            bench: What::Ops.name(),
            arch: row.arch,
            strategy: row.strategy,
            subject: row.workload.into(),
            instructions,
            ratios: LINUX.into_iter().filter_map(ratio).collect(),
        })
    };
    rows.iter().filter_map(measured).collect()
}

/// Instructions of each of [`IPC`]: what a long run takes more than a short one, by how much longer it is; each against
/// what it is to cost, and against Linux's null system call.
pub(super) fn messages(rows: &[Row]) -> anyhow::Result<Vec<Measured>> {
    let mut all = Vec::new();
    let longest = rows.iter().map(|row| row.cell.ops).max().unwrap_or(0);
    for long in rows.iter().filter(|row| row.cell.ops == longest) {
        let same = |r: &&Row| (r.arch, r.strategy, r.workload) == (long.arch, long.strategy, long.workload);
        let Some(short) = rows.iter().filter(same).find(|r| r.cell.ops < longest) else { continue };
        for row in [short, long] {
            let (status, name, arch) = (row.cell.program_status, row.workload, row.arch.name());
            anyhow::ensure!(status == 0, "{name} on {arch} ended with status {status:#x}");
        }
        let more = long.cell.instructions.saturating_sub(short.cell.instructions);
        let instructions = more as f64 / (longest - short.cell.ops) as f64;
        let aim = IPC.iter().find(|(name, _)| *name == long.workload).and_then(|(_, aim)| *aim);
        let mut ratios: Vec<_> = aim.map(|aim| ("aim".to_owned(), instructions / aim)).into_iter().collect();
        if long.workload == IPC[0].0 {
            let linux = LINUX.iter().zip(linux_null_call(long.arch));
            ratios.extend(linux.map(|(kernel, cost)| (format!("Linux {kernel}"), instructions / f64::from(cost))));
        }
        all.push(Measured {
            schema: SCHEMA,
            bench: What::Ipc.name(),
            arch: long.arch,
            strategy: long.strategy,
            subject: long.workload.into(),
            instructions,
            ratios,
        });
    }
    Ok(all)
}

/// Instructions per walk, each against that of [`YARDSTICK`].
pub(super) fn walks(rows: &[Row]) -> anyhow::Result<Vec<Measured>> {
    let asked = |row: &Row| row.cell.pages / row.cell.walks.max(1);
    let cost = |row: &Row| row.cell.instructions as f64 / row.cell.walks.max(1) as f64;
    let mut all = Vec::new();
    for row in rows {
        let pages = asked(row);
        anyhow::ensure!(
            kernel::workload::bench::PAGES.contains(&(pages as usize)),
            "a walk of {} under {} returned {pages} pages: it did not get what it asked for",
            row.arch.name(),
            row.strategy
        );
        let same = |r: &&Row| r.arch == row.arch && r.strategy == YARDSTICK && asked(r) == pages;
        let yardstick = rows.iter().find(same).map(cost);
        let aim = (AIM.0 + AIM.1 * (pages - 1)) as f64;
        let to_yardstick = yardstick.map(|y| (YARDSTICK.to_owned(), cost(row) / y));
        all.push(Measured {
            schema: SCHEMA,
            bench: What::Walk.name(),
            arch: row.arch,
            strategy: row.strategy,
            subject: pages.to_string(),
            instructions: cost(row),
            ratios: to_yardstick.into_iter().chain([("aim".to_owned(), cost(row) / aim)]).collect(),
        });
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::tests::cell;
    use kernel::record::cell::CellRow;
    use kernel::suite::Mode;

    #[test]
    fn operations_are_compared_with_both_versions_of_linux() {
        let record = CellRow { instructions: 64 * 54_550, ..cell(1, 0, Mode::Idle) };
        let row = Row::resolve(Arch::X86_64, record).unwrap();
        let measured = operations(&[row], &Reference::load());
        let names: Vec<&str> = measured[0].ratios.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["Linux 6.12", "Linux 7.3"]);
        assert!((measured[0].ratios[0].1 - 0.1).abs() < 0.001);
    }
}
