//! `cargo xtask doctor`: what is there, which versions, and what each missing piece would cost.

use std::process::Command;
use std::time::Duration;

use clap::Args;

use crate::arch::Arch;
use crate::build::{Kind, image_path, stale};
use crate::child;
use crate::debugger;
use crate::error::Outcome;
use crate::output;
use crate::qemu;
use crate::setup::{self, Plan, Privilege, Step};
use crate::toolchain::RustFacts;

/// Says what is installed, which versions, and what each missing piece would cost
#[derive(Args)]
pub(crate) struct Doctor {}

impl Doctor {
    /// Looks and prints.
    pub(crate) fn run(self) -> anyhow::Result<Outcome> {
        let rust = RustFacts::gather()?;
        let mut lines = Lines(String::new());
        lines.add("rust toolchain", true, &format!("{} ({})", rustc_version(), rust.sysroot.display()));
        for arch in Arch::ALL {
            let there = rust.targets.contains(&arch);
            lines.add(arch.target(), there, if there { "core library installed" } else { "not installed" });
        }
        lines.add("rust-src", rust.source, if rust.source { "installed" } else { "not installed" });
        let debian =
            rust.debian.map_or("not installed".into(), |(major, minor)| format!("{major}.{minor}, with sources"));
        lines.add("Debian's rustc-web", rust.debian.is_some(), &debian);
        let linker = rust.linker.as_ref().map_or("none".into(), |l| l.display().to_string());
        lines.add("linker", rust.linker.is_some(), &linker);
        let way = rust.usable(&Arch::ALL);
        lines.add("kernel is built by", way.is_some(), way.map_or("nothing that is here", |w| w.in_words()));
        for arch in Arch::ALL {
            let (good, text) = match setup::installed_qemu(arch) {
                Some(q) if q.version >= qemu::OLDEST => (true, format!("{} ({})", q.version, q.path.display())),
                Some(q) => (false, format!("{} is too old, {} is needed", q.version, qemu::OLDEST)),
                None => (false, "not installed".into()),
            };
            lines.add(arch.qemu(), good, &text);
        }
        let debugger = debugger::installed();
        let text = debugger.as_ref().map_or("not installed (only for --gdb)".into(), |p| p.display().to_string());
        lines.add(debugger::PROGRAM, debugger.is_some(), &text);
        for (arch, kind) in Arch::ALL.into_iter().flat_map(|a| Kind::ALL.map(|k| (a, k))) {
            let text = match (image_path(arch, kind).is_file(), stale(&[(arch, kind)]).is_empty()) {
                (true, true) => "built",
                (true, false) => "older than its sources: the next run builds it",
                (false, _) => "not built: the next run builds it",
            };
            lines.add(&format!("{} {} image", arch.name(), kind.name()), text == "built", text);
        }
        output::print(&lines.0)?;
        self.say_what_is_missing()
    }

    fn say_what_is_missing(&self) -> anyhow::Result<Outcome> {
        match setup::plan(&setup::gather(&Arch::ALL, true, false)?) {
            Plan::Ready => {
                output::print("Nothing is missing.\n")?;
                Ok(Outcome::Expected)
            }
            Plan::Install(steps) => {
                let costs: String = steps.iter().map(|step| format!("  {}\n", cost(step))).collect();
                output::print(&format!("Missing; `cargo xtask run` would install it:\n{costs}"))?;
                Ok(Outcome::Unexpected)
            }
            Plan::Stop { missing, command } => {
                let why = "This user or system does not let me install it";
                output::print(&format!("Missing: {missing}. {why}; run:\n  {command}\n"))?;
                Ok(Outcome::Unexpected)
            }
        }
    }
}

struct Lines(String);

impl Lines {
    fn add(&mut self, name: &str, good: bool, text: &str) {
        use anstyle::AnsiColor::{Green, Yellow};
        let style = if good { Green } else { Yellow }.on_default();
        let mark = if good { "yes" } else { "no " };
        self.0 += &format!("  {style}{mark}{style:#}  {name:<32} {text}\n");
    }
}

fn rustc_version() -> String {
    let done = child::run(Command::new("rustc").arg("--version"), Duration::from_secs(60), false);
    done.map(|d| d.stdout.trim().to_owned()).unwrap_or_else(|_| "unknown version".into())
}

fn cost(step: &Step) -> String {
    match step {
        Step::RustupTargets => {
            format!("rustup target add {}: about 60 MB to download", Arch::ALL.map(Arch::target).join(" "))
        }
        Step::Packages(packages) => {
            let estimate = download_size(packages).unwrap_or_else(|| "size known after apt-get update".into());
            let sudo = if setup::privilege() == Privilege::Sudo { "sudo " } else { "" };
            format!("{sudo}apt-get install {}: {estimate}", packages.join(" "))
        }
    }
}

/// What apt says it would download and use.
fn download_size(packages: &[&str]) -> Option<String> {
    let mut command = Command::new("apt-get");
    command.args(["--assume-no", "install", "--no-install-recommends"]).args(packages);
    let done = child::run(&mut command, Duration::from_secs(30), false).ok()?;
    parse_sizes(&done.stdout)
}

fn parse_sizes(text: &str) -> Option<String> {
    let download = text.lines().find_map(|l| l.strip_prefix("Need to get "))?.split(" of archives").next()?;
    let disk = text.lines().find_map(|l| l.strip_prefix("After this operation, "))?.split(" of additional").next()?;
    Some(format!("{download} to download, {disk} on disk"))
}

#[cfg(test)]
mod tests {
    #[test]
    fn apts_estimate_is_read() {
        let text = "The following NEW packages will be installed:\n  x\nNeed to get 45.3 MB of archives.\n\
                    After this operation, 201 MB of additional disk space will be used.\nDo you want to continue? [Y/n] N";
        assert_eq!(super::parse_sizes(text).unwrap(), "45.3 MB to download, 201 MB on disk");
        assert_eq!(super::parse_sizes("E: Unable to locate package"), None);
    }
}
