//! Files, plans, folders and verdicts, without a guest.

use std::path::PathBuf;

use serde_json::json;

use super::file::{Experiment, parse};
use super::folder::{Folder, Manifest, Summary};
use super::plan::{self, Unit, Work, units};
use super::{all_files, judge, model, read};
use crate::arch::Arch;
use crate::build::Kind;
use crate::records::{self, Record, text};

const SMALL: &str = "claim = \"c\"\nstrategies = \"none\"\nworkloads = \"collapse_anon\"\nmodes = \"same\"\n";

fn experiment(more: &str) -> Experiment {
    parse(&format!("{SMALL}{more}")).unwrap().unwrap()
}

fn mistakes(text: &str) -> Vec<String> {
    let found = parse(text).unwrap().err().unwrap_or_default();
    found.into_iter().map(|m| format!("{}:{} {}", m.line, m.column, m.sentence)).collect()
}

#[test]
fn the_experiments_of_the_repository_are_right() {
    let files = all_files().unwrap();
    assert!(files.len() > 8, "{files:?}");
    for file in files {
        let (path, _, experiment) = read(file).unwrap();
        assert!(experiment.claim.ends_with('.'), "{}: a claim is a sentence", path.display());
        let cells: u64 = units(&experiment).iter().map(|u| u.cells() as u64 * experiment.ops).sum();
        assert!(cells < 30_000, "{}: {cells} operations take long", path.display());
    }
}

#[test]
fn every_mistake_is_told_with_its_place() {
    let text = "claim = \"c\"\nstrategy = \"none\"\nworkloads = [\"collapse_anon\", \"colapse\"]\ncpus = [2, 500]\n\
                seeds = \"9..1\"\nmodes = 3\n[[expected]]\nverdict = \"saef\"\n";
    assert_eq!(
        mistakes(text),
        [
            "1:1 the key \"strategies\" is missing, like strategies = [\"none\", \"sync-all\"]",
            "2:1 there is no key \"strategy\"; did you mean \"strategies\"?",
            "3:31 there is no workload \"colapse\"; did you mean \"collapse_anon\"?",
            "4:12 a number from 1 to 255 belongs here",
            "5:9 there is no seed from 9 to 1",
            "6:9 the name of a mode belongs here, in quotes",
            "8:11 there is no verdict \"saef\"; did you mean \"safe\"?",
        ]
    );
    let nowhere = mistakes(&format!("{SMALL}[[expected]]\nstrategies = \"rcu\"\nverdict = \"safe\"\n"));
    assert_eq!(nowhere, ["5:1 this is about no row of the experiment"]);
    assert_eq!(mistakes(&format!("{SMALL}cpus = []\n")).len(), 1);
}

#[test]
fn the_product_is_run_and_nothing_twice() {
    let e = experiment(
        "architectures = \"all\"\ncpus = [2, 4]\ntransports = [\"native\", \"ipi\"]\nseeds = [\"1..2\", 9]\nrepetitions = 2\n",
    );
    let all = units(&e);
    // On x86_64 native is ipi.
    assert_eq!(all.len(), 2 * 3 * 2 + 2 * 2 * 3 * 2);
    let mut names: Vec<&str> = all.iter().map(|u| u.name.as_str()).collect();
    assert_eq!(names[0], "00001-x86_64-ipi-none-gup-icount-hook-auto-cpus-2-seed-1-repetition-1");
    names.dedup();
    assert_eq!(names.len(), all.len());
    assert_eq!(plan::cells(&e).len(), all.len() / 2);
}

