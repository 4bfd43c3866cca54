//! One row of results: from the guest's record to names and numbers, and to its JSON object.

use anyhow::{Context, anyhow};
use kernel::record::cell::{CellRow, Verdict, ViolationKind};
use kernel::suite::{Mode, Named};
use kernel::workload::WorkloadId;
use kernel::workload::walker::WalkerClass;
use serde::Serialize;

use crate::arch::Arch;
use crate::engines;
use crate::profile::{Profile, Summary as InNumbers};
use crate::records::condition::{KERNEL, PROGRAMS};

/// Version of the JSON objects.
pub(crate) const SCHEMA: u32 = 1;

/// A row with its numbers resolved.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    /// Where it ran.
    pub(crate) arch: Arch,
    /// Name of the strategy.
    pub(crate) strategy: &'static str,
    /// Name of the workload.
    pub(crate) workload: &'static str,
    /// Name of the mode.
    pub(crate) mode: &'static str,
    /// Name of the transport.
    pub(crate) transport: &'static str,
    /// Name of the class of walkers.
    pub(crate) walker: &'static str,
    /// What was to come out.
    pub(crate) expected: Verdict,
    /// What came out.
    pub(crate) verdict: Verdict,
    /// Instructions per operation, from the plain image.
    pub(crate) instructions_per_op: Option<f64>,
    /// How long the bystander was kept from its loop, or its periodic thread took to run, from the plain image.
    pub(crate) gap: Option<Gap>,
    /// What was recorded of it beside the counts, if that was asked for.
    pub(crate) profile: Option<Profile>,
    /// The guest's record.
    pub(crate) cell: CellRow,
}

/// How long the bystander was kept from its loop, or its periodic thread took to run, in instructions.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Gap {
    /// The longest.
    pub(crate) longest: u64,
    /// Of the thread: how often it was measured, the least, the median.
    pub(crate) times: u64,
    pub(crate) least: u64,
    pub(crate) median: u64,
}

impl Gap {
    /// What a guest's record says of it.
    pub(crate) fn of(cell: &CellRow) -> Gap {
        let [times, least, median] = cell.latencies;
        Gap { longest: cell.bystander_gap, times, least, median }
    }
}

/// What is the same for all rows of a run.
#[derive(Clone, Debug)]
pub(crate) struct Setting {
    /// CPUs of each machine.
    pub(crate) cpus: u32,
    /// Operations of each cell.
    pub(crate) ops: u64,
    /// Seed of the schedule.
    pub(crate) seed: u64,
    /// Name of the engine.
    pub(crate) engine: &'static str,
    /// Version of QEMU.
    pub(crate) qemu: String,
}

impl Row {
    /// Resolves the numbers of a guest's record.
    pub(crate) fn resolve(arch: Arch, cell: CellRow) -> anyhow::Result<Row> {
        let verdict = |n: u8| Verdict::from_number(n).ok_or_else(|| anyhow!("the guest wrote verdict number {n}"));
        Ok(Row {
            arch,
            strategy: name(kernel::sync::NAMES, cell.strategy, "strategy")?,
            workload: WorkloadId::name_of(cell.workload)
                .ok_or_else(|| anyhow!("the guest wrote workload number {}", cell.workload))?,
            mode: Mode::name_of(cell.mode).ok_or_else(|| anyhow!("the guest wrote mode number {}", cell.mode))?,
            transport: name(kernel::tlb::transport::NAMES, cell.transport, "transport")?,
            walker: name(WalkerClass::NAMES, cell.walker as u16, "walker")?,
            expected: verdict(cell.expected)?,
            verdict: verdict(cell.verdict)?,
            instructions_per_op: None,
            gap: None,
            profile: None,
            cell,
        })
    }

    /// A count per operation; nothing where no operation was done.
    pub(crate) fn per_op(&self, count: u64) -> Option<f64> {
        (self.cell.ops > 0).then(|| count as f64 / self.cell.ops as f64)
    }

