//! The way to ring 3 and back, in assembly: what [`crate::user_mode`] says of registers, stacks and entries is done
//! here.

use core::arch::{asm, naked_asm};
use core::mem::offset_of;
use core::ptr::NonNull;

use kernel::task::fast::{self, Next};

use crate::X86;
use crate::cpu_area::{FRAME_END, KERNEL_STACK, TASK_STATE, USER_STACK};
use crate::descriptors::PRIVILEGED_STACK;
use crate::traps::TrapFrame;
use crate::user_mode::{SYSTEM_CALL, X86Context};

pub(crate) const FRAME_BYTES: usize = size_of::<TrapFrame>();
const _: () = assert!(offset_of!(X86Context, frame) == 0);

/// The context whose frame the entries of this CPU fill.
pub(crate) fn stopped_context() -> *const X86Context {
    let end: usize;
    // SAFETY: reads this CPU's area.
    unsafe { asm!("mov {}, gs:[{}]", out(reg) end, const FRAME_END, options(readonly, nostack, preserves_flags)) };
    (end - FRAME_BYTES) as *const X86Context
}

/// The kernel's short way, for a thread that is stopped by SYSCALL. It returns if that is not for this call; else it
/// goes on from here, and leaves what it has on the stack: the next entry begins at the same place.
unsafe extern "C" fn ask(context: NonNull<X86Context>) {
    // SAFETY: `system_call` has saved its registers; interrupts are masked.
    let Next { context, words, first } = unsafe { fast::system_call::<X86>(context) };
    if !context.is_null() {
        // SAFETY: a context that has been stopped by SYSCALL and that the CPU is made ready for, and one whose words
        // are its answer's.
        unsafe {
            asm!("jmp {}", sym go_back, in("rax") context, in("rdx") words, in("rdi") first, options(noreturn))
        }
    }
}

/// All registers but RAX and RDI of the frame at RAX, those of a message's words of the frame at RDX.
macro_rules! to_user {
    () => {
        concat!(
            "mov r15, [rax + {r15}]\nmov r14, [rax + {r14}]\nmov r13, [rax + {r13}]\nmov r12, [rdx + {r12}]\n",
            "mov r10, [rdx + {r10}]\nmov r9, [rdx + {r9}]\nmov r8, [rdx + {r8}]\nmov rbp, [rax + {rbp}]\n",
            "mov rsi, [rdx + {rsi}]\nmov rbx, [rax + {rbx}]\nmov rdx, [rdx + {rdx}]\nmov rcx, [rax + {rip}]\n",
            "mov r11, [rax + {rflags}]\nmov rsp, [rax + {rsp}]",
        )
    };
}

/// Goes to ring 3 with the registers of `frame`, and returns when something has stopped it, or what came after it, with
/// its registers in its frame, interrupts masked, flags clear.
///
/// # Safety
/// The frame is one of ring 3, its instruction pointer is in the user half; interrupts are masked; the CPU has its
/// area. With `by_sysret` the frame is one of [`system_call`].
#[unsafe(naked)]
pub(crate) unsafe extern "C" fn enter(frame: *mut TrapFrame, by_sysret: bool) {
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
        "mov rdi, [rax + {rdi}]",
        to_user!(),
        "mov rax, [rax + {rax}]",
        "swapgs",
        "sysretq",
        kernel_stack = const KERNEL_STACK,
        frame_end = const FRAME_END,
        task_state = const TASK_STATE,
        privileged_stack = const PRIVILEGED_STACK,
        bytes = const FRAME_BYTES,
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

/// Where the record of the frame of [`enter`] is, from the stack pointer that it keeps.
const RECORD: usize = 48;

/// To ring 3 by SYSRET, with the registers of the frame at RAX, but for those of a message's words, which are of the
/// frame at RDX. RAX is 0 then, which says that it is done, and RDI what it is now.
#[unsafe(naked)]
extern "C" fn go_back() {
    naked_asm!(
        to_user!(),
        "xor eax, eax",
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
        rsi = const offset_of!(TrapFrame, rsi),
        rdx = const offset_of!(TrapFrame, rdx),
        rbx = const offset_of!(TrapFrame, rbx),
        rip = const offset_of!(TrapFrame, rip),
        rflags = const offset_of!(TrapFrame, rflags),
        rsp = const offset_of!(TrapFrame, rsp),
    )
}

/// Back to who called [`enter`], on its stack.
macro_rules! back {
    () => {
        "add rsp, 8\npop r15\npop r14\npop r13\npop r12\npop rbx\npop rbp\nret"
    };
}

/// Where SYSCALL leads. RCX and R11 are not the thread's any more; of the frame, what SYSCALL leaves as it was is there
/// from before: segments.
#[unsafe(naked)]
pub(crate) extern "C" fn system_call() {
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
        "mov rax, gs:[{frame_end}]",
        "mov qword ptr [rax + {vector}], {system_call}",
        back!(),
        user_stack = const USER_STACK,
        frame_end = const FRAME_END,
        kernel_stack = const KERNEL_STACK,
        bytes = const FRAME_BYTES,
        record = const RECORD,
        ask = sym ask,
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
