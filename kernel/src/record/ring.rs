//! A ring in shared memory: one writer, overwritten when full, and the reader can tell how much was lost.

use core::sync::atomic::{AtomicU64, Ordering};

/// Describes one ring. `written` only grows; byte `n` of the stream lies at `at + n % capacity`.
#[repr(C, align(64))]
#[derive(Default)]
pub struct RingHeader {
    /// Physical address of the first byte; 0 while the ring is not there.
    pub at: AtomicU64,
    /// Bytes; a power of two.
    pub capacity: AtomicU64,
    /// Bytes ever written.
    pub written: AtomicU64,
    /// Records that were not written because they would have come in the middle of another.
    pub dropped: AtomicU64,
}

impl RingHeader {
    /// A ring that is not there yet.
    pub const fn new() -> RingHeader {
        RingHeader {
            at: AtomicU64::new(0),
            capacity: AtomicU64::new(0),
            written: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
        }
    }

    /// How many bytes at the start of the stream are no longer there.
    pub fn overwritten(&self) -> u64 {
        // Acquire: pairs with the release of who writes (tests/litmus/hand-over).
        let written = self.written.load(Ordering::Acquire);
        written.saturating_sub(self.capacity.load(Ordering::Relaxed))
    }
}
