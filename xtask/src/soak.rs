//! `cargo xtask soak`: random mixes of everything, with rotating seeds, for a while; it ends with a balance.

use std::time::{Duration, Instant};

use clap::Args;
use kernel::injection::Fault;
use kernel::record::cell::Verdict;
use kernel::smp::cpu::Chance;
use kernel::suite::{Mode, Named};
use kernel::tlb::transport;
use kernel::workload::walker::WalkerClass;

use crate::arch::{self, Arch, ArchChoice};
use crate::build::Kind;
use crate::error::{self, Outcome};
use crate::output;
use crate::probe::{self, Bench, Outcome as Ran, Probe};
use crate::progress::Cells;
use crate::rows::Row;
use crate::suite::{Engine, Hook, Suite};
use crate::table::{grouped, paragraph};
use crate::violation;

/// Mixes that are drawn at once.
const BATCH: u64 = 16;

/// Runs random mixes of strategies, transports, workloads, walkers and faults for a while
///
/// The kernel itself refuses a cell after which a frame, a table or a reference is missing.
#[derive(Args)]
pub(crate) struct Soak {
    /// x86_64, aarch64 or all
    #[arg(long, value_name = "ARCH", default_value = "all")]
    arch: String,
    /// Goes on until so much time is over
    #[arg(long, value_name = "M", default_value_t = 1)]
    minutes: u64,
    /// Ends after so many mixes instead
    #[arg(long, value_name = "N", conflicts_with = "minutes")]
    mixes: Option<u64>,
    /// Number of the first mix: the same number is the same mix
    #[arg(long, value_name = "S", default_value_t = 1)]
    seed: u64,
}

impl std::fmt::Display for Soak {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "soak --arch {} --seed {}", self.arch, self.seed)?;
        match self.mixes {
            Some(mixes) => write!(f, " --mixes {mixes}"),
            None => write!(f, " --minutes {}", self.minutes),
        }
    }
}

/// What all mixes did together.
#[derive(Default, PartialEq, Eq, Debug)]
struct Balance {
    mixes: u64,
    cells: usize,
    ops: u64,
    walks: u64,
    pages: u64,
    /// Pages of these that were pinned.
    pins: u64,
    /// Faults that were injected.
    injected: u64,
    /// Cells in which nothing went wrong, and what was left in use after them: frames, tables, references, pins.
    whole: usize,
    left: [i64; 4],
    /// Cells in which something is wrong and was found.
    found: usize,
    /// Cells that a strategy refused.
    refused: usize,
    /// Cells too short for what is wrong in them to show.
    unshown: usize,
}

impl Balance {
    fn add(&mut self, rows: &[Row]) {
        let of = |verdict: Verdict| rows.iter().filter(|r| r.verdict == verdict).count();
        self.mixes += 1;
        self.cells += rows.len();
        self.ops += rows.iter().map(|r| r.cell.ops).sum::<u64>();
        self.walks += rows.iter().map(|r| r.cell.walks).sum::<u64>();
        self.pages += rows.iter().map(|r| r.cell.pages).sum::<u64>();
        self.pins += rows.iter().map(|r| r.cell.pins).sum::<u64>();
        self.injected += rows.iter().map(|r| r.cell.injected).sum::<u64>();
        // A violation may have taken references to pages that were not there.
        for row in rows.iter().filter(|r| r.verdict == Verdict::Safe) {
            self.whole += 1;
            self.left.iter_mut().zip(row.cell.left).for_each(|(sum, left)| *sum += left.abs());
        }
        self.found += of(Verdict::Unsafe);
        self.refused += of(Verdict::Refused);
        self.unshown += of(Verdict::Void);
    }

    fn text(&self) -> String {
        let [frames, tables, references, pins] = self.left;
        format!(
            "{} mixes, {} cells, {} operations, {} walks that returned {} pages, {} of them pinned; {} faults injected.\n\
             {} cells found unsafe that are, {} refused, {} too short for what is wrong in them to show.\n\
             Left in use after {} cells that nothing went wrong in: {frames} frames, {tables} tables, {references} references, {pins} pins.\n",
            self.mixes,
            self.cells,
            grouped(self.ops),
            grouped(self.walks),
            grouped(self.pages),
            grouped(self.pins),
            grouped(self.injected),
            self.found,
            self.refused,
            self.unshown,
            self.whole
        )
    }
}

