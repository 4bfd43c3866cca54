//! `cargo xtask run`: from options to a verdict.

mod session;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args;
use kernel::guard::Guard;
use kernel::suite::Mode;
use kernel::workload::walker::WalkerClass;

use crate::arch::{self, Arch, ArchChoice};
use crate::build::{self, Kind, image_path};
use crate::debugger::{self, Stop};
use crate::error::{Outcome, bad_input};
use crate::guests::{self, Job};
use crate::names;
use crate::output;
use crate::programs;
use crate::progress::Cells;
use crate::qemu::{self, Launch};
use crate::results_file::ResultsFile;
use crate::rows::{Row, Setting};
use crate::setup::{self, Qemu};
use crate::suite::{Engine, Hook, Suite};
use crate::trace::TraceOption;

use session::Session;

/// Seeds for a control: the run's own, then derived ones.
const TRIES: u64 = 16;

/// Builds the kernel, boots it in QEMU, runs a suite and prints a table and a verdict
///
/// The default suite is all workloads, strategies none, sync-all and static-hook, modes same, other and contend, 64
/// operations each. Standard output depends on the options only: same seed, same bytes. Progress and times go to
/// standard error.
#[derive(Args)]
pub(crate) struct Run {
    /// x86_64, aarch64, or all: both, and a comparison
    #[arg(long, value_name = "ARCH")]
    arch: String,
    /// CPUs of the machine: up to 255 on x86_64, 512 on aarch64
    #[arg(long, value_name = "N", default_value_t = 4)]
    smp: u32,
    /// Strategies, or all
    #[arg(long, value_name = "NAME,..", value_delimiter = ',', default_value = "none,sync-all,static-hook")]
    strategy: Vec<String>,
    /// How a flush reaches other CPUs, or all; the architecture's own if not given
    #[arg(long, value_name = "NAME,..", value_delimiter = ',')]
    transport: Vec<String>,
    /// Workloads, or all
    #[arg(long, value_name = "NAME,..", value_delimiter = ',', default_value = "all")]
    workload: Vec<String>,
    /// What the other CPUs do: same, contend, other, idle, spin, lazy, isolated
    #[arg(long, value_name = "NAME,..", value_delimiter = ',', default_value = "same,other,contend")]
    mode: Vec<String>,
    /// Who walks in mode contend: gup, nmi, nmi-other, foreign, rcu, two-word
    #[arg(long, value_name = "CLASS", default_value = "gup")]
    walker: String,
    /// Operations of each cell
    #[arg(long, value_name = "K", default_value_t = 64)]
    ops: u64,
    /// Seed of the schedule: the same seed is the same run
    #[arg(long, value_name = "S", default_value_t = 1)]
    seed: u64,
    /// Overrides what static-hook believes of the transport
    #[arg(long, value_enum, default_value_t = Hook::Auto)]
    hook: Hook,
    /// Faults to inject: batch:N, trylock:N, queue:N, freeze:N; each strikes once in N times
    #[arg(long, value_name = "FAULT,..", value_delimiter = ',')]
    inject: Vec<String>,
    /// Takes guards of the kernel away: the verdicts must notice
    #[arg(long, value_name = "GUARD,..", value_delimiter = ',')]
    without: Vec<String>,
    /// Programs in user mode do the operations of the suite, and are what the other CPUs run
    #[arg(long)]
    user: bool,
    /// One host thread for each CPU: shows missing barriers, nothing deterministic
    #[arg(long)]
    mttcg: bool,
    /// Writes one JSON object a line, and a summary last
    #[arg(long, value_name = "PATH")]
    json: Option<PathBuf>,
    /// Records how long operations, handlers and walks take, who is interrupted when, and how much memory waits
    #[arg(long)]
    profile: bool,
    #[command(flatten)]
    trace: TraceOption,
    /// Debugs it by gdb-multiarch, stopped at the start, where a pause point is passed, or at a violation (checking
    /// image, one architecture)
    #[arg(long, value_name = "WHERE", num_args = 0..=1, require_equals = true, default_missing_value = "start")]
    gdb: Option<Stop>,
    /// Gives the debugger a command; after the last one it ends by itself
    #[arg(long, value_name = "COMMAND", requires = "gdb")]
    gdb_command: Vec<String>,
    /// Uses this QEMU (one architecture)
    #[arg(long, value_name = "PATH")]
    qemu: Option<PathBuf>,
    /// Memory of the machine; 512 MiB and 4 MiB for each CPU if not given
    #[arg(long, value_name = "MIB")]
    memory: Option<u32>,
    /// Ends a guest that made no progress for so long
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    patience: u64,
    /// Level of the kernel's messages: error, warn, info, debug or trace
    #[arg(long, value_name = "LEVEL")]
    log: Option<String>,
    /// Prints the QEMU command lines and stops
    #[arg(long)]
    dry_run: bool,
    /// Shows QEMU's command lines, what cargo says and what the kernel says
    #[arg(short, long)]
    verbose: bool,
}

