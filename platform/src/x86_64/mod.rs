//! A PC as QEMU builds it (`microvm`, `q35`): from the PVH entry in 32-bit mode to [`kernel::boot::run`].
//!
//! `entry` turns paging on and gets to the high half; `start` reads what the firmware left, builds the kernel's own
//! page tables and hands over; `trampoline` brings the other CPUs there.

mod entry;
mod start;
mod trampoline;

use core::arch::asm;

use kernel::addr::VirtAddr;
use kernel::boot::ExitCode;
use uart_16550::backend::PioBackend;
use uart_16550::{Config, Uart16550};
use x86_64::instructions::{hlt, interrupts, port::Port};

use arch_x86_64::{X86, cpu_area, user};

/// The architecture.
pub(crate) type Native = X86;

/// The first serial port.
const SERIAL_PORT: u16 = 0x3f8;
/// Where QEMU's debug-exit device is put: it ends QEMU with status `2 * value + 1`.
const EXIT_PORT: u16 = 0xf4;

unsafe extern "C" {
    static __image_start: u8;
    static __text_start: u8;
    static __text_end: u8;
    static __rodata_start: u8;
    static __data_start: u8;
    static __image_end: u8;
}

/// The driver of the first serial port. It keeps nothing that matters, so each use makes its own.
fn serial() -> Uart16550<PioBackend> {
    // SAFETY: the port is the first serial port's by convention of the PC, and nothing else here uses it.
    match unsafe { Uart16550::new_port(SERIAL_PORT) } {
        Ok(port) => port,
        Err(_) => unreachable!("{SERIAL_PORT:#x} leaves room for the registers"),
    }
}

/// Sets the serial line's speed. Without a serial port nothing is printed, which is all that can be done about it.
fn init_serial() {
    let _ = serial().init(Config::default());
}

/// See the crate's text.
pub(crate) fn console_write(bytes: &[u8]) {
    serial().send_bytes_exact(bytes);
}

/// See the crate's text.
pub(crate) fn exit(code: ExitCode) -> ! {
    // SAFETY: the port is the debug-exit device's; where there is none, the write has no effect.
    unsafe { Port::new(EXIT_PORT).write(code as u32) };
    loop {
        interrupts::disable();
        hlt();
    }
}

/// See the crate's text.
pub(crate) fn cpu_number() -> Option<u16> {
    (cpu_area::address() != 0).then(|| cpu_area::this().id.0)
}

/// See the crate's text.
#[inline(always)]
pub(crate) fn frame_pointer() -> usize {
    let frame;
    // SAFETY: reads a register.
    unsafe { asm!("mov {}, rbp", out(reg) frame, options(nomem, nostack, preserves_flags)) };
    frame
}

/// See the crate's text.
pub(crate) fn probe(address: usize) -> Option<usize> {
    user::probe_kernel(VirtAddr(address as u64)).map(|word| word as usize)
}

/// See the crate's text.
pub(crate) fn in_code(address: usize) -> bool {
    (&raw const __text_start as usize..&raw const __text_end as usize).contains(&address)
}

/// See the crate's text. Only the structured log asks.
#[cfg(feature = "defmt")]
pub(crate) fn physical<T>(object: &'static T) -> kernel::addr::PhysAddr {
    arch_x86_64::kernel_map::image_physical(object as *const T as u64)
}
