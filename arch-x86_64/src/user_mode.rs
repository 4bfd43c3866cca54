//! Ring 3: a thread's registers, the way there and the way back.
//!
//! While a context runs, the kernel's stack pointer for traps from ring 3 (RSP0) is the end of its [`TrapFrame`]: the processor pushes its frame right where it
//! belongs, and the entry code pushes the general registers below. Then the kernel goes on behind the call of [`enter`], on its own stack, as if that had
//! returned. There is one kernel stack per CPU and nothing of a thread is ever on it.
//!
//! - **System calls** come by SYSCALL and go back by SYSRET; everything else goes back by IRET. First the kernel's short way is asked ([`ask`]): registers are saved and it is called, on the kernel's stack as
//!   [`enter`] left it. What it says to go on with goes back at once; if that is nothing, [`enter`] returns.
//! - **SYSRET to an address that is not canonical** faults in ring 0 with the user's stack pointer. No SYSCALL ends the user half: programs have nothing mapped in its last page. What else is not in the
//!   user half never gets that far, see [`X86Context::enter`].
//! - **GS** is the kernel's in ring 0, but for the few instructions before the first SWAPGS and behind the last. Only an NMI can come there (interrupts are masked, the
//!   code cannot fault, its own traps are off), and it looks at the GS base itself ([`crate::stubs`]). User mode cannot change its base to one that looks like
//!   the kernel's: FSGSBASE is off.
//! - **Flags**: SYSCALL clears those of [`SYSCALL_MASK`]. A gate leaves AC as it was, which would lift SMAP, so the entry sets all flags anew.
//! - **Floating-point and SIMD registers** (x87 and SSE; XSAVE is off, so there is nothing beyond FXSAVE) stay in the CPU over system calls, since the kernel
//!   does not use them, and are saved when the thread leaves the CPU: [`UserContext::park`].

use core::arch::{asm, naked_asm};
use core::mem::offset_of;
use core::ptr::NonNull;
use core::sync::atomic::Ordering;

use kernel::addr::VirtAddr;
use kernel::task::fast::{self, Next};
use kernel::task::user::{Access, ExceptionKind, UserContext, UserEvent};
use x86_64::registers::control::Cr2;
use x86_64::registers::model_specific::{Efer, EferFlags, KernelGsBase, LStar, SFMask, Star};
use x86_64::registers::rflags::RFlags;
use x86_64::structures::idt::PageFaultErrorCode;

