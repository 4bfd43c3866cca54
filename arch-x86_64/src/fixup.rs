//! Loads and stores that may fault, and where to go on when they do.
//!
//! Each such instruction puts a pair into the section `.fixup`: its own address and the address that continues after a
//! fault. Page faults and general-protection faults (a non-canonical address) look there before anything else
//! ([`crate::traps`]). A fault at any other place is a panic. The linker script brackets the section with
//! `__fixup_start` and `__fixup_end`.

use core::arch::asm;

use kernel::addr::VirtAddr;

/// One pair.
#[derive(Clone, Copy)]
#[repr(C)]
struct Fixup {
    access: u64,
    resume: u64,
}

unsafe extern "C" {
    static __fixup_start: Fixup;
    static __fixup_end: Fixup;
}

/// Where to go on after a fault of the instruction at `access`, if that is allowed to fault.
pub fn resume_address(access: u64) -> Option<u64> {
    let start = &raw const __fixup_start;
    let end = &raw const __fixup_end;
    // SAFETY: the linker script puts both symbols around an array of pairs, which nothing changes.
    let table = unsafe { core::slice::from_raw_parts(start, end.offset_from(start) as usize) };
    table.iter().find(|pair| pair.access == access).map(|pair| pair.resume)
}

/// Reads eight bytes at `at`; 0 where that faults. The way back from a fault lies apart, so that a load that succeeds
/// is one instruction.
///
/// Loads of this architecture are made in order, and not before an earlier locked instruction.
#[inline(always)]
pub fn load_or_zero(at: VirtAddr) -> u64 {
    let value: u64;
    // SAFETY: the load has no effect but on `value`; if it faults, the pair in `.fixup` resumes at the code that sets
    // `value` and jumps behind it. Not `pure`: each call reads anew, in the order of the program.
    unsafe {
        asm!(
            "77: mov {value}, [{at}]",
            "78:",
            ".pushsection .text.fixup, \"ax\"",
            "79: mov {value:e}, 0",
            "jmp 78b",
            ".popsection",
            ".pushsection .fixup, \"a\"",
            ".quad 77b, 79b",
            ".popsection",
            at = in(reg) at.0,
            value = out(reg) value,
            options(nostack, preserves_flags)
        );
    }
    value
}
