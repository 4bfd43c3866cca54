//! `cargo xtask bench oracle`: what the oracle costs in instructions, and that it can be left out.
//!
//! The same operations and walks three times, with all other CPUs idle: in the checking image, with the oracle and with
//! the oracle turned off (`oracle=off`), which leaves schedule points, guards and events as they are; and in the plain
//! image, where it is not compiled in.

use std::collections::BTreeMap;

use kernel::suite::Mode;
use kernel::workload::walker::WalkerClass;

use crate::arch::Arch;
use crate::build::{Kind, image_path};
use crate::error::Outcome;
use crate::image::Image;
use crate::output;
use crate::probe::{self, Bench as Machines, Probe};
use crate::rows::Row;
use crate::suite::{Engine, Hook, Suite};
use crate::table::grouped;

/// What it may cost: so many times the instructions without it.
const LIMIT: f64 = 2.0;
/// The strategy of all cells.
const STRATEGY: &str = "sync-all";
/// CPUs of each machine; all but one are idle.
const CPUS: u32 = 4;

/// An image and a word of its command line, by column.
const COLUMNS: [(Kind, &str); 3] =
    [(Kind::Checking, "oracle=on"), (Kind::Checking, "oracle=off"), (Kind::Plain, "oracle=on")];
/// The same for walks.
const WALKS: [(Kind, &str); 3] = [
    (Kind::Checking, "bench=walk oracle=on"),
    (Kind::Checking, "bench=walk oracle=off"),
    (Kind::Plain, "bench=walk oracle=on"),
];

/// Instructions of one subject: with the oracle, without, not compiled in.
type Costs = BTreeMap<(usize, String), [f64; 3]>;

/// Measures it on `archs`, `ops` operations and walks each.
pub(super) fn run(archs: &[Arch], ops: u64) -> anyhow::Result<Outcome> {
    let mut holds = true;
    for &arch in archs {
        let mut costs = Costs::new();
        for (walks, words) in [(false, COLUMNS), (true, WALKS)] {
            let probes = words.map(|(kind, more)| probe(arch, kind, more, ops));
            for kind in Kind::ALL {
                Machines::ready(&[arch], kind)?;
            }
            let machines = Machines::ready(&[arch], Kind::Checking)?;
            let work = |probe: &Probe, stop: &dyn Fn() -> bool| {
                let outcome = machines.run(probe, stop)?;
                outcome.fault.map_or(Ok(outcome.rows), |fault| Err(anyhow::anyhow!(fault)))
            };
            let columns = probe::in_order(&probes, probe::at_once(), work, |_| false)?;
            for (column, rows) in columns.iter().enumerate() {
                rows.iter().for_each(|row| add(&mut costs, column, row, walks));
            }
        }
        let functions = Kind::ALL.map(|kind| Image::open(&image_path(arch, kind))?.functions_of("6oracle"));
        let [checking, plain] = functions;
        let (text, good) = table(arch, &costs, checking?, plain?);
        output::print(&text)?;
        holds &= good;
    }
    Ok(if holds { Outcome::Expected } else { Outcome::Unexpected })
}

fn probe(arch: Arch, kind: Kind, more: &'static str, ops: u64) -> Probe {
    let suite = Suite {
        strategies: vec![STRATEGY],
        transport: None,
        workloads: kernel::workload::NAMES.iter().map(|(name, _)| *name).collect(),
        modes: vec![Mode::NAMES[Mode::Idle as usize].0],
        walker: WalkerClass::NAMES[0].0,
        ops,
        seed: 1,
        hook: Hook::Auto,
        engine: Engine::Icount,
        inject: Vec::new(),
        without: Vec::new(),
        log: Some("error".into()),
        profile: false,
        user: false,
    };
    Probe { arch, cpus: CPUS, kind, suite, more: Some(more) }
}

fn add(costs: &mut Costs, column: usize, row: &Row, walks: bool) {
    let of_cell = |count: u64| row.cell.instructions as f64 / count.max(1) as f64;
    let pages = row.cell.pages / row.cell.walks.max(1);
    let (key, cost) = match walks {
        true => ((1000 + pages as usize, format!("walk of {pages}")), of_cell(row.cell.walks)),
        false => ((row.cell.workload.into(), row.workload.to_owned()), of_cell(row.cell.ops)),
    };
    costs.entry(key).or_default()[column] = cost;
}

/// The table, and whether the cost is below [`LIMIT`] everywhere and nothing of the oracle is in the plain image.
fn table(arch: Arch, costs: &Costs, checking: usize, plain: usize) -> (String, bool) {
    let mut out = format!(
        "{}: instructions per operation or walk under {STRATEGY}, other CPUs idle\n  {:22} {:>11} {:>11} {:>7} {:>13}\n",
        arch.name(),
        "",
        "with oracle",
        "turned off",
        "ratio",
        "not compiled"
    );
    let mut most = 0.0_f64;
    for ((_, subject), [on, off, without]) in costs.iter().filter(|(_, [_, off, _])| *off > 0.0) {
        most = most.max(on / off);
        let [on_in_words, off_in_words, without] = [on, off, without].map(|n| grouped(n.round() as u64));
        out += &format!("  {subject:22} {on_in_words:>11} {off_in_words:>11} {:>7.3} {without:>13}\n", on / off);
    }
    let below = most > 0.0 && most < LIMIT;
    let left_out = plain == 0 && checking > 0;
    out += &format!(
        "  {}: the oracle costs at most {most:.2} times the instructions without it; the limit is {LIMIT}.\n",
        if below { "As expected" } else { "NOT as expected" },
    );
    out += &format!(
        "  {}: functions of the oracle in the checking image: {checking}; in the plain image: {plain}.\n\n",
        if left_out { "As expected" } else { "NOT as expected" },
    );
    (out, below && left_out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(on: f64, checking: usize, plain: usize) -> (String, bool) {
        let costs = Costs::from([((0, "munmap_2m".to_owned()), [on, 100.0, 80.0])]);
        table(Arch::X86_64, &costs, checking, plain)
    }

    #[test]
    fn too_dear_or_still_there_is_not_as_expected() {
        let (text, good) = told(150.0, 9, 0);
        assert!(
            good && text.contains("munmap_2m                      150         100   1.500            80\n"),
            "{text}"
        );
        assert!(!told(200.0, 9, 0).1, "twice is not below twice");
        assert!(!told(150.0, 9, 1).1, "something of it is in the plain image");
        assert!(!told(150.0, 0, 0).1, "names that match nothing show nothing");
        assert!(!table(Arch::X86_64, &Costs::new(), 9, 0).1, "nothing was measured");
    }
}
