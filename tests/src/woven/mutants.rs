//! Running a model as it is, and once more for each half of each ordering in it, taken away.
//!
//! A test that does so takes one question at a time from its environment, for `cargo xtask mutate --orderings`:
//! `ORDERINGS=met` has it say which halves its models meet (`met: FILE:LINE:COLUMN:HALF`, and ` about` behind those
//! that it is about), and `ORDERINGS=FILE:LINE:COLUMN:HALF` has it run its models without that one, and say `wrong: `
//! and how, or `right`. Without, it takes away all that it is about, and fails if nothing is wrong then.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use kernel::atomic::{Half, Site, watch, watched, weaken};

use crate::orderings::{self, Written};

/// The files of the kernel whose orderings a model is about, relative to `kernel/src`.
pub type Sites = &'static [&'static str];

/// No model takes so long on an idle machine by far; loom stops there without a word, so it is asked.
const LIMIT: std::time::Duration = std::time::Duration::from_secs(600);

/// As many preemptions as there can be. A model in which several CPUs wait in loops needs this: loom starves one of
/// them when it counts preemptions.
pub const ALL: usize = usize::MAX;

/// Explores interleavings of `model` with up to so many preemptions; whether all of them.
fn explored(preemptions: usize, model: fn(), limit: std::time::Duration) -> bool {
    let mut builder = loom::model::Builder::new();
    builder.max_duration = Some(limit);
    builder.preemption_bound = (preemptions != ALL).then_some(preemptions);
    builder.max_branches = 20_000;
    let begin = std::time::Instant::now();
    builder.check(model);
    begin.elapsed() < limit
}

/// Explores all interleavings of `model` with up to so many preemptions.
///
/// # Panics
/// If one of them violates what the model asserts, or races.
pub fn explore(preemptions: usize, model: fn()) {
    assert!(explored(preemptions, model, LIMIT), "the model was not explored to the end");
}

/// What is wrong in some interleaving, if anything is. Without a limit: whoever asks has one.
fn violation(preemptions: usize, model: fn()) -> Option<String> {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let result = catch_unwind(AssertUnwindSafe(|| explored(preemptions, model, std::time::Duration::MAX)));
    std::panic::set_hook(hook);
    result.err().map(|payload| message(payload.as_ref()))
}

/// The first line of what a panic said.
fn message(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<String>().map(String::as_str).or(payload.downcast_ref::<&str>().copied());
    text.and_then(|text| text.lines().find(|line| !line.trim().is_empty())).unwrap_or("a panic").trim().to_owned()
}

/// Whether some interleaving is wrong.
pub fn violated(preemptions: usize, model: fn()) -> bool {
    violation(preemptions, model).is_some()
}

/// What is wrong with one of `models` without `site`, if anything is.
fn violation_without(site: Site, preemptions: usize, models: &[fn()]) -> Option<String> {
    weaken(Some(site));
    let wrong = models.iter().find_map(|model| violation(preemptions, *model));
    weaken(None);
    wrong
}

/// Reads `FILE:LINE:COLUMN:HALF`.
fn site(text: &str) -> Option<Site> {
    let mut parts = text.rsplitn(4, ':');
    let half = match parts.next()? {
        "Acquire" => Half::Acquire,
        "Release" => Half::Release,
        "Full" => Half::Full,
        _ => return None,
    };
    let (column, line) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    // One for each process.
    Some(Site { file: String::leak(parts.next()?.to_owned()), line, column, half })
}

fn is_about(site: &Site, files: Sites) -> bool {
    files.iter().any(|file| site.file == format!("kernel/src/{file}"))
}

/// Each of `models` is right; and for each half of each ordering in `files` that they meet, a comment there names the
/// litmus test that needs it, or `elsewhere` (part of the line) says which other test shows it, or one of the models is
/// wrong without.
///
/// # Panics
/// If that is not so.
pub fn weakenings_show(preemptions: usize, files: Sites, elsewhere: &[(&str, &str)], models: &[fn()]) {
    let asked = std::env::var("ORDERINGS").ok();
    if let Some(site) = asked.as_deref().and_then(site) {
        match violation_without(site, preemptions, models) {
            Some(how) => println!("wrong: {how}"),
            None => println!("right"),
        }
        return;
    }
    watch();
    models.iter().for_each(|model| explore(preemptions, *model));
    let sites = watched();
    if asked.is_some() {
        for site in &sites {
            let Site { file, line, column, half } = site;
            println!("met: {file}:{line}:{column}:{half:?}{}", if is_about(site, files) { " about" } else { "" });
        }
        return;
    }
    let written = orderings::all().0;
    let (mut shown, mut wrong) = (0, Vec::new());
    for site in sites.into_iter().filter(|site| is_about(site, files)) {
        let at = written.iter().find(|w| is_at(w, &site));
        let text = at.map_or("", |at| &at.text);
        if elsewhere.iter().any(|(part, _)| text.contains(part)) || at.is_some_and(named) {
            continue;
        }
        match violation_without(site, preemptions, models) {
            Some(_) => shown += 1,
            None => wrong.push(format!("could be weaker: {}:{}: {text} [{:?}]", site.file, site.line, site.half)),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(shown > 0, "the models meet no ordering that they need");
}

fn is_at(written: &Written, site: &Site) -> bool {
    written.file == site.file
        && written.line == site.line as usize
        && format!("{:?}", written.half) == format!("{:?}", site.half)
}

/// Whether a comment names a litmus test that needs it.
fn named(written: &Written) -> bool {
    written.litmus.iter().any(|name| orderings::litmus_needs(name, written.half) == Ok(true))
}
