//! A condition on rows, as a table of a TOML file: which rows, and what must hold for them. Experiments say so what
//! they expect, budgets what may be spent.

use kernel::suite::{Mode, Named};
use kernel::workload::walker::WalkerClass;
use serde_json::Value as Json;
use toml::de::DeValue;

use super::{CELL, IDENTITY, Record, identity, number, results, text};
use crate::document::{Table, Value};
use crate::names::nearest;
use crate::table::count;

/// Names of engines.
pub(crate) const ENGINES: &[Named] = &[("icount", ""), ("mttcg", ""), (MODEL, "")];
/// The engine that counts nothing.
const MODEL: &str = "sim";
/// Who does the operations.
pub(crate) const DOERS: &[Named] = &[(KERNEL, ""), (PROGRAMS, "")];
/// The kernel by itself.
pub(crate) const KERNEL: &str = "kernel";
/// Programs in user mode.
pub(crate) const PROGRAMS: &str = "programs";
/// Names of architectures.
pub(crate) const ARCHS: &[Named] = &[("x86_64", ""), ("aarch64", "")];
/// Values of the static hook in a row.
const HOOKS: &[Named] = &[("true", ""), ("false", "")];

/// Lists of names that choose rows: the key in the file, the key in a row, what one is called, and the names.
const CHOICES: [(&str, &str, &str, &[Named]); 9] = [
    ("architectures", "arch", "architecture", ARCHS),
    ("transports", "transport", "transport", kernel::tlb::transport::NAMES),
    ("strategies", "strategy", "strategy", kernel::sync::NAMES),
    ("workloads", "workload", "workload", kernel::workload::NAMES),
    ("by", "by", "doer", DOERS),
    ("modes", "mode", "mode", Mode::NAMES),
    ("walkers", "walker", "walker", WalkerClass::NAMES),
    ("engines", "engine", "engine", ENGINES),
    ("hooks", "hook", "hook", HOOKS),
];

/// What must hold for one result of a row.
#[derive(Clone, PartialEq, Debug)]
enum Bound {
    /// One of these texts.
    OneOf(Vec<String>),
    /// This truth value.
    Is(bool),
    /// At least the first, at most the second.
    Within(f64, f64),
    /// The same as another result of the row, or as the number of CPUs but one (`others`); or at most that.
    Same(String, Plain),
    /// The same as in the row of the same cell and seed whose operations the kernel did.
    AsKernel,
    /// At most this part more than the row had before.
    Grows(f64),
}

/// Which rows, and what must hold for them.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Condition {
    /// Its line in the file.
    pub(crate) line: usize,
    /// Keys of rows, each with the values that are meant.
    which: Vec<(&'static str, Vec<String>)>,
    bounds: Vec<(String, Bound)>,
    /// Of the rows of a cell (its seeds and repetitions), one is enough.
    some: bool,
    /// What a number by itself stands for.
    plain: Plain,
}

/// What a number by itself stands for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Plain {
    /// Exactly this.
    Exactly,
    /// At most this.
    AtMost,
}

impl Condition {
    /// Reads a table; what is wrong in it is noted in the document.
    pub(crate) fn read(table: Table<'_, '_>, plain: Plain) -> anyhow::Result<Condition> {
        let results = results()?;
        let mut condition = Condition { line: table.line(), which: Vec::new(), bounds: Vec::new(), some: false, plain };
        for (key, value) in table.entries() {
            if let Some((_, of_row, kind, names)) = CHOICES.iter().find(|(name, ..)| *name == key) {
                let more = if *of_row == "workload" { kernel::workload::PROGRAMS } else { &[] };
                let chosen = value.names_more(kind, names, more).into_iter().map(str::to_owned).collect();
                condition.which.push((of_row, chosen));
            } else if key == "cpus" || key == "seeds" {
                let of_row = if key == "cpus" { "cpus" } else { "seed" };
                let numbers =
                    value.items().iter().filter_map(|v| v.number(0, u64::MAX)).map(|n| n.to_string()).collect();
                condition.which.push((of_row, numbers));
            } else if key == "rows" {
                condition.some = value.names("choice", &[("every", ""), ("some", "")]) == ["some"];
            } else if let Some(kind) = results.get(key) {
                condition.bounds.extend(Bound::read(value, kind, &results, plain).map(|bound| (key.to_owned(), bound)));
            }
        }
        let known: Vec<&str> = CHOICES
            .iter()
            .map(|(key, ..)| *key)
            .chain(["cpus", "seeds", "rows"])
            .chain(results.keys().map(String::as_str))
            .collect();
        table.only(&known);
        if condition.bounds.is_empty() {
            table.mistake("nothing is asked of these rows: a verdict or a count is missing, like verdict = \"safe\"");
        }
        Ok(condition)
    }

