//! Builds the images: one with the oracles that give verdicts, one without that is measured.
//!
//! Both come from one target directory, so that the core library is built once; a lock keeps two runners from mixing
//! them up. An image whose sources did not change since is not built again, and cargo is not even asked.

use std::fs::{File, TryLockError};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::Args;

use crate::arch::{self, Arch, ArchChoice};
use crate::child;
use crate::error::Outcome;
use crate::output;
use crate::programs;
use crate::progress::Step;
use crate::setup;
use crate::toolchain::{RustFacts, STRUCTURED_LOG_LEVEL, rust_flags};

/// How long a build may take.
pub(crate) const BUILD_LIMIT: Duration = Duration::from_secs(1800);

/// Which of the two images.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Kind {
    /// Without oracles and without seeded timers: instructions are counted on it.
    Plain,
    /// With oracles and schedule points: verdicts and interrupt counts come from it.
    Checking,
}

impl Kind {
    /// Both.
    pub(crate) const ALL: [Kind; 2] = [Kind::Checking, Kind::Plain];

    /// As in directory names.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::Plain => "plain",
            Kind::Checking => "checking",
        }
    }

    fn features(self) -> &'static [&'static str] {
        match self {
            Kind::Plain => &[],
            Kind::Checking => &["--features", "checking"],
        }
    }
}

/// Builds the kernel's images and the programs without running them
#[derive(Args)]
pub(crate) struct Build {
    /// x86_64, aarch64 or all
    #[arg(long, default_value = "all", value_name = "ARCH")]
    arch: String,
    /// Show what cargo says
    #[arg(short, long)]
    verbose: bool,
}

impl Build {
    /// Does it.
    pub(crate) fn run(self) -> anyhow::Result<Outcome> {
        let ArchChoice(archs) = arch::choose(&self.arch)?;
        setup::ensure_ready(&archs, true)?;
        let all: Vec<(Arch, Kind)> = archs.iter().flat_map(|&a| Kind::ALL.map(|k| (a, k))).collect();
        build(&all, self.verbose)?;
        programs::build(&archs, self.verbose)?;
        for (arch, kind) in all {
            output::print(&format!("{}\n", image_path(arch, kind).display()))?;
        }
        for arch in archs {
            output::print(&format!("{}\n", programs::path(arch).display()))?;
        }
        Ok(Outcome::Expected)
    }
}

/// The workspace's directory.
pub(crate) fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."))
}

/// Where images and what belongs to them are kept.
pub(crate) fn guest_dir() -> PathBuf {
    repository().join("target/guest")
}

/// Where an image is once it is built.
pub(crate) fn image_path(arch: Arch, kind: Kind) -> PathBuf {
    guest_dir().join(kind.name()).join(format!("{}.elf", arch.name()))
}

/// Those of `wanted` that are missing or older than their sources.
pub(crate) fn stale(wanted: &[(Arch, Kind)]) -> Vec<(Arch, Kind)> {
    wanted.iter().copied().filter(|&(arch, kind)| !is_fresh(arch, kind)).collect()
}

/// Builds `images`, whether or not they are there.
pub(crate) fn build(images: &[(Arch, Kind)], verbose: bool) -> anyhow::Result<()> {
    let archs: Vec<Arch> = Arch::ALL.into_iter().filter(|a| images.iter().any(|(i, _)| i == a)).collect();
    let facts = RustFacts::gather()?;
    let toolchain = facts.usable(&archs).context("no toolchain can build for the bare-metal targets")?;
    let _lock = lock()?;
    for &(arch, kind) in images {
        let sources = fingerprint(arch, kind)?;
        let step = Step::begin(format!("build: {} kernel, {} image", arch.name(), kind.name()));
        let directory = guest_dir().join("build");
        let mut command = toolchain.build_command(&facts, arch);
        command.current_dir(repository()).args(["--package", "platform", "--bin", "platform", "--target-dir"]);
        command.arg(&directory).args(kind.features());
        let done = child::run(&mut command, BUILD_LIMIT, verbose);
        let done = match done {
            Ok(done) if done.status.success() => done,
            Ok(done) => {
                step.failed();
                eprint!("{}", done.stderr);
                bail!("the {} image for {} does not build; what cargo said is above", kind.name(), arch.name());
            }
            Err(error) => {
                step.failed();
                return Err(error);
            }
        };
        drop(done);
        keep(&directory.join(arch.target()).join("release/platform"), arch, kind, &sources)?;
        step.done();
    }
    Ok(())
}

/// Puts a built image where it belongs, at once, and notes what it was built from.
fn keep(built: &Path, arch: Arch, kind: Kind, sources: &str) -> anyhow::Result<()> {
    let image = image_path(arch, kind);
    let fresh = image.with_extension("elf.new");
    std::fs::create_dir_all(guest_dir().join(kind.name()))?;
    std::fs::copy(built, &fresh).with_context(|| format!("cannot keep the image {}", built.display()))?;
    std::fs::rename(&fresh, &image)?;
    std::fs::write(image.with_extension("sources"), sources)?;
    Ok(())
}

fn is_fresh(arch: Arch, kind: Kind) -> bool {
    let image = image_path(arch, kind);
    let noted = std::fs::read_to_string(image.with_extension("sources"));
    image.is_file() && noted.is_ok_and(|noted| fingerprint(arch, kind).is_ok_and(|now| now == noted))
}

fn fingerprint(arch: Arch, kind: Kind) -> anyhow::Result<String> {
    let own = format!("arch-{}", arch.name());
    fingerprint_of(arch, &["kernel", "strategies", "platform", &own], (kind, STRUCTURED_LOG_LEVEL))
}

/// A number that changes with any file of `directories`, and with the way of building: the flags, and `how`.
pub(crate) fn fingerprint_of(arch: Arch, directories: &[&str], how: impl Hash) -> anyhow::Result<String> {
    let mut files = vec![repository().join("Cargo.toml"), repository().join("Cargo.lock")];
    for directory in directories {
        collect(&repository().join(directory), &mut files)?;
    }
    files.sort();
    let mut hasher = DefaultHasher::new();
    rust_flags(arch).hash(&mut hasher);
    how.hash(&mut hasher);
    for file in files {
        let meta = file.metadata().with_context(|| format!("cannot look at {}", file.display()))?;
        (file, meta.len(), meta.modified()?).hash(&mut hasher);
    }
    Ok(format!("{:016x}", hasher.finish()))
}

fn collect(directory: &Path, files: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    let entries = std::fs::read_dir(directory).with_context(|| format!("cannot read {}", directory.display()))?;
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            collect(&entry.path(), files)?;
        } else {
            files.push(entry.path());
        }
    }
    Ok(())
}

/// Held while images are built.
pub(crate) fn lock() -> anyhow::Result<File> {
    std::fs::create_dir_all(guest_dir())?;
    let path = guest_dir().join("lock");
    let file = File::create(&path).with_context(|| format!("cannot write to {}", path.display()))?;
    let begin = Instant::now();
    let mut said = false;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(error)) => return Err(error).context("cannot lock the build directory"),
        }
        child::check_interrupted()?;
        if begin.elapsed() > BUILD_LIMIT {
            bail!("another runner has been building for {} s; end it first", BUILD_LIMIT.as_secs());
        }
        if !said {
            eprintln!("build: waiting for another runner's build");
            said = true;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}
