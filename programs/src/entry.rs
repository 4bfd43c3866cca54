//! The first instructions, and the last.

#[cfg(target_os = "none")]
use core::arch::naked_asm;

#[cfg(target_os = "none")]
use crate::{call, exit};

#[cfg(target_os = "none")]
unsafe extern "C" {
    /// What [`crate::program!`] makes.
    safe fn program(argument: u64) -> u64;
}

/// The kernel enters here, with the argument in the first register and the end of the stack in the stack pointer.
#[cfg(target_os = "none")]
#[unsafe(no_mangle)]
#[unsafe(naked)]
#[unsafe(link_section = ".text._start")]
extern "C" fn _start() -> ! {
    #[cfg(target_arch = "x86_64")]
    naked_asm!("xor ebp, ebp", "call {first}", "ud2", first = sym first);
    #[cfg(target_arch = "aarch64")]
    naked_asm!("mov x29, #0", "mov x30, #0", "bl {first}", "brk #0", first = sym first);
}

#[cfg(target_os = "none")]
extern "C" fn first(argument: u64) -> ! {
    call::exit(program(argument))
}

#[cfg(target_os = "none")]
#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    call::exit(exit::PANIC | info.location().map_or(0, |at| u64::from(at.line())))
}
