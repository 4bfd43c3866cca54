//! Verdict matrices: what each strategy was found to be, in each place where it was put to the test.

use super::source::{Source, distinct};
use crate::engines;
use crate::records::condition::KERNEL;
use crate::records::{Record, identity, number, text};

/// What was found in one place, of all workloads and seeds together.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Found {
    /// No violation, and none was to be found.
    Safe,
    /// A violation that the strategy does not hide.
    Unsafe,
    /// The strategy does not take such walkers.
    Refused,
    /// The engine cannot show it.
    NotApplicable,
    /// A control that did not show what it must.
    Void,
    /// Not what was expected.
    Wrong,
}

impl Found {
    /// As in the matrix.
    pub(crate) fn words(self) -> &'static str {
        match self {
            Found::Safe => "safe",
            Found::Unsafe => "unsafe",
            Found::Refused => "refused",
            Found::NotApplicable => "n/a (TCG)",
            Found::Void => "void",
            Found::Wrong => "unexpected",
        }
    }

    /// The class of its cell.
    pub(crate) fn class(self) -> &'static str {
        match self {
            Found::Safe => "safe",
            Found::Unsafe => "unsafe",
            Found::Refused => "refused",
            Found::NotApplicable => "na",
            Found::Void => "void",
            Found::Wrong => "wrong",
        }
    }

    pub(super) fn of(rows: &[&Record]) -> Option<Found> {
        let any = |verdict: &str| rows.iter().any(|row| text(row, "verdict") == verdict);
        if rows.is_empty() {
            None
        } else if rows.iter().any(|row| row.contains_key("problem")) {
            Some(if any("void") { Found::Void } else { Found::Wrong })
        } else if any("unsafe") {
            Some(Found::Unsafe)
        } else if any("safe") {
            Some(Found::Safe)
        } else {
            Some(if any("refused") { Found::Refused } else { Found::NotApplicable })
        }
    }
}

/// A matrix: a line for each name, a column for each place.
pub(crate) struct Matrix {
    pub(crate) title: &'static str,
    pub(crate) shows: String,
    pub(crate) command: String,
    /// What the names of the lines are.
    pub(crate) of: &'static str,
    /// What a column is called: engine, then the rest.
    pub(crate) columns: Vec<Vec<String>>,
    pub(crate) lines: Vec<(String, Vec<Option<Field>>)>,
}

/// One field of a matrix.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Field {
    pub(crate) found: Found,
    /// More about it, for who points at it; may be empty.
    pub(crate) note: String,
}

/// All matrices that there are rows for. Verdicts come from mode `contend`: in others nobody walks what is changed.
pub(crate) fn all(sources: &[Source]) -> Vec<Matrix> {
    let simulated = engines::records();
    // What programs meet by chance is no verdict on a strategy.
    let judged =
        |row: &Record| text(row, "mode") == "contend" && number(row, "cpus") > Some(1.0) && text(row, "by") == KERNEL;
    let whole = |row: &Record| judged(row) && text(row, "without").is_empty() && text(row, "inject").is_empty();
    let one = |kind, shows, keys: &[&str], line, wanted: &dyn Fn(&Record) -> bool| {
        let mut rows: Vec<&Record> = sources.iter().flat_map(|s| &s.rows).filter(|row| wanted(row)).collect();
        let beside = beside(&rows, &simulated);
        let too = if beside.is_empty() { "" } else { "; of engine sim: cargo xtask sim" };
        rows.extend(beside);
        let of = sources.iter().filter(|s| s.rows.iter().any(wanted)).map(Source::word);
        let command = format!("cargo xtask experiment {}{too}", of.collect::<Vec<_>>().join(" "));
        matrix(kind, shows, keys, line, &rows).map(|m| Matrix { command, ..m })
    };
    let by_sim = format!(
        "Engine sim is the simulated machine's model, in which everything was explored ({}); it flushes by broadcast at any moment, freezes CPUs at any, and completes late.",
        engines::bounds()
    );
    let matrices = [
        one(
            ("Verdicts: strategies on transports", "strategy"),
            &format!(
                "Whether a walk of the loaded mm was ever found to hold a table that was used again or freed, of all workloads and seeds that were run; \
                 unsafe is what a strategy without a sync, or a posted design that is wrong there, must be found to be. {by_sim}"
            ),
            &["engine", "transport", "arch"],
            "strategy",
            &|row| whole(row) && text(row, "walker") == "gup",
        ),
        one(
            ("Verdicts: strategies and classes of walkers", "strategy"),
            &format!(
                "The same for walks in NMIs, walks of an mm that is not loaded, and readers under RCU; a strategy that cannot cover a class refuses it, \
                 and n/a (TCG) is what the engine cannot show. {by_sim}"
            ),
            &["engine", "walker", "transport", "arch"],
            "strategy",
            &|row| whole(row) && text(row, "walker") != "gup",
        ),
        one(
            ("Verdicts: guards taken away", "guard"),
            "A kernel from which one guard is taken away must be found unsafe, or nothing would notice if it were missing.",
            &["engine", "arch", "transport", "workload"],
            "without",
            &|row| judged(row) && !text(row, "without").is_empty(),
        ),
    ];
    matrices.into_iter().flatten().collect()
}

