//! Set-up: decides what to install from what is there, installs it, and stops with the exact command where it may not.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, bail, ensure};

use crate::arch::Arch;
use crate::child;
use crate::debugger;
use crate::progress::Step as ProgressStep;
use crate::qemu::{self, Version};
use crate::toolchain::{self, OLDEST_RUST, RustFacts};

const DEBIAN_RUST: [&str; 3] = ["rustc-web", "cargo-web", "rust-web-src"];
const INSTALL_LIMIT: Duration = Duration::from_secs(1800);

/// How packages can be installed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Privilege {
    /// We are root.
    Root,
    /// sudo works without a password.
    Sudo,
    /// Not at all.
    None,
}

/// What decides the plan.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Facts {
    /// Architectures whose QEMU is missing or too old.
    pub(crate) without_qemu: Vec<Arch>,
    /// Whether a toolchain can build for the bare-metal targets.
    pub(crate) rust_ready: bool,
    /// rustup is there.
    pub(crate) rustup: bool,
    /// rustup may download, and has not failed to.
    pub(crate) rustup_may_download: bool,
    /// apt-get is there.
    pub(crate) apt: bool,
    /// Who we are.
    pub(crate) privilege: Privilege,
}

/// One thing to install.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Step {
    /// Core libraries for the bare-metal targets, by rustup.
    RustupTargets,
    /// Debian packages.
    Packages(Vec<&'static str>),
}

/// What to do about what is missing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Plan {
    /// Nothing is missing.
    Ready,
    /// Install this, in this order.
    Install(Vec<Step>),
    /// It may not be done from here: what is missing, and the command that a person can run.
    Stop {
        /// What is missing.
        missing: String,
        /// The command.
        command: String,
    },
}

/// The decision.
pub(crate) fn plan(facts: &Facts) -> Plan {
    let mut steps = Vec::new();
    let mut packages: Vec<&'static str> = facts.without_qemu.iter().map(|a| a.qemu_package()).collect();
    if !facts.rust_ready {
        if facts.rustup_may_download {
            steps.push(Step::RustupTargets);
        } else {
            packages.extend(DEBIAN_RUST);
        }
    }
    if !packages.is_empty() {
        steps.push(Step::Packages(packages.clone()));
    }
    if steps.is_empty() {
        Plan::Ready
    } else if packages.is_empty() || (facts.apt && facts.privilege != Privilege::None) {
        Plan::Install(steps)
    } else {
        Plan::Stop { missing: missing(facts), command: commands(facts, &packages) }
    }
}

fn missing(facts: &Facts) -> String {
    let mut parts: Vec<String> =
        facts.without_qemu.iter().map(|a| format!("{} {} or newer", a.qemu(), qemu::OLDEST)).collect();
    if !facts.rust_ready {
        parts.push("a core library for the bare-metal targets".into());
    }
    parts.join(" and ")
}

fn commands(facts: &Facts, packages: &[&str]) -> String {
    let rustup = format!("rustup target add {}", Arch::ALL.map(Arch::target).join(" "));
    let mut commands = Vec::new();
    if facts.apt {
        commands.push(apt_commands(packages));
    } else {
        if !facts.rust_ready {
            commands.push(rustup);
        }
        if !facts.without_qemu.is_empty() {
            let programs: Vec<&str> = facts.without_qemu.iter().map(|a| a.qemu()).collect();
            commands.push(format!("<your package manager> install {}", programs.join(" ")));
        }
    }
    commands.join(" && ")
}

fn apt_commands(packages: &[&str]) -> String {
    format!("sudo apt-get update && sudo apt-get install -y --no-install-recommends {}", packages.join(" "))
}

/// QEMU for one architecture, and its version.
#[derive(Clone, Debug)]
pub(crate) struct Qemu {
    /// The program.
    pub(crate) path: PathBuf,
    /// Its version.
    pub(crate) version: Version,
}

/// The installed QEMU, whatever its version.
pub(crate) fn installed_qemu(arch: Arch) -> Option<Qemu> {
    let path = qemu::find_program(arch.qemu())?;
    let version = remembered_version(arch, &path)?;
    Some(Qemu { path, version })
}

/// Asks the program only if it changed since it was last asked.
fn remembered_version(arch: Arch, path: &std::path::Path) -> Option<Version> {
    use std::os::unix::fs::MetadataExt;
    let meta = path.metadata().ok()?;
    let identity = format!("{} {} {} {}\n", path.display(), meta.ino(), meta.mtime_nsec(), meta.size());
    let memo = crate::build::guest_dir().join(format!("{}.version", arch.qemu()));
    if let Ok(text) = std::fs::read_to_string(&memo)
        && let Some(version) = text.strip_prefix(&identity)
    {
        return qemu::parse_version(version);
    }
    let version = qemu::version(path).ok()?;
    let _ = std::fs::create_dir_all(crate::build::guest_dir());
    let _ = std::fs::write(memo, format!("{identity}version {version}"));
    Some(version)
}

