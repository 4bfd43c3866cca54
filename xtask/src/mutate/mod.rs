//! `cargo xtask mutate`: takes one guard of the kernel away at a time, and requires that some check fails.
//!
//! A guard says by whom it is missed ([`ShownBy`]): by the workloads in QEMU, which are run under seeds until one
//! notices; by a scenario, which takes it away in the setting that needs it; by checks on the host, which tests are.
//! Atomic orderings are guards too: loom's models are run without each ([`orderings`]). What is found is kept until all
//! is, so that a call that was interrupted is gone on with.

mod control;
mod finding;
pub(crate) mod orderings;

use std::time::Duration;

use clap::{Args, ValueEnum};
use kernel::guard::{Guard, ShownBy};
use kernel::suite::Mode;
use kernel::tlb::transport;
use kernel::workload::walker::WalkerClass;

use self::control::Control;
use self::finding::{Finding, Notice, noticed, survivors, table, verdict};
use crate::arch::{self, Arch, ArchChoice};
use crate::build::{self, Kind};
use crate::error::{Outcome, bad_input};
use crate::kept::{self, Kept};
use crate::names;
use crate::output;
use crate::probe::{self, Bench, Probe};
use crate::programs;
use crate::progress::Cells;
use crate::scenario;
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
/// A run without a mutation comes first and must be as expected, else the whole command says nothing. A guard that
/// nobody misses is an error.
#[derive(Args)]
pub(crate) struct Mutate {
    /// x86_64, aarch64 or all; a guard must be missed on one of them
    #[arg(long, value_name = "ARCH", default_value = "all")]
    arch: String,
    /// Only these guards; `all` are those that QEMU can show, by workloads or by scenarios
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
    /// Has programs in user mode do the operations of the workloads; guards that scenarios miss are left out, and those
    /// whose absence is seen by the tags in pages that no program has
    #[arg(long)]
    user: bool,
    /// Weakens the orderings of the kernel's atomics, one half at a time, under loom: too, or only that
    #[arg(long, value_enum, num_args = 0..=1, require_equals = true, default_missing_value = "too", value_name = "WHEN")]
    orderings: Option<Orderings>,
    /// Seconds for each loom test without a half of an ordering
    #[arg(long, value_name = "S", default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    limit: u64,
    /// Begins anew, also where an earlier call was interrupted
    #[arg(long)]
    fresh: bool,
}

/// Whether orderings are weakened beside guards, or alone.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Orderings {
    /// After the guards.
    Too,
    /// And no guards.
    Only,
}

/// Guards without which a translation is stale: the oracle sees that by the tag of the page, and what is in a page that
/// programs have is theirs.
const BY_TAGS: [&str; 3] = ["FlushBroadcast", "FlushOnResume", "FlushBeforeFree"];

/// Where what was found is kept until all is.
const KEPT: &str = "mutate/guards.jsonl";

/// Whether it is a scenario that misses the guard.
fn by_scenario(guard: &str) -> bool {
    Guard::NAMES.iter().zip(Guard::SHOWN_BY).any(|((name, _), by)| *name == guard && *by == ShownBy::Scenario)
}

