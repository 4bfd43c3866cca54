//! EL0: a thread's registers, the way there and the way back.
//!
//! `user_enter` leaves the registers that a call preserves and the context's address on the kernel's stack, loads the thread's registers and returns to EL0. An exception from EL0 finds the
//! stack pointer of EL1 where it was: the entry saves the thread's registers into the context and goes on behind the call of `user_enter`, as if that had returned. There is one kernel stack
//! per CPU and nothing of a thread is ever on it. An FIQ (the NMI doorbell) is handled by its ordinary vector, on the same stack, and returns to EL0.
//!
//! - **System calls** are first shown to the kernel's short way ([`ask`]), on the kernel's stack as `user_enter` left it. The thread that it says to go on with goes back at once; its context is noted
//!   where the entry looks for it. If it says nothing, `user_enter` returns.
//! - **Masks.** `ELR_EL1` and `SPSR_EL1` hold the thread's state while `PSTATE.F` is set: an FIQ in between would replace them. Syndrome and fault address are saved under the same mask,
//!   since an NMI may have a fault of its own.
//! - **What EL0 may not do** traps: WFI, cache maintenance, system registers (`SCTLR_EL1`, [`crate::mmu`]), SVE and SME. Returning to an address that is none is
//!   harmless: the fetch aborts at EL0.
//! - **Floating-point and SIMD registers** trap (`CPACR_EL1`) until a thread first uses them. From then on they are loaded and saved with it. They and `TPIDR_EL0` stay in the CPU over system calls, since
//!   the kernel does not use them, and are saved when the thread leaves the CPU: [`UserContext::park`].

use core::arch::{asm, global_asm};
use core::mem::offset_of;
use core::ptr::NonNull;

use kernel::addr::VirtAddr;
use kernel::task::fast::{self, Next};
use kernel::task::user::{Access, ExceptionKind, UserContext, UserEvent};

use crate::{Aarch64, trap};

/// A thread's registers.
#[repr(C, align(16))]
pub struct Context {
    x: [u64; 31],
    sp: u64,
    elr: u64,
    spsr: u64,
    syndrome: u64,
    fault_address: u64,
    vectors: [u128; 32],
    fpcr: u64,
    fpsr: u64,
    thread_pointer: u64,
    /// The CPU that it ran on last has `thread_pointer`, and of a thread that uses them `vectors` and what follows.
    in_cpu: bool,
    /// It has used floating-point or SIMD registers.
    uses_vectors: bool,
}

impl UserContext for Context {
    fn start(entry: VirtAddr, stack: VirtAddr, argument: u64) -> Context {
        let mut x = [0; 31];
        x[0] = argument;
        // SPSR 0: EL0, AArch64, nothing masked.
        Context {
            x,
            sp: stack.0,
            elr: entry.0,
            spsr: 0,
            syndrome: 0,
            fault_address: 0,
            vectors: [0; 32],
            fpcr: 0,
            fpsr: 0,
            thread_pointer: 0,
            in_cpu: false,
            uses_vectors: false,
        }
    }

    #[inline]
    fn call(&self) -> [u64; 8] {
        let x = &self.x;
        [x[8], x[0], x[1], x[2], x[3], x[4], x[5], x[6]]
    }

    #[inline]
    fn answer(&mut self, words: [u64; 8]) {
        self.x[..8].copy_from_slice(&words);
    }

    #[inline(always)]
    fn word(&self, n: usize) -> u64 {
        self.x[if n == 0 { 8 } else { n - 1 }]
    }

    #[inline(always)]
    fn take_first(&mut self, first: u64) {
        (self.x[0], self.x[1]) = (0, first);
    }

    fn take_words(&mut self, from: &Context) {
        self.x[2..8].copy_from_slice(&from.x[1..7]);
    }

    fn park(&mut self) {
        if self.in_cpu {
            self.save();
        }
    }

    fn change_over(from: &mut Context, to: &mut Context) {
        from.save();
        to.load();
        if from.uses_vectors != to.uses_vectors {
            to.permit_vectors();
        }
    }

    #[inline(always)]
    fn is_light(&self) -> bool {
        !self.uses_vectors
    }

    #[inline(always)]
    fn go_over_lightly(from: &mut Context, to: &mut Context) {
        from.save_pointer();
        to.load_pointer();
    }
}

