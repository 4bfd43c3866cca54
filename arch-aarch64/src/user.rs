//! Access to user memory through this CPU's own translation, with the permissions of user mode.
//!
//! `LDTR` and `STTR` access memory as EL0 would: a kernel address is refused by the hardware, and so is a store to a
//! page that the user may not write. They work while `PSTATE.PAN` forbids everything else. A fault resumes behind the
//! access with the failure noted ([`crate::fixup`]).

use core::arch::asm;

use kernel::addr::VirtAddr;
use kernel::arch::UserFault;

/// Reads eight bytes at a user address.
#[inline]
pub fn read(va: VirtAddr) -> Result<u64, UserFault> {
    let value: u64;
    let failed: u64;
    // SAFETY: an unprivileged load reaches only what user mode may read, which no Rust object of the kernel lives in;
    // if it faults, the pair in `.fixup` resumes behind it with `failed` still 1.
    unsafe {
        asm!(
            "mov {failed}, #1",
            "77: ldtr {value}, [{va}]",
            "mov {failed}, #0",
            "78:",
            ".pushsection .fixup, \"a\"",
            ".quad 77b, 78b",
            ".popsection",
            va = in(reg) va.0,
            value = out(reg) value,
            failed = out(reg) failed,
            options(nostack, preserves_flags, readonly)
        );
    }
    if failed == 0 { Ok(value) } else { Err(UserFault) }
}

/// Writes eight bytes at a user address.
#[inline]
pub fn write(va: VirtAddr, value: u64) -> Result<(), UserFault> {
    let failed: u64;
    // SAFETY: as for `read`; the store changes only memory that user mode may write.
    unsafe {
        asm!(
            "mov {failed}, #1",
            "77: sttr {value}, [{va}]",
            "mov {failed}, #0",
            "78:",
            ".pushsection .fixup, \"a\"",
            ".quad 77b, 78b",
            ".popsection",
            va = in(reg) va.0,
            value = in(reg) value,
            failed = out(reg) failed,
            options(nostack, preserves_flags)
        );
    }
    if failed == 0 { Ok(()) } else { Err(UserFault) }
}
