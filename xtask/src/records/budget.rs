//! A budget: what rows may cost at most, as a TOML file. A check for continuous integration.

use super::Record;
use super::condition::{Condition, Plain};
use crate::document::Document;
use crate::scenario::text::Mistake;

/// The tables of a budget file.
pub(crate) struct Budget {
    conditions: Vec<Condition>,
}

impl Budget {
    /// Reads `text`: tables `[[budget]]`.
    pub(crate) fn parse(text: &str) -> anyhow::Result<Result<Budget, Vec<Mistake>>> {
        let (document, table) = Document::parse(text);
        let root = document.root(&table);
        root.only(&["budget"]);
        let mut conditions = Vec::new();
        for value in root.get("budget").iter().flat_map(|value| value.items()) {
            match value.table() {
                Some(table) => conditions.push(Condition::read(table, Plain::AtMost)?),
                None => value.mistake("budgets are tables: [[budget]], and their keys on lines below"),
            }
        }
        if conditions.is_empty() && document.is_clean() {
            root.mistake("there is no [[budget]] in this file");
        }
        let mistakes = document.mistakes();
        Ok(if mistakes.is_empty() { Ok(Budget { conditions }) } else { Err(mistakes) })
    }

    /// Lines of the file that say nothing of `rows`, each with the reason. A budget that nobody keeps is a mistake.
    pub(crate) fn idle(&self, rows: &[Record]) -> Vec<Mistake> {
        let reason = |c: &Condition| {
            if !rows.iter().any(|row| c.means(row)) {
                return Some("this budget is about no row".to_owned());
            }
            c.never_counted(rows).map(|key| format!("no row that this budget is about has {key}"))
        };
        let idle = self.conditions.iter().filter_map(|c| reason(c).map(|sentence| (c.line, sentence)));
        idle.map(|(line, sentence)| Mistake { line, column: 1, sentence }).collect()
    }

    /// The rows that exceed it, each with the reason and the line.
    pub(crate) fn exceeded<'b>(
        &self,
        rows: &[Record],
        before: &dyn Fn(&Record) -> Option<&'b Record>,
    ) -> Vec<(usize, String)> {
        let mut all: Vec<(usize, String)> = Vec::new();
        for condition in &self.conditions {
            let found = condition.judge_against(rows, before).into_iter();
            all.extend(found.map(|(row, what)| (row, format!("{what} (line {})", condition.line))));
        }
        all.sort_by_key(|(row, _)| *row);
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(text: &str) -> Vec<Record> {
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    const ROWS: &str = r#"{"strategy":"sync-all","cpus":4,"sync_ipis_per_op":3.0,"instructions_per_op":102.0,"verdict":"safe"}
{"strategy":"sync-all","cpus":2,"sync_ipis_per_op":1.0,"instructions_per_op":null,"verdict":"safe"}
{"strategy":"none","cpus":4,"sync_ipis_per_op":0.0,"instructions_per_op":null,"verdict":"unsafe"}"#;

    fn budget(text: &str) -> Budget {
        Budget::parse(text).unwrap().map_err(|m| format!("{m:?}")).unwrap()
    }

    #[test]
    fn what_is_exceeded_is_named() {
        let b = budget("[[budget]]\nsync_ipis_per_op = 2\n[[budget]]\nstrategies = \"none\"\nverdict = \"safe\"\n");
        let found = b.exceeded(&rows(ROWS), &|_| None);
        assert_eq!(
            found,
            [
                (0, "sync_ipis_per_op is 3, not at most 2 (line 1)".to_owned()),
                (2, "verdict is unsafe, not safe (line 3)".to_owned())
            ]
        );
        assert_eq!(budget("[[budget]]\nsync_ipis_per_op = \"others\"\n").exceeded(&rows(ROWS), &|_| None), []);
    }

    #[test]
    fn growth_is_measured_against_the_row_before() {
        let b = budget("[[budget]]\ninstructions_per_op = { grows_at_most = 0.01 }\n");
        let was = |n: f64| rows(&format!(r#"{{"instructions_per_op":{n}}}"#));
        let (less, same) = (was(100.0), was(101.5));
        assert_eq!(b.exceeded(&rows(ROWS), &|_| less.first()).len(), 1);
        assert_eq!(b.exceeded(&rows(ROWS), &|_| same.first()), []);
        assert_eq!(b.exceeded(&rows(ROWS), &|_| None), []);
    }

    #[test]
    fn a_budget_that_says_nothing_is_told() {
        let said = |text: &str| budget(text).idle(&rows(ROWS)).into_iter().map(|m| m.sentence).collect::<Vec<_>>();
        assert_eq!(said("[[budget]]\nstrategies = \"rcu\"\nsync_ipis_per_op = 1\n"), ["this budget is about no row"]);
        let nobody = said("[[budget]]\nstrategies = \"none\"\ninstructions_per_op = 1\n");
        assert_eq!(nobody, ["no row that this budget is about has instructions_per_op"]);
        assert_eq!(said("[[budget]]\ninstructions_per_op = 1\n"), Vec::<String>::new());
        assert!(Budget::parse("").unwrap().is_err() && Budget::parse("[[budgte]]\n").unwrap().is_err());
    }
}
