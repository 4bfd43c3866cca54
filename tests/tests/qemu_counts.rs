//! What the kernel in QEMU counts: interrupts and invalidations per operation. `cargo xtask test` runs these.

mod runner;

use runner::{row, rows, scratch, xtask};
use serde_json::Value;

/// Asserts the counts per operation of one row.
#[track_caller]
fn counts(row: &Value, flush: f64, sync: f64, elided: f64) {
    let of = |key: &str| row[key].as_f64().unwrap_or(f64::NAN);
    assert_eq!(
        (of("flush_ipis_per_op"), of("sync_ipis_per_op"), of("syncs_elided_per_op")),
        (flush, sync, elided),
        "{row}"
    );
}

const SYNCING: &str = "--strategy sync-all,static-hook --ops 16 --mode same,other \
                       --workload munmap_4k,collapse_anon,unshare_munmap_last,unshare_munmap_3way,unshare_exit";

/// A CPU that spins outside every mm is interrupted once in each round of a strategy that interrupts everybody, and is
/// kept from its loop for longer then; by one that looks who can walk, never.
#[track_caller]
fn bystanders_are_told_apart(arch: &str, everybody: &str, nobody: &str) {
    let suite = "--mode isolated --workload collapse_anon --ops 8";
    let rows = rows(
        &format!("{arch}-isolated"),
        &format!("--arch {arch} {suite} --strategy {everybody},{nobody} --transport broadcast"),
    );
    let of = |strategy: &str, key: &str| {
        let row = row(&rows, strategy, "collapse_anon", "isolated");
        row[key].as_f64().unwrap_or_else(|| panic!("no {key} in {row}"))
    };
    for (strategy, taken) in everybody.split(',').map(|s| (s, 1.0)).chain(nobody.split(',').map(|s| (s, 0.0))) {
        assert_eq!(of(strategy, "bystander_sync_ipis_per_op"), taken, "{strategy}");
        assert_eq!(of(strategy, "predicted_bystander_sync_ipis_per_op"), taken, "{strategy}");
        assert_eq!(of(strategy, "bystander_flush_ipis_per_op"), 0.0, "{strategy}");
        assert_eq!(of(strategy, "bystander_nmis_per_op"), 0.0, "{strategy}");
    }
    let (loops, taken) = (of("coverage", "bystander_longest_gap"), of("sync-all", "bystander_longest_gap"));
    assert!(0.0 < loops && loops < 16.0, "its loop alone takes {loops} instructions");
    assert!(taken > loops + 32.0, "an interrupt takes {taken} instructions, the loop {loops}");
}

/// On `mixed` the first flush of an mm that is on many CPUs interrupts, the second does both, the others are
/// broadcasts; a collapse's second flush is not among its operations. `broadcast` is what one of these takes on all
/// CPUs together.
#[track_caller]
fn promotion_is_counted(arch: &str, broadcast: f64) {
    let words = "--strategy gather-flag --mode same,lazy --ops 8 --workload munmap_2m,collapse_anon,unshare_chain";
    let rows = rows(&format!("{arch}-mixed"), &format!("--arch {arch} --transport mixed {words}"));
    let tlbi = |workload, mode| row(&rows, "gather-flag", workload, mode)["tlbi_per_op"].as_f64().map(|n| n * 8.0);
    let of = |workload| row(&rows, "gather-flag", workload, "same");
    counts(of("munmap_2m"), 2.0 * 3.0 / 8.0, 0.0, 0.0);
    assert_eq!(tlbi("munmap_2m", "same"), Some(2.0 * 4.0 + 7.0 * broadcast));
    // Where the flush interrupted nobody, the sync interrupts everybody.
    counts(of("collapse_anon"), 3.0 / 8.0, 7.0 * 3.0 / 8.0, 1.0 / 8.0);
    assert_eq!(tlbi("collapse_anon", "same"), Some(4.0 + 7.0 * broadcast));
    counts(of("unshare_chain"), 2.0 * 3.0 / 8.0, 3.0, 0.0);
    // Lazy CPUs unload the mm, which so is on one CPU and never promoted.
    counts(row(&rows, "gather-flag", "collapse_anon", "lazy"), 3.0, 0.0, 1.0);
}

