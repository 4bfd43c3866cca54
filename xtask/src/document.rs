//! A TOML document that is read as a whole: every mistake in it is noted with its line and column, and reading goes on,
//! so that a person sees all of them at once.

use std::cell::RefCell;
use std::ops::Range;
use std::path::Path;

use kernel::suite::Named;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::error::bad_input;
use crate::names::nearest;
use crate::scenario::text::Mistake;

/// The text, and what is wrong with it so far.
pub(crate) struct Document<'t> {
    text: &'t str,
    mistakes: RefCell<Vec<Mistake>>,
}

/// A table of the document.
#[derive(Clone, Copy)]
pub(crate) struct Table<'d, 't> {
    document: &'d Document<'t>,
    entries: &'d DeTable<'t>,
    /// Where the table begins, in bytes.
    at: usize,
}

/// A value of the document.
#[derive(Clone, Copy)]
pub(crate) struct Value<'d, 't> {
    document: &'d Document<'t>,
    value: &'d DeValue<'t>,
    at: usize,
}

impl<'t> Document<'t> {
    /// Reads the syntax of `text`; with mistakes in it, the entries are those that could be read.
    pub(crate) fn parse(text: &'t str) -> (Document<'t>, Spanned<DeTable<'t>>) {
        let (table, errors) = DeTable::parse_recoverable(text);
        let document = Document { text, mistakes: RefCell::default() };
        for error in errors {
            let Range { start, .. } = error.span().unwrap_or(0..0);
            document.note(start, error.message().replace('\n', ", "));
        }
        (document, table)
    }

    /// The outermost table.
    pub(crate) fn root<'d>(&'d self, table: &'d Spanned<DeTable<'t>>) -> Table<'d, 't> {
        Table { document: self, entries: table.get_ref(), at: 0 }
    }

    /// Whether nothing was noted so far.
    pub(crate) fn is_clean(&self) -> bool {
        self.mistakes.borrow().is_empty()
    }

    /// What was noted, by place.
    pub(crate) fn mistakes(self) -> Vec<Mistake> {
        let mut all = self.mistakes.into_inner();
        all.sort_by_key(|m| (m.line, m.column));
        all.dedup();
        all
    }

    /// Line and column, from 1, of the byte `at`.
    fn place(&self, at: usize) -> (usize, usize) {
        let before = &self.text[..self.text.floor_char_boundary(at)];
        let start = before.rfind('\n').map_or(0, |newline| newline + 1);
        (before.matches('\n').count() + 1, before[start..].chars().count() + 1)
    }

    fn note(&self, at: usize, sentence: impl Into<String>) {
        let (line, column) = self.place(at);
        self.mistakes.borrow_mut().push(Mistake { line, column, sentence: sentence.into() });
    }
}

/// All mistakes of the file at `path`, a line each, as one error.
pub(crate) fn refusal(path: &Path, mistakes: &[Mistake]) -> anyhow::Error {
    let lines: Vec<String> =
        mistakes.iter().map(|m| format!("{}:{}:{}: {}", path.display(), m.line, m.column, m.sentence)).collect();
    bad_input(lines.join("\n       "))
}

impl<'d, 't> Table<'d, 't> {
    /// The value of `key`.
    pub(crate) fn get(&self, key: &str) -> Option<Value<'d, 't>> {
        let value = self.entries.get(key)?;
        Some(Value { document: self.document, value: value.get_ref(), at: value.span().start })
    }

    /// All keys with their values, in the order of the text.
    pub(crate) fn entries(&self) -> Vec<(&'d str, Value<'d, 't>)> {
        let mut all: Vec<(usize, &'d str, Value<'d, 't>)> = self
            .entries
            .iter()
            .map(|(key, value)| {
                let found = Value { document: self.document, value: value.get_ref(), at: value.span().start };
                (key.span().start, key.get_ref().as_ref(), found)
            })
            .collect();
        all.sort_by_key(|(at, ..)| *at);
        all.into_iter().map(|(_, key, value)| (key, value)).collect()
    }

    /// Notes every key that is not among `known`.
    pub(crate) fn only(&self, known: &[&str]) {
        for key in self.entries.keys().filter(|key| !known.contains(&key.get_ref().as_ref())) {
            let (given, hint) = (key.get_ref(), nearest(key.get_ref(), known.iter().copied()));
            self.document.note(key.span().start, format!("there is no key \"{given}\"; did you mean \"{hint}\"?"));
        }
    }

    /// The line on which the table begins.
    pub(crate) fn line(&self) -> usize {
        self.document.place(self.at).0
    }

    /// Notes a mistake of the whole table.
    pub(crate) fn mistake(&self, sentence: impl Into<String>) {
        self.document.note(self.at, sentence);
    }
}

impl<'d, 't> Value<'d, 't> {
    /// Notes a mistake here.
    pub(crate) fn mistake(&self, sentence: impl Into<String>) {
        self.document.note(self.at, sentence);
    }

