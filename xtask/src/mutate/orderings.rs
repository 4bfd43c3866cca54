//! Orderings of the kernel's atomics: loom's models, run once more for each half of each ordering that they meet, taken away. The tests `loom_*` do it and say a line for each.

use std::time::Duration;

use anyhow::{Context, bail};

use crate::build::repository;
use crate::child;
use crate::progress::Step;
use crate::table::paragraph;
use crate::toolchain;

const LIMIT: Duration = Duration::from_secs(1800);

/// What loom's tests said.
#[derive(Default, PartialEq, Eq, Debug)]
pub(super) struct Orderings {
    /// File, line and half: some model is wrong without it.
    needed: Vec<String>,
    /// The same, and why no model can show it.
    excused: Vec<(String, String)>,
    /// What a test complained of.
    complaints: Vec<String>,
}

impl Orderings {
    fn read(text: &str) -> Orderings {
        let mut found = Orderings::default();
        for line in text.lines() {
            let line = line.trim();
            if let Some(site) = line.strip_prefix("needed: ") {
                found.needed.push(site.into());
            } else if let Some((site, reason)) = line.strip_prefix("excused: ").and_then(|l| l.split_once(" -- ")) {
                found.excused.push((site.into(), reason.into()));
            } else if ["could be weaker: ", "is shown, and excused: ", "is excused, and not there: "]
                .iter()
                .any(|wrong| line.starts_with(wrong))
            {
                found.complaints.push(line.into());
            }
        }
        found.needed.sort();
        found.needed.dedup();
        // What another test shows is needed.
        found.excused.retain(|(site, _)| !found.needed.contains(site));
        found.excused.sort();
        found.excused.dedup();
        found
    }

    /// Whether each is needed, or excused for a reason.
    pub(super) fn all_needed(&self) -> bool {
        self.complaints.is_empty() && !self.needed.is_empty()
    }

    pub(super) fn text(&self) -> String {
        let mut out = format!(
            "\nOrderings under loom: some model is wrong without each of these {} halves.\n",
            self.needed.len()
        );
        self.needed.iter().for_each(|site| out += &paragraph(2, site));
        if !self.excused.is_empty() {
            out += &format!("{} more that no model can show:\n", self.excused.len());
            self.excused.iter().for_each(|(site, reason)| out += &paragraph(2, &format!("{site}: {reason}")));
        }
        self.complaints.iter().for_each(|complaint| out += &paragraph(2, complaint));
        out
    }
}

/// Runs loom's tests.
pub(super) fn weaken() -> anyhow::Result<Orderings> {
    let step = Step::begin("loom: models without one half of an ordering at a time");
    let mut command = toolchain::cargo();
    command.current_dir(repository()).env("RUSTFLAGS", "--cfg loom");
    command.env("CARGO_TARGET_DIR", repository().join("target/loom"));
    command.args([
        "test",
        "--release",
        "--package",
        "tests",
        "--test",
        "loom_*",
        "--no-fail-fast",
        "--",
        "--nocapture",
    ]);
    let finished = child::run(&mut command, LIMIT, false).context("cannot run loom's tests")?;
    let found = Orderings::read(&(finished.stdout + &finished.stderr));
    if !finished.status.success() && found.complaints.is_empty() {
        step.failed();
        bail!("loom's tests failed; `cargo xtask test --host` says why");
    }
    step.done();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_tests_are_read() {
        let text = "running 2 tests\nneeded: a.rs: x.store(1, Ordering::Release); [Release]\n\
                    excused: a.rs: y [Acquire] -- nothing reads it\nexcused: a.rs: x.store(1, Ordering::Release); [Release] -- shown in b\n\
                    needed: a.rs: x.store(1, Ordering::Release); [Release]\ntest it ... ok\n";
        let found = Orderings::read(text);
        assert_eq!((found.needed.len(), found.excused.len()), (1, 1));
        assert!(found.all_needed());
        assert!(
            found.text().contains("each of these 1 halves") && found.text().contains("y [Acquire]: nothing reads it")
        );
        assert!(!Orderings::read("needed: a [Release]\n  could be weaker: b [Acquire]\n").all_needed());
        assert!(!Orderings::read("test it ... ok\n").all_needed(), "tests that say nothing show nothing");
    }
}
