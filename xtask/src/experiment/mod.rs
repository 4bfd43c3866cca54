//! `cargo xtask experiment`: an experiment from its file to a folder of rows, with everything that is needed to make
//! them again.

mod file;
mod folder;
mod judge;
mod model;
mod plan;
mod progress;
mod provenance;
#[cfg(test)]
mod tests;
mod unit;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use clap::Args;

use self::file::Experiment;
use self::folder::{Folder, Summary};
pub(crate) use self::folder::{Manifest, manifest};
use self::plan::{Unit, Work};
use self::progress::Progress;
use self::provenance::name_of;
use self::unit::Runner;
use crate::arch::Arch;
use crate::build::{self, Kind, repository};
use crate::document;
use crate::error::{Outcome, bad_input};
use crate::names;
use crate::output;
use crate::probe;
use crate::programs;
use crate::qemu;
use crate::records::{self, Record};
use crate::setup::{self, Qemu};
use crate::table::paragraph;

/// Rows that are not as expected and are told one by one.
const TOLD: usize = 20;

/// Runs the experiments that TOML files describe, each into a folder of rows, logs, command lines and versions
///
/// A second call goes on where one was ended, by Ctrl-C or a loss of power. A folder that is finished is judged again
/// and not run again.
#[derive(Args)]
pub(crate) struct Run {
    /// Files, or names of files in `experiments/` without their ending
    #[arg(value_name = "FILE", required_unless_present_any = ["list", "all"])]
    files: Vec<String>,
    /// Prints the names in `experiments/` with what they show
    #[arg(long, conflicts_with_all = ["files", "all"])]
    list: bool,
    /// All of `experiments/`
    #[arg(long, conflicts_with = "files")]
    all: bool,
    /// The folder to write; target/experiments/NAME if not given (one FILE)
    #[arg(long, value_name = "PATH")]
    folder: Option<PathBuf>,
    /// Forgets what is in the folder
    #[arg(long)]
    fresh: bool,
    /// Host threads to keep busy; as many as there are cores if not given
    #[arg(long, value_name = "N")]
    jobs: Option<usize>,
    /// Ends a guest that made no progress for so long
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    patience: u64,
    /// Prints the QEMU command lines and stops
    #[arg(long)]
    dry_run: bool,
}

impl Run {
    /// Does it.
    pub(crate) fn run(self) -> anyhow::Result<Outcome> {
        if self.list {
            return list();
        }
        let files = if self.all { all_files()? } else { chosen(&self.files)? };
        if self.folder.is_some() && files.len() > 1 {
            return Err(bad_input("--folder is one experiment's; give one FILE with it"));
        }
        if self.jobs == Some(0) || self.patience == 0 {
            return Err(bad_input("--jobs and --patience are at least 1"));
        }
        // A mistake in the last file is told before the first is run.
        let read: Vec<(PathBuf, String, Experiment)> = files.into_iter().map(read).collect::<anyhow::Result<_>>()?;
        let mut outcome = Outcome::Expected;
        for (path, text, experiment) in &read {
            if self.dry_run {
                print_command_lines(experiment)?;
            } else if self.one(&name_of(path), text, experiment)? == Outcome::Unexpected {
                outcome = Outcome::Unexpected;
            }
        }
        Ok(outcome)
    }