impl Context {
    #[inline(always)]
    fn save_pointer(&mut self) {
        // SAFETY: reads a register that is this thread's.
        unsafe { asm!("mrs {}, tpidr_el0", out(reg) self.thread_pointer, options(nomem, nostack, preserves_flags)) };
        self.in_cpu = false;
    }

    #[inline(always)]
    fn load_pointer(&mut self) {
        // SAFETY: the register has no effect on the kernel.
        unsafe { asm!("msr tpidr_el0, {}", in(reg) self.thread_pointer, options(nomem, nostack, preserves_flags)) };
        self.in_cpu = true;
    }

    fn save(&mut self) {
        self.save_pointer();
        if self.uses_vectors {
            // SAFETY: stores to this context only. The kernel has no use of these registers, so they are still this thread's.
            unsafe { user_save_vectors(self) };
        }
    }

    fn load(&mut self) {
        self.load_pointer();
        if self.uses_vectors {
            // SAFETY: loads what `start` made or `save` saved; nothing of the kernel is in these registers.
            unsafe { user_load_vectors(self) };
        }
    }

    /// Lets EL0 use floating-point and SIMD registers, or has it trap where it does. From the next return to EL0 on.
    fn permit_vectors(&self) {
        let fpen = if self.uses_vectors { FPEN_ALL } else { FPEN_KERNEL };
        // SAFETY: SVE and SME stay trapped. The kernel has no such instructions but those below.
        unsafe { asm!("msr cpacr_el1, {}", in(reg) fpen, options(nomem, nostack, preserves_flags)) };
    }

    /// [`kernel::arch::Arch::enter_user`].
    ///
    /// # Safety
    /// As there.
    #[inline]
    pub(crate) unsafe fn enter(context: NonNull<Context>) -> UserEvent {
        let mut context = context.as_ptr();
        loop {
            {
                // SAFETY: the caller's promise, or what stopped last. The reference ends before another may begin.
                let this = unsafe { &mut *context };
                if !this.in_cpu {
                    this.load();
                }
                this.permit_vectors();
            }
            // SAFETY: the processor state to return to is that of `start` or what the CPU itself saved of EL0; interrupts are masked.
            let stop = unsafe { user_enter(context) };
            if stop.interrupt != 0 {
                trap::irq();
                return UserEvent::Interrupt;
            }
            context = stop.context;
            // SAFETY: what was entered, or what the short way went on with.
            let this = unsafe { &mut *context };
            match class(this.syndrome) {
                SYSTEM_CALL => return UserEvent::Call,
                VECTORS if !this.uses_vectors => {
                    this.uses_vectors = true;
                    // As `start` made them: what another thread left goes.
                    this.save_pointer();
                }
                _ => return this.event(),
            }
        }
    }

    /// What stopped it, other than a system call.
    fn event(&self) -> UserEvent {
        let kind = match class(self.syndrome) {
            DATA_ABORT | INSTRUCTION_ABORT if is_fault(self.syndrome) => {
                let access = match (class(self.syndrome), self.syndrome & WRITE != 0) {
                    (INSTRUCTION_ABORT, _) => Access::Execute,
                    (_, true) => Access::Write,
                    (_, false) => Access::Read,
                };
                return UserEvent::Fault { at: VirtAddr(self.fault_address), access };
            }
            DATA_ABORT if self.syndrome & STATUS == ALIGNMENT => ExceptionKind::Misaligned,
            DATA_ABORT | INSTRUCTION_ABORT => ExceptionKind::Protection,
            0x22 | 0x26 => ExceptionKind::Misaligned,
            0x28 | 0x2c => ExceptionKind::Arithmetic,
            0x30..=0x35 | 0x38..=0x3c => ExceptionKind::Breakpoint,
            _ => ExceptionKind::InvalidInstruction,
        };
        UserEvent::Exception { kind, at: VirtAddr(self.elr) }
    }
}

/// `ESR_EL1.EC`: `SVC` in 64-bit code.
const SYSTEM_CALL: u64 = 0x15;
/// A floating-point or SIMD instruction that `CPACR_EL1` traps.
const VECTORS: u64 = 0x07;
const INSTRUCTION_ABORT: u64 = 0x20;
const DATA_ABORT: u64 = 0x24;
/// In the syndrome of a data abort: a store, or a read-modify-write.
const WRITE: u64 = 1 << 6;
/// The fault status in the syndrome of an abort, and one of its values.
const STATUS: u64 = 0x3f;
const ALIGNMENT: u64 = 0x21;

const fn class(syndrome: u64) -> u64 {
    syndrome >> 26 & 0x3f
}

