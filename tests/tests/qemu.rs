//! The kernel in QEMU, through the runner, as a person runs it. `cargo xtask test` runs these, after it has built the
//! images; it leaves its own path in `XTASK`.

mod runner;

use std::process::Command;
use std::time::{Duration, Instant};

use runner::{row, rows, scratch, stderr, xtask};

/// The same seed gives the same bytes; another seed gives another schedule, which some count of walks shows.
#[track_caller]
fn is_reproducible(arch: &str) {
    let words = format!("run --arch {arch} --workload collapse_anon,munmap_4k --mode same,contend --ops 16");
    let (first, second) = (xtask(&format!("{words} --seed 5")), xtask(&format!("{words} --seed 5")));
    assert!(!first.stdout.is_empty(), "{}", stderr(&first));
    assert_eq!(String::from_utf8_lossy(&first.stdout), String::from_utf8_lossy(&second.stdout));
}

/// A guest without progress is reported and stopped; one that is killed, too; and no QEMU is left.
#[track_caller]
fn ends_are_told_apart(arch: &str) {
    let fake = |name: &str, script: &str| {
        use std::os::unix::fs::PermissionsExt;
        let path = scratch(&format!("{arch}-{name}"));
        let version = "[ \"$1\" = --version ] && echo 'QEMU emulator version 7.2.0' && exit 0";
        std::fs::write(&path, format!("#!/bin/sh\n{version}\n{script}\n")).expect("a script can be written");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("and made a program");
        path
    };
    let results = scratch(&format!("{arch}-kept.json"));
    for (name, script, said) in [
        ("silent", "exit 0", "without a word"),
        ("broken", "echo 'something is wrong' >&2; exit 1", "something is wrong"),
        ("killed", "kill -9 $$", "signal 9"),
        ("stuck", "exec sleep 600", "no progress for 1 s"),
    ] {
        std::fs::write(&results, "earlier results\n").expect("a file can be written");
        let qemu = fake(name, script);
        let words = format!("run --arch {arch} --patience 1 --qemu {} --json {}", qemu.display(), results.display());
        let output = xtask(&words);
        assert_eq!(output.status.code(), Some(3), "{name}: {}", stderr(&output));
        assert!(stderr(&output).contains(said), "{name}: {}", stderr(&output));
        assert_eq!(std::fs::read_to_string(&results).expect("the file is there"), "earlier results\n");
    }
}

/// Ctrl-C ends the runner at once, and QEMU with it.
#[track_caller]
fn ctrl_c_leaves_nothing(arch: &str) {
    let program = std::env::var_os("XTASK").expect("`cargo xtask test` runs these tests");
    // A seed that nobody else's QEMU has.
    let seed = 424_200_000_000 + u64::from(std::process::id());
    let many = format!("run --arch {arch} --ops 1000000 --workload munmap_2m --mode same --seed {seed}");
    let child = Command::new(program)
        .args(many.split_whitespace())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .expect("the runner starts");
    let mut child = Ended(child);
    let ours = |line: &str| line.contains(&format!("seed={seed}")) && line.contains("qemu-system");
    assert!(wait_for(|| processes().iter().any(|p| ours(p))), "QEMU never started");
    let pid = rustix::process::Pid::from_child(&child.0);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("the runner takes a signal");
    let mut status = None;
    assert!(wait_for(|| {
        status = child.0.try_wait().expect("the runner can be waited for");
        status.is_some()
    }));
    assert_eq!(status.and_then(|s| s.code()), Some(130));
    assert!(wait_for(|| !processes().iter().any(|p| ours(p))), "QEMU was left behind");
}

