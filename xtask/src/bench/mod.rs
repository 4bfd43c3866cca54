//! `cargo xtask bench`: what operations and walks cost in instructions, and what moved since the last results that were
//! kept.

mod kept;
mod measured;
mod oracle;
mod others;

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use kernel::suite::Mode;
use kernel::workload::walker::WalkerClass;
use serde::Serialize;

use crate::arch::{self, Arch, ArchChoice};
use crate::build::{Kind, repository};
use crate::error::Outcome;
use crate::linux::Reference;
use crate::names;
use crate::output;
use crate::probe::{self, Bench as Machines, Probe};
use crate::programs;
use crate::results_file::ResultsFile;
use crate::rows::{Row, SCHEMA};
use crate::setup;
use crate::suite::{Engine, Hook, Suite};
use crate::table::{count, grouped};

pub(crate) use kept::Kept;

use self::measured::{Measured, messages, operations, walks};

/// The strategy that walks are compared with.
const YARDSTICK: &str = "sync-all";
/// CPUs of each machine; all but one are idle.
const CPUS: u32 = 4;

/// The programs of `bench ipc`, and what one operation of each is to cost.
const IPC: [(&str, Option<f64>); 7] = [
    ("null_call", Some(100.0)),
    ("call_reply", Some(300.0)),
    ("call_reply_apart", None),
    ("call_reply_far", None),
    ("message_4k", None),
    ("message_64k", None),
    ("message_1m", None),
];
/// How many times as many operations the long run has more than the short one.
const IPC_ROUNDS: u64 = 8;
/// What is measured.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum What {
    /// Instructions of one operation of each workload, against Linux
    Ops,
    /// Instructions of one get_user_pages_fast, against sync-all
    Walk,
    /// Instructions of a null system call and of a message with its answer, programs included
    Ipc,
    /// What the oracle costs: the same operations and walks with it, with it turned off, and in the plain image
    Oracle,
}

impl What {
    fn name(self) -> &'static str {
        match self {
            What::Ops => "ops",
            What::Walk => "walk",
            What::Ipc => "ipc",
            What::Oracle => "oracle",
        }
    }
}

/// Counts instructions of operations or of walks in the plain image, and says what moved since the results in
/// bench/results.json
#[derive(Args)]
pub(crate) struct Bench {
    /// What to measure
    what: What,
    /// x86_64, aarch64 or all
    #[arg(long, value_name = "ARCH", default_value = "all")]
    arch: String,
    /// Strategies, or all; sync-all for ops and all for walks if not given
    #[arg(long, value_name = "NAME,..", value_delimiter = ',')]
    strategy: Vec<String>,
    /// Operations of each cell, or walks; numbers that were kept are those of the default
    #[arg(long, value_name = "K", default_value_t = 64)]
    ops: u64,
    /// Writes one JSON object a line, and a summary last
    #[arg(long, value_name = "PATH")]
    json: Option<PathBuf>,
    /// Keeps the results in bench/results.json
    #[arg(long)]
    save: bool,
}

/// The last object of a results file.
#[derive(Serialize)]
struct Summary {
    schema: u32,
    summary: bool,
    rows: usize,
    moved: usize,
}

impl Bench {
    /// Does it.
    pub(crate) fn run(self) -> anyhow::Result<Outcome> {
        let ArchChoice(archs) = arch::choose(&self.arch)?;
        anyhow::ensure!(self.ops > 0, crate::error::bad_input("--ops 0 measures nothing; give at least 1"));
        if self.what == What::Oracle {
            let takes_more = !self.strategy.is_empty() || self.json.is_some() || self.save;
            anyhow::ensure!(!takes_more, crate::error::bad_input("bench oracle takes --arch and --ops only"));
            return oracle::run(&archs, self.ops);
        }
        let given: Vec<String> = match (&self.strategy[..], self.what) {
            ([], What::Ops | What::Ipc | What::Oracle) => vec![YARDSTICK.into()],
            ([], What::Walk) => vec!["all".into()],
            (given, _) => given.to_vec(),
        };
        let mut strategies = names::choose("strategy", &given, kernel::sync::NAMES)?;
        if self.what == What::Walk && !strategies.contains(&YARDSTICK) {
            strategies.insert(0, YARDSTICK);
        }
        let results = self.json.as_deref().map(ResultsFile::create).transpose()?;
        let machines = Machines::ready(&archs, Kind::Plain)?;
        let programs = if self.what == What::Ipc { programs::stale(&archs) } else { Vec::new() };
        if !programs.is_empty() {
            setup::ensure_ready(&archs, true)?;
            programs::build(&programs, false)?;
        }
        // What programs cost to start and to end is the same in a short run and in a long one.
        let lengths: &[u64] = if self.what == What::Ipc { &[1, 1 + IPC_ROUNDS] } else { &[1] };
        let each = |&arch| lengths.iter().map(move |length| (arch, length * self.ops));
        let probes: Vec<Probe> =
            archs.iter().flat_map(each).map(|(arch, ops)| self.probe(arch, &strategies, ops)).collect();
        let work = |probe: &Probe, stop: &dyn Fn() -> bool| {
            let outcome = machines.run(probe, stop)?;
            outcome.fault.map_or(Ok(outcome.rows), |fault| Err(anyhow::anyhow!(fault)))
        };
        let rows: Vec<Row> =
            probe::in_order(&probes, probe::at_once(), work, |_| false)?.into_iter().flatten().collect();
        let measured = match self.what {
            What::Ops => operations(&rows, &Reference::load()),
            What::Walk => walks(&rows)?,
            What::Ipc | What::Oracle => messages(&rows)?,
        };
        let path = repository().join("bench/results.json");
        let mut kept = Kept::load(&path)?;
        let moved = kept.moved(&measured.iter().map(|m| (m.key(), m.instructions)).collect::<Vec<_>>());
        output::print(&(table(self.what, &archs, &measured) + &kept::text(&moved, kept.is_empty())))?;
        if let Some(mut results) = results {
            measured.iter().try_for_each(|m| results.add_object(m))?;
            results.finish(&Summary { schema: SCHEMA, summary: true, rows: measured.len(), moved: moved.len() })?;
        }
        if self.save {
            kept.keep(measured.iter().map(|m| (m.key(), m.instructions)));
            kept.save(&path)?;
            eprintln!("bench: kept in {}", shown(&path));
        }
        Ok(Outcome::Expected)
    }

