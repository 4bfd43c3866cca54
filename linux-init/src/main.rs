//! The first program of a stock Linux: does the operations of our kernel's workloads in the same modes, reads
//! `/proc/interrupts` before and after, says what came out as records on the console, and switches the machine off.
//!
//! There is no libc: system calls are made directly ([`sys`]), so the program needs no toolchain but the kernel's own,
//! and is one static ELF file. Process 1 only sets Linux up and starts one process for each cell ([`cell`]).
#![cfg_attr(target_os = "none", no_std)]
#![cfg_attr(target_os = "none", no_main)]

macro_rules! for_linux_alone {
    ($(mod $name:ident;)*) => {$(
        #[cfg(target_os = "none")]
        mod $name;
    )*};
}
for_linux_alone! {
    mod board;
    mod cell;
    mod console;
    mod init;
    mod operation;
    mod sys;
    mod walker;
}

#[cfg(target_os = "none")]
pub(crate) use init::main_on_stack;

/// On a host it does nothing: it would change settings of the running system.
#[cfg(not(target_os = "none"))]
fn main() {
    eprintln!("this program is built for the machines by `cargo xtask linux`");
}
