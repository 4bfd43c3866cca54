//! System calls, without a libc: what the machine does is in a file of its own for each, everything else is the same.
//!
//! A call that only names numbers is safe; one that touches memory is wrapped so that the memory is a slice or a range
//! that belongs to the caller ([`memory`]).

#[cfg_attr(target_arch = "x86_64", path = "x86_64.rs")]
#[cfg_attr(target_arch = "aarch64", path = "aarch64.rs")]
mod machine;

pub(crate) mod file;
pub(crate) mod memory;
pub(crate) mod process;

pub(crate) use machine::{relax, ticks, ticks_per_second};

use linux_raw_sys::general::{__NR_clock_gettime, CLOCK_MONOTONIC, timespec};

/// Why something was not done: which step, and the error number of the system call, 0 if it is not one's.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Failure {
    /// In words, to stand behind "could not".
    pub(crate) step: &'static str,
    /// As in `errno.h`.
    pub(crate) errno: u32,
}

/// A failure that is no system call's.
pub(crate) fn failure(step: &'static str) -> Failure {
    Failure { step, errno: 0 }
}

/// A system call, named for whoever reads of its failure.
///
/// # Safety
///
/// Pointers among the arguments must be valid for what the call does with them, and the call may not break what Rust
/// relies on.
unsafe fn call(step: &'static str, number: u32, arguments: &[usize]) -> Result<usize, Failure> {
    let mut all = [0; 6];
    all[..arguments.len()].copy_from_slice(arguments);
    // SAFETY: as the caller promises.
    let result = unsafe { machine::call(number, all) };
    if (-4095..0).contains(&result) {
        return Err(Failure { step, errno: result.unsigned_abs() as u32 });
    }
    Ok(result as usize)
}

/// Nanoseconds since the machine started.
pub(crate) fn now() -> u64 {
    let mut time = timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel writes one timespec to where one is.
    let _ = unsafe { call("read the clock", __NR_clock_gettime, &[CLOCK_MONOTONIC as usize, &raw mut time as usize]) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}
