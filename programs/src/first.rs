//! What the first process of a workload is given.

/// The slot of its own process.
pub const PROCESS: u64 = 0;
/// The slot of its first thread.
pub const THREAD: u64 = 1;
/// The slot of the module: all programs.
pub const MODULE: u64 = 2;
/// The slot of the meter: what is to be done, and where to say when it is.
pub const METER: u64 = 3;
/// The first slot that is empty; the table has 1024.
pub const FREE: u64 = 4;
/// The first of the slots of interrupt lines, up to the end of the table: behind it by `n` is the timer of CPU `n`, for
/// the first 64 CPUs.
pub const TIMERS: u64 = 960;
/// Its priority; up to 31 may be given to others.
pub const PRIORITY: u8 = 16;

/// What its first argument says.
#[derive(Clone, Copy)]
pub struct Told {
    /// Operations to do.
    pub ops: u64,
    /// Where all choices come from.
    pub seed: u64,
    /// CPUs of the machine.
    pub cpus: u64,
}

impl Told {
    /// Reads the argument.
    pub fn by(argument: u64) -> Told {
        Told { ops: argument & 0xffff_ffff, seed: argument >> 32 & 0xffff, cpus: argument >> 48 }
    }
}