use crate::cpu_area::{self, FRAME_END, KERNEL_STACK, TASK_STATE, USER_STACK};
use crate::descriptors::{KERNEL_CODE, KERNEL_DATA, PRIVILEGED_STACK, USER_CODE, USER_DATA};
use crate::X86;
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
        if self.in_cpu {
            self.save_vectors();
        }
    }

    #[inline(always)]
    fn change_over(from: &mut X86Context, to: &mut X86Context) {
        from.save_vectors();
        to.load_vectors();
        let end = (&raw mut *to).cast::<u8>().wrapping_add(FRAME_BYTES);
        // SAFETY: RSP0 and its copy say where the frame of the thread ends that is in ring 3 next; interrupts are masked until it is.
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
        // SAFETY: 512 bytes, aligned to 16; CR4.OSFXSR is set. The kernel has no use of these registers, so they are still this thread's.
        unsafe { asm!("fxsave64 [{}]", in(reg) &raw mut self.vector_registers, options(nostack, preserves_flags)) };
        self.in_cpu = false;
    }

    #[inline(always)]
    fn load_vectors(&mut self) {
        // SAFETY: 512 bytes, aligned to 16, that FXSAVE wrote or `start` made; nothing of the kernel is in these registers.
        unsafe { asm!("fxrstor64 [{}]", in(reg) &raw const self.vector_registers, options(nostack, preserves_flags)) };
        self.in_cpu = true;
    }

    /// [`kernel::arch::Arch::enter_user`].
    ///
    /// # Safety
    /// As there.
    #[inline]
    pub(crate) unsafe fn enter(context: NonNull<X86Context>) -> UserEvent {
        let context = context.as_ptr();
        {
            // SAFETY: the caller's promise. The reference ends before another may begin.
            let this = unsafe { &mut *context };
            if this.frame.rip >= USER_END.0 {
                return UserEvent::Fault { at: VirtAddr(this.frame.rip), access: Access::Execute };
            }
            if !this.in_cpu {
                this.load_vectors();
            }
        }
        // SAFETY: the frame's segments and privileged flags are those of `start` or what the processor itself saved of ring 3, and its instruction
        // pointer is canonical. This CPU has its area, and interrupts are masked.
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
const _: () = assert!(offset_of!(X86Context, frame) == 0);

/// The context whose frame the entries of this CPU fill.
fn stopped_context() -> *const X86Context {
    let end: usize;
    // SAFETY: reads this CPU's area.
    unsafe { asm!("mov {}, gs:[{}]", out(reg) end, const FRAME_END, options(readonly, nostack, preserves_flags)) };
    (end - FRAME_BYTES) as *const X86Context
}

/// The kernel's short way, for a thread that is stopped by SYSCALL: the context to go on with, or null.
unsafe extern "C" fn ask(context: NonNull<X86Context>) -> Next<X86Context> {
    // SAFETY: `system_call` has saved its registers; interrupts are masked.
    unsafe { fast::system_call::<X86>(context) }
}

/// Goes to ring 3 with the registers of `frame`, and returns when something has stopped it, or what came after it, with its registers in its frame, interrupts masked, flags clear.
///
/// # Safety
/// The frame is one of ring 3, its instruction pointer is in the user half; interrupts are masked; the CPU has its area. With `by_sysret` the frame is one of [`system_call`].
#[unsafe(naked)]
unsafe extern "C" fn enter(frame: *mut TrapFrame, by_sysret: bool) {
    naked_asm!(
        // The frame record of this call, at [`RECORD`] from the stack pointer that is kept.
        "push rbp",
        "mov rbp, rsp",
        "push rbx",
        "push r12",
        "push r13",
        "push r14",
        "push r15",
        "sub rsp, 8",
        "mov gs:[{kernel_stack}], rsp",
        "lea rax, [rdi + {bytes}]",
        "mov gs:[{frame_end}], rax",
        "mov rcx, gs:[{task_state}]",
        "mov [rcx + {privileged_stack}], rax",
        "test sil, sil",
        "jnz 2f",
        "mov rsp, rdi",
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
        "mov rax, rdi",
        "mov rdx, rdi",
        "jmp {go_back}",
        kernel_stack = const KERNEL_STACK,
        frame_end = const FRAME_END,
        task_state = const TASK_STATE,
        privileged_stack = const PRIVILEGED_STACK,
        bytes = const FRAME_BYTES,
        go_back = sym go_back,
    )
}

/// Where the record of the frame of [`enter`] is, from the stack pointer that it keeps.
const RECORD: usize = 48;

/// To ring 3 by SYSRET, with the registers of the frame at RAX, but for those of a message's words, which are of the frame at RDX.
#[unsafe(naked)]
extern "C" fn go_back() {
    naked_asm!(
        "mov r15, [rax + {r15}]",
        "mov r14, [rax + {r14}]",
        "mov r13, [rax + {r13}]",
        "mov r12, [rdx + {r12}]",
        "mov r10, [rdx + {r10}]",
        "mov r9, [rdx + {r9}]",
        "mov r8, [rdx + {r8}]",
        "mov rbp, [rax + {rbp}]",
        "mov rdi, [rax + {rdi}]",
        "mov rsi, [rdx + {rsi}]",
        "mov rbx, [rax + {rbx}]",
        "mov rdx, [rdx + {rdx}]",
        "mov rcx, [rax + {rip}]",
        "mov r11, [rax + {rflags}]",
        "mov rsp, [rax + {rsp}]",
        "mov rax, [rax + {rax}]",
        "swapgs",
        "sysretq",
        r15 = const offset_of!(TrapFrame, r15),
        r14 = const offset_of!(TrapFrame, r14),
        r13 = const offset_of!(TrapFrame, r13),
        r12 = const offset_of!(TrapFrame, r12),
        r10 = const offset_of!(TrapFrame, r10),
        r9 = const offset_of!(TrapFrame, r9),
        r8 = const offset_of!(TrapFrame, r8),
        rbp = const offset_of!(TrapFrame, rbp),
        rdi = const offset_of!(TrapFrame, rdi),
        rsi = const offset_of!(TrapFrame, rsi),
        rdx = const offset_of!(TrapFrame, rdx),
        rbx = const offset_of!(TrapFrame, rbx),
        rip = const offset_of!(TrapFrame, rip),
        rflags = const offset_of!(TrapFrame, rflags),
        rsp = const offset_of!(TrapFrame, rsp),
        rax = const offset_of!(TrapFrame, rax),
    )
}

/// Back to who called [`enter`], on its stack.
macro_rules! back {
    () => {
        "add rsp, 8\npop r15\npop r14\npop r13\npop r12\npop rbx\npop rbp\nret"
    };
}

/// Where SYSCALL leads. RCX and R11 are not the thread's any more; of the frame, what SYSCALL leaves as it was is there from before: segments.
#[unsafe(naked)]
extern "C" fn system_call() {
    naked_asm!(
        "swapgs",
        "mov gs:[{user_stack}], rsp",
        "mov rsp, gs:[{frame_end}]",
        "mov [rsp + {rip}], rcx",
        "mov rcx, gs:[{user_stack}]",
        "mov [rsp + {rflags}], r11",
        "mov [rsp + {user_rsp}], rcx",
        "mov [rsp + {rax}], rax",
        "mov [rsp + {rdi}], rdi",
        "mov [rsp + {rsi}], rsi",
        "mov [rsp + {rdx}], rdx",
        "mov [rsp + {r10}], r10",
        "mov [rsp + {r8}], r8",
        "mov [rsp + {r9}], r9",
        "mov [rsp + {r12}], r12",
        "mov [rsp + {rbx}], rbx",
        "mov [rsp + {rbp}], rbp",
        "mov [rsp + {r13}], r13",
        "mov [rsp + {r14}], r14",
        "mov [rsp + {r15}], r15",
        "lea rdi, [rsp - {bytes}]",
        "mov rsp, gs:[{kernel_stack}]",
        "lea rbp, [rsp + {record}]",
        "call {ask}",
        "test rax, rax",
        "jnz {go_back}",
        "mov rax, gs:[{frame_end}]",
        "mov qword ptr [rax + {vector}], {system_call}",
        back!(),
        user_stack = const USER_STACK,
        frame_end = const FRAME_END,
        kernel_stack = const KERNEL_STACK,
        bytes = const FRAME_BYTES,
        record = const RECORD,
        ask = sym ask,
        go_back = sym go_back,
        system_call = const SYSTEM_CALL,
        vector = const from_end(offset_of!(TrapFrame, vector)),
        rip = const from_end(offset_of!(TrapFrame, rip)),
        rflags = const from_end(offset_of!(TrapFrame, rflags)),
        user_rsp = const from_end(offset_of!(TrapFrame, rsp)),
        rax = const from_end(offset_of!(TrapFrame, rax)),
        rdi = const from_end(offset_of!(TrapFrame, rdi)),
        rsi = const from_end(offset_of!(TrapFrame, rsi)),
        rdx = const from_end(offset_of!(TrapFrame, rdx)),
        r10 = const from_end(offset_of!(TrapFrame, r10)),
        r8 = const from_end(offset_of!(TrapFrame, r8)),
        r9 = const from_end(offset_of!(TrapFrame, r9)),
        r12 = const from_end(offset_of!(TrapFrame, r12)),
        rbx = const from_end(offset_of!(TrapFrame, rbx)),
        rbp = const from_end(offset_of!(TrapFrame, rbp)),
        r13 = const from_end(offset_of!(TrapFrame, r13)),
        r14 = const from_end(offset_of!(TrapFrame, r14)),
        r15 = const from_end(offset_of!(TrapFrame, r15)),
    )
}

/// An offset in a frame, from its end.
const fn from_end(offset: usize) -> isize {
    offset as isize - FRAME_BYTES as isize
}

/// Where interrupts and exceptions of ring 3 go on: the stack is the context's frame, with vector and code on it.
#[unsafe(naked)]
pub(crate) extern "C" fn stopped() {
    naked_asm!(
        "swapgs",
        "push rax",
        "push rbx",
        "push rcx",
        "push rdx",
        "push rsi",
        "push rdi",
        "push rbp",
        "push r8",
        "push r9",
        "push r10",
        "push r11",
        "push r12",
        "push r13",
        "push r14",
        "push r15",
        "mov rsp, gs:[{kernel_stack}]",
        "push 2",
        "popfq",
        back!(),
        kernel_stack = const KERNEL_STACK,
    )
}

/// Where in a frame the code segment's selector is, counted from the vector: its lowest bits say which ring it was.
pub(crate) const RING: usize = offset_of!(TrapFrame, cs) - offset_of!(TrapFrame, vector);
