//! `cargo xtask scenario`: plays scenarios, step by step, and compares the verdicts with what the scenarios expect.

mod cells;
mod parse;
mod record;
mod report;
#[cfg(test)]
mod tests;
pub(crate) mod text;

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use kernel::record::cell::Verdict;

use self::cells::{Cell, Wish};
use self::parse::{Scenario as Script, Shown};
use self::report::{Found, Played};
use crate::arch::{self, Arch, ArchChoice};
use crate::build::{self, Kind, image_path};
use crate::error::{BadInput, Interrupted, Outcome, bad_input};
use crate::guest::Guest;
use crate::names;
use crate::output;
use crate::progress::Cells;
use crate::qemu::{self, Launch};
use crate::results_file::ResultsFile;
use crate::rows::Row;
use crate::setup;
use crate::shared_memory::GuestMemory;
use crate::suite::Engine;
use crate::trace::{Recording, Trace, TraceOption};

/// CPUs of each machine, unless the scenario has more actors: those without a part have the mm loaded.
const CPUS: usize = 4;

/// Plays scenarios: which CPU goes on, how far, step by step, and whether the verdict is the expected one
///
/// A scenario is a text file; `scenarios/` has one for each known bug of this area. Without a FILE all of them are
/// played.
#[derive(Args)]
pub(crate) struct Scenario {
    /// Files, or names of files in `scenarios/` without their ending
    #[arg(value_name = "FILE")]
    files: Vec<String>,
    /// Prints the names in `scenarios/` with their first lines
    #[arg(long, conflicts_with_all = ["files", "dry_run"])]
    list: bool,
    /// x86_64, aarch64 or all
    #[arg(long, value_name = "ARCH", default_value = "all")]
    arch: String,
    /// Strategies, or all; those that the scenario names if not given
    #[arg(long, value_name = "NAME,..", value_delimiter = ',')]
    strategy: Vec<String>,
    /// Transports, or all; those that the scenario names if not given
    #[arg(long, value_name = "NAME,..", value_delimiter = ',')]
    transport: Vec<String>,
    /// Ends a guest that made no progress for so long
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    patience: u64,
    /// Prints the QEMU command lines and stops
    #[arg(long)]
    dry_run: bool,
    /// Writes one JSON object a line, and a summary last; `report` makes a matrix of it
    #[arg(long, value_name = "PATH", conflicts_with_all = ["list", "dry_run"])]
    json: Option<PathBuf>,
    #[command(flatten)]
    trace: TraceOption,
    /// Shows QEMU's command lines and what the kernel says
    #[arg(short, long)]
    verbose: bool,
}

