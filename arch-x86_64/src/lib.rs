//! x86_64 at ring 0: everything that the core asks of this architecture ([`kernel::arch::Arch`]).
//!
//! The entry format ([`entry`]), the choice of invalidation instructions ([`tlb`], [`invlpgb`]) and what CPUID says of
//! them ([`features`]) are plain functions from values to values; they compile and are tested on any host. Everything
//! that executes a privileged instruction exists only in bare-metal builds.
//!
//! The machine that is assumed: 4-level paging with NX, a local APIC in xAPIC mode whose timer counts at 1 GHz
//! (QEMU's), a time-stamp counter. Tags (PCID) and broadcast invalidation (INVLPGB) are used where CPUID says that they
//! exist.
//!
//! Address space, by top-level entry: 0 to 255 the user half of the current mm; 256 the direct map of all RAM; 384
//! kernel stacks; 510 the tables of the current mm (module [`tlb`]); 511 the image and the APIC's registers (module
//! `kernel_map`). All roots share the kernel half.
#![no_std]

#[cfg(all(target_arch = "x86_64", target_os = "none"))]
extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod entry;
pub mod features;
pub mod invlpgb;
pub mod tlb;

/// This architecture.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct X86;

macro_rules! bare_metal {
    ($($(#[$attr:meta])* $vis:vis mod $name:ident;)*) => {$(
        #[cfg(all(target_arch = "x86_64", target_os = "none"))]
        $(#[$attr])*
        $vis mod $name;
    )*};
}
bare_metal! {
    pub mod apic;
    mod boundary;
    pub mod control;
    pub mod cpu_area;
    pub mod descriptors;
    pub mod fixup;
    pub mod kernel_map;
    mod stubs;
    pub mod traps;
    pub mod user;
    pub mod user_entry;
    pub mod user_mode;
}
