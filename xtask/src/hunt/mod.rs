//! `cargo xtask hunt`: searches seeds for a violation, makes what it finds small, and tells it as one timeline.

mod covered;
pub(crate) mod emitters;
mod pairs;
mod shrink;

use std::time::{Duration, Instant};

use clap::Args;
use kernel::guard::Guard;
use kernel::record::cell::Verdict;
use kernel::suite::Mode;
use kernel::workload::walker::WalkerClass;

use crate::arch::{self, Arch};
use crate::build::Kind;
use crate::error::{self, Outcome, bad_input};
use crate::names;
use crate::output;
use crate::probe::{self, Bench, Probe};
use crate::programs;
use crate::progress::Cells;
use crate::rows::Row;
use crate::seeds::Seeds;
use crate::suite::{Engine, Hook, Suite};
use crate::table::{grouped, paragraph};
use crate::trace::timeline::Timeline;
use crate::trace::{Recording, TraceOption};
use crate::violation;

use covered::{Covered, crossed};
use pairs::Pairs;
use shrink::{Case, Wrong};

/// Searches seeds for a violation and tells the smallest one that it finds as a timeline
///
/// Standard output depends on the options only; with --minutes, and without a violation, also on how far it came.
#[derive(Args)]
pub(crate) struct Hunt {
    /// x86_64 or aarch64
    #[arg(long, value_name = "ARCH")]
    arch: String,
    /// The strategy
    #[arg(long, value_name = "NAME")]
    strategy: String,
    /// How a flush reaches other CPUs; the architecture's own if not given
    #[arg(long, value_name = "NAME")]
    transport: Option<String>,
    /// Who walks, and in which context: gup, nmi, nmi-other, foreign, rcu, two-word
    #[arg(long, value_name = "NAME", default_value = "gup")]
    walker: String,
    /// Workloads, or all
    #[arg(long, value_name = "NAME,..", value_delimiter = ',', default_value = "all")]
    workload: Vec<String>,
    /// Seeds, in this order
    #[arg(long, value_name = "A..B", default_value = "1..64")]
    seeds: Seeds,
    /// Goes on with further seeds until so much time is over
    #[arg(long, value_name = "M")]
    minutes: Option<u64>,
    /// CPUs of the machine
    #[arg(long, value_name = "N", default_value_t = 4)]
    smp: u32,
    /// Operations of each cell
    #[arg(long, value_name = "K", default_value_t = 16)]
    ops: u64,
    /// Overrides what static-hook believes of the transport
    #[arg(long, value_enum, default_value_t = Hook::Auto)]
    hook: Hook,
    /// Faults to inject: batch:N, trylock:N, queue:N, freeze:N; each strikes once in N times
    #[arg(long, value_name = "FAULT,..", value_delimiter = ',')]
    inject: Vec<String>,
    /// Takes guards of the kernel away
    #[arg(long, value_name = "GUARD,..", value_delimiter = ',')]
    guard: Vec<String>,
    /// Has programs in user mode do the operations
    #[arg(long)]
    user: bool,
    /// Shows what was found as it was found
    #[arg(long)]
    exact: bool,
    #[command(flatten)]
    trace: TraceOption,
}

/// What is the same for all runs of a hunt.
struct Ground {
    arch: Arch,
    bench: Bench,
    /// Seed, workloads and operations are those of each case.
    suite: Suite,
}

/// What one case showed.
struct Shown {
    wrong: Option<Wrong>,
    row: Option<Row>,
    fault: Option<String>,
    timeline: Option<Timeline>,
    rows: Vec<Row>,
    pairs: Pairs,
    points: u64,
    recording: Recording,
}

impl Hunt {
    /// Does it.
    pub(crate) fn run(self) -> anyhow::Result<Outcome> {
        let archs = arch::choose(&self.arch)?.0;
        let [arch] = archs[..] else {
            return Err(bad_input("hunt searches one architecture: give --arch x86_64 or aarch64"));
        };
        if self.smp < 2 || self.smp > arch.max_cpus() || self.ops == 0 {
            let most = arch.max_cpus();
            return Err(bad_input(format!("hunt needs 2 to {most} CPUs and at least 1 operation")));
        }
        let suite = self.suite()?;
        if self.user {
            programs::ready(&[arch])?;
        }
        let trace = self.trace.begin()?;
        let first = Case { cpus: self.smp, ops: self.ops, workloads: suite.workloads.clone(), seed: 0 };
        let ground = Ground { arch, bench: Bench::ready(&[arch], Kind::Checking)?, suite };
        let mut covered = Covered::default();
        let Some(found) = self.search(&ground, &first, &mut covered)? else {
            output::print(&self.nothing(&ground, &covered))?;
            if trace.is_some() {
                eprintln!("hunt: nothing was found, so there is no trace");
            }
            return Ok(if covered.expected == 0 { Outcome::Expected } else { Outcome::Unexpected });
        };
        let (small, tried) = if self.exact { (found.clone(), 0) } else { self.shrink(&ground, found.clone())? };
        let shown = ground.look(&small.case, &|| false)?;
        anyhow::ensure!(
            shown.wrong.as_ref() == Some(&small),
            "the same run came out differently: this is not deterministic"
        );
        output::print(&self.report(&ground, &found, &small, tried, &shown))?;
        if let Some(mut trace) = trace {
            trace.add(0, Recording { title: self.title(&ground), ..shown.recording });
            trace.finish()?;
        }
        let to_be_found = !ground.suite.without.is_empty() || shown.row.is_some_and(|r| r.expected == Verdict::Unsafe);
        Ok(if to_be_found { Outcome::Expected } else { Outcome::Unexpected })
    }

