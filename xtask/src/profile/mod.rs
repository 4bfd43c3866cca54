//! What a guest recorded of a cell ([`kernel::record::profile`]): as the runner keeps it, and what rows and files say
//! of it.

pub(crate) mod table;

use std::mem::offset_of;

use kernel::record::profile::{self as record, BUCKETS, LINES, PARTS, REASONS, ROLES, Role};
use serde::{Deserialize, Serialize};

/// A cell's profile. Ticks are instructions of the whole machine in the checking image.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Profile {
    /// How long operations took: the least of each bucket, and how many were in it. Ascending, without empty ones.
    pub(crate) initiator: Vec<(u64, u32)>,
    /// How long handlers took.
    pub(crate) responder: Vec<(u64, u32)>,
    /// How long walks took.
    pub(crate) walker: Vec<(u64, u32)>,
    /// The longest of each, in this order.
    pub(crate) longest: [u64; ROLES],
    /// Requests served at interrupt level: for each line of CPUs, by part of the cell.
    pub(crate) interrupted: Vec<Interrupted>,
    /// The most frames that waited for a grace period, by part of the cell.
    pub(crate) waiting: Vec<u32>,
    /// When each part of the cell ended, in ticks since its first operation began.
    pub(crate) ends: Vec<u64>,
}

/// What interrupted the CPUs of one line.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Interrupted {
    /// Flushes, by part of the cell.
    pub(crate) flush: Vec<u32>,
    /// Syncs.
    pub(crate) sync: Vec<u32>,
    /// NMIs that play a broadcast.
    pub(crate) nmi: Vec<u32>,
}

/// What a row says of its profile in numbers of its own; `None` where there was nothing to measure.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Summary {
    initiator_ticks_median: Option<u64>,
    initiator_ticks_p99: Option<u64>,
    initiator_ticks_longest: Option<u64>,
    responder_ticks_median: Option<u64>,
    responder_ticks_p99: Option<u64>,
    responder_ticks_longest: Option<u64>,
    walker_ticks_median: Option<u64>,
    walker_ticks_p99: Option<u64>,
    walker_ticks_longest: Option<u64>,
    most_frames_waiting: Option<u32>,
}

impl Profile {
    /// Reads the guest's record; `None` where nothing was recorded.
    pub(crate) fn read(bytes: &[u8]) -> Option<Profile> {
        let word = |at: usize| u32::from_le_bytes(std::array::from_fn(|i| bytes[at + i]));
        let long = |at: usize| u64::from_le_bytes(std::array::from_fn(|i| bytes[at + i]));
        let words = |at: usize, count: usize| (0..count).map(|i| word(at + 4 * i)).collect::<Vec<u32>>();
        let parts = (word(offset_of!(record::Profile, parts)) as usize).min(PARTS);
        let lines = (word(offset_of!(record::Profile, lines)) as usize).min(LINES);
        if parts == 0 {
            return None;
        }
        let durations = |role: Role| -> Vec<(u64, u32)> {
            let counts = words(offset_of!(record::Profile, durations) + 4 * BUCKETS * role as usize, BUCKETS);
            let filled = counts.into_iter().enumerate().filter(|(_, count)| *count > 0);
            filled.map(|(bucket, count)| (record::shortest(bucket), count)).collect()
        };
        let interrupted = |line: usize| {
            let of = |reason: usize| {
                words(offset_of!(record::Profile, interrupted) + 4 * PARTS * (REASONS * line + reason), parts)
            };
            Interrupted { flush: of(0), sync: of(1), nmi: of(2) }
        };
        Some(Profile {
            initiator: durations(Role::Initiator),
            responder: durations(Role::Responder),
            walker: durations(Role::Walker),
            longest: std::array::from_fn(|role| long(offset_of!(record::Profile, longest) + 8 * role)),
            interrupted: (0..lines).map(interrupted).collect(),
            waiting: words(offset_of!(record::Profile, waiting), parts),
            ends: (0..parts).map(|part| long(offset_of!(record::Profile, ends) + 8 * part)).collect(),
        })
    }

    /// The durations of a role.
    pub(crate) fn durations(&self, role: Role) -> &[(u64, u32)] {
        match role {
            Role::Initiator => &self.initiator,
            Role::Responder => &self.responder,
            Role::Walker => &self.walker,
        }
    }