    /// Whether the verdict or a count is not what it was to be.
    pub(crate) fn is_unexpected(&self) -> bool {
        self.verdict != self.expected || self.cell.miscounted != 0
    }

    /// The kind of the first violation, if there is one.
    pub(crate) fn violation(&self) -> Option<ViolationKind> {
        ViolationKind::from_number(self.cell.first.kind)
    }

    /// The JSON object, on one line.
    pub(crate) fn json(&self, setting: &Setting) -> anyhow::Result<String> {
        let cell = &self.cell;
        let beside = engines::beside(self);
        let periodic = self.gap.filter(|_| self.has_periodic_thread());
        let object = JsonRow {
            schema: SCHEMA,
            arch: self.arch.name(),
            cpus: cell.cpus,
            transport: self.transport,
            strategy: self.strategy,
            hook: cell.hook != 0,
            workload: self.workload,
            mode: self.mode,
            seed: setting.seed,
            ops: cell.ops,
            flush_ipis_per_op: self.per_op(cell.flush_ipis),
            sync_ipis_per_op: self.per_op(cell.sync_ipis),
            syncs_elided_per_op: self.per_op(cell.syncs_elided),
            redundant_sync_ipis_per_op: self.per_op(cell.redundant_sync_ipis),
            missing_syncs_per_op: self.per_op(cell.missing_syncs),
            tlbi_per_op: self.per_op(cell.tlbi),
            instructions_per_op: self.instructions_per_op,
            walks: cell.walks,
            violations: cell.violations_ghost + cell.violations_value,
            expected: self.expected.name(),
            verdict: self.verdict.name(),
            qemu: &setting.qemu,
            engine: setting.engine,
            oracle: kernel::oracle::VERSION,
            walker: self.walker,
            promised: Verdict::from_number(self.cell.promised as u8).map_or("-", Verdict::name),
            by: if self.is_of_programs() { PROGRAMS } else { KERNEL },
            vectors_per_op: self.per_op(cell.vectors),
            pages: cell.pages,
            violations_by_state: cell.violations_ghost,
            violations_observed: cell.violations_value,
            predicted_flush_ipis_per_op: self.predicted_per_op(cell.predicted_flush),
            predicted_sync_ipis_per_op: self.predicted_per_op(cell.predicted_sync),
            predicted_syncs_elided_per_op: self.predicted_per_op(cell.predicted_elided),
            predicted_tlbi_per_op: self.predicted_per_op(cell.predicted_tlbi),
            bystander_flush_ipis_per_op: self.of_bystander(cell.bystander_flush),
            bystander_sync_ipis_per_op: self.of_bystander(cell.bystander_sync),
            bystander_nmis_per_op: self.of_bystander(cell.bystander_nmi),
            predicted_bystander_sync_ipis_per_op: self.of_bystander(cell.predicted_bystander),
            bystander_longest_gap: self.gap.map(|gap| gap.longest),
            periodic_runs: periodic.map(|gap| gap.times),
            periodic_least: periodic.map(|gap| gap.least),
            periodic_median: periodic.map(|gap| gap.median),
            miscounted: cell.miscounted != 0,
            holders_not_waited_for: cell.uncovered,
            seeds: (cell.seeds > 1).then_some(cell.seeds),
            sim_verdict: beside.map(|(verdict, _)| verdict.name()),
            sim_differs: beside.and_then(|(_, why)| why),
            program_status: self.is_of_programs().then_some(cell.program_status),
            user: self.is_of_programs().then_some(true),
            first_violation: self.violation().map(|_| crate::violation::in_words(self)),
            in_numbers: self.profile.as_ref().map(Profile::summary),
            profile: self.profile.as_ref(),
        };
        serde_json::to_string(&object).context("a row cannot be written as JSON")
    }

    /// A count of the bystander's, or a prediction of one, per operation; nothing in modes that have none.
    pub(crate) fn of_bystander(&self, count: u64) -> Option<f64> {
        if self.has_bystander() { self.predicted_per_op(count) } else { None }
    }