/// Looks at what is there for `archs`; with `build`, also for what builds images.
pub(crate) fn gather(archs: &[Arch], build: bool, rustup_failed: bool) -> anyhow::Result<Facts> {
    let lacks_qemu = |a: &Arch| installed_qemu(*a).is_none_or(|q| q.version < qemu::OLDEST);
    let without_qemu: Vec<Arch> = archs.iter().copied().filter(lacks_qemu).collect();
    let rust_ready = !build || RustFacts::gather()?.usable(archs).is_some();
    if without_qemu.is_empty() && rust_ready {
        // The rest costs time and decides nothing.
        let (rustup, apt, privilege) = (false, false, Privilege::None);
        return Ok(Facts { without_qemu, rust_ready, rustup, rustup_may_download: false, apt, privilege });
    }
    let rustup = qemu::find_program("rustup").is_some();
    Ok(Facts {
        without_qemu,
        rust_ready,
        rustup,
        rustup_may_download: rustup && !rustup_failed && rustup_may_download(),
        apt: qemu::find_program("apt-get").is_some(),
        privilege: privilege(),
    })
}

/// Whether rustup's downloads are not switched off.
pub(crate) fn rustup_may_download() -> bool {
    std::env::var_os("RUSTUP_AUTO_INSTALL").is_none_or(|v| v != "0")
}

/// Who we are.
pub(crate) fn privilege() -> Privilege {
    if rustix::process::geteuid().is_root() {
        return Privilege::Root;
    }
    let sudo = child::run(Command::new("sudo").args(["-n", "true"]), Duration::from_secs(10), false);
    if sudo.is_ok_and(|done| done.status.success()) { Privilege::Sudo } else { Privilege::None }
}

/// Installs what is missing for `archs`. Costs milliseconds when nothing is.
pub(crate) fn ensure_ready(archs: &[Arch], build: bool) -> anyhow::Result<()> {
    let mut facts = gather(archs, build, false)?;
    if plan(&facts) == Plan::Ready {
        return Ok(());
    }
    // Something is to be installed: then what the other architecture lacks comes along.
    if facts.apt && facts.privilege != Privilege::None {
        facts = gather(&Arch::ALL, build, false)?;
    }
    let mut rustup_failed = false;
    for _round in 0..3 {
        match plan(&facts) {
            Plan::Ready => return Ok(()),
            Plan::Stop { missing, command } => {
                bail!("{missing} must be installed, which this user or system does not allow me to do; run: {command}")
            }
            Plan::Install(steps) => {
                for step in steps {
                    match step {
                        Step::RustupTargets => rustup_failed |= !add_targets()?,
                        Step::Packages(packages) => install_packages(&packages, facts.privilege)?,
                    }
                }
            }
        }
        facts = gather(&Arch::ALL, build, rustup_failed)?;
        if facts.without_qemu.iter().all(|a| !archs.contains(a)) && facts.rust_ready {
            return Ok(());
        }
    }
    bail!("{} is still missing after the installation; `cargo xtask doctor` says what is there", missing(&facts))
}

/// The debugger, installed if it is not there.
pub(crate) fn debugger() -> anyhow::Result<PathBuf> {
    if debugger::installed().is_none() {
        let (package, privilege) = (debugger::PROGRAM, privilege());
        if qemu::find_program("apt-get").is_none() || privilege == Privilege::None {
            bail!("{package} must be installed, which I may not do here; run: {}", apt_commands(&[package]));
        }
        install_packages(&[package], privilege)?;
    }
    debugger::installed().with_context(|| format!("{} is still missing after the installation", debugger::PROGRAM))
}

/// What a Chromium may be called.
const BROWSERS: [&str; 5] = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome"];

/// Brings a browser for the test of the report's page, where there is none and this user may install one. Without it
/// that test is left out, and says so.
pub(crate) fn try_browser() -> anyhow::Result<()> {
    let privilege = privilege();
    let may = qemu::find_program("apt-get").is_some() && !matches!(privilege, Privilege::None);
    if !may || BROWSERS.iter().any(|name| qemu::find_program(name).is_some()) {
        return Ok(());
    }
    match install_packages(&["chromium"], privilege) {
        Err(error) if !error.is::<crate::error::Interrupted>() => eprintln!("set-up: no Chromium: {error:#}"),
        other => other?,
    }
    Ok(())
}

/// Whether rustup brought the targets.
fn add_targets() -> anyhow::Result<bool> {
    let targets = Arch::ALL.map(Arch::target);
    let step = ProgressStep::begin(format!("set-up: rustup target add {}", targets.join(" ")));
    let mut command = Command::new("rustup");
    toolchain::forget_outer_build(&mut command);
    let done = child::run(command.args(["target", "add"]).args(targets), Duration::from_secs(300), false);
    match done {
        Ok(done) if done.status.success() => {
            step.done();
            Ok(true)
        }
        Err(error) if error.is::<crate::error::Interrupted>() => Err(error),
        _ => {
            step.failed();
            eprintln!("set-up: rustup could not download them; Debian's packages are next");
            Ok(false)
        }
    }
}