    fn probe(&self, arch: Arch, strategies: &[&'static str], ops: u64) -> Probe {
        let all = || kernel::workload::NAMES.iter().map(|(name, _)| *name).collect();
        let workloads = if self.what == What::Ipc { IPC.iter().map(|(name, _)| *name).collect() } else { all() };
        let suite = Suite {
            strategies: strategies.to_vec(),
            transport: None,
            workloads,
            modes: vec![Mode::NAMES[Mode::Idle as usize].0],
            walker: WalkerClass::NAMES[0].0,
            ops,
            seed: 1,
            hook: Hook::Auto,
            profile: false,
            engine: Engine::Icount,
            inject: Vec::new(),
            without: Vec::new(),
            user: false,
            log: Some("error".into()),
        };
        let more = (self.what == What::Walk).then_some("bench=walk");
        Probe { arch, cpus: CPUS, kind: Kind::Plain, suite, more }
    }
}

fn shown(path: &Path) -> String {
    path.strip_prefix(repository()).unwrap_or(path).display().to_string()
}

fn table(what: What, archs: &[Arch], measured: &[Measured]) -> String {
    let mut out = String::new();
    for &arch in archs {
        out += &match what {
            What::Ops => format!("{}: instructions per operation, other CPUs idle\n", arch.name()),
            What::Ipc | What::Oracle => format!("{}: instructions per call, the program's own included\n", arch.name()),
            What::Walk => {
                format!("{}: instructions per get_user_pages_fast of so many pages, other CPUs idle\n", arch.name())
            }
        };
        let mine: Vec<&Measured> = measured.iter().filter(|m| m.arch == arch).collect();
        let width = mine.iter().map(|m| m.subject.len()).max().unwrap_or(0);
        for m in mine {
            let ratios: Vec<String> = m.ratios.iter().map(|(name, ratio)| format!("{ratio:.3} of {name}")).collect();
            let text = format!(
                "  {:17} {:>width$} {:>10}   {}",
                m.strategy,
                m.subject,
                if m.instructions.fract() == 0.0 { grouped(m.instructions as u64) } else { count(m.instructions) },
                ratios.join(", ")
            );
            out += text.trim_end();
            out.push('\n');
        }
        out += &match what {
            What::Walk => others::walks(arch),
            What::Ipc => others::messages(arch),
            What::Ops | What::Oracle => String::new(),
        };
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::tests::cell;
    use kernel::record::cell::CellRow;

    fn walk(strategy: &str, pages: u64, instructions: u64) -> Row {
        let number = kernel::sync::NAMES.iter().position(|(n, _)| *n == strategy).unwrap() as u16;
        let record =
            CellRow { walks: 64, pages: 64 * pages, instructions: 64 * instructions, ..cell(number, 0, Mode::Idle) };
        Row::resolve(Arch::Aarch64, record).unwrap()
    }

    #[test]
    fn walks_are_compared_with_those_of_sync_all() {
        let rows = [walk("sync-all", 1, 100), walk("sync-all", 8, 200), walk("targeted", 8, 210)];
        let measured = walks(&rows).unwrap();
        assert_eq!(measured[2].ratios, [("sync-all".to_owned(), 1.05), ("aim".to_owned(), 210.0 / 295.0)]);
        assert_eq!((measured[2].instructions, measured[2].key().as_str()), (210.0, "walk aarch64 targeted 8"));
        let text = table(What::Walk, &[Arch::Aarch64], &measured);
        assert!(text.contains("  targeted          8        210   1.050 of sync-all, 0.712 of aim\n"), "{text}");
    }

    #[test]
    fn a_walk_that_got_less_is_an_error() {
        assert!(walks(&[walk("sync-all", 7, 100)]).is_err());
    }
}
