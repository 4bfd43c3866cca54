//! Where the processor comes in: entry and exit of interrupts and exceptions, in assembly.
//!
//! All run with interrupts masked (the gates see to that) and with the direction flag cleared, since the memory routines set it for
//! a moment. Each leaves a frame record that names the interrupted instruction, so a backtrace goes through it.
//!
//! An ordinary interrupt and an NMI save what a function may change; their handlers preserve the rest. An exception saves every register
//! into a [`TrapFrame`]. It comes back only where the fault was fixed up, and then without IRET: IRET would unmask NMIs, and a fixed-up
//! fault in an NMI handler would let the next NMI overwrite the frame of the present one. All code is the kernel's, so the instruction
//! pointer, flags and stack pointer are all there is to restore.

use core::arch::{global_asm, naked_asm};
use core::mem::offset_of;

use crate::traps::{TrapFrame, on_call, on_exception, on_nmi, on_timer};

macro_rules! interrupt {
    ($name:ident, $handler:path) => {
        /// Entry and exit.
        #[unsafe(naked)]
        pub(crate) extern "C" fn $name() {
            naked_asm!(
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
                // The frame record: return address and caller's frame. 9 registers, 5 words from the processor, 2 here: aligned.
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
                handler = sym $handler,
            )
        }
    };
}
interrupt!(call, on_call);
interrupt!(timer, on_timer);
interrupt!(nmi, on_nmi);

/// An interrupt that was withdrawn before it was taken: not acknowledged.
#[unsafe(naked)]
pub(crate) extern "C" fn spurious() {
    naked_asm!("iretq")
}

/// All exceptions: vector and error code are on the stack, above them the processor's frame.
#[unsafe(naked)]
extern "C" fn exception() {
    naked_asm!(
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
        // Fixed up. Flags and instruction pointer go below the interrupted stack pointer, whose new value replaces the instruction
        // pointer's slot in the frame. The processor aligned the stack before it pushed, so none of the slots still needed lies there.
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
