//! Leaving QEMU with an exit code: the only way there is on this machine. PSCI's power-off always exits with 0.

use core::arch::asm;
use core::sync::atomic::{AtomicBool, Ordering};

use arch_aarch64::psci;
use kernel::boot::ExitCode;

/// `SYS_EXIT_EXTENDED`.
pub(super) const EXIT: u64 = 0x20;
/// `ADP_Stopped_ApplicationExit`.
pub(super) const APPLICATION_EXIT: u64 = 0x20026;

/// The semihosting call was tried. Loads and stores only, no read-modify-write: see [`super::boot`].
static TRIED: AtomicBool = AtomicBool::new(false);

/// Ends QEMU with status `code`.
///
/// Where QEMU runs without `-semihosting` the instruction is undefined: its exception panics, comes here again and
/// turns the machine off, with the meaningless status 0.
pub(crate) fn exit(code: ExitCode) -> ! {
    // Relaxed: the second visit is by the CPU of the first; another CPU that leaves at the same time may turn off as
    // well.
    if TRIED.load(Ordering::Relaxed) {
        psci::turn_off(super::boot::conduit());
    }
    TRIED.store(true, Ordering::Relaxed);
    let block = [APPLICATION_EXIT, code as u64];
    // SAFETY: the block lives across the call, which reads it and does not return.
    unsafe { asm!("hlt #0xf000", inout("x0") EXIT => _, in("x1") block.as_ptr(), options(nostack)) };
    loop {
        // SAFETY: waits.
        unsafe { asm!("wfi", options(nomem, nostack)) };
    }
}
