//! One measurement: a Linux on one machine, from options to rows.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::bail;
use linux_init::record::Record;

use crate::arch::Arch;
use crate::error::bad_input;
use crate::linux::machine::{self, Launch};
use crate::linux::package::{self, Kernel};
use crate::linux::rows::{Row, Setting};
use crate::linux::{initramfs, speech};
use crate::setup;
use crate::suite::Engine;

/// What to measure.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    /// On which machine.
    pub(crate) arch: Arch,
    /// With so many CPUs.
    pub(crate) cpus: u32,
    /// Names of `linux_init::options::Workload`.
    pub(crate) workloads: Vec<&'static str>,
    /// Names of `linux_init::options::Mode`.
    pub(crate) modes: Vec<&'static str>,
    /// Operations of each cell.
    pub(crate) ops: u64,
    /// How the CPUs run.
    pub(crate) engine: Engine,
    /// A machine that says nothing for so long is ended.
    pub(crate) patience: Duration,
}

impl Wanted {
    /// Cells that will be measured.
    pub(crate) fn cells(&self) -> usize {
        self.workloads.len() * self.modes.len()
    }
}

/// A machine that is ready to boot.
#[derive(Clone, Debug)]
pub(crate) struct Ready {
    /// What is booted.
    pub(crate) launch: Launch,
    /// What will be in each row.
    pub(crate) setting: Setting,
}

/// What came out.
#[derive(Clone, Debug)]
pub(crate) struct Measured {
    /// What is the same for all rows.
    pub(crate) setting: Setting,
    /// Rows, in the order of the cells.
    pub(crate) rows: Vec<Row>,
    /// All that the machine said.
    pub(crate) said: String,
}

/// Installs what is missing, builds the inits, and finds a kernel for each of `archs`.
pub(crate) fn prepare(
    archs: &[Arch],
    version: &str,
    package: Option<&PathBuf>,
    verbose: bool,
) -> anyhow::Result<Vec<(Arch, Kernel)>> {
    package::check_version(version)?;
    if package.is_some() && archs.len() > 1 {
        return Err(bad_input("--package is for one architecture; give --arch"));
    }
    if let Some(package) = package.filter(|p| !p.is_file()) {
        return Err(bad_input(format!("--package {} is not a file", package.display())));
    }
    setup::ensure_ready(archs, true)?;
    initramfs::build(archs, verbose)?;
    let kernel =
        |&arch| Ok((arch, package.map_or_else(|| package::obtain(arch, version), |p| package::given(arch, p))?));
    archs.iter().map(kernel).collect()
}

impl Wanted {
    /// The machine for this, with a kernel.
    pub(crate) fn ready(&self, kernel: &Kernel) -> anyhow::Result<Ready> {
        let Some(qemu) = setup::installed_qemu(self.arch) else { bail!("{} is not installed", self.arch.qemu()) };
        let words = format!("workload={} mode={} ops={}", self.workloads.join(","), self.modes.join(","), self.ops);
        let launch = Launch {
            arch: self.arch,
            qemu: qemu.path,
            cpus: self.cpus,
            memory_mib: machine::memory_mib(self.cpus),
            kernel: kernel.image.clone(),
            initramfs: initramfs::path(self.arch),
            engine: self.engine,
            words,
        };
        let setting = Setting {
            arch: self.arch,
            cpus: self.cpus,
            kernel: kernel.release.clone(),
            origin: kernel.origin.clone(),
            engine: self.engine.name(),
            counts_instructions: self.engine == Engine::Icount,
            qemu: qemu.version.to_string(),
        };
        Ok(Ready { launch, setting })
    }
}

/// How long a machine may say nothing if nobody chooses: a cell of many CPUs takes minutes on a loaded host.
pub(crate) const PATIENCE: Duration = Duration::from_secs(300);
/// The most CPUs that are tried.
pub(crate) const MOST_CPUS: u32 = 64;

/// Boots the machine and collects its rows; `on_row` sees each as it comes, `stop` is asked whether to go on.
pub(crate) fn measure(
    wanted: &Wanted,
    kernel: &Kernel,
    stop: &dyn Fn() -> bool,
    on_row: &mut dyn FnMut(&Row, &Setting) -> anyhow::Result<()>,
) -> anyhow::Result<Measured> {
    let Ready { launch, mut setting } = wanted.ready(kernel)?;
    let mut rows: Vec<Row> = Vec::new();
    let mut cells = None;
    let said = machine::boot(&launch, wanted.patience, stop, &mut |record| {
        match record {
            Record::Start { release, cpus } => {
                if cpus != wanted.cpus {
                    bail!("Linux on {} has {cpus} CPUs online, not {}", wanted.arch.name(), wanted.cpus);
                }
                setting.kernel = release.to_owned();
            }
            Record::Counts { .. } => {
                rows.extend(row(&record, &setting));
                if let Some(row) = rows.last() {
                    on_row(row, &setting)?;
                }
            }
            Record::Failed { workload, mode, step, errno } => {
                let why = speech::in_words(step, errno);
                bail!("Linux on {} could not do {workload} in mode {mode}: could not {why}", wanted.arch.name())
            }
            Record::Refused { what, errno } => {
                bail!(
                    "the init for Linux on {} stopped: could not {}",
                    wanted.arch.name(),
                    speech::in_words(what, errno)
                )
            }
            Record::End { cells: n } => cells = Some(n as usize),
        }
        Ok(())
    })?;
    if cells != Some(rows.len()) || rows.len() != wanted.cells() {
        let (got, arch) = (rows.len(), wanted.arch.name());
        bail!("of {} cells Linux on {arch} measured {got}: records were lost on its console", wanted.cells());
    }
    Ok(Measured { setting, rows, said })
}

fn row(record: &Record<'_>, setting: &Setting) -> Option<Row> {
    let &Record::Counts {
        workload,
        mode,
        ops,
        flush,
        other_calls,
        reschedule,
        walks,
        repeated,
        ticks,
        ticks_per_second,
    } = record
    else {
        return None;
    };
    // Instructions are virtual nanoseconds, and those of walkers would be counted as the operation's.
    let counted = setting.counts_instructions && mode == "idle" && ticks_per_second > 0;
    let instructions = ticks as f64 * 1e9 / ticks_per_second as f64 / linux_init::options::BATCH as f64;
    Some(Row {
        workload: workload.to_owned(),
        mode: mode.to_owned(),
        ops,
        flush,
        sync: other_calls,
        reschedule,
        walks,
        repeated,
        instructions_per_op: counted.then_some(instructions),
    })
}
