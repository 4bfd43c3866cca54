//! Entry, system calls, threads and the counter on aarch64.

use core::arch::{asm, global_asm};

global_asm!(
    ".globl _start",
    "_start:",
    "mov x29, xzr",
    "mov x30, xzr",
    "mov x0, sp",
    "bl {main}",
    "brk #1",
    main = sym crate::main_on_stack,
);

global_asm!(
    // x0: flags, x1: top of the new stack, x2: function, x3: its argument. The child takes both from its stack.
    ".globl start_thread",
    "start_thread:",
    "stp x2, x3, [x1, #-16]!",
    "mov x2, xzr",
    "mov x3, xzr",
    "mov x4, xzr",
    "mov x8, #{clone}",
    "svc #0",
    "cbnz x0, 2f",
    "mov x29, xzr",
    "mov x30, xzr",
    "ldp x1, x0, [sp], #16",
    "blr x1",
    "brk #1",
    "2: ret",
    clone = const linux_raw_sys::general::__NR_clone,
);

/// A system call.
///
/// # Safety
///
/// Pointers among the arguments must be valid for what the call does with them, and the call may not break what Rust
/// relies on.
pub(super) unsafe fn call(number: u32, a: [usize; 6]) -> isize {
    let result: isize;
    // SAFETY: the instruction changes x0, and memory as the caller allows.
    unsafe {
        asm!(
            "svc #0",
            in("x8") number as usize,
            inlateout("x0") a[0] => result,
            in("x1") a[1], in("x2") a[2], in("x3") a[3], in("x4") a[4], in("x5") a[5],
            options(nostack),
        );
    }
    result
}

/// The virtual counter, which Linux lets programs read.
pub(crate) fn ticks() -> u64 {
    let ticks: u64;
    // SAFETY: reads a counter.
    unsafe { asm!("isb", "mrs {}, cntvct_el0", out(reg) ticks, options(nomem, nostack)) };
    ticks
}

/// Its rate.
pub(crate) fn ticks_per_second() -> u64 {
    let rate: u64;
    // SAFETY: reads a constant of the machine.
    unsafe { asm!("mrs {}, cntfrq_el0", out(reg) rate, options(nomem, nostack)) };
    rate
}

/// Lets other CPUs go on: an emulator that runs one CPU after the other passes to the next at this instruction, not at
/// the ISB of `core::hint::spin_loop`.
pub(crate) fn relax() {
    // SAFETY: a hint.
    unsafe { asm!("yield", options(nomem, nostack)) };
}