    /// The least of the bucket in which so many of a thousand durations lie, or below it.
    pub(crate) fn quantile(&self, role: Role, thousandths: u64) -> Option<u64> {
        let durations = self.durations(role);
        let all: u64 = durations.iter().map(|(_, count)| u64::from(*count)).sum();
        let wanted = (all * thousandths).div_ceil(1000);
        let mut below = 0;
        durations.iter().find_map(|(ticks, count)| {
            below += u64::from(*count);
            (below >= wanted).then_some(*ticks)
        })
    }

    /// The longest duration of a role.
    pub(crate) fn longest(&self, role: Role) -> Option<u64> {
        (!self.durations(role).is_empty()).then(|| self.longest[role as usize])
    }

    /// In numbers.
    pub(crate) fn summary(&self) -> Summary {
        let median = |role| self.quantile(role, 500);
        let p99 = |role| self.quantile(role, 990);
        Summary {
            initiator_ticks_median: median(Role::Initiator),
            initiator_ticks_p99: p99(Role::Initiator),
            initiator_ticks_longest: self.longest(Role::Initiator),
            responder_ticks_median: median(Role::Responder),
            responder_ticks_p99: p99(Role::Responder),
            responder_ticks_longest: self.longest(Role::Responder),
            walker_ticks_median: median(Role::Walker),
            walker_ticks_p99: p99(Role::Walker),
            walker_ticks_longest: self.longest(Role::Walker),
            most_frames_waiting: self.waiting.iter().max().copied(),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// One with something of everything.
    pub(crate) fn some() -> Profile {
        Profile {
            initiator: vec![(1000, 3), (2000, 1)],
            responder: vec![(40, 12)],
            walker: vec![(100, 98), (120, 1), (900, 1)],
            longest: [2011, 40, 913],
            interrupted: vec![
                Interrupted { flush: vec![0; 4], sync: vec![0; 4], nmi: vec![0; 4] },
                Interrupted { flush: vec![1, 0, 1, 0], sync: vec![1; 4], nmi: vec![0; 4] },
            ],
            waiting: vec![0, 2, 3, 1],
            ends: vec![10, 20, 30, 45],
        }
    }

    #[test]
    fn quantiles_are_of_what_was_counted() {
        let profile = some();
        let of = |thousandths| profile.quantile(Role::Walker, thousandths);
        assert_eq!(
            (of(0), of(500), of(980), of(981), of(990), of(991)),
            (Some(100), Some(100), Some(100), Some(120), Some(120), Some(900))
        );
        assert_eq!(profile.quantile(Role::Initiator, 500), Some(1000));
        assert_eq!(Profile::default().quantile(Role::Walker, 500), None);
        assert_eq!((profile.longest(Role::Walker), Profile::default().longest(Role::Walker)), (Some(913), None));
    }

    #[test]
    fn the_record_is_read_where_it_was_written() {
        let mut bytes = vec![0; size_of::<record::Profile>()];
        assert_eq!(Profile::read(&bytes), None, "nothing was recorded");
        let mut put = |at: usize, value: u32| bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
        put(offset_of!(record::Profile, parts), 4);
        put(offset_of!(record::Profile, lines), 2);
        put(offset_of!(record::Profile, durations) + 4 * (2 * BUCKETS + record::bucket(100)), 7);
        put(offset_of!(record::Profile, longest) + 16, 101);
        put(offset_of!(record::Profile, interrupted) + 4 * (PARTS * (REASONS + 1) + 3), 5);
        put(offset_of!(record::Profile, waiting) + 4, 9);
        put(offset_of!(record::Profile, ends) + 24, 77);
        let profile = Profile::read(&bytes).unwrap();
        assert_eq!(profile.walker, [(record::shortest(record::bucket(100)), 7)]);
        assert_eq!(
            (profile.longest, &profile.waiting[..], &profile.ends[..]),
            ([0, 0, 101], &[0, 9, 0, 0][..], &[0, 0, 0, 77][..])
        );
        assert_eq!((profile.interrupted.len(), &profile.interrupted[1].sync[..]), (2, &[0, 0, 0, 5][..]));
        assert!(profile.interrupted[0].sync.iter().chain(&profile.interrupted[1].flush).all(|n| *n == 0));
    }
}
