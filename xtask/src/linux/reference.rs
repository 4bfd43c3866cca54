//! What the same operations cost on Linux: a reference file, measured once and kept with the runner.
//!
//! `data/linux-ipi-counts.json` holds interrupts and instructions per operation of stock distribution kernels, measured
//! for this project under the QEMU release that the runs use, also with `-icount shift=0`.

use std::collections::HashMap;

use serde::Deserialize;
use serde_json::Value;

use crate::arch::Arch;

/// The kernel whose numbers are shown.
pub(crate) const KERNEL: &str = "6.12";
const CPUS: u32 = 4;
const MODE: &str = "idle";

#[derive(Deserialize)]
struct File {
    instructions: Vec<Entry>,
    counts: Vec<Count>,
    about: About,
}

#[derive(Default, Deserialize)]
struct About {
    prediction: HashMap<String, Value>,
}

#[derive(Deserialize)]
struct Count {
    arch: String,
    kernel: String,
    mode: String,
    workload: String,
    cpus: u32,
    flush_ipis_per_op: f64,
    sync_ipis_per_op: f64,
}

/// Flushes and syncs of one operation: in rounds, or in targets.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Rounds {
    /// Flushes.
    pub(crate) flush: f64,
    /// Syncs.
    pub(crate) sync: f64,
}

#[derive(Deserialize)]
struct Entry {
    arch: String,
    kernel: String,
    mode: String,
    workload: String,
    cpus: u32,
    instructions_per_op: u64,
}

/// Linux's numbers.
pub(crate) struct Reference(File);

impl Reference {
    /// Reads the file that was compiled in.
    pub(crate) fn load() -> Reference {
        let file: Result<File, _> = serde_json::from_str(include_str!("../../data/linux-ipi-counts.json"));
        let empty = || File { instructions: Vec::new(), counts: Vec::new(), about: About::default() };
        Reference(file.unwrap_or_else(|_| empty()))
    }

    /// Instructions per operation of a workload of ours; there the sharing of tables is called by its user, hugetlb.
    pub(crate) fn instructions(&self, arch: Arch, workload: &str) -> Option<u64> {
        self.instructions_of(KERNEL, arch, workload)
    }

    /// The same of another version.
    pub(crate) fn instructions_of(&self, kernel: &str, arch: Arch, workload: &str) -> Option<u64> {
        let found = self.0.instructions.iter().find(|e| {
            e.arch == arch.name()
                && e.cpus == CPUS
                && e.mode == MODE
                && e.kernel.starts_with(kernel)
                && ours(&e.workload) == workload
        });
        found.map(|e| e.instructions_per_op)
    }

    /// Rounds of one operation by the source of Linux; flushes where they interrupt.
    pub(crate) fn prediction(&self, workload: &str) -> Option<Rounds> {
        let (_, value) = self.0.about.prediction.iter().find(|(name, _)| ours(name) == ours(workload))?;
        Some(Rounds { flush: sum(value.get("F")?)?, sync: sum(value.get("S")?)? })
    }

    /// Targets of one operation as they were recorded of the newest kernel of the same series (6.12.9 and 6.12.117 are
    /// of one).
    pub(crate) fn recorded(&self, kernel: &str, arch: Arch, workload: &str, mode: &str, cpus: u32) -> Option<Rounds> {
        let series = |release: &str| release.split('.').take(2).map(str::to_owned).collect::<Vec<_>>();
        let all = self.measured(arch, workload, mode, cpus);
        all.into_iter().rev().find(|(of, _)| series(of) == series(kernel)).map(|(_, targets)| targets)
    }

    /// Targets of one operation as they were measured, by version.
    pub(crate) fn measured(&self, arch: Arch, workload: &str, mode: &str, cpus: u32) -> Vec<(String, Rounds)> {
        let mut found: Vec<(String, Rounds)> = self
            .0
            .counts
            .iter()
            .filter(|c| {
                c.arch == arch.name() && c.cpus == cpus && c.mode == mode && ours(&c.workload) == ours(workload)
            })
            .map(|c| (c.kernel.clone(), Rounds { flush: c.flush_ipis_per_op, sync: c.sync_ipis_per_op }))
            .collect();
        found.sort_by(|a, b| a.0.cmp(&b.0));
        found
    }
}

/// What we call a workload of the file.
fn ours(workload: &str) -> &str {
    workload.strip_prefix("hugetlb_").unwrap_or(workload)
}

/// A number, or a sum of numbers and fractions with a remark in parentheses behind it.
fn sum(value: &Value) -> Option<f64> {
    if let Some(number) = value.as_f64() {
        return Some(number);
    }
    let text = value.as_str()?.split('(').next()?;
    let term = |term: &str| {
        let (over, under) = term.trim().split_once('/').unwrap_or((term.trim(), "1"));
        Some(over.trim().parse::<f64>().ok()? / under.trim().parse::<f64>().ok()?)
    };
    text.split('+').map(term).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn predictions_are_sums() {
        let linux = Reference::load();
        assert_eq!(linux.prediction("munmap_2m"), Some(Rounds { flush: 1.0, sync: 0.0 }));
        assert_eq!(linux.prediction("unshare_munmap_last"), Some(Rounds { flush: 1.125, sync: 1.0 }));
        assert_eq!(linux.prediction("retract_truncate"), None);
        assert_eq!(sum(&Value::from("1 + 1/8 (one more)")), Some(1.125));
        assert_eq!(sum(&Value::from("some")), None);
    }

    #[test]
    fn measurements_are_found_by_version() {
        let measured = Reference::load().measured(Arch::X86_64, "collapse_anon", "same", 4);
        let versions: Vec<&str> = measured.iter().map(|(kernel, _)| kernel.as_str()).collect();
        assert_eq!(versions, ["6.12.117", "7.1.13", "7.2.13", "7.3.4"]);
        assert_eq!(measured[0].1, Rounds { flush: 3.0, sync: 3.0 });
    }

    #[test]
    fn the_file_has_our_workloads() {
        let linux = Reference::load();
        assert_eq!(linux.instructions(Arch::X86_64, "munmap_2m"), Some(545_496));
        assert_eq!(linux.instructions(Arch::Aarch64, "unshare_munmap_last"), Some(13_494));
        assert_eq!(linux.instructions(Arch::X86_64, "retract_truncate"), None);
        for arch in Arch::ALL {
            let known = kernel::workload::NAMES.iter().filter(|(name, _)| linux.instructions(arch, name).is_some());
            assert_eq!(known.count(), 12);
        }
    }
}