/// Whether an abort is one of translation, access flag or permission, at any level: what the tables decide.
const fn is_fault(syndrome: u64) -> bool {
    matches!(syndrome & STATUS, 0x04..=0x0f)
}

/// `CPACR_EL1.FPEN`: nothing of floating point traps; EL0 does. SVE and SME trap in both.
const FPEN_ALL: u64 = 3 << 20;
const FPEN_KERNEL: u64 = 1 << 20;

/// EL0 reads no timer and no performance monitor, and has no vector registers until it asks. Called once on each CPU.
pub fn init_cpu() {
    // SAFETY: only what EL0 may do changes. The kernel has no floating-point instructions but the ones below.
    unsafe {
        asm!(
            "msr cpacr_el1, {fpen}", "msr cntkctl_el1, xzr", "msr pmuserenr_el0, xzr", "msr tpidrro_el0, xzr", "isb",
            fpen = in(reg) FPEN_KERNEL, options(nomem, nostack, preserves_flags)
        )
    };
}

/// What stopped EL0.
#[repr(C)]
struct Stop {
    /// Not 0: an interrupt, which is still pending.
    interrupt: u64,
    /// Who was stopped.
    context: *mut Context,
}

unsafe extern "C" {
    /// Goes to EL0 with the registers of `context` and returns when something has stopped it, or what came after it.
    fn user_enter(context: *mut Context) -> Stop;
    fn user_save_vectors(context: *mut Context);
    fn user_load_vectors(context: *const Context);
}

/// The kernel's short way, for a thread that is stopped by `SVC`: the context to go on with, or null.
unsafe extern "C" fn ask(context: NonNull<Context>) -> Next<Context> {
    // SAFETY: `user_synchronous` has saved its registers; interrupts are masked.
    unsafe { fast::system_call::<Aarch64>(context) }
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

// x8 and up, then x0 and x1, of the context at x0; to EL0.
.macro load_rest
    ldp x8, x9, [x0, #64]
    ldp x10, x11, [x0, #80]
    ldp x12, x13, [x0, #96]
    ldp x14, x15, [x0, #112]
    ldp x16, x17, [x0, #128]
    ldp x18, x19, [x0, #144]
    ldp x20, x21, [x0, #160]
    ldp x22, x23, [x0, #176]
    ldp x24, x25, [x0, #192]
    ldp x26, x27, [x0, #208]
    ldp x28, x29, [x0, #224]
    ldr x30, [x0, #240]
    ldp x0, x1, [x0]
    eret
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
    msr daifset, #1
    ldp x1, x2, [x0, #{sp}]
    ldr x3, [x0, #{spsr}]
    msr sp_el0, x1
    msr elr_el1, x2
    msr spsr_el1, x3
    ldp x2, x3, [x0, #16]
    ldp x4, x5, [x0, #32]
    ldp x6, x7, [x0, #48]
    load_rest

.macro save_user
    stp x0, x1, [sp, #-16]!
    ldr x0, [sp, #16]
    stp x2, x3, [x0, #16]
    stp x4, x5, [x0, #32]
    stp x6, x7, [x0, #48]
    stp x8, x9, [x0, #64]
    stp x10, x11, [x0, #80]
    stp x12, x13, [x0, #96]
    stp x14, x15, [x0, #112]
    stp x16, x17, [x0, #128]
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
    save_user
    mrs x1, esr_el1
    lsr x2, x1, #26
    cmp x2, #{system_call}
    b.ne 1f
    add x29, sp, #96
    bl {ask}
    cbz x0, 2f
    // To the context at x0, with the words of the message that is in the one at x1.
    str x0, [sp]
    ldp x2, x3, [x0, #{sp}]
    ldr x4, [x0, #{spsr}]
    msr sp_el0, x2
    msr elr_el1, x3
    msr spsr_el1, x4
    ldp x2, x3, [x1, #8]
    ldp x4, x5, [x1, #24]
    ldp x6, x7, [x1, #40]
    load_rest
2:  ldr x0, [sp]
    mrs x1, esr_el1
1:  mrs x2, far_el1
    stp x1, x2, [x0, #{syndrome}]
    mov x1, x0
    mov x0, #0
    back_to_kernel

.global user_interrupt
user_interrupt:
    save_user
    mov x1, x0
    mov x0, #1
    back_to_kernel
"#,
    sp = const offset_of!(Context, sp),
    spsr = const offset_of!(Context, spsr),
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
