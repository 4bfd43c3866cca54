//! Programs in user mode, in QEMU. `cargo xtask test` runs these.

mod runner;

use runner::{row, rows};

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

mod x86_64 {
    #[test]
    #[ignore = "boots QEMU"]
    fn programs_fault_in_what_others_unmap() {
        super::programs_fault_in_what_others_unmap("x86_64");
    }
}

mod aarch64 {
    #[test]
    #[ignore = "boots QEMU"]
    fn programs_fault_in_what_others_unmap() {
        super::programs_fault_in_what_others_unmap("aarch64");
    }
}
