//! Programs in user mode, in QEMU. `cargo xtask test` runs these.

mod runner;

use std::process::Command;

use runner::{row, rows, scratch, xtask};

/// Programs on every CPU change one address space under each other's feet; each checks what it reads, and ends with 0.
#[track_caller]
fn programs_fault_in_what_others_unmap(arch: &str) {
    let rows = rows(
        &format!("{arch}-user-faults"),
        &format!("--arch {arch} --workload user_faults --strategy none,sync-all --ops 16"),
    );
    for strategy in ["none", "sync-all"] {
        let row = row(&rows, strategy, "user_faults", "contend");
        assert_eq!((&row["verdict"], &row["program_status"]), (&"safe".into(), &0.into()), "{row}");
    }
}

/// Processes are made and end, share tables, send messages while their memory is collapsed, spin for each other, and
/// make calls that make no sense, try to break in: each ends as it must, and nothing is left.
#[track_caller]
fn processes_end_as_they_must(arch: &str) {
    const PROGRAMS: &str = "null_call,call_reply,call_reply_apart,call_reply_far,fork_exec,db_exit,ipc_storm,take_turns,syscall_fuzz,break_in";
    let rows = rows(
        &format!("{arch}-programs"),
        &format!("--arch {arch} --workload {PROGRAMS} --strategy sync-all,targeted --ops 8"),
    );
    for row in &rows {
        assert_eq!((&row["verdict"], &row["program_status"]), (&"safe".into(), &0.into()), "{row}");
    }
    assert_eq!(rows.len(), 2 * PROGRAMS.split(',').count());
    // What the compactor has collapsed and the senders have left is what was counted.
    let storm = row(&rows, "sync-all", "ipc_storm", "contend");
    assert!(storm["predicted_sync_ipis_per_op"].as_f64().is_some_and(|n| n > 1.0), "{storm}");
}

/// A CPU outside of an mm is interrupted by its syncs where everybody is, twice in each operation, and by nothing else;
/// its periodic thread runs. Syncs are as many as there are tables used again.
#[track_caller]
fn a_periodic_thread_sees_what_interrupts_its_cpu(arch: &str) {
    let suite = format!("--arch {arch} --workload rt_bystander,db_exit,fork_exec --strategy sync-all,coverage --ops 4");
    let rows = rows(&format!("{arch}-rt-bystander"), &suite);
    for (strategy, syncs) in [("sync-all", 2.0), ("coverage", 0.0)] {
        let row_of = |workload| row(&rows, strategy, workload, "contend");
        let bystander = row_of("rt_bystander");
        assert_eq!(bystander["bystander_sync_ipis_per_op"], syncs, "{bystander}");
        assert_eq!(bystander["bystander_flush_ipis_per_op"], 0.0, "{bystander}");
        let said = ["periodic_runs", "periodic_least", "periodic_median", "bystander_longest_gap"];
        let [runs, least, median, longest] = said.map(|key| bystander[key].as_u64().unwrap_or(0));
        assert!(runs > 0 && 0 < least && least <= median && median <= longest, "it never ran: {bystander}");
        assert_eq!(row_of("fork_exec")["sync_ipis_per_op"], 0.0);
    }
    assert_eq!(row(&rows, "sync-all", "db_exit", "contend")["sync_ipis_per_op"], 12.0);
    assert_eq!(row(&rows, "sync-all", "db_exit", "contend")["predicted_sync_ipis_per_op"], 12.0);
}

/// Programs that do the operations of the suite through system calls cause what the kernel causes that does them
/// itself, flush for flush and sync for sync; and walkers find nothing wrong.
#[track_caller]
fn the_suite_in_user_mode_counts_the_same(arch: &str) {
    let suite = "--workload munmap_4k,dontneed_2m,mprotect_2m,collapse_anon,unshare_munmap_last,unshare_exit,retract_truncate \
                 --strategy sync-all,coverage --mode same,other,lazy,contend --ops 8";
    let ours = rows(&format!("{arch}-kernel-suite"), &format!("--arch {arch} {suite}"));
    let theirs = rows(&format!("{arch}-user-suite"), &format!("--arch {arch} --user {suite}"));
    assert_eq!((ours.len(), theirs.len()), (56, 56));
    for (ours, theirs) in ours.iter().zip(&theirs) {
        assert_eq!((&theirs["user"], &theirs["program_status"]), (&true.into(), &0.into()), "{theirs}");
        if ours["mode"] != "contend" {
            for count in ["flush_ipis_per_op", "sync_ipis_per_op", "syncs_elided_per_op", "tlbi_per_op"] {
                assert_eq!(ours[count], theirs[count], "{count}\n{ours}\n{theirs}");
            }
        } else if ours["workload"] != "unshare_exit" {
            assert!(theirs["pages"].as_u64().is_some_and(|n| n > 0), "walks found nothing: {theirs}");
        }
    }
}

/// Where flushes interrupt nobody and nobody syncs, some message is read through a table that is used again.
#[track_caller]
fn a_storm_finds_who_never_syncs(arch: &str) {
    let storm = format!("--arch {arch} --transport broadcast --workload ipc_storm --strategy none,targeted --ops 64");
    let rows = rows(&format!("{arch}-storm"), &storm);
    assert_eq!(row(&rows, "none", "ipc_storm", "contend")["verdict"], "unsafe");
    let repaired = row(&rows, "targeted", "ipc_storm", "contend");
    assert_eq!((&repaired["verdict"], &repaired["holders_not_waited_for"]), (&"safe".into(), &0.into()), "{repaired}");
}