/// What was recorded of each cell agrees with what the ledger counted, which is another count: a duration for each
/// operation, one handler for each interrupt, and the interrupts themselves by CPU.
#[track_caller]
fn profiles_agree_with_the_ledger(arch: &str) {
    let words =
        format!("--arch {arch} --strategy sync-all,coverage --workload collapse_anon --mode same,isolated --ops 8");
    let rows = rows(&format!("{arch}-profile"), &format!("{words} --profile"));
    let sum = |list: &Value| list.as_array().expect("a list").iter().filter_map(Value::as_u64).sum::<u64>();
    let durations = |row: &Value, role: &str| -> u64 {
        row["profile"][role].as_array().expect("a list").iter().filter_map(|pair| pair[1].as_u64()).sum()
    };
    for row in &rows {
        let counted = |key: &str| (row[key].as_f64().unwrap_or(f64::NAN) * 8.0) as u64;
        let lines = row["profile"]["interrupted"].as_array().expect("a line for each CPU");
        let of = |reason: &str| lines.iter().map(|line| sum(&line[reason])).sum::<u64>();
        assert_eq!(lines.len(), 4);
        assert_eq!((of("flush"), of("sync")), (counted("flush_ipis_per_op"), counted("sync_ipis_per_op")), "{row}");
        assert_eq!((sum(&lines[0]["sync"]), sum(&lines[0]["flush"])), (0, 0), "CPU 0 operates");
        if row["mode"] == "isolated" {
            assert_eq!(sum(&lines[3]["sync"]), counted("bystander_sync_ipis_per_op"), "{row}");
        }
        assert_eq!(durations(row, "initiator"), 8);
        assert_eq!(durations(row, "responder"), of("flush") + of("sync"), "each is served by a handler of its own");
        let walks = row["walks"].as_u64().unwrap_or(0);
        assert!((1..=walks).contains(&durations(row, "walker")), "{row}");
        let (ends, longest) = (&row["profile"]["ends"], row["initiator_ticks_longest"].as_u64());
        let ends: Vec<u64> = ends.as_array().expect("a list").iter().filter_map(Value::as_u64).collect();
        assert!(ends.len() == 8 && ends.is_sorted() && ends.last().copied() > longest, "{row}");
    }
    let (all, covered) =
        (row(&rows, "sync-all", "collapse_anon", "isolated"), row(&rows, "coverage", "collapse_anon", "isolated"));
    let of_bystander = |row: &Value| sum(&row["profile"]["interrupted"][3]["sync"]);
    assert_eq!((of_bystander(all), of_bystander(covered)), (8, 0));
}

/// Invalidations of mode `contend` are those of their form in what was noted, also where others flush meanwhile and
/// where CPUs are frozen; and a CPU that does not make good what it owes when it resumes is missed.
#[track_caller]
fn invalidations_are_counted_in_contend(arch: &str) {
    let contend = format!("--arch {arch} --strategy sync-all --mode contend --ops 16");
    let of = |row: &Value, key: &str| row[key].as_f64().unwrap_or_else(|| panic!("no {key} in {row}"));
    let agree = |row: &Value| of(row, "tlbi_per_op") == of(row, "predicted_tlbi_per_op");
    let all = rows(
        &format!("{arch}-contend-tlbi"),
        &format!("{contend} --transport all --workload dontneed_2m,dontneed_4k,collapse_anon"),
    );
    assert_eq!(all.len(), 12);
    assert!(all.iter().all(agree), "{all:?}");
    let nested = format!("{contend} --transport paravirt --workload collapse_anon,unshare_chain --walker nmi --ops 32");
    let nested = rows(&format!("{arch}-contend-nested"), &nested.replace(" --ops 16", ""));
    assert!(nested.iter().all(agree), "{nested:?}");
    let frozen = format!("{contend} --transport paravirt --workload collapse_anon --without FlushOnResume");
    let path = scratch(&format!("{arch}-contend-owed.json"));
    assert_eq!(xtask(&format!("run {frozen} --json {}", path.display())).status.code(), Some(1), "{frozen}");
    let file = std::fs::read_to_string(path).expect("the results are there");
    let missed: Value = serde_json::from_str(file.lines().next().expect("a row")).expect("each line is JSON");
    assert!(of(&missed, "tlbi_per_op") < of(&missed, "predicted_tlbi_per_op"), "{missed}");
}