impl Scenario {
    /// Does it.
    pub(crate) fn run(self) -> anyhow::Result<Outcome> {
        if self.list {
            return list();
        }
        let ArchChoice(archs) = arch::choose(&self.arch)?;
        let transports = names::choose("transport", &self.transport, kernel::tlb::transport::NAMES)?;
        let strategies = names::choose("strategy", &self.strategy, kernel::sync::NAMES)?;
        let wish = Wish {
            archs,
            transports: Some(transports).filter(|t| !t.is_empty()),
            strategies: Some(strategies).filter(|s| !s.is_empty()),
        };
        let paths = if self.files.is_empty() { files()? } else { find_files(&self.files)? };
        let scripts: Vec<(PathBuf, Script)> =
            paths.into_iter().map(|p| read(&p).map(|s| (p, s))).collect::<anyhow::Result<_>>()?;
        let mut guests: Vec<(usize, Vec<Cell>)> = Vec::new();
        for (i, (path, script)) in scripts.iter().enumerate() {
            let wanted = cells::wanted(script, &wish).map_err(|m| mistake(path, &m))?;
            if script.shown == Shown::Qemu {
                guests.extend(cells::by_guest(wanted).into_iter().map(|g| (i, g)));
            }
        }
        let scripts: Vec<Script> = scripts.into_iter().map(|(_, s)| s).collect();
        if self.dry_run {
            for (i, guest) in &guests {
                let launch = launch(&scripts[*i], guest, guest[0].arch.qemu().into());
                output::print(&format!("{}\n", qemu::shell_line(&launch.qemu, &qemu::arguments(&launch))))?;
            }
            return Ok(Outcome::Expected);
        }
        let trace = self.trace.begin()?;
        let results = self.json.as_deref().map(ResultsFile::create).transpose()?;
        let used: Vec<Arch> =
            wish.archs.iter().copied().filter(|a| guests.iter().any(|(_, g)| g[0].arch == *a)).collect();
        let programs = prepare(&used, self.verbose)?;
        let trace = Mutex::new(trace);
        let played = self.play(&scripts, guests, &programs, &trace);
        let traced = trace.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Trace::finish);
        let mut played = played?;
        traced?;
        let (mut cells, mut unexpected) = (0, 0);
        let mut text = String::new();
        for (script, played) in scripts.iter().zip(&mut played) {
            cells += played.len();
            unexpected += played.iter().filter(|p| p.is_unexpected()).count();
            text += &report::one(script, played);
        }
        if let Some(file) = results {
            record::write(file, &scripts, &played, unexpected)?;
        }
        let elsewhere = scripts.iter().filter(|s| s.shown != Shown::Qemu).count();
        output::print(&(text + "\n" + &report::verdict(scripts.len(), elsewhere, cells, unexpected)))?;
        Ok(if unexpected == 0 { Outcome::Expected } else { Outcome::Unexpected })
    }

    /// Runs all guests, some at a time; returns what became of each script's cells, in the cells' order.
    fn play(
        &self,
        scripts: &[Script],
        guests: Vec<(usize, Vec<Cell>)>,
        programs: &[(Arch, PathBuf)],
        trace: &Mutex<Option<Trace>>,
    ) -> anyhow::Result<Vec<Vec<Played>>> {
        let bar = Cells::begin(guests.iter().map(|(_, g)| g.len() as u64).sum());
        let count = guests.len();
        let queue: Mutex<VecDeque<_>> = Mutex::new(guests.into_iter().enumerate().collect());
        let done = Mutex::new(Vec::new());
        let failure: Mutex<Option<anyhow::Error>> = Mutex::new(None);
        let at_once = std::thread::available_parallelism().map_or(2, usize::from).clamp(1, count.max(1));
        std::thread::scope(|scope| {
            for _ in 0..at_once {
                scope.spawn(|| {
                    // A closure, so that the queue is not locked while a guest runs.
                    let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
                    let failed = || failure.lock().unwrap_or_else(PoisonError::into_inner).is_some();
                    while let Some((number, (script, guest))) = next() {
                        if failed() {
                            return;
                        }
                        let record = |recording| {
                            if let Some(trace) = trace.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
                                trace.add(number, recording);
                            }
                        };
                        match self.one_guest(&scripts[script], guest, programs, &failed, &bar, &record) {
                            Ok(played) => {
                                done.lock().unwrap_or_else(PoisonError::into_inner).push((number, script, played));
                            }
                            Err(error) => {
                                failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
                            }
                        }
                    }
                });
            }
        });
        bar.end();
        if let Some(error) = failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
            return Err(error);
        }
        let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
        done.sort_by_key(|(number, ..)| *number);
        let mut all: Vec<Vec<Played>> = scripts.iter().map(|_| Vec::new()).collect();
        done.into_iter().for_each(|(_, script, played)| all[script].extend(played));
        Ok(all)
    }

    /// Runs one guest. A kernel that fell over is an answer, too.
    fn one_guest(
        &self,
        script: &Script,
        guest: Vec<Cell>,
        programs: &[(Arch, PathBuf)],
        stop: &dyn Fn() -> bool,
        bar: &Cells,
        record: &dyn Fn(Recording),
    ) -> anyhow::Result<Vec<Played>> {
        let arch = guest[0].arch;
        let program = programs.iter().find(|(a, _)| *a == arch).map(|(_, p)| p.clone()).unwrap_or_default();
        let launch = launch(script, &guest, program);
        if self.verbose {
            eprintln!("$ {}", qemu::shell_line(&launch.qemu, &qemu::arguments(&launch)));
        }
        let mut rows = Vec::new();
        let on_row = &mut |row, _| {
            rows.push(row);
            bar.one_more(script.name.clone());
        };
        let mut events = Vec::new();
        let at_end = &mut |memory: &GuestMemory| events = memory.events().unwrap_or_default();
        let patience = Some(Duration::from_secs(self.patience));
        let ended = Guest::start(launch)?.supervise_and(patience, stop, on_row, at_end);
        let title = format!("{}, {} {}", script.name, arch.name(), guest[0].transport);
        record(Recording::new(arch, title, &rows, events));
        let fell = match ended {
            Ok(report) => {
                if self.verbose {
                    report.log.iter().for_each(|line| eprintln!("{} {}| {line}", script.name, arch.name()));
                }
                String::from("the guest left without a word of it")
            }
            Err(error) if error.is::<Interrupted>() || error.is::<BadInput>() => return Err(error),
            Err(error) => format!("{error:#}").lines().next().unwrap_or_default().to_owned(),
        };
        let mut rows = rows.into_iter();
        guest
            .into_iter()
            .map(|cell| {
                let found = match rows.next() {
                    Some(row) => Found::Row(Box::new(Row::resolve(arch, row)?)),
                    None => Found::Fell(fell.clone()),
                };
                Ok(Played { cell, found })
            })
            .collect()
    }
}

