//! EL0: a thread's registers, the way there and the way back.
//!
//! `user_enter` leaves the registers that a call preserves and the context's address on the kernel's stack, loads the
//! thread's registers and returns to EL0. An exception from EL0 finds the stack pointer of EL1 where it was: the entry
//! saves the thread's registers into the context and goes on behind the call of `user_enter`, as if that had returned.
//! There is one kernel stack per CPU and nothing of a thread is ever on it. An FIQ (the NMI doorbell) is handled by its
//! ordinary vector, on the same stack, and returns to EL0.
//!
//! - **System calls** are first shown to the kernel's short way ([`crate::user_entry`]), on the kernel's stack as
//!   `user_enter` left it. The thread that it says to go on with goes back at once; its context is noted where the
//!   entry looks for it. If it says nothing, `user_enter` returns.
//! - **Masks.** `ELR_EL1` and `SPSR_EL1` hold the thread's state while `PSTATE.F` is set: an FIQ in between would
//!   replace them. Syndrome and fault address are saved under the same mask, since an NMI may have a fault of its own.
//! - **What EL0 may not do** traps: WFI, cache maintenance, system registers (`SCTLR_EL1`, [`crate::mmu`]), SVE and
//!   SME. Returning to an address that is none is harmless: the fetch aborts at EL0.
//! - **Floating-point and SIMD registers** trap (`CPACR_EL1`) until a thread first uses them. From then on they are
//!   loaded and saved with it. They and `TPIDR_EL0` stay in the CPU over system calls, since the kernel does not use
//!   them, and are saved when the thread leaves the CPU: [`UserContext::park`].

use core::arch::asm;
use core::ptr::NonNull;

use kernel::addr::VirtAddr;
use kernel::task::user::{Access, ExceptionKind, UserContext, UserEvent};

use crate::trap;
use crate::user_entry::{user_enter, user_load_vectors, user_save_vectors};

/// A thread's registers.
#[repr(C, align(16))]
pub struct Context {
    pub(crate) x: [u64; 31],
    pub(crate) sp: u64,
    pub(crate) elr: u64,
    pub(crate) spsr: u64,
    pub(crate) syndrome: u64,
    pub(crate) fault_address: u64,
    pub(crate) vectors: [u128; 32],
    pub(crate) fpcr: u64,
    fpsr: u64,
    pub(crate) thread_pointer: u64,
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
        self.save();
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
    }

    #[inline(always)]
    fn load_pointer(&self) {
        // SAFETY: the register has no effect on the kernel.
        unsafe { asm!("msr tpidr_el0, {}", in(reg) self.thread_pointer, options(nomem, nostack, preserves_flags)) };
    }

    fn save(&mut self) {
        self.save_pointer();
        if self.uses_vectors {
            // SAFETY: stores to this context only. The kernel has no use of these registers, so they are still this
            // thread's.
            unsafe { user_save_vectors(self) };
        }
    }

    fn load(&self) {
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
    pub(crate) unsafe fn enter(context: NonNull<Context>, mut in_cpu: bool) -> UserEvent {
        let mut context = context.as_ptr();
        loop {
            {
                // SAFETY: the caller's promise, or what stopped last. The reference ends before another may begin.
                let this = unsafe { &*context };
                if !in_cpu {
                    this.load();
                }
                this.permit_vectors();
            }
            // SAFETY: the processor state to return to is that of `start` or what the CPU itself saved of EL0;
            // interrupts are masked.
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
                    in_cpu = false;
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
pub(crate) const SYSTEM_CALL: u64 = 0x15;
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
