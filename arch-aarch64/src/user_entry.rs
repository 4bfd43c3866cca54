//! The way to EL0 and back, in assembly: what [`crate::user_mode`] says of registers, stacks and masks is done here.

use core::arch::{asm, global_asm};
use core::mem::offset_of;
use core::ptr::NonNull;

use kernel::task::fast::{self, Next};

use crate::Aarch64;
use crate::cpu_area::KERNEL_STACK;
use crate::user_mode::{Context, SYSTEM_CALL};

/// What stopped EL0.
#[repr(C)]
pub(crate) struct Stop {
    /// Not 0: an interrupt, which is still pending.
    pub(crate) interrupt: u64,
    /// Who was stopped.
    pub(crate) context: *mut Context,
}

unsafe extern "C" {
    /// Goes to EL0 with the registers of `context` and returns when something has stopped it, or what came after it.
    pub(crate) fn user_enter(context: *mut Context) -> Stop;
    fn user_go_back();
    pub(crate) fn user_save_vectors(context: *mut Context);
    pub(crate) fn user_load_vectors(context: *const Context);
}

/// The kernel's short way, for a thread that is stopped by `SVC`. It returns if that is not for this call; else it goes
/// on from here.
unsafe extern "C" fn ask(context: NonNull<Context>) {
    // SAFETY: `user_synchronous` has saved its registers; interrupts are masked.
    let Next { context, words, first } = unsafe { fast::system_call::<Aarch64>(context) };
    if !context.is_null() {
        // SAFETY: a context that has been stopped by `SVC` and that the CPU is made ready for, and one whose words are
        // its answer's.
        unsafe {
            asm!("b {}", sym user_go_back, in("x2") context, in("x0") words, in("x1") first, options(noreturn))
        }
    }
}

