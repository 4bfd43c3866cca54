//! Entry, system calls, threads and the counter on x86_64.

use core::arch::{asm, global_asm};

global_asm!(
    ".globl _start",
    "_start:",
    "xor ebp, ebp",
    "mov rdi, rsp",
    "and rsp, -16",
    "call {main}",
    "ud2",
    main = sym crate::main_on_stack,
);

global_asm!(
    // rdi: flags, rsi: top of the new stack, rdx: function, rcx: its argument. The child takes both from its stack.
    ".globl start_thread",
    "start_thread:",
    "mov [rsi - 16], rdx",
    "mov [rsi - 8], rcx",
    "sub rsi, 16",
    "xor edx, edx",
    "xor r10d, r10d",
    "xor r8d, r8d",
    "mov eax, {clone}",
    "syscall",
    "test rax, rax",
    "jnz 2f",
    "xor ebp, ebp",
    "pop rax",
    "pop rdi",
    "call rax",
    "ud2",
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
    // SAFETY: the instruction changes rax, rcx and r11, and memory as the caller allows.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number as isize => result,
            in("rdi") a[0], in("rsi") a[1], in("rdx") a[2], in("r10") a[3], in("r8") a[4], in("r9") a[5],
            lateout("rcx") _, lateout("r11") _,
            options(nostack),
        );
    }
    result
}

/// The counter, which Linux lets programs read.
pub(crate) fn ticks() -> u64 {
    // SAFETY: reads a counter.
    unsafe { core::arch::x86_64::_rdtsc() }
}

/// Its rate, where QEMU counts instructions: one tick for each.
pub(crate) fn ticks_per_second() -> u64 {
    1_000_000_000
}

/// Lets other CPUs go on: an emulator that runs one CPU after the other passes to the next at this instruction.
pub(crate) fn relax() {
    core::hint::spin_loop();
}
