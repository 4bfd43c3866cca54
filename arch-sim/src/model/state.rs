//! A state: one word per CPU, one for what is common, one for what the strategy has read so far.

use super::fields::packed;
use super::scenario::{MAX_CPUS, MmNumber};

/// Shown while a CPU changes over ([`kernel::tlb::switch::SWITCHING`]).
pub(crate) const SWITCHING: u8 = 7;

/// Where a CPU's walk is; also for the walk from an NMI.
pub(crate) mod walk {
    /// No walk.
    pub(crate) const NONE: u8 = 0;
    /// It has stored what it publishes; the barrier has not been passed.
    pub(crate) const PUBLISHED: u8 = 1;
    /// It is about to read the entry.
    pub(crate) const READING: u8 = 2;
    /// It has the table's address.
    pub(crate) const HOLDING: u8 = 3;
}

/// How far a CPU is in loading or unloading an mm.
pub(crate) mod switching {
    /// Not at all.
    pub(crate) const NONE: u8 = 0;
    /// It has said so; interrupts are masked.
    pub(crate) const SAID: u8 = 1;
    /// It has entered the mask.
    pub(crate) const IN_MASK: u8 = 2;
    /// It has done the first of: read the generation, load the root.
    pub(crate) const HALF: u8 = 3;
}

packed! {
    /// One CPU.
    CpuState {
        /// What memory says it has loaded: an mm, 0 or [`SWITCHING`].
        loaded / set_loaded: 3 at 0;
        /// What its hardware translates by.
        root / set_root: 2 at 3;
        /// It says that it is idle.
        lazy / set_lazy: 1 at 5;
        /// How many stores its buffer holds.
        buffered / set_buffered: 2 at 6;
        /// The oldest store in the buffer: one bit which word (0 slot, 1 loaded), three bits the value.
        store0 / set_store0: 4 at 8;
        /// The second oldest.
        store1 / set_store1: 4 at 12;
        /// The youngest.
        store2 / set_store2: 4 at 16;
        /// See [`walk`].
        walk / set_walk: 2 at 20;
        /// The mm that is walked.
        walk_mm / set_walk_mm: 2 at 22;
        /// The walk from an NMI.
        nested / set_nested: 2 at 24;
        /// See [`switching`].
        switch / set_switch: 2 at 26;
        /// The mm that is being loaded; 0 unloads.
        switch_to / set_switch_to: 2 at 28;
        /// The mm that was loaded before the switch, or is loaded.
        current / set_current: 2 at 30;
        /// The flush generation of the loaded mm that it has caught up with.
        generation / set_generation: 2 at 32;
        /// By mm: a translation through the table is cached.
        leaves / set_leaves: 3 at 34;
        /// By mm: the entry that points at the table is cached.
        tables / set_tables: 3 at 37;
        /// What memory says it has published: an mm, 0, or [`super::scenario::ANY`].
        slot / set_slot: 2 at 40;
        /// By mm: it is in the mask.
        mask / set_mask: 3 at 42;
        /// It has acknowledged the flush under way, or of the last one.
        acknowledged / set_acknowledged: 1 at 45;
        /// It could walk the table for an mm that left, and had not acknowledged.
        left_behind / set_left_behind: 1 at 46;
        /// A flush interrupt is pending.
        flush_ipi / set_flush_ipi: 1 at 47;
        /// A sync interrupt is pending.
        sync_ipi / set_sync_ipi: 1 at 48;
        /// A broadcast invalidation has not reached it yet.
        broadcast / set_broadcast: 1 at 49;
        /// The grace period under way waits for it.
        grace / set_grace: 1 at 50;
        /// The hypervisor does not run it.
        frozen / set_frozen: 1 at 51;
        /// It invalidates everything when it resumes.
        flush_on_resume / set_flush_on_resume: 1 at 52;
        /// It was in the mask of the last leaver when the strategy was asked.
        party / set_party: 1 at 53;
        /// The walk is under RCU with interrupts enabled.
        rcu / set_rcu: 1 at 54;
        /// The newest unlink that it has acknowledged, by taking an interrupt.
        seen_unlinks / set_seen_unlinks: 2 at 55;
        /// It was in the mask already of the mm that it is loading: it may have old translations of it.
        had_tags / set_had_tags: 1 at 57;
        /// The mm that the walk from an NMI walks.
        nested_mm / set_nested_mm: 2 at 58;
        /// What a walk that reads two words has read of them: see [`super::two_word`].
        reading / set_reading: 4 at 60;
    }
}