    /// Whether a CPU stands by: in mode `isolated` one that spins, in a workload of programs one that has a thread of
    /// its own.
    pub(crate) fn has_bystander(&self) -> bool {
        (self.cell.mode == Mode::Isolated as u16 || self.has_periodic_thread()) && self.cell.cpus > 1
    }

    /// Whether programs, who meet by chance, met no violation of a strategy that promises nothing on the transport:
    /// that is no proof of anything.
    pub(crate) fn met_nothing(&self) -> bool {
        self.is_of_programs() && self.verdict == Verdict::Safe && self.cell.promised == Verdict::Unsafe as u64
    }

    /// Whether programs in user mode did it.
    pub(crate) fn is_of_programs(&self) -> bool {
        self.cell.user != 0
    }

    /// Whether the CPU that stands by runs a periodic thread.
    pub(crate) fn has_periodic_thread(&self) -> bool {
        self.cell.workload == WorkloadId::RtBystander as u16
    }

    /// A prediction per operation; nothing where none was made.
    pub(crate) fn predicted_per_op(&self, count: u64) -> Option<f64> {
        if count == u64::MAX { None } else { self.per_op(count) }
    }
}

fn name(names: &[Named], index: u16, kind: &str) -> anyhow::Result<&'static str> {
    names.get(index as usize).map(|(name, _)| *name).ok_or_else(|| anyhow!("the guest wrote {kind} number {index}"))
}

/// The object of one row. The first 22 keys are the format that users rely on, in this order; more follow.
#[derive(Serialize)]
struct JsonRow<'a> {
    schema: u32,
    arch: &'a str,
    cpus: u32,
    transport: &'a str,
    strategy: &'a str,
    hook: bool,
    workload: &'a str,
    mode: &'a str,
    seed: u64,
    ops: u64,
    flush_ipis_per_op: Option<f64>,
    sync_ipis_per_op: Option<f64>,
    syncs_elided_per_op: Option<f64>,
    redundant_sync_ipis_per_op: Option<f64>,
    missing_syncs_per_op: Option<f64>,
    tlbi_per_op: Option<f64>,
    instructions_per_op: Option<f64>,
    walks: u64,
    violations: u64,
    expected: &'a str,
    verdict: &'a str,
    qemu: &'a str,
    engine: &'a str,
    oracle: u32,
    walker: &'a str,
    /// What the strategy promises on the transport, whatever the workload can show of it.
    promised: &'a str,
    by: &'a str,
    vectors_per_op: Option<f64>,
    pages: u64,
    violations_by_state: u64,
    violations_observed: u64,
    predicted_flush_ipis_per_op: Option<f64>,
    predicted_sync_ipis_per_op: Option<f64>,
    predicted_syncs_elided_per_op: Option<f64>,
    predicted_tlbi_per_op: Option<f64>,
    bystander_flush_ipis_per_op: Option<f64>,
    bystander_sync_ipis_per_op: Option<f64>,
    bystander_nmis_per_op: Option<f64>,
    predicted_bystander_sync_ipis_per_op: Option<f64>,
    bystander_longest_gap: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    periodic_runs: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    periodic_least: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    periodic_median: Option<u64>,
    miscounted: bool,
    holders_not_waited_for: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    seeds: Option<u64>,
    /// The simulated machine's verdict for the same cell, and what the one engine has and the other has not, where they
    /// differ.
    #[serde(skip_serializing_if = "Option::is_none")]
    sim_verdict: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sim_differs: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    program_status: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    first_violation: Option<String>,
    #[serde(flatten)]
    in_numbers: Option<InNumbers>,
    #[serde(skip_serializing_if = "Option::is_none")]
    profile: Option<&'a Profile>,
}

