//! An experiment's folder. Rows of each guest go to a file of their own as soon as the guest is done, complete or not
//! at all; when all are there, they are put together. So whatever ends the runner, a second call goes on with the
//! guests that are missing.
//!
//! | file | what is in it |
//! |---|---|
//! | `experiment.toml` | the experiment as it was run |
//! | `manifest.json` | versions of the tools, revision and images of the kernel |
//! | `commands.txt` | the QEMU command line of each guest, and the name of its log |
//! | `logs/` | what each kernel said |
//! | `parts/` | rows of finished guests, until all are finished |
//! | `rows.jsonl`, `rows.csv` | all rows |
//! | `summary.json` | how it ended |

use std::fs::{File, TryLockError};
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::plan::Unit;
use crate::error::bad_input;
use crate::records::{self, Record};

/// The files and folders of a folder.
const CONTENTS: [&str; 8] =
    ["experiment.toml", "manifest.json", "commands.txt", "logs", "parts", "rows.jsonl", "rows.csv", "summary.json"];

/// What an experiment was run with. Rows of another one do not belong beside its rows.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(crate) struct Manifest {
    /// Version of this object.
    pub(crate) schema: u32,
    /// The experiment's name.
    pub(crate) experiment: String,
    /// What it shows.
    pub(crate) claim: String,
    /// Guests, and cells of all guests.
    pub(crate) guests: usize,
    /// Cells of all guests.
    pub(crate) cells: usize,
    /// Revision of the repository; `+` for changes that are not committed.
    pub(crate) revision: String,
    /// A hash of all that decides what comes out: command lines and images.
    pub(crate) fingerprint: String,
    /// SHA-256 of each image.
    pub(crate) images: Record,
    /// Versions of QEMU, compiler, runner, and what the host is.
    pub(crate) tools: Record,
    /// When it was begun, in seconds since 1970.
    pub(crate) begun: u64,
}

/// How an experiment ended.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(crate) struct Summary {
    /// Version of this object.
    pub(crate) schema: u32,
    /// True.
    pub(crate) summary: bool,
    /// Rows.
    pub(crate) rows: usize,
    /// Rows that are not as expected.
    pub(crate) unexpected: usize,
}

/// A folder that this process alone writes to.
pub(crate) struct Folder {
    path: PathBuf,
    /// Held as long as this lives.
    _lock: File,
}