/// Which word a buffered store is for.
pub(crate) mod word {
    /// The slot.
    pub(crate) const SLOT: u8 = 0;
    /// What is loaded.
    pub(crate) const LOADED: u8 = 1;
}

impl CpuState {
    /// Room for one more store.
    pub(crate) fn can_store(self) -> bool {
        self.buffered() < 3
    }

    /// Puts a store into the buffer.
    pub(crate) fn store(&mut self, which: u8, value: u8) {
        let store = which << 3 | value;
        match self.buffered() {
            0 => self.set_store0(store),
            1 => self.set_store1(store),
            _ => self.set_store2(store),
        }
        self.set_buffered(self.buffered() + 1);
    }

    /// The oldest store reaches memory.
    pub(crate) fn write_back(&mut self) {
        let store = self.store0();
        if store >> 3 == word::LOADED {
            self.set_loaded(store & 7);
        } else {
            self.set_slot(store & 3);
        }
        self.set_store0(self.store1());
        self.set_store1(self.store2());
        self.set_store2(0);
        self.set_buffered(self.buffered() - 1);
    }

    /// The mm that its walk has published; 0 where it is in none.
    pub(crate) fn walk_shown(self) -> MmNumber {
        if self.walk() == walk::NONE { 0 } else { self.walk_mm() }
    }

    /// A full barrier: the buffer is empty afterwards.
    pub(crate) fn fence(&mut self) {
        while self.buffered() > 0 {
            self.write_back();
        }
    }

    /// Whether it takes ordinary interrupts now.
    pub(crate) fn takes_interrupts(self) -> bool {
        self.frozen() == 0
            && self.switch() == switching::NONE
            && self.nested() == walk::NONE
            && (self.walk() == walk::NONE || self.rcu() == 1)
    }

    /// Whether it is in the mask of `mm`.
    pub(crate) fn in_mask(self, mm: MmNumber) -> bool {
        self.mask() >> (mm - 1) & 1 != 0
    }

    /// Enters or leaves the mask of `mm`: a read-modify-write.
    pub(crate) fn change_mask(&mut self, mm: MmNumber, inside: bool) {
        self.fence();
        let bit = 1 << (mm - 1);
        self.set_mask(if inside { self.mask() | bit } else { self.mask() & !bit });
    }
}

/// How far the operation is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum Stage {
    /// The entry is as it was.
    Linked = 0,
    /// The first flush of the gather, of pages, begins.
    PagesBegun = 1,
    /// That flush waits for its targets.
    PagesWait = 2,
    /// The entry is cleared.
    Unlinked = 3,
    /// The flush has counted itself.
    FlushBegun = 4,
    /// The flush waits for its targets.
    FlushWait = 5,
    /// The flush is complete.
    Flushed = 6,
    /// The strategy is being asked; or, before the last mm leaves, the kernel records who could still walk for this
    /// one.
    Deciding = 7,
    /// Waits for sync interrupts.
    SyncWait = 8,
    /// Waits for a grace period before it uses the table again.
    GraceWait = 9,
    /// May use the table again.
    Drained = 10,
    /// The table waits for a grace period to be freed.
    Retired = 11,
    /// Over.
    Done = 12,
    /// The strategy wants another table to be used; not taken yet. Only where entries are read as two words.
    Fresh = 13,
    /// Waits for readers of two words, before the entry is filled again.
    ReadersWait = 14,
}

impl Stage {
    const ALL: [Stage; 15] = [
        Stage::Linked,
        Stage::PagesBegun,
        Stage::PagesWait,
        Stage::Unlinked,
        Stage::FlushBegun,
        Stage::FlushWait,
        Stage::Flushed,
        Stage::Deciding,
        Stage::SyncWait,
        Stage::GraceWait,
        Stage::Drained,
        Stage::Retired,
        Stage::Done,
        Stage::Fresh,
        Stage::ReadersWait,
    ];
}

/// What was violated.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Broken {
    /// The table was used again while a walk held it.
    ReusedWhileHeld = 1,
    /// The table was freed while a walk held it.
    FreedWhileHeld = 2,
    /// The table was used again, or freed, while a TLB or a paging-structure cache led through it.
    StaleTranslation = 3,
    /// Two valid entries for one address could be cached at once.
    Conflict = 4,
    /// A walk uses two words that were never one entry.
    TornEntry = 5,
}

