//! The shapes of the kernel's pairing comments: what herd7 says of them where it is installed, and for x86 what our own
//! explorer says, everywhere.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Command;

use serde::Deserialize;
use tests::arm;
use tests::litmus::Litmus;
use tests::litmus_format;
use tests::store_buffer::{Op, outcomes};

#[derive(Deserialize)]
struct Verdicts {
    test: Vec<Verdict>,
}

#[derive(Deserialize)]
struct Verdict {
    file: String,
    verdict: String,
    pairs: Vec<String>,
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

fn verdicts() -> Vec<Verdict> {
    toml::from_str::<Verdicts>(&read("litmus/verdicts.toml")).expect("the manifest is as above").test
}

/// Every file is in the manifest and the other way round; each verdict is one of two; each file of the kernel that is
/// named exists and says what it pairs with.
#[test]
fn the_manifest_is_complete() {
    let verdicts = verdicts();
    let named: BTreeSet<String> = verdicts.iter().map(|v| v.file.clone()).collect();
    let there: BTreeSet<String> = std::fs::read_dir(root().join("litmus"))
        .expect("the directory is there")
        .map(|entry| entry.expect("it can be read").file_name().to_string_lossy().into_owned())
        .filter(|name| name.ends_with(".litmus"))
        .collect();
    assert_eq!(named, there);
    for test in verdicts {
        assert!(matches!(test.verdict.as_str(), "Never" | "Sometimes"), "{}", test.file);
        for file in test.pairs {
            let source = read(&format!("../{file}")).to_lowercase();
            assert!(["pairs with", "see", "order"].iter().any(|word| source.contains(word)), "{file}");
        }
    }
}

/// The name of a test: its file's, without language and extension.
fn name(file: &str) -> &str {
    file.trim_end_matches(".litmus").rsplit_once('.').expect("a language").0
}

#[test]
fn every_file_has_the_format_that_herd7_reads() {
    for Verdict { file, .. } in verdicts() {
        litmus_format::check(name(&file), &read(&format!("litmus/{file}"))).unwrap_or_else(|e| panic!("{file}: {e}"));
    }
}

/// Each slip of the pen is refused: a file that had it would have a verdict of something else, or none.
#[test]
fn a_file_with_a_slip_is_refused() {
    let refused = |file: &str, slips: &[(&str, &str)]| {
        let text = read(&format!("litmus/{file}"));
        litmus_format::check(name(file), &text).expect("it is right as it is");
        for (right, wrong) in slips {
            let slipped = text.replacen(right, wrong, 1);
            assert_ne!(slipped, text, "{file}: {right} is not there");
            assert!(litmus_format::check(name(file), &slipped).is_err(), "{file}: {wrong} for {right}");
        }
    };
    refused(
        "walk-end.aarch64.litmus",
        &[
            ("AArch64", "ARM64"),
            ("walk-end\n", "walk-ended\n"),
            ("again:", "again\":"),
            ("{", "("),
            ("y=1;", "y=1"),
            ("0:X3=y", "2:X3=y"),
            ("0:X3=y", "0:X3=1"),
            ("0:X1=x; ", ""),
            (" P1 ", " P2 "),
            ("STLR WZR", "STLA WZR"),
            ("LDAR W2,[X1] ;", "LDAR W2,[X1]  "),
            ("LDAR W2,[X1] ;", "LDAR W9,[X1] ;"),
            ("LDAR W2,[X1] ;", "LDAR W2,[X1]  ;"),
            ("STR W0", "STR W4"),
            ("L0:", "L1:"),
            ("exists", "exist"),
            ("0:X2=1", "0:X4=1"),
            ("0:X2=1", "2:X2=1"),
            ("1:X2=0", "1:X2=a"),
        ],
    );
    refused(
        "exchange-scan.x86.litmus",
        &[
            ("X86 ", "X86_64 "),
            ("XCHG [x]", "XCHG (x)"),
            ("MFENCE", "MEMBAR"),
            ("exists (0:", "exists (2:"),
            ("exists (0:EAX", "exists (0:ECX"),
        ],
    );
}

#[test]
fn our_own_explorer_agrees_about_x86() {
    let mut tests = 0;
    for test in verdicts().into_iter().filter(|t| t.file.ends_with(".x86.litmus")) {
        let litmus =
            Litmus::parse(&read(&format!("litmus/{}", test.file))).unwrap_or_else(|e| panic!("{}: {e}", test.file));
        let found = outcomes(&litmus.memory, &litmus.program).iter().any(|outcome| litmus.matches(outcome));
        assert_eq!(if found { "Sometimes" } else { "Never" }, test.verdict, "{}", test.file);
        tests += 1;
    }
    assert!(tests > 10);
}

/// Each AArch64 test has the verdict that the manifest says, by our own explorer.
#[test]
fn our_own_explorer_agrees_about_aarch64() {
    let mut tests = 0;
    for test in verdicts().into_iter().filter(|t| t.file.ends_with(".aarch64.litmus")) {
        let litmus =
            arm::parse(&read(&format!("litmus/{}", test.file))).unwrap_or_else(|e| panic!("{}: {e}", test.file));
        assert_eq!(if litmus.happens() { "Sometimes" } else { "Never" }, test.verdict, "{}", test.file);
        tests += 1;
    }
    assert!(tests > 10);
}

#[test]
fn herd7_agrees_where_it_is_installed() {
    if Command::new("herd7").arg("-version").output().is_err() {
        eprintln!("skipped: herd7 is not installed");
        return;
    }
    for test in verdicts() {
        let mut herd = Command::new("herd7");
        if test.file.ends_with(".x86.litmus") {
            herd.args(["-model", "tso.cat"]);
        }
        let output = herd.arg(root().join("litmus").join(&test.file)).output().expect("herd7 runs");
        let text = String::from_utf8_lossy(&output.stdout);
        let said = text.lines().find_map(|line| line.strip_prefix("Observation ")).unwrap_or_else(|| panic!("{text}"));
        assert_eq!(said.split_whitespace().nth(1), Some(test.verdict.as_str()), "{}", test.file);
    }
}

/// The table of x86 verdicts for store, barrier, load against store, barrier, load: both sides need a full one. Rows:
/// none, LFENCE, SFENCE, MFENCE, XCHG.
#[test]
fn a_store_before_a_load_needs_a_full_barrier_on_both_sides() {
    const SOMETIMES: [[bool; 5]; 5] = [
        [true, true, true, true, true],
        [true, true, true, true, true],
        [true, true, true, true, true],
        [true, true, true, false, false],
        [true, true, true, false, false],
    ];
    let side = |kind: usize, mine: &str, theirs: &str| {
        let register = || "B".to_string();
        let mut ops = match kind {
            4 => vec![Op::Set(register(), 1), Op::Exchange(mine.to_string(), register())],
            _ => vec![Op::Store(mine.to_string(), 1)],
        };
        match kind {
            1 | 2 => ops.push(Op::Weak),
            3 => ops.push(Op::Full),
            _ => {}
        }
        ops.push(Op::Load("A".to_string(), theirs.to_string()));
        ops
    };
    for (walker, row) in SOMETIMES.iter().enumerate() {
        for (updater, sometimes) in row.iter().enumerate() {
            let program = [side(walker, "x", "y"), side(updater, "y", "x")];
            let both_missed = outcomes(&Default::default(), &program).iter().any(|o| o["0:A"] == 0 && o["1:A"] == 0);
            assert_eq!(both_missed, *sometimes, "walker {walker}, updater {updater}");
        }
    }
}

/// The table of AArch64 verdicts for the same, walker by updater. Rows: none, DMB ISHLD, DMB ISHST, DMB ISH, SWP, SWPA,
/// SWPL, SWPAL. Columns: none, DMB ISH, DMB ISHLD, DMB ISHST; then an entry that is cleared by SWP, SWPA, SWPL, SWPAL.
#[test]
fn verdicts_of_walker_and_updater_on_aarch64() {
    const NEVER: [&str; 8] =
        ["........", "........", "........", ".N.....N", "........", "........", "........", ".N.....N"];
    let barrier = |kind: &str| if kind.starts_with("DMB") { format!("{kind}\n") } else { String::new() };
    let store = |kind: &str| match kind {
        "" | "DMB ISH" | "DMB ISHLD" | "DMB ISHST" => "STR W0,[X1]\n".to_owned(),
        exchange => format!("{exchange} W0,W4,[X1]\n"),
    };
    let side = |kind: &str| format!("MOV W0,#1\n{}{}LDR W2,[X3]", store(kind), barrier(kind));
    let walkers = ["", "DMB ISHLD", "DMB ISHST", "DMB ISH", "SWP", "SWPA", "SWPL", "SWPAL"];
    let updaters = ["", "DMB ISH", "DMB ISHLD", "DMB ISHST", "SWP", "SWPA", "SWPL", "SWPAL"];
    for (walker, row) in walkers.into_iter().zip(NEVER) {
        for (updater, verdict) in updaters.into_iter().zip(row.chars()) {
            let sides = [side(walker), side(updater)];
            let [mut mine, mut theirs] = sides.each_ref().map(|side| side.lines());
            let mut code = String::from("P0 | P1 ;\n");
            loop {
                match (mine.next(), theirs.next()) {
                    (None, None) => break,
                    (a, b) => code += &format!("{} | {} ;\n", a.unwrap_or_default(), b.unwrap_or_default()),
                }
            }
            let text = format!(
                "AArch64 table\n\"\"\n{{\n0:X1=x; 0:X3=y;\n1:X1=y; 1:X3=x;\n}}\n{code}exists (0:X2=0 /\\ 1:X2=0)\n"
            );
            let happens = arm::parse(&text).unwrap_or_else(|e| panic!("{e}:\n{text}")).happens();
            assert_eq!(!happens, verdict == 'N', "walker {walker}, updater {updater}");
        }
    }
}

/// Stores are seen in order, loads are made in order: the explorer finds no more than the machine may do.
#[test]
fn what_x86_forbids_is_not_found() {
    let store = |v: &str, n| Op::Store(v.to_string(), n);
    let load = |r: &str, v: &str| Op::Load(r.to_string(), v.to_string());
    let passing = [vec![store("x", 1), store("y", 1)], vec![load("A", "y"), load("B", "x")]];
    assert!(!outcomes(&Default::default(), &passing).iter().any(|o| o["1:A"] == 1 && o["1:B"] == 0));
    let buffering = [vec![load("A", "x"), store("y", 1)], vec![load("A", "y"), store("x", 1)]];
    assert!(!outcomes(&Default::default(), &buffering).iter().any(|o| o["0:A"] == 1 && o["1:A"] == 1));
    let own = [vec![store("x", 1), load("A", "x")], vec![store("x", 2)]];
    assert!(!outcomes(&Default::default(), &own).iter().any(|o| o["0:A"] == 0));
    let seen: BTreeSet<i64> = outcomes(&Default::default(), &own).iter().map(|o| o["0:A"]).collect();
    assert_eq!(seen, BTreeSet::from([1, 2]));
}
