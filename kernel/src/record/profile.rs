//! What one cell took, and when: how long operations, walks and handlers lasted, who was interrupted, and how much
//! memory waited for a grace period.
//!
//! Times are ticks of [`crate::arch::Arch::instructions`]: under `-icount`, instructions of the whole machine, one CPU
//! of which runs at a time, in the checking image, whose oracles and events are among them. They compare strategies;
//! they are no cost of a kernel without oracles, and no time of any hardware.

use core::sync::atomic::{AtomicU32, AtomicU64};

/// Durations up to this one have a bucket each; above, there are so many buckets for each power of two, so that a
/// bucket is at most 1/32 of its value wide.
pub const FINE: usize = 32;
/// Buckets: [`FINE`], and as many for each power of two up to 2^32.
pub const BUCKETS: usize = FINE * 28;

/// Whose durations are told apart: the index in [`Profile::durations`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(usize)]
pub enum Role {
    /// An operation, from its begin to its end: what the CPU that changes tables takes, its waits included.
    Initiator = 0,
    /// A handler of a call or of an NMI, from its begin to its end: what is taken from the CPU that is interrupted.
    Responder = 1,
    /// A walk, from its begin to its end.
    Walker = 2,
}

/// How many roles there are.
pub const ROLES: usize = 3;
/// Their names, by number.
pub const ROLE_NAMES: [&str; ROLES] = ["initiator", "responder", "walker"];

/// The most parts that the operations of a cell are divided into, in their order; a cell of fewer operations has a part
/// for each.
pub const PARTS: usize = 64;
/// The most lines of the map of interrupts: on a machine of more CPUs neighbours share one.
pub const LINES: usize = 16;
/// Why a CPU was interrupted, as far as the map tells it apart.
pub const REASONS: usize = 3;
/// Their names, by number: a flush, a sync, and an NMI that plays a broadcast.
pub const REASON_NAMES: [&str; REASONS] = ["flush", "sync", "nmi"];

/// What is recorded of one cell. All zero where nothing is: [`Profile::parts`] says so.
#[repr(C, align(64))]
pub struct Profile {
    /// How many durations of each role were in each bucket.
    pub durations: [[AtomicU32; BUCKETS]; ROLES],
    /// The longest of each role.
    pub longest: [AtomicU64; ROLES],
    /// Requests that were served at interrupt level while an operation was under way: by line of CPUs, reason and part.
    pub interrupted: [[[AtomicU32; PARTS]; REASONS]; LINES],
    /// The most frames that waited for a grace period at the end of an operation, by part.
    pub waiting: [AtomicU32; PARTS],
    /// When the last operation of each part ended, in ticks since the first began.
    pub ends: [AtomicU64; PARTS],
    /// Parts in use.
    pub parts: AtomicU32,
    /// Lines in use.
    pub lines: AtomicU32,
}

impl Profile {
    /// Nothing was recorded.
    pub const fn new() -> Profile {
        Profile {
            durations: [const { [const { AtomicU32::new(0) }; BUCKETS] }; ROLES],
            longest: [const { AtomicU64::new(0) }; ROLES],
            interrupted: [const { [const { [const { AtomicU32::new(0) }; PARTS] }; REASONS] }; LINES],
            waiting: [const { AtomicU32::new(0) }; PARTS],
            ends: [const { AtomicU64::new(0) }; PARTS],
            parts: AtomicU32::new(0),
            lines: AtomicU32::new(0),
        }
    }
}

impl Default for Profile {
    fn default() -> Self {
        Profile::new()
    }
}

/// The bucket that a duration belongs to.
pub fn bucket(ticks: u64) -> usize {
    let ticks = ticks.min(u32::MAX.into());
    match ticks.checked_ilog2() {
        Some(power) if ticks >= FINE as u64 => {
            let shift = power - FINE.ilog2();
            shift as usize * FINE + (ticks >> shift) as usize
        }
        _ => ticks as usize,
    }
}

/// The shortest duration of a bucket.
pub fn shortest(bucket: usize) -> u64 {
    match bucket {
        0..FINE => bucket as u64,
        _ => ((FINE + bucket % FINE) as u64) << (bucket / FINE - 1),
    }
}

/// The part that operation `op` of `ops` belongs to.
pub fn part(op: u64, ops: u64) -> usize {
    (op * ops.min(PARTS as u64) / ops.max(1)) as usize
}

/// The line of CPU `cpu` of `cpus`.
pub fn line(cpu: usize, cpus: usize) -> usize {
    cpu * cpus.min(LINES) / cpus.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_duration_has_a_bucket_that_begins_at_most_a_32nd_below_it() {
        let some = (0..100_000).chain((17..=32).flat_map(|power| [(1 << power) - 1, 1 << power, (1 << power) + 1]));
        for ticks in some.filter(|ticks| *ticks <= u64::from(u32::MAX)) {
            let least = shortest(bucket(ticks));
            assert!(bucket(ticks) < BUCKETS && least <= ticks && ticks - least <= ticks / 32, "{ticks}: {least}");
        }
        assert_eq!((bucket(31), bucket(32), bucket(63), bucket(64), bucket(65), bucket(66)), (31, 32, 63, 64, 64, 65));
        assert_eq!((bucket(u64::MAX), shortest(BUCKETS - 1)), (BUCKETS - 1, 63 << 26));
    }

    #[test]
    fn buckets_are_in_order_and_none_is_left_out() {
        assert!((0..BUCKETS).all(|index| bucket(shortest(index)) == index));
        assert!((1..BUCKETS).all(|index| shortest(index) > shortest(index - 1)));
    }

    #[test]
    fn operations_and_cpus_are_spread_over_what_there_is() {
        assert_eq!((0..3).map(|op| part(op, 3)).collect::<alloc::vec::Vec<_>>(), [0, 1, 2]);
        assert_eq!((part(0, 256), part(3, 256), part(4, 256), part(255, 256)), (0, 0, 1, 63));
        assert_eq!((line(3, 4), line(16, 17), line(511, 512), line(31, 512)), (3, 15, 15, 0));
    }
}
