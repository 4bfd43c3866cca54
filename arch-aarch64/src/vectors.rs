//! The exception vectors: registers to the stack, a call into `trap`, registers back.
//!
//! The kernel runs at EL1 on `SP_EL1`, and exceptions push onto the stack that they interrupt. Three rules:
//!
//! - **A bad stack pointer is noticed before it is used.** A synchronous exception asks the MMU (`AT S1E1W`) whether it
//!   could store its frame; if not, it continues on the CPU's emergency stack and reports an overflow. Interrupts need
//!   no such check: where their first push hits a guard page, that is a synchronous exception.
//! - **An NMI reaches handlers too.** Taking an exception sets `PSTATE.F`. The IRQ entry clears it again once `ELR_EL1`
//!   and `SPSR_EL1` are saved, and so does the synchronous entry if the interrupted code had it clear. It is set again
//!   before they are loaded for the return: a FIQ in between would replace them. `PSTATE.I` stays set throughout.
//! - **Frame pointers go through.** Each frame holds a frame record (old `x29`, interrupted address), so that a
//!   backtrace continues into the interrupted code.
//!
//! IRQ and FIQ save what a call may change; the rest (`x19` to `x28`) is saved by the callee, as every function does.
//! Synchronous exceptions save everything: they may be reported. The kernel uses no floating-point registers. What
//! comes from EL0 is saved elsewhere (`user_mode`), but for a FIQ, which is handled and returns.
//!
//! `TPIDRRO_EL0`, which EL0 can read, is scratch of the synchronous entry and 0 otherwise; `TPIDR_EL0` only on the way
//! to a panic.

use core::arch::{asm, global_asm};

use crate::cpu_area::EMERGENCY_TOP;

/// The registers of interrupted code, as the entry stores them.
#[repr(C)]
pub struct TrapFrame {
    /// `x0` to `x30`. `x19` to `x28` only in synchronous exceptions.
    pub x: [u64; 31],
    /// The stack pointer before the exception. Only in synchronous exceptions.
    pub sp: u64,
    /// Where the exception was taken, and where it returns to.
    pub elr: u64,
    /// The processor state that it returns to.
    pub spsr: u64,
    /// A frame record: `x29` and `elr` again.
    record: [u64; 2],
}

const FRAME_BYTES: usize = size_of::<TrapFrame>();
const _: () = assert!(FRAME_BYTES == 288);

