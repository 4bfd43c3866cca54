//! What a long command has found so far, in a file: when it is interrupted and called again, it goes on. When it has
//! ended, the file is gone.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::Write;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use anyhow::Context;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::build::repository;
use crate::error::bad_input;

/// Results by name, of one command on one state of the code.
pub(crate) struct Kept {
    path: PathBuf,
    /// Held as long as this lives.
    file: Mutex<File>,
    before: BTreeMap<String, Value>,
}

impl Kept {
    /// What was kept under `name` (a file below `target`) by a command with the same `fingerprint`; with `fresh`,
    /// nothing.
    pub(crate) fn open(name: &str, fingerprint: &str, fresh: bool) -> anyhow::Result<Kept> {
        Kept::at(repository().join("target").join(name), fingerprint, fresh)
    }

    fn at(path: PathBuf, fingerprint: &str, fresh: bool) -> anyhow::Result<Kept> {
        let shown = path.display().to_string();
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).with_context(|| format!("cannot make the folder of {shown}"))?;
        }
        let file = OpenOptions::new().create(true).append(true).read(true).open(&path);
        let mut file = file.with_context(|| format!("cannot write {shown}"))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(bad_input(format!("another runner is writing to {shown}; let it end first")));
            }
            Err(TryLockError::Error(error)) => return Err(error).with_context(|| format!("cannot lock {shown}")),
        }
        let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {shown}"))?;
        let mut lines = text.lines().map(serde_json::from_str::<Value>);
        let head = json!({ "fingerprint": fingerprint });
        let mut before = BTreeMap::new();
        if !fresh && lines.next().is_some_and(|line| line.is_ok_and(|line| line == head)) {
            // A last line that was cut off is found anew.
            for line in lines.map_while(Result::ok) {
                if let (Some(name), Some(value)) = (line["name"].as_str(), line.get("value")) {
                    before.insert(name.to_owned(), value.clone());
                }
            }
        }
        file.set_len(0).with_context(|| format!("cannot write {shown}"))?;
        write_line(&mut file, &head)?;
        for (name, value) in &before {
            write_line(&mut file, &json!({ "name": name, "value": value }))?;
        }
        Ok(Kept { path, file: Mutex::new(file), before })
    }

    /// What an earlier call found under `name`.
    pub(crate) fn get<T: DeserializeOwned>(&self, name: &str) -> Option<T> {
        self.before.get(name).and_then(|value| serde_json::from_value(value.clone()).ok())
    }

    /// How many results an earlier call left.
    pub(crate) fn count(&self) -> usize {
        self.before.len()
    }

    /// Keeps a result.
    pub(crate) fn keep(&self, name: &str, value: &impl Serialize) -> anyhow::Result<()> {
        let line = json!({ "name": name, "value": value });
        write_line(&mut self.file.lock().unwrap_or_else(PoisonError::into_inner), &line)
    }

    /// All is found: the next call begins anew.
    pub(crate) fn forget(self) -> anyhow::Result<()> {
        std::fs::remove_file(&self.path).with_context(|| format!("cannot remove {}", self.path.display()))
    }
}

fn write_line(file: &mut File, line: &Value) -> anyhow::Result<()> {
    file.write_all(format!("{line}\n").as_bytes()).context("cannot keep what was found so far")
}

/// A fingerprint of files and words.
pub(crate) fn fingerprint(files: &[PathBuf], words: &str) -> anyhow::Result<String> {
    let mut digest = Sha256::new();
    for path in files {
        digest.update(std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?);
    }
    digest.update(words);
    Ok(digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_call_goes_on_with_the_same_and_with_nothing_else() {
        let path = std::env::temp_dir().join(format!("kept-{}.jsonl", std::process::id()));
        let open = |fingerprint, fresh| Kept::at(path.clone(), fingerprint, fresh);
        let first = open("a", false).unwrap();
        first.keep("one", &1).unwrap();
        first.keep("two", &"2").unwrap();
        assert!(open("a", false).err().unwrap().to_string().contains("another runner"));
        drop(first);
        // What an interruption may leave.
        OpenOptions::new().append(true).open(&path).unwrap().write_all(b"{\"name\":\"thr").unwrap();
        let second = open("a", false).unwrap();
        assert_eq!(
            (second.count(), second.get::<u32>("one"), second.get::<String>("two")),
            (2, Some(1), Some("2".into()))
        );
        second.keep("three", &3).unwrap();
        drop(second);
        assert_eq!(open("a", false).unwrap().count(), 3);
        assert_eq!(open("b", false).unwrap().count(), 0, "the code is another");
        let again = open("b", false).unwrap();
        again.keep("one", &1).unwrap();
        drop(again);
        let fresh = open("b", true).unwrap();
        assert_eq!(fresh.count(), 0);
        fresh.forget().unwrap();
        assert!(!path.exists());
    }
}
