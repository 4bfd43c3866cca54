//! `cargo xtask mutate`: takes one guard of the kernel away at a time, and requires that some check fails.

use clap::Args;
use kernel::guard::{Guard, ShownBy};
use kernel::record::cell::Verdict;
use kernel::suite::Mode;
use kernel::tlb::transport;
use kernel::workload::walker::WalkerClass;

use crate::arch::{self, Arch, ArchChoice};
use crate::build::Kind;
use crate::error::{self, Outcome, bad_input};
use crate::names;
use crate::output;
use crate::probe::{self, Bench, Probe};
use crate::progress::Cells;
use crate::rows::Row;
use crate::seeds::Seeds;
use crate::suite::{Engine, Hook, Suite};

/// The strategies under which a guard can be missed: one that syncs always, one that relies on the flush alone.
const STRATEGIES: [&str; 2] = ["none", "sync-all"];

/// What is run without these guards; with none taken away, everything that is used.
fn strategies(without: &[&str]) -> Vec<&'static str> {
    if without.iter().any(|guard| guard.starts_with("SelfMap")) {
        return vec!["self-map"];
    }
    let others = if without.is_empty() { &["self-map"][..] } else { &[] };
    [&STRATEGIES, others].concat()
}

/// Runs the kernel with one guard removed at a time: some check must fail
///
/// A run without a mutation comes first and must be as expected, else the whole command says nothing. A guard that nobody misses is an error.
#[derive(Args)]
pub(crate) struct Mutate {
    /// x86_64, aarch64 or all; a guard must be missed on one of them
    #[arg(long, value_name = "ARCH", default_value = "all")]
    arch: String,
    /// Only these guards; `all` are those that QEMU can show
    #[arg(long, value_name = "GUARD,..", value_delimiter = ',')]
    guard: Vec<String>,
    /// CPUs of each machine
    #[arg(long, value_name = "N", default_value_t = 4)]
    smp: u32,
    /// Operations of each cell
    #[arg(long, value_name = "K", default_value_t = 32)]
    ops: u64,
    /// Seeds, tried in this order until one notices
    #[arg(long, value_name = "A..B", default_value = "1..6")]
    seeds: Seeds,
}

/// How it was noticed that a guard is missing.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Notice {
    transport: &'static str,
    seed: u64,
    what: String,
}

/// What became of one guard on one architecture: `None` if nothing noticed in so many runs.
#[derive(Clone, Debug)]
struct Finding {
    guard: &'static str,
    arch: Arch,
    runs: usize,
    notice: Option<Notice>,
}

/// Where the absence of a guard can show: on the other transports its code is not reached, or the flush waits for all walks.
fn transports(guard: &str) -> Vec<&'static str> {
    let wanted: &[&str] = match guard {
        "FlushIpi" | "WalkIrqOff" => &["ipi"],
        "FlushOnResume" => &["paravirt"],
        "FlushBroadcast" | "PmdRecheck" | "PteRecheck" | "UnshareSync" | "GraceBeforeFree" => &["broadcast"],
        "ReclaimRescan" | "FaultPmdSame" | "CollapseFreeze" | "FlushBeforeFree" | "NestedGather" => {
            &["broadcast", "ipi"]
        }
        // A guard that is new here may show anywhere.
        _ => &["ipi", "broadcast", "paravirt", "mixed"],
    };
    transport::NAMES.iter().map(|(name, _)| *name).filter(|name| wanted.contains(name)).collect()
}

impl Mutate {
    /// Does it.
    pub(crate) fn run(self) -> anyhow::Result<Outcome> {
        let ArchChoice(archs) = arch::choose(&self.arch)?;
        if self.smp < 2 || self.ops == 0 {
            return Err(bad_input("mutate needs at least 2 CPUs and 1 operation: nobody else would look"));
        }
        let guards = self.guards()?;
        let bench = Bench::ready(&archs, Kind::Checking)?;
        let mut used: Vec<&'static str> = guards.iter().flat_map(|g| transports(g)).collect();
        used.sort();
        used.dedup();
        let control = self.control(&bench, &archs, &used)?;
        output::print(&control.text())?;
        if !control.holds() {
            return Ok(Outcome::Unexpected);
        }
        let mut findings = Vec::new();
        let bar = Cells::of((guards.len() * archs.len()) as u64, "mutants");
        for &guard in &guards {
            for &arch in &archs {
                findings.push(self.look(&bench, guard, arch)?);
                bar.one_more(guard.into());
            }
        }
        bar.end();
        output::print(&table(&findings))?;
        let survivors = survivors(&findings);
        output::print(&verdict(&survivors, guards.len()))?;
        Ok(if survivors.is_empty() { Outcome::Expected } else { Outcome::Unexpected })
    }

