//! QEMU's `virt` machine: from the ELF entry with the MMU off to [`crate::start`].
//!
//! `entry` turns the MMU on, `boot` finds the machine out from the devicetree ([`firmware::devicetree`]) and hands it
//! over. What the rest of the image asks of this module is listed in the crate's text.

mod boot;
mod console;
mod entry;
mod memory;
mod semihosting;

use core::arch::asm;

use arch_aarch64::{cpu_area, fixup, kernel_map};
use kernel::addr::PhysAddr;

pub(crate) use arch_aarch64::Aarch64 as Native;
pub(crate) use console::write as console_write;
pub(crate) use semihosting::exit;

unsafe extern "C" {
    static __text_start: u8;
    static __code_end: u8;
}

/// The calling CPU's dense number, once it has its area.
pub(crate) fn cpu_number() -> Option<u16> {
    (cpu_area::address() != 0).then(|| cpu_area::this().id.0)
}

/// The caller's frame pointer.
#[inline(always)]
pub(crate) fn frame_pointer() -> usize {
    let x29: usize;
    // SAFETY: reads a register.
    unsafe { asm!("mov {}, x29", out(reg) x29, options(nomem, nostack, preserves_flags)) };
    x29
}

/// Reads a word that may not be mapped.
pub(crate) fn probe(address: usize) -> Option<usize> {
    fixup::probe(address as u64).map(|word| word as usize)
}

/// Whether the image has code at `address`.
pub(crate) fn in_code(address: usize) -> bool {
    (&raw const __text_start as usize..&raw const __code_end as usize).contains(&address)
}

/// Where an object of the image lies.
pub(crate) fn physical<T>(object: &'static T) -> PhysAddr {
    kernel_map::physical(object)
}
