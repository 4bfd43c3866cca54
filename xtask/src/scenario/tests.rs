//! Good files, bad files, and all files of `scenarios/`.

use kernel::guard::{Guard, ShownBy};
use kernel::record::cell::{CellRow, Verdict};
use kernel::record::shared::Doing;
use kernel::record::step::{StepOutcome, StepRecord};
use kernel::scenario::Point;
use kernel::scenario::script::{Goal, Script};

use super::cells::{self, Cell, Wish};
use super::parse::{Scenario, Shown, parse};
use super::report::{self, Found, Played};
use super::{files, name_of, read};
use crate::arch::Arch;
use crate::rows::Row;
use crate::rows::tests::cell;
use crate::suite::Hook;
use crate::table::tests::bare;
use kernel::suite::Mode;

const GOOD: &str = "\
# A walk holds the table.
#
# More of the story.
workload: collapse_anon
actors: U W W2
guards: -PmdRecheck -PteRecheck
inject: batch:3
before: 2
pages: 4
page: 7
engine: qemu
steps:
  W until after_pmd_read
  # in between
  W2 freeze
  U to completion
  W on
  W2 on
expect unsafe: transport=broadcast strategy=none,static-hook(hook=true)
expect safe: arch=aarch64 transport=ipi strategy=none
expect safe: guards=kept transport=broadcast strategy=none
";

fn good() -> Scenario {
    parse("good", GOOD).unwrap_or_else(|m| panic!("{m:?}"))
}

/// The line, column and sentence of the mistake in `text`.
#[track_caller]
fn mistake(text: &str) -> (usize, usize, String) {
    match parse("bad", text).and_then(|s| cells::of(&s).map(|_| s)) {
        Err(m) => (m.line, m.column, m.sentence),
        Ok(scenario) => panic!("it was taken: {scenario:?}"),
    }
}

/// The mistake after `old` in the good file was replaced by `new`.
#[track_caller]
fn spoiled(old: &str, new: &str) -> (usize, usize, String) {
    assert_eq!(GOOD.matches(old).count(), 1, "\"{old}\" must be there once");
    mistake(&GOOD.replace(old, new))
}

#[test]
fn a_good_file_says_everything() {
    let scenario = good();
    assert_eq!(scenario.story, ["A walk holds the table.", "", "More of the story."]);
    assert_eq!((scenario.shown.clone(), scenario.workload), (Shown::Qemu, "collapse_anon"));
    assert_eq!(scenario.without, ["PmdRecheck", "PteRecheck"]);
    assert_eq!(scenario.steps, ["W until after_pmd_read", "W2 freeze", "U to completion", "W on", "W2 on"]);
    let goals: Vec<Goal> = scenario.script.steps.iter().map(|s| s.goal).collect();
    assert_eq!(goals[..3], [Goal::Until(Point::AfterPmdRead), Goal::Freeze, Goal::Completion]);
    assert_eq!(scenario.script.to_string(), "U+W+W2/W@after_pmd_read,W2!,U,W,W2/before:2/pages:4/page:7");
}

#[test]
fn the_word_of_the_command_line_is_read_back() {
    let script = good().script;
    assert_eq!(Script::parse(&script.to_string()), Ok(script));
    for bad in ["", "W/W", "U+W+W/U", "U+X/U", "U/W", "U/U@nowhere", "U/U/fast:1", "U/U/pages:9", "U/U/before:x"] {
        assert!(Script::parse(bad).is_err(), "{bad}");
    }
    let long = format!("U/{}", vec!["U"; 25].join(","));
    assert!(Script::parse(&long).is_err());
}

#[test]
fn each_line_of_a_guest_is_told_to_the_kernel() {
    let scenario = good();
    let guests = cells::by_guest(cells::of(&scenario).unwrap_or_default());
    let lines: Vec<String> = guests.iter().map(|g| cells::command_line(&scenario, g)).collect();
    let word = "scenario=U+W+W2/W@after_pmd_read,W2!,U,W,W2/before:2/pages:4/page:7";
    let expected = format!(
        "strategies=none transport=broadcast workloads=collapse_anon {word} hook=auto engine=icount \
         inject=batch:3,trylock:0 guards=30"
    );
    assert!(lines.contains(&expected), "{lines:#?}");
    assert!(lines.contains(&expected.replace("none", "static-hook").replace("auto", "true")), "{lines:#?}");
    // With all guards.
    assert!(lines.contains(&expected.replace(" guards=30", "")), "{lines:#?}");
    assert!(lines.iter().any(|l| l.starts_with("strategies=none transport=ipi") && l.ends_with("guards=30")));
}

