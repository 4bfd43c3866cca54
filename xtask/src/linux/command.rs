//! `cargo xtask linux`: a stock Linux in the same QEMU, the same operations, its interrupts.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use kernel::suite::Named;
use linux_init::options::{BATCH, Mode, Workload};
use serde::Serialize;

use crate::arch::{self, Arch, ArchChoice};
use crate::error::{Outcome, bad_input};
use crate::linux::measure::{self, MOST_CPUS, PATIENCE, Wanted, measure};
use crate::linux::package::Kernel;
use crate::linux::{KERNEL, Reference, machine, rows};
use crate::names;
use crate::output;
use crate::progress::Cells;
use crate::qemu;
use crate::results_file::ResultsFile;
use crate::rows::SCHEMA;
use crate::suite::Engine;

/// Boots a stock Debian Linux in the same QEMU and counts the interrupts of the same operations
///
/// The kernel package is fetched from Debian, checked by Debian's keys, unpacked below target/linux and kept there;
/// nothing is installed. An init of ours does the operations and reads /proc/interrupts around them. A count that is
/// not what Linux's source says is marked, and the exit status is 1.
#[derive(Args)]
pub(crate) struct Linux {
    /// x86_64, aarch64 or all
    #[arg(long, value_name = "ARCH")]
    arch: String,
    /// The newest kernel of this version
    #[arg(long, value_name = "VERSION", default_value = KERNEL)]
    kernel: String,
    /// The kernel of this package file instead (one architecture)
    #[arg(long, value_name = "FILE")]
    package: Option<PathBuf>,
    /// CPUs of the machine
    #[arg(long, value_name = "N", default_value_t = 4)]
    smp: u32,
    /// Workloads, or all
    #[arg(long, value_name = "NAME,..", value_delimiter = ',', default_value = "all")]
    workload: Vec<String>,
    /// What the other CPUs do: same, other, idle, spin
    #[arg(long, value_name = "NAME,..", value_delimiter = ',', default_value = "same,other")]
    mode: Vec<String>,
    /// Operations of each cell, a multiple of 8
    #[arg(long, value_name = "K", default_value_t = 24)]
    ops: u64,
    /// One host thread for each CPU, instead of one CPU after the other by instruction count
    #[arg(long)]
    mttcg: bool,
    /// Writes one JSON object a line, and a summary last
    #[arg(long, value_name = "PATH")]
    json: Option<PathBuf>,
    /// Ends a machine that said nothing for so long
    #[arg(long, value_name = "SECONDS", default_value_t = PATIENCE.as_secs())]
    patience: u64,
    /// Prints the QEMU command lines and stops
    #[arg(long)]
    dry_run: bool,
    /// Shows what cargo and Linux say
    #[arg(short, long)]
    verbose: bool,
}

/// The last object of a results file.
#[derive(Serialize)]
struct Summary {
    schema: u32,
    summary: bool,
    rows: usize,
    different: usize,
}

impl Linux {
    /// Does it.
    pub(crate) fn run(self) -> anyhow::Result<Outcome> {
        let ArchChoice(archs) = arch::choose(&self.arch)?;
        let wanted = |arch| self.wanted(arch);
        let all: Vec<Wanted> = archs.iter().copied().map(wanted).collect::<anyhow::Result<_>>()?;
        if self.dry_run {
            for (wanted, (_, kernel)) in all.iter().zip(self.kernels(&archs)?) {
                let launch = wanted.ready(&kernel)?.launch;
                let arguments = machine::arguments(&launch, "/dev/stdout".as_ref());
                output::print(&format!("{}\n", qemu::shell_line(&launch.qemu, &arguments)))?;
            }
            return Ok(Outcome::Expected);
        }
        let mut file = self.json.as_deref().map(ResultsFile::create).transpose()?;
        let result = self.kernels(&archs).and_then(|kernels| self.measure_all(&all, &kernels, &mut file));
        match (result, file) {
            (Ok((rows, different)), file) => {
                if let Some(file) = file {
                    file.finish(&Summary { schema: SCHEMA, summary: true, rows, different })?;
                }
                Ok(if different == 0 { Outcome::Expected } else { Outcome::Unexpected })
            }
            (Err(error), file) => {
                let kept = file.and_then(ResultsFile::abandon);
                Err(match kept {
                    Some(kept) if !error.is::<crate::error::Interrupted>() => anyhow::anyhow!("{error:#}; {kept}"),
                    _ => error,
                })
            }
        }
    }