    /// Whether `record` is meant. What the record does not say does not exclude it.
    pub(crate) fn means(&self, record: &Record) -> bool {
        self.which.iter().all(|(key, values)| !record.contains_key(*key) || values.contains(&text(record, key)))
    }

    /// Whether something is asked of the result `key`.
    pub(crate) fn is_about(&self, key: &str) -> bool {
        self.bounds.iter().any(|(name, _)| name == key)
    }

    /// What of `record` does not hold, each in a few words.
    fn broken(&self, record: &Record, all: &[Record], before: Option<&Record>) -> Vec<String> {
        // A budget is for what was counted: instructions, for one, are counted in one row of many. And the model counts
        // no interrupts.
        let some_do_not_count = self.plain == Plain::AtMost || text(record, "engine") == MODEL;
        let skipped = |key: &str| some_do_not_count && matches!(record.get(key), None | Some(Json::Null));
        let bounds = self.bounds.iter().filter(|(key, _)| !skipped(key));
        bounds.filter_map(|(key, bound)| bound.broken(record, all, before, key)).collect()
    }

    /// The rows of `records` that do not hold what is asked, each with the reason.
    pub(crate) fn judge(&self, records: &[Record]) -> Vec<(usize, String)> {
        self.judge_against(records, &|_| None)
    }

    /// The same; `before` gives what a row was, for limits of growth.
    pub(crate) fn judge_against<'b>(
        &self,
        records: &[Record],
        before: &dyn Fn(&Record) -> Option<&'b Record>,
    ) -> Vec<(usize, String)> {
        let meant: Vec<usize> = (0..records.len()).filter(|&i| self.means(&records[i])).collect();
        let broken = |i: usize| self.broken(&records[i], records, before(&records[i])).join(", ");
        let whole = |i: usize| !self.some && !broken(i).is_empty();
        let of_cell = |i: usize, j: usize| identity(&records[i], CELL) == identity(&records[j], CELL);
        let none = |i: usize| self.some && meant.iter().filter(|&&j| of_cell(i, j)).all(|&j| !broken(j).is_empty());
        meant.iter().filter(|&&i| whole(i) || none(i)).map(|&i| (i, broken(i))).collect()
    }

    /// What is asked for and is in no row that is meant.
    pub(crate) fn never_counted(&self, records: &[Record]) -> Option<&str> {
        let counted =
            |key: &str| records.iter().any(|row| self.means(row) && !matches!(row.get(key), None | Some(Json::Null)));
        self.bounds.iter().map(|(key, _)| key.as_str()).find(|key| !counted(key))
    }
}

impl Bound {
    fn read(value: Value<'_, '_>, kind: &Json, results: &Record, plain: Plain) -> Option<Bound> {
        if let Some(table) = value.table() {
            let limit = |key: &str| table.get(key).map(decimal);
            if plain == Plain::AtMost
                && let Some(growth) = limit("grows_at_most")
            {
                table.only(&["grows_at_most"]);
                return growth.map(Bound::Grows);
            }
            let known = ["at_most", "at_least", "grows_at_most"];
            table.only(if plain == Plain::AtMost { &known } else { &known[..2] });
            let (least, most) = (limit("at_least"), limit("at_most"));
            if least.is_none() && most.is_none() {
                value.mistake("at_most or at_least belongs here");
            }
            return Some(Bound::Within(least.unwrap_or(Some(f64::MIN))?, most.unwrap_or(Some(f64::MAX))?));
        }
        match (kind, value.kind()) {
            (Json::Bool(_), _) => value.truth().map(Bound::Is),
            (Json::String(_), _) => {
                const VERDICTS: &[Named] = &[("safe", ""), ("unsafe", ""), ("refused", ""), ("na", ""), ("void", "")];
                Some(Bound::OneOf(value.names("verdict", VERDICTS).into_iter().map(str::to_owned).collect()))
            }
            (_, DeValue::String(name)) => {
                let numbers = results.iter().filter(|(_, kind)| kind.is_number()).map(|(key, _)| key.as_str());
                let names: Vec<&str> = ["others", KERNEL].into_iter().chain(numbers).collect();
                if !names.contains(&name.as_ref()) {
                    let hint = nearest(name, names.iter().copied());
                    value.mistake(format!("there is no count \"{name}\"; did you mean \"{hint}\"?"));
                }
                Some(match name.as_ref() {
                    KERNEL => Bound::AsKernel,
                    name => Bound::Same(name.to_owned(), plain),
                })
            }
            _ => decimal(value).map(|n| Bound::Within(if plain == Plain::Exactly { n } else { f64::MIN }, n)),
        }
    }

