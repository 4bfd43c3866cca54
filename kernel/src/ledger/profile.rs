//! One CPU's part of a cell's [`Profile`]: made of its events as they are written, so that a ring that is overwritten
//! loses nothing of it.
//!
//! Plain words that this CPU alone writes while an operation is under way; the CPU that operates reads and clears them
//! between cells, when the others have gone home. Like the ledger it adds no barrier to what it observes.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::addr::CpuId;
use crate::ledger::Cause;
use crate::record::event::{BY_NMI, Event, EventKind};
use crate::record::profile::{BUCKETS, PARTS, Profile, REASONS, ROLES, Role, bucket, line};

/// Walks that can be under way on one CPU: one, and one of an NMI in it.
const NESTED: usize = 2;
/// Handlers that can be under way: of the call doorbell, and of the NMI.
const DOORBELLS: usize = 2;

/// One CPU's part. All zero is one in which nothing is recorded.
pub struct CpuProfile {
    /// The part of the cell that is under way, from 1; 0 outside of operations, and where nothing is to be recorded.
    part: AtomicU32,
    durations: [[AtomicU32; BUCKETS]; ROLES],
    longest: [AtomicU64; ROLES],
    interrupted: [[AtomicU32; PARTS]; REASONS],
    /// When each walk under way began; 0 for one that is not to be recorded.
    walks: [AtomicU64; NESTED],
    depth: AtomicU32,
    /// The same of handlers.
    handlers: [AtomicU64; DOORBELLS],
    /// The same of the operation.
    operation: AtomicU64,
}

/// Adds 1, by a load and a store.
fn count(word: &AtomicU32) {
    word.store(word.load(Ordering::Relaxed).saturating_add(1), Ordering::Relaxed);
}

impl CpuProfile {
    /// Nothing is recorded.
    pub const fn new() -> CpuProfile {
        CpuProfile {
            part: AtomicU32::new(0),
            durations: [const { [const { AtomicU32::new(0) }; BUCKETS] }; ROLES],
            longest: [const { AtomicU64::new(0) }; ROLES],
            interrupted: [const { [const { AtomicU32::new(0) }; PARTS] }; REASONS],
            walks: [const { AtomicU64::new(0) }; NESTED],
            depth: AtomicU32::new(0),
            handlers: [const { AtomicU64::new(0) }; DOORBELLS],
            operation: AtomicU64::new(0),
        }
    }

    /// Says which part of the cell is under way; `None` outside of operations.
    pub fn set_part(&self, part: Option<usize>) {
        self.part.store(part.map_or(0, |part| part as u32 + 1), Ordering::Relaxed);
    }

    /// Takes notice of an event of this CPU.
    pub(super) fn note(&self, kind: EventKind, event: &Event) {
        let part = self.part.load(Ordering::Relaxed);
        let begun = if part == 0 { 0 } else { event.time };
        match kind {
            EventKind::OperationBegin => self.operation.store(begun, Ordering::Relaxed),
            EventKind::OperationEnd => self.lasted(Role::Initiator, &self.operation, event.time),
            EventKind::HandlerBegin => self.handlers[event.a as usize % DOORBELLS].store(begun, Ordering::Relaxed),
            EventKind::HandlerEnd => {
                self.lasted(Role::Responder, &self.handlers[event.a as usize % DOORBELLS], event.time)
            }
            EventKind::WalkBegin => {
                let depth = self.depth.load(Ordering::Relaxed);
                if let Some(walk) = self.walks.get(depth as usize) {
                    walk.store(begun, Ordering::Relaxed);
                }
                self.depth.store(depth + 1, Ordering::Relaxed);
            }
            EventKind::WalkEnd => {
                let depth = self.depth.load(Ordering::Relaxed).saturating_sub(1);
                self.depth.store(depth, Ordering::Relaxed);
                if let Some(walk) = self.walks.get(depth as usize) {
                    self.lasted(Role::Walker, walk, event.time);
                }
            }
            EventKind::Acknowledge if part != 0 => {
                let reason = match event.a {
                    cause if cause == Cause::FlushPages as u64 || cause == Cause::FlushTables as u64 => 0,
                    cause if cause == Cause::Sync as u64 => 1,
                    BY_NMI => 2,
                    _ => return,
                };
                count(&self.interrupted[reason][part as usize - 1]);
            }
            _ => {}
        }
    }

    /// What began at `begun` is over.
    fn lasted(&self, role: Role, begun: &AtomicU64, now: u64) {
        let since = begun.load(Ordering::Relaxed);
        if since == 0 {
            return;
        }
        begun.store(0, Ordering::Relaxed);
        let ticks = now.saturating_sub(since);
        count(&self.durations[role as usize][bucket(ticks)]);
        let longest = &self.longest[role as usize];
        longest.store(longest.load(Ordering::Relaxed).max(ticks), Ordering::Relaxed);
    }

    /// Moves what was recorded to the cell's `profile`, as CPU `cpu` of `cpus`, and begins anew. The CPU is at home.
    pub fn hand_over(&self, profile: &Profile, cpu: CpuId, cpus: usize) {
        for role in 0..ROLES {
            move_all(&self.durations[role], &profile.durations[role]);
            let longest = self.longest[role].swap(0, Ordering::Relaxed);
            profile.longest[role].fetch_max(longest, Ordering::Relaxed);
        }
        let mine = &profile.interrupted[line(cpu.index(), cpus)];
        for (from, to) in self.interrupted.iter().zip(mine) {
            move_all(from, to);
        }
    }
}

impl Default for CpuProfile {
    fn default() -> Self {
        CpuProfile::new()
    }
}

/// Adds what is in `from` to `to`, and clears it.
fn move_all(from: &[AtomicU32], to: &[AtomicU32]) {
    for (from, to) in from.iter().zip(to).filter(|(from, _)| from.load(Ordering::Relaxed) != 0) {
        to.store(to.load(Ordering::Relaxed).saturating_add(from.load(Ordering::Relaxed)), Ordering::Relaxed);
        from.store(0, Ordering::Relaxed);
    }
}
