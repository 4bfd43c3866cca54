//! A trace of a cell that is known to be unsafe, from QEMU to the file. `cargo xtask test` runs these.

// Rows are what other tests read.
#[allow(dead_code)]
mod runner;

use runner::{scratch, stderr, xtask};
use serde_json::Value;

/// Runs one cell under `none` and `sync-all`, and parses the trace.
#[track_caller]
fn trace(arch: &str) -> Vec<Value> {
    let path = scratch(&format!("{arch}-trace.json"));
    let cell = "--transport broadcast --workload collapse_anon --mode contend --ops 8 --strategy none,sync-all";
    let output = xtask(&format!("run --arch {arch} {cell} --trace {}", path.display()));
    assert!(output.status.success(), "{}", stderr(&output));
    let file = std::fs::read_to_string(path).expect("the trace is there");
    let mut document: Value = serde_json::from_str(&file).expect("it is JSON");
    assert_eq!(document["otherData"]["guests"].as_array().map(Vec::len), Some(2));
    match document["traceEvents"].take() {
        Value::Array(events) => events,
        other => panic!("{other} is no list of events"),
    }
}

/// The events of these phases in a group of tracks.
fn of<'v>(events: &'v [Value], pid: u64, phase: &str) -> Vec<&'v Value> {
    events.iter().filter(|e| e["ph"] == phase && e["pid"] == pid).collect()
}

fn name(event: &Value) -> &str {
    event["name"].as_str().unwrap_or_default()
}

fn time(event: &Value) -> f64 {
    event["ts"].as_f64().unwrap_or(f64::NAN)
}

/// Under `none` (its guest is the first) the violation is there, with an arrow from the walk, and the table's life
/// leads to it; under `sync-all` each sync's arrows end in the handlers of other CPUs.
#[track_caller]
fn the_story_is_told(arch: &str) {
    let events = trace(arch);
    let (cpus, tables, syncing) = (1, 2, 3);
    let violation =
        of(&events, cpus, "i").into_iter().find(|e| e["cat"] == "violation").expect("a violation is marked");
    let held = of(&events, cpus, "f").into_iter().find(|e| name(e) == "still held" && time(e) == time(violation));
    let begin = of(&events, cpus, "s").into_iter().find(|e| Some(&e["id"]) == held.map(|h| &h["id"]));
    let begin = begin.expect("an arrow leads to the violation");
    let walk = of(&events, cpus, "X").into_iter().find(|e| {
        let end = time(e) + e["dur"].as_f64().unwrap_or(f64::NAN);
        e["cat"] == "walk" && e["tid"] == begin["tid"] && (time(e)..=end).contains(&time(begin))
    });
    assert!(walk.is_some(), "the arrow begins in a walk");
    assert_ne!(begin["tid"], violation["tid"], "on another CPU's track");

    let marked = of(&events, tables, "i").into_iter().find(|e| time(e) == time(violation)).expect("and on its table");
    let life: Vec<&str> =
        of(&events, tables, "X").into_iter().filter(|e| e["tid"] == marked["tid"]).map(name).collect();
    let mut rest = life.iter();
    for phase in ["linked", "unlinked", "flushed", "drained", "reused"] {
        assert!(rest.any(|p| p.starts_with(phase)), "{phase} is not in its place in {life:?}");
    }

    assert!(of(&events, syncing, "i").iter().all(|e| e["cat"] != "violation"));
    let arrows: Vec<&Value> = of(&events, syncing, "f").into_iter().filter(|e| name(e) == "sync").collect();
    assert!(!arrows.is_empty(), "syncs have arrows");
    for arrow in arrows {
        let handler = of(&events, syncing, "X").into_iter().any(|e| {
            let end = time(e) + e["dur"].as_f64().unwrap_or(f64::NAN);
            e["cat"] == "handler" && e["tid"] == arrow["tid"] && (time(e)..=end).contains(&time(arrow))
        });
        assert!(handler, "{arrow} ends in no handler");
    }
}

mod x86_64 {
    #[test]
    #[ignore = "boots QEMU"]
    fn a_trace_has_the_violation_the_arrows_and_the_life() {
        super::the_story_is_told("x86_64");
    }
}

mod aarch64 {
    #[test]
    #[ignore = "boots QEMU"]
    fn a_trace_has_the_violation_the_arrows_and_the_life() {
        super::the_story_is_told("aarch64");
    }
}