    fn broken(&self, record: &Record, all: &[Record], before: Option<&Record>, key: &str) -> Option<String> {
        const CLOSE: f64 = 1e-9;
        let found = number(record, key);
        let said = found.map_or("not counted".to_owned(), count);
        match self {
            Bound::OneOf(values) => {
                let given = text(record, key);
                (!values.contains(&given)).then(|| format!("{key} is {given}, not {}", values.join(" or ")))
            }
            Bound::Is(truth) => (record.get(key) != Some(&Json::Bool(*truth)))
                .then(|| format!("{key} is {}, not {truth}", text(record, key))),
            Bound::Within(least, most) => {
                let holds = found.is_some_and(|n| n >= least - CLOSE && n <= most + CLOSE);
                let wanted = match (*least == f64::MIN, *most == f64::MAX) {
                    (true, _) => format!("at most {}", count(*most)),
                    (_, true) => format!("at least {}", count(*least)),
                    _ if least == most => count(*least),
                    _ => format!("{} to {}", count(*least), count(*most)),
                };
                (!holds).then(|| format!("{key} is {said}, not {wanted}"))
            }
            Bound::Same(other, plain) => {
                let others = number(record, "cpus").map(|n| n - 1.0);
                let wanted = if other == "others" { others } else { number(record, other) };
                let holds = found.zip(wanted).is_some_and(|(a, b)| match plain {
                    Plain::Exactly => (a - b).abs() < CLOSE,
                    Plain::AtMost => a <= b + CLOSE,
                });
                let wanted = wanted.map_or("-".to_owned(), count);
                let most = if *plain == Plain::AtMost { "at most " } else { "" };
                (!holds).then(|| format!("{key} is {said}, not {most}{wanted} ({other})"))
            }
            Bound::AsKernel => {
                let Some(row) = all.iter().find(|row| is_kernels(row, record)) else {
                    return Some(format!("{key}: the kernel has not done the same operations in this experiment"));
                };
                let wanted = number(row, key);
                let holds = found.zip(wanted).is_some_and(|(a, b)| (a - b).abs() < CLOSE);
                let wanted = wanted.map_or("not counted".to_owned(), count);
                (!holds).then(|| format!("{key} is {said}, and {wanted} where the kernel does it"))
            }
            Bound::Grows(part) => {
                let was = number(before?, key)?;
                let holds = found.is_some_and(|n| n <= was + was.abs() * part + CLOSE);
                (!holds).then(|| {
                    format!("{key} was {} and is {said}: more than {} % more", count(was), count(100.0 * part))
                })
            }
        }
    }
}

/// Whether `row` is of what `record` is of, but done by the kernel.
fn is_kernels(row: &Record, record: &Record) -> bool {
    let same = |key: &&str| *key == "by" || text(row, key) == text(record, key);
    text(row, "by") == KERNEL && IDENTITY.iter().all(same)
}