impl Run {
    /// Does it.
    pub(crate) fn run(self) -> anyhow::Result<Outcome> {
        let ArchChoice(archs) = arch::choose(&self.arch)?;
        self.check_machine(&archs)?;
        let suite = self.suite()?;
        // A wrong name is told before anything is built.
        self.transports()?;
        let kinds: &[Kind] =
            if self.gdb.is_some() || suite.engine == Engine::Mttcg { &[Kind::Checking] } else { &Kind::ALL };
        if self.dry_run {
            self.print_command_lines(&archs, kinds, &suite)?;
            return Ok(Outcome::Expected);
        }
        let given =
            self.qemu.as_ref().map(|path| Ok::<_, anyhow::Error>((path, qemu::check_given(path)?))).transpose()?;
        let given = given.map(|(path, version)| Qemu { path: path.clone(), version });
        if let Some(stop) = self.gdb {
            let qemus = self.prepare(&archs, kinds, suite.runs_programs(), given)?;
            let launch = self.jobs(&archs, kinds, &suite, &[qemus[0].path.clone()])?.remove(0).launch;
            return debugger::session(launch, stop, &self.gdb_command);
        }
        let trace = self.trace.begin()?;
        let results = self.json.as_deref().map(ResultsFile::create).transpose()?;
        let mut session =
            Session { setting: None, results, trace, verbose: self.verbose, bar: None, first_output: None };
        let prepared = self.prepare(&archs, kinds, suite.runs_programs(), given);
        let rows = prepared.and_then(|qemus| self.boot(&archs, kinds, &suite, &qemus, &mut session));
        session.finish(rows, &archs)
    }

    fn check_machine(&self, archs: &[Arch]) -> anyhow::Result<()> {
        for arch in archs {
            if self.smp == 0 || self.smp > arch.max_cpus() {
                let (name, most) = (arch.name(), arch.max_cpus());
                return Err(bad_input(format!(
                    "--smp {} is not possible: {name} machines have 1 to {most} CPUs",
                    self.smp
                )));
            }
        }
        let refuse = |sentence: &str| Err(bad_input(sentence));
        match self {
            Run { memory: Some(m), .. } if *m == 0 || *m > qemu::MAX_MEMORY_MIB => {
                refuse(&format!("--memory {m} is not possible: a machine has 1 to {} MiB", qemu::MAX_MEMORY_MIB))
            }
            Run { ops: 0, .. } => refuse("--ops 0 measures nothing; give at least 1"),
            Run { patience: 0, .. } => refuse("--patience 0 ends every guest at once; give at least 1 second"),
            Run { qemu: Some(_), .. } if archs.len() > 1 => {
                refuse("--qemu names one emulator; give one --arch with it")
            }
            Run { gdb: Some(_), .. } if archs.len() > 1 => refuse("--gdb stops one machine; give one --arch with it"),
            _ => Ok(()),
        }
    }