/// A process that does not outlive the test, whatever becomes of that.
struct Ended(std::process::Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Command lines of all processes.
fn processes() -> Vec<String> {
    let Ok(all) = std::fs::read_dir("/proc") else { return Vec::new() };
    let line = |e: std::fs::DirEntry| std::fs::read(e.path().join("cmdline")).ok();
    all.flatten().filter_map(line).map(|bytes| String::from_utf8_lossy(&bytes).replace('\0', " ")).collect()
}

fn wait_for(mut what: impl FnMut() -> bool) -> bool {
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_secs(120) {
        if what() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    false
}

/// Without `guard`, a run of `workload` must be found unsafe.
#[track_caller]
fn is_missed(arch: &str, guard: &str, workload: &str) {
    is_missed_under("sync-all", arch, guard, workload, 64);
}

/// The same under another strategy, with so many operations. One seed shows it or does not; of sixteen, some has to.
#[track_caller]
fn is_missed_under(strategy: &str, arch: &str, guard: &str, workload: &str, ops: u32) {
    let suite = format!("--workload {workload} --strategy {strategy} --mode contend --ops {ops}");
    let found = format!("{arch} {workload}, {strategy}, contend: unsafe, expected safe");
    let mut last = String::new();
    let seen = (1..=16).any(|seed| {
        let output = xtask(&format!("run --arch {arch} --without {guard} {suite} --seed {seed}"));
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let unexpected = output.status.code() == Some(1);
        last = text + &stderr(&output);
        // Without its guard a run may still be safe, and as expected; it may not fail in another way.
        assert!(unexpected || output.status.success(), "{last}");
        unexpected && last.contains(&found)
    });
    assert!(seen, "no seed shows that {guard} is missing: {last}");
}

/// Where walks read through the recursive mapping the flush is the sync, on every transport; without its part for that
/// mapping, it is not.
#[track_caller]
fn the_flush_is_the_sync(arch: &str) {
    let suite = format!("--arch {arch} --strategy self-map --mode same,contend --ops 16");
    for transport in ["ipi", "broadcast", "paravirt", "mixed"] {
        let workloads = "munmap_4k,dontneed_2m,collapse_anon,unshare_munmap_last,unshare_chain,retract_truncate";
        let name = format!("{arch}-self-map-{transport}");
        for row in rows(&name, &format!("{suite} --transport {transport} --workload {workloads}")) {
            assert!(row["verdict"] == "safe" && row["violations"] == 0 && row["sync_ipis_per_op"] == 0.0, "{row}");
            assert!(row["pages"].as_u64().is_some_and(|n| n > 0), "walks returned nothing: {row}");
        }
    }
    is_missed_under("self-map", arch, "SelfMapFlush", "retract_truncate", 96);
}

/// A machine that is too small is refused with a sentence.
#[track_caller]
fn small_machines_are_refused(arch: &str, small: u32) {
    for mib in [1, small] {
        let words =
            format!("run --arch {arch} --memory {mib} --smp 16 --strategy none --workload munmap_2m --mode idle");
        let output = xtask(&words);
        assert_eq!(output.status.code(), Some(2), "{words}: {}", stderr(&output));
        assert!(stderr(&output).contains("memory"), "{words}: {}", stderr(&output));
    }
}

/// A machine with its most CPUs starts all of them and does its work.
#[track_caller]
fn starts_all_cpus(arch: &str, cpus: u32) {
    let words = format!("--arch {arch} --smp {cpus} --strategy sync-all --workload collapse_anon --mode idle --ops 8");
    let rows = rows(&format!("{arch}-{cpus}"), &words);
    let row = row(&rows, "sync-all", "collapse_anon", "idle");
    assert_eq!(row["cpus"], cpus);
    assert_eq!(row["sync_ipis_per_op"].as_f64(), Some(f64::from(cpus - 1)));
}

/// On CPUs that run freely a full barrier that is missing is seen, on either side, and so is the one that a posted
/// strategy never had.
#[track_caller]
fn missing_barriers_are_seen(arch: &str) {
    let output = xtask(&format!("barriers --arch {arch}"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}{}", stderr(&output));
    let ends = |start: &str, what: &str| text.lines().any(|l| l.starts_with(start) && l.contains(what));
    for variant in ["targeted without PublishFence ", "targeted without DecideFence ", "targeted-v4 as posted "] {
        assert!(ends(variant, " seen in try "), "{text}");
    }
    assert!(ends("targeted ", " not seen in 20,000 tries") && ends("targeted-xchg ", " not seen in"), "{text}");
}

/// Every scenario for QEMU ends as its file says; one that expects what is not so is told apart from one that cannot be
/// read.
#[track_caller]
fn scenarios_come_out(arch: &str) {
    let output = xtask(&format!("scenario --arch {arch}"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}{}", stderr(&output));
    let lines = |words: &str| text.lines().filter(|l| l.trim_start().starts_with(words)).count();
    assert!(lines("unsafe, as expected") >= 20, "{text}");
    assert!(lines("safe, as expected") >= 20, "{text}");
    assert!(lines("n/a (TCG)") >= 5, "{text}");
    let steps = "actors: U W\nsteps:\n W until after_pmd_read\n U to completion\n W on\n";
    let file = |name: &str, rest: &str| {
        let path = scratch(&format!("{arch}-{name}.scenario"));
        std::fs::write(&path, format!("# Story.\nworkload: collapse_anon\nengine: qemu\n{steps}{rest}"))
            .expect("a file can be written");
        path.display().to_string()
    };
    let wrong = file("wrong", "expect safe: transport=broadcast strategy=none\n");
    let output = xtask(&format!("scenario {wrong} --arch {arch}"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(1), "{text}{}", stderr(&output));
    assert!(text.contains("unsafe, but SAFE was expected") && text.contains("a table was reused while"), "{text}");
    assert!(text.contains("NOT as expected: 1 of 1 cells."), "{text}");
    let bad = file("bad", "expect safe: transport=brodcast\n");
    let output = xtask(&format!("scenario {bad} --arch {arch}"));
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    assert!(stderr(&output).contains(":9:24: there is no transport \"brodcast\"; did you mean \"broadcast\"?"));
}

mod x86_64 {
    use super::*;

    #[test]
    #[ignore = "boots QEMU"]
    fn a_missing_full_barrier_is_seen() {
        missing_barriers_are_seen("x86_64");
    }

    #[test]
    #[ignore = "boots QEMU"]
    fn every_scenario_ends_as_its_file_says() {
        scenarios_come_out("x86_64");
    }

    #[test]
    #[ignore = "boots QEMU"]
    fn no_sync_is_needed_where_the_flush_interrupts() {
        let workloads = "--workload collapse_anon,unshare_munmap_last --mode contend";
        for (name, strategy) in [("none", "none"), ("hook", "static-hook --hook true")] {
            let rows = rows(&format!("x86_64-{name}"), &format!("--arch x86_64 {workloads} --strategy {strategy}"));
            assert!(rows.iter().all(|r| r["verdict"] == "safe" && r["violations"] == 0), "{rows:?}");
        }
    }

    #[test]
    #[ignore = "boots QEMU"]
    fn self_map_needs_no_sync_and_its_flush() {
        the_flush_is_the_sync("x86_64");
    }

    #[test]
    #[ignore = "boots QEMU"]
    fn the_same_seed_is_the_same_run() {
        is_reproducible("x86_64");
    }

    #[test]
    #[ignore = "boots QEMU"]
    fn a_removed_recheck_is_found() {
        is_missed("x86_64", "ReclaimRescan", "dontneed_2m");
    }

    #[test]
    #[ignore = "boots QEMU"]
    fn too_little_memory_is_refused() {
        small_machines_are_refused("x86_64", 4);
    }

    #[test]
    #[ignore = "boots QEMU"]
    fn every_end_is_reported() {
        ends_are_told_apart("x86_64");
        ctrl_c_leaves_nothing("x86_64");
    }

    #[test]
    #[ignore = "boots QEMU"]
    fn all_255_cpus_start() {
        starts_all_cpus("x86_64", 255);
    }
}

mod aarch64 {
    use super::*;

    #[test]
    #[ignore = "boots QEMU"]
    fn a_missing_full_barrier_is_seen() {
        missing_barriers_are_seen("aarch64");
    }

    #[test]
    #[ignore = "boots QEMU"]
    fn every_scenario_ends_as_its_file_says() {
        scenarios_come_out("aarch64");
    }

    #[test]
    #[ignore = "boots QEMU"]
    fn a_missing_sync_is_found() {
        let workloads = "--workload collapse_anon,unshare_munmap_last --mode contend";
        for (name, strategy) in [("none", "none"), ("hook", "static-hook --hook true")] {
            let rows = rows(&format!("aarch64-{name}"), &format!("--arch aarch64 {workloads} --strategy {strategy}"));
            for row in &rows {
                assert_eq!(row["verdict"], "unsafe", "{row}");
                let words = row["first_violation"].as_str().unwrap_or_default();
                for part in ["walk", "table in frame", "cpu ", "order: "] {
                    assert!(words.contains(part), "no \"{part}\" in: {words}");
                }
            }
        }
        let kept = rows("aarch64-kept", &format!("--arch aarch64 {workloads} --strategy sync-all,static-hook"));
        assert!(kept.iter().all(|r| r["verdict"] == "safe" && r["violations"] == 0), "{kept:?}");
    }

    #[test]
    #[ignore = "boots QEMU"]
    fn self_map_needs_no_sync_and_its_flush() {
        the_flush_is_the_sync("aarch64");
    }

    #[test]
    #[ignore = "boots QEMU"]
    fn the_same_seed_is_the_same_run() {
        is_reproducible("aarch64");
    }

    #[test]
    #[ignore = "boots QEMU"]
    fn a_removed_recheck_is_found() {
        is_missed("aarch64", "PmdRecheck", "retract_truncate");
        is_missed("aarch64", "ReclaimRescan", "dontneed_2m");
    }

    #[test]
    #[ignore = "boots QEMU"]
    fn too_little_memory_is_refused() {
        small_machines_are_refused("aarch64", 16);
    }

    #[test]
    #[ignore = "boots QEMU"]
    fn every_end_is_reported() {
        ends_are_told_apart("aarch64");
        ctrl_c_leaves_nothing("aarch64");
    }

    #[test]
    #[ignore = "boots QEMU"]
    fn all_512_cpus_start() {
        starts_all_cpus("aarch64", 512);
    }
}