    /// The value as TOML's kinds.
    pub(crate) fn kind(&self) -> &'d DeValue<'t> {
        self.value
    }

    /// The values of a list; a single value is a list of one.
    pub(crate) fn items(&self) -> Vec<Value<'d, 't>> {
        match self.value {
            DeValue::Array(array) => array
                .iter()
                .map(|item| Value { document: self.document, value: item.get_ref(), at: item.span().start })
                .collect(),
            _ => vec![*self],
        }
    }

    /// The table that this is.
    pub(crate) fn table(&self) -> Option<Table<'d, 't>> {
        match self.value {
            DeValue::Table(entries) => Some(Table { document: self.document, entries, at: self.at }),
            _ => None,
        }
    }

    /// The text that this is, or a mistake.
    pub(crate) fn text(&self, what: &str) -> Option<&'d str> {
        match self.value {
            DeValue::String(text) => Some(text.as_ref()),
            _ => {
                self.mistake(format!("{what} belongs here, in quotes"));
                None
            }
        }
    }

    /// The whole number that this is, or a mistake.
    pub(crate) fn number(&self, least: u64, most: u64) -> Option<u64> {
        let read = match self.value {
            DeValue::Integer(n) => u64::from_str_radix(n.as_str(), n.radix()).ok(),
            _ => None,
        };
        let found = read.filter(|n| (least..=most).contains(n));
        if found.is_none() {
            self.mistake(format!("a number from {least} to {most} belongs here"));
        }
        found
    }

    /// The truth value that this is, or a mistake.
    pub(crate) fn truth(&self) -> Option<bool> {
        match self.value {
            DeValue::Boolean(truth) => Some(*truth),
            _ => {
                self.mistake("true or false belongs here");
                None
            }
        }
    }

    /// The names of `names` that the list says, each once; `all` stands for every one.
    pub(crate) fn names(&self, kind: &str, names: &[Named]) -> Vec<&'static str> {
        self.names_more(kind, names, &[])
    }

    /// The same with `more` names, for which `all` does not stand.
    pub(crate) fn names_more(&self, kind: &str, names: &[Named], more: &[Named]) -> Vec<&'static str> {
        let mut chosen = Vec::new();
        for item in self.items() {
            let Some(word) = item.text(&format!("the name of a {kind}")) else { continue };
            let all = || names.iter().chain(more).map(|(name, _)| *name);
            let found: Vec<&'static str> = match word {
                "all" => names.iter().map(|(name, _)| *name).collect(),
                word => all().filter(|name| *name == word).collect(),
            };
            if found.is_empty() {
                let hint = nearest(word, all());
                item.mistake(format!("there is no {kind} \"{word}\"; did you mean \"{hint}\"?"));
            }
            for name in found {
                if !chosen.contains(&name) {
                    chosen.push(name);
                }
            }
        }
        if self.items().is_empty() {
            self.mistake(format!("a {kind}, at least, belongs here"));
        }
        chosen
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mistake_is_noted_with_its_place() {
        let text = "sids = 3\n\"höhe\" = 2\nengines = [\"icount\", \"mtcg\",\n  \"icont\"]\nops = 0\n";
        let (document, table) = Document::parse(text);
        let root = document.root(&table);
        root.only(&["seeds", "engines", "ops"]);
        let engines = root.get("engines").unwrap().names("engine", &[("icount", ""), ("mttcg", "")]);
        assert_eq!(engines, ["icount"]);
        assert_eq!(root.get("ops").unwrap().number(1, 9), None);
        let all: Vec<String> =
            document.mistakes().iter().map(|m| format!("{}:{}: {}", m.line, m.column, m.sentence)).collect();
        assert_eq!(
            all,
            [
                "1:1: there is no key \"sids\"; did you mean \"seeds\"?",
                "2:1: there is no key \"höhe\"; did you mean \"engines\"?",
                "3:22: there is no engine \"mtcg\"; did you mean \"mttcg\"?",
                "4:3: there is no engine \"icont\"; did you mean \"icount\"?",
                "5:7: a number from 1 to 9 belongs here",
            ]
        );
    }

    #[test]
    fn wrong_syntax_has_its_place_too() {
        let (document, _) = Document::parse("a = 1\nb = [1, \nc = \"x\n");
        let mistakes = document.mistakes();
        assert!(mistakes.iter().any(|m| m.line >= 2), "{mistakes:?}");
    }
}
