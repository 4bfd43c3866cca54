//! One row of what Linux did: its JSON object, and its line in the table beside what was recorded and what the source
//! says.

use kernel::suite::Mode;
use serde::Serialize;

use crate::arch::Arch;
use crate::linux::reference::{Reference, Rounds};
use crate::rows::SCHEMA;
use crate::table::{count, grouped};

/// Rounds per operation that background work of Linux may add or take away before a count is called different. It is
/// less than the smallest difference that an operation makes, one round in a batch of eight.
pub(crate) const BACKGROUND: f64 = 0.1;
/// The same where the other CPUs are idle: Linux wakes an idle CPU by a function call, and MADV_COLLAPSE queues work on
/// every CPU whose lists of recently used pages are not empty. Less than one round, which is what a sync makes.
const BACKGROUND_IDLE: f64 = 0.5;

/// What is the same for all rows of a run.
#[derive(Clone, Debug)]
pub(crate) struct Setting {
    /// Where it ran.
    pub(crate) arch: Arch,
    /// CPUs of the machine.
    pub(crate) cpus: u32,
    /// Release of the kernel.
    pub(crate) kernel: String,
    /// Where the kernel came from.
    pub(crate) origin: String,
    /// Name of the engine.
    pub(crate) engine: &'static str,
    /// Whether the engine counts instructions.
    pub(crate) counts_instructions: bool,
    /// Version of QEMU.
    pub(crate) qemu: String,
}

/// One cell.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Row {
    /// Name of the workload.
    pub(crate) workload: String,
    /// Name of the mode.
    pub(crate) mode: String,
    /// Operations.
    pub(crate) ops: u64,
    /// Flush interrupts of all operations, in targets.
    pub(crate) flush: u64,
    /// Sync interrupts, and what else called functions on other CPUs.
    pub(crate) sync: u64,
    /// Rescheduling interrupts.
    pub(crate) reschedule: u64,
    /// Walks of the other CPUs in the whole cell.
    pub(crate) walks: u64,
    /// Batches that were done again.
    pub(crate) repeated: u64,
    /// Instructions of all CPUs per operation, in the best batch, where other CPUs are idle and the engine counts.
    pub(crate) instructions_per_op: Option<f64>,
}

/// The object of one row: the keys of our own rows first, in their order; null where there is nothing to say of Linux.
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
    seed: Option<u64>,
    ops: u64,
    flush_ipis_per_op: f64,
    sync_ipis_per_op: f64,
    syncs_elided_per_op: Option<f64>,
    redundant_sync_ipis_per_op: Option<f64>,
    missing_syncs_per_op: Option<f64>,
    tlbi_per_op: Option<f64>,
    instructions_per_op: Option<f64>,
    walks: u64,
    violations: Option<u64>,
    expected: Option<&'a str>,
    verdict: Option<&'a str>,
    qemu: &'a str,
    engine: &'a str,
    kernel: &'a str,
    package: &'a str,
    reschedule_ipis_per_op: f64,
    predicted_flush_ipis_per_op: Option<f64>,
    predicted_sync_ipis_per_op: Option<f64>,
    repeated_batches: u64,
}

impl Row {
    fn per_op(&self, n: u64) -> f64 {
        n as f64 / self.ops as f64
    }

    /// Targets of one operation.
    pub(crate) fn targets(&self) -> Rounds {
        Rounds { flush: self.per_op(self.flush), sync: self.per_op(self.sync) }
    }