    fn guards(&self) -> anyhow::Result<Vec<&'static str>> {
        let in_qemu = Guard::NAMES
            .iter()
            .zip(Guard::SHOWN_BY)
            .filter(|(_, by)| **by == ShownBy::Qemu)
            .map(|((name, _), _)| *name);
        if self.guard.is_empty() || self.guard == ["all"] {
            return Ok(in_qemu.collect());
        }
        names::choose("guard", &self.guard, Guard::NAMES)
    }

    fn probe(&self, arch: Arch, transport: &'static str, seed: u64, without: Vec<&'static str>) -> Probe {
        let suite = Suite {
            strategies: strategies(&without),
            transport: Some(transport),
            workloads: kernel::workload::NAMES.iter().map(|(name, _)| *name).collect(),
            modes: vec![Mode::NAMES[Mode::Contend as usize].0],
            walker: WalkerClass::NAMES[0].0,
            ops: self.ops,
            seed,
            hook: Hook::Auto,
            engine: Engine::Icount,
            inject: Vec::new(),
            without,
            log: Some("error".into()),
        };
        Probe { arch, cpus: self.smp, kind: Kind::Checking, suite, more: None }
    }

    /// The same cells with every guard in place.
    fn control(&self, bench: &Bench, archs: &[Arch], transports: &[&'static str]) -> anyhow::Result<Control> {
        let mut probes = Vec::new();
        for &arch in archs {
            for &transport in transports {
                probes.extend(self.seeds.iter().map(|seed| self.probe(arch, transport, seed, Vec::new())));
            }
        }
        let bar = Cells::of(probes.len() as u64, "controls");
        let outcomes = probe::in_order(
            &probes,
            probe::at_once(),
            |probe, stop| {
                let outcome = bench.run(probe, stop)?;
                bar.one_more(format!("{} {}", probe.arch.name(), probe.suite.transport.unwrap_or_default()));
                Ok(outcome)
            },
            |_| false,
        )?;
        bar.end();
        let mut control = Control { runs: probes.len(), ..Control::default() };
        for (probe, outcome) in probes.iter().zip(&outcomes) {
            control.add(&format!("{}, {}", place(probe), probe.suite.seed), &outcome.rows, outcome.fault.as_deref());
        }
        Ok(control)
    }

    /// Runs without `guard` until something notices.
    fn look(&self, bench: &Bench, guard: &'static str, arch: Arch) -> anyhow::Result<Finding> {
        let mut probes = Vec::new();
        for seed in self.seeds.iter() {
            probes.extend(transports(guard).into_iter().map(|t| self.probe(arch, t, seed, vec![guard])));
        }
        let work = |probe: &Probe, stop: &dyn Fn() -> bool| {
            let outcome = bench.run(probe, stop)?;
            Ok(noticed(&outcome.rows, outcome.fault.as_deref()).map(|what| Notice {
                transport: probe.suite.transport.unwrap_or_default(),
                seed: probe.suite.seed,
                what,
            }))
        };
        let mut results = probe::in_order(&probes, probe::at_once(), work, Option::is_some)?;
        Ok(Finding { guard, arch, runs: results.len(), notice: results.pop().flatten() })
    }
}

fn place(probe: &Probe) -> String {
    format!("{}, {}", probe.arch.name(), probe.suite.transport.unwrap_or_default())
}

/// What the checks say of a run without a guard, if they say anything. A negative control that did not fire is no notice.
fn noticed(rows: &[Row], fault: Option<&str>) -> Option<String> {
    let wrong = rows.iter().find(|r| r.cell.miscounted != 0 || is_wrong(r));
    let of_row = wrong.map(|row| {
        let what = match row.violation() {
            Some(kind) if is_wrong(row) => kind.in_words().to_owned(),
            _ => crate::violation::complaint(row),
        };
        format!("{}, {}: {what}", row.workload, row.strategy)
    });
    of_row.or_else(|| fault.map(error::first_line))
}

/// Found unsafe where it had to be safe.
fn is_wrong(row: &Row) -> bool {
    row.verdict == Verdict::Unsafe && row.expected != Verdict::Unsafe
}

/// What the unmutated runs said.
#[derive(Default, Debug)]
struct Control {
    runs: usize,
    cells: usize,
    /// Cells in which a missing sync had to be found, and those in which it was.
    negative: usize,
    fired: usize,
    complaints: Vec<String>,
}

impl Control {
    fn add(&mut self, place: &str, rows: &[Row], fault: Option<&str>) {
        self.cells += rows.len();
        self.negative += rows.iter().filter(|r| r.expected == Verdict::Unsafe).count();
        self.fired += rows.iter().filter(|r| r.expected == Verdict::Unsafe && r.verdict == Verdict::Unsafe).count();
        if let Some(what) = noticed(rows, fault) {
            self.complaints.push(format!("{place}: {what}"));
        }
    }

    /// Whether the mutated runs say anything: nothing is wrong without a mutation, and the oracle does find what is wrong.
    fn holds(&self) -> bool {
        self.complaints.is_empty() && (self.negative == 0 || self.fired > 0)
    }

