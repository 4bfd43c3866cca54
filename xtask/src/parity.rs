//! `cargo xtask parity`: our rounds of flush and sync against those of Linux, workload by workload.

use clap::Args;
use kernel::suite::Mode;
use kernel::workload::walker::WalkerClass;

use crate::arch::{self, Arch, ArchChoice};
use crate::build::Kind;
use crate::error::{Outcome, bad_input};
use crate::linux::{Live, Now, Reference, Rounds};
use crate::names;
use crate::output;
use crate::probe::{self, Bench, Probe};
use crate::programs;
use crate::progress::Cells;
use crate::rows::Row;
use crate::suite::{Engine, Hook, Suite};
use crate::table::{count, paragraph};

/// Operations of each cell: whole batches of eight, so that the round that one batch adds is counted exactly.
const OPS: u64 = 32;
const MODES: [Mode; 2] = [Mode::Same, Mode::Other];
/// The strategy that stands for Linux.
const LIKE_LINUX: &str = "sync-all";

/// Compares rounds of flush and sync with those of Linux, on the architecture's own transport
///
/// Under sync-all they must be equal, but where ours does better on purpose. Another strategy shows what Linux would
/// save by it.
#[derive(Args)]
pub(crate) struct Parity {
    /// x86_64, aarch64 or all
    #[arg(long, value_name = "ARCH", default_value = "all")]
    arch: String,
    /// The strategy that is compared
    #[arg(long, value_name = "NAME", default_value = LIKE_LINUX)]
    strategy: String,
    /// Sizes of machines
    #[arg(long, value_name = "N,..", value_delimiter = ',', default_value = "2,4,8,16")]
    cpus: Vec<u32>,
    /// Programs in user mode do the operations
    #[arg(long)]
    user: bool,
    /// Boots a stock Linux on the same machines too, and sets what it does now beside the rest
    #[arg(long)]
    live: bool,
}

/// One line: ours and Linux's, in rounds for each operation.
#[derive(Clone, PartialEq, Debug)]
struct Line {
    workload: &'static str,
    cpus: u32,
    mode: Mode,
    ours: Rounds,
    predicted: Rounds,
    /// Of the kernels that were measured, by version.
    measured: Vec<(String, Rounds)>,
    /// Of the kernel that was booted now, and whether it is not what the source says.
    live: Option<(Rounds, bool)>,
}

/// How a line compares.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Comparison {
    Equal,
    /// Fewer rounds, on purpose, for this reason.
    Better(&'static str),
    Different,
}

/// Where ours deliberately needs fewer rounds of flush than Linux, by how many, and why.
fn deliberately_better(workload: &str) -> Option<(f64, &'static str)> {
    match workload {
        "unshare_mprotect_last" => Some((
            1.0,
            "Linux unshares inside the protection change with a gather of its own, and the outer one sees that it is nested and flushes everything again; \
             ours uses one gather for both",
        )),
        _ => None,
    }
}

fn compare(line: &Line) -> Comparison {
    let close = |a: f64, b: f64| (a - b).abs() < 1e-9;
    let sync = close(line.ours.sync, line.predicted.sync);
    if sync && close(line.ours.flush, line.predicted.flush) {
        return Comparison::Equal;
    }
    match deliberately_better(line.workload) {
        Some((fewer, why)) if sync && close(line.ours.flush + fewer, line.predicted.flush) => Comparison::Better(why),
        _ => Comparison::Different,
    }
}

/// Targets per operation as rounds: each goes to every other CPU.
fn rounds(flush_targets: f64, sync_targets: f64, cpus: u32) -> Rounds {
    let others = f64::from(cpus.max(2) - 1);
    Rounds { flush: flush_targets / others, sync: sync_targets / others }
}

/// What Linux does according to its source: flushes interrupt on x86_64 only, and only CPUs of the mm.
fn predicted(arch: Arch, mode: Mode, all: Rounds) -> Rounds {
    let interrupts = arch == Arch::X86_64 && mode == Mode::Same;
    Rounds { flush: if interrupts { all.flush } else { 0.0 }, ..all }
}

