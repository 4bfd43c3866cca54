//! The orderings of the kernel as they are written, against the litmus tests that their comments name.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use tests::arm::Half;
use tests::orderings::{Litmus, Written, all, litmus_says};

#[derive(Deserialize)]
struct Manifest {
    test: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    file: String,
    pairs: BTreeSet<String>,
}

/// Files with orderings that some loom test is about (`cargo xtask mutate --orderings` looks at each). All others name
/// a litmus test at each ordering.
const WOVEN: [&str; 10] = [
    "kernel/src/arch.rs",
    "kernel/src/mm/frame.rs",
    "kernel/src/smp/call.rs",
    "kernel/src/smp/mask.rs",
    "kernel/src/smp/rcu.rs",
    "kernel/src/sync/mod.rs",
    "kernel/src/sync/targeted.rs",
    "kernel/src/tlb/switch.rs",
    "kernel/src/tlb/transport/nmi.rs",
    "kernel/src/tlb/transport/paravirt.rs",
];

/// What the litmus tests that are named at an ordering say of it.
fn said(written: &Written) -> Vec<(&str, Litmus)> {
    let say = |name: &'_ str| litmus_says(name, written.half).unwrap_or_else(|e| panic!("{}: {e}", written.file));
    written.litmus.iter().map(|name| (name.as_str(), say(name))).collect()
}

/// Every half that is written, for `cargo xtask mutate --orderings`: `written: FILE:LINE:HALF TEST WHAT -- the line`;
/// and where constants are used.
#[test]
fn a_litmus_test_that_is_named_needs_the_ordering() {
    let manifest = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/litmus/verdicts.toml"));
    let manifest: Manifest = toml::from_str(&manifest.expect("it can be read")).expect("it is as above");
    let pairs: BTreeMap<String, BTreeSet<String>> = manifest.test.into_iter().map(|t| (t.file, t.pairs)).collect();
    let (written, uses) = all();
    let mut wrong = Vec::new();
    for at in &written {
        let place = format!("{}:{}:{:?}", at.file, at.line, at.half);
        let said = said(at);
        let best = said.iter().max_by_key(|(_, says)| *says);
        if best.is_none_or(|(_, says)| *says == Litmus::Indifferent) && !WOVEN.contains(&at.file.as_str()) {
            wrong.push(format!("{place}: no litmus test that a comment names needs it: {}", at.text));
        }
        for (name, _) in &said {
            if !pairs[&format!("{name}.aarch64.litmus")].contains(&at.file) {
                wrong.push(format!("{place}: tests/litmus/verdicts.toml does not say that {name} is about this file"));
            }
        }
        let (name, says) = best.map_or(("-", "-".into()), |(name, says)| (*name, format!("{says:?}")));
        println!("written: {place} {name} {says} -- {}", at.text);
    }
    for at in uses {
        println!("used: {}:{} {}", at.file, at.line, at.of);
    }
    wrong.iter().for_each(|wrong| println!("not accounted for: {wrong}"));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(written.len() > 100);
}

/// A test says that it needs what its verdict rests on, and nothing else.
#[test]
fn a_litmus_test_needs_what_its_verdict_rests_on() {
    let says = |name, half| litmus_says(name, half).unwrap();
    assert_eq!(says("publish-scan", Half::Full), Litmus::Needs);
    assert_eq!(says("publish-scan", Half::Acquire), Litmus::Indifferent);
    assert_eq!(says("walk-end", Half::Release), Litmus::Needs);
    assert_eq!(says("walk-end", Half::Full), Litmus::Indifferent);
    assert_eq!(says("publish-scan-read-barrier", Half::Acquire), Litmus::Happens);
    assert!(litmus_says("no-such-test", Half::Full).unwrap_err().contains("no-such-test"));
}
