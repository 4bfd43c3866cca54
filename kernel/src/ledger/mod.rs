//! The ledger: every interrupt, by cause; every sync that was left out; every invalidation.
//!
//! Counts are exact and are kept per CPU in plain words that only their CPU writes: the ledger adds no barrier to what
//! it observes. Interrupts are counted in targets (*wanted*), in vectors really raised, and in requests handled on the
//! target; syncs left out are counted in rounds.

pub mod events;
pub mod profile;
pub mod recorded;

use core::sync::atomic::{AtomicU64, Ordering};

/// Why one CPU interrupts another.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Cause {
    /// A flush after which no table changes hands.
    FlushPages = 0,
    /// A flush of freed or unshared tables.
    FlushTables = 1,
    /// A sync: wait for walkers.
    Sync = 2,
    /// Bring-up asks whether interrupts work.
    Online = 3,
    /// A job was given.
    Wake = 4,
}

/// How many causes there are.
pub const CAUSES: usize = 5;

/// Why a sync was left out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Elision {
    /// The strategy never syncs.
    Never = 0,
    /// A boolean fixed at boot says that flushes interrupt.
    StaticHook = 1,
    /// This flush was acknowledged by every CPU that can walk.
    Covered = 2,
    /// No CPU is walking the mm.
    NoWalker = 3,
    /// The table is not reused: a fresh one takes its place.
    FreshTable = 4,
    /// Walkers read through a recursive mapping, which the flush has taken from them.
    SelfMap = 5,
}

/// How many reasons there are.
pub const ELISIONS: usize = 6;

/// A count that only its CPU changes.
#[derive(Default)]
#[repr(transparent)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `n`.
    #[inline(always)]
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Ordering::Relaxed) + n, Ordering::Relaxed);
    }

    /// The count. From another CPU: a recent one.
    #[inline(always)]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// One CPU's counts.
#[derive(Default)]
pub struct Ledger {
    wanted: [Counter; CAUSES],
    vectors: [Counter; CAUSES],
    handled: [Counter; CAUSES],
    redundant: [Counter; CAUSES],
    elided: [Counter; ELISIONS],
    /// Invalidation instructions of this CPU: local ones, in handlers too, and broadcast ones.
    pub invalidations: Counter,
    /// Tables that this CPU reused or freed while a walk held them.
    pub missing_syncs: Counter,
    /// Walks that this CPU made.
    pub walks: Counter,
    /// Pages that they returned.
    pub pages: Counter,
    /// Of these, the ones that it pinned.
    pub pins: Counter,
    /// Faults that were injected on this CPU.
    pub injected: Counter,
    /// Violations that this CPU's ghost checks found.
    pub violations_ghost: Counter,
    /// Violations that this CPU's value checks found.
    pub violations_value: Counter,
    /// NMIs that this CPU took.
    pub nmis: Counter,
    /// What was noted at its flushes and decisions.
    pub recorded: recorded::Recorded,
}

/// Interrupts that one CPU took, by cause.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Taken {
    /// Requests to flush, of pages or tables.
    pub flush: u64,
    /// Requests to sync.
    pub sync: u64,
    /// NMIs.
    pub nmi: u64,
}

impl Taken {
    /// What was taken since `before`, added to `sum`.
    pub fn add_since(&self, before: &Taken, sum: &mut Taken) {
        sum.flush += self.flush - before.flush;
        sum.sync += self.sync - before.sync;
        sum.nmi += self.nmi - before.nmi;
    }
}

impl Ledger {
    /// `n` targets shall be interrupted.
    #[inline]
    pub fn wanted(&self, cause: Cause, n: u64) {
        self.wanted[cause as usize].add(n);
    }

    /// `n` vectors were raised.
    #[inline]
    pub fn vector(&self, cause: Cause, n: u64) {
        self.vectors[cause as usize].add(n);
    }

    /// This CPU served a request of cause number `cause`.
    #[inline]
    pub fn handled(&self, cause: u32) {
        self.handled[cause as usize].add(1);
    }

    /// `n` targets were interrupted for nothing, by the ground truth.
    pub fn redundant(&self, cause: Cause, n: u64) {
        self.redundant[cause as usize].add(n);
    }

    /// A round of sync was left out.
    pub fn elided(&self, reason: Elision) {
        self.elided[reason as usize].add(1);
    }

    /// The interrupts that this CPU has taken so far.
    pub fn taken(&self) -> Taken {
        let handled = |cause: Cause| self.handled[cause as usize].get();
        Taken {
            flush: handled(Cause::FlushPages) + handled(Cause::FlushTables),
            sync: handled(Cause::Sync),
            nmi: self.nmis.get(),
        }
    }

    /// The counts of this CPU, now.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot {
            flush_ipis: self.wanted[Cause::FlushPages as usize].get() + self.wanted[Cause::FlushTables as usize].get(),
            sync_ipis: self.wanted[Cause::Sync as usize].get(),
            syncs_elided: self.elided.iter().map(Counter::get).sum(),
            redundant_sync_ipis: self.redundant[Cause::Sync as usize].get(),
            missing_syncs: self.missing_syncs.get(),
            tlbi: self.invalidations.get(),
            vectors: [Cause::FlushPages, Cause::FlushTables, Cause::Sync]
                .iter()
                .map(|c| self.vectors[*c as usize].get())
                .sum(),
            handled: self.handled.iter().map(Counter::get).sum(),
            walks: self.walks.get(),
            pages: self.pages.get(),
            pins: self.pins.get(),
            injected: self.injected.get(),
            violations_ghost: self.violations_ghost.get(),
            violations_value: self.violations_value.get(),
        }
    }
}

macro_rules! snapshot {
    ($($(#[$doc:meta])* $field:ident),* $(,)?) => {
        /// Counts at one moment, or between two.
        #[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
        pub struct Snapshot { $($(#[$doc])* pub $field: u64,)* }
        impl Snapshot {
            /// What was counted since `before`.
            pub fn since(&self, before: &Snapshot) -> Snapshot {
                Snapshot { $($field: self.$field - before.$field,)* }
            }
            /// Both counts together.
            pub fn plus(&self, other: &Snapshot) -> Snapshot {
                Snapshot { $($field: self.$field + other.$field,)* }
            }
        }
    };
}

snapshot! {
    /// Targets of flush interrupts.
    flush_ipis,
    /// Targets of sync interrupts.
    sync_ipis,
    /// Rounds of sync left out.
    syncs_elided,
    /// Targets of sync interrupts that held nothing of concern.
    redundant_sync_ipis,
    /// Tables reused or freed while held.
    missing_syncs,
    /// Invalidation instructions.
    tlbi,
    /// Vectors raised for flushes and syncs.
    vectors,
    /// Requests served.
    handled,
    /// Walks made.
    walks,
    /// Pages returned by walks.
    pages,
    /// Of these, pinned.
    pins,
    /// Faults injected.
    injected,
    /// Violations by state.
    violations_ghost,
    /// Violations observed.
    violations_value,
}