    /// The JSON object, on one line.
    pub(crate) fn json<'a>(&'a self, setting: &'a Setting, reference: &Reference) -> impl Serialize + use<'a> {
        let predicted = predicted(setting.arch, &self.mode, &self.workload, setting.cpus, reference);
        JsonRow {
            schema: SCHEMA,
            arch: setting.arch.name(),
            cpus: setting.cpus,
            transport: setting.arch.native_transport(),
            strategy: "linux",
            hook: false,
            workload: &self.workload,
            mode: &self.mode,
            seed: None,
            ops: self.ops,
            flush_ipis_per_op: self.per_op(self.flush),
            sync_ipis_per_op: self.per_op(self.sync),
            syncs_elided_per_op: None,
            redundant_sync_ipis_per_op: None,
            missing_syncs_per_op: None,
            tlbi_per_op: None,
            instructions_per_op: self.instructions_per_op,
            walks: self.walks,
            violations: None,
            expected: None,
            verdict: None,
            qemu: &setting.qemu,
            engine: setting.engine,
            kernel: &setting.kernel,
            package: &setting.origin,
            reschedule_ipis_per_op: self.per_op(self.reschedule),
            predicted_flush_ipis_per_op: predicted.map(|p| p.flush),
            predicted_sync_ipis_per_op: predicted.map(|p| p.sync),
            repeated_batches: self.repeated,
        }
    }
}

/// Targets of one operation by the source of Linux: flushes interrupt on x86_64 only, and only CPUs that run the mm.
pub(crate) fn predicted(arch: Arch, mode: &str, workload: &str, cpus: u32, reference: &Reference) -> Option<Rounds> {
    let all = reference.prediction(workload)?;
    let runs_the_mm = [Mode::Same, Mode::Spin].iter().any(|m| Mode::NAMES[*m as usize].0 == mode);
    let others = f64::from(cpus - 1);
    let flush = if arch == Arch::X86_64 && runs_the_mm { all.flush * others } else { 0.0 };
    Some(Rounds { flush, sync: all.sync * others })
}

/// Whether two numbers of targets differ by more than background work explains.
pub(crate) fn differs(a: Rounds, b: Rounds, mode: &str, cpus: u32) -> bool {
    let idle = mode == Mode::NAMES[Mode::Idle as usize].0;
    let allowed = if idle { BACKGROUND_IDLE } else { BACKGROUND } * f64::from(cpus.max(2) - 1);
    (a.flush - b.flush).abs() > allowed || (a.sync - b.sync).abs() > allowed
}