    fn suite(&self) -> anyhow::Result<Suite> {
        let transport: Vec<String> = self.transport.iter().cloned().collect();
        let strategies = names::choose("strategy", std::slice::from_ref(&self.strategy), kernel::sync::NAMES)?;
        let transports = names::choose("transport", &transport, kernel::tlb::transport::NAMES)?;
        let walkers = names::choose("walker", std::slice::from_ref(&self.walker), WalkerClass::NAMES)?;
        let [walker] = walkers[..] else { return Err(bad_input("hunt searches one class of walkers")) };
        if strategies.len() != 1 || transports.len() > 1 {
            return Err(bad_input("hunt searches one strategy on one transport; `cargo xtask list` names them"));
        }
        if self.user && walker != WalkerClass::NAMES[0].0 {
            return Err(bad_input("--user: programs have the kernel walk as gup does; leave --walker out"));
        }
        Ok(Suite {
            strategies,
            transport: transports.first().copied(),
            workloads: names::choose("workload", &self.workload, kernel::workload::NAMES)?,
            modes: vec![Mode::NAMES[Mode::Contend as usize].0],
            walker,
            ops: self.ops,
            seed: 0,
            hook: self.hook,
            engine: Engine::Icount,
            inject: self.inject.clone(),
            without: names::choose("guard", &self.guard, Guard::NAMES)?,
            user: self.user,
            profile: false,
            log: None,
        })
    }

    /// The first seed, in their order, with which something goes wrong.
    fn search(&self, ground: &Ground, first: &Case, covered: &mut Covered) -> anyhow::Result<Option<Wrong>> {
        let end = self.minutes.map(|m| Instant::now() + Duration::from_secs(60 * m));
        let mut from = self.seeds.iter().next().unwrap_or(0);
        let mut bar = Cells::of(self.seeds.count(), "seeds");
        loop {
            let cases: Vec<Case> =
                (0..self.seeds.count()).map(|n| Case { seed: from.wrapping_add(n), ..first.clone() }).collect();
            let looks = |case: &Case, stop: &dyn Fn() -> bool| {
                let shown = ground.look(case, stop)?;
                bar.one_more(format!("seed {}", case.seed));
                Ok(shown)
            };
            let shown = probe::in_order(&cases, probe::at_once(), looks, |s| s.wrong.is_some())?;
            let mut wrong = None;
            for one in shown {
                covered.add(&one.rows);
                covered.pairs.join(one.pairs);
                covered.points |= one.points;
                wrong = one.wrong;
            }
            bar.end();
            if wrong.is_some() || end.is_none_or(|end| Instant::now() >= end) {
                return Ok(wrong);
            }
            from = from.wrapping_add(self.seeds.count());
            bar = Cells::of(self.seeds.count(), "more seeds");
        }
    }

    fn shrink(&self, ground: &Ground, found: Wrong) -> anyhow::Result<(Wrong, usize)> {
        let step = crate::progress::Step::begin("hunt: found one, making it smaller");
        let looks = |case: &Case, stop: &dyn Fn() -> bool| Ok(ground.look(case, stop)?.wrong);
        let result = shrink::shrink(found, &mut |cases| {
            Ok(probe::in_order(cases, probe::at_once(), looks, Option::is_some)?.pop().flatten())
        });
        match &result {
            Ok(_) => step.done(),
            Err(_) => step.failed(),
        }
        result
    }

    fn title(&self, ground: &Ground) -> String {
        let without = match &ground.suite.without[..] {
            [] => String::new(),
            guards => format!(", without {}", guards.join(", ")),
        };
        let transport = ground.suite.transport.unwrap_or(ground.arch.native_transport());
        let by = if self.user { ", by programs" } else { "" };
        format!("{} on {}, {transport}{by}{without}", self.strategy, ground.arch.name())
    }