global_asm!(
    r#"
.macro save_call_clobbered
    stp x0, x1, [sp, #0]
    stp x2, x3, [sp, #16]
    stp x4, x5, [sp, #32]
    stp x6, x7, [sp, #48]
    stp x8, x9, [sp, #64]
    stp x10, x11, [sp, #80]
    stp x12, x13, [sp, #96]
    stp x14, x15, [sp, #112]
    stp x16, x17, [sp, #128]
    str x18, [sp, #144]
    stp x29, x30, [sp, #232]
    mrs x0, elr_el1
    mrs x1, spsr_el1
    stp x0, x1, [sp, #256]
    stp x29, x0, [sp, #272]
    add x29, sp, #272
.endm
.macro restore_call_clobbered_and_return
    ldp x0, x1, [sp, #256]
    msr elr_el1, x0
    msr spsr_el1, x1
    ldp x2, x3, [sp, #16]
    ldp x4, x5, [sp, #32]
    ldp x6, x7, [sp, #48]
    ldp x8, x9, [sp, #64]
    ldp x10, x11, [sp, #80]
    ldp x12, x13, [sp, #96]
    ldp x14, x15, [sp, #112]
    ldp x16, x17, [sp, #128]
    ldr x18, [sp, #144]
    ldp x29, x30, [sp, #232]
    ldp x0, x1, [sp, #0]
    add sp, sp, #{frame}
    eret
.endm
.macro save_call_saved
    stp x19, x20, [sp, #152]
    stp x21, x22, [sp, #168]
    stp x23, x24, [sp, #184]
    stp x25, x26, [sp, #200]
    stp x27, x28, [sp, #216]
.endm
.macro restore_call_saved
    ldp x19, x20, [sp, #152]
    ldp x21, x22, [sp, #168]
    ldp x23, x24, [sp, #184]
    ldp x25, x26, [sp, #200]
    ldp x27, x28, [sp, #216]
.endm
.macro vector target
    .balign 0x80
    b \target
.endm
.macro unexpected which
    .balign 0x80
    sub sp, sp, #{frame}
    save_call_clobbered
    mov x1, #\which
    b exception_unexpected
.endm

.section .text.vectors, "ax"
.balign 0x800
.global exception_vectors
exception_vectors:
    unexpected 0
    unexpected 1
    unexpected 2
    unexpected 3
    vector exception_synchronous
    vector exception_irq
    vector exception_fiq
    unexpected 7
    vector user_synchronous
    vector user_interrupt
    vector exception_fiq
    unexpected 11
    unexpected 12
    unexpected 13
    unexpected 14
    unexpected 15

exception_irq:
    sub sp, sp, #{frame}
    save_call_clobbered
    msr daifclr, #1
    bl {irq}
    msr daifset, #1
    restore_call_clobbered_and_return

exception_fiq:
    sub sp, sp, #{frame}
    save_call_clobbered
    bl {fiq}
    restore_call_clobbered_and_return

exception_synchronous:
    msr tpidrro_el0, x0
    sub x0, sp, #{frame}
    at s1e1w, x0
    isb
    mrs x0, par_el1
    tbnz x0, #0, exception_bad_stack
    sub x0, sp, #16
    at s1e1w, x0
    isb
    mrs x0, par_el1
    tbnz x0, #0, exception_bad_stack
    mrs x0, tpidrro_el0
    msr tpidrro_el0, xzr
    sub sp, sp, #{frame}
    save_call_clobbered
    save_call_saved
    add x2, sp, #{frame}
    str x2, [sp, #248]
    tbnz x1, #6, 1f
    msr daifclr, #1
1:  mov x0, sp
    bl {synchronous}
    msr daifset, #1
    restore_call_saved
    restore_call_clobbered_and_return

exception_bad_stack:
    mov x0, sp
    msr tpidr_el0, x0
    mrs x0, tpidr_el1
    cbz x0, 1f
    add x0, x0, #({emergency} & 0xfff)
    add x0, x0, #({emergency} & 0xfff000)
    b 2f
1:  adrp x0, BOOT_EMERGENCY_STACK
    add x0, x0, :lo12:BOOT_EMERGENCY_STACK
    add x0, x0, #{emergency_bytes}
2:  mov sp, x0
    mrs x0, tpidrro_el0
    sub sp, sp, #{frame}
    save_call_clobbered
    save_call_saved
    mrs x2, tpidr_el0
    str x2, [sp, #248]
    mov x0, sp
    bl {bad_stack}

exception_unexpected:
    save_call_saved
    add x2, sp, #{frame}
    str x2, [sp, #248]
    mov x0, sp
    bl {unexpected}
"#,
    frame = const FRAME_BYTES,
    emergency = const EMERGENCY_TOP,
    emergency_bytes = const crate::cpu_area::EMERGENCY_BYTES,
    irq = sym crate::trap::irq,
    fiq = sym crate::trap::fiq,
    synchronous = sym crate::trap::synchronous,
    bad_stack = sym crate::trap::bad_stack,
    unexpected = sym crate::trap::unexpected,
);

unsafe extern "C" {
    static exception_vectors: u8;
}

/// Makes this CPU use the vectors, and lets system errors and NMIs through. Ordinary interrupts stay masked.
pub fn install() {
    let vectors = &raw const exception_vectors as u64;
    // SAFETY: the vectors handle every exception; with no interrupt enabled yet, unmasking FIQ and SError takes none
    // that has no handler.
    unsafe {
        asm!("msr vbar_el1, {}", "isb", "msr daifclr, #5", in(reg) vectors, options(nostack, preserves_flags));
    }
}
