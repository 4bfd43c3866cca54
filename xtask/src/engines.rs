//! The verdicts of a run beside those of the simulated machine for the same cells, and why they differ where they do.
//!
//! The simulated machine's are those of the model, or, of strategies whose walks hold no table, of the core on it; each
//! explored to its end within its bounds (`cargo xtask sim`). They are kept in `xtask/data/sim-verdicts.json`, and
//! `arch-sim/tests/verdicts.rs` explores a sample of them again.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use anstyle::{AnsiColor, Style};
use kernel::record::cell::Verdict;
use serde::Deserialize;

use crate::records::Record;
use crate::rows::Row;
use crate::table::{Cell, JUDGED, Line, distinct, layout, paragraph};

/// Version of the file that this reads.
const VERSION: u32 = 2;

/// Workloads of the kernel, and the operation of the model that they are.
const OPERATIONS: [(&str, &str); 4] = [
    ("collapse_anon", "collapse"),
    ("unshare_munmap_last", "unshare-last"),
    ("unshare_mprotect_last", "unshare-last"),
    ("unshare_chain", "unshare-three"),
];

/// What `cargo xtask sim --save` wrote.
#[derive(Deserialize)]
struct Simulated {
    version: u32,
    bounds: String,
    /// By strategy, other bounds.
    other_bounds: BTreeMap<String, String>,
    operations: Vec<String>,
    /// By walker, transport and strategy: a letter for each operation.
    verdicts: BTreeMap<String, BTreeMap<String, BTreeMap<String, String>>>,
}

impl Simulated {
    fn load() -> &'static Simulated {
        static KEPT: OnceLock<Simulated> = OnceLock::new();
        KEPT.get_or_init(|| {
            let file: Simulated = serde_json::from_str(include_str!("../data/sim-verdicts.json"))
                .expect("the file was written by this program's simulator");
            assert!(file.version == VERSION, "the kept verdicts have version {}", file.version);
            file
        })
    }

    /// Within which everything was explored, in words.
    fn in_words(&self) -> String {
        let others = self.other_bounds.iter().map(|(strategy, bounds)| format!("; {strategy}: {bounds}"));
        others.fold(self.bounds.clone(), |text, other| text + &other)
    }

    /// The verdict for the cell of `row`; nothing where the model does not have it.
    fn verdict(&self, row: &Row) -> Option<Verdict> {
        let operation = operation(row.workload)?;
        let at = self.operations.iter().position(|known| known == operation)?;
        of_letter(*self.verdicts.get(row.walker)?.get(row.transport)?.get(row.strategy)?.as_bytes().get(at)?)
    }
}

fn of_letter(letter: u8) -> Option<Verdict> {
    match letter {
        b's' => Some(Verdict::Safe),
        b'U' => Some(Verdict::Unsafe),
        b'-' => Some(Verdict::Refused),
        _ => None,
    }
}

/// The model's verdict for the cell of `row`, if it has it, and, where the row's own is another, what the one engine
/// has and the other has not.
pub(crate) fn beside(row: &Row) -> Option<(Verdict, Option<&'static str>)> {
    let simulated = Simulated::load().verdict(row).filter(|_| row.mode == JUDGED)?;
    Some((simulated, (row.verdict != simulated).then(|| reason(row, simulated))))
}

/// The model's verdicts as rows of an engine `sim`: one for each walker, transport, strategy and operation.
pub(crate) fn records() -> Vec<Record> {
    let simulated = Simulated::load();
    let mut records = Vec::new();
    for (walker, of_walker) in &simulated.verdicts {
        for (transport, of_transport) in of_walker {
            for (strategy, letters) in of_transport {
                for (operation, letter) in simulated.operations.iter().zip(letters.bytes()) {
                    let Some(verdict) = of_letter(letter) else { continue };
                    let words = [
                        ("engine", "sim"),
                        ("arch", "model"),
                        ("walker", walker),
                        ("transport", transport),
                        ("strategy", strategy),
                        ("workload", operation),
                        ("verdict", verdict.name()),
                    ];
                    records.push(words.map(|(key, word)| (key.to_owned(), word.into())).into_iter().collect());
                }
            }
        }
    }
    records
}