impl Broken {
    /// In words.
    pub const fn in_words(self) -> &'static str {
        match self {
            Broken::ReusedWhileHeld => "the table is used again while a walk holds it",
            Broken::FreedWhileHeld => "the table is freed while a walk holds it",
            Broken::StaleTranslation => "the frame changes hands while a TLB or a paging-structure cache leads there",
            Broken::Conflict => "an old and a new entry for one address can be cached at once",
            Broken::TornEntry => "a walk uses two words that were one entry at no time",
        }
    }

    pub(crate) fn from_number(n: u8) -> Option<Broken> {
        use Broken::{Conflict, FreedWhileHeld, ReusedWhileHeld, StaleTranslation, TornEntry};
        [ReusedWhileHeld, FreedWhileHeld, StaleTranslation, Conflict, TornEntry].into_iter().find(|b| *b as u8 == n)
    }
}

packed! {
    /// What is common to all CPUs.
    Common {
        /// By mm: its entry points at the table, in memory.
        linked / set_linked: 3 at 0;
        /// The store that unlinks is still in the initiator's buffer.
        unlink_buffered / set_unlink_buffered: 1 at 3;
        /// See [`Stage`].
        stage_number / set_stage_number: 4 at 4;
        /// The mm that is leaving.
        leaver / set_leaver: 2 at 8;
        /// Flush generation of mm 1.
        generation1 / set_generation1: 2 at 10;
        /// Flush generation of mm 2.
        generation2 / set_generation2: 2 at 12;
        /// Flush generation of mm 3.
        generation3 / set_generation3: 2 at 14;
        /// How this flush goes, where the transport leaves that open: 1 by interrupt, 2 by broadcast, 3 both.
        way / set_way: 2 at 16;
        /// A flush of this gather has interrupted somebody.
        interrupted / set_interrupted: 1 at 18;
        /// See [`Broken`]; 0 for nothing.
        broken / set_broken: 3 at 19;
        /// The CPU that the violation is about.
        culprit / set_culprit: 2 at 22;
        /// How many answers the strategy has had.
        answers / set_answers: 4 at 28;
        /// By mm: it has unlinked the table.
        former / set_former: 3 at 32;
        /// The gather has flushed its pages.
        pages_flushed / set_pages_flushed: 1 at 35;
        /// How many unlinks there were.
        unlinks / set_unlinks: 2 at 36;
        /// By mm: where its entry pointed at the table, memory has another table, or a page of 2 MiB, by now. Kept only
        /// where entries are read as two words.
        filled / set_filled: 3 at 38;
        /// The table has changed hands, and who takes it up now violates this ([`Broken`]). Kept only there too.
        handed_over / set_handed_over: 2 at 41;
    }
}

impl Common {
    /// How far the operation is.
    pub(crate) fn stage(self) -> Stage {
        Stage::ALL[self.stage_number() as usize]
    }

    /// The operation is at `stage` now.
    pub(crate) fn set_stage(&mut self, stage: Stage) {
        self.set_stage_number(stage as u8);
    }

    /// The flush generation of `mm`.
    pub(crate) fn generation(self, mm: MmNumber) -> u8 {
        match mm {
            1 => self.generation1(),
            2 => self.generation2(),
            _ => self.generation3(),
        }
    }

    /// Counts one more flush of `mm`.
    pub(crate) fn next_generation(&mut self, mm: MmNumber) {
        let next = self.generation(mm) + 1;
        match mm {
            1 => self.set_generation1(next),
            2 => self.set_generation2(next),
            _ => self.set_generation3(next),
        }
    }

    /// Whether memory links the table into `mm`.
    pub(crate) fn links(self, mm: MmNumber) -> bool {
        self.linked() >> (mm - 1) & 1 != 0
    }

    /// The initiator's buffered store reaches memory.
    pub(crate) fn write_back(&mut self) {
        if self.unlink_buffered() == 1 {
            self.set_unlink_buffered(0);
            self.set_linked(self.linked() & !(1 << (self.leaver() - 1)));
        }
    }
}

/// A state of the whole model.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct State {
    pub(crate) cpus: [CpuState; MAX_CPUS],
    pub(crate) common: Common,
    /// What the strategy read, four bits each, the first lowest.
    pub(crate) answers: u64,
}

impl State {
    /// What was read has served its purpose.
    pub(crate) fn forget_answers(&mut self) {
        self.answers = 0;
        self.common.set_answers(0);
    }

    /// What was violated, if anything.
    pub fn broken(&self) -> Option<Broken> {
        Broken::from_number(self.common.broken())
    }
}