mod x86_64 {
    use super::*;

    #[test]
    #[ignore = "boots QEMU"]
    fn invalidations_are_counted_exactly_in_contend() {
        invalidations_are_counted_in_contend("x86_64");
    }

    #[test]
    #[ignore = "boots QEMU"]
    fn what_is_recorded_agrees_with_the_ledger() {
        profiles_agree_with_the_ledger("x86_64");
    }

    #[test]
    #[ignore = "boots QEMU"]
    fn interrupts_are_counted_exactly() {
        let rows = rows("x86_64-counts", &format!("--arch x86_64 {SYNCING}"));
        for (workload, flush, sync) in [
            ("munmap_4k", 3.0, 0.0),
            ("collapse_anon", 3.0, 3.0),
            ("unshare_munmap_last", 3.375, 3.0),
            ("unshare_munmap_3way", 3.375, 0.0),
            ("unshare_exit", 0.0, 3.0),
        ] {
            let elided = if sync > 0.0 { 1.0 } else { 0.0 };
            counts(row(&rows, "sync-all", workload, "same"), flush, sync, 0.0);
            counts(row(&rows, "static-hook", workload, "same"), flush, 0.0, elided);
            counts(row(&rows, "sync-all", workload, "other"), 0.0, sync, 0.0);
            counts(row(&rows, "static-hook", workload, "other"), 0.0, 0.0, elided);
        }
        assert!(rows.iter().all(|r| r["instructions_per_op"].as_f64().is_some_and(|n| n > 0.0)));
    }

    #[test]
    #[ignore = "boots QEMU"]
    fn promotion_is_counted_exactly() {
        promotion_is_counted("x86_64", 4.0);
    }

    #[test]
    #[ignore = "boots QEMU"]
    fn bystanders_are_interrupted_by_those_who_interrupt_everybody() {
        bystanders_are_told_apart("x86_64", "sync-all,static-hook", "coverage,targeted");
    }
}

mod aarch64 {
    use super::*;

    #[test]
    #[ignore = "boots QEMU"]
    fn invalidations_are_counted_exactly_in_contend() {
        invalidations_are_counted_in_contend("aarch64");
    }

    #[test]
    #[ignore = "boots QEMU"]
    fn what_is_recorded_agrees_with_the_ledger() {
        profiles_agree_with_the_ledger("aarch64");
    }

    #[test]
    #[ignore = "boots QEMU"]
    fn interrupts_are_counted_exactly() {
        let rows = rows("aarch64-counts", &format!("--arch aarch64 {SYNCING}"));
        for (workload, sync) in [
            ("munmap_4k", 0.0),
            ("collapse_anon", 3.0),
            ("unshare_munmap_last", 3.0),
            ("unshare_munmap_3way", 0.0),
            ("unshare_exit", 3.0),
        ] {
            for strategy in ["sync-all", "static-hook"] {
                counts(row(&rows, strategy, workload, "same"), 0.0, sync, 0.0);
            }
        }
        assert!(rows.iter().all(|r| r["tlbi_per_op"].as_f64().is_some_and(|n| n > 0.0)));
    }

    #[test]
    #[ignore = "boots QEMU"]
    fn promotion_is_counted_exactly() {
        promotion_is_counted("aarch64", 1.0);
    }

    #[test]
    #[ignore = "boots QEMU"]
    fn bystanders_are_interrupted_by_those_who_interrupt_everybody() {
        bystanders_are_told_apart("aarch64", "sync-all,static-hook", "coverage,targeted");
    }
}
