//! Ring 3: a thread's registers, the way there and the way back.
//!
//! While a context runs, the kernel's stack pointer for traps from ring 3 (RSP0) is the end of its [`TrapFrame`]: the processor pushes its frame right where it
//! belongs, and the entry code pushes the general registers below. Then the kernel goes on behind the call of [`enter`], on its own stack, as if that had
//! returned. There is one kernel stack per CPU and nothing of a thread is ever on it.
//!
//! - **System calls** come by SYSCALL and go back by SYSRET; everything else goes back by IRET. SYSRET to an address that is not canonical faults in ring
//!   0 with the user's stack pointer; an address that is not in the user half never gets that far, see [`X86Context::enter`]. That includes the one behind a SYSCALL that ends
//!   the user half.
//! - **GS** is the kernel's in ring 0, but for the few instructions before the first SWAPGS and behind the last. Only an NMI can come there (interrupts are masked, the
//!   code cannot fault, its own traps are off), and it looks at the GS base itself ([`crate::stubs`]). User mode cannot change its base to one that looks like
//!   the kernel's: FSGSBASE is off.
//! - **Flags**: SYSCALL clears those of [`SYSCALL_MASK`]. A gate leaves AC as it was, which would lift SMAP, so the entry sets all flags anew.
//! - **Floating-point and SIMD registers** (x87 and SSE; XSAVE is off, so there is nothing beyond FXSAVE) stay in the CPU over system calls, since the kernel
//!   does not use them, and are saved when the thread leaves the CPU: [`UserContext::park`].

use core::arch::{asm, naked_asm};
use core::mem::offset_of;
use core::sync::atomic::Ordering;

use kernel::addr::VirtAddr;
use kernel::task::user::{Access, ExceptionKind, UserContext, UserEvent};
use x86_64::registers::control::Cr2;
use x86_64::registers::model_specific::{Efer, EferFlags, KernelGsBase, LStar, SFMask, Star};
use x86_64::registers::rflags::RFlags;
use x86_64::structures::idt::PageFaultErrorCode;

use crate::cpu_area::{self, FRAME_END, KERNEL_STACK, TASK_STATE, USER_STACK};
use crate::descriptors::{KERNEL_CODE, KERNEL_DATA, PRIVILEGED_STACK, USER_CODE, USER_DATA};
use crate::traps::{self, TrapFrame};
use crate::user::USER_END;

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
    frame: TrapFrame,
    vector_registers: [u8; 512],
    /// The CPU that it ran on last has its floating-point and SIMD registers.
    in_cpu: bool,
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
        X86Context { frame, vector_registers, in_cpu: false }
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

    fn park(&mut self) {
        if self.in_cpu {
            // SAFETY: 512 bytes, aligned to 16; CR4.OSFXSR is set. The kernel has no use of these registers, so they are still this thread's.
            unsafe { asm!("fxsave64 [{}]", in(reg) &raw mut self.vector_registers, options(nostack, preserves_flags)) };
            self.in_cpu = false;
        }
    }
}

impl X86Context {
    /// [`kernel::arch::Arch::enter_user`].
    #[inline]
    pub(crate) fn enter(&mut self) -> UserEvent {
        if self.frame.rip >= USER_END.0 {
            return UserEvent::Fault { at: VirtAddr(self.frame.rip), access: Access::Execute };
        }
        if !self.in_cpu {
            // SAFETY: 512 bytes, aligned to 16, that FXSAVE wrote or `start` made; nothing of the kernel is in these registers.
            unsafe { asm!("fxrstor64 [{}]", in(reg) &raw const self.vector_registers, options(nostack, preserves_flags)) };
            self.in_cpu = true;
        }
        let by_sysret = self.frame.vector == SYSTEM_CALL;
        // SAFETY: the frame's segments and privileged flags are those of `start` or what the processor itself saved of ring 3, and its instruction
        // pointer is canonical. This CPU has its area, and interrupts are masked.
        unsafe { enter(&raw mut self.frame, by_sysret) };
        if self.frame.vector == SYSTEM_CALL { UserEvent::Call } else { self.event() }
    }

