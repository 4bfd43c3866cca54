//! Interleavings of the core as data for whoever makes traces of them (`cargo xtask sim --trace`): one line of JSON for each.

use kernel::record::cell::Violation;
use kernel::record::event::Event;
use serde::Serialize;

use crate::machine::prove::Replayed;
use crate::machine::scope::Scope;

/// Version of the format; `xtask/src/trace/simulated.rs` reads it.
const VERSION: u32 = 1;

/// The numbers of an [`Event`], in its order.
type Numbers = (u64, u16, u16, u32, u64, u64);

/// One interleaving.
#[derive(Serialize)]
struct Told<'a> {
    version: u32,
    title: &'a str,
    heading: String,
    /// By CPU: time (the number of the step), kind, CPU, mm, and the two details of each event.
    cpus: Vec<Vec<Numbers>>,
    overwritten: Vec<u64>,
    dropped: Vec<u64>,
    violation: Option<Found>,
}

/// A [`Violation`].
#[derive(Serialize)]
struct Found {
    kind: u16,
    walker: u16,
    updater: u16,
    level: u16,
    mm: u32,
    pfn: u32,
    address: u64,
    walk: u64,
    op: u64,
    times: [u64; 4],
}

impl From<Violation> for Found {
    fn from(violation: Violation) -> Found {
        let Violation { kind, walker, updater, level, mm, pfn, address, walk, op, times } = violation;
        Found { kind, walker, updater, level, mm, pfn, address, walk, op, times }
    }
}

/// The line of `replayed`, a run of `scope`.
pub fn line(scope: &Scope, replayed: &Replayed) -> String {
    let mut cpus = vec![Vec::new(); scope.cpus()];
    for Event { time, kind, cpu, mm, a, b } in &replayed.events {
        cpus[usize::from(*cpu)].push((*time, *kind, *cpu, *mm, *a, *b));
    }
    let told = Told {
        version: VERSION,
        title: &scope.in_words(),
        heading: replayed.findings.join("; "),
        cpus,
        overwritten: replayed.overwritten.clone(),
        dropped: replayed.dropped.clone(),
        violation: replayed.violation.map(Found::from),
    };
    serde_json::to_string(&told).expect("strings and numbers") + "\n"
}
