//! What an experiment was run with: revision, images, tools, host.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use serde_json::json;
use sha2::{Digest, Sha256};

use super::Ready;
use super::file::Experiment;
use super::folder::Manifest;
use super::plan::{Unit, Work};
use crate::arch::Arch;
use crate::build::{image_path, repository};
use crate::child;
use crate::programs;
use crate::records::Record;
use crate::setup::Qemu;

const LIMIT: Duration = Duration::from_secs(30);

/// The manifest of `experiment`, whose images are built.
pub(crate) fn manifest(name: &str, experiment: &Experiment, units: &[Unit], ready: &Ready) -> anyhow::Result<Manifest> {
    let mut hashes = Record::new();
    let images =
        ready.images.iter().map(|&(arch, kind)| (format!("{} {}", arch.name(), kind.name()), image_path(arch, kind)));
    let programs = ready.with_programs.iter().map(|&arch| (format!("{} programs", arch.name()), programs::path(arch)));
    for (name, path) in images.chain(programs).chain(ready.model.iter().map(|path| ("model".to_owned(), path.clone())))
    {
        let bytes = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        hashes.insert(name, json!(hex(&Sha256::digest(&bytes))));
    }
    let mut all = Sha256::new();
    all.update(serde_json::to_string(&hashes)?);
    for unit in units {
        all.update(unit.name.as_bytes());
        match &unit.work {
            Work::Guest(guest) => {
                all.update(guest.suite.command_line(guest.arch.native_transport()).as_bytes());
                all.update([u8::from(guest.instructions), 0]);
            }
            Work::Model(work) => all.update(work.options().join(" ").as_bytes()),
        }
    }
    for (arch, qemu) in &ready.qemus {
        all.update(format!("{} {}\n", arch.name(), qemu.version));
    }
    Ok(Manifest {
        schema: crate::rows::SCHEMA,
        experiment: name.to_owned(),
        claim: experiment.claim.clone(),
        guests: units.iter().filter_map(Unit::guest).map(|guest| guest.kinds().len()).sum(),
        cells: units.iter().map(Unit::cells).sum(),
        revision: revision(),
        fingerprint: hex(&all.finalize()),
        images: hashes,
        tools: tools(&ready.qemus),
        begun: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()),
    })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The first line that a program prints, or `unknown`.
fn first_line(command: &mut Command) -> String {
    let done = child::run(command.current_dir(repository()), LIMIT, false);
    let line = done.ok().filter(|d| d.status.success()).map(|d| crate::error::first_line(&d.stdout));
    line.unwrap_or_else(|| "unknown".to_owned())
}

fn revision() -> String {
    let head = first_line(Command::new("git").args(["rev-parse", "HEAD"]));
    let changes = first_line(Command::new("git").args(["status", "--porcelain", "--untracked-files=no"]));
    if changes.is_empty() || head == "unknown" { head } else { head + "+" }
}

fn tools(qemus: &[(Arch, Qemu)]) -> Record {
    let mut tools = Record::new();
    for (arch, qemu) in qemus {
        tools.insert(arch.qemu().to_owned(), json!(qemu.version.to_string()));
    }
    tools.insert("rustc".to_owned(), json!(first_line(Command::new("rustc").arg("--version"))));
    tools.insert("xtask".to_owned(), json!(env!("CARGO_PKG_VERSION")));
    let host = rustix::system::uname();
    let words = [host.sysname(), host.release(), host.machine()].map(|word| word.to_string_lossy().into_owned());
    tools.insert("host".to_owned(), json!(words.join(" ")));
    tools.insert("cores".to_owned(), json!(crate::probe::at_once()));
    tools
}

/// The name of an experiment's file: its folder's, and how it is called on the command line.
pub(crate) fn name_of(path: &Path) -> String {
    path.file_stem().map_or_else(String::new, |stem| stem.to_string_lossy().into_owned())
}
