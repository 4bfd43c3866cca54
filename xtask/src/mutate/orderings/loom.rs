//! The loom tests as programs that answer one question at a time (`tests/src/woven/mutants.rs`).

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use serde_json::Value;

use super::listed::{self, Listed};
use crate::build::repository;
use crate::child;
use crate::probe;
use crate::progress::Step;
use crate::toolchain;

/// To build the tests.
const BUILD: Duration = Duration::from_secs(1800);

/// For one test's models as they are: minutes on a machine that does much else.
const AS_IT_IS: Duration = Duration::from_secs(600);

/// The variable that asks.
const ASK: &str = "ORDERINGS";

/// One half that the models of a test meet.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub(super) struct Met {
    pub(super) file: String,
    pub(super) line: u32,
    pub(super) column: u32,
    pub(super) half: String,
    /// Whether the test is about that file.
    pub(super) about: bool,
    /// The test, as PROGRAM::TEST.
    pub(super) test: String,
    /// How long its models take as they are.
    pub(super) took: Duration,
}

/// What a test says without a half.
#[derive(PartialEq, Eq, Debug)]
pub(super) enum Answer {
    Wrong(String),
    Right,
    Late,
}

/// The programs, by name.
pub(super) struct Tests {
    names: Vec<String>,
    programs: Vec<PathBuf>,
}

impl Tests {
    /// Builds them, apart from everything else.
    pub(super) fn build() -> anyhow::Result<Tests> {
        let step = Step::begin("build: loom tests");
        let mut command = toolchain::cargo();
        command.current_dir(repository()).env("RUSTFLAGS", "--cfg loom");
        command.env("CARGO_TARGET_DIR", repository().join("target/loom"));
        command.args(["test", "--release", "--package", "tests", "--test", "loom_*", "--test", "orderings"]);
        command.args(["--no-run", "--message-format=json-render-diagnostics"]);
        let finished = child::run(&mut command, BUILD, false).context("cannot build loom's tests")?;
        if !finished.status.success() {
            step.failed();
            bail!("loom's tests do not build:\n{}", child::last_lines(&finished.stderr, 12).join("\n"));
        }
        step.done();
        // cargo tells of them in the order in which it was done with them.
        let mut programs: Vec<_> = finished.stdout.lines().filter_map(program).collect();
        programs.sort();
        let (names, programs) = programs.into_iter().unzip();
        Ok(Tests { names, programs })
    }

    /// The files of all programs.
    pub(super) fn programs(&self) -> &[PathBuf] {
        &self.programs
    }

    fn program(&self, name: &str) -> anyhow::Result<&PathBuf> {
        let at = self.names.iter().position(|n| n == name).with_context(|| format!("the test {name} was not built"))?;
        Ok(&self.programs[at])
    }

    /// What is written, and what is wrong with comments at it.
    pub(super) fn list(&self) -> anyhow::Result<(Vec<Listed>, Vec<String>)> {
        let mut command = Command::new(self.program("orderings")?);
        let finished = child::run(command.args(["--nocapture", "--test-threads=1"]), AS_IT_IS, false)?;
        let (listed, complaints) = listed::read(&finished.stdout);
        if !finished.status.success() && complaints.is_empty() || listed.is_empty() {
            bail!("the test `orderings` failed: {}", why(&finished));
        }
        Ok((listed, complaints))
    }

    /// What the models of all tests meet. They run as they are, and must be right.
    pub(super) fn met(&self) -> anyhow::Result<Vec<Met>> {
        let step = Step::begin("loom: models as they are");
        let mut tests = Vec::new();
        for (name, program) in self.names.iter().zip(&self.programs).filter(|(name, _)| name.starts_with("loom_")) {
            let finished = child::run(Command::new(program).args(["--list", "--format", "terse"]), AS_IT_IS, false)?;
            let listed = finished.stdout.lines().filter_map(|line| line.strip_suffix(": test"));
            tests.extend(listed.map(|test| format!("{name}::{test}")));
        }
        let look = |test: &String, stop: &dyn Fn() -> bool| {
            let begin = Instant::now();
            let finished = self.ask(test, "met", AS_IT_IS, stop)?;
            let Some(finished) = finished else {
                bail!("{test} did not end within {} s", AS_IT_IS.as_secs());
            };
            if !finished.status.success() {
                bail!("{test} fails with all orderings as they are: {}", why(&finished));
            }
            let took = begin.elapsed();
            Ok(finished.stdout.lines().filter_map(|line| met(line, test, took)).collect::<Vec<_>>())
        };
        let found = probe::in_order(&tests, probe::at_once(), look, |_| false);
        match &found {
            Ok(_) => step.done(),
            Err(_) => step.failed(),
        }
        Ok(found?.concat())
    }

