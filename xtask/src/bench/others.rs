//! What the same costs elsewhere: on Linux in the same QEMU, in instructions; on other microkernels, as they publish it.

use crate::arch::Arch;

/// Versions of Linux that operations and system calls are compared with.
pub(super) const LINUX: [&str; 2] = ["6.12", "7.3"];

/// Instructions of a null system call (`getppid`), from user mode to user mode, of each of [`LINUX`] in the same QEMU.
pub(super) const fn linux_null_call(arch: Arch) -> [u16; 2] {
    match arch {
        Arch::X86_64 => [336, 345],
        Arch::Aarch64 => [516, 465],
    }
}

/// What a walk costs on Linux, measured under the same QEMU by what contains one: upper bounds. The first page is the
/// difference of FUTEX_WAKE shared and private, which contains the futex key; each further one is of a vmsplice, which
/// contains the pipe buffer.
pub(super) fn walks(arch: Arch) -> String {
    let of = match arch {
        Arch::X86_64 => [(644, 266), (563, 226)],
        Arch::Aarch64 => [(557, 208), (532, 192)],
    };
    let words: Vec<String> = LINUX
        .iter()
        .zip(of)
        .map(|(kernel, (first, further))| format!("Linux {kernel} {first} and {further}"))
        .collect();
    format!("  At most, for the first page and each further one: {}.\n", words.join(", "))
}

/// What null calls cost on Linux, and what microkernels publish of messages. L4Re counts instructions on x86_64 (Intel
/// N100 and Xeon Gold 6248R; l4re.org/performance.html, read in 2026). seL4 counts cycles, of a call and of its answer,
/// between two address spaces on one core (sel4.systems/performance.html, results of 7 August 2026, default kernel).
pub(super) fn messages(arch: Arch) -> String {
    let null = linux_null_call(arch);
    let linux: Vec<String> = LINUX.iter().zip(null).map(|(kernel, cost)| format!("Linux {kernel} {cost}")).collect();
    let (l4re, sel4) = match arch {
        Arch::X86_64 => (
            "  L4Re publishes 147 instructions for a system call; one way, 557 within an address space and 613 between two.\n",
            "775 and 646 (i7-4770), 718 and 576 (i7-6700, Meltdown not mitigated)",
        ),
        Arch::Aarch64 => ("", "413 and 426 (Cortex-A57)"),
    };
    format!(
        "  A null system call in the same QEMU: {}.\n{l4re}  seL4 publishes cycles of real machines, which no count here \
         compares with; for a call and for its answer, between two\n  processes: {sel4}.\n",
        linux.join(", ")
    )
}