    fn one(&self, name: &str, text: &str, experiment: &Experiment) -> anyhow::Result<Outcome> {
        let units = plan::units(experiment);
        let ready = ready(&units)?;
        let manifest = provenance::manifest(name, experiment, &units, &ready)?;
        let path = self.folder.clone().unwrap_or_else(|| repository().join("target/experiments").join(name));
        let folder = Folder::take(&path, &manifest, text, self.fresh)?;
        folder.write("commands.txt", command_lines(&units, &ready.qemus).as_bytes())?;
        let mut rows = match folder.finished()? {
            Some(rows) => rows,
            None => {
                let at_once = self.jobs.unwrap_or_else(probe::at_once);
                let runner = Runner::new(&folder, &ready, at_once, Duration::from_secs(self.patience));
                let missing: Vec<&Unit> = units.iter().filter(|unit| !folder.has(unit)).collect();
                let progress = Progress::begin(name, &units, &missing);
                let faults = runner.run(&missing, &progress);
                progress.end();
                let faults = faults.with_context(|| interrupted(&folder, &units))?;
                if let Some(first) = faults.first() {
                    anyhow::bail!(
                        "{name}: {} of {} guests failed, the first: {first}; their logs are in {}, and the same command tries them again",
                        faults.len(),
                        units.len(),
                        shown(&path.join("logs"))
                    );
                }
                folder.gather(&units)?
            }
        };
        let unexpected = judge::judge(&mut rows, experiment);
        let summary = Summary { schema: crate::rows::SCHEMA, summary: true, rows: rows.len(), unexpected };
        folder.finish(&rows, &summary)?;
        output::print(&story(name, experiment, &rows, unexpected, folder.path()))?;
        Ok(if unexpected == 0 { Outcome::Expected } else { Outcome::Unexpected })
    }
}

/// What is kept when it does not come to an end.
fn interrupted(folder: &Folder, units: &[Unit]) -> String {
    let done = units.iter().filter(|unit| folder.has(unit)).count();
    format!("{done} of {} parts are in {}; the same command goes on with the rest", units.len(), shown(folder.path()))
}

/// What is printed of an experiment that is finished.
fn story(name: &str, experiment: &Experiment, rows: &[Record], unexpected: usize, folder: &Path) -> String {
    use anstyle::AnsiColor::{Green, Red};
    let bold = anstyle::Style::new().bold();
    let mut out = paragraph(0, &format!("{bold}{name}{bold:#}: {}", experiment.claim));
    let of_verdict = |verdict: &str| rows.iter().filter(|row| records::text(row, "verdict") == verdict).count();
    let verdicts: Vec<String> = ["safe", "unsafe", "refused", "na", "void"]
        .into_iter()
        .filter(|verdict| of_verdict(verdict) > 0)
        .map(|verdict| format!("{} {verdict}", of_verdict(verdict)))
        .collect();
    if let Some(sentence) = model::left_out(experiment) {
        out += &paragraph(2, &sentence);
    }
    let wrong = rows.iter().filter(|row| row.contains_key("problem"));
    for row in wrong.take(TOLD) {
        out += &paragraph(2, &format!("{}: {}", records::heading(row), records::text(row, "problem")));
    }
    if unexpected > TOLD {
        out += &format!("  and {} more: as_expected in rows.csv\n", unexpected - TOLD);
    }
    let verdicts = verdicts.join(", ");
    let place = shown(folder);
    out += &if unexpected == 0 {
        let good = Green.on_default().bold();
        format!("  {good}As expected{good:#}: all of {} rows ({verdicts}). In {place}\n", rows.len())
    } else {
        let bad = Red.on_default().bold();
        format!("  {bad}NOT as expected{bad:#}: {unexpected} of {} rows ({verdicts}). In {place}\n", rows.len())
    };
    out
}

/// What units need, and is there.
struct Ready {
    images: Vec<(Arch, Kind)>,
    /// Machines for which programs are there.
    with_programs: Vec<Arch>,
    qemus: Vec<(Arch, Qemu)>,
    /// The simulated machine's program.
    model: Option<PathBuf>,
}

