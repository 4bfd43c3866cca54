//! Guards that are handed to the checks on the host: each is known to some test.

use kernel::guard::{Guard, ShownBy};

/// All that the tests of this package and of the simulated machine say.
fn tests() -> String {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
    let mut text = String::new();
    for folder in ["tests/tests", "arch-sim/tests"] {
        for entry in std::fs::read_dir(format!("{root}/{folder}")).expect("the folder is there") {
            let path = entry.expect("it can be read").path();
            if path.extension().is_some_and(|e| e == "rs") {
                text += &std::fs::read_to_string(&path).expect("it can be read");
            }
        }
    }
    text
}

#[test]
fn every_guard_that_no_workload_misses_is_known_to_a_test() {
    let text = tests();
    let left: Vec<&str> = Guard::NAMES
        .iter()
        .zip(Guard::SHOWN_BY)
        .filter(|(_, by)| matches!(by, ShownBy::Host | ShownBy::Programs))
        .map(|((name, _), _)| *name)
        .filter(|name| !text.contains(name))
        .collect();
    assert!(left.is_empty(), "no test on the host knows these: {}", left.join(", "));
}