impl Parity {
    /// Does it.
    pub(crate) fn run(self) -> anyhow::Result<Outcome> {
        let ArchChoice(archs) = arch::choose(&self.arch)?;
        let strategies = names::choose("strategy", std::slice::from_ref(&self.strategy), kernel::sync::NAMES)?;
        let [strategy] = strategies[..] else { return Err(bad_input("parity compares one strategy at a time")) };
        if self.cpus.iter().any(|n| *n < 2 || archs.iter().any(|a| *n > a.max_cpus())) {
            return Err(bad_input("--cpus takes numbers of at least 2 that the machines have"));
        }
        if self.live {
            Live::check(&self.cpus)?;
        }
        let linux = Reference::load();
        let workloads: Vec<&'static str> =
            kernel::workload::NAMES.iter().map(|(name, _)| *name).filter(|w| linux.prediction(w).is_some()).collect();
        let bench = Bench::ready(&archs, Kind::Checking)?;
        if self.user {
            programs::ready(&archs)?;
        }
        let probes: Vec<Probe> = archs
            .iter()
            .flat_map(|&arch| self.cpus.iter().map(move |&cpus| (arch, cpus)))
            .map(|(arch, cpus)| Probe {
                arch,
                cpus,
                kind: Kind::Checking,
                suite: Suite { user: self.user, ..suite(strategy, &workloads) },
                more: None,
            })
            .collect();
        let bar = Cells::of(probes.len() as u64, "machines");
        let work = |probe: &Probe, stop: &dyn Fn() -> bool| {
            let outcome = bench.run(probe, stop)?;
            bar.one_more(format!("{} with {} CPUs", probe.arch.name(), probe.cpus));
            match outcome.fault {
                Some(fault) => Err(anyhow::anyhow!(fault)),
                None => Ok(outcome.rows),
            }
        };
        let rows: Vec<Row> =
            probe::in_order(&probes, probe::at_once(), work, |_| false)?.into_iter().flatten().collect();
        bar.end();
        let modes = MODES.map(|mode| Mode::NAMES[mode as usize].0);
        let live = self.live.then(|| Live::measure(&archs, &self.cpus, &workloads, &modes, OPS)).transpose()?;
        let mut wrong = rows.iter().filter(|r| r.is_unexpected()).count();
        for &arch in &archs {
            let lines = lines(arch, &workloads, &rows, &linux, live.as_ref());
            wrong += lines.iter().filter(|l| l.live.is_some_and(|(_, different)| different)).count();
            if strategy == LIKE_LINUX {
                wrong += lines.iter().filter(|l| compare(l) == Comparison::Different).count();
            }
            if let Some(live) = &live {
                output::print(&format!("Live: Linux {}\n", live.kernel(arch)))?;
            }
            output::print(&text(arch, strategy, &lines))?;
        }
        output::print(&verdict(strategy, wrong))?;
        Ok(if wrong == 0 { Outcome::Expected } else { Outcome::Unexpected })
    }
}

fn suite(strategy: &'static str, workloads: &[&'static str]) -> Suite {
    Suite {
        strategies: vec![strategy],
        transport: None,
        workloads: workloads.to_vec(),
        modes: MODES.iter().map(|mode| Mode::NAMES[*mode as usize].0).collect(),
        walker: WalkerClass::NAMES[0].0,
        ops: OPS,
        seed: 1,
        hook: Hook::Auto,
        profile: false,
        engine: Engine::Icount,
        inject: Vec::new(),
        without: Vec::new(),
        user: false,
        log: Some("error".into()),
    }
}