#[test]
fn programs_do_what_the_kernel_does_and_their_own_once() {
    let file = SMALL.replace("\"collapse_anon\"", "[\"collapse_anon\", \"db_exit\"]");
    let more = "architectures = \"x86_64\"\nmodes = [\"same\", \"other\"]\nby = [\"kernel\", \"programs\"]\n\
                [[expected]]\nby = \"programs\"\nsync_ipis_per_op = \"kernel\"\n";
    let file = file.replace("modes = \"same\"\n", "") + more;
    let e = parse(&file).unwrap().unwrap();
    let all = units(&e);
    let guests: Vec<_> = all.iter().filter_map(Unit::guest).collect();
    assert_eq!(guests[0].suite.workloads, ["collapse_anon", "db_exit"]);
    assert_eq!((guests[1].suite.workloads.as_slice(), guests[1].suite.user), (&["collapse_anon"][..], true));
    assert_eq!(all[1].name, "00002-x86_64-ipi-none-gup-icount-programs-hook-auto-cpus-4-seed-1-repetition-1");
    // Both are handed the programs, the first for those that are a workload.
    assert!(guests.iter().all(|g| g.launch(Kind::Checking, "q".into()).module.is_some()));
    let of_programs = plan::cells(&e).into_iter().filter(|cell| records::text(cell, "by") == "programs");
    let cells: Vec<String> =
        of_programs.map(|cell| records::text(&cell, "workload") + " " + &records::text(&cell, "mode")).collect();
    assert_eq!(cells, ["db_exit contend", "collapse_anon same", "collapse_anon other"]);
    // The name of nobody, and what programs cannot do, with their places.
    assert_eq!(
        mistakes(&format!("{SMALL}by = [\"kernel\", \"program\"]\n")),
        ["5:17 there is no doer \"program\"; did you mean \"programs\"?"]
    );
    assert_eq!(
        mistakes(&format!("{SMALL}by = \"programs\"\nwalkers = [\"gup\", \"nmi\"]\n")),
        ["6:11 programs have the kernel walk as gup does; leave the others, or \"programs\", out"]
    );
    // All is what the kernel can do as well.
    let everything = parse(&SMALL.replace("\"collapse_anon\"", "\"all\"")).unwrap().unwrap();
    assert!(!everything.workloads.contains(&"db_exit"));
}

#[test]
fn instructions_are_counted_once_and_cores_are_counted_right() {
    let e = experiment("architectures = \"aarch64\"\nengines = \"all\"\nseeds = \"1..3\"\ninstructions = true\n");
    let all = units(&e);
    let guests: Vec<_> = all.iter().filter_map(Unit::guest).collect();
    let kinds: Vec<usize> = guests.iter().map(|g| g.kinds().len()).collect();
    assert_eq!(kinds, [2, 1, 1, 1, 1, 1]);
    assert_eq!((all[0].threads(), all[5].threads()), (1, 4));
    assert!(guests[0].launch(Kind::Plain, "q".into()).command_line.contains("modes=idle"));
    assert_eq!(guests[0].arch, Arch::Aarch64);
}

/// In the only mode that the model has a verdict for.
fn judged(more: &str) -> String {
    SMALL.replace("modes = \"same\"", "modes = \"contend\"") + more
}

#[test]
fn the_model_is_an_engine_with_the_cells_that_it_has() {
    let text = judged(
        "engines = \"sim\"\narchitectures = \"all\"\ntransports = [\"native\", \"ipi\", \"mixed\"]\nseeds = \"1..9\"\n",
    )
    .replace("\"none\"", "[\"none\", \"self-map\"]")
    .replace(
        "\"collapse_anon\"",
        "[\"collapse_anon\", \"munmap_2m\", \"unshare_munmap_last\", \"unshare_mprotect_last\"]",
    );
    let e = parse(&text).unwrap().unwrap();
    let all = units(&e);
    // A seed is nothing to it, and x86_64's own transport is named twice.
    let names: Vec<&str> = all.iter().map(|u| u.name.as_str()).collect();
    let expected = [
        "00001-model-ipi-none-gup-sim",
        "00002-model-ipi-self-map-gup-sim",
        "00003-model-broadcast-none-gup-sim",
        "00004-model-broadcast-self-map-gup-sim",
        "00005-model-mixed-none-gup-sim",
        "00006-model-mixed-self-map-gup-sim",
    ];
    assert_eq!(names, expected);
    assert!(all.iter().all(|u| u.guest().is_none() && u.cells() == 3));
    let Work::Model(work) = &all[2].work else { panic!("{:?} is no work of the model", all[2]) };
    // Two workloads are one operation of the model.
    assert!(work.options().join(" ").contains("--transport broadcast --walker gup --operation collapse,unshare-last "));
    assert_eq!(plan::cells(&e).len(), 18);
    let left_out = model::left_out(&e).unwrap();
    assert_eq!(left_out, "Engine sim has no rows of workloads munmap_2m.");
    assert_eq!(model::left_out(&experiment("")), None);
}

