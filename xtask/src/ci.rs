//! `cargo xtask ci`: the checks that need no test: format, lints, documentation, licences.

use std::time::Duration;

use anyhow::{Context, ensure};
use clap::Args;
use serde::Deserialize;

use crate::build::repository;
use crate::child;
use crate::error::Outcome;
use crate::output;
use crate::toolchain::{self, RustFacts};

const LIMIT: Duration = Duration::from_secs(1800);

/// Checks format, lints, documentation and the licences of all dependencies
#[derive(Args)]
pub(crate) struct Ci {}

impl Ci {
    /// Runs all checks, and names those that failed.
    pub(crate) fn run(self) -> anyhow::Result<Outcome> {
        let checks: [(&str, Check); 4] =
            [("format", format), ("lints", lints), ("documentation", documentation), ("licences", licences)];
        let mut failed = Vec::new();
        for (name, check) in checks {
            eprintln!("ci: {name}");
            if !check()? {
                failed.push(name);
            }
        }
        if failed.is_empty() {
            output::print("All checks passed.\n")?;
            return Ok(Outcome::Expected);
        }
        output::print(&format!("Failed: {}.\n", failed.join(", ")))?;
        Ok(Outcome::Unexpected)
    }
}

type Check = fn() -> anyhow::Result<bool>;

fn cargo(arguments: &[&str], environment: &[(&str, &str)]) -> anyhow::Result<bool> {
    let mut command = toolchain::cargo();
    command.current_dir(repository()).args(arguments).envs(environment.iter().copied());
    Ok(child::run_visibly(&mut command, LIMIT)?.success())
}

fn format() -> anyhow::Result<bool> {
    cargo(&["fmt", "--all", "--check"], &[])
}

fn lints() -> anyhow::Result<bool> {
    let host = cargo(&["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"], &[])?;
    // Code for the machines alone is seen only where their core libraries are installed along with clippy.
    let mut machines = true;
    for arch in RustFacts::gather()?.targets {
        let package = ["clippy", "--package", "platform", "--features", "checking", "--target", arch.target()];
        machines &= cargo(&[&package[..], &["--", "-D", "warnings"]].concat(), &[])?;
    }
    Ok(host && machines)
}

fn documentation() -> anyhow::Result<bool> {
    let arguments = ["doc", "--workspace", "--no-deps", "--document-private-items"];
    cargo(&arguments, &[("RUSTDOCFLAGS", "-D warnings")])
}

/// Licences that may be linked into the kernel or the runner; `deny.toml` has the same list for cargo-deny.
const ALLOWED: [&str; 12] = [
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "ISC",
    "MIT",
    "MPL-2.0",
    "Unicode-3.0",
    "Zlib",
];

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    license: Option<String>,
}

fn licences() -> anyhow::Result<bool> {
    let mut command = toolchain::cargo();
    command.current_dir(repository()).args(["metadata", "--format-version", "1"]);
    let done = child::run(&mut command, LIMIT, false)?;
    ensure!(done.status.success(), "cargo metadata failed: {}", child::last_lines(&done.stderr, 1).concat());
    let metadata: Metadata = serde_json::from_str(&done.stdout).context("cargo metadata is not as expected")?;
    let refused: Vec<&Package> =
        metadata.packages.iter().filter(|p| !p.license.as_deref().is_some_and(is_allowed)).collect();
    for package in &refused {
        eprintln!("  {} is under {}", package.name, package.license.as_deref().unwrap_or("no named licence"));
    }
    Ok(refused.is_empty())
}

/// Whether some choice that an SPDX expression leaves is allowed. `AND` binds tighter than `OR`.
fn is_allowed(expression: &str) -> bool {
    if ALLOWED.contains(&expression.trim()) {
        return true;
    }
    let expression = expression.replace('/', " OR ");
    if let Some((left, right)) = split_outside(&expression, " OR ") {
        return is_allowed(left) || is_allowed(right);
    }
    if let Some((left, right)) = split_outside(&expression, " AND ") {
        return is_allowed(left) && is_allowed(right);
    }
    let inner = expression.trim().strip_prefix('(').and_then(|e| e.strip_suffix(')'));
    inner.map_or(ALLOWED.contains(&expression.trim()), is_allowed)
}

/// The parts around the first operator that is in no parentheses.
fn split_outside<'e>(expression: &'e str, operator: &str) -> Option<(&'e str, &'e str)> {
    expression.match_indices(operator).find_map(|(at, _)| {
        let before = &expression[..at];
        let outside = before.matches('(').count() == before.matches(')').count();
        outside.then(|| (before, &expression[at + operator.len()..]))
    })
}

#[cfg(test)]
mod tests {
    use super::is_allowed;

    #[test]
    fn expressions_are_read() {
        for good in [
            "MIT",
            "MIT OR Apache-2.0",
            "MIT/Apache-2.0",
            "Unlicense OR MIT",
            "(MIT OR Apache-2.0) AND Unicode-3.0",
            "Apache-2.0 WITH LLVM-exception OR GPL-3.0-only",
        ] {
            assert!(is_allowed(good), "{good}");
        }
        for bad in ["GPL-3.0-only", "MIT AND GPL-3.0-only", "(MIT OR Zlib) AND GPL-2.0-only", ""] {
            assert!(!is_allowed(bad), "{bad}");
        }
    }
}