/// Plays the scenarios that take `guard` away, on `arch`: one cell each that must be found unsafe without it, and the
/// same with all guards. How many cells were played, and, if all came out as they should, which scenario it was and
/// what the oracle said.
pub(crate) fn without(guard: &str, arch: Arch) -> anyhow::Result<(usize, Option<(String, String)>)> {
    let mut scripts: Vec<Script> = files()?.iter().map(|p| read(p)).collect::<anyhow::Result<_>>()?;
    scripts.retain(|s| s.shown == Shown::Qemu && s.without.contains(&guard));
    let wish = Wish { archs: vec![arch], ..Wish::default() };
    let mut guests = Vec::new();
    for (i, script) in scripts.iter().enumerate() {
        let cells = cells::wanted(script, &wish).map_err(|m| mistake(Path::new(&script.name), &m))?;
        let Some(bare) = cells.iter().find(|c| !c.kept && c.expected == Some(Verdict::Unsafe)) else { continue };
        let same = |c: &&Cell| c.kept && (c.transport, c.chosen) == (bare.transport, bare.chosen);
        guests.extend([Some(bare), cells.iter().find(same)].into_iter().flatten().map(|c| (i, vec![c.clone()])));
    }
    let options = Scenario {
        files: Vec::new(),
        list: false,
        arch: arch.name().into(),
        strategy: Vec::new(),
        transport: Vec::new(),
        patience: 30,
        json: None,
        trace: TraceOption::none(),
        dry_run: false,
        verbose: false,
    };
    let played = options.play(&scripts, guests, &prepare(&[arch], false)?, &Mutex::new(None))?;
    let count = played.iter().map(Vec::len).sum();
    if played.iter().flatten().any(Played::is_unexpected) {
        return Ok((count, None));
    }
    let missed = scripts.iter().zip(&played).find_map(|(script, played)| {
        let Found::Row(row) = &played.iter().find(|p| !p.cell.kept)?.found else { return None };
        Some((format!("scenario {}", script.name), row.violation()?.in_words().to_owned()))
    });
    Ok((count, missed))
}