    fn suite(&self) -> anyhow::Result<Suite> {
        let log = self.log.iter().cloned().collect::<Vec<_>>();
        const LEVELS: &[kernel::suite::Named] =
            &[("error", ""), ("warn", ""), ("info", ""), ("debug", ""), ("trace", "")];
        let word = |s: &String| !s.is_empty() && !s.contains(char::is_whitespace);
        if !self.inject.iter().all(word) {
            return Err(bad_input("--inject takes names separated by commas, without spaces"));
        }
        let workloads =
            names::choose_more("workload", &self.workload, kernel::workload::NAMES, kernel::workload::PROGRAMS)?;
        if self.user && self.walker != WalkerClass::NAMES[0].0 {
            return Err(bad_input("--user: programs have the kernel walk as gup does; leave --walker out"));
        }
        Ok(Suite {
            strategies: names::choose("strategy", &self.strategy, kernel::sync::NAMES)?,
            // Each transport has guests of its own: see `jobs`.
            transport: None,
            workloads,
            modes: names::choose("mode", &self.mode, Mode::NAMES)?,
            walker: self.walker()?,
            ops: self.ops,
            seed: self.seed,
            hook: self.hook,
            engine: if self.mttcg { Engine::Mttcg } else { Engine::Icount },
            inject: self.inject.clone(),
            without: names::choose("guard", &self.without, Guard::NAMES)?,
            user: self.user,
            profile: self.profile,
            log: names::choose("log level", &log, LEVELS)?.first().map(|l| l.to_string()),
        })
    }

