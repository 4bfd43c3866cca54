//! The root of the shared memory: where the rows, the rings and the per-CPU states are, and how the run stands.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::record::ring::RingHeader;

/// First word of [`Shared`] once the guest has filled it in.
pub const MAGIC: u64 = u64::from_le_bytes(*b"TLBSYNC\x01");
/// Version of everything under `record`; the runner refuses another one.
pub const VERSION: u32 = 6;

/// How the run stands; the value of [`Shared::state`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum RunState {
    /// Memory is as QEMU left it, or bring-up is under way.
    Booting = 0,
    /// Cells are being run.
    Running = 1,
    /// All cells ran; rows are complete.
    Finished = 2,
    /// The kernel panicked; [`Shared::message`] says why.
    Panicked = 3,
    /// The kernel refused what it was asked to do; [`Shared::message`] says why.
    Refused = 4,
}

impl RunState {
    /// The state with this number.
    pub fn from_number(n: u32) -> Option<RunState> {
        [RunState::Booting, RunState::Running, RunState::Finished, RunState::Panicked, RunState::Refused]
            .into_iter()
            .find(|s| *s as u32 == n)
    }
}

/// Bytes of [`Shared::message`].
pub const MESSAGE_BYTES: usize = 1024;
/// Return addresses of [`Shared::backtrace`].
pub const BACKTRACE_DEPTH: usize = 32;

/// The root. All `*_at` fields are physical addresses, 0 while not there.
#[repr(C, align(64))]
pub struct Shared {
    /// [`MAGIC`], written last during bring-up.
    pub magic: AtomicU64,
    /// [`VERSION`].
    pub version: AtomicU32,
    /// A [`RunState`].
    pub state: AtomicU32,
    /// Online CPUs.
    pub cpus: AtomicU32,
    /// Cells in the plan.
    pub cells_planned: AtomicU32,
    /// Rows complete in the array at `cells_at`.
    pub cells_done: AtomicU32,
    /// The CPU that panicked.
    pub panic_cpu: AtomicU32,
    /// Increases whenever any cell makes progress (an operation is done): the runner's hang detector.
    pub progress: AtomicU64,
    /// An array of [`crate::record::cell::CellRow`], `cells_planned` long.
    pub cells_at: AtomicU64,
    /// An array of [`crate::record::profile::Profile`], `cells_planned` long, if the run wants any.
    pub profiles_at: AtomicU64,
    /// An array of `cpus` [`CpuStatus`].
    pub status_at: AtomicU64,
    /// An array of `cpus` [`RingHeader`], the event rings.
    pub rings_at: AtomicU64,
    /// Bytes of `message` in use.
    pub message_len: AtomicU32,
    /// Entries of `backtrace` in use.
    pub backtrace_len: AtomicU32,
    /// Why the run ended, in UTF-8.
    pub message: [AtomicU64; MESSAGE_BYTES / 8],
    /// Return addresses of the panicking CPU, innermost first.
    pub backtrace: [AtomicU64; BACKTRACE_DEPTH],
    /// The byte ring of defmt frames.
    pub defmt: RingHeader,
}

/// What one CPU is doing, for the report of a hang.
#[repr(C, align(64))]
#[derive(Default)]
pub struct CpuStatus {
    /// A [`Doing`].
    pub doing: AtomicU32,
    /// The CPU that it waits for, or `u32::MAX`.
    pub waits_for: AtomicU32,
    /// Detail of `doing`: an address, a cell index.
    pub detail: AtomicU64,
    /// Pause points that it has crossed in this run, by the number of [`crate::scenario::Point`], one bit each; with
    /// `checking`.
    pub points: AtomicU64,
}

/// The value of [`CpuStatus::doing`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Doing {
    /// Never started.
    Offline = 0,
    /// Asleep until an interrupt.
    Idle = 1,
    /// Running a workload's operations.
    Operation = 2,
    /// Walking.
    Walk = 3,
    /// Waiting for a flush to be acknowledged.
    WaitFlush = 4,
    /// Waiting for a sync to be acknowledged.
    WaitSync = 5,
    /// Waiting for a grace period.
    WaitGrace = 6,
    /// Waiting for a lock.
    WaitLock = 7,
    /// Waiting for another CPU to come online.
    WaitOnline = 8,
    /// Waiting for other CPUs to reach a point of a workload.
    WaitWorkload = 9,
    /// Stopped by a panic.
    Dead = 10,
    /// Taking turns at programs in user mode.
    Programs = 11,
}

impl Doing {
    /// The activity with this number.
    pub fn from_number(n: u32) -> Option<Doing> {
        use Doing::*;
        let waits = [WaitFlush, WaitSync, WaitGrace, WaitLock, WaitOnline, WaitWorkload];
        let others = [Offline, Idle, Operation, Walk, Dead, Programs];
        waits.into_iter().chain(others).find(|d| *d as u32 == n)
    }

    /// In words, to stand after "cpu 3".
    pub fn in_words(self) -> &'static str {
        match self {
            Doing::Offline => "never came online",
            Doing::Idle => "is idle",
            Doing::Operation => "is in an operation",
            Doing::Walk => "is in a walk",
            Doing::WaitFlush => "waits for a flush to be acknowledged",
            Doing::WaitSync => "waits for a sync to be acknowledged",
            Doing::WaitGrace => "waits for a grace period",
            Doing::WaitLock => "waits for a lock",
            Doing::WaitOnline => "waits for a CPU to come online",
            Doing::WaitWorkload => "waits for other CPUs to reach the next step of the workload",
            Doing::Dead => "was stopped by the panic",
            Doing::Programs => "runs programs",
        }
    }
}

impl Shared {
    /// All zero: what the runner sees before the guest has started.
    #[allow(clippy::declare_interior_mutable_const)]
    pub const fn new() -> Shared {
        const ZERO64: AtomicU64 = AtomicU64::new(0);
        Shared {
            magic: AtomicU64::new(0),
            version: AtomicU32::new(0),
            state: AtomicU32::new(0),
            cpus: AtomicU32::new(0),
            cells_planned: AtomicU32::new(0),
            cells_done: AtomicU32::new(0),
            panic_cpu: AtomicU32::new(0),
            progress: AtomicU64::new(0),
            cells_at: AtomicU64::new(0),
            profiles_at: AtomicU64::new(0),
            status_at: AtomicU64::new(0),
            rings_at: AtomicU64::new(0),
            message_len: AtomicU32::new(0),
            backtrace_len: AtomicU32::new(0),
            message: [ZERO64; MESSAGE_BYTES / 8],
            backtrace: [ZERO64; BACKTRACE_DEPTH],
            defmt: RingHeader::new(),
        }
    }

    /// Records why the run ended; the last byte that fits is the last byte kept.
    pub fn set_message(&self, text: &str) {
        let bytes = &text.as_bytes()[..text.len().min(MESSAGE_BYTES)];
        for (word, chunk) in self.message.iter().zip(bytes.chunks(8)) {
            let mut le = [0; 8];
            le[..chunk.len()].copy_from_slice(chunk);
            word.store(u64::from_le_bytes(le), Ordering::Relaxed);
        }
        // Release: pairs with the runner's read of the length before the words (tests/litmus/hand-over).
        self.message_len.store(bytes.len() as u32, Ordering::Release);
    }

    /// Sets the run's state, after everything that it describes.
    pub fn set_state(&self, state: RunState) {
        // Release: pairs with the runner's read of the state before anything else (tests/litmus/hand-over).
        self.state.store(state as u32, Ordering::Release);
    }
}

impl Default for Shared {
    fn default() -> Self {
        Shared::new()
    }
}
