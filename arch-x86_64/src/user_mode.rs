//! Ring 3: a thread's registers, the way there and the way back.
//!
//! While a context runs, the kernel's stack pointer for traps from ring 3 (RSP0) is the end of its [`TrapFrame`]: the
//! processor pushes its frame right where it belongs, and the entry code pushes the general registers below. Then the
//! kernel goes on behind the call of [`enter`], on its own stack, as if that had returned. There is one kernel stack
//! per CPU and nothing of a thread is ever on it.
//!
//! - **System calls** come by SYSCALL and go back by SYSRET; everything else goes back by IRET. First the kernel's
//!   short way is asked ([`crate::user_entry`]): registers are saved and it is called, on the kernel's stack as
//!   [`enter`] left it. What it finds to go on with goes back at once; if that is nothing, [`enter`] returns.
//! - **SYSRET to an address that is not canonical** faults in ring 0 with the user's stack pointer. No SYSCALL ends the
//!   user half: programs have nothing mapped in its last page. What else is not in the user half never gets that far,
//!   see [`X86Context::enter`].
//! - **GS** is the kernel's in ring 0, but for the few instructions before the first SWAPGS and behind the last. Only
//!   an NMI can come there (interrupts are masked, the code cannot fault, its own traps are off), and it looks at the
//!   GS base itself ([`crate::stubs`]). User mode cannot change its base to one that looks like the kernel's: FSGSBASE
//!   is off.
//! - **Flags**: SYSCALL clears those of [`SYSCALL_MASK`]. A gate leaves AC as it was, which would lift SMAP, so the
//!   entry sets all flags anew.
//! - **Floating-point and SIMD registers** (x87 and SSE; XSAVE is off, so there is nothing beyond FXSAVE) stay in the
//!   CPU over system calls, since the kernel does not use them, and are saved when the thread leaves the CPU:
//!   [`UserContext::park`].

use core::arch::asm;
use core::ptr::NonNull;
use core::sync::atomic::Ordering;

use kernel::addr::VirtAddr;
use kernel::task::user::{Access, ExceptionKind, UserContext, UserEvent};
use x86_64::registers::control::Cr2;
use x86_64::registers::model_specific::{Efer, EferFlags, KernelGsBase, LStar, SFMask, Star};
use x86_64::registers::rflags::RFlags;
use x86_64::structures::idt::PageFaultErrorCode;

use crate::cpu_area::{self, FRAME_END, TASK_STATE};
use crate::descriptors::{KERNEL_CODE, KERNEL_DATA, PRIVILEGED_STACK, USER_CODE, USER_DATA};
use crate::traps::{self, TrapFrame};
use crate::user::USER_END;
use crate::user_entry::{FRAME_BYTES, enter, stopped_context, system_call};

/// What the frame of a system call has for a vector.
pub(crate) const SYSTEM_CALL: u64 = 256;
/// Flags of a new thread: interrupts enabled, and the one that is always set.
const FIRST_FLAGS: u64 = 0x202;
/// x87 control word and SSE control register as after reset: all exceptions masked.
const X87_CONTROL: u16 = 0x37f;
const SSE_CONTROL: u32 = 0x1f80;

/// A thread's registers.
#[repr(C, align(16))]
pub struct X86Context {
    pub(crate) frame: TrapFrame,
    vector_registers: [u8; 512],
}

// The processor aligns the stack pointer to 16 before it pushes.
const _: () = assert!(size_of::<TrapFrame>().is_multiple_of(16));

impl UserContext for X86Context {
    fn start(entry: VirtAddr, stack: VirtAddr, argument: u64) -> X86Context {
        let mut vector_registers = [0; 512];
        vector_registers[..2].copy_from_slice(&X87_CONTROL.to_le_bytes());
        vector_registers[24..28].copy_from_slice(&SSE_CONTROL.to_le_bytes());
        let mut frame = TrapFrame::default();
        (frame.rip, frame.cs) = (entry.0, USER_CODE.into());
        (frame.rsp, frame.ss) = (stack.0, USER_DATA.into());
        (frame.rflags, frame.rdi) = (FIRST_FLAGS, argument);
        X86Context { frame, vector_registers }
    }

    #[inline]
    fn call(&self) -> [u64; 8] {
        let f = &self.frame;
        [f.rax, f.rdi, f.rsi, f.rdx, f.r10, f.r8, f.r9, f.r12]
    }

    #[inline]
    fn answer(&mut self, words: [u64; 8]) {
        let f = &mut self.frame;
        [f.rax, f.rdi, f.rsi, f.rdx, f.r10, f.r8, f.r9, f.r12] = words;
    }

    #[inline(always)]
    fn word(&self, n: usize) -> u64 {
        self.call()[n]
    }

    #[inline(always)]
    fn take_first(&mut self, first: u64) {
        (self.frame.rax, self.frame.rdi) = (0, first);
    }

    fn take_words(&mut self, from: &X86Context) {
        let (f, t) = (&from.frame, &mut self.frame);
        (t.rsi, t.rdx, t.r10) = (f.rsi, f.rdx, f.r10);
        (t.r8, t.r9, t.r12) = (f.r8, f.r9, f.r12);
    }

    fn park(&mut self) {
        self.save_vectors();
    }