    fn walker(&self) -> anyhow::Result<&'static str> {
        let chosen = names::choose("walker", std::slice::from_ref(&self.walker), WalkerClass::NAMES)?;
        match chosen[..] {
            [one] => Ok(one),
            _ => Err(bad_input("--walker takes one name; `cargo xtask list` names them")),
        }
    }

    /// The transports to run on; one, unnamed, for the architecture's own.
    fn transports(&self) -> anyhow::Result<Vec<Option<&'static str>>> {
        if self.transport.is_empty() {
            return Ok(vec![None]);
        }
        Ok(names::choose("transport", &self.transport, kernel::tlb::transport::NAMES)?.into_iter().map(Some).collect())
    }

    /// All guests, group by group. The measurements come first: they are short, and then each row is final when it
    /// comes.
    fn jobs(&self, archs: &[Arch], kinds: &[Kind], suite: &Suite, qemus: &[PathBuf]) -> anyhow::Result<Vec<Job>> {
        // A debugger attaches to one guest.
        let parts = if self.gdb.is_some() { vec![suite.clone()] } else { suite.by_strategy() };
        let transports = self.transports()?;
        let mut jobs = Vec::new();
        for (&arch, qemu) in archs.iter().zip(qemus) {
            for &transport in &transports {
                for part in &parts {
                    let part = Suite { transport, ..part.clone() };
                    let group = jobs.len() / kinds.len();
                    for &kind in kinds {
                        jobs.push(Job { group, kind, launch: self.launch(arch, kind, &part, qemu.clone()) });
                    }
                }
            }
        }
        jobs.sort_by_key(|job| job.kind != Kind::Plain);
        Ok(jobs)
    }

    fn launch(&self, arch: Arch, kind: Kind, suite: &Suite, qemu: PathBuf) -> Launch {
        let suite = if kind == Kind::Plain { suite.measurement() } else { suite.clone() };
        let mut command_line = suite.command_line(arch.native_transport());
        if kind == Kind::Checking && suite.engine == Engine::Icount {
            command_line += &format!(" tries={TRIES}");
        }
        Launch {
            arch,
            qemu,
            cpus: self.smp,
            memory_mib: self.memory.unwrap_or(qemu::default_memory_mib(self.smp)),
            image: image_path(arch, kind),
            // What a person can start by hand; the runner itself uses files without names.
            ram: format!("/dev/shm/{}-{}.ram", arch.name(), kind.name()).into(),
            serial: "/dev/stderr".into(),
            module: suite.runs_programs().then(|| programs::path(arch)),
            command_line,
            engine: suite.engine,
            gdb: self.gdb.is_some(),
        }
    }

    fn print_command_lines(&self, archs: &[Arch], kinds: &[Kind], suite: &Suite) -> anyhow::Result<()> {
        let program = |arch: &Arch| {
            let found = self.qemu.clone().or_else(|| qemu::find_program(arch.qemu()));
            found.unwrap_or_else(|| arch.qemu().into())
        };
        let programs: Vec<PathBuf> = archs.iter().map(program).collect();
        let mut jobs = self.jobs(archs, kinds, suite, &programs)?;
        jobs.sort_by_key(|job| job.group);
        for Job { launch, .. } in jobs {
            output::print(&format!("{}\n", qemu::shell_line(&launch.qemu, &qemu::arguments(&launch))))?;
        }
        Ok(())
    }

    /// Set-up and build: afterwards images and emulators are there.
    fn prepare(
        &self,
        archs: &[Arch],
        kinds: &[Kind],
        programs: bool,
        given: Option<Qemu>,
    ) -> anyhow::Result<Vec<Qemu>> {
        let wanted: Vec<(Arch, Kind)> = archs.iter().flat_map(|&a| kinds.iter().map(move |&k| (a, k))).collect();
        let stale = build::stale(&wanted);
        if given.is_none() || !stale.is_empty() {
            setup::ensure_ready(archs, !stale.is_empty())?;
        }
        if !stale.is_empty() {
            build::build(&stale, self.verbose)?;
        }
        let archs_without = if programs { programs::stale(archs) } else { Vec::new() };
        if !archs_without.is_empty() {
            setup::ensure_ready(archs, true)?;
            programs::build(&archs_without, self.verbose)?;
        }
        if let Some(qemu) = given {
            return Ok(vec![qemu]);
        }
        archs
            .iter()
            .map(|&a| setup::installed_qemu(a).ok_or_else(|| anyhow::anyhow!("{} went away during set-up", a.qemu())))
            .collect()
    }

    fn boot(
        &self,
        archs: &[Arch],
        kinds: &[Kind],
        suite: &Suite,
        qemus: &[Qemu],
        session: &mut Session,
    ) -> anyhow::Result<Vec<Row>> {
        let version = |q: &Qemu| q.version.to_string();
        let mut versions: Vec<String> = qemus.iter().map(version).collect();
        versions.dedup();
        session.setting = Some(Setting {
            cpus: self.smp,
            ops: self.ops,
            seed: self.seed,
            engine: suite.engine.name(),
            qemu: versions.join("/"),
        });
        let programs: Vec<PathBuf> = qemus.iter().map(|q| q.path.clone()).collect();
        let jobs = self.jobs(archs, kinds, suite, &programs)?;
        let cells = suite.cells() * archs.len() * self.transports()?.len();
        if self.verbose {
            for Job { launch, .. } in &jobs {
                eprintln!("$ {}", qemu::shell_line(&launch.qemu, &qemu::arguments(launch)));
            }
        }
        session.bar = Some(Cells::begin(cells as u64));
        let at_once = std::thread::available_parallelism().map_or(2, usize::from);
        let patience = Some(Duration::from_secs(self.patience));
        let begin = Instant::now();
        let rows = guests::run(&jobs, at_once, patience, session);
        if let Some(bar) = session.bar.take() {
            bar.end();
        }
        if rows.is_ok() {
            let first = session.first_output.map_or("-".into(), |t| t.as_millis().to_string());
            eprintln!(
                "run: {cells} cells in {:.1} s, first guest output after {first} ms (aims, on two idle cores: 5 s for an \
                 architecture's default suite, 100 ms)",
                begin.elapsed().as_secs_f64()
            );
        }
        rows
    }
}
