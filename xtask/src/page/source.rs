//! What a report is made of: the folders of experiments that are finished.

use std::path::{Path, PathBuf};

use anyhow::Context;
use serde::Deserialize;

use crate::build::repository;
use crate::error::bad_input;
use crate::experiment::{self, Manifest};
use crate::profile::Profile;
use crate::records::condition::KERNEL;
use crate::records::{self, PROFILE, Record, number, text};

/// One experiment's folder.
pub(crate) struct Source {
    /// What it was run with.
    pub(crate) manifest: Manifest,
    /// All its rows.
    pub(crate) rows: Vec<Record>,
    /// Its folder.
    pub(crate) folder: PathBuf,
}

/// The experiments in `folder`: itself, or those right below it; and the names of those that are not finished.
pub(crate) fn read(folder: &Path) -> anyhow::Result<(Vec<Source>, Vec<String>)> {
    let makes = "`cargo xtask experiment NAME` makes one in target/experiments";
    let entries = std::fs::read_dir(folder)
        .map_err(|e| bad_input(format!("cannot read the folder {} ({e}); {makes}", folder.display())))?;
    let mut places: Vec<PathBuf> = entries.map(|entry| Ok(entry?.path())).collect::<std::io::Result<_>>()?;
    places.retain(|path| path.is_dir());
    places.push(folder.to_owned());
    places.sort();
    let (mut sources, mut unfinished) = (Vec::new(), Vec::new());
    for path in places {
        let Some(manifest) = experiment::manifest(&path)? else { continue };
        if !path.join("summary.json").is_file() {
            unfinished.push(manifest.experiment);
            continue;
        }
        let rows = records::read(&path.join("rows.jsonl")).with_context(|| format!("in {}", path.display()))?;
        sources.push(Source { manifest, rows, folder: path });
    }
    if sources.is_empty() {
        return Err(bad_input(format!(
            "{} has no finished experiment; `cargo xtask experiment --all` makes some in target/experiments",
            folder.display()
        )));
    }
    Ok((sources, unfinished))
}

impl Source {
    /// What `cargo xtask experiment` is to be given to make the rows again: the name of a file in the repository, or
    /// the file that the folder keeps.
    pub(crate) fn word(&self) -> String {
        let name = &self.manifest.experiment;
        let known = repository().join("experiments").join(format!("{name}.toml")).is_file();
        if known { name.clone() } else { self.folder.join("experiment.toml").display().to_string() }
    }

    /// Rows that are not as expected.
    pub(crate) fn unexpected(&self) -> usize {
        self.rows.iter().filter(|row| row.contains_key("problem")).count()
    }
}

/// The values of `key`, each once, in the order of the rows.
pub(crate) fn distinct(rows: &[&Record], key: &str) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    for value in rows.iter().map(|row| text(row, key)) {
        if !all.contains(&value) {
            all.push(value);
        }
    }
    all
}

/// The mean of `key` over the rows that have it.
pub(crate) fn mean(rows: &[&Record], key: &str) -> Option<f64> {
    let all: Vec<f64> = rows.iter().filter_map(|row| number(row, key)).collect();
    (!all.is_empty()).then(|| all.iter().sum::<f64>() / all.len() as f64)
}

/// Whether nothing was taken away or injected, the kernel operates, and the usual walkers walk.
pub(crate) fn is_plain(row: &Record) -> bool {
    text(row, "without").is_empty()
        && text(row, "inject").is_empty()
        && text(row, "walker") == "gup"
        && text(row, "by") == KERNEL
        && number(row, "ops") > Some(0.0)
}

/// What was recorded of a row beside its counts.
pub(crate) fn profile(row: &Record) -> Option<Profile> {
    row.get(PROFILE).and_then(|value| Profile::deserialize(value).ok())
}

/// Whether flushes travel as the architecture's usual kernels send them.
pub(crate) fn is_native(row: &Record) -> bool {
    let arch = text(row, "arch");
    crate::arch::Arch::ALL.iter().any(|a| a.name() == arch && a.native_transport() == text(row, "transport"))
}

/// Of all groups of rows that `wanted` holds for and that agree in `keys`, the one that says most: the most values of
/// `of`, and then the most rows.
pub(crate) fn richest<'s>(
    sources: &'s [Source],
    keys: &[&str],
    of: &str,
    wanted: impl Fn(&Record) -> bool,
) -> Option<(&'s Source, Vec<&'s Record>)> {
    let mut best: Option<(&Source, Vec<&Record>)> = None;
    let weight = |rows: &[&Record]| (distinct(rows, of).len(), rows.len());
    for source in sources {
        let rows: Vec<&Record> = source.rows.iter().filter(|row| wanted(row)).collect();
        let mut groups: Vec<String> = rows.iter().map(|row| records::identity(row, keys)).collect();
        groups.sort();
        groups.dedup();
        for group in groups {
            let of_group: Vec<&Record> =
                rows.iter().copied().filter(|row| records::identity(row, keys) == group).collect();
            if best.as_ref().is_none_or(|(_, rows)| weight(&of_group) > weight(rows)) {
                best = Some((source, of_group));
            }
        }
    }
    best
}