    /// What stopped it, other than a system call.
    fn event(&self) -> UserEvent {
        let at = VirtAddr(self.frame.rip);
        let exception = |kind| UserEvent::Exception { kind, at };
        match self.frame.vector {
            traps::PAGE_FAULT => {
                let code = PageFaultErrorCode::from_bits_retain(self.frame.code);
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

/// What SYSCALL clears: interrupts and traps off, strings upwards, no alignment checks (which would lift SMAP), no nested task.
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

const FRAME_BYTES: usize = size_of::<TrapFrame>();

/// Goes to ring 3 with the registers of `frame`, and returns when something has stopped it, with its registers in `frame`, interrupts masked, flags clear.
///
/// # Safety
/// The frame is one of ring 3, its instruction pointer is in the user half; interrupts are masked; the CPU has its area. With `by_sysret` the frame is one of [`system_call`].
#[unsafe(naked)]
unsafe extern "C" fn enter(frame: *mut TrapFrame, by_sysret: bool) {
    naked_asm!(
        "push rbx",
        "push rbp",
        "push r12",
        "push r13",
        "push r14",
        "push r15",
        "mov gs:[{kernel_stack}], rsp",
        "lea rax, [rdi + {bytes}]",
        "mov gs:[{frame_end}], rax",
        "mov rcx, gs:[{task_state}]",
        "mov [rcx + {privileged_stack}], rax",
        "mov rsp, rdi",
        "test sil, sil",
        "jnz 2f",
        "pop r15",
        "pop r14",
        "pop r13",
        "pop r12",
        "pop r11",
        "pop r10",
        "pop r9",
        "pop r8",
        "pop rbp",
        "pop rdi",
        "pop rsi",
        "pop rdx",
        "pop rcx",
        "pop rbx",
        "pop rax",
        "add rsp, 16",
        "swapgs",
        "iretq",
        "2:",
        "pop r15",
        "pop r14",
        "pop r13",
        "pop r12",
        "pop r11",
        "pop r10",
        "pop r9",
        "pop r8",
        "pop rbp",
        "pop rdi",
        "pop rsi",
        "pop rdx",
        "pop rcx",
        "pop rbx",
        "pop rax",
        "mov rcx, [rsp + 16]",
        "mov r11, [rsp + 32]",
        "mov rsp, [rsp + 40]",
        "swapgs",
        "sysretq",
        kernel_stack = const KERNEL_STACK,
        frame_end = const FRAME_END,
        task_state = const TASK_STATE,
        privileged_stack = const PRIVILEGED_STACK,
        bytes = const FRAME_BYTES,
    )
}

/// The registers below vector and code, then back to who called [`enter`].
macro_rules! leave {
    ($($flags:literal),*) => {
        concat!(
            "push rax\n", "push rbx\n", "push rcx\n", "push rdx\n", "push rsi\n", "push rdi\n", "push rbp\n", "push r8\n",
            "push r9\n", "push r10\n", "push r11\n", "push r12\n", "push r13\n", "push r14\n", "push r15\n",
            "mov rsp, gs:[{kernel_stack}]\n",
            $($flags, "\n",)*
            "pop r15\n", "pop r14\n", "pop r13\n", "pop r12\n", "pop rbp\n", "pop rbx\n",
            "ret",
        )
    };
}

/// Where SYSCALL leads.
#[unsafe(naked)]
extern "C" fn system_call() {
    naked_asm!(
        "swapgs",
        "mov gs:[{user_stack}], rsp",
        "mov rsp, gs:[{frame_end}]",
        "push {user_data}",
        "push gs:[{user_stack}]",
        "push r11",
        "push {user_code}",
        "push rcx",
        "push 0",
        "push {vector}",
        leave!(),
        user_stack = const USER_STACK,
        frame_end = const FRAME_END,
        kernel_stack = const KERNEL_STACK,
        user_data = const USER_DATA,
        user_code = const USER_CODE,
        vector = const SYSTEM_CALL,
    )
}

/// Where interrupts and exceptions of ring 3 go on: the stack is the context's frame, with vector and code on it.
#[unsafe(naked)]
pub(crate) extern "C" fn stopped() {
    naked_asm!("swapgs", leave!("push 2", "popfq"), kernel_stack = const KERNEL_STACK)
}

/// Where in a frame the code segment's selector is, counted from the vector: its lowest bits say which ring it was.
pub(crate) const RING: usize = offset_of!(TrapFrame, cs) - offset_of!(TrapFrame, vector);