#[test]
fn cells_are_the_product_and_otherwise_is_the_rest() {
    let text = GOOD.replace("expect safe: guards=kept transport=broadcast strategy=none\n", "expect safe: otherwise\n");
    let all = cells::of(&parse("good", &text).unwrap_or_else(|m| panic!("{m:?}"))).unwrap_or_default();
    let strategies = kernel::sync::NAMES.len();
    // Every strategy on every transport of both, and the hook's two.
    assert_eq!(all.len(), 2 * 4 * strategies + 2);
    let expected = |arch, transport, strategy, hook| {
        let found =
            |c: &&Cell| (c.arch, c.transport, c.chosen.strategy, c.chosen.hook) == (arch, transport, strategy, hook);
        all.iter().find(found).and_then(|c| c.expected)
    };
    assert_eq!(expected(Arch::X86_64, "broadcast", "none", Hook::Auto), Some(Verdict::Unsafe));
    assert_eq!(expected(Arch::X86_64, "broadcast", "static-hook", Hook::True), Some(Verdict::Unsafe));
    assert_eq!(expected(Arch::X86_64, "broadcast", "static-hook", Hook::Auto), Some(Verdict::Safe));
    assert_eq!(expected(Arch::Aarch64, "ipi", "none", Hook::Auto), Some(Verdict::Safe));
}

#[test]
fn a_wish_narrows_and_adds() {
    let scenario = good();
    let wish = |transports: Option<Vec<&'static str>>, strategies: Option<Vec<&'static str>>| Wish {
        archs: vec![Arch::Aarch64],
        transports,
        strategies,
    };
    let of = |wish: &Wish| cells::wanted(&scenario, wish).unwrap_or_default();
    assert_eq!(of(&wish(None, None)).len(), 4);
    let only_ipi = of(&wish(Some(vec!["ipi"]), None));
    assert_eq!((only_ipi.len(), only_ipi[0].expected), (1, Some(Verdict::Safe)));
    let added = of(&wish(Some(vec!["mixed"]), Some(vec!["rcu"])));
    assert_eq!((added.len(), added[0].expected), (1, None));
}

#[test]
fn unknown_names_are_answered_with_line_column_and_the_nearest() {
    for (old, new, line, column, hint) in [
        ("after_pmd_read", "after_pmd_red", 13, 11, "after_pmd_read"),
        ("collapse_anon", "colapse_anon", 4, 11, "collapse_anon"),
        ("-PteRecheck", "-PteRececk", 6, 22, "PteRecheck"),
        ("batch:3", "bach:3", 7, 9, "batch"),
        ("engine: qemu", "engine: qumu", 11, 9, "qemu"),
        ("before: 2", "befor: 2", 8, 1, "before"),
        ("transport=ipi", "transport=ip", 20, 37, "ipi"),
        ("none,static-hook(", "none,static-hok(", 19, 50, "static-hook"),
        ("arch=aarch64", "arch=arch64", 20, 19, "aarch64"),
        ("guards=kept", "guards=kep", 21, 21, "kept"),
    ] {
        let (at, col, sentence) = spoiled(old, new);
        assert_eq!((at, col), (line, column), "{new}: {sentence}");
        assert!(sentence.contains(&format!("did you mean \"{hint}\"?")), "{new}: {sentence}");
    }
}