/// The last object of a results file.
#[derive(Serialize)]
pub(crate) struct Summary<'a> {
    /// [`SCHEMA`].
    pub(crate) schema: u32,
    /// True.
    pub(crate) summary: bool,
    /// Rows before this object.
    pub(crate) rows: usize,
    /// Rows that are not as expected.
    pub(crate) unexpected: usize,
    /// Architectures, in the order of the rows.
    pub(crate) archs: Vec<&'a str>,
    /// CPUs of each machine.
    pub(crate) cpus: u32,
    /// Operations per row that were asked for.
    pub(crate) ops: u64,
    /// Seed of the schedule.
    pub(crate) seed: u64,
    /// Name of the engine.
    pub(crate) engine: &'a str,
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn setting() -> Setting {
        Setting { cpus: 4, ops: 64, seed: 7, engine: "icount", qemu: "7.2.22".into() }
    }

    pub(crate) fn cell(strategy: u16, workload: u16, mode: Mode) -> CellRow {
        CellRow {
            strategy,
            workload,
            mode: mode as u16,
            cpus: 4,
            ops: 64,
            predicted_flush: u64::MAX,
            predicted_sync: u64::MAX,
            predicted_elided: u64::MAX,
            predicted_tlbi: u64::MAX,
            predicted_bystander: u64::MAX,
            ..CellRow::default()
        }
    }

    #[test]
    fn the_keys_of_the_format_come_first_and_in_order() {
        let mut row =
            Row::resolve(Arch::Aarch64, CellRow { transport: 1, hook: 1, ..cell(2, 6, Mode::Contend) }).unwrap();
        row.cell.sync_ipis = 192;
        row.cell.flush_ipis = 216;
        let json = row.json(&setting()).unwrap();
        let start = "{\"schema\":1,\"arch\":\"aarch64\",\"cpus\":4,\"transport\":\"broadcast\",\
                     \"strategy\":\"static-hook\",\"hook\":true,\"workload\":\"collapse_anon\",\"mode\":\"contend\",\
                     \"seed\":7,\"ops\":64,\"flush_ipis_per_op\":3.375,\"sync_ipis_per_op\":3.0,\
                     \"syncs_elided_per_op\":0.0,\"redundant_sync_ipis_per_op\":0.0,\"missing_syncs_per_op\":0.0,\
                     \"tlbi_per_op\":0.0,\"instructions_per_op\":null,\"walks\":0,\"violations\":0,\
                     \"expected\":\"safe\",\"verdict\":\"safe\",\"qemu\":\"7.2.22\",";
        assert!(json.starts_with(start), "{json}");
        assert!(!json.contains('\n'));
        serde_json::from_str::<serde_json::Value>(&json).unwrap();
    }

    #[test]
    fn a_row_without_operations_has_no_counts() {
        let row =
            Row::resolve(Arch::X86_64, CellRow { ops: 0, verdict: 2, expected: 2, ..cell(0, 0, Mode::Same) }).unwrap();
        let json = row.json(&setting()).unwrap();
        assert!(json.contains("\"flush_ipis_per_op\":null") && json.contains("\"verdict\":\"refused\""));
        assert!(!row.is_unexpected());
    }

    #[test]
    fn a_number_without_a_name_is_an_error() {
        assert!(Row::resolve(Arch::X86_64, cell(99, 0, Mode::Same)).is_err());
        assert!(Row::resolve(Arch::X86_64, CellRow { verdict: 9, ..cell(0, 0, Mode::Same) }).is_err());
    }

    #[test]
    fn a_wrong_verdict_and_a_wrong_count_are_unexpected() {
        let row = |c| Row::resolve(Arch::X86_64, c).unwrap().is_unexpected();
        assert!(row(CellRow { verdict: 1, ..cell(0, 0, Mode::Same) }));
        assert!(row(CellRow { miscounted: 1, ..cell(0, 0, Mode::Same) }));
        assert!(!row(CellRow { verdict: 1, expected: 1, ..cell(0, 0, Mode::Same) }));
    }
}
