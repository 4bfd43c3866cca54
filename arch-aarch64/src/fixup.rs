//! Loads and stores that may fault, and where to go on when they do.
//!
//! Each such instruction puts a pair into the section `.fixup`: its own address and the address that continues after a
//! fault. The data-abort path looks there first (`trap`). A fault at any other place is a panic. The linker script
//! brackets the section with `__fixup_start` and `__fixup_end`.

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

/// Reads eight bytes of the kernel half that may not be mapped: for backtraces through memory that cannot be trusted.
pub fn probe(address: u64) -> Option<u64> {
    let value: u64;
    let failed: u64;
    // SAFETY: a load without a Rust object behind it; if it faults, the pair in `.fixup` resumes behind it with
    // `failed` still 1.
    unsafe {
        asm!(
            "mov {failed}, #1",
            "77: ldr {value}, [{address}]",
            "mov {failed}, #0",
            "78:",
            ".pushsection .fixup, \"a\"",
            ".quad 77b, 78b",
            ".popsection",
            address = in(reg) address,
            value = out(reg) value,
            failed = out(reg) failed,
            options(nostack, preserves_flags, readonly)
        );
    }
    (failed == 0).then_some(value)
}

/// Reads eight bytes at `at`; 0 where that faults. The way back from a fault lies apart, so that a load that succeeds
/// is one instruction.
///
/// `LDAR`, not `LDR` nor `LDAPR`: the addresses do not depend on each other's values, so nothing else keeps these loads
/// in order; and only `LDAR` waits for the store of an earlier release read-modify-write, which alone is no full
/// barrier here.
#[inline(always)]
pub fn load_or_zero(at: VirtAddr) -> u64 {
    let value: u64;
    // SAFETY: the load has no effect but on `value`; if it faults, the pair in `.fixup` resumes at the code that sets
    // `value` and jumps behind it. Not `pure`: each call reads anew, in the order of the program.
    unsafe {
        asm!(
            "77: ldar {value}, [{at}]",
            "78:",
            ".pushsection .text.fixup, \"ax\"",
            "79: mov {value}, xzr",
            "b 78b",
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