#[test]
fn what_the_model_cannot_be_asked_is_a_mistake_with_its_place() {
    let sim = "engines = [\"icount\", \"sim\"]\n";
    let told = |text: &str| mistakes(text).concat();
    let without = told(&judged(&format!("{sim}without = \"WalkIrqOff\"\n")));
    assert!(
        without.starts_with("5:22 engine sim has no row of this experiment: the model has every guard"),
        "{without}"
    );
    assert!(told(&format!("{SMALL}{sim}")).ends_with("its verdicts are those of mode contend"));
    let workload = told(&judged(sim).replace("collapse_anon", "munmap_4k"));
    assert!(
        workload.contains("the model has no workload of these, but collapse_anon, unshare_munmap_last"),
        "{workload}"
    );
    // It has every strategy and every class of walkers.
    assert_eq!(told(&judged(sim).replace("\"none\"", "\"self-map\"")), "");
    assert_eq!(told(&judged(&format!("{sim}walkers = \"two-word\"\n"))), "");
    assert!(told(&judged(&format!("{sim}hooks = \"true\"\n"))).contains("(auto)"));
    // Who asks for every engine asks for those that there are.
    assert_eq!(told(&format!("{SMALL}engines = \"all\"\n")), "");
    assert_eq!(told(&judged("engines = [\"icont\"]\n")), "5:12 there is no engine \"icont\"; did you mean \"icount\"?");
}

#[test]
fn a_count_is_not_asked_of_an_engine_that_does_not_count() {
    let e = parse(&judged("engines = \"sim\"\n[[expected]]\nsync_ipis_per_op = 0\nverdict = \"unsafe\"\n"))
        .unwrap()
        .unwrap();
    let rows = |engine: &str, verdict: &str| {
        vec![row(&format!(
            r#"{{"engine":"{engine}","sync_ipis_per_op":null,"verdict":"{verdict}","expected":"{verdict}"}}"#
        ))]
    };
    assert_eq!(judge::judge(&mut rows("sim", "unsafe"), &e), 0);
    let mut counted = rows("icount", "unsafe");
    assert_eq!(judge::judge(&mut counted, &e), 1);
    assert_eq!(text(&counted[0], "problem"), "sync_ipis_per_op is not counted, not 0 (line 6)");
    let mut safe = rows("sim", "safe");
    assert_eq!(judge::judge(&mut safe, &e), 1);
    assert_eq!(text(&safe[0], "problem"), "verdict is safe, not unsafe (line 6)");
}

fn row(text: &str) -> Record {
    serde_json::from_str(text).unwrap()
}

