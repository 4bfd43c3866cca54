//! An experiment's file: what is varied, and what is expected. Every mistake in it is told at once, each with its line,
//! its column and the nearest right word.

use kernel::guard::Guard;
use kernel::injection::Fault;
use kernel::suite::{Mode, Named};
use kernel::workload::walker::WalkerClass;

use super::{model, plan};
use crate::arch::Arch;
use crate::document::{Document, Table, Value};
use crate::records::condition::{ARCHS, Condition, DOERS, ENGINES, KERNEL, PROGRAMS, Plain};
use crate::scenario::text::Mistake;
use crate::suite::{Engine, Hook};

/// The most seeds, and repetitions, of one experiment.
const MOST: u64 = 100_000;

/// An experiment: the product of its lists is run.
#[derive(Clone, Debug)]
pub(crate) struct Experiment {
    /// What it shows, in a sentence.
    pub(crate) claim: String,
    /// Machines.
    pub(crate) archs: Vec<Arch>,
    /// CPUs of each machine.
    pub(crate) cpus: Vec<u32>,
    /// Names from [`kernel::tlb::transport::NAMES`]; `None` for the architecture's own.
    pub(crate) transports: Vec<Option<&'static str>>,
    /// Names from [`kernel::sync::NAMES`].
    pub(crate) strategies: Vec<&'static str>,
    /// Names from [`kernel::workload::NAMES`].
    pub(crate) workloads: Vec<&'static str>,
    /// Names from [`Mode::NAMES`].
    pub(crate) modes: Vec<&'static str>,
    /// Names from [`WalkerClass::NAMES`].
    pub(crate) walkers: Vec<&'static str>,
    /// Names from [`DOERS`]: who does the operations.
    pub(crate) by: Vec<&'static str>,
    /// How QEMU runs the CPUs; none where only the simulated machine is asked.
    pub(crate) engines: Vec<Engine>,
    /// Whether the simulated machine is asked.
    pub(crate) model: bool,
    /// What the static hook believes.
    pub(crate) hooks: Vec<Hook>,
    /// Seeds of schedules.
    pub(crate) seeds: Vec<u64>,
    /// How often each is run; on a deterministic engine all must give the same row.
    pub(crate) repetitions: u32,
    /// Operations of each cell.
    pub(crate) ops: u64,
    /// Whether instructions of operations are counted too, in the plain image.
    pub(crate) instructions: bool,
    /// Whether durations, interrupts and waiting memory are recorded.
    pub(crate) profile: bool,
    /// Guards that are taken away, from [`Guard::NAMES`].
    pub(crate) without: Vec<&'static str>,
    /// Faults that are injected, `name:n`.
    pub(crate) inject: Vec<String>,
    /// What must come out, beside what every row promises by itself.
    pub(crate) expected: Vec<Condition>,
}

const KEYS: [&str; 19] = [
    "claim",
    "architectures",
    "cpus",
    "transports",
    "strategies",
    "workloads",
    "modes",
    "walkers",
    "by",
    "engines",
    "hooks",
    "seeds",
    "repetitions",
    "ops",
    "instructions",
    "profile",
    "without",
    "inject",
    "expected",
];

/// Reads `text`.
pub(crate) fn parse(text: &str) -> anyhow::Result<Result<Experiment, Vec<Mistake>>> {
    let (document, table) = Document::parse(text);
    let root = document.root(&table);
    root.only(&KEYS);
    let experiment = read(root)?;
    if document.is_clean() {
        let named = root.get("engines").map_or(Vec::new(), |value| value.items());
        let named = named.iter().find(|item| matches!(item.kind(), toml::de::DeValue::String(s) if s == "sim"));
        // "all" asks for what there is.
        if let Some((item, why)) = named.zip(model::nothing(&experiment)) {
            item.mistake(why);
        }
        let cells = plan::cells(&experiment);
        let values = root.get("expected").map_or(Vec::new(), |value| value.items());
        for (condition, value) in experiment.expected.iter().zip(values) {
            if !cells.iter().any(|cell| condition.means(cell)) {
                value.mistake("this is about no row of the experiment");
            }
        }
    }
    let mistakes = document.mistakes();
    Ok(if mistakes.is_empty() { Ok(experiment) } else { Err(mistakes) })
}