    #[inline(always)]
    fn change_over(from: &mut X86Context, to: &mut X86Context) {
        from.save_vectors();
        to.load_vectors();
        let end = (&raw mut *to).cast::<u8>().wrapping_add(FRAME_BYTES);
        // SAFETY: RSP0 and its copy say where the frame of the thread ends that is in ring 3 next; interrupts are
        // masked until it is.
        unsafe {
            asm!(
                "mov gs:[{frame_end}], {end}", "mov {t}, gs:[{task_state}]", "mov [{t} + {privileged_stack}], {end}",
                end = in(reg) end, t = out(reg) _, frame_end = const FRAME_END, task_state = const TASK_STATE,
                privileged_stack = const PRIVILEGED_STACK, options(nostack, preserves_flags)
            )
        };
    }
}

impl X86Context {
    #[inline(always)]
    fn save_vectors(&mut self) {
        // SAFETY: 512 bytes, aligned to 16; CR4.OSFXSR is set. The kernel has no use of these registers, so they are
        // still this thread's.
        unsafe { asm!("fxsave64 [{}]", in(reg) &raw mut self.vector_registers, options(nostack, preserves_flags)) };
    }

    #[inline(always)]
    fn load_vectors(&self) {
        // SAFETY: 512 bytes, aligned to 16, that FXSAVE wrote or `start` made; nothing of the kernel is in these
        // registers.
        unsafe { asm!("fxrstor64 [{}]", in(reg) &raw const self.vector_registers, options(nostack, preserves_flags)) };
    }

    /// [`kernel::arch::Arch::enter_user`].
    ///
    /// # Safety
    /// As there.
    #[inline]
    pub(crate) unsafe fn enter(context: NonNull<X86Context>, in_cpu: bool) -> UserEvent {
        let context = context.as_ptr();
        {
            // SAFETY: the caller's promise. The reference ends before another may begin.
            let this = unsafe { &*context };
            if !in_cpu {
                this.load_vectors();
            }
            if this.frame.rip >= USER_END.0 {
                return UserEvent::Fault { at: VirtAddr(this.frame.rip), access: Access::Execute };
            }
        }
        // SAFETY: the frame's segments and privileged flags are those of `start` or what the processor itself saved of
        // ring 3, and its instruction pointer is canonical. This CPU has its area, and interrupts are masked.
        let stopped = unsafe {
            let by_sysret = (*context).frame.vector == SYSTEM_CALL;
            enter(&raw mut (*context).frame, by_sysret);
            &*stopped_context()
        };
        if stopped.frame.vector == SYSTEM_CALL { UserEvent::Call } else { stopped.event() }
    }

    /// What stopped it, other than a system call.
    fn event(&self) -> UserEvent {
        let at = VirtAddr(self.frame.rip);
        let exception = |kind| UserEvent::Exception { kind, at };
        match self.frame.vector {
            traps::PAGE_FAULT => {
                let code = PageFaultErrorCode::from_bits_retain(self.frame.code);
                // Not the program's own access but one that the processor makes for it with the kernel's rights, of a
                // descriptor or, in QEMU, of the stack of an IRET: no mapping would ever allow it.
                if !code.contains(PageFaultErrorCode::USER_MODE) {
                    return exception(ExceptionKind::Protection);
                }
                let access = if code.contains(PageFaultErrorCode::INSTRUCTION_FETCH) {
                    Access::Execute
                } else if code.contains(PageFaultErrorCode::CAUSED_BY_WRITE) {
                    Access::Write
                } else {
                    Access::Read
                };
                // Still that fault's: what comes in between (an NMI) puts it back.
                UserEvent::Fault { at: VirtAddr(Cr2::read_raw()), access }
            }
            0 | 16 | 19 => exception(ExceptionKind::Arithmetic),
            1 | 3 => exception(ExceptionKind::Breakpoint),
            6 | 7 => exception(ExceptionKind::InvalidInstruction),
            17 => exception(ExceptionKind::Misaligned),
            // A gate that user mode may not use, a privileged instruction, an address that is not canonical.
            vector @ ..32 => {
                debug_assert!(vector < 32);
                exception(ExceptionKind::Protection)
            }
            vector => {
                traps::on_interrupt(vector as u8);
                UserEvent::Interrupt
            }
        }
    }
}

/// What SYSCALL clears: interrupts and traps off, strings upwards, no alignment checks (which would lift SMAP), no
/// nested task.
const SYSCALL_MASK: RFlags = RFlags::INTERRUPT_FLAG
    .union(RFlags::TRAP_FLAG)
    .union(RFlags::DIRECTION_FLAG)
    .union(RFlags::ALIGNMENT_CHECK)
    .union(RFlags::NESTED_TASK)
    .union(RFlags::IOPL_LOW)
    .union(RFlags::IOPL_HIGH);

/// Makes SYSCALL and SWAPGS of this CPU do what this module expects. Its segments are loaded.
pub fn init_cpu() {
    let selector = |raw| x86_64::structures::gdt::SegmentSelector(raw);
    let (code, data) = (selector(USER_CODE), selector(USER_DATA));
    Star::write(code, data, selector(KERNEL_CODE), selector(KERNEL_DATA))
        .expect("the segments are in the order that SYSRET wants");
    LStar::write(x86_64::VirtAddr::from_ptr(system_call as *const ()));
    SFMask::write(SYSCALL_MASK);
    KernelGsBase::write(x86_64::VirtAddr::zero());
    // SAFETY: where SYSCALL leads is set.
    unsafe { Efer::update(|flags| flags.insert(EferFlags::SYSTEM_CALL_EXTENSIONS)) };
    // Relaxed: only this CPU reads it.
    let task_state = crate::descriptors::task_state_here();
    cpu_area::this().arch.task_state.store(task_state, Ordering::Relaxed);
}
