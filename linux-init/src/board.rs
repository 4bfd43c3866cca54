//! Memory that the processes of one cell share: who has come how far, and who may go on.

use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::*};

use linux_init::options::BATCH;

use crate::sys::memory::anywhere;
use crate::sys::{Failure, failure, now, process, relax};

/// The most CPUs of a machine.
pub(crate) const MOST_CPUS: usize = 512;
/// How long anybody is waited for, in nanoseconds of the machine's time.
const PATIENCE: u64 = 60_000_000_000;
/// How many rounds each walker does before the counters are read: what the preparation left for it to do is then done.
const ROUNDS: u64 = 4;

/// What one CPU other than the first does.
pub(crate) struct Seat {
    /// Rounds done.
    pub(crate) rounds: AtomicU64,
    /// Calls of `get_user_pages_fast` in them.
    pub(crate) walks: AtomicU64,
    /// The error number of what went wrong, and one more.
    pub(crate) wrong: AtomicU32,
}

/// The memory. Zeros are its beginning.
pub(crate) struct Board {
    seats: [Seat; MOST_CPUS],
    /// The cell is over: processes on other CPUs end.
    pub(crate) stop: AtomicBool,
    /// Processes that have their mappings.
    pub(crate) ready: AtomicU32,
    /// Each process of a batch of exits waits for its own to become 1.
    pub(crate) release: [AtomicU32; BATCH as usize],
    /// Processes that share a table sleep while it is 0.
    pub(crate) over: AtomicU32,
}

impl Board {
    /// Makes one, which processes started from now on have as well.
    pub(crate) fn new() -> Result<&'static Board, Failure> {
        let memory = anywhere(size_of::<Board>(), true)?;
        // SAFETY: the memory is zeroed, aligned to pages and never unmapped; zeros are valid for every atomic.
        Ok(unsafe { &*memory.as_ptr().cast() })
    }

    /// The seat of a CPU.
    pub(crate) fn seat(&self, cpu: u32) -> &Seat {
        &self.seats[cpu as usize]
    }

    /// Waits until `ready` is at least `n`. Its readers are on this CPU, so that giving way is what lets them run.
    pub(crate) fn wait_for_ready(&self, n: u32) -> Result<(), Failure> {
        let begin = now();
        // Acquire: pairs with the Release of whoever became ready.
        while self.ready.load(Acquire) < n {
            process::give_way();
            relax();
            if now() - begin > PATIENCE {
                return Err(failure("wait for another process to map its memory"));
            }
        }
        Ok(())
    }

    /// Waits until every CPU from 1 on has done some rounds from now on.
    pub(crate) fn settle(&self, cpus: u32) -> Result<(), Failure> {
        let begin = now();
        for cpu in 1..cpus {
            let seat = self.seat(cpu);
            let first = seat.rounds.load(Relaxed);
            while seat.rounds.load(Relaxed) < first + ROUNDS {
                match seat.wrong.load(Relaxed) {
                    0 => {}
                    n => return Err(Failure { step: "walk on another CPU", errno: n - 1 }),
                }
                relax();
                if now() - begin > PATIENCE {
                    return Err(failure("wait for another CPU to walk"));
                }
            }
        }
        Ok(())
    }

    /// Walks of all CPUs.
    pub(crate) fn walks(&self) -> u64 {
        self.seats.iter().map(|seat| seat.walks.load(Relaxed)).sum()
    }
}