fn read(root: Table<'_, '_>) -> anyhow::Result<Experiment> {
    let names = |key: &str, kind: &str, known: &[Named], default: &[&'static str]| match root.get(key) {
        Some(value) => value.names(kind, known),
        None => default.to_vec(),
    };
    let required = |key: &str, example: &str| {
        if root.get(key).is_none() {
            root.mistake(format!("the key \"{key}\" is missing, like {key} = {example}"));
        }
    };
    let claim = root.get("claim").and_then(|value| value.text("a sentence")).unwrap_or_default().to_owned();
    required("claim", "\"what this experiment shows\"");
    required("strategies", "[\"none\", \"sync-all\"]");
    required("workloads", "[\"collapse_anon\"]");
    let archs = names("architectures", "architecture", ARCHS, &["x86_64", "aarch64"]);
    let archs: Vec<Arch> = Arch::ALL.into_iter().filter(|arch| archs.contains(&arch.name())).collect();
    let by = names("by", "doer", DOERS, &[KERNEL]);
    let engines = names("engines", "engine", ENGINES, &["icount"]);
    let engine = |name: &&str| [Engine::Icount, Engine::Mttcg].into_iter().find(|engine| engine.name() == *name);
    const HOOKS: &[Named] = &[("auto", ""), ("true", ""), ("false", "")];
    let hook = |name: &&str| [Hook::True, Hook::False].into_iter().find(|h| h.word() == *name).unwrap_or(Hook::Auto);
    let number =
        |key: &str, default: u64| root.get(key).map_or(Some(default), |value| value.number(1, MOST)).unwrap_or(1);
    let mut expected = Vec::new();
    for value in root.get("expected").iter().flat_map(Value::items) {
        match value.table() {
            Some(table) => expected.push(Condition::read(table, Plain::Exactly)?),
            None => value.mistake("expectations are tables: [[expected]], and their keys on lines below"),
        }
    }
    Ok(Experiment {
        claim,
        cpus: root.get("cpus").map_or(vec![4], |value| cpus(value, &archs)),
        archs,
        transports: root.get("transports").map_or(vec![None], transports),
        strategies: names("strategies", "strategy", kernel::sync::NAMES, &[]),
        workloads: root.get("workloads").map_or(Vec::new(), |value| {
            value.names_more("workload", kernel::workload::NAMES, kernel::workload::PROGRAMS)
        }),
        modes: names("modes", "mode", Mode::NAMES, &["same", "other", "contend"]),
        walkers: walkers(root, &by),
        by,
        engines: engines.iter().filter_map(engine).collect(),
        model: engines.contains(&"sim"),
        hooks: names("hooks", "hook", HOOKS, &["auto"]).iter().map(hook).collect(),
        seeds: root.get("seeds").map_or(vec![1], seeds),
        repetitions: number("repetitions", 1) as u32,
        ops: number("ops", 64),
        instructions: root.get("instructions").and_then(|value| value.truth()).unwrap_or(false),
        profile: root.get("profile").and_then(|value| value.truth()).unwrap_or(false),
        without: names("without", "guard", Guard::NAMES, &[]),
        inject: root.get("inject").map_or(Vec::new(), faults),
        expected,
    })
}

/// Programs have the kernel walk as GUP-fast does.
fn walkers(root: Table<'_, '_>, by: &[&str]) -> Vec<&'static str> {
    const GUP: &str = WalkerClass::NAMES[0].0;
    let Some(value) = root.get("walkers") else { return vec![GUP] };
    let walkers = value.names("walker", WalkerClass::NAMES);
    if by.contains(&PROGRAMS) && walkers.iter().any(|walker| *walker != GUP) {
        value.mistake(format!("programs have the kernel walk as {GUP} does; leave the others, or \"{PROGRAMS}\", out"));
    }
    walkers
}

fn cpus(value: Value<'_, '_>, archs: &[Arch]) -> Vec<u32> {
    if value.items().is_empty() {
        value.mistake("a number of CPUs, at least, belongs here");
    }
    let most = archs.iter().map(|arch| arch.max_cpus()).min().unwrap_or(1);
    value.items().iter().filter_map(|item| item.number(1, most.into())).map(|n| n as u32).collect()
}

/// Names, of which `native` is the architecture's own.
fn transports(value: Value<'_, '_>) -> Vec<Option<&'static str>> {
    let known: Vec<Named> = [("native", "")].into_iter().chain(kernel::tlb::transport::NAMES.iter().copied()).collect();
    let all = value.items().iter().any(|item| matches!(item.kind(), toml::de::DeValue::String(s) if s == "all"));
    value
        .names("transport", &known)
        .into_iter()
        // Every transport is one of the architecture's own already.
        .filter(|name| !all || *name != "native")
        .map(|name| Some(name).filter(|name| *name != "native"))
        .collect()
}

/// Numbers, or a range `"A..B"` with both ends.
fn seeds(value: Value<'_, '_>) -> Vec<u64> {
    let mut all = Vec::new();
    for item in value.items() {
        match item.kind() {
            toml::de::DeValue::String(range) => match range.parse::<crate::seeds::Seeds>() {
                Ok(range) if range.count() <= MOST => all.extend(range.iter()),
                Ok(_) => item.mistake(format!("that is more than {MOST} seeds")),
                Err(sentence) => item.mistake(sentence),
            },
            _ => all.extend(item.number(0, i64::MAX as u64)),
        }
    }
    if value.items().is_empty() {
        value.mistake("a seed, at least, belongs here");
    }
    all
}

fn faults(value: Value<'_, '_>) -> Vec<String> {
    let mut all = Vec::new();
    for item in value.items() {
        let Some(fault) = item.text("a fault, like \"batch:2\",") else { continue };
        let names = || Fault::NAMES.iter().map(|(name, _)| *name);
        let is_one =
            |(name, n): (&str, &str)| names().any(|known| known == name) && n.parse::<u32>().is_ok_and(|n| n > 0);
        if fault.split_once(':').is_some_and(is_one) {
            all.push(fault.to_owned());
        } else {
            item.mistake(format!(
                "\"{fault}\" is no fault; each of {} strikes once in N times by \"NAME:N\"",
                names().collect::<Vec<_>>().join(", ")
            ));
        }
    }
    all
}