    fn nothing(&self, ground: &Ground, covered: &Covered) -> String {
        let mut out = format!(
            "Nothing found: {}: {} seeds from {} on, {} cells, {} operations, {} walks that returned {} pages.\n",
            self.title(ground),
            covered.seeds,
            self.seeds.iter().next().unwrap_or(0),
            covered.cells,
            grouped(covered.ops),
            grouped(covered.walks),
            grouped(covered.pages)
        );
        out += &covered.not_run();
        if covered.walks > 0 {
            out += &paragraph(0, &crossed(covered.points));
            out += &paragraph(0, &covered.pairs.text());
        }
        if covered.expected > 0 {
            out += &format!("NOT as expected: a violation was to be found in {} of these cells.\n", covered.expected);
        }
        out
    }

    fn report(&self, ground: &Ground, found: &Wrong, small: &Wrong, tried: usize, shown: &Shown) -> String {
        let mut out = format!("Found: {}.\n", self.title(ground));
        if !self.exact {
            let (from, to) = (in_words(&found.case), in_words(&small.case));
            out += &paragraph(0, &format!("Made smaller in {tried} steps, from {from} to {to}."));
        }
        out += "\n";
        if let Some(row) = &shown.row {
            out += &paragraph(0, &format!("{}: {}.", violation::heading(row), violation::in_words(row)));
        }
        if let Some(fault) = &shown.fault {
            out += &paragraph(0, &format!("{fault}."));
        }
        if let Some(timeline) = &shown.timeline {
            out += &format!("\n{}\nWhere these are written down:\n", timeline.text());
            for kind in timeline.kinds() {
                out += &paragraph(2, &format!("{kind:?}: {}", emitters::places(kind).join(", ")));
            }
        }
        out += &format!("\nThe same again, byte for byte:\n  {}\n", self.replay(ground, &small.case));
        out
    }

    /// The command that runs `case` and nothing else.
    fn replay(&self, ground: &Ground, case: &Case) -> String {
        let suite = ground.suite_of(case);
        let mut words = format!(
            "cargo xtask hunt --arch {} --strategy {} --transport {} --workload {} --smp {} --ops {} --seeds {} --exact",
            ground.arch.name(),
            suite.strategies.join(","),
            suite.transport.unwrap_or(ground.arch.native_transport()),
            suite.workloads.join(","),
            case.cpus,
            case.ops,
            case.seed,
        );
        if suite.walker != WalkerClass::NAMES[0].0 {
            words += &format!(" --walker {}", suite.walker);
        }
        if self.hook != Hook::Auto {
            words += &format!(" --hook {}", suite.hook.word());
        }
        if !suite.inject.is_empty() {
            words += &format!(" --inject {}", suite.inject.join(","));
        }
        if !suite.without.is_empty() {
            words += &format!(" --guard {}", suite.without.join(","));
        }
        if suite.user {
            words += " --user";
        }
        words
    }
}

fn in_words(case: &Case) -> String {
    let of = |n: u64, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
    let (ops, workloads) = (of(case.ops, "operation"), of(case.workloads.len() as u64, "workload"));
    format!("{} CPUs, {ops}, {workloads}, seed {}", case.cpus, case.seed)
}

impl Ground {
    fn suite_of(&self, case: &Case) -> Suite {
        Suite { workloads: case.workloads.clone(), ops: case.ops, seed: case.seed, ..self.suite.clone() }
    }

    fn look(&self, case: &Case, stop: &dyn Fn() -> bool) -> anyhow::Result<Shown> {
        let probe =
            Probe { arch: self.arch, cpus: case.cpus, kind: Kind::Checking, suite: self.suite_of(case), more: None };
        let outcome = self.bench.run(&probe, stop)?;
        let row = outcome.rows.iter().find(|r| r.verdict == Verdict::Unsafe).cloned();
        let mut pairs = Pairs::default();
        pairs.add(&outcome.events);
        let timeline = match (&row, &outcome.fault) {
            (Some(row), _) => Some(Timeline::around(&row.cell.first, &outcome.events)),
            (None, Some(_)) => Some(Timeline::end_of(&outcome.events)),
            (None, None) => None,
        };
        let wrong = (row.is_some() || outcome.fault.is_some()).then(|| Wrong {
            case: case.clone(),
            workload: row.as_ref().map(|r| r.workload),
            op: row.as_ref().map(|r| r.cell.first.op),
        });
        let cells: Vec<_> = outcome.rows.iter().map(|r| r.cell).collect();
        let recording = Recording::new(self.arch, String::new(), &cells, outcome.events);
        let fault = outcome.fault.filter(|_| row.is_none()).map(|f| error::first_line(&f));
        Ok(Shown { wrong, row, fault, timeline, rows: outcome.rows, pairs, points: outcome.points, recording })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_case_in_words() {
        let case = Case { cpus: 2, ops: 3, workloads: vec!["collapse_anon"], seed: 9 };
        assert_eq!(in_words(&case), "2 CPUs, 3 operations, 1 workload, seed 9");
    }
}