#[test]
fn other_mistakes_say_what_belongs_there() {
    for (old, new, line, column, words) in [
        ("actors: U W W2", "actors: W U", 5, 9, "U is the first actor"),
        ("actors: U W W2", "actors: U W W", 5, 13, "W is there already"),
        ("actors: U W W2", "actors: U X", 5, 11, "\"X\" is no actor"),
        ("W2 freeze", "W3 freeze", 15, 3, "not among the actors U, W, W2"),
        ("W2 freeze", "W2 fly", 15, 6, "\"until POINT\", \"to completion\", \"on\" or \"freeze\""),
        ("pages: 4", "pages: 9", 9, 8, "at most 8"),
        ("engine: qemu", "engine: sim", 11, 9, "why QEMU cannot show it"),
        ("engine: qemu", "engine: qemu (fast)", 11, 15, "needs no reason"),
        ("engine: qemu\n", "engine: qemu\nengine: qemu\n", 12, 1, "there already"),
        ("steps:\n", "steps: U\n", 12, 8, "lines of their own"),
        ("engine: qemu\n", "engine: qemu\nquickly\n", 12, 1, "\"key: value\""),
        ("-PteRecheck", "PteRecheck", 6, 21, "\"-PteRecheck\""),
        ("(hook=true)", "(hook=maybe)", 19, 62, "\"hook=true)\""),
        ("expect safe: arch=aarch64 transport=ipi strategy=none", "expect safe:", 20, 13, "which cells?"),
        ("arch=aarch64 transport=ipi", "transport=broadcast", 20, 1, "an earlier line expects something else"),
        ("expect safe: arch", "expect safe: otherwise arch", 20, 14, "all cells that other lines are not about"),
    ] {
        let (at, col, sentence) = spoiled(old, new);
        assert_eq!((at, col), (line, column), "{new}: {sentence}");
        assert!(sentence.contains(words), "{new}: {sentence}");
    }
}

#[test]
fn what_is_missing_is_named() {
    let without =
        |text: &str| GOOD.lines().filter(|l| !l.starts_with(text)).map(|l| format!("{l}\n")).collect::<String>();
    assert!(mistake(&without("engine")).2.contains("\"engine: qemu\""));
    assert!(mistake(&without("workload")).2.contains("\"workload: NAME\""));
    assert!(mistake(&without("expect")).2.contains("nothing is expected"));
    assert!(mistake(&without("#")).2.contains("the story is missing"));
    assert!(mistake(&without("  U")).2.contains("U has no step"));
    assert!(mistake(&without("actors")).2.contains("\"actors:\" must come before"));
}

#[test]
fn another_engine_needs_a_reason_and_no_steps() {
    let text = "# A story.\nworkload: collapse_anon\nengine: sim  (no caches here)\n";
    let scenario = parse("other", text).unwrap_or_else(|m| panic!("{m:?}"));
    assert_eq!(scenario.shown, Shown::Elsewhere("sim", "no caches here".into()));
    let text = bare(&report::one(&scenario, &[]));
    assert_eq!(text, "other: A story.\n  n/a (TCG), engine sim: no caches here\n");
}

#[test]
fn all_files_are_good_and_every_control_has_one() {
    let files = files().unwrap_or_default();
    let scripts: Vec<Scenario> = files.iter().map(|p| read(p).unwrap_or_else(|e| panic!("{e:#}"))).collect();
    for script in &scripts {
        if let Err(m) = cells::of(script) {
            panic!("{}: {m:?}", script.name);
        }
    }
    let names: Vec<String> = files.iter().map(|p| name_of(p)).collect();
    // The numbers of research/linux-mm.md, section 4, which has no 4, 6, 8, 29 and 32.
    for number in (1..=36).filter(|n| ![4, 6, 8, 29, 32].contains(n)) {
        assert!(names.iter().any(|n| n.starts_with(&format!("{number:02}-"))), "control {number} has no file");
    }
    // Both ways: what must fail in QEMU must also be safe somewhere.
    for script in scripts.iter().filter(|s| s.shown == Shown::Qemu) {
        let of = |verdict| script.expectations.iter().any(|e| e.verdict == verdict);
        assert!(!of(Verdict::Unsafe) || of(Verdict::Safe), "{} has no safe cell", script.name);
    }
}