/// One walk in four pins what it finds, and references and pins are added up after every cell.
const MORE: &str = "pins=4 balance=whole";

/// Mixes of a short soak.
const SHORT: u64 = 6;

impl Soak {
    /// A few mixes, for the tests.
    pub(crate) fn short(arch: Arch, seed: u64) -> Soak {
        Soak { arch: arch.name().into(), minutes: 1, mixes: Some(SHORT), seed }
    }

    /// Does it.
    pub(crate) fn run(self) -> anyhow::Result<Outcome> {
        let ArchChoice(archs) = arch::choose(&self.arch)?;
        let bench = Bench::ready(&archs, Kind::Checking)?;
        let end = Instant::now() + Duration::from_secs(60 * self.minutes);
        let mut balance = Balance::default();
        let mut next = 0;
        loop {
            let count = self.mixes.map_or(BATCH, |mixes| BATCH.min(mixes - next));
            let probes: Vec<Probe> = (next..next + count).map(|n| mix(&archs, self.seed.wrapping_add(n))).collect();
            let bar = Cells::of(count, "mixes");
            let over = || self.mixes.is_none() && Instant::now() >= end;
            let work = |probe: &Probe, stop: &dyn Fn() -> bool| {
                // Out of time: what was not begun is left out.
                let ran = if over() { None } else { Some(bench.run(probe, stop)?) };
                bar.one_more(place(probe));
                Ok(ran)
            };
            let wrong = |ran: &Option<Ran>| ran.as_ref().is_some_and(|r| complaint(r).is_some());
            let all = probe::in_order(&probes, probe::at_once(), work, wrong)?;
            bar.end();
            for (probe, ran) in probes.iter().zip(&all) {
                let Some(ran) = ran else { continue };
                balance.add(&ran.rows);
                if let Some(complaint) = complaint(ran) {
                    output::print(&(balance.text() + &self.failure(probe, &complaint)))?;
                    return Ok(Outcome::Unexpected);
                }
            }
            next += count;
            if over() || self.mixes.is_some_and(|mixes| next >= mixes) {
                break;
            }
        }
        let closing = "As expected: every frame, table, reference and pin was given back, after each cell.\n";
        output::print(&(balance.text() + closing))?;
        Ok(Outcome::Expected)
    }

    fn failure(&self, probe: &Probe, complaint: &str) -> String {
        let line = probe.suite.command_line(probe.arch.native_transport());
        paragraph(0, &format!("NOT as expected: mix {} ({}): {complaint}.", probe.suite.seed, place(probe)))
            + &format!(
                "The same again:\n  cargo xtask soak --arch {} --mixes 1 --seed {}\n  ({line})\n",
                self.arch, probe.suite.seed
            )
    }
}

/// Mix number `number`.
fn mix(archs: &[Arch], number: u64) -> Probe {
    let chance = Chance::new(0);
    chance.seed(number, 0x50a4);
    let below = |n: usize| (chance.next() % n as u64) as usize;
    let one = |names: &[Named]| names[below(names.len())].0;
    let some = |names: &'static [Named], count: usize| {
        let mut chosen: Vec<&'static str> = (0..count).map(|_| names[below(names.len())].0).collect();
        chosen.sort();
        chosen.dedup();
        chosen
    };
    // One mix in four is without faults; in the others each of them is there or is not.
    let mut inject = Vec::new();
    if below(4) != 0 {
        for (fault, _) in Fault::NAMES {
            if below(2) == 0 {
                inject.push(format!("{fault}:{}", 1 + below(8)));
            }
        }
    }
    let mut modes = vec![Mode::NAMES[Mode::Contend as usize].0, Mode::NAMES[below(Mode::NAMES.len())].0];
    modes.dedup();
    let suite = Suite {
        strategies: some(kernel::sync::NAMES, 3),
        transport: Some(transport::NAMES[below(transport::NAMES.len())].0),
        workloads: some(kernel::workload::NAMES, 5),
        modes,
        walker: if below(2) == 0 { WalkerClass::NAMES[0].0 } else { one(WalkerClass::NAMES) },
        ops: 16,
        seed: number,
        hook: Hook::Auto,
        profile: false,
        engine: Engine::Icount,
        inject,
        without: Vec::new(),
        user: false,
        log: Some("error".into()),
    };
    Probe { arch: archs[below(archs.len())], cpus: 2 + below(5) as u32, kind: Kind::Checking, suite, more: Some(MORE) }
}

