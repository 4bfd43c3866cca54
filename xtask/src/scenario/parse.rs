//! Reading a scenario's text file. Every mistake is answered with its line and column, and a name that does not exist
//! with the nearest one that does.

use kernel::guard::Guard;
use kernel::injection::Fault;
use kernel::record::cell::Verdict;
use kernel::scenario::Point;
use kernel::scenario::script::{Actor, Goal, MAX_ACTORS, MAX_PAGES, MAX_STEPS, Role, Script, Step};
use kernel::suite::Named;

use super::text::{Mistake, Piece};
use crate::arch::Arch;
use crate::suite::Hook;

/// Where a scenario can be shown.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Shown {
    /// In QEMU.
    Qemu,
    /// By another engine (`sim`, `host`) or by none, and why.
    Elsewhere(&'static str, String),
}

/// A strategy, and what the static hook says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Chosen {
    /// A name from [`kernel::sync::NAMES`].
    pub(crate) strategy: &'static str,
    /// The hook.
    pub(crate) hook: Hook,
}

/// Which cells an expectation is about; `None` stands for all.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Selector {
    /// Architectures.
    pub(crate) archs: Option<Vec<Arch>>,
    /// Transports.
    pub(crate) transports: Option<Vec<&'static str>>,
    /// Strategies.
    pub(crate) strategies: Option<Vec<Chosen>>,
    /// With all guards kept, instead of without those that the scenario takes away.
    pub(crate) kept: bool,
    /// All cells that no other expectation is about.
    pub(crate) otherwise: bool,
}

/// One `expect` line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Expectation {
    /// Its line in the file.
    pub(crate) line: usize,
    /// What must come out.
    pub(crate) verdict: Verdict,
    /// Counts over all CPUs that must come out, too.
    pub(crate) counts: Vec<(&'static str, u64)>,
    /// Where.
    pub(crate) selector: Selector,
}

/// A scenario.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Scenario {
    /// The file's name without its ending.
    pub(crate) name: String,
    /// The comment at its head.
    pub(crate) story: Vec<String>,
    /// Where it can be shown.
    pub(crate) shown: Shown,
    /// A name from [`kernel::workload::NAMES`].
    pub(crate) workload: &'static str,
    /// Actors and steps.
    pub(crate) script: Script,
    /// The steps as they are written.
    pub(crate) steps: Vec<String>,
    /// Guards that are taken away.
    pub(crate) without: Vec<&'static str>,
    /// Faults that are injected, `name:n`.
    pub(crate) inject: Vec<String>,
    /// What must come out.
    pub(crate) expectations: Vec<Expectation>,
}

const KEYS: &[Named] = &[
    ("workload", ""),
    ("actors", ""),
    ("guards", ""),
    ("inject", ""),
    ("before", ""),
    ("pages", ""),
    ("page", ""),
    ("engine", ""),
    ("steps", ""),
    ("expect safe", ""),
    ("expect unsafe", ""),
    ("expect refused", ""),
    ("expect counts", ""),
];

/// What can be counted.
pub(crate) const COUNTS: &[Named] = &[("flush_ipis", ""), ("sync_ipis", ""), ("vectors", "")];

