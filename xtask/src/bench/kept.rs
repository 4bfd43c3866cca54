//! The results that were kept: `bench/results.json`, and what moved since.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::Path;

use anyhow::Context;
use serde::{Deserialize, Serialize};

/// Numbers by name, sorted.
#[derive(Default, Serialize, Deserialize)]
pub(crate) struct Kept {
    results: BTreeMap<String, f64>,
}

/// A number that is not what it was.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Moved {
    name: String,
    before: Option<f64>,
    now: f64,
}

impl Kept {
    /// What is in the file at `path`; nothing if there is none.
    pub(crate) fn load(path: &Path) -> anyhow::Result<Kept> {
        match std::fs::read_to_string(path) {
            Ok(text) => serde_json::from_str(&text).with_context(|| format!("{} is damaged", path.display())),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Kept::default()),
            Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
        }
    }

    /// The number under this name.
    pub(crate) fn get(&self, name: &str) -> Option<f64> {
        self.results.get(name).copied()
    }

    /// Whether nothing was ever kept.
    pub(crate) fn is_empty(&self) -> bool {
        self.results.is_empty()
    }

    /// Which of these numbers are new or not what they were.
    pub(crate) fn moved(&self, now: &[(String, f64)]) -> Vec<Moved> {
        let changed = |(name, now): &(String, f64)| {
            let before = self.results.get(name).copied();
            let same = before.is_some_and(|before| (before - now).abs() < 1e-9);
            (!same).then(|| Moved { name: name.clone(), before, now: *now })
        };
        now.iter().filter_map(changed).collect()
    }

    /// Takes these numbers in; others stay.
    pub(crate) fn keep(&mut self, now: impl Iterator<Item = (String, f64)>) {
        self.results.extend(now);
    }

    /// Writes the file.
    pub(crate) fn save(&self, path: &Path) -> anyhow::Result<()> {
        if let Some(directory) = path.parent() {
            std::fs::create_dir_all(directory)?;
        }
        let text = serde_json::to_string_pretty(self)? + "\n";
        std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
    }
}

/// What moved, in words.
pub(crate) fn text(moved: &[Moved], nothing_kept: bool) -> String {
    if nothing_kept {
        return "There are no earlier results; --save keeps these.\n".into();
    }
    if moved.is_empty() {
        return "Nothing moved since the last results.\n".into();
    }
    let mut out = String::from("Moved since the last results:\n");
    for Moved { name, before, now } in moved {
        out += &match before {
            Some(before) => {
                let percent = (now - before) / before * 100.0;
                format!("  {name}: {before:.2} to {now:.2} ({percent:+.1} %)\n")
            }
            None => format!("  {name}: {now:.2}, new\n"),
        };
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(list: &[(&str, f64)]) -> Vec<(String, f64)> {
        list.iter().map(|(name, n)| ((*name).to_owned(), *n)).collect()
    }

    #[test]
    fn what_moved_is_told_with_its_direction() {
        let mut kept = Kept::default();
        kept.keep(numbers(&[("a", 100.0), ("b", 50.0)]).into_iter());
        let moved = kept.moved(&numbers(&[("a", 110.0), ("b", 50.0), ("c", 1.0)]));
        assert_eq!(moved.len(), 2);
        let expected = "Moved since the last results:\n  a: 100.00 to 110.00 (+10.0 %)\n  c: 1.00, new\n";
        assert_eq!(text(&moved, false), expected);
        assert_eq!(text(&[], false), "Nothing moved since the last results.\n");
        assert!(text(&moved, true).starts_with("There are no earlier results"));
    }

    #[test]
    fn the_file_comes_back_as_it_was_written() {
        let directory = std::env::temp_dir().join(format!("kept-{}", std::process::id()));
        let path = directory.join("bench/results.json");
        let mut kept = Kept::load(&path).unwrap();
        assert!(kept.is_empty());
        kept.keep(numbers(&[("walk x86_64 none 1", 101.5)]).into_iter());
        kept.save(&path).unwrap();
        let again = Kept::load(&path).unwrap();
        std::fs::remove_dir_all(&directory).unwrap();
        assert!(again.moved(&numbers(&[("walk x86_64 none 1", 101.5)])).is_empty());
        assert!(!again.is_empty());
    }
}