impl Folder {
    /// Takes the folder at `path` for the experiment that `manifest` describes; with `fresh`, what was in it is
    /// forgotten.
    pub(crate) fn take(path: &Path, manifest: &Manifest, text: &str, fresh: bool) -> anyhow::Result<Folder> {
        let shown = path.display();
        std::fs::create_dir_all(path).with_context(|| format!("cannot make the folder {shown}"))?;
        let lock = File::open(path).with_context(|| format!("cannot open {shown}"))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(bad_input(format!("another runner is writing to {shown}; let it end first")));
            }
            Err(TryLockError::Error(error)) => return Err(error).with_context(|| format!("cannot lock {shown}")),
        }
        let folder = Folder { path: path.to_owned(), _lock: lock };
        let there = folder.manifest()?;
        match there {
            Some(_) if fresh => folder.forget()?,
            Some(old) if old.fingerprint != manifest.fingerprint => {
                let other = if old.images == manifest.images { "another experiment" } else { "another kernel" };
                return Err(bad_input(format!(
                    "{shown} has rows of {other} (revision {}); --fresh begins anew there, --folder PATH keeps both",
                    old.revision
                )));
            }
            Some(_) => {}
            None => ensure!(
                std::fs::read_dir(path)?.next().is_none(),
                bad_input(format!("{shown} has other files in it; give a folder that is empty or not there"))
            ),
        }
        for sub in ["parts", "logs"] {
            std::fs::create_dir_all(path.join(sub)).with_context(|| format!("cannot make a folder in {shown}"))?;
        }
        folder.write("experiment.toml", text.as_bytes())?;
        if folder.manifest()?.is_none() {
            folder.write("manifest.json", &json_lines(std::slice::from_ref(manifest))?)?;
        }
        Ok(folder)
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    fn manifest(&self) -> anyhow::Result<Option<Manifest>> {
        manifest(&self.path)
    }

    fn forget(&self) -> anyhow::Result<()> {
        for name in CONTENTS {
            let path = self.path.join(name);
            let done = if path.is_dir() { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) };
            match done {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(error).with_context(|| format!("cannot remove {}", path.display()));
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn part(unit: &Unit) -> String {
        format!("parts/{}.jsonl", unit.name)
    }

    /// Whether `unit` is done.
    pub(crate) fn has(&self, unit: &Unit) -> bool {
        self.path.join(Folder::part(unit)).is_file()
    }

    /// All rows, if they are put together already.
    pub(crate) fn finished(&self) -> anyhow::Result<Option<Vec<Record>>> {
        if !self.path.join("summary.json").is_file() {
            return Ok(None);
        }
        records::read(&self.path.join("rows.jsonl")).map(Some)
    }

    /// Keeps the rows of a unit that is done.
    pub(crate) fn keep(&self, unit: &Unit, rows: &[Record]) -> anyhow::Result<()> {
        self.write(&Folder::part(unit), &json_lines(rows)?)
    }

    /// Keeps what the kernel said.
    pub(crate) fn log(&self, unit: &Unit, lines: &[String]) -> anyhow::Result<()> {
        let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
        self.write(&format!("logs/{}.log", unit.name), text.as_bytes())
    }

    /// The rows of all units, in their order.
    pub(crate) fn gather(&self, units: &[Unit]) -> anyhow::Result<Vec<Record>> {
        let mut rows = Vec::new();
        for unit in units {
            rows.extend(records::read(&self.path.join(Folder::part(unit)))?);
        }
        Ok(rows)
    }

    /// Keeps all rows together, and says how it ended.
    pub(crate) fn finish(&self, rows: &[Record], summary: &Summary) -> anyhow::Result<()> {
        self.write("rows.jsonl", &json_lines(rows)?)?;
        self.write("rows.csv", &csv(rows)?)?;
        self.write("summary.json", &json_lines(std::slice::from_ref(summary))?)?;
        std::fs::remove_dir_all(self.path.join("parts")).context("cannot remove the parts, which are put together now")
    }

    /// Writes a file, whole or not at all.
    pub(crate) fn write(&self, name: &str, bytes: &[u8]) -> anyhow::Result<()> {
        let path = self.path.join(name);
        let new = path.with_extension("new");
        let write = || -> std::io::Result<()> {
            let mut file = File::create(&new)?;
            file.write_all(bytes)?;
            // What is renamed must be on the disk first, or a loss of power leaves an empty file under the name.
            file.sync_all()?;
            std::fs::rename(&new, &path)?;
            File::open(path.parent().unwrap_or(&self.path))?.sync_all()
        };
        write().with_context(|| format!("cannot write {}", path.display()))
    }
}

/// What the folder at `path` was run with; nothing if it is no experiment's.
pub(crate) fn manifest(path: &Path) -> anyhow::Result<Option<Manifest>> {
    let path = path.join("manifest.json");
    match std::fs::read_to_string(&path) {
        Ok(text) => serde_json::from_str(&text).map(Some).with_context(|| format!("{} is damaged", path.display())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

fn json_lines(objects: &[impl Serialize]) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    for object in objects {
        serde_json::to_writer(&mut bytes, object).context("a result cannot be written as JSON")?;
        bytes.push(b'\n');
    }
    Ok(bytes)
}

/// The rows as CSV: one column for each key that any of them has, but for profiles, which are no single value.
fn csv(rows: &[Record]) -> anyhow::Result<Vec<u8>> {
    let mut keys: Vec<&str> = Vec::new();
    for key in rows.iter().flat_map(|row| row.keys()).filter(|key| *key != records::PROFILE) {
        if !keys.contains(&key.as_str()) {
            keys.push(key);
        }
    }
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record(&keys)?;
    for row in rows {
        let field = |key: &&str| match row.get(*key) {
            Some(Value::String(text)) => text.clone(),
            Some(Value::Null) | None => String::new(),
            Some(other) => other.to_string(),
        };
        writer.write_record(keys.iter().map(field))?;
    }
    Ok(writer.into_inner()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_those_of_all_rows() {
        let rows: Vec<Record> = [r#"{"arch":"x86_64","n":1.5,"m":null}"#, r#"{"arch":"a, b","later":true}"#]
            .map(|text| serde_json::from_str(text).unwrap())
            .into();
        let text = String::from_utf8(csv(&rows).unwrap()).unwrap();
        assert_eq!(text, "arch,n,m,later\nx86_64,1.5,,\n\"a, b\",,,true\n");
    }
}