/// Reads the file `name` with contents `text`.
pub(crate) fn parse(name: &str, text: &str) -> Result<Scenario, Mistake> {
    let mut story = Vec::new();
    let mut shown = None;
    let mut workload = None;
    let mut actors: Vec<Actor> = Vec::new();
    let mut without = Vec::new();
    let mut inject = Vec::new();
    let mut numbers = (0, 1);
    let mut page = 0;
    let mut steps: Vec<(Step, String)> = Vec::new();
    let mut expectations = Vec::new();
    let mut seen: Vec<&str> = Vec::new();
    let mut in_steps = false;
    for (index, line) in text.lines().enumerate() {
        let whole = Piece { text: line, line: index + 1, column: 1 };
        if let Some(comment) = line.trim_start().strip_prefix('#') {
            if seen.is_empty() {
                story.push(comment.trim().to_owned());
            }
            continue;
        }
        let piece = whole.trimmed();
        if piece.text.is_empty() {
            continue;
        }
        let Some((key, value)) = piece.split_once(':').map(|(k, v)| (k.trimmed(), v.trimmed())) else {
            if !in_steps {
                return piece.mistake("a line is \"key: value\", a step after \"steps:\", or a comment after \"#\"");
            }
            steps.push((step(&piece, &actors)?, piece.words().iter().map(|w| w.text).collect::<Vec<_>>().join(" ")));
            if steps.len() > MAX_STEPS {
                return piece.mistake(format!("a scenario has at most {MAX_STEPS} steps"));
            }
            continue;
        };
        in_steps = key.text == "steps";
        let known = key.name("key", KEYS)?;
        if seen.contains(&known) && !known.starts_with("expect") {
            return key.mistake(format!("\"{known}\" is there already"));
        }
        seen.push(known);
        match known {
            "workload" => workload = Some(value.name("workload", &workloads())?),
            "actors" => actors = cast(&value)?,
            "guards" => without = guards(&value)?,
            "inject" => inject = faults(&value)?,
            "before" => numbers.0 = value.number(64)?,
            "page" => page = value.number(511)?,
            "pages" => numbers.1 = value.number(MAX_PAGES)?.max(1),
            "engine" => shown = Some(engine(&value)?),
            "steps" if actors.is_empty() => return key.mistake("\"actors:\" must come before \"steps:\""),
            "steps" if !value.text.is_empty() => return value.mistake("steps are on lines of their own"),
            "steps" => {}
            "expect safe" => expectations.push(expectation(&value, Verdict::Safe)?),
            // Counts are judged where nothing went wrong.
            "expect counts" => expectations.push(expectation(&value, Verdict::Safe)?),
            "expect refused" => expectations.push(expectation(&value, Verdict::Refused)?),
            _ => expectations.push(expectation(&value, Verdict::Unsafe)?),
        }
    }
    let end = Piece { text: "", line: text.lines().count().max(1), column: 1 };
    let Some(shown) = shown else { return end.mistake("\"engine: qemu\", or another engine, is missing") };
    if story.is_empty() {
        return Piece { line: 1, ..end }.mistake("the story is missing: a comment at the head of the file");
    }
    if shown == Shown::Qemu {
        if workload.is_none() {
            return end.mistake("\"workload: NAME\" is missing");
        }
        if steps.is_empty() {
            return end.mistake("there are no steps: \"actors:\", then \"steps:\" and a line for each");
        }
        if expectations.is_empty() {
            return end.mistake("nothing is expected: \"expect unsafe: ..\" or \"expect safe: ..\" is missing");
        }
        let idle = (0..actors.len()).find(|i| !steps.iter().any(|(s, _)| usize::from(s.actor) == *i));
        if let Some(idle) = idle {
            return end.mistake(format!("{} has no step", actors[idle]));
        }
    }
    let script = Script {
        actors: actors.into_iter().collect(),
        steps: steps.iter().map(|(step, _)| *step).collect(),
        before: numbers.0,
        pages: numbers.1,
        page,
    };
    Ok(Scenario {
        name: name.into(),
        story,
        shown,
        workload: workload.unwrap_or(kernel::workload::NAMES[0].0),
        script,
        steps: steps.into_iter().map(|(_, text)| text).collect(),
        without,
        inject,
        expectations,
    })
}

/// The workloads of the suite, and those for scenarios.
pub(crate) fn workloads() -> Vec<Named> {
    kernel::workload::NAMES.iter().chain(kernel::workload::STAGED).copied().collect()
}

/// `U W W2`.
fn cast(value: &Piece<'_>) -> Result<Vec<Actor>, Mistake> {
    let mut actors = Vec::new();
    for word in value.words() {
        let Some(actor) = Actor::named(word.text) else {
            let roles: Vec<&str> = Role::NAMES.iter().map(|(letter, _)| *letter).collect();
            return word.mistake(format!(
                "\"{}\" is no actor: one of {}, with a number from 2 on for more of a kind",
                word.text,
                roles.join(", ")
            ));
        };
        if actors.contains(&actor) {
            return word.mistake(format!("{actor} is there already"));
        }
        if (actor.role == Role::Updater) != actors.is_empty() {
            return word.mistake("U is the first actor, and the only one of its kind");
        }
        actors.push(actor);
        if actors.len() > MAX_ACTORS {
            return word.mistake(format!("a scenario has at most {MAX_ACTORS} actors"));
        }
    }
    if actors.is_empty() { value.mistake("U, at least, belongs here") } else { Ok(actors) }
}