global_asm!(
    r#"
.arch_extension fp
.arch_extension simd
.section .text.user_mode, "ax"
.global user_save_vectors
user_save_vectors:
    mrs x1, fpcr
    mrs x2, fpsr
    mrs x3, tpidr_el0
    add x4, x0, #{vectors}
    stp q0, q1, [x4, #0]
    stp q2, q3, [x4, #32]
    stp q4, q5, [x4, #64]
    stp q6, q7, [x4, #96]
    stp q8, q9, [x4, #128]
    stp q10, q11, [x4, #160]
    stp q12, q13, [x4, #192]
    stp q14, q15, [x4, #224]
    stp q16, q17, [x4, #256]
    stp q18, q19, [x4, #288]
    stp q20, q21, [x4, #320]
    stp q22, q23, [x4, #352]
    stp q24, q25, [x4, #384]
    stp q26, q27, [x4, #416]
    stp q28, q29, [x4, #448]
    stp q30, q31, [x4, #480]
    str x1, [x4, #512]
    str x2, [x4, #520]
    str x3, [x4, #528]
    ret

.global user_load_vectors
user_load_vectors:
    add x4, x0, #{vectors}
    ldp q0, q1, [x4, #0]
    ldp q2, q3, [x4, #32]
    ldp q4, q5, [x4, #64]
    ldp q6, q7, [x4, #96]
    ldp q8, q9, [x4, #128]
    ldp q10, q11, [x4, #160]
    ldp q12, q13, [x4, #192]
    ldp q14, q15, [x4, #224]
    ldp q16, q17, [x4, #256]
    ldp q18, q19, [x4, #288]
    ldp q20, q21, [x4, #320]
    ldp q22, q23, [x4, #352]
    ldp q24, q25, [x4, #384]
    ldp q26, q27, [x4, #416]
    ldp q28, q29, [x4, #448]
    ldp q30, q31, [x4, #480]
    ldr x1, [x4, #512]
    ldr x2, [x4, #520]
    ldr x3, [x4, #528]
    msr fpcr, x1
    msr fpsr, x2
    msr tpidr_el0, x3
    ret

// x8 and up of the context at \from.
.macro load_rest from
    ldp x8, x9, [\from, #64]
    ldp x10, x11, [\from, #80]
    ldp x12, x13, [\from, #96]
    ldp x14, x15, [\from, #112]
    ldp x16, x17, [\from, #128]
    ldp x18, x19, [\from, #144]
    ldp x20, x21, [\from, #160]
    ldp x22, x23, [\from, #176]
    ldp x24, x25, [\from, #192]
    ldp x26, x27, [\from, #208]
    ldp x28, x29, [\from, #224]
    ldr x30, [\from, #240]
.endm

.global user_enter
user_enter:
    sub sp, sp, #112
    stp x29, x30, [sp, #96]
    add x29, sp, #96
    stp x19, x20, [sp, #16]
    stp x21, x22, [sp, #32]
    stp x23, x24, [sp, #48]
    stp x25, x26, [sp, #64]
    stp x27, x28, [sp, #80]
    str x0, [sp]
    mrs x1, tpidr_el1
    mov x2, sp
    str x2, [x1, #{kernel_stack}]
    msr daifset, #1
    ldp x1, x2, [x0, #{sp}]
    ldr x3, [x0, #{spsr}]
    msr sp_el0, x1
    msr elr_el1, x2
    msr spsr_el1, x3
    ldp x2, x3, [x0, #16]
    ldp x4, x5, [x0, #32]
    ldp x6, x7, [x0, #48]
    load_rest x0
    ldp x0, x1, [x0]
    eret

// The context's address to x0, which is on the stack with x1 until `save_rest`.
.macro save_first
    stp x0, x1, [sp, #-16]!
    ldr x0, [sp, #16]
    stp x2, x3, [x0, #16]
    stp x4, x5, [x0, #32]
    stp x6, x7, [x0, #48]
    stp x8, x9, [x0, #64]
.endm
// Those that a system call need not keep: what is loaded afterwards is what they were at another time.
.macro save_scratch
    stp x10, x11, [x0, #80]
    stp x12, x13, [x0, #96]
    stp x14, x15, [x0, #112]
    stp x16, x17, [x0, #128]
.endm
.macro save_rest
    stp x18, x19, [x0, #144]
    stp x20, x21, [x0, #160]
    stp x22, x23, [x0, #176]
    stp x24, x25, [x0, #192]
    stp x26, x27, [x0, #208]
    stp x28, x29, [x0, #224]
    str x30, [x0, #240]
    ldp x2, x3, [sp], #16
    stp x2, x3, [x0]
    mrs x1, sp_el0
    mrs x2, elr_el1
    mrs x3, spsr_el1
    stp x1, x2, [x0, #{sp}]
    str x3, [x0, #{spsr}]
.endm
.macro back_to_kernel
    ldp x19, x20, [sp, #16]
    ldp x21, x22, [sp, #32]
    ldp x23, x24, [sp, #48]
    ldp x25, x26, [sp, #64]
    ldp x27, x28, [sp, #80]
    ldp x29, x30, [sp, #96]
    add sp, sp, #112
    msr daifclr, #1
    ret
.endm

.global user_synchronous
user_synchronous:
    save_first
    mrs x1, esr_el1
    lsr x2, x1, #26
    cmp x2, #{system_call}
    b.ne 1f
    save_rest
    add x29, sp, #96
    bl {ask}
    ldr x0, [sp]
    b 2f
1:  save_scratch
    save_rest
2:  mrs x1, esr_el1
    mrs x2, far_el1
    stp x1, x2, [x0, #{syndrome}]
    mov x1, x0
    mov x0, #0
    back_to_kernel

// To the context at x2, with x1 as it is, 0 in x0, which says that it is done, and the words of the message that is in
// the context at x0, on the stack as `user_enter` left it.
.global user_go_back
user_go_back:
    mrs x3, tpidr_el1
    ldr x3, [x3, #{kernel_stack}]
    mov sp, x3
    str x2, [sp]
    ldp x3, x4, [x2, #{sp}]
    ldr x5, [x2, #{spsr}]
    msr sp_el0, x3
    msr elr_el1, x4
    msr spsr_el1, x5
    ldp x4, x5, [x0, #24]
    ldp x6, x7, [x0, #40]
    load_rest x2
    ldp x2, x3, [x0, #8]
    mov x0, #0
    eret

.global user_interrupt
user_interrupt:
    save_first
    save_scratch
    save_rest
    mov x1, x0
    mov x0, #1
    back_to_kernel
"#,
    sp = const offset_of!(Context, sp),
    spsr = const offset_of!(Context, spsr),
    kernel_stack = const KERNEL_STACK,
    syndrome = const offset_of!(Context, syndrome),
    vectors = const offset_of!(Context, vectors),
    system_call = const SYSTEM_CALL,
    ask = sym ask,
);

const _: () = {
    assert!(offset_of!(Context, x) == 0);
    assert!(offset_of!(Context, elr) == offset_of!(Context, sp) + 8);
    assert!(offset_of!(Context, fault_address) == offset_of!(Context, syndrome) + 8);
    assert!(offset_of!(Context, fpcr) == offset_of!(Context, vectors) + 512);
    assert!(offset_of!(Context, thread_pointer) == offset_of!(Context, fpcr) + 16);
};