#[test]
fn a_row_is_judged_by_what_it_promises_unless_the_file_says_otherwise() {
    let rows = || {
        vec![
            row(r#"{"workload":"collapse_anon","expected":"safe","verdict":"unsafe","miscounted":false}"#),
            row(r#"{"workload":"munmap_2m","expected":"safe","verdict":"safe","miscounted":true,
                    "sync_ipis_per_op":2.0,"predicted_sync_ipis_per_op":3.0}"#),
        ]
    };
    let mut plain = rows();
    assert_eq!(judge::judge(&mut plain, &experiment("")), 2);
    assert_eq!(text(&plain[0], "problem"), "unsafe, expected safe");
    assert_eq!(text(&plain[1], "problem"), "sync_ipis 2, predicted 3");
    let mut other = rows();
    let e = experiment("[[expected]]\nworkloads = \"collapse_anon\"\nverdict = \"unsafe\"\n");
    assert_eq!(judge::judge(&mut other, &e), 1);
    assert_eq!(other[0]["as_expected"], json!(true));
    // A second judgement does not add to the first.
    assert_eq!(judge::judge(&mut other, &experiment("")), 2);
}

#[test]
fn a_control_that_no_seed_shows_is_not_as_expected() {
    let rows = |verdicts: [&str; 2]| -> Vec<Record> {
        let line = |(seed, v)| row(&format!(r#"{{"seed":{seed},"expected":"unsafe","verdict":"{v}"}}"#));
        verdicts.into_iter().enumerate().map(line).collect()
    };
    assert_eq!(judge::judge(&mut rows(["void", "unsafe"]), &experiment("")), 0);
    assert_eq!(judge::judge(&mut rows(["void", "void"]), &experiment("")), 2);
    assert_eq!(judge::judge(&mut rows(["safe", "unsafe"]), &experiment("")), 1);
}

#[test]
fn repetitions_that_differ_are_found_on_a_deterministic_engine_only() {
    let rows = |engine: &str| {
        let line = |n: u32, syncs: u32| {
            row(&format!(
                r#"{{"engine":"{engine}","seed":1,"repetition":{n},"sync_ipis_per_op":{syncs},"verdict":"safe","expected":"safe"}}"#
            ))
        };
        vec![line(1, 3), line(2, 3), line(3, 4)]
    };
    let mut differ = rows("icount");
    assert_eq!(judge::judge(&mut differ, &experiment("")), 1);
    assert_eq!(text(&differ[2], "problem"), "repetition 3 is another run than the first: sync_ipis_per_op");
    assert_eq!(judge::judge(&mut rows("mttcg"), &experiment("")), 0);
}

struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Scratch {
        let path = std::env::temp_dir().join(format!("xtask-experiment-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        Scratch(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn manifest(fingerprint: &str, image: &str) -> Manifest {
    Manifest {
        schema: 1,
        experiment: "e".into(),
        claim: "c".into(),
        guests: 1,
        cells: 1,
        revision: "abc".into(),
        fingerprint: fingerprint.into(),
        images: [("x86_64 checking".to_owned(), json!(image))].into_iter().collect(),
        tools: Record::new(),
        begun: 0,
    }
}

#[test]
fn a_second_call_goes_on_with_what_is_missing() {
    let scratch = Scratch::new("resume");
    let all = units(&experiment("architectures = \"x86_64\"\nseeds = \"1..2\"\n"));
    let folder = Folder::take(&scratch.0, &manifest("f", "i"), "text", false).unwrap();
    folder.keep(&all[1], &[row(r#"{"seed":2}"#)]).unwrap();
    // A part that was being written when the power went does not count.
    std::fs::write(scratch.0.join(format!("parts/{}.new", all[0].name)), "{\"se").unwrap();
    drop(folder);
    let folder = Folder::take(&scratch.0, &manifest("f", "i"), "text", false).unwrap();
    assert_eq!((folder.has(&all[0]), folder.has(&all[1])), (false, true));
    assert!(folder.finished().unwrap().is_none());
    folder.keep(&all[0], &[row(r#"{"seed":1}"#)]).unwrap();
    let rows = folder.gather(&all).unwrap();
    assert_eq!(rows, [row(r#"{"seed":1}"#), row(r#"{"seed":2}"#)]);
    folder.finish(&rows, &Summary { schema: 1, summary: true, rows: 2, unexpected: 0 }).unwrap();
    assert_eq!(folder.finished().unwrap().unwrap(), rows);
    assert!(!scratch.0.join("parts").exists() || std::fs::read_dir(scratch.0.join("parts")).unwrap().next().is_none());
}

#[test]
fn rows_of_another_experiment_or_kernel_are_kept_apart() {
    let scratch = Scratch::new("apart");
    drop(Folder::take(&scratch.0, &manifest("f", "i"), "text", false).unwrap());
    let refused = |m: &Manifest| Folder::take(&scratch.0, m, "text", false).err().unwrap().to_string();
    assert!(refused(&manifest("g", "i")).contains("rows of another experiment (revision abc); --fresh"));
    assert!(refused(&manifest("g", "j")).contains("rows of another kernel"));
    std::fs::write(scratch.0.join("rows.jsonl"), "{}\n").unwrap();
    let fresh = Folder::take(&scratch.0, &manifest("g", "j"), "text", true).unwrap();
    assert!(!scratch.0.join("rows.jsonl").exists());
    let second = Folder::take(&scratch.0, &manifest("g", "j"), "text", false).err().unwrap().to_string();
    assert!(second.contains("another runner"), "{second}");
    drop(fresh);
}

#[test]
fn a_folder_with_other_files_is_left_alone() {
    let scratch = Scratch::new("other");
    std::fs::create_dir_all(&scratch.0).unwrap();
    std::fs::write(scratch.0.join("thesis.tex"), "").unwrap();
    let error = Folder::take(&scratch.0, &manifest("f", "i"), "text", true).err().unwrap().to_string();
    assert!(error.contains("other files"), "{error}");
    assert_eq!(std::fs::read_dir(&scratch.0).unwrap().count(), 1);
}