fn decimal(value: Value<'_, '_>) -> Option<f64> {
    let read = match value.kind() {
        DeValue::Integer(n) => i64::from_str_radix(n.as_str(), n.radix()).ok().map(|n| n as f64),
        DeValue::Float(n) => n.as_str().parse().ok(),
        _ => None,
    };
    if read.is_none() {
        value.mistake("a number belongs here");
    }
    read
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::Document;

    fn condition(text: &str) -> (Condition, Vec<String>) {
        let (document, table) = Document::parse(text);
        let condition = Condition::read(document.root(&table), Plain::Exactly).unwrap();
        (
            condition,
            document.mistakes().into_iter().map(|m| format!("{}:{} {}", m.line, m.column, m.sentence)).collect(),
        )
    }

    fn row(text: &str) -> Record {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn rows_are_chosen_and_judged() {
        let (c, mistakes) =
            condition("strategies = \"sync-all\"\ncpus = [2, 4]\nsync_ipis_per_op = \"others\"\nverdict = \"safe\"");
        assert_eq!(mistakes, Vec::<String>::new());
        let good = row(r#"{"strategy":"sync-all","cpus":4,"sync_ipis_per_op":3.0,"verdict":"safe"}"#);
        let bad = row(r#"{"strategy":"sync-all","cpus":2,"sync_ipis_per_op":3.0,"verdict":"void"}"#);
        let other = row(r#"{"strategy":"none","cpus":2,"sync_ipis_per_op":3.0,"verdict":"void"}"#);
        let found = c.judge(&[good, bad, other]);
        assert_eq!(found, [(1, "sync_ipis_per_op is 3, not 1 (others), verdict is void, not safe".to_owned())]);
    }

    #[test]
    fn of_some_rows_one_is_enough_in_each_cell() {
        let (c, _) = condition("rows = \"some\"\nverdict = \"unsafe\"");
        let rows = |verdicts: [(&str, u32, &str); 3]| -> Vec<Record> {
            let line = |(arch, seed, v)| format!(r#"{{"arch":"{arch}","seed":{seed},"verdict":"{v}"}}"#);
            verdicts.into_iter().map(|v| row(&line(v))).collect()
        };
        assert_eq!(c.judge(&rows([("a", 1, "void"), ("a", 2, "unsafe"), ("b", 1, "unsafe")])), []);
        let missed = c.judge(&rows([("a", 1, "void"), ("a", 2, "unsafe"), ("b", 1, "void")]));
        assert_eq!(missed, [(2, "verdict is void, not unsafe".to_owned())]);
    }

    #[test]
    fn limits_and_missing_counts() {
        let (c, mistakes) = condition("instructions_per_op = { at_most = 100 }");
        assert!(mistakes.is_empty(), "{mistakes:?}");
        let found = c.judge(&[
            row(r#"{"instructions_per_op":null}"#),
            row(r#"{"instructions_per_op":100.5}"#),
            row(r#"{"instructions_per_op":7}"#),
        ]);
        assert_eq!(found[0], (0, "instructions_per_op is not counted, not at most 100".to_owned()));
        assert_eq!(found[1], (1, "instructions_per_op is 100.5, not at most 100".to_owned()));
        assert_eq!(found.len(), 2);
    }

    #[test]
    fn programs_are_held_against_the_kernel() {
        let (c, mistakes) = condition("by = \"programs\"\nflush_ipis_per_op = \"kernel\"");
        assert_eq!(mistakes, Vec::<String>::new());
        let line = |by, seed, n| row(&format!(r#"{{"by":"{by}","seed":{seed},"flush_ipis_per_op":{n}}}"#));
        let rows = [line("kernel", 1, 3), line("programs", 1, 3), line("programs", 2, 3), line("kernel", 2, 4)];
        assert_eq!(c.judge(&rows), [(2, "flush_ipis_per_op is 3, and 4 where the kernel does it".to_owned())]);
        let alone = c.judge(&rows[1..2]);
        assert_eq!(alone.len(), 1, "{alone:?}");
        assert!(alone[0].1.contains("has not done the same operations"));
    }

    #[test]
    fn every_mistake_has_its_place() {
        let (_, mistakes) = condition("strateges = \"none\"\nverdict = \"save\"\nsync_ipis_per_op = \"other\"\n");
        assert_eq!(
            mistakes,
            [
                "1:1 there is no key \"strateges\"; did you mean \"strategies\"?",
                "2:11 there is no verdict \"save\"; did you mean \"safe\"?",
                "3:20 there is no count \"other\"; did you mean \"others\"?",
            ]
        );
        let (_, nothing) = condition("strategies = \"none\"\n");
        assert!(nothing[0].contains("nothing is asked"), "{nothing:?}");
    }
}
