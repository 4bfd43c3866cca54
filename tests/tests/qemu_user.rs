//! Programs in user mode, in QEMU. `cargo xtask test` runs these.

mod runner;

use runner::{row, rows, xtask};

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

/// Processes are made and end, share tables, send messages while their memory is collapsed, spin for each other, and make calls that make no sense: each ends as it must, and nothing is left.
#[track_caller]
fn processes_end_as_they_must(arch: &str) {
    const PROGRAMS: &str = "null_call,call_reply,call_reply_far,fork_exec,db_exit,ipc_storm,take_turns,syscall_fuzz";
    let rows = rows(
        &format!("{arch}-programs"),
        &format!("--arch {arch} --workload {PROGRAMS} --strategy sync-all,targeted --ops 8"),
    );
    for row in &rows {
        assert_eq!((&row["verdict"], &row["program_status"]), (&"safe".into(), &0.into()), "{row}");
    }
    assert_eq!(rows.len(), 2 * PROGRAMS.split(',').count());
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
