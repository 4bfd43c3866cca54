//! Running a model as it is, and once more for each half of each ordering in it, taken away.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};

use kernel::atomic::{Site, watch, watched, weaken};

/// The files of the kernel whose orderings a model is about, relative to `kernel/src`.
pub type Sites = &'static [&'static str];

/// No model takes so long on an idle machine by far; loom stops there without a word, so it is asked.
const LIMIT: std::time::Duration = std::time::Duration::from_secs(120);

/// As many preemptions as there can be. A model in which several CPUs wait in loops needs this: loom starves one of them when it counts preemptions.
pub const ALL: usize = usize::MAX;

/// Explores all interleavings of `model` with up to so many preemptions.
///
/// # Panics
/// If one of them violates what the model asserts, or races.
pub fn explore(preemptions: usize, model: fn()) {
    let mut builder = loom::model::Builder::new();
    builder.max_duration = Some(LIMIT);
    builder.preemption_bound = (preemptions != ALL).then_some(preemptions);
    builder.max_branches = 20_000;
    let begin = std::time::Instant::now();
    builder.check(model);
    assert!(begin.elapsed() < LIMIT, "the model was not explored to the end");
}

/// Whether some interleaving is wrong.
pub fn violated(preemptions: usize, model: fn()) -> bool {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let result = catch_unwind(AssertUnwindSafe(|| explore(preemptions, model))).is_err();
    std::panic::set_hook(hook);
    result
}

/// The line of the kernel at `site`, without its indentation.
fn text(site: &Site) -> String {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(site.file);
    let file = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let line = file.lines().nth(site.line as usize - 1).unwrap_or_default().trim();
    format!("{}: {line} [{:?}]", site.file.trim_start_matches("kernel/src/"), site.half)
}

/// Whether `site`, `file: part of the line [half]`, names the site whose text is `text`.
fn names(site: &str, text: &str) -> bool {
    let parts = site.split_once(": ").and_then(|(file, rest)| Some((file, rest.rsplit_once(" [")?)));
    let (file, (part, half)) = parts.expect("a site is written as file: part of the line [half]");
    text.starts_with(file) && text.contains(part) && text.ends_with(half)
}

/// Says a line of an ordering that is not shown here, and why.
fn excuse(survivors: &[(&str, &str)], text: &str) {
    for (_, reason) in survivors.iter().filter(|(site, _)| names(site, text)) {
        println!("excused: {text} -- {reason}");
    }
}

/// Each of `models` is right; and for each half of each ordering that they meet in `files`, one of them is wrong without. `survivors` are those that they cannot
/// show (file, part of the line and half), each with the reason (`shown in` another test: it is not tried here); one that is shown after all, or met nowhere, is an error too.
///
/// # Panics
/// If that is not so.
pub fn weakenings_show(preemptions: usize, files: Sites, survivors: &[(&str, &str)], models: &[fn()]) {
    watch();
    models.iter().for_each(|model| explore(preemptions, *model));
    let sites: Vec<Site> =
        watched().into_iter().filter(|s| files.iter().any(|f| s.file == format!("kernel/src/{f}"))).collect();
    let (mut shown, mut wrong) = (BTreeSet::new(), Vec::new());
    let mut unmet: BTreeSet<&str> = survivors.iter().map(|(site, _)| *site).collect();
    for site in sites {
        let text = text(&site);
        if survivors.iter().any(|(site, reason)| names(site, &text) && reason.starts_with("shown in ")) {
            unmet.retain(|site| !names(site, &text));
            excuse(survivors, &text);
            continue;
        }
        weaken(Some(site));
        let fails = models.iter().any(|model| violated(preemptions, *model));
        weaken(None);
        let excused = survivors.iter().any(|(site, _)| names(site, &text));
        unmet.retain(|site| !names(site, &text));
        match (fails, excused) {
            (true, false) => {
                shown.insert(text);
            }
            (false, true) => excuse(survivors, &text),
            (true, true) => wrong.push(format!("is shown, and excused: {text}")),
            (false, false) => wrong.push(format!("could be weaker: {text}")),
        }
    }
    wrong.extend(unmet.into_iter().map(|site| format!("is excused, and not there: {site}")));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(!shown.is_empty(), "the models meet no ordering");
    for text in shown {
        println!("needed: {text}");
    }
}
