//! What a program needs to be one: the entry, the way into the kernel, what becomes of a panic.
//!
//! A program is a file in `src/bin`: a function that takes its first argument and returns its exit status, named by
//! [`program!`]. There is no allocator and nothing of an operating system; `docs/write-a-program.md` shows one from its
//! first line to its verdict.
#![no_std]

#[path = "../../kernel/src/abi/mod.rs"]
pub mod abi;
pub mod call;
pub mod compactor;
pub mod crowd;
mod entry;
pub mod first;
pub mod image;
pub mod kernel;
pub mod pager;
pub mod pingpong;
pub mod random;
pub mod server;
pub mod share;
pub mod vectors;

/// Exit statuses that mean the same in every program; those of a program's own are below.
pub mod exit {
    /// All is well.
    pub const DONE: u64 = 0;
    /// A panic; the line of the source is in the low half.
    pub const PANIC: u64 = 0xdead << 32;
    /// A check of [`crate::check!`] or [`crate::must!`] failed; the line of the source is in the low half, of the second
    /// below a byte with the status.
    pub const CHECK: u64 = 0xbad << 32;

    /// With a status.
    pub const fn refused(status: crate::abi::Status, line: u32) -> u64 {
        CHECK | (status as u64) << 24 | line as u64
    }
}

/// Makes `fn start(argument: u64) -> u64` the program: what it returns is its exit status.
#[macro_export]
macro_rules! program {
    ($start:path) => {
        #[cfg(target_os = "none")]
        #[unsafe(no_mangle)]
        extern "C" fn program(argument: u64) -> u64 {
            $start(argument)
        }

        #[cfg(not(target_os = "none"))]
        fn main() {
            let start: fn(u64) -> u64 = $start;
            panic!("{:p} runs on the kernel of this repository only; see docs/write-a-program.md", start)
        }
    };
}

/// In a process that another one made: unless `condition` holds, tells that by bits of `notification`, from which
/// [`failed`] reads the line, and ends the thread.
#[macro_export]
macro_rules! check_telling {
    ($notification:expr, $condition:expr) => {
        if !$condition {
            let _ = $crate::kernel::signal($notification, u64::from(line!()) << 40);
            $crate::call::exit($crate::exit::CHECK | u64::from(line!()))
        }
    };
}

/// The status to end with if one of the processes that signal `bits` has failed a check.
pub fn failed(bits: u64) -> Option<u64> {
    (bits >> 40 != 0).then_some(exit::CHECK | bits >> 40)
}

/// Ends the program with status [`exit::CHECK`] and the line, unless `condition` holds.
#[macro_export]
macro_rules! check {
    ($condition:expr) => {
        if !$condition {
            $crate::call::exit($crate::exit::CHECK | u64::from(line!()))
        }
    };
}

/// What a system call gives; if it gives an error, ends the program with status [`exit::CHECK`], the error and the line.
#[macro_export]
macro_rules! must {
    ($call:expr) => {
        match $call {
            Ok(given) => given,
            Err(status) => $crate::call::exit($crate::exit::refused(status, line!())),
        }
    };
}
