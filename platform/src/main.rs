//! The bootable image: what is between the firmware and the core.
//!
//! The machine's own part is `machine` (`x86_64/`, `aarch64/`); everything else here is the same for both: the heap,
//! the serial log, the structured log, panics. The order is: the machine's entry code sets up paging, traps and the
//! serial port, finds memory and CPUs, and calls [`start`]; that hands over to [`kernel::boot::run`] and never comes
//! back.
//!
//! # What `machine` provides
//!
//! | item | contract |
//! |---|---|
//! | `type Native: Arch` | the architecture. Of it, `irq_save`, `irq_restore`, `relax` and `instructions` work from the first instruction of Rust on |
//! | `fn console_write(bytes: &[u8])` | puts bytes on the serial line; waits until they are taken; takes no lock (its callers have one) |
//! | `fn exit(code: ExitCode) -> !` | leaves the machine with that code, from any context |
//! | `fn cpu_number() -> Option<u16>` | the calling CPU's dense number; `None` on the boot CPU before it has its area. Other CPUs get their area before anything else |
//! | `fn frame_pointer() -> usize` | `#[inline(always)]`: the caller's frame pointer. At it lies the caller's caller's, and above that the return address |
//! | `fn probe(address: usize) -> Option<usize>` | reads a word that may not be mapped |
//! | `fn in_code(address: usize) -> bool` | whether the image has code there |
//! | `fn physical<T>(object: &'static T) -> PhysAddr` | where an object of the image lies |
//!
//! It calls [`start`] once, and may use `log` and the heap (of which [`heap::EARLY_BYTES`] are there from the first
//! instruction) before that.
#![cfg_attr(target_os = "none", no_std)]
#![cfg_attr(target_os = "none", no_main)]

#[cfg(target_os = "none")]
extern crate alloc;

macro_rules! bare_metal {
    ($($(#[$attribute:meta])* mod $name:ident;)*) => {$(
        #[cfg(target_os = "none")]
        $(#[$attribute])*
        mod $name;
    )*};
}
bare_metal! {
    mod console;
    mod heap;
    mod lock;
    #[cfg_attr(target_arch = "x86_64", path = "x86_64/mod.rs")]
    #[cfg_attr(target_arch = "aarch64", path = "aarch64/mod.rs")]
    mod machine;
    mod panic;
    mod start;
    #[cfg(feature = "defmt")]
    mod structured;
}

#[cfg(target_os = "none")]
pub(crate) use start::{Found, start};

#[cfg(target_os = "none")]
use kernel::record::shared::Shared;

/// The root of what the runner reads; it finds this symbol in the ELF file.
#[cfg(target_os = "none")]
#[unsafe(no_mangle)]
pub static SHARED: Shared = Shared::new();

/// On a host there is nothing to boot.
#[cfg(not(target_os = "none"))]
fn main() {
    eprintln!("this is the kernel's image; run it with `cargo xtask run`");
    std::process::exit(2);
}