fn lines(arch: Arch, workloads: &[&'static str], rows: &[Row], linux: &Reference, live: Option<&Live>) -> Vec<Line> {
    let mut lines = Vec::new();
    for &workload in workloads {
        let Some(all) = linux.prediction(workload) else { continue };
        for mode in MODES {
            let name = Mode::NAMES[mode as usize].0;
            for row in rows.iter().filter(|r| r.arch == arch && r.workload == workload && r.mode == name) {
                let cpus = row.cell.cpus;
                let per_op = |n| row.per_op(n).unwrap_or_default();
                let measured = linux.measured(arch, workload, name, cpus);
                lines.push(Line {
                    workload,
                    cpus,
                    mode,
                    ours: rounds(per_op(row.cell.flush_ipis), per_op(row.cell.sync_ipis), cpus),
                    predicted: predicted(arch, mode, all),
                    measured: measured.into_iter().map(|(k, t)| (k, rounds(t.flush, t.sync, cpus))).collect(),
                    live: live.and_then(|l| l.of(arch, workload, name, cpus, linux)).map(|now| in_rounds(&now, cpus)),
                });
            }
        }
    }
    lines
}

fn in_rounds(now: &Now, cpus: u32) -> (Rounds, bool) {
    (rounds(now.targets.flush, now.targets.sync, cpus), now.different)
}

fn text(arch: Arch, strategy: &str, lines: &[Line]) -> String {
    let saves = strategy != LIKE_LINUX;
    let is_live = lines.iter().any(|line| line.live.is_some());
    let live_column = |text: &str| if is_live { format!("  {text:>11}") } else { String::new() };
    let mut out = format!(
        "{}, {}: {strategy} against Linux, rounds per operation to every other CPU (measured rounds contain background wake-ups)\n\n{:24} {:>4} {:5}  {:>11}  {:>11}{}  {:26}",
        arch.name(),
        arch.native_transport(),
        "workload",
        "CPUs",
        "mode",
        "ours F/S",
        "Linux F/S",
        live_column("live F/S"),
        "measured F/S"
    );
    out = out.trim_end().to_owned() + "\n";
    let mut reasons: Vec<(&str, &str)> = Vec::new();
    let pair = |r: &Rounds| format!("{}/{}", count(r.flush), count(r.sync));
    for line in lines {
        let measured: Vec<String> = line.measured.iter().map(|(kernel, r)| format!("{kernel} {}", pair(r))).collect();
        let note = match compare(line) {
            _ if saves => saving(line),
            Comparison::Equal => String::new(),
            Comparison::Better(why) => {
                if !reasons.contains(&(line.workload, why)) {
                    reasons.push((line.workload, why));
                }
                "  fewer on purpose".into()
            }
            Comparison::Different => "  DIFFERENT".into(),
        };
        let live_note = if line.live.is_some_and(|(_, different)| different) { "  LIVE DIFFERS" } else { "" };
        let text = format!(
            "{:24} {:>4} {:5}  {:>11}  {:>11}{}  {:26}{note}{live_note}",
            line.workload,
            line.cpus,
            Mode::NAMES[line.mode as usize].0,
            pair(&line.ours),
            pair(&line.predicted),
            live_column(&line.live.map_or("-".into(), |(now, _)| pair(&now))),
            measured.join(", ")
        );
        out += text.trim_end();
        out.push('\n');
    }
    for (workload, why) in reasons {
        out += &paragraph(0, &format!("{workload}, fewer on purpose: {why}."));
    }
    out + "\n"
}

/// What a strategy other than Linux's would save, in interrupts per operation.
fn saving(line: &Line) -> String {
    let others = f64::from(line.cpus - 1);
    let saved = (line.predicted.sync - line.ours.sync) * others;
    if saved.abs() < 1e-9 { String::new() } else { format!("  {} sync interrupts less", count(saved)) }
}

fn verdict(strategy: &str, wrong: usize) -> String {
    match (wrong, strategy == LIKE_LINUX) {
        (0, true) => "As expected: rounds are those of Linux, or fewer on purpose.\n".into(),
        (0, false) => format!("As expected: every count of {strategy} is the predicted one.\n"),
        (n, _) => format!("NOT as expected: {n} rows.\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(workload: &'static str, ours: (f64, f64), linux: (f64, f64)) -> Line {
        let rounds = |(flush, sync)| Rounds { flush, sync };
        Line {
            workload,
            cpus: 4,
            mode: Mode::Same,
            ours: rounds(ours),
            predicted: rounds(linux),
            measured: vec![],
            live: None,
        }
    }

    #[test]
    fn targets_become_rounds() {
        assert_eq!(rounds(3.375, 3.0, 4), Rounds { flush: 1.125, sync: 1.0 });
        assert_eq!(rounds(15.0, 0.0, 16), Rounds { flush: 1.0, sync: 0.0 });
    }

    #[test]
    fn flushes_interrupt_on_x86_64_and_only_cpus_of_the_mm() {
        let all = Rounds { flush: 1.125, sync: 1.0 };
        assert_eq!(predicted(Arch::X86_64, Mode::Same, all), all);
        assert_eq!(predicted(Arch::X86_64, Mode::Other, all).flush, 0.0);
        assert_eq!(predicted(Arch::Aarch64, Mode::Same, all), Rounds { flush: 0.0, sync: 1.0 });
    }

    #[test]
    fn only_what_is_listed_may_be_better() {
        assert_eq!(compare(&line("munmap_2m", (1.0, 0.0), (1.0, 0.0))), Comparison::Equal);
        assert_eq!(compare(&line("munmap_2m", (0.0, 0.0), (1.0, 0.0))), Comparison::Different);
        assert!(matches!(compare(&line("unshare_mprotect_last", (1.0, 1.0), (2.0, 1.0))), Comparison::Better(_)));
        assert_eq!(compare(&line("unshare_mprotect_last", (1.0, 0.0), (2.0, 1.0))), Comparison::Different);
        assert_eq!(compare(&line("unshare_mprotect_last", (3.0, 1.0), (2.0, 1.0))), Comparison::Different);
    }

    #[test]
    fn the_text_says_what_is_different_and_why() {
        let lines = [line("munmap_2m", (2.0, 0.0), (1.0, 0.0)), line("unshare_mprotect_last", (1.0, 1.0), (2.0, 1.0))];
        let text = text(Arch::X86_64, "sync-all", &lines);
        assert!(text.lines().any(|l| l.starts_with("munmap_2m") && l.ends_with("DIFFERENT")), "{text}");
        assert!(text.contains("unshare_mprotect_last, fewer on purpose: Linux unshares"), "{text}");
    }

    #[test]
    fn a_live_linux_has_a_column_and_a_mark_of_its_own() {
        let rounds = |flush, sync| Rounds { flush, sync };
        let good = Line { live: Some((rounds(1.0, 0.986), false)), ..line("collapse_anon", (1.0, 1.0), (1.0, 1.0)) };
        let bad = Line { live: Some((rounds(1.0, 0.0), true)), ..line("collapse_anon", (1.0, 1.0), (1.0, 1.0)) };
        let text = text(Arch::X86_64, "sync-all", &[good, bad]);
        let lines: Vec<&str> = text.lines().filter(|l| l.starts_with("collapse_anon")).collect();
        assert!(lines[0].contains("1/0.986") && !lines[0].contains("DIFFERS"), "{text}");
        assert!(lines[1].ends_with("LIVE DIFFERS"), "{text}");
        assert!(text.contains("live F/S"));
        let without = super::text(Arch::X86_64, "sync-all", &[line("collapse_anon", (1.0, 1.0), (1.0, 1.0))]);
        assert!(!without.contains("live"), "{without}");
    }

    #[test]
    fn another_strategy_shows_what_it_saves() {
        let lines = [line("collapse_anon", (1.0, 0.0), (1.0, 1.0)), line("munmap_2m", (1.0, 0.0), (1.0, 0.0))];
        let text = text(Arch::X86_64, "coverage", &lines);
        assert!(
            text.lines().any(|l| l.starts_with("collapse_anon") && l.ends_with("3 sync interrupts less")),
            "{text}"
        );
        assert!(!text.contains("DIFFERENT"));
    }
}
