//! System calls: eight words in, eight words out.
//!
//! x86_64: the number in RAX, arguments in RDI, RSI, RDX, R10, R8, R9, R12; the status comes back in RAX and the words
//! where the arguments were; RCX and R11 are lost. aarch64: `SVC #0`, the number in X8, arguments in X0 to X6; the
//! status comes back in X0 and the words in X1 to X7; X9 to X17 are lost. Everything else is as it was.

use crate::abi::{Number, Status};

/// Calls the kernel with up to seven arguments, and returns the status and up to seven words.
#[inline(always)]
pub fn raw(number: u64, arguments: [u64; 7]) -> [u64; 8] {
    #[cfg(all(target_os = "none", target_arch = "x86_64"))]
    {
        let [mut a, mut b, mut c, mut d, mut e, mut f, mut g] = arguments;
        let mut status = number;
        // SAFETY: the kernel changes the registers named here and nothing else, and memory only as the call says: the
        // compiler assumes that it may be any.
        unsafe {
            core::arch::asm!(
                "syscall",
                inout("rax") status, inout("rdi") a, inout("rsi") b, inout("rdx") c, inout("r10") d, inout("r8") e,
                inout("r9") f, inout("r12") g, out("rcx") _, out("r11") _, options(nostack)
            )
        };
        [status, a, b, c, d, e, f, g]
    }
    #[cfg(all(target_os = "none", target_arch = "aarch64"))]
    {
        let [mut a, mut b, mut c, mut d, mut e, mut f, mut g] = arguments;
        let last;
        // SAFETY: as above.
        unsafe {
            core::arch::asm!(
                "svc #0",
                in("x8") number, inout("x0") a, inout("x1") b, inout("x2") c, inout("x3") d, inout("x4") e,
                inout("x5") f, inout("x6") g, out("x7") last, out("x9") _, out("x10") _, out("x11") _, out("x12") _,
                out("x13") _, out("x14") _, out("x15") _, out("x16") _, out("x17") _, options(nostack)
            )
        };
        [a, b, c, d, e, f, g, last]
    }
    #[cfg(not(target_os = "none"))]
    {
        let _ = (number, arguments);
        unreachable!("there is no kernel below")
    }
}

/// The status of an answer; a number that is none stands for [`Status::BadNumber`].
pub fn status(answer: &[u64; 8]) -> Status {
    Status::from_number(answer[0]).unwrap_or(Status::BadNumber)
}

/// In a loop that waits for another CPU: lets that one go on. QEMU turns to it only here, or when a timer fires, and
/// `core::hint::spin_loop` is another instruction on aarch64.
#[inline(always)]
pub fn relax() {
    #[cfg(all(target_os = "none", target_arch = "aarch64"))]
    // SAFETY: a hint.
    unsafe {
        core::arch::asm!("yield", options(nomem, nostack))
    };
    #[cfg(not(all(target_os = "none", target_arch = "aarch64")))]
    core::hint::spin_loop();
}

/// Ends the calling thread.
pub fn exit(status: u64) -> ! {
    loop {
        raw(Number::Exit as u64, [status, 0, 0, 0, 0, 0, 0]);
    }
}
