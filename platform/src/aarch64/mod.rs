//! QEMU's `virt` machine: from the ELF entry with the MMU off to [`kernel::boot::run`].
//!
//! `entry` turns the MMU on, `start` finds the machine out from the devicetree and hands it over. The devicetree's interpretation
//! ([`devicetree`], checked beforehand by [`blob`]) is plain code over bytes, compiled and tested on the host too.

pub mod blob;
pub mod devicetree;

#[cfg(target_os = "none")]
pub mod entry;
#[cfg(target_os = "none")]
pub mod memory;
#[cfg(target_os = "none")]
pub mod semihosting;
#[cfg(target_os = "none")]
pub mod start;
#[cfg(target_os = "none")]
pub mod uart;
