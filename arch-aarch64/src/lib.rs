//! AArch64 at EL1: everything that the core asks of this architecture ([`kernel::arch::Arch`]).
//!
//! The entry format ([`entry`]), the choice of TLB invalidation instructions ([`tlbi`]) and the addressing of
//! software-generated interrupts ([`sgi`]) are plain functions from values to values; they compile and are tested on
//! any host. Everything that executes a privileged instruction exists only in bare-metal builds.
//!
//! The machine that is assumed: ARMv8.1 with large-system atomics, 4 KiB granule, 48-bit addresses, a GICv3 without a
//! second security state (`GICD_CTLR.DS`), PSCI, the virtual timer, a PMUv3 cycle counter. Address space: `TTBR0` is
//! the user half of the current mm, `TTBR1` the kernel half, the same on every CPU and never switched (module
//! `kernel_map`).
#![no_std]

#[cfg(test)]
extern crate std;

pub mod entry;
pub mod firmware;
pub mod sgi;
pub mod tlbi;
pub mod tlbi_range;

/// This architecture.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Aarch64;

macro_rules! bare_metal {
    ($($(#[$attr:meta])* $vis:vis mod $name:ident;)*) => {$(
        #[cfg(all(target_arch = "aarch64", target_os = "none"))]
        $(#[$attr])*
        $vis mod $name;
    )*};
}
bare_metal! {
    mod boundary;
    pub mod counter;
    pub mod cpu_area;
    pub mod features;
    pub mod fixup;
    pub mod gic;
    pub mod kernel_map;
    mod memory;
    pub mod mmu;
    pub mod psci;
    pub mod timer;
    mod trap;
    pub mod user;
    pub mod user_entry;
    pub mod user_mode;
    pub mod vectors;
}