/// The operation of the model that `workload` is; nothing if it has none.
pub(crate) fn operation(workload: &str) -> Option<&'static str> {
    OPERATIONS.into_iter().find(|(known, _)| *known == workload).map(|(_, operation)| operation)
}

/// The workloads that the model has.
pub(crate) fn workloads() -> impl Iterator<Item = &'static str> {
    OPERATIONS.into_iter().map(|(workload, _)| workload)
}

/// The classes of walkers that the model has.
pub(crate) fn walkers() -> impl Iterator<Item = &'static str> {
    Simulated::load().verdicts.keys().map(String::as_str)
}

/// The strategies that the model has.
pub(crate) fn strategies() -> impl Iterator<Item = &'static str> {
    let of_walkers = Simulated::load().verdicts.values().next();
    let of_transports = of_walkers.and_then(|transports| transports.values().next());
    of_transports.into_iter().flat_map(|strategies| strategies.keys().map(String::as_str))
}

/// Whether the model has this strategy on this transport under these walkers.
pub(crate) fn knows(strategy: &str, transport: &str, walker: &str) -> bool {
    let of_walker = Simulated::load().verdicts.get(walker);
    of_walker.and_then(|transports| transports.get(transport)).is_some_and(|of| of.contains_key(strategy))
}

/// Within which everything was explored.
pub(crate) fn bounds() -> String {
    Simulated::load().in_words()
}

/// Both verdicts of each cell that both know, and the differences; nothing where there is no such cell.
pub(crate) fn of(rows: &[Row], engine: &str) -> String {
    let simulated = Simulated::load();
    let judged: Vec<(&Row, Verdict)> =
        rows.iter().filter(|r| r.mode == JUDGED).filter_map(|r| Some((r, simulated.verdict(r)?))).collect();
    if judged.is_empty() {
        return String::new();
    }
    let mut machines: Vec<(&str, &str)> = Vec::new();
    for (row, _) in &judged {
        let machine = (row.arch.name(), row.transport);
        if !machines.contains(&machine) {
            machines.push(machine);
        }
    }
    let of_machine = |row: &Row, machine: &(&str, &str)| (row.arch.name(), row.transport) == *machine;
    let bold = Style::new().bold();
    let mut out = format!(
        "{bold}Two engines{bold:#}: QEMU ({engine}), in the schedules of this seed; the simulated machine, everything within its bounds\n({}).\n",
        simulated.bounds
    );
    for (strategy, bounds) in &simulated.other_bounds {
        if judged.iter().any(|(row, _)| row.strategy == strategy) {
            out += &format!("For {strategy} these are: {bounds}.\n");
        }
    }
    out += "\n";
    for machines in machines.chunks(3) {
        let mut lines = Vec::new();
        for workload in distinct(rows, |r| r.workload) {
            let of_workload = judged.iter().filter(|(r, _)| r.workload == workload);
            if of_workload.clone().next().is_none() {
                continue;
            }
            lines.push(Line::Section(workload.to_owned()));
            for strategy in distinct(rows, |r| r.strategy) {
                let mut cells = vec![Cell::plain(format!("  {strategy}"))];
                for machine in machines {
                    let found = of_workload.clone().find(|(r, _)| r.strategy == strategy && of_machine(r, machine));
                    cells.extend(match found {
                        Some((row, simulated)) => [verdict(row.verdict), verdict(*simulated)],
                        None => [Cell::plain("-"), Cell::plain("-")],
                    });
                }
                lines.push(Line::Cells(cells));
            }
        }
        let titles: Vec<String> = machines.iter().map(|(arch, transport)| format!("{arch} ({transport})")).collect();
        let groups: Vec<(&str, usize)> = titles.iter().map(|title| (title.as_str(), 2)).collect();
        let mut headings = vec![""];
        machines.iter().for_each(|_| headings.extend(["QEMU", "sim"]));
        out += &layout(&groups, &headings, &lines);
        out += "\n";
    }
    let differ: Vec<&(&Row, Verdict)> = judged.iter().filter(|(row, simulated)| row.verdict != *simulated).collect();
    out += &match differ.len() {
        0 => format!("They agree in all {} cells.\n", judged.len()),
        n => format!("They agree in {} of {} cells and differ in:\n", judged.len() - n, judged.len()),
    };
    for (row, simulated) in differ {
        let (here, there) = (row.verdict.name(), simulated.name());
        let (arch, transport) = (row.arch.name(), row.transport);
        let cell = format!("{arch} {transport}, {}, {}", row.workload, row.strategy);
        out += &paragraph(2, &format!("{cell}: QEMU {here}, sim {there}: {}.", reason(row, *simulated)));
    }
    out + "\n"
}

