//! Which compiler can build for the bare-metal targets: what is installed, which way is used, and the command for it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, ensure};

use crate::arch::Arch;
use crate::child;

/// The oldest Rust release that the workspace compiles with, as in `Cargo.toml`.
pub(crate) const OLDEST_RUST: (u32, u32) = (1, 95);
/// The least important messages that the structured log keeps.
pub(crate) const STRUCTURED_LOG_LEVEL: &str = "debug";
const DEBIAN_SYSROOT: &str = "/usr";

/// A way to build for a bare-metal target.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Toolchain {
    /// The toolchain has the target's core library.
    Targets,
    /// The toolchain has the sources of the core library, which is built along.
    Source,
    /// Debian's compiler and its sources, with the toolchain's linker.
    Debian,
}

/// What of Rust is installed.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct RustFacts {
    /// Root of the toolchain that runs us.
    pub(crate) sysroot: PathBuf,
    /// Targets whose core library is there.
    pub(crate) targets: Vec<Arch>,
    /// Whether the core library's sources are there.
    pub(crate) source: bool,
    /// The release of Debian's compiler, if it is there with its sources.
    pub(crate) debian: Option<(u32, u32)>,
    /// A linker for ELF files of any architecture.
    pub(crate) linker: Option<PathBuf>,
}

impl RustFacts {
    /// Looks.
    pub(crate) fn gather() -> anyhow::Result<RustFacts> {
        let sysroot = sysroot()?;
        let has_target = |a: &Arch| sysroot.join("lib/rustlib").join(a.target()).join("lib").is_dir();
        Ok(RustFacts {
            targets: Arch::ALL.into_iter().filter(has_target).collect(),
            source: has_source(&sysroot),
            debian: debian_release(),
            linker: linker(&sysroot),
            sysroot,
        })
    }

    /// The first way that works for all of `archs`.
    pub(crate) fn usable(&self, archs: &[Arch]) -> Option<Toolchain> {
        if archs.iter().all(|a| self.targets.contains(a)) {
            Some(Toolchain::Targets)
        } else if self.source {
            Some(Toolchain::Source)
        } else if self.debian.is_some_and(|release| release >= OLDEST_RUST) && self.linker.is_some() {
            Some(Toolchain::Debian)
        } else {
            None
        }
    }
}

impl Toolchain {
    /// `cargo build` for `arch`, without the package.
    pub(crate) fn build_command(self, facts: &RustFacts, arch: Arch) -> Command {
        let mut command = match self {
            Toolchain::Targets | Toolchain::Source => Command::new(facts.sysroot.join("bin/cargo")),
            Toolchain::Debian => Command::new("/usr/bin/cargo"),
        };
        forget_outer_build(&mut command);
        command.args(["build", "--release", "--target", arch.target()]);
        let bin = match self {
            Toolchain::Targets | Toolchain::Source => facts.sysroot.join("bin"),
            Toolchain::Debian => PathBuf::from("/usr/bin"),
        };
        command.env("RUSTC", bin.join("rustc"));
        // Which messages of the structured log are compiled in.
        command.env("DEFMT_LOG", STRUCTURED_LOG_LEVEL);
        if self != Toolchain::Targets {
            command.env("RUSTC_BOOTSTRAP", "1");
            command.args(["-Zbuild-std=core,alloc", "-Zbuild-std-features=compiler-builtins-mem"]);
            // What of core is not generic is formatting and the like: compiling it well takes half of the first build.
            command.args(["--config", "profile.release.package.core.opt-level=1"]);
            command.args(["--config", "profile.release.package.core.codegen-units=16"]);
        }
        if let (Toolchain::Debian, Some(linker)) = (self, &facts.linker) {
            command.env(format!("CARGO_TARGET_{}_LINKER", arch.target().to_uppercase().replace('-', "_")), linker);
        }
        command.env("CARGO_ENCODED_RUSTFLAGS", rust_flags(arch).join("\x1f"));
        command
    }

    /// In words.
    pub(crate) fn in_words(self) -> &'static str {
        match self {
            Toolchain::Targets => "the toolchain's own bare-metal targets",
            Toolchain::Source => "the toolchain's rust-src, core library built along",
            Toolchain::Debian => "Debian's rustc and sources, core library built along, the toolchain's linker",
        }
    }
}

/// Code generation for what runs at fixed addresses, with frame pointers for backtraces. The same for all packages, so
/// that they share one core library; their build scripts name their linker scripts.
pub(crate) fn rust_flags(arch: Arch) -> Vec<String> {
    let mut flags = vec!["-Crelocation-model=static".to_owned(), "-Cforce-frame-pointers=yes".to_owned()];
    flags.extend(arch.target_features().map(|f| format!("-Ctarget-feature={f}")));
    flags
}

/// Takes out of a command's environment what the cargo that runs us left there, but for what finds toolchain and
/// registries.
pub(crate) fn forget_outer_build(command: &mut Command) {
    const KEPT: [&str; 12] = [
        "CARGO_HOME",
        "CARGO_HTTP_",
        "CARGO_NET_",
        "CARGO_REGISTRIES_",
        "CARGO_REGISTRY_",
        "CARGO_SOURCE_",
        "CARGO_TERM_",
        "RUSTUP_HOME",
        "RUSTUP_TOOLCHAIN",
        "RUSTUP_AUTO_INSTALL",
        "RUSTUP_DIST_SERVER",
        "RUSTUP_UPDATE_ROOT",
    ];
    for (name, _) in std::env::vars_os() {
        let Some(name) = name.to_str() else { continue };
        let outer = name.starts_with("CARGO") || name.starts_with("RUST");
        if outer && !KEPT.iter().any(|kept| name.starts_with(kept)) {
            command.env_remove(name);
        }
    }
}