fn launch(script: &Script, guest: &[Cell], program: PathBuf) -> Launch {
    let arch = guest[0].arch;
    let cpus = script.script.actors.len().max(CPUS) as u32;
    Launch {
        arch,
        qemu: program,
        cpus,
        memory_mib: qemu::default_memory_mib(cpus),
        image: image_path(arch, Kind::Checking),
        // What a person can start by hand; the runner itself uses files without names.
        ram: format!("/dev/shm/{}-scenario.ram", arch.name()).into(),
        serial: "/dev/stderr".into(),
        module: None,
        command_line: cells::command_line(script, guest),
        engine: Engine::Icount,
        gdb: false,
    }
}

/// Set-up and build: afterwards images and emulators are there.
fn prepare(archs: &[Arch], verbose: bool) -> anyhow::Result<Vec<(Arch, PathBuf)>> {
    let wanted: Vec<(Arch, Kind)> = archs.iter().map(|&a| (a, Kind::Checking)).collect();
    let stale = build::stale(&wanted);
    if !archs.is_empty() {
        setup::ensure_ready(archs, !stale.is_empty())?;
    }
    if !stale.is_empty() {
        build::build(&stale, verbose)?;
    }
    let program = |&arch: &Arch| {
        let qemu = setup::installed_qemu(arch).with_context(|| format!("{} went away during set-up", arch.qemu()))?;
        Ok((arch, qemu.path))
    };
    archs.iter().map(program).collect()
}

fn directory() -> PathBuf {
    build::repository().join("scenarios")
}

/// All files in `scenarios/`, by name.
pub(crate) fn files() -> anyhow::Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(directory()).context("cannot read scenarios/")?;
    let mut files: Vec<PathBuf> =
        entries.map(|e| e.map(|e| e.path())).collect::<std::io::Result<_>>().context("cannot read scenarios/")?;
    files.retain(|path| path.extension().is_some_and(|e| e == "scenario"));
    files.sort_by_key(|path| name_of(path));
    Ok(files)
}

fn name_of(path: &Path) -> String {
    path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

/// Paths as given, or names of files in `scenarios/`.
fn find_files(given: &[String]) -> anyhow::Result<Vec<PathBuf>> {
    let all = files()?;
    given
        .iter()
        .map(|word| {
            let path = PathBuf::from(word);
            if path.is_file() {
                return Ok(path);
            }
            if let Some(found) = all.iter().find(|p| name_of(p) == *word) {
                return Ok(found.clone());
            }
            let stems: Vec<String> = all.iter().map(|p| name_of(p)).collect();
            let hint = names::nearest(&name_of(&path), stems.iter().map(String::as_str));
            Err(bad_input(format!(
                "there is no scenario \"{word}\"; did you mean \"{hint}\"? (`cargo xtask scenario --list` names them all)"
            )))
        })
        .collect()
}

fn mistake(path: &Path, mistake: &text::Mistake) -> anyhow::Error {
    bad_input(format!("{}:{}:{}: {}", path.display(), mistake.line, mistake.column, mistake.sentence))
}

fn read(path: &Path) -> anyhow::Result<Script> {
    let text = std::fs::read_to_string(path).map_err(|e| bad_input(format!("cannot read {}: {e}", path.display())))?;
    parse::parse(&name_of(path), &text).map_err(|m| mistake(path, &m))
}

fn list() -> anyhow::Result<Outcome> {
    let scripts: Vec<Script> = files()?.iter().map(|p| read(p)).collect::<anyhow::Result<_>>()?;
    let width = scripts.iter().map(|s| s.name.len()).max().unwrap_or(0);
    let text: String = scripts
        .iter()
        .map(|s| {
            let engine = match &s.shown {
                Shown::Qemu => "qemu",
                Shown::Elsewhere(engine, _) => engine,
            };
            format!("{:width$}  {engine:4}  {}\n", s.name, s.story[0])
        })
        .collect();
    output::print(&text)?;
    Ok(Outcome::Expected)
}