fn place(probe: &Probe) -> String {
    format!("{}, {}, {} CPUs", probe.arch.name(), probe.suite.transport.unwrap_or_default(), probe.cpus)
}

/// What is wrong with a mix. A control that did not fire in so few operations is not.
fn complaint(ran: &Ran) -> Option<String> {
    let wrong = |r: &&Row| r.is_unexpected() && (r.verdict != Verdict::Void || r.cell.miscounted != 0);
    let of_row = ran.rows.iter().find(wrong).map(|row| {
        let mut text = format!("{}: {}", violation::heading(row), violation::complaint(row));
        if row.violation().is_some() {
            text += &format!("; {}", violation::in_words(row));
        }
        text
    });
    of_row.or_else(|| ran.fault.as_deref().map(error::first_line))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::tests::cell;
    use kernel::record::cell::CellRow;

    fn row(expected: Verdict, verdict: Verdict) -> Row {
        let record =
            CellRow { expected: expected as u8, verdict: verdict as u8, walks: 5, ..cell(0, 6, Mode::Contend) };
        Row::resolve(Arch::X86_64, record).unwrap()
    }

    #[test]
    fn the_same_number_is_the_same_mix_and_mixes_differ() {
        let line = |n| {
            let probe = mix(&Arch::ALL, n);
            format!("{} {} {}", probe.arch.name(), probe.cpus, probe.suite.command_line("ipi"))
        };
        assert_eq!(line(7), line(7));
        let all: std::collections::HashSet<String> = (0..64).map(line).collect();
        assert_eq!(all.len(), 64);
        for (transport, _) in transport::NAMES {
            assert!(all.iter().any(|l| l.contains(&format!("transport={transport} "))), "{transport}");
        }
        for word in
            ["x86_64 ", "aarch64 ", "batch:", "trylock:", "queue:", "freeze:", "walker=nmi ", "walker=two-word "]
        {
            assert!(all.iter().any(|l| l.contains(word)), "{word}");
        }
    }

    #[test]
    fn a_control_that_is_too_short_is_no_complaint() {
        let ran = |rows, fault: Option<&str>| Ran { rows, fault: fault.map(String::from), events: vec![], points: 0 };
        assert_eq!(complaint(&ran(vec![row(Verdict::Unsafe, Verdict::Void)], None)), None);
        assert!(complaint(&ran(vec![row(Verdict::Safe, Verdict::Unsafe)], None)).unwrap().contains("expected safe"));
        assert_eq!(complaint(&ran(vec![], Some("it panicked\n at x"))).unwrap(), "it panicked");
    }

    #[test]
    fn the_balance_adds_up() {
        let mut balance = Balance::default();
        balance.add(&[row(Verdict::Unsafe, Verdict::Unsafe), row(Verdict::Unsafe, Verdict::Void)]);
        balance.add(&[row(Verdict::Refused, Verdict::Refused)]);
        let mut safe = row(Verdict::Safe, Verdict::Safe);
        (safe.cell.left, safe.cell.pins, safe.cell.injected) = ([0, -1, 2, 0], 3, 4);
        balance.add(&[safe]);
        let expected = Balance {
            mixes: 3,
            cells: 4,
            ops: 256,
            walks: 20,
            pages: 0,
            pins: 3,
            injected: 4,
            whole: 1,
            left: [0, 1, 2, 0],
            found: 1,
            refused: 1,
            unshown: 1,
        };
        assert_eq!(balance, expected);
        assert!(
            balance
                .text()
                .contains("after 1 cells that nothing went wrong in: 0 frames, 1 tables, 2 references, 0 pins.")
        );
    }
}