fn apt(privilege: Privilege, arguments: &[&str]) -> anyhow::Result<()> {
    let mut command = match privilege {
        Privilege::Sudo => {
            let mut sudo = Command::new("sudo");
            sudo.args(["-n", "DEBIAN_FRONTEND=noninteractive", "apt-get"]);
            sudo
        }
        _ => Command::new("apt-get"),
    };
    command.env("DEBIAN_FRONTEND", "noninteractive").args(["-o", "DPkg::Lock::Timeout=300"]).args(arguments);
    let done = child::run(&mut command, INSTALL_LIMIT, false)?;
    let last = child::last_lines(&done.stderr, 3).join("; ");
    ensure!(done.status.success(), "apt-get {} failed: {last}", arguments.join(" "));
    Ok(())
}

fn install_packages(packages: &[&'static str], privilege: Privilege) -> anyhow::Result<()> {
    let step = ProgressStep::begin("set-up: apt-get update");
    apt(privilege, &["update"]).with_context(|| format!("set-up needs {}", packages.join(", ")))?;
    step.done();
    if packages.contains(&DEBIAN_RUST[0]) {
        check_candidate()?;
    }
    let step = ProgressStep::begin(format!("set-up: apt-get install {}", packages.join(" ")));
    apt(privilege, &[&["install", "-y", "--no-install-recommends"], packages].concat())?;
    step.done();
    Ok(())
}

fn check_candidate() -> anyhow::Result<()> {
    let policy =
        child::run(Command::new("apt-cache").args(["policy", DEBIAN_RUST[0]]), Duration::from_secs(60), false)?;
    let candidate = policy.stdout.lines().find_map(|l| l.trim().strip_prefix("Candidate: ")).unwrap_or("none");
    let (major, minor) = OLDEST_RUST;
    ensure!(
        toolchain::parse_release(candidate).is_some_and(|release| release >= OLDEST_RUST),
        "Debian's {} is {candidate} and {major}.{minor} is needed; where rustup may download, run: rustup target add {}",
        DEBIAN_RUST[0],
        Arch::ALL.map(Arch::target).join(" ")
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bare() -> Facts {
        Facts {
            without_qemu: Arch::ALL.to_vec(),
            rust_ready: false,
            rustup: true,
            rustup_may_download: false,
            apt: true,
            privilege: Privilege::Root,
        }
    }

    #[test]
    fn nothing_missing_is_nothing_to_do() {
        let facts = Facts { without_qemu: vec![], rust_ready: true, apt: false, privilege: Privilege::None, ..bare() };
        assert_eq!(plan(&facts), Plan::Ready);
    }

    #[test]
    fn without_rustups_downloads_everything_is_a_package() {
        let packages = ["qemu-system-x86", "qemu-system-arm", "rustc-web", "cargo-web", "rust-web-src"];
        assert_eq!(plan(&bare()), Plan::Install(vec![Step::Packages(packages.to_vec())]));
        assert_eq!(plan(&Facts { privilege: Privilege::Sudo, ..bare() }), plan(&bare()));
    }

    #[test]
    fn rustup_brings_the_targets_where_it_may() {
        let facts = Facts { rustup_may_download: true, ..bare() };
        let packages = Step::Packages(vec!["qemu-system-x86", "qemu-system-arm"]);
        assert_eq!(plan(&facts), Plan::Install(vec![Step::RustupTargets, packages]));
        let qemu_there = Facts { without_qemu: vec![], apt: false, privilege: Privilege::None, ..facts };
        assert_eq!(plan(&qemu_there), Plan::Install(vec![Step::RustupTargets]));
    }

    #[test]
    fn only_the_missing_emulator_is_installed() {
        let facts = Facts { without_qemu: vec![Arch::Aarch64], rust_ready: true, ..bare() };
        assert_eq!(plan(&facts), Plan::Install(vec![Step::Packages(vec!["qemu-system-arm"])]));
    }

    #[test]
    fn without_the_right_to_install_the_exact_command_is_given() {
        let facts = Facts { without_qemu: vec![Arch::X86_64], rust_ready: true, privilege: Privilege::None, ..bare() };
        let Plan::Stop { missing, command } = plan(&facts) else { panic!("must stop") };
        assert_eq!(missing, "qemu-system-x86_64 7.2.0 or newer");
        assert_eq!(command, "sudo apt-get update && sudo apt-get install -y --no-install-recommends qemu-system-x86");
    }

    #[test]
    fn another_system_gets_a_command_too() {
        let Plan::Stop { command, .. } = plan(&Facts { apt: false, ..bare() }) else { panic!("must stop") };
        assert!(command.starts_with("rustup target add x86_64-unknown-none aarch64-unknown-none-softfloat && "));
    }
}