    fn kernels(&self, archs: &[Arch]) -> anyhow::Result<Vec<(Arch, Kernel)>> {
        measure::prepare(archs, &self.kernel, self.package.as_ref(), self.verbose)
    }

    fn measure_all(
        &self,
        all: &[Wanted],
        kernels: &[(Arch, Kernel)],
        file: &mut Option<ResultsFile>,
    ) -> anyhow::Result<(usize, usize)> {
        let reference = Reference::load();
        let (mut count, mut different) = (0, 0);
        for (wanted, (arch, kernel)) in all.iter().zip(kernels) {
            eprintln!("linux: booting {} on {} ({} cells)", kernel.release, arch.name(), wanted.cells());
            let bar = Cells::begin(wanted.cells() as u64);
            let measured = measure(wanted, kernel, &|| false, &mut |row, setting| {
                bar.one_more(format!("{} {}", row.workload, row.mode));
                file.as_mut().map_or(Ok(()), |f| f.add_object(&row.json(setting, &reference)))
            });
            bar.end();
            let measured = measured?;
            if self.verbose {
                eprintln!("{}", measured.said.replace('\x1e', ""));
            }
            let (text, wrong) = rows::table(&measured.setting, &measured.rows, &reference);
            output::print(&format!("{text}\n"))?;
            count += measured.rows.len();
            different += wrong;
        }
        output::print(&match different {
            0 => "As expected: every count is what Linux's source says, but for background work.\n".to_owned(),
            n => format!("NOT as expected: {n} rows are not what Linux's source says.\n"),
        })?;
        Ok((count, different))
    }

    fn wanted(&self, arch: Arch) -> anyhow::Result<Wanted> {
        if !(2..=MOST_CPUS).contains(&self.smp) {
            return Err(bad_input(format!("--smp {} is not possible for Linux here; give 2 to {MOST_CPUS}", self.smp)));
        }
        if self.ops == 0 || !self.ops.is_multiple_of(BATCH) {
            return Err(bad_input(format!(
                "--ops {} is not a multiple of {BATCH}, the operations of a batch",
                self.ops
            )));
        }
        if self.patience == 0 {
            return Err(bad_input("--patience 0 would end every machine at once; give a number of seconds"));
        }
        Ok(Wanted {
            arch,
            cpus: self.smp,
            workloads: choose("workload", &self.workload, Workload::ALL.map(|w| (w.name(), "")).to_vec())?,
            modes: choose("mode", &self.mode, Mode::ALL.map(|m| (m.name(), "")).to_vec())?,
            ops: self.ops,
            engine: if self.mttcg { Engine::Mttcg } else { Engine::Icount },
            patience: Duration::from_secs(self.patience),
        })
    }
}

/// Reads a list of names that Linux's init knows; `all` stands for every one.
fn choose(kind: &str, given: &[String], names: Vec<Named>) -> anyhow::Result<Vec<&'static str>> {
    let all: Vec<&str> = names.iter().map(|(name, _)| *name).collect();
    let unknown = given.iter().map(|word| word.trim()).find(|word| *word != "all" && !all.contains(word));
    if let Some(word) = unknown {
        let nearest = names::nearest(word, all.iter().copied());
        let all = all.join(", ");
        return Err(bad_input(format!("Linux does no {kind} \"{word}\"; did you mean \"{nearest}\"? ({all})")));
    }
    names::choose(kind, given, &names)
}
