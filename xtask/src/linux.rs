//! What the same operations cost on Linux: a reference file, measured once and kept with the runner.
//!
//! `data/linux-ipi-counts.json` holds interrupts and instructions per operation of stock distribution kernels, measured for
//! this project under the QEMU release that the runs use, also with `-icount shift=0`.

use serde::Deserialize;

use crate::arch::Arch;

/// The kernel whose numbers are shown.
pub(crate) const KERNEL: &str = "6.12";
const CPUS: u32 = 4;
const MODE: &str = "idle";

#[derive(Deserialize)]
struct File {
    instructions: Vec<Entry>,
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
pub(crate) struct Reference(Vec<Entry>);

impl Reference {
    /// Reads the file that was compiled in.
    pub(crate) fn load() -> Reference {
        let file: Result<File, _> = serde_json::from_str(include_str!("../data/linux-ipi-counts.json"));
        Reference(file.map(|f| f.instructions).unwrap_or_default())
    }

    /// Instructions per operation of a workload of ours; there the sharing of tables is called by its user, hugetlb.
    pub(crate) fn instructions(&self, arch: Arch, workload: &str) -> Option<u64> {
        let found = self.0.iter().find(|e| {
            e.arch == arch.name()
                && e.cpus == CPUS
                && e.mode == MODE
                && e.kernel.starts_with(KERNEL)
                && e.workload.strip_prefix("hugetlb_").unwrap_or(&e.workload) == workload
        });
        found.map(|e| e.instructions_per_op)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