/// The cargo that runs us, or the one of the search path.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    forget_outer_build(&mut command);
    command
}

fn sysroot() -> anyhow::Result<PathBuf> {
    // cargo names itself by its full path, which is faster than asking rustc.
    if let Some(root) =
        std::env::var_os("CARGO").map(PathBuf::from).and_then(|c| Some(c.parent()?.parent()?.to_owned()))
        && root.join("lib/rustlib").is_dir()
        && root.join("bin/rustc").is_file()
    {
        return Ok(root);
    }
    let done = child::run(Command::new("rustc").args(["--print", "sysroot"]), Duration::from_secs(60), false)
        .context("there is no rustc: install Rust's stable toolchain from https://rustup.rs")?;
    ensure!(done.status.success(), "rustc --print sysroot failed: {}", done.stderr.trim());
    Ok(PathBuf::from(done.stdout.trim()))
}

fn has_source(sysroot: &Path) -> bool {
    sysroot.join("lib/rustlib/src/rust/library/core/Cargo.toml").is_file()
}

fn debian_release() -> Option<(u32, u32)> {
    let root = Path::new(DEBIAN_SYSROOT);
    if !has_source(root) || !root.join("bin/cargo").is_file() {
        return None;
    }
    let done =
        child::run(Command::new(root.join("bin/rustc")).arg("--version"), Duration::from_secs(60), false).ok()?;
    parse_release(&done.stdout)
}

/// The release in `rustc 1.96.0 (…)` or in `1.96.0+dfsg1-1`.
pub(crate) fn parse_release(text: &str) -> Option<(u32, u32)> {
    let digits = text.find(|c: char| c.is_ascii_digit())?;
    let mut parts = text[digits..].split('.');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

fn linker(sysroot: &Path) -> Option<PathBuf> {
    let hosts = std::fs::read_dir(sysroot.join("lib/rustlib")).ok()?;
    let shipped = hosts.flatten().map(|host| host.path().join("bin/rust-lld")).find(|p| crate::qemu::is_program(p));
    shipped.or_else(|| crate::qemu::find_program("ld.lld"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> RustFacts {
        RustFacts { sysroot: "/toolchain".into(), linker: Some("/toolchain/rust-lld".into()), ..RustFacts::default() }
    }

    #[test]
    fn the_first_way_that_works_is_taken() {
        let everything = RustFacts { targets: Arch::ALL.to_vec(), source: true, debian: Some((1, 96)), ..facts() };
        assert_eq!(everything.usable(&Arch::ALL), Some(Toolchain::Targets));
        let one_target = RustFacts { targets: vec![Arch::X86_64], ..everything };
        assert_eq!(one_target.usable(&Arch::ALL), Some(Toolchain::Source));
        assert_eq!(one_target.usable(&[Arch::X86_64]), Some(Toolchain::Targets));
        let debian_only = RustFacts { debian: Some((1, 96)), ..facts() };
        assert_eq!(debian_only.usable(&Arch::ALL), Some(Toolchain::Debian));
    }

    #[test]
    fn an_old_debian_compiler_or_one_without_a_linker_does_not_count() {
        assert_eq!(RustFacts { debian: Some((1, 85)), ..facts() }.usable(&Arch::ALL), None);
        assert_eq!(RustFacts { debian: Some((1, 96)), linker: None, ..facts() }.usable(&Arch::ALL), None);
        assert_eq!(facts().usable(&Arch::ALL), None);
    }

    #[test]
    fn releases_are_read() {
        assert_eq!(parse_release("rustc 1.96.0 (ac68faa20 2026-05-25)"), Some((1, 96)));
        assert_eq!(parse_release("1.85.0+dfsg3-1~deb12u1"), Some((1, 85)));
        assert_eq!(parse_release("none"), None);
    }

    #[test]
    fn the_build_command_says_how() {
        let command = Toolchain::Debian.build_command(&facts(), Arch::Aarch64);
        let line = format!("{command:?}");
        assert!(line.contains("-Zbuild-std=core,alloc") && line.contains("aarch64-unknown-none-softfloat"), "{line}");
        let set = |name: &str| {
            let found = command.get_envs().find(|(n, _)| *n == name);
            found.and_then(|(_, value)| Some(value?.to_str()?.to_owned()))
        };
        assert_eq!(set("CARGO_TARGET_AARCH64_UNKNOWN_NONE_SOFTFLOAT_LINKER").as_deref(), Some("/toolchain/rust-lld"));
        assert_eq!(
            set("CARGO_ENCODED_RUSTFLAGS").as_deref(),
            Some("-Crelocation-model=static\x1f-Cforce-frame-pointers=yes\x1f-Ctarget-feature=+lse")
        );
        let plain = Toolchain::Targets.build_command(&facts(), Arch::X86_64);
        assert!(!format!("{plain:?}").contains("build-std"));
    }
}
