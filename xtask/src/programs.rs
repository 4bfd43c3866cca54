//! The programs for user mode: built like the images, and packed into the archive that the firmware hands to the kernel
//! (`-initrd`).

use std::fs::File;
use std::io::Cursor;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use cpio::newc::Builder;
use kernel::abi::NAME_BYTES;

use crate::arch::Arch;
use crate::build::{BUILD_LIMIT, fingerprint_of, guest_dir, lock, repository};
use crate::child;
use crate::error::bad_input;
use crate::progress::Step;
use crate::setup;
use crate::toolchain::RustFacts;

/// Where their sources are: a file for each, by its name.
const SOURCES: &str = "programs/src/bin";

/// The archive, once it is built.
pub(crate) fn path(arch: Arch) -> PathBuf {
    guest_dir().join("programs").join(format!("{}.cpio", arch.name()))
}

/// Those of `archs` whose archive is missing or older than its sources.
pub(crate) fn stale(archs: &[Arch]) -> Vec<Arch> {
    let fresh = |arch| {
        let noted = std::fs::read_to_string(path(arch).with_extension("sources"));
        path(arch).is_file() && noted.is_ok_and(|noted| fingerprint(arch).is_ok_and(|now| now == noted))
    };
    archs.iter().copied().filter(|arch| !fresh(*arch)).collect()
}

/// Sets up and builds what is missing for `archs`.
pub(crate) fn ready(archs: &[Arch]) -> anyhow::Result<()> {
    let stale = stale(archs);
    if stale.is_empty() {
        return Ok(());
    }
    setup::ensure_ready(&stale, true)?;
    build(&stale, false)
}

fn fingerprint(arch: Arch) -> anyhow::Result<String> {
    fingerprint_of(arch, &["programs", "kernel/src/abi"], "programs")
}

/// Builds the programs for `archs`, whether or not they are there.
pub(crate) fn build(archs: &[Arch], verbose: bool) -> anyhow::Result<()> {
    check_sources()?;
    let facts = RustFacts::gather()?;
    let toolchain = facts.usable(archs).context("no toolchain can build for the bare-metal targets")?;
    let _lock = lock()?;
    for &arch in archs {
        let sources = fingerprint(arch)?;
        let step = Step::begin(format!("build: {} programs", arch.name()));
        let directory = guest_dir().join("build");
        let mut command = toolchain.build_command(&facts, arch);
        command.current_dir(repository()).args(["--package", "programs", "--bins", "--target-dir"]).arg(&directory);
        match child::run(&mut command, BUILD_LIMIT, verbose) {
            Ok(done) if done.status.success() => {}
            Ok(done) => {
                step.failed();
                eprint!("{}", done.stderr);
                bail!("the programs for {} do not build; what cargo said is above", arch.name());
            }
            Err(error) => {
                step.failed();
                return Err(error);
            }
        }
        let archive = pack(&directory.join(arch.target()).join("release"), &names()?)?;
        keep(&path(arch), &archive, &sources)?;
        step.done();
    }
    Ok(())
}

/// What a linker would say of programs in words of its own.
fn check_sources() -> anyhow::Result<()> {
    for name in names()? {
        let file = format!("{SOURCES}/{name}.rs");
        let text = std::fs::read_to_string(repository().join(&file)).with_context(|| format!("cannot read {file}"))?;
        check_source(&name, &text).map_err(|why| bad_input(format!("{file} {why}; see docs/write-a-program.md")))?;
    }
    Ok(())
}

/// What is wrong with the program `name`, whose source is `text`, to stand behind its name.
fn check_source(name: &str, text: &str) -> Result<(), String> {
    if !text.contains("program!(") {
        return Err("does not say where it begins: it needs a line program!(function)".into());
    }
    if name.len() > NAME_BYTES {
        return Err(format!("has a name of {} bytes, and no more than {NAME_BYTES} can be asked for", name.len()));
    }
    Ok(())
}

/// The programs' names, in order.
fn names() -> anyhow::Result<Vec<String>> {
    let directory = repository().join(SOURCES);
    let entries = std::fs::read_dir(&directory).with_context(|| format!("cannot read {}", directory.display()))?;
    let mut names = Vec::new();
    for entry in entries {
        let file = entry?.path();
        if file.extension().is_some_and(|e| e == "rs") {
            names.extend(file.file_stem().map(|stem| stem.to_string_lossy().into_owned()));
        }
    }
    names.sort();
    Ok(names)
}

/// The archive of the files `names` in `directory`: the same bytes for the same files.
fn pack(directory: &Path, names: &[String]) -> anyhow::Result<Vec<u8>> {
    let mut inputs = Vec::new();
    for (number, name) in names.iter().enumerate() {
        let file = directory.join(name);
        let bytes = std::fs::read(&file).with_context(|| format!("cannot read the program {}", file.display()))?;
        inputs.push((Builder::new(name).ino(number as u32 + 1).mode(0o100_755).nlink(1), Cursor::new(bytes)));
    }
    cpio::write_cpio(inputs.into_iter(), Vec::new()).context("cannot pack the programs")
}

/// Puts an archive where it belongs, at once, and notes what it was built from.
fn keep(at: &Path, archive: &[u8], sources: &str) -> anyhow::Result<()> {
    let fresh = at.with_extension("cpio.new");
    std::fs::create_dir_all(guest_dir().join("programs"))?;
    let mut file = File::create(&fresh).with_context(|| format!("cannot write {}", fresh.display()))?;
    std::io::Write::write_all(&mut file, archive).with_context(|| format!("cannot write {}", fresh.display()))?;
    std::fs::rename(&fresh, at)?;
    std::fs::write(at.with_extension("sources"), sources)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_packed_is_found_by_the_kernel() {
        let directory = repository().join("xtask/src");
        let names = ["main.rs".to_owned(), "arch.rs".to_owned()];
        let archive = pack(&directory, &names).unwrap();
        let main = std::fs::read(directory.join("main.rs")).unwrap();
        assert_eq!(kernel::task::module::find(&archive, "main.rs").unwrap(), main);
        let missing = kernel::task::module::find(&archive, "pager").unwrap_err().to_string();
        assert_eq!(missing, "the module has no program \"pager\", only: main.rs, arch.rs");
        assert!(kernel::task::module::find(&[], "pager").unwrap_err().to_string().contains("-initrd"));
    }

    #[test]
    fn a_program_says_where_it_begins_and_has_a_name_that_fits() {
        assert_eq!(check_source("mine", "program!(start);"), Ok(()));
        assert!(check_source("mine", "fn main() {}").is_err_and(|why| why.contains("program!(function)")));
        assert!(check_source("a_name_that_is_much_too_long", "program!(start);").is_err_and(|why| why.contains("28")));
        check_sources().unwrap();
    }

    #[test]
    fn no_cut_and_no_changed_byte_of_an_archive_panics() {
        let directory = repository().join("xtask/src");
        let archive = pack(&directory, &["output.rs".to_owned()]).unwrap();
        for length in 0..archive.len() {
            let _ = kernel::task::module::find(&archive[..length], "nothing");
        }
        for at in 0..archive.len().min(200) {
            for byte in [0, b'0', b'f', b'F', b'~', 0xff] {
                let mut broken = archive.clone();
                broken[at] = byte;
                let _ = kernel::task::module::find(&broken, "nothing");
            }
        }
    }
}