#[test]
fn guards_for_scenarios_are_taken_away_by_one() {
    let files = files().unwrap_or_default();
    let scripts: Vec<Scenario> = files.iter().map(|p| read(p).unwrap_or_else(|e| panic!("{e:#}"))).collect();
    for ((name, _), by) in Guard::NAMES.iter().zip(Guard::SHOWN_BY) {
        if *by == ShownBy::Scenario {
            assert!(scripts.iter().any(|s| s.without.contains(name)), "no scenario takes {name} away");
        }
    }
}

fn played(verdict: Verdict, expected: Verdict) -> Played {
    let record = |outcome, doing: Doing| StepRecord { outcome, at: Some(2), doing: doing as u8, time: 9 }.pack();
    let mut row = CellRow { verdict: verdict as u8, ..cell(0, 6, Mode::Scripted) };
    row.steps[0] = record(StepOutcome::Reached, Doing::Idle);
    row.steps[2] = record(StepOutcome::Blocked, Doing::WaitSync);
    let chosen = super::parse::Chosen { strategy: "none", hook: Hook::Auto };
    let place =
        Cell { arch: Arch::Aarch64, transport: "ipi", chosen, kept: false, expected: Some(expected), counts: vec![] };
    let row = Row::resolve(Arch::Aarch64, row).unwrap_or_else(|e| panic!("{e:#}"));
    Played { cell: place, found: Found::Row(Box::new(row)) }
}

#[test]
fn the_report_says_what_became_of_each_step() {
    let text = bare(&report::one(&good(), &[played(Verdict::Safe, Verdict::Safe)]));
    assert!(text.contains("  safe, as expected:\n    aarch64 ipi: none\n"), "{text}");
    assert!(text.contains("       1  W until after_pmd_read  reached\n"), "{text}");
    assert!(
        text.contains("       3  U to completion         blocked: waits for a sync to be acknowledged (at"),
        "{text}"
    );
    let wrong = played(Verdict::Safe, Verdict::Unsafe);
    assert!(wrong.is_unexpected());
    assert!(bare(&report::one(&good(), &[wrong])).contains("safe, but UNSAFE was expected"));
}

#[test]
fn a_wrong_count_and_a_kernel_that_fell_are_unexpected() {
    let mut counted = played(Verdict::Safe, Verdict::Safe);
    counted.cell.counts = vec![("sync_ipis", 6)];
    assert!(counted.is_unexpected());
    assert!(bare(&report::one(&good(), &[counted])).contains("sync_ipis 0, expected 6"));
    let mut fell = played(Verdict::Unsafe, Verdict::Unsafe);
    fell.found = Found::Fell("the kernel panicked".into());
    assert!(fell.is_unexpected());
}

#[test]
fn a_cell_is_a_line_of_json() {
    let scenario = good();
    let wrong = played(Verdict::Safe, Verdict::Unsafe);
    let line = serde_json::to_value(super::record::played(&scenario, &wrong)).unwrap();
    assert_eq!((&line["arch"], &line["transport"]), (&"aarch64".into(), &"ipi".into()));
    assert_eq!((&line["verdict"], &line["expected"]), (&"safe".into(), &"unsafe".into()));
    assert_eq!(line["without"], scenario.without.join(" "));
    assert_eq!(line["problem"], "safe, but UNSAFE was expected");
    assert_eq!(line["steps"][0]["ended"], "reached");
    assert!(super::record::elsewhere(&scenario).is_none());
    let right = serde_json::to_value(super::record::played(&scenario, &played(Verdict::Safe, Verdict::Safe))).unwrap();
    assert!(right.get("problem").is_none());
    let text = "# A story.\nworkload: collapse_anon\nengine: sim  (no caches here)\n";
    let other = parse("other", text).unwrap_or_else(|m| panic!("{m:?}"));
    let line = serde_json::to_value(super::record::elsewhere(&other)).unwrap();
    assert_eq!(
        (&line["verdict"], &line["engine"], &line["reason"]),
        (&"na".into(), &"sim".into(), &"no caches here".into())
    );
}

#[test]
fn step_records_are_read_back() {
    for at in [None, Some(3)] {
        let record = StepRecord { outcome: StepOutcome::Blocked, at, doing: 5, time: 77 };
        assert_eq!(StepRecord::unpack(record.pack()), Some(record));
    }
    assert_eq!(StepRecord::unpack(0xff), None);
}