/// What is kept of the simulated machine for strategies, transports and walkers that `rows` are of: nothing where rows
/// are of guards that are taken away, which it does not take away, nor where it was asked itself.
fn beside<'r>(rows: &[&Record], simulated: &'r [Record]) -> Vec<&'r Record> {
    let agree = |row: &&Record, sim: &Record| {
        text(row, "without").is_empty()
            && ["strategy", "transport", "walker"].iter().all(|key| text(row, key) == text(sim, key))
    };
    let asked = |sim: &Record| rows.iter().any(|row| text(row, "engine") == "sim" && agree(row, sim));
    simulated.iter().filter(|sim| rows.iter().any(|row| agree(row, sim)) && !asked(sim)).collect()
}

fn matrix(
    (title, of): (&'static str, &'static str),
    shows: &str,
    keys: &[&str],
    line: &str,
    rows: &[&Record],
) -> Option<Matrix> {
    let mut columns: Vec<Vec<String>> = Vec::new();
    for row in rows {
        let column: Vec<String> = keys.iter().map(|key| text(row, key)).collect();
        if !columns.contains(&column) {
            columns.push(column);
        }
    }
    let order = |column: &Vec<String>| column.iter().map(|word| rank(word)).collect::<Vec<_>>();
    columns.sort_by_key(order);
    let mut names = distinct(rows, line);
    let by_rule = |name: &String| kernel::sync::NAMES.iter().position(|(n, _)| n == name).unwrap_or(usize::MAX);
    names.sort_by_key(by_rule);
    let found = |name: &String, column: &Vec<String>| {
        let here: Vec<&Record> = rows
            .iter()
            .copied()
            .filter(|row| text(row, line) == *name && identity(row, keys) == column.join("\u{1f}"))
            .collect();
        Found::of(&here)
    };
    let field = |name, column| found(name, column).map(|found| Field { found, note: String::new() });
    let lines: Vec<(String, Vec<Option<Field>>)> =
        names.iter().map(|name| (name.clone(), columns.iter().map(|column| field(name, column)).collect())).collect();
    (!lines.is_empty()).then(|| Matrix { title, shows: shows.into(), command: String::new(), of, columns, lines })
}

/// Where a word of a heading stands: in the order in which the kernel names transports and walkers, then by the
/// alphabet.
fn rank(word: &str) -> (usize, String) {
    let names = [
        &[("icount", ""), ("mttcg", ""), ("sim", ""), ("x86_64", ""), ("aarch64", "")][..],
        kernel::tlb::transport::NAMES,
    ];
    let place = names.iter().flat_map(|list| list.iter()).position(|(name, _)| *name == word);
    (place.unwrap_or(usize::MAX), word.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(strategy: &str, arch: &str, verdict: &str, problem: bool) -> Record {
        let problem = if problem { r#","problem":"p""# } else { "" };
        serde_json::from_str(&format!(r#"{{"strategy":"{strategy}","arch":"{arch}","verdict":"{verdict}"{problem}}}"#))
            .unwrap()
    }

    #[test]
    fn the_simulated_machine_stands_beside_what_was_run() {
        let row = |strategy, without| {
            let words = [
                ("strategy", strategy),
                ("transport", "broadcast"),
                ("walker", "gup"),
                ("engine", "icount"),
                ("arch", "aarch64"),
                ("verdict", "safe"),
                ("without", without),
            ];
            words.map(|(key, word): (&str, &str)| (key.to_owned(), word.into())).into_iter().collect::<Record>()
        };
        let (simulated, mut rows) = (engines::records(), [row("none", ""), row("coverage", ""), row("self-map", "")]);
        let mut all: Vec<&Record> = rows.iter().collect();
        all.extend(beside(&all, &simulated));
        let m = matrix(("t", "strategy"), "", &["engine", "transport", "arch"], "strategy", &all).unwrap();
        assert_eq!(m.columns, [["icount", "broadcast", "aarch64"], ["sim", "broadcast", "model"]]);
        let of = |name: &str| m.lines.iter().find(|(n, _)| n == name).unwrap().1[1].as_ref().map(|field| field.found);
        assert_eq!(["none", "coverage", "self-map"].map(of), [Found::Unsafe, Found::Safe, Found::Safe].map(Some));
        // Where the simulated machine was asked itself, what it said then stands alone.
        rows[0].insert("engine".to_owned(), "sim".into());
        let left: Vec<&Record> = beside(&rows.iter().collect::<Vec<_>>(), &simulated);
        assert!(!left.is_empty() && left.iter().all(|row| text(row, "strategy") != "none"));
        let without = [row("none", "FlushBroadcast")];
        assert!(beside(&without.iter().collect::<Vec<_>>(), &simulated).is_empty());
    }

    #[test]
    fn one_violation_makes_a_place_unsafe() {
        let rows = [
            row("sync-all", "aarch64", "safe", false),
            row("none", "aarch64", "void", false),
            row("none", "aarch64", "unsafe", false),
            row("none", "x86_64", "safe", true),
            row("rcu", "x86_64", "na", false),
        ];
        let all: Vec<&Record> = rows.iter().collect();
        let m = matrix(("t", "strategy"), "", &["arch"], "strategy", &all).unwrap();
        assert_eq!(m.columns, [["x86_64"], ["aarch64"]]);
        let expected = [
            ("none", vec![Some(Found::Wrong), Some(Found::Unsafe)]),
            ("sync-all", vec![None, Some(Found::Safe)]),
            ("rcu", vec![Some(Found::NotApplicable), None]),
        ];
        let found = |fields: &[Option<Field>]| fields.iter().map(|f| f.as_ref().map(|f| f.found)).collect::<Vec<_>>();
        let lines: Vec<_> = m.lines.iter().map(|(name, fields)| (name.as_str(), found(fields))).collect();
        assert_eq!(lines, expected);
    }
}
