//! Where the processor comes in: entry and exit of interrupts and exceptions, in assembly.
//!
//! All run with interrupts masked (the gates see to that) and with the direction flag cleared, since the memory
//! routines set it for a moment. Each leaves a frame record that names the interrupted instruction, so a backtrace goes
//! through it.
//!
//! An ordinary interrupt and an NMI save what a function may change; their handlers preserve the rest. An exception
//! saves every register into a [`TrapFrame`]. It comes back only where the fault was fixed up, and then without IRET:
//! IRET would unmask NMIs, and a fixed-up fault in an NMI handler would let the next NMI overwrite the frame of the
//! present one. All code is the kernel's, so the instruction pointer, flags and stack pointer are all there is to
//! restore.
//!
//! What comes from ring 3 finds the stack at the end of the thread's frame, and goes on in [`crate::user_mode`]: only
//! the NMI, which has a stack of its own, is handled here and returns to where it was. It cannot tell by the ring
//! whether GS is the kernel's: it may have come between an entry to ring 0 and its SWAPGS. So it reads the base.

use core::arch::{global_asm, naked_asm};
use core::mem::offset_of;

use crate::traps::{CALL_VECTOR, SPURIOUS_VECTOR, TIMER_VECTOR, TrapFrame, on_call, on_exception, on_nmi, on_timer};
use crate::user_entry::{RING, stopped};

/// Where the ring is before anything was pushed.
const RING_AT_ENTRY: usize = RING - 16;

macro_rules! interrupt {
    ($name:ident, $vector:path, $handler:path) => {
        /// Entry and exit.
        #[unsafe(naked)]
        pub(crate) extern "C" fn $name() {
            naked_asm!(
                "test byte ptr [rsp + {ring}], 3",
                "jnz 2f",
                "cld",
                "push rax",
                "push rcx",
                "push rdx",
                "push rsi",
                "push rdi",
                "push r8",
                "push r9",
                "push r10",
                "push r11",
                // The frame record: return address and caller's frame. 9 registers, 5 words from the processor, 2 here:
                // aligned.
                "push [rsp + 72]",
                "push rbp",
                "mov rbp, rsp",
                "call {handler}",
                "pop rbp",
                "add rsp, 8",
                "pop r11",
                "pop r10",
                "pop r9",
                "pop r8",
                "pop rdi",
                "pop rsi",
                "pop rdx",
                "pop rcx",
                "pop rax",
                "iretq",
                "2:",
                "push 0",
                "push {vector}",
                "jmp {stopped}",
                ring = const RING_AT_ENTRY,
                vector = const $vector as u64,
                stopped = sym stopped,
                handler = sym $handler,
            )
        }
    };
}
interrupt!(call, CALL_VECTOR, on_call);
interrupt!(timer, TIMER_VECTOR, on_timer);

/// An interrupt that was withdrawn before it was taken: not acknowledged.
#[unsafe(naked)]
pub(crate) extern "C" fn spurious() {
    naked_asm!(
        "test byte ptr [rsp + {ring}], 3",
        "jnz 2f",
        "iretq",
        "2:",
        "push 0",
        "push {vector}",
        "jmp {stopped}",
        ring = const RING_AT_ENTRY,
        vector = const SPURIOUS_VECTOR as u64,
        stopped = sym stopped,
    )
}

/// The NMI, from any code and on a stack of its own. RBX says whether GS was swapped; flags may be the user's, so they
/// are set anew.
#[unsafe(naked)]
pub(crate) extern "C" fn nmi() {
    naked_asm!(
        "push rax",
        "push rcx",
        "push rdx",
        "push rbx",
        "push rsi",
        "push rdi",
        "push r8",
        "push r9",
        "push r10",
        "push r11",
        // The frame record. 10 registers, 5 words from the processor, 2 here and 1 of padding: aligned.
        "push [rsp + 80]",
        "push rbp",
        "mov rbp, rsp",
        "push 2",
        "popfq",
        "sub rsp, 8",
        "xor ebx, ebx",
        "mov ecx, {gs_base}",
        "rdmsr",
        "test edx, edx",
        "js 2f",
        "swapgs",
        "inc ebx",
        "2:",
        "call {handler}",
        "test ebx, ebx",
        "jz 3f",
        "swapgs",
        "3:",
        "add rsp, 8",
        "pop rbp",
        "add rsp, 8",
        "pop r11",
        "pop r10",
        "pop r9",
        "pop r8",
        "pop rdi",
        "pop rsi",
        "pop rbx",
        "pop rdx",
        "pop rcx",
        "pop rax",
        "iretq",
        gs_base = const GS_BASE,
        handler = sym on_nmi,
    )
}

/// The model-specific register that is the GS base now.
const GS_BASE: u32 = 0xc000_0101;

/// All exceptions: vector and error code are on the stack, above them the processor's frame. One of ring 3 is the
/// thread's matter, but for a machine check.
#[unsafe(naked)]
extern "C" fn exception() {
    naked_asm!(
        "test byte ptr [rsp + {ring}], 3",
        "jz 2f",
        "cmp byte ptr [rsp], {machine_check}",
        "jne {stopped}",
        "swapgs",
        "2:",
        "cld",
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
        "mov rdi, rsp",
        // The frame record. 15 registers, vector, code, 5 words from the processor, 2 here: aligned.
        "push [rsp + {rip}]",
        "push rbp",
        "mov rbp, rsp",
        "call {handler}",
        "add rsp, 16",
        // Fixed up. Flags and instruction pointer go below the interrupted stack pointer, whose new value replaces the
        // instruction pointer's slot in the frame. The processor aligned the stack before it pushed, so none of the
        // slots still needed lies there.
        "mov rcx, [rsp + {rsp_slot}]",
        "mov rdx, [rsp + {rflags}]",
        "mov rax, [rsp + {rip}]",
        "sub rcx, 16",
        "mov [rsp + {rip}], rcx",
        "mov [rcx + 8], rax",
        "mov [rcx], rdx",
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
        "mov rsp, [rsp + 16]",
        "popfq",
        "ret",
        ring = const RING,
        machine_check = const 18,
        stopped = sym stopped,
        rip = const offset_of!(TrapFrame, rip),
        rflags = const offset_of!(TrapFrame, rflags),
        rsp_slot = const offset_of!(TrapFrame, rsp),
        handler = sym on_exception,
    )
}

// One entry of 16 bytes for each vector; those without an error code push 0 for it.
global_asm!(
    ".balign 16",
    ".global exception_stubs",
    "exception_stubs:",
    ".set vector, 0",
    ".rept 256",
    ".balign 16",
    ".if (vector == 8) || ((vector >= 10) && (vector <= 14)) || (vector == 17) || (vector == 21) || (vector == 29) || (vector == 30)",
    ".else",
    "push 0",
    ".endif",
    "push vector",
    "jmp {exception}",
    ".set vector, vector + 1",
    ".endr",
    exception = sym exception,
);

unsafe extern "C" {
    safe static exception_stubs: [[u8; 16]; 256];
}

/// The address of the entry that takes `vector` for an exception.
pub(crate) fn exception_entry(vector: u8) -> u64 {
    &raw const exception_stubs[vector as usize] as u64
}