/// Sets up and builds what the units need.
fn ready(units: &[Unit]) -> anyhow::Result<Ready> {
    let guests = || units.iter().filter_map(Unit::guest);
    let archs: Vec<Arch> = Arch::ALL.into_iter().filter(|arch| guests().any(|guest| guest.arch == *arch)).collect();
    let needed = |arch, kind| guests().any(|guest| guest.arch == arch && guest.kinds().contains(&kind));
    let pairs = archs.iter().flat_map(|&arch| Kind::ALL.map(|kind| (arch, kind)));
    let images: Vec<(Arch, Kind)> = pairs.filter(|&(arch, kind)| needed(arch, kind)).collect();
    let stale = build::stale(&images);
    if !archs.is_empty() {
        setup::ensure_ready(&archs, !stale.is_empty())?;
    }
    if !stale.is_empty() {
        build::build(&stale, false)?;
    }
    let with_programs: Vec<Arch> =
        archs.iter().copied().filter(|arch| guests().any(|g| g.arch == *arch && g.suite.runs_programs())).collect();
    programs::ready(&with_programs)?;
    let found = archs.iter().map(|&arch| {
        let qemu = setup::installed_qemu(arch);
        qemu.map(|q| (arch, q)).with_context(|| format!("{} went away during set-up", arch.qemu()))
    });
    Ok(Ready { images, with_programs, qemus: found.collect::<anyhow::Result<_>>()?, model: model::ready(units)? })
}

fn command_lines(units: &[Unit], qemus: &[(Arch, Qemu)]) -> String {
    let mut out = String::new();
    for unit in units {
        out += &format!("# {}\n", unit.name);
        let guest = match &unit.work {
            Work::Guest(guest) => guest,
            Work::Model(work) => {
                out += &format!("cargo xtask sim {}\n", work.options().join(" "));
                continue;
            }
        };
        let found = qemus.iter().find(|(arch, _)| *arch == guest.arch).map(|(_, qemu)| qemu.path.clone());
        let program =
            found.unwrap_or_else(|| qemu::find_program(guest.arch.qemu()).unwrap_or(guest.arch.qemu().into()));
        for &kind in guest.kinds() {
            let launch = guest.launch(kind, program.clone());
            out += &format!("{}\n", qemu::shell_line(&launch.qemu, &qemu::arguments(&launch)));
        }
    }
    out
}

fn print_command_lines(experiment: &Experiment) -> anyhow::Result<()> {
    output::print(&command_lines(&plan::units(experiment), &[]))
}

/// The files of `experiments/`, sorted.
fn all_files() -> anyhow::Result<Vec<PathBuf>> {
    let folder = repository().join("experiments");
    let entries = std::fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut found: Vec<PathBuf> = entries.map(|entry| Ok(entry?.path())).collect::<std::io::Result<_>>()?;
    found.retain(|path| path.extension().is_some_and(|ending| ending == "toml"));
    found.sort();
    Ok(found)
}

fn chosen(given: &[String]) -> anyhow::Result<Vec<PathBuf>> {
    let all = all_files()?;
    let mut chosen = Vec::new();
    for word in given {
        let path = PathBuf::from(word);
        if path.is_file() {
            chosen.push(path);
        } else if let Some(found) = all.iter().find(|file| name_of(file) == *word) {
            chosen.push(found.clone());
        } else {
            let names: Vec<String> = all.iter().map(|file| name_of(file)).collect();
            let hint = names::nearest(&name_of(&path), names.iter().map(String::as_str));
            return Err(bad_input(format!(
                "there is no experiment \"{word}\"; did you mean \"{hint}\"? (`cargo xtask experiment --list` names them all)"
            )));
        }
    }
    Ok(chosen)
}

fn read(path: PathBuf) -> anyhow::Result<(PathBuf, String, Experiment)> {
    let text = std::fs::read_to_string(&path).map_err(|e| bad_input(format!("cannot read {}: {e}", path.display())))?;
    let experiment = file::parse(&text)?.map_err(|mistakes| document::refusal(Path::new(&shown(&path)), &mistakes))?;
    Ok((path, text, experiment))
}

fn list() -> anyhow::Result<Outcome> {
    let mut out = String::new();
    for path in all_files()? {
        let (path, _, experiment) = read(path)?;
        let cells: usize = plan::units(&experiment).iter().map(Unit::cells).sum();
        out += &paragraph(0, &format!("{} ({cells} cells): {}", name_of(&path), experiment.claim));
    }
    output::print(&out)?;
    Ok(Outcome::Expected)
}

/// A path as a person would write it.
fn shown(path: &Path) -> String {
    path.strip_prefix(repository()).unwrap_or(path).display().to_string()
}