/// Without the sync of whoever leaves a shared table, there are fewer than the programs of a storm know of.
#[track_caller]
fn a_sync_that_is_left_out_is_missed_by_programs(arch: &str) {
    let output =
        xtask(&format!("run --arch {arch} --workload ipc_storm --strategy sync-all --without UnshareSync --ops 8"));
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("ipc_storm, sync-all, contend:") && text.contains("sync IPIs"), "{text}");
}

/// A machine that was started without the module of programs says so, and runs nothing.
#[track_caller]
fn a_missing_module_is_refused(arch: &str, status: i32) {
    let output = xtask(&format!("run --arch {arch} --workload null_call --strategy none --dry-run"));
    let lines = String::from_utf8(output.stdout).expect("command lines are text");
    let line = lines.lines().last().expect("there is a command line");
    let ram = scratch(&format!("{arch}-no-module.ram"));
    let mut words: Vec<String> = Vec::new();
    for word in line.split(' ') {
        let device = words.last().is_some_and(|last| last == "-initrd" || last == "-device");
        if device && word.contains("/programs/") {
            words.pop();
        } else if !word.starts_with("module=") {
            words.push(word.replace(&format!("/dev/shm/{arch}-checking.ram"), &ram.display().to_string()));
        }
    }
    let line = words.join(" ");
    // The last word of the kernel's command line may have been the module.
    let line = if line.matches('\'').count() % 2 == 1 { line + "'" } else { line };
    let output = Command::new("sh").args(["-c", &line]).output().expect("a shell starts");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("the firmware left no module, so there is no program \"null_call\""), "{line}\n{said}");
    assert_eq!(output.status.code(), Some(status), "{said}");
    std::fs::remove_file(ram).expect("QEMU made its memory");
}

/// A thread whose vector registers are not saved for it finds another's in them.
#[track_caller]
fn lost_vector_registers_are_found(arch: &str) {
    let output =
        xtask(&format!("run --arch {arch} --workload take_turns --strategy sync-all --without VectorsParked --ops 8"));
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("a program ended with a check that failed in line"), "{text}");
}

mod x86_64 {
    #[test]
    #[ignore = "boots QEMU"]
    fn the_suite_in_user_mode_counts_the_same() {
        super::the_suite_in_user_mode_counts_the_same("x86_64");
    }

    #[test]
    #[ignore = "boots QEMU"]
    fn a_sync_that_is_left_out_is_missed_by_programs() {
        super::a_sync_that_is_left_out_is_missed_by_programs("x86_64");
    }

    #[test]
    #[ignore = "boots QEMU"]
    fn a_periodic_thread_sees_what_interrupts_its_cpu() {
        super::a_periodic_thread_sees_what_interrupts_its_cpu("x86_64");
    }

    #[test]
    #[ignore = "boots QEMU"]
    fn a_missing_module_is_refused() {
        super::a_missing_module_is_refused("x86_64", 35);
    }

    #[test]
    #[ignore = "boots QEMU"]
    fn programs_fault_in_what_others_unmap() {
        super::programs_fault_in_what_others_unmap("x86_64");
    }

    #[test]
    #[ignore = "boots QEMU"]
    fn lost_vector_registers_are_found() {
        super::lost_vector_registers_are_found("x86_64");
    }

    #[test]
    #[ignore = "boots QEMU"]
    fn processes_end_as_they_must() {
        super::processes_end_as_they_must("x86_64");
    }
}

mod aarch64 {
    #[test]
    #[ignore = "boots QEMU"]
    fn a_storm_finds_who_never_syncs() {
        super::a_storm_finds_who_never_syncs("aarch64");
    }

    #[test]
    #[ignore = "boots QEMU"]
    fn the_suite_in_user_mode_counts_the_same() {
        super::the_suite_in_user_mode_counts_the_same("aarch64");
    }

    #[test]
    #[ignore = "boots QEMU"]
    fn a_sync_that_is_left_out_is_missed_by_programs() {
        super::a_sync_that_is_left_out_is_missed_by_programs("aarch64");
    }

    #[test]
    #[ignore = "boots QEMU"]
    fn a_periodic_thread_sees_what_interrupts_its_cpu() {
        super::a_periodic_thread_sees_what_interrupts_its_cpu("aarch64");
    }

    #[test]
    #[ignore = "boots QEMU"]
    fn a_missing_module_is_refused() {
        super::a_missing_module_is_refused("aarch64", 17);
    }

    #[test]
    #[ignore = "boots QEMU"]
    fn programs_fault_in_what_others_unmap() {
        super::programs_fault_in_what_others_unmap("aarch64");
    }

    #[test]
    #[ignore = "boots QEMU"]
    fn lost_vector_registers_are_found() {
        super::lost_vector_registers_are_found("aarch64");
    }

    #[test]
    #[ignore = "boots QEMU"]
    fn processes_end_as_they_must() {
        super::processes_end_as_they_must("aarch64");
    }
}
