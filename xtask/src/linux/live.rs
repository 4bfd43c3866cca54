//! Linux's counts as they are now, for a command that compares: several machines, measured side by side.

use linux_init::options::{Mode, Workload};

use crate::arch::Arch;
use crate::error::bad_input;
use crate::linux::measure::{self, MOST_CPUS, Measured, PATIENCE, Wanted, measure};
use crate::linux::package::Kernel;
use crate::linux::reference::{KERNEL, Reference, Rounds};
use crate::linux::rows;
use crate::probe;
use crate::progress::Cells;
use crate::suite::Engine;

/// Rows of all machines.
pub(crate) struct Live(Vec<Measured>);

/// What one of them says.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Now {
    /// Targets of one operation.
    pub(crate) targets: Rounds,
    /// Whether that is not what the source says, by more than background work.
    pub(crate) different: bool,
}

impl Live {
    /// Refuses sizes of machines that Linux is not measured on.
    pub(crate) fn check(cpus: &[u32]) -> anyhow::Result<()> {
        match cpus.iter().find(|n| **n > MOST_CPUS) {
            Some(n) => Err(bad_input(format!("--live with {n} CPUs is not possible; give at most {MOST_CPUS}"))),
            None => Ok(()),
        }
    }

    /// Measures: every architecture with every number of CPUs, those workloads and modes that Linux can do.
    pub(crate) fn measure(
        archs: &[Arch],
        cpus: &[u32],
        workloads: &[&str],
        modes: &[&str],
        ops: u64,
    ) -> anyhow::Result<Live> {
        let kernels = measure::prepare(archs, KERNEL, None, false)?;
        let workloads: Vec<_> =
            Workload::ALL.map(Workload::name).into_iter().filter(|name| workloads.contains(name)).collect();
        let modes: Vec<_> = Mode::ALL.map(Mode::name).into_iter().filter(|name| modes.contains(name)).collect();
        let machine = |&cpus: &u32, (arch, kernel): &(Arch, Kernel)| {
            let (workloads, modes) = (workloads.clone(), modes.clone());
            let engine = Engine::Icount;
            (Wanted { arch: *arch, cpus, workloads, modes, ops, engine, patience: PATIENCE }, kernel.clone())
        };
        let machines: Vec<(Wanted, Kernel)> =
            kernels.iter().flat_map(|kernel| cpus.iter().map(move |cpus| machine(cpus, kernel))).collect();
        let total = machines.iter().map(|(wanted, _)| wanted.cells() as u64).sum();
        eprintln!("linux: booting {} machines ({total} cells)", machines.len());
        let bar = Cells::begin(total);
        let work = |(wanted, kernel): &(Wanted, Kernel), stop: &dyn Fn() -> bool| {
            measure(wanted, kernel, stop, &mut |row, setting| {
                bar.one_more(format!("{} with {} CPUs: {}", setting.arch.name(), setting.cpus, row.workload));
                Ok(())
            })
        };
        let measured = probe::in_order(&machines, probe::at_once(), work, |_| false)?;
        bar.end();
        Ok(Live(measured))
    }

    /// What came out for one cell of one machine.
    pub(crate) fn of(&self, arch: Arch, workload: &str, mode: &str, cpus: u32, reference: &Reference) -> Option<Now> {
        let machine = self.0.iter().find(|m| m.setting.arch == arch && m.setting.cpus == cpus)?;
        let row = machine.rows.iter().find(|r| r.workload == workload && r.mode == mode)?;
        let source = rows::predicted(arch, mode, workload, cpus, reference);
        let different = source.is_some_and(|s| rows::differs(row.targets(), s, mode, cpus));
        Some(Now { targets: row.targets(), different })
    }

    /// Release of the kernel that was measured on an architecture.
    pub(crate) fn kernel(&self, arch: Arch) -> &str {
        self.0.iter().find(|m| m.setting.arch == arch).map_or("", |m| &m.setting.kernel)
    }
}
