//! Orderings of the kernel's atomics: each half of each, as it is written in the source, is accounted for.
//!
//! The test `orderings` lists what is written, and which litmus test a comment names at it and says of it
//! (`tests/src/orderings.rs`): where one needs the half, that is its reason, and where one happens all the same, the
//! half is a posted one that is not enough. All others are taken away under loom, one at a time, in the tests whose
//! models meet them: first in those that are about that file, the quickest first, until one is wrong. A half that no
//! test meets, that no test misses, or of which no test has said anything within the time that it is given, is a
//! finding.

mod listed;
mod loom;

use std::collections::BTreeSet;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use self::listed::Listed;
use self::loom::{Answer, Met, Tests};
use crate::kept::{self, Kept};
use crate::output;
use crate::probe;
use crate::progress::Cells;
use crate::table::paragraph;

/// Where what was found is kept until all is.
const KEPT: &str = "mutate/orderings.jsonl";

/// What became of one half.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
enum Found {
    /// A litmus test that its comment names needs it.
    Litmus(String),
    /// A litmus test says that it is not enough; it is kept as posted.
    Posted(String),
    /// A loom test is wrong without it, and how.
    Wrong { test: String, how: String },
    /// All these are right without it.
    Survives(Vec<String>),
    /// These did not come to an end in time; nobody else found anything.
    Late(Vec<String>),
    /// No model meets it, and no comment names a litmus test.
    Unmet,
}

impl Found {
    fn is_finding(&self) -> bool {
        matches!(self, Found::Survives(_) | Found::Late(_) | Found::Unmet)
    }

    fn in_words(&self, limit: Duration) -> String {
        match self {
            Found::Litmus(name) => format!("tests/litmus/{name}"),
            Found::Posted(name) => format!("as posted, and not enough: tests/litmus/{name}"),
            Found::Wrong { test, how } => format!("{test}: {how}"),
            Found::Survives(tests) => format!("could be weaker: nothing is wrong without it in {}", tests.join(", ")),
            Found::Late(tests) => format!("no verdict: {} did not end within {} s", tests.join(", "), limit.as_secs()),
            Found::Unmet => "no model meets it, and its comment names no litmus test that needs it".into(),
        }
    }
}

/// All halves with what became of them.
struct Orderings {
    found: Vec<(Listed, Found)>,
    /// What else is wrong: a comment that names a test for nothing, an ordering that is not in the list.
    complaints: Vec<String>,
    limit: Duration,
}

impl Orderings {
    /// Whether each is needed, or posted.
    fn all_accounted_for(&self) -> bool {
        self.complaints.is_empty()
            && self.found.iter().any(|(_, found)| matches!(found, Found::Wrong { .. }))
            && !self.found.iter().any(|(_, found)| found.is_finding())
    }

    fn text(&self, each: bool) -> String {
        let count = |is: fn(&Found) -> bool| self.found.iter().filter(|(_, found)| is(found)).count();
        let mut out = format!(
            "\nOrderings: {} halves are written. Without each of {} a loom test is wrong; {} are needed by the litmus test that their comment names, \
             {} are as posted and not enough.\n",
            self.found.len(),
            count(|found| matches!(found, Found::Wrong { .. })),
            count(|found| matches!(found, Found::Litmus(_))),
            count(|found| matches!(found, Found::Posted(_)))
        );
        out = paragraph(0, &out);
        let mut file = "";
        for (listed, found) in self.found.iter().filter(|_| each) {
            if listed.file != file {
                file = &listed.file;
                out += &format!("\n{file}\n");
            }
            let what = format!("{} [{}] {}", listed.line, listed.half, listed.text);
            out += &paragraph(2, &what);
            out += &paragraph(6, &found.in_words(self.limit));
        }
        let findings: Vec<&(Listed, Found)> = self.found.iter().filter(|(_, found)| found.is_finding()).collect();
        if !findings.is_empty() || !self.complaints.is_empty() {
            out += "\nNot accounted for:\n";
        }
        for (listed, found) in findings {
            out += &paragraph(2, &format!("{}: {}", listed.place(), found.in_words(self.limit)));
        }
        self.complaints.iter().for_each(|complaint| out += &paragraph(2, complaint));
        out
    }
}