/// The table of one machine, and how many of its rows are not what the source says.
pub(crate) fn table(setting: &Setting, rows: &[Row], reference: &Reference) -> (String, usize) {
    let mut out = format!(
        "{}: Linux {}, {} CPUs, {}; targets per operation, flush/sync, from /proc/interrupts\n\n",
        setting.arch.name(),
        setting.kernel,
        setting.cpus,
        setting.engine
    );
    let line = |cells: [&str; 8]| {
        let [workload, mode, live, recorded, source, walks, instructions, note] = cells;
        let text = format!(
            "{workload:24} {mode:5}  {live:>13}  {recorded:>11}  {source:>11}  {walks:>9}  {instructions:>11}  {note}"
        );
        format!("{}\n", text.trim_end())
    };
    out += &line(["workload", "mode", "measured", "recorded", "by source", "walks", "instr/op", ""]);
    let pair = |r: Rounds| format!("{}/{}", count(r.flush), count(r.sync));
    let mut wrong = 0;
    for row in rows {
        let recorded = reference.recorded(&setting.kernel, setting.arch, &row.workload, &row.mode, setting.cpus);
        let source = predicted(setting.arch, &row.mode, &row.workload, setting.cpus, reference);
        let different = source.is_some_and(|s| differs(row.targets(), s, &row.mode, setting.cpus));
        wrong += usize::from(different);
        let or_dash = |r: Option<Rounds>| r.map_or("-".into(), pair);
        out += &line([
            &row.workload,
            &row.mode,
            &pair(row.targets()),
            &or_dash(recorded),
            &or_dash(source),
            &grouped(row.walks),
            &row.instructions_per_op.map_or("-".into(), |n| grouped(n.round() as u64)),
            if different { "DIFFERENT" } else { "" },
        ]);
    }
    (out, wrong)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    fn setting(arch: Arch) -> Setting {
        Setting {
            arch,
            cpus: 4,
            kernel: "6.12.117+deb12-amd64".into(),
            origin: "http://deb.debian.org/x.deb SHA256:00".into(),
            engine: "icount",
            counts_instructions: true,
            qemu: "7.2.22".into(),
        }
    }

    fn row(workload: &str, mode: &str, flush: u64, sync: u64) -> Row {
        Row {
            workload: workload.into(),
            mode: mode.into(),
            ops: 24,
            flush,
            sync,
            reschedule: 1,
            walks: 1466,
            repeated: 0,
            instructions_per_op: None,
        }
    }

    #[test]
    fn the_keys_of_our_rows_come_first_and_in_order() {
        use crate::rows::tests::{cell, setting as setting_of_ours};
        let keys = |json: &str| -> Vec<String> {
            json.trim_matches('{').split(',').take(22).map(|part| part.split(':').next().unwrap().to_owned()).collect()
        };
        let ours = crate::rows::Row::resolve(Arch::X86_64, cell(0, 0, Mode::Same)).unwrap();
        let (row, setting) = (row("collapse_anon", "same", 72, 74), setting(Arch::X86_64));
        let json = serde_json::to_string(&row.json(&setting, &Reference::load())).unwrap();
        assert_eq!(keys(&json), keys(&ours.json(&setting_of_ours()).unwrap()));
        assert!(json.contains("\"flush_ipis_per_op\":3.0") && json.contains("\"verdict\":null"), "{json}");
        assert!(json.contains("\"predicted_sync_ipis_per_op\":3.0"), "{json}");
    }

    #[test]
    fn the_source_says_whom_a_flush_interrupts() {
        let linux = Reference::load();
        let of = |arch, mode| predicted(arch, mode, "unshare_munmap_last", 4, &linux).unwrap();
        assert_eq!(of(Arch::X86_64, "same"), Rounds { flush: 3.375, sync: 3.0 });
        assert_eq!(of(Arch::X86_64, "spin").flush, 3.375);
        assert_eq!(of(Arch::X86_64, "other"), Rounds { flush: 0.0, sync: 3.0 });
        assert_eq!(of(Arch::X86_64, "idle").flush, 0.0);
        assert_eq!(of(Arch::Aarch64, "same"), Rounds { flush: 0.0, sync: 3.0 });
    }

    #[test]
    fn background_work_is_let_pass_and_a_missing_round_is_not() {
        let linux = Reference::load();
        let wrong = |row| table(&setting(Arch::X86_64), &[row], &linux).1;
        assert_eq!(wrong(row("collapse_anon", "same", 70, 76)), 0);
        assert_eq!(wrong(row("collapse_anon", "same", 72, 0)), 1);
        assert_eq!(wrong(row("collapse_anon", "same", 72, 84)), 1);
        // Without the round that one batch of eight adds.
        assert_eq!(wrong(row("unshare_munmap_last", "same", 81, 72)), 0);
        assert_eq!(wrong(row("unshare_munmap_last", "same", 72, 72)), 1);
        assert_eq!(wrong(row("collapse_anon", "idle", 1, 85)), 0);
        assert_eq!(wrong(row("collapse_anon", "idle", 0, 0)), 1);
        assert_eq!(wrong(row("munmap_2m", "idle", 0, 72)), 1);
    }

    #[test]
    fn a_table_as_it_is_printed() {
        let rows = [row("munmap_2m", "same", 72, 0), row("collapse_anon", "other", 0, 0)];
        let (text, wrong) = table(&setting(Arch::X86_64), &rows, &Reference::load());
        assert_eq!(wrong, 1);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines[3],
            "munmap_2m                same             3/0       2.99/0          3/0      1,466            -"
        );
        assert_eq!(
            lines[4],
            "collapse_anon            other            0/0          0/3          0/3      1,466            -  DIFFERENT"
        );
        assert!(text.lines().all(|l| l.len() <= 110));
    }
}