fn verdict(verdict: Verdict) -> Cell {
    let style = match verdict {
        Verdict::Safe => AnsiColor::Green.on_default(),
        Verdict::Unsafe => AnsiColor::Yellow.on_default(),
        _ => Style::new().dimmed(),
    };
    Cell::styled(verdict.name(), style)
}

/// What the one engine has and the other has not.
fn reason(row: &Row, simulated: Verdict) -> &'static str {
    match (row.verdict, simulated, row.transport) {
        (Verdict::NotApplicable, ..) => {
            "here an NMI plays the broadcast, and waits for walks in NMIs, which a broadcast instruction does not"
        }
        (Verdict::Safe | Verdict::Void, Verdict::Unsafe, _) if row.walker == "nmi-other" => {
            "the model's CPUs may walk the mm itself when an NMI shows a walk of another one; here they never do"
        }
        (Verdict::Safe | Verdict::Void, Verdict::Unsafe, _)
            if row.walker == "two-word" && row.workload == "unshare_chain" =>
        {
            "the model's CPUs may walk the second mm that leaves, too; here they walk the first, and have been waited for \
             when that left"
        }
        (Verdict::Safe | Verdict::Void, Verdict::Unsafe, "mixed") => {
            "the model flushes by broadcast at any moment after a flush by interrupt; here an mm is promoted once, \
             when it is on more than two CPUs"
        }
        (Verdict::Safe | Verdict::Void, Verdict::Unsafe, "paravirt") => {
            "the model freezes a CPU at every step of a walk; here it is frozen at a few, by chance"
        }
        (Verdict::Safe | Verdict::Void, Verdict::Unsafe, "broadcast") => {
            "the model's invalidation completes without stopping anybody; TCG stops every vCPU for one, between two blocks of \
             translated code, so a walk is interrupted at fewer places (another --seed, or hunt, may show it)"
        }
        (Verdict::Safe | Verdict::Void, Verdict::Unsafe, _) => {
            "the model tries every interleaving, this run those of one seed (hunt tries more)"
        }
        (Verdict::Unsafe, Verdict::Safe, _) => {
            "the model has every guard, and no failing allocation; if none was taken away here, the model lacks something"
        }
        _ => "one of the two refuses what the other runs",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arch::Arch;
    use crate::rows::tests::cell;
    use crate::table::tests::bare;
    use kernel::record::cell::CellRow;
    use kernel::suite::Mode;
    use kernel::sync;

    fn row(arch: Arch, strategy: &str, workload: u16, transport: u16, verdict: Verdict) -> Row {
        let strategy = sync::NAMES.iter().position(|(name, _)| *name == strategy).unwrap() as u16;
        let record = CellRow { transport, verdict: verdict as u8, ..cell(strategy, workload, Mode::Contend) };
        Row::resolve(arch, record).unwrap()
    }

    #[test]
    fn both_columns_and_the_difference() {
        let rows = [
            row(Arch::X86_64, "none", 6, 0, Verdict::Safe),
            row(Arch::X86_64, "sync-all", 6, 0, Verdict::Safe),
            row(Arch::Aarch64, "none", 6, 1, Verdict::Void),
            row(Arch::Aarch64, "sync-all", 6, 1, Verdict::Safe),
        ];
        let text = bare(&of(&rows, "icount"));
        let line = |name: &str| text.lines().find(|l| l.trim_start().starts_with(name)).unwrap_or_default().to_owned();
        assert_eq!(line("none").split_whitespace().collect::<Vec<_>>(), ["none", "safe", "safe", "void", "unsafe"]);
        assert_eq!(line("sync-all").split_whitespace().skip(1).collect::<Vec<_>>(), ["safe"; 4]);
        assert!(text.contains("They agree in 3 of 4 cells"), "{text}");
        assert!(
            text.contains("aarch64 broadcast, collapse_anon, none: QEMU void, sim unsafe: the model's invalidation")
        );
        assert!(text.lines().all(|line| line.chars().count() <= 120), "{text}");
    }

    #[test]
    fn a_row_says_both() {
        let safe = row(Arch::X86_64, "none", 6, 0, Verdict::Safe);
        assert_eq!(beside(&safe), Some((Verdict::Safe, None)));
        let (verdict, why) = beside(&row(Arch::Aarch64, "none", 6, 1, Verdict::Void)).unwrap();
        assert_eq!(verdict, Verdict::Unsafe);
        assert!(why.is_some_and(|why| why.contains("TCG")));
        assert_eq!(beside(&row(Arch::X86_64, "none", 0, 0, Verdict::Safe)), None);
        let line = row(Arch::Aarch64, "none", 6, 1, Verdict::Void).json(&crate::rows::tests::setting()).unwrap();
        assert!(line.contains(r#""sim_verdict":"unsafe""#) && line.contains(r#""sim_differs""#), "{line}");
        let line = safe.json(&crate::rows::tests::setting()).unwrap();
        assert!(line.contains(r#""sim_verdict":"safe""#) && !line.contains("sim_differs"), "{line}");
    }

    #[test]
    fn what_the_model_does_not_have_is_not_shown() {
        assert_eq!(of(&[row(Arch::X86_64, "none", 0, 0, Verdict::Safe)], "icount"), "");
        let mut elsewhere = row(Arch::X86_64, "none", 6, 0, Verdict::Safe);
        elsewhere.mode = "same";
        assert_eq!(of(&[elsewhere], "icount"), "");
    }

    /// The core decides where the model cannot: beside QEMU's stands its verdict.
    #[test]
    fn a_strategy_that_the_core_decides_has_both_columns() {
        let text = bare(&of(&[row(Arch::Aarch64, "self-map", 6, 1, Verdict::Safe)], "icount"));
        let line = text.lines().find(|line| line.trim_start().starts_with("self-map")).unwrap_or_default();
        assert_eq!(line.split_whitespace().collect::<Vec<_>>(), ["self-map", "safe", "safe"], "{text}");
        assert!(text.contains("For self-map these are: the core itself"), "{text}");
    }

    /// Every strategy, on every transport, under every class of walkers, in every operation.
    #[test]
    fn the_file_is_complete() {
        let file = Simulated::load();
        let strategies = sync::OWN;
        let walkers = kernel::workload::walker::WalkerClass::NAMES;
        assert_eq!(file.verdicts.len(), walkers.len());
        for (walker, _) in walkers {
            let of_walker = &file.verdicts[*walker];
            assert_eq!(of_walker.len(), kernel::tlb::transport::NAMES.len());
            for of_transport in of_walker.values() {
                assert_eq!(of_transport.len(), strategies);
                assert!(of_transport.values().all(|letters| letters.len() == file.operations.len()));
            }
        }
    }
}