/// Takes each half away that no litmus test speaks for. Each mutant is given `limit`; without `fresh`, goes on where an
/// earlier call was interrupted.
fn weaken(limit: Duration, fresh: bool) -> anyhow::Result<Orderings> {
    let tests = Tests::build()?;
    let (halves, mut complaints) = tests.list()?;
    let met = tests.met()?;
    complaints.extend(unlisted(&halves, &met));
    let kept = Kept::open(KEPT, &kept::fingerprint(tests.programs(), &format!("{limit:?} {halves:?}"))?, fresh)?;
    if kept.count() > 0 {
        eprintln!("orderings: {} halves were looked at before; --fresh begins anew", kept.count());
    }
    let bar = Cells::told(halves.len() as u64, "halves");
    let look = |listed: &Listed, stop: &dyn Fn() -> bool| {
        let name = format!("{}:{}", listed.place(), listed.half);
        let found = match kept.get(&name) {
            Some(found) => found,
            None => {
                let found = of_half(&tests, &met, listed, limit, stop, &|what| bar.now(what))?;
                kept.keep(&name, &found)?;
                found
            }
        };
        bar.one_more(name);
        Ok(found)
    };
    let found = probe::in_order(&halves, probe::at_once(), look, |_| false);
    bar.end();
    let found = halves.into_iter().zip(found?).collect();
    kept.forget()?;
    Ok(Orderings { found, complaints, limit })
}

/// Does it, and says what was found: of `each` half, or only of those that are not accounted for. Whether all are.
pub(crate) fn run(limit: Duration, fresh: bool, each: bool) -> anyhow::Result<bool> {
    let orderings = weaken(limit, fresh)?;
    output::print(&orderings.text(each))?;
    Ok(orderings.all_accounted_for())
}

/// What models meet and the list does not have.
fn unlisted(halves: &[Listed], met: &[Met]) -> BTreeSet<String> {
    let kernel = met.iter().filter(|met| met.file.starts_with("kernel/"));
    let missing = kernel.filter(|met| !halves.iter().any(|listed| listed.is_met_as(met)));
    missing.map(|met| format!("{}:{} [{}] is met and not in the list", met.file, met.line, met.half)).collect()
}

fn of_half(
    tests: &Tests,
    met: &[Met],
    listed: &Listed,
    limit: Duration,
    stop: &dyn Fn() -> bool,
    say: &dyn Fn(String),
) -> anyhow::Result<Found> {
    match listed.litmus.as_ref().map(|(name, says)| (name, says.as_str())) {
        Some((name, "Needs")) => return Ok(Found::Litmus(name.clone())),
        Some((name, "Happens")) => return Ok(Found::Posted(name.clone())),
        _ => {}
    }
    let mut places: Vec<&Met> = met.iter().filter(|met| listed.is_met_as(met)).collect();
    places.sort_by_key(|met| (!met.about, met.took));
    let (mut right, mut late) = (Vec::new(), Vec::new());
    for place in places {
        say(format!("{}:{} in {}", listed.place(), listed.half, place.test));
        match tests.without(place, limit, stop)? {
            Answer::Wrong(how) => return Ok(Found::Wrong { test: place.test.clone(), how }),
            Answer::Right => right.push(place.test.clone()),
            Answer::Late => late.push(place.test.clone()),
        }
    }
    Ok(match (right.is_empty(), late.is_empty()) {
        (_, false) => Found::Late(late),
        (false, true) => Found::Survives(right),
        (true, true) => Found::Unmet,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn orderings(found: Vec<Found>, complaints: Vec<String>) -> Orderings {
        let listed =
            |line| Listed::read(&format!("kernel/src/a.rs:{line}:Release - - -- x.store(1, Ordering::Release);"));
        let found = found.into_iter().enumerate().map(|(line, found)| (listed(line).unwrap(), found)).collect();
        Orderings { found, complaints, limit: Duration::from_secs(7) }
    }

    #[test]
    fn what_is_not_accounted_for_is_an_error() {
        let wrong = || Found::Wrong { test: "loom_a::b".into(), how: "the table was used again".into() };
        let litmus = || Found::Litmus("walk-end".into());
        assert!(orderings(vec![wrong(), litmus(), Found::Posted("c".into())], Vec::new()).all_accounted_for());
        assert!(!orderings(vec![litmus()], Vec::new()).all_accounted_for(), "loom that finds nothing shows nothing");
        assert!(!orderings(vec![wrong()], vec!["a comment".into()]).all_accounted_for());
        let late = || Found::Late(vec!["loom_a::b".into()]);
        for finding in [Found::Survives(vec!["loom_a::b".into()]), late(), Found::Unmet] {
            assert!(!orderings(vec![wrong(), finding], Vec::new()).all_accounted_for());
        }
        let text = orderings(vec![wrong(), late()], Vec::new()).text(true);
        assert!(
            text.contains("Not accounted for:\n  kernel/src/a.rs:1: no verdict: loom_a::b did not end within 7 s"),
            "{text}"
        );
        assert!(
            text.contains("  0 [Release] x.store(1, Ordering::Release);\n      loom_a::b: the table was used again\n"),
            "{text}"
        );
    }
}