/// `-PmdRecheck -PteRecheck`.
fn guards(value: &Piece<'_>) -> Result<Vec<&'static str>, Mistake> {
    let mut without = Vec::new();
    for word in value.words() {
        if !word.text.starts_with('-') {
            return word.mistake(format!("a guard is taken away by \"-{}\"", word.text));
        }
        without.push(word.part(1, word.text.len()).name("guard", Guard::NAMES)?);
    }
    Ok(without)
}

/// `batch:1 trylock:2`.
fn faults(value: &Piece<'_>) -> Result<Vec<String>, Mistake> {
    let mut faults = Vec::new();
    for word in value.words() {
        let Some((kind, number)) = word.split_once(':') else {
            return word.mistake("a fault is \"NAME:N\", as in \"batch:2\": it strikes once in N times");
        };
        let kind = kind.name("fault", Fault::NAMES)?;
        faults.push(format!("{kind}:{}", number.number(1 << 20)?));
    }
    Ok(faults)
}

/// `qemu`, or `sim  (QEMU cannot show it: reason)`.
fn engine(value: &Piece<'_>) -> Result<Shown, Mistake> {
    let (name, reason) = match value.split_once('(') {
        Some((name, reason)) => (name.trimmed(), Some(reason)),
        None => (*value, None),
    };
    const ENGINES: &[Named] = &[("qemu", ""), ("sim", ""), ("host", ""), ("none", "")];
    match (name.name("engine", ENGINES)?, reason) {
        ("qemu", None) => Ok(Shown::Qemu),
        ("qemu", Some(reason)) => reason.mistake("the engine that can show it needs no reason"),
        (_, None) => name.mistake("say in parentheses why QEMU cannot show it"),
        (engine, Some(reason)) => match reason.text.trim_end().strip_suffix(')') {
            Some(words) if !words.trim().is_empty() => Ok(Shown::Elsewhere(engine, words.trim().to_owned())),
            _ => reason.mistake("a reason and \")\" belong here"),
        },
    }
}

/// One step: `W until after_pmd_read`, `U to completion`, `W on`, `W freeze`.
fn step(piece: &Piece<'_>, actors: &[Actor]) -> Result<Step, Mistake> {
    let words = piece.words();
    let who = words[0];
    let actor = Actor::named(who.text).and_then(|a| actors.iter().position(|b| *b == a));
    let Some(actor) = actor else {
        let names: Vec<String> = actors.iter().map(Actor::to_string).collect();
        return who.mistake(format!("\"{}\" is not among the actors {}", who.text, names.join(", ")));
    };
    let texts: Vec<&str> = words[1..].iter().map(|w| w.text).collect();
    let goal = match texts[..] {
        ["until", _] => {
            let point = words[2].name("pause point", Point::NAMES)?;
            let Some(point) = Point::named(point) else { unreachable!("it is a name of the list") };
            Goal::Until(point)
        }
        ["to", "completion"] | ["on"] => Goal::Completion,
        ["freeze"] => Goal::Freeze,
        _ => {
            let at = words.get(1).unwrap_or(&who);
            return at.mistake("a step is \"until POINT\", \"to completion\", \"on\" or \"freeze\"");
        }
    };
    Ok(Step { actor: actor as u8, goal })
}

/// `transport=broadcast strategy=none,static-hook(hook=true)`, or `otherwise`.
fn expectation(value: &Piece<'_>, verdict: Verdict) -> Result<Expectation, Mistake> {
    let mut selector = Selector::default();
    let mut counts = Vec::new();
    for word in value.words() {
        if word.text == "otherwise" {
            selector.otherwise = true;
            continue;
        }
        let Some((key, list)) = word.split_once('=') else {
            return word.mistake("\"otherwise\", or arch=, transport=, strategy= or guards= belongs here");
        };
        const SELECTORS: &[Named] = &[("arch", ""), ("transport", ""), ("strategy", ""), ("guards", "")];
        if let Some((count, _)) = COUNTS.iter().find(|(name, _)| *name == key.text) {
            counts.push((*count, list.number(u64::MAX)?));
            continue;
        }
        match key.name("selector", SELECTORS)? {
            "arch" => {
                let names = Arch::ALL.map(|a| (a.name(), ""));
                let chosen: Result<Vec<_>, _> = list.split(',').iter().map(|p| p.name("arch", &names)).collect();
                let of = |name| Arch::ALL.into_iter().find(|a| a.name() == name);
                selector.archs = Some(chosen?.into_iter().filter_map(of).collect());
            }
            "transport" => {
                let names = kernel::tlb::transport::NAMES;
                let chosen: Result<Vec<_>, _> = list.split(',').iter().map(|p| p.name("transport", names)).collect();
                selector.transports = Some(chosen?);
            }
            "strategy" => {
                let chosen: Result<Vec<_>, _> = list.split(',').iter().map(chosen).collect();
                selector.strategies = Some(chosen?);
            }
            _ => selector.kept = list.name("choice", &[("kept", ""), ("removed", "")])? == "kept",
        }
    }
    let narrowed = selector.archs.is_some() || selector.transports.is_some() || selector.strategies.is_some();
    match (selector.otherwise, narrowed) {
        (true, true) => value.mistake("\"otherwise\" is about all cells that other lines are not about"),
        (false, false) if !selector.kept => value.mistake("which cells? \"otherwise\" stands for all that are left"),
        _ => Ok(Expectation { line: value.line, verdict, counts, selector }),
    }
}

/// `none`, or `static-hook(hook=true)`.
fn chosen(piece: &Piece<'_>) -> Result<Chosen, Mistake> {
    let (name, hook) = match piece.split_once('(') {
        None => (*piece, Hook::Auto),
        Some((name, hook)) => match hook.text {
            "hook=true)" => (name, Hook::True),
            "hook=false)" => (name, Hook::False),
            _ => return hook.mistake("\"hook=true)\" or \"hook=false)\" belongs here"),
        },
    };
    Ok(Chosen { strategy: name.name("strategy", kernel::sync::NAMES)?, hook })
}