    fn text(&self) -> String {
        let mut out = format!(
            "Control: {} runs with every guard in place, {} cells; a sync that is never sent was found in {} of {} cells where it shows.\n",
            self.runs, self.cells, self.fired, self.negative
        );
        for complaint in &self.complaints {
            out += &crate::table::paragraph(2, complaint);
        }
        if !self.holds() {
            out += "VOID: the control is not as expected, so nothing follows from runs with a guard missing.\n";
        }
        out
    }
}

/// Guards whose absence was noticed nowhere.
fn survivors(findings: &[Finding]) -> Vec<&'static str> {
    let mut guards: Vec<&'static str> = findings.iter().map(|f| f.guard).collect();
    guards.dedup();
    guards.retain(|g| findings.iter().filter(|f| f.guard == *g).all(|f| f.notice.is_none()));
    guards
}

fn table(findings: &[Finding]) -> String {
    let width = findings.iter().map(|f| f.guard.len()).max().unwrap_or(0);
    let mut out = String::from("\n");
    let mut last = "";
    for finding in findings {
        let name = if finding.guard == last { "" } else { finding.guard };
        last = finding.guard;
        let what = match &finding.notice {
            Some(notice) => format!("{}, seed {}: {}", notice.transport, notice.seed, notice.what),
            None => format!("not noticed in {} runs ({})", finding.runs, transports(finding.guard).join(", ")),
        };
        out += &format!("{name:width$}  {:7}  {what}\n", finding.arch.name());
    }
    let host = Guard::NAMES.iter().zip(Guard::SHOWN_BY).filter(|(_, by)| **by == ShownBy::Host);
    for ((name, _), _) in host {
        out += &format!("{name:width$}  -        left to the checks on the host\n");
    }
    out
}

fn verdict(survivors: &[&str], guards: usize) -> String {
    use anstyle::AnsiColor::{Green, Red};
    if survivors.is_empty() {
        let good = Green.on_default().bold();
        return format!("\n{good}As expected{good:#}: each of {guards} guards is missed when it is taken away.\n");
    }
    let bad = Red.on_default().bold();
    format!("\n{bad}NOT as expected{bad:#}: nothing notices when these are taken away: {}.\n", survivors.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::tests::cell;
    use kernel::record::cell::{CellRow, Violation, ViolationKind};

    fn row(expected: Verdict, verdict: Verdict, miscounted: u8) -> Row {
        let first = Violation { kind: ViolationKind::WrongPage as u16, ..Violation::default() };
        let record = CellRow {
            expected: expected as u8,
            verdict: verdict as u8,
            miscounted,
            first,
            ..cell(1, 6, Mode::Contend)
        };
        Row::resolve(Arch::X86_64, record).unwrap()
    }

    #[test]
    fn what_counts_as_a_notice() {
        use Verdict::{Safe, Unsafe, Void};
        assert_eq!(noticed(&[row(Safe, Safe, 0), row(Unsafe, Unsafe, 0), row(Unsafe, Void, 0)], None), None);
        let seen = noticed(&[row(Safe, Safe, 0), row(Safe, Unsafe, 0)], None).unwrap();
        assert_eq!(seen, "collapse_anon, sync-all: a walk returned a page that its address did not map");
        assert!(noticed(&[row(Safe, Safe, 1)], None).unwrap().contains("counts differ"));
        assert_eq!(noticed(&[row(Safe, Safe, 0)], Some("it panicked\n  at x")).unwrap(), "it panicked");
    }

    #[test]
    fn a_control_that_finds_nothing_or_too_much_is_void() {
        use Verdict::{Safe, Unsafe, Void};
        let of = |rows: &[Row], fault| {
            let mut control = Control::default();
            control.add("x86_64, ipi, 1", rows, fault);
            control.holds()
        };
        assert!(of(&[row(Safe, Safe, 0), row(Unsafe, Unsafe, 0)], None));
        assert!(of(&[row(Safe, Safe, 0)], None));
        assert!(!of(&[row(Unsafe, Void, 0)], None));
        assert!(!of(&[row(Safe, Unsafe, 0)], None));
        assert!(!of(&[], Some("it hung")));
    }

    #[test]
    fn a_survivor_is_missed_on_no_architecture() {
        let notice = Some(Notice { transport: "ipi", seed: 1, what: "seen".into() });
        let finding = |guard, arch, notice| Finding { guard, arch, runs: 2, notice };
        let findings = [
            finding("A", Arch::X86_64, None),
            finding("A", Arch::Aarch64, notice),
            finding("B", Arch::X86_64, None),
            finding("B", Arch::Aarch64, None),
        ];
        assert_eq!(survivors(&findings), ["B"]);
        assert!(verdict(&["B"], 2).contains("these are taken away: B."));
        let text = table(&findings);
        assert!(text.contains("aarch64  ipi, seed 1: seen\n") && text.contains("not noticed in 2 runs"), "{text}");
    }

    #[test]
    fn every_guard_has_somewhere_to_show() {
        for (guard, _) in Guard::NAMES {
            assert!(!transports(guard).is_empty(), "{guard}");
        }
    }
}