    /// Runs the test of `place` without it.
    pub(super) fn without(&self, place: &Met, limit: Duration, stop: &dyn Fn() -> bool) -> anyhow::Result<Answer> {
        let Met { file, line, column, half, test, .. } = place;
        let Some(finished) = self.ask(test, &format!("{file}:{line}:{column}:{half}"), limit, stop)? else {
            return Ok(Answer::Late);
        };
        // What the harness says before a test's own words may stand on the same line.
        for line in finished.stdout.lines() {
            if let Some((_, how)) = line.split_once("wrong: ") {
                return Ok(Answer::Wrong(how.to_owned()));
            }
            if line.ends_with("right") {
                return Ok(Answer::Right);
            }
        }
        bail!("{test} says nothing of {file}:{line} [{half}]: {}", why(&finished))
    }

    /// Asks a test; nothing if it does not end in time.
    fn ask(
        &self,
        test: &str,
        question: &str,
        limit: Duration,
        stop: &dyn Fn() -> bool,
    ) -> anyhow::Result<Option<child::Finished>> {
        let (program, test) = test.split_once("::").context("a test is PROGRAM::TEST")?;
        let mut command = Command::new(self.program(program)?);
        command.env(ASK, question).args([test, "--exact", "--nocapture", "--test-threads=1"]);
        child::run_within(&mut command, limit, stop)
    }
}

/// Name and file of a test program, of a line that cargo says.
fn program(line: &str) -> Option<(String, PathBuf)> {
    let said: Value = serde_json::from_str(line).ok()?;
    Some((said["target"]["name"].as_str()?.to_owned(), said["executable"].as_str()?.into()))
}

/// Reads `met: FILE:LINE:COLUMN:HALF about`.
fn met(line: &str, test: &str, took: Duration) -> Option<Met> {
    let (_, rest) = line.split_once("met: ")?;
    let (place, about) = rest.strip_suffix(" about").map_or((rest, false), |place| (place, true));
    let mut parts = place.rsplitn(4, ':');
    let (half, column) = (parts.next()?.to_owned(), parts.next()?.parse().ok()?);
    let (line, file) = (parts.next()?.parse().ok()?, parts.next()?.to_owned());
    Some(Met { file, line, column, half, about, test: test.to_owned(), took })
}

/// What a test that failed said.
fn why(finished: &child::Finished) -> String {
    let text = format!("{}\n{}", finished.stdout, finished.stderr);
    let at = text.lines().position(|line| line.contains("panicked at"));
    let said = at.and_then(|at| text.lines().nth(at + 1)).or_else(|| child::last_lines(&text, 1).first().copied());
    said.unwrap_or("nothing").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_test_says_is_read() {
        let place = met("test it ... met: kernel/src/a.rs:7:9:Release about", "loom_a::it", Duration::ZERO).unwrap();
        assert_eq!(
            (place.file.as_str(), place.line, place.column, place.half.as_str()),
            ("kernel/src/a.rs", 7, 9, "Release")
        );
        assert!(place.about && !met("met: a.rs:1:2:Full", "t::u", Duration::ZERO).unwrap().about);
        assert_eq!(met("test it ... ok", "t::u", Duration::ZERO), None);
        let said = r#"{"reason":"compiler-artifact","target":{"name":"loom_a"},"executable":"/t/loom_a-1"}"#;
        assert_eq!(program(said), Some(("loom_a".into(), "/t/loom_a-1".into())));
        assert_eq!(program(r#"{"reason":"compiler-artifact","target":{"name":"tests"},"executable":null}"#), None);
    }
}
