//! Access to memory through this CPU's own translation, where that may fail.
//!
//! User memory is reached only here. Where the CPU has SMAP the access is bracketed by STAC and CLAC. An interrupt in
//! between leaves the permission on for its handler, which is harmless: handlers do not touch user memory, and what
//! they return to has its own flags.

use core::arch::asm;

use kernel::addr::VirtAddr;
use kernel::arch::UserFault;

use crate::control::access_prevention;

/// First address above the user half.
pub const USER_END: VirtAddr = VirtAddr(0x0000_8000_0000_0000);

/// Reads eight bytes at a user address.
#[inline]
pub fn read(va: VirtAddr) -> Result<u64, UserFault> {
    check(va)?;
    permitted(|| load(va.0))
}

/// Writes eight bytes at a user address.
#[inline]
pub fn write(va: VirtAddr, value: u64) -> Result<(), UserFault> {
    check(va)?;
    permitted(|| store(va.0, value))
}

/// Reads eight bytes at any address that is no user address; `None` where that faults.
pub fn probe_kernel(va: VirtAddr) -> Option<u64> {
    load(va.0).ok()
}

/// Refuses what is not wholly in the user half: in kernel mode the hardware would not.
#[inline(always)]
fn check(va: VirtAddr) -> Result<(), UserFault> {
    if va.0 <= USER_END.0 - 8 { Ok(()) } else { Err(UserFault) }
}

/// Runs `access` with user memory accessible.
#[inline(always)]
fn permitted<R>(access: impl FnOnce() -> R) -> R {
    if !access_prevention() {
        return access();
    }
    // SAFETY: the CPU has the instruction (`access_prevention`); it only sets a flag.
    unsafe { asm!("stac", options(nostack)) };
    let result = access();
    // SAFETY: as above.
    unsafe { asm!("clac", options(nostack)) };
    result
}

#[inline(always)]
fn load(address: u64) -> Result<u64, UserFault> {
    let value: u64;
    let failed: u64;
    // SAFETY: the load has no effect but on registers; if it faults, the pair in `.fixup` resumes behind it with
    // `failed` still 1.
    unsafe {
        asm!(
            "mov {failed:e}, 1",
            "77: mov {value}, [{address}]",
            "mov {failed:e}, 0",
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
    if failed == 0 { Ok(value) } else { Err(UserFault) }
}

#[inline(always)]
fn store(address: u64, value: u64) -> Result<(), UserFault> {
    let failed: u64;
    // SAFETY: the caller checked that the address is in the user half, where no Rust object of the kernel lives; a
    // fault resumes as for `load`.
    unsafe {
        asm!(
            "mov {failed:e}, 1",
            "77: mov [{address}], {value}",
            "mov {failed:e}, 0",
            "78:",
            ".pushsection .fixup, \"a\"",
            ".quad 77b, 78b",
            ".popsection",
            address = in(reg) address,
            value = in(reg) value,
            failed = out(reg) failed,
            options(nostack, preserves_flags)
        );
    }
    if failed == 0 { Ok(()) } else { Err(UserFault) }
}