/// Where the absence of a guard can show: on the other transports its code is not reached, or the flush waits for all
/// walks.
fn transports(guard: &str) -> Vec<&'static str> {
    let wanted: &[&str] = match guard {
        "FlushIpi" | "WalkIrqOff" => &["ipi"],
        "FlushOnResume" => &["paravirt"],
        "FlushBroadcast" | "PmdRecheck" | "UnshareSync" | "GraceBeforeFree" => &["broadcast"],
        "ReclaimRescan" | "FaultPmdSame" | "FlushBeforeFree" => &["broadcast", "ipi"],
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
        let guards_are_missed = self.orderings == Some(Orderings::Only) || self.look_at(&guards, &archs)?;
        let limit = Duration::from_secs(self.limit);
        let all_needed = self.orderings.is_none() || orderings::run(limit, self.fresh, true)?;
        Ok(if guards_are_missed && all_needed { Outcome::Expected } else { Outcome::Unexpected })
    }

    /// Whether something misses each of `guards`.
    fn look_at(&self, guards: &[&'static str], archs: &[Arch]) -> anyhow::Result<bool> {
        let (in_scenarios, in_workloads): (Vec<_>, Vec<_>) = guards.iter().copied().partition(|g| by_scenario(g));
        let bench = Bench::ready(archs, Kind::Checking)?;
        if self.user {
            programs::ready(archs)?;
        }
        let kept = self.kept(guards, archs)?;
        if kept.count() > 0 {
            eprintln!("mutate: {} results are from an earlier call; --fresh begins anew", kept.count());
        }
        let mut used: Vec<&'static str> = in_workloads.iter().flat_map(|g| transports(g)).collect();
        used.sort();
        used.dedup();
        let control = match kept.get("control") {
            Some(control) => control,
            None => {
                let control = self.control(&bench, archs, &used)?;
                kept.keep("control", &control)?;
                control
            }
        };
        if !in_workloads.is_empty() {
            output::print(&control.text())?;
        }
        if !control.holds() {
            kept.forget()?;
            return Ok(false);
        }
        let mut findings = Vec::new();
        let bar = Cells::told((guards.len() * archs.len()) as u64, "mutants");
        for (&guard, &arch) in in_workloads.iter().chain(&in_scenarios).flat_map(|g| archs.iter().map(move |a| (g, a)))
        {
            let name = format!("{guard} on {}", arch.name());
            bar.now(name.clone());
            let (runs, notice) = match kept.get(&name) {
                Some(found) => found,
                None => {
                    let found = if by_scenario(guard) {
                        let (runs, missed) = scenario::without(guard, arch)?;
                        (runs, missed.map(|(place, what)| Notice { place, what }))
                    } else {
                        self.look(&bench, guard, arch)?
                    };
                    kept.keep(&name, &found)?;
                    found
                }
            };
            findings.push(Finding { guard, arch, runs, notice });
            bar.one_more(name);
        }
        bar.end();
        output::print(&table(&findings))?;
        let survivors = survivors(&findings);
        output::print(&verdict(&survivors, guards.len()))?;
        kept.forget()?;
        Ok(survivors.is_empty())
    }

    /// What an interrupted call with the same options and images has found.
    fn kept(&self, guards: &[&str], archs: &[Arch]) -> anyhow::Result<Kept> {
        let mut files: Vec<_> = archs.iter().map(|&arch| build::image_path(arch, Kind::Checking)).collect();
        files.extend(scenario::files()?);
        if self.user {
            files.extend(archs.iter().map(|&arch| programs::path(arch)));
        }
        let names: Vec<&str> = archs.iter().map(|arch| arch.name()).collect();
        let seeds: Vec<u64> = self.seeds.iter().collect();
        let words = format!("{names:?} {guards:?} {} {} {seeds:?} {}", self.smp, self.ops, self.user);
        Kept::open(KEPT, &kept::fingerprint(&files, &words)?, self.fresh)
    }

    fn guards(&self) -> anyhow::Result<Vec<&'static str>> {
        let in_qemu = Guard::NAMES
            .iter()
            .zip(Guard::SHOWN_BY)
            .filter(|(_, by)| **by == ShownBy::Qemu || (**by == ShownBy::Scenario && !self.user))
            .map(|((name, _), _)| *name)
            .filter(|name| !self.user || !BY_TAGS.contains(name));
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
            profile: false,
            engine: Engine::Icount,
            inject: Vec::new(),
            without,
            user: self.user,
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
        let bar = Cells::told(probes.len() as u64, "controls");
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
        let mut control = Control::of(probes.len());
        for (probe, outcome) in probes.iter().zip(&outcomes) {
            control.add(&format!("{}, {}", place(probe), probe.suite.seed), &outcome.rows, outcome.fault.as_deref());
        }
        Ok(control)
    }

    /// Runs without `guard` until something notices: how many, and what was noticed.
    fn look(&self, bench: &Bench, guard: &'static str, arch: Arch) -> anyhow::Result<(usize, Option<Notice>)> {
        let mut probes = Vec::new();
        for seed in self.seeds.iter() {
            probes.extend(transports(guard).into_iter().map(|t| self.probe(arch, t, seed, vec![guard])));
        }
        let work = |probe: &Probe, stop: &dyn Fn() -> bool| {
            let outcome = bench.run(probe, stop)?;
            Ok(noticed(&outcome.rows, outcome.fault.as_deref()).map(|what| {
                let place = format!("{}, seed {}", probe.suite.transport.unwrap_or_default(), probe.suite.seed);
                Notice { place, what }
            }))
        };
        let mut results = probe::in_order(&probes, probe::at_once(), work, Option::is_some)?;
        Ok((results.len(), results.pop().flatten()))
    }
}

fn place(probe: &Probe) -> String {
    format!("{}, {}", probe.arch.name(), probe.suite.transport.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_guard_has_somewhere_to_show() {
        for (guard, _) in Guard::NAMES {
            assert!(!transports(guard).is_empty(), "{guard}");
        }
    }
}
