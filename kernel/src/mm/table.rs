//! Page tables: reading them without a lock, changing them under theirs, and how many entries they have.
//!
//! Every change of an entry goes through a [`TableGuard`], which keeps the population count beside it; a table is empty
//! when the count says so, and [`Table::scan`] is the proof: the test `population_matches_scan`, and the oracle on
//! every table that is given up.

use core::sync::atomic::{AtomicU64, Ordering};

use crate::addr::{ENTRIES, Level, PAGE_SIZE, Pfn, VirtAddr};
use crate::arch::Arch;
use crate::mm::address_space::Mm;
use crate::mm::entry::{Entry, EntryCodec};
use crate::mm::frame::{FrameState, NO_FRAME};
use crate::mm::frame_alloc::{self, OutOfFrames};
use crate::mm::state::Unlinked;
use crate::oracle;
use crate::pause;
use crate::record::event::EventKind;
use crate::smp::cpu::Cpu;
use crate::smp::lock::MutexGuard;

/// A page table, by its frame. Having one says nothing about whether it still is one: see [`crate::mm::state`].
#[derive(Debug)]
pub struct Table<A: Arch> {
    pfn: Pfn,
    _arch: core::marker::PhantomData<A>,
}

impl<A: Arch> Clone for Table<A> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<A: Arch> Copy for Table<A> {}
impl<A: Arch> PartialEq for Table<A> {
    fn eq(&self, other: &Self) -> bool {
        self.pfn == other.pfn
    }
}
impl<A: Arch> Eq for Table<A> {}

impl<A: Arch> Table<A> {
    /// The table in `pfn`.
    #[inline(always)]
    pub fn at(pfn: Pfn) -> Table<A> {
        Table { pfn, _arch: core::marker::PhantomData }
    }

    /// Its frame.
    #[inline(always)]
    pub fn pfn(self) -> Pfn {
        self.pfn
    }

    /// Its descriptor.
    #[inline(always)]
    pub fn frame(self) -> &'static crate::mm::frame::Frame<A> {
        A::machine().frames.get(self.pfn)
    }

    /// The slot of entry `index`.
    #[inline(always)]
    pub fn slot(self, index: usize) -> &'static AtomicU64 {
        debug_assert!(index < ENTRIES);
        // SAFETY: the direct map covers all RAM for ever; a frame holds 512 aligned words, and all accesses to table
        // frames are atomic.
        unsafe { &*A::direct_map(self.pfn.addr()).cast::<AtomicU64>().add(index) }
    }

    /// The slots of `count` entries from `index` on.
    ///
    /// # Safety
    /// There are as many in a table.
    #[inline(always)]
    pub(crate) unsafe fn slots(self, index: usize, count: usize) -> &'static [AtomicU64] {
        debug_assert!(index + count <= ENTRIES);
        // SAFETY: as above; by the caller's word they lie in the frame.
        unsafe { core::slice::from_raw_parts(self.slot(index), count) }
    }

    /// The raw entry that maps `va` in this table of `level`.
    #[inline(always)]
    pub fn load(self, level: Level, va: VirtAddr) -> u64 {
        A::load_entry(self.slot(va.index(level)))
    }

    /// What the entry for `va` says.
    #[inline(always)]
    pub fn entry(self, level: Level, va: VirtAddr) -> Entry {
        A::Codec::decode(level, self.load(level, va))
    }

    /// The table below, on the way to `va`, if there is one.
    #[inline]
    pub fn below(self, level: Level, va: VirtAddr) -> Option<Table<A>> {
        match self.entry(level, va) {
            Entry::Table(pa) => Some(Table::at(pa.pfn())),
            _ => None,
        }
    }

    /// Takes the table's lock.
    pub fn lock(self) -> TableGuard<A> {
        TableGuard { table: self, _guard: self.frame().lock.lock() }
    }

    /// Takes the table's lock if nobody has it.
    pub fn try_lock(self) -> Option<TableGuard<A>> {
        Some(TableGuard { table: self, _guard: self.frame().lock.try_lock()? })
    }

    /// Counts the entries that are not empty, by looking at all of them.
    pub fn scan(self) -> u16 {
        (0..ENTRIES).filter(|i| A::load_entry(self.slot(*i)) != 0).count() as u16
    }
}

/// A table whose lock is held.
pub struct TableGuard<A: Arch> {
    table: Table<A>,
    _guard: MutexGuard<'static, A, ()>,
}

impl<A: Arch> TableGuard<A> {
    /// The table.
    #[inline(always)]
    pub fn table(&self) -> Table<A> {
        self.table
    }

    /// The raw entry for `va`.
    #[inline(always)]
    pub fn load(&self, level: Level, va: VirtAddr) -> u64 {
        self.table.load(level, va)
    }

    /// What the entry for `va` says.
    #[inline(always)]
    pub fn entry(&self, level: Level, va: VirtAddr) -> Entry {
        self.table.entry(level, va)
    }

    /// Fills the empty entry for `va`.
    pub fn set(&mut self, level: Level, va: VirtAddr, raw: u64) {
        let slot = self.table.slot(va.index(level));
        debug_assert!(A::load_entry(slot) == 0 && raw != 0, "entry for {va} is in use");
        if cfg!(feature = "checking")
            && let Entry::Table(pa) = A::Codec::decode(level, raw)
        {
            let owner = self.table.frame().owner();
            A::this_cpu().events.write(EventKind::Link, owner, pa.pfn().0.into(), va.0);
        }
        A::store_entry(slot, raw);
        self.table.frame().add_population(1);
    }

    /// Replaces the entry for `va`, which is in use, by another that is in use: a change of permission only (anything
    /// else would break before making).
    pub fn change(&mut self, level: Level, va: VirtAddr, raw: u64) {
        debug_assert!(raw != 0);
        A::store_entry(self.table.slot(va.index(level)), raw);
    }

    /// Empties the entry for `va` and returns what it was. For leaves: a table is emptied by [`TableGuard::unlink`].
    pub fn clear(&mut self, level: Level, va: VirtAddr) -> u64 {
        let old = A::swap_entry(self.table.slot(va.index(level)), 0);
        if old != 0 {
            self.table.frame().add_population(-1);
        }
        old
    }

    /// Unlinks the table that the entry for `va` points at. It still may be walked, and cached by hardware.
    ///
    /// # Panics
    /// If the entry points at no table.
    pub fn unlink<'m>(&mut self, cpu: &'static Cpu<A>, mm: &'m Mm<A>, level: Level, va: VirtAddr) -> Unlinked<'m, A> {
        pause!(cpu, Unlink);
        let raw = self.clear(level, va);
        let Entry::Table(pa) = A::Codec::decode(level, raw) else {
            panic!("no table is linked for {va} at level {level:?} of mm {}", mm.id)
        };
        let table = Table::at(pa.pfn());
        table.frame().set_unlinked_at(A::instructions());
        cpu.events.write(EventKind::Unlink, mm.id, table.pfn().0.into(), va.0);
        // Release: a CPU that acknowledges this number (acquire) sees the entry cleared from then on
        // (tests/litmus/acked-generation).
        let generation = A::machine().unlink_generation.fetch_add(1, Ordering::Release) + 1;
        let unlinked = Unlinked::new(mm, table, self.table, level, va.align_down(level), raw, generation);
        pause!(cpu, AfterUnlink);
        unlinked
    }

    /// Whether no entry is in use.
    pub fn is_empty(&self) -> bool {
        self.table.frame().population() == 0
    }

    /// Deposits `table` with this PMD table, for a later split of a huge page.
    pub(super) fn deposit(&mut self, table: Table<A>) {
        table.frame().set_next(self.table.frame().deposited());
        self.table.frame().set_deposited(table.pfn().0);
    }

    /// Takes a deposited table.
    pub(super) fn withdraw(&mut self) -> Option<Table<A>> {
        let first = self.table.frame().deposited();
        if first == NO_FRAME {
            return None;
        }
        let table = Table::at(Pfn(first));
        self.table.frame().set_deposited(table.frame().next());
        Some(table)
    }
}

/// A zeroed table of `level` for the addresses from `base` on. Nothing points at it.
pub fn alloc<A: Arch>(cpu: &Cpu<A>, owner: u32, level: Level, base: VirtAddr) -> Result<Table<A>, OutOfFrames> {
    let pfn = frame_alloc::alloc(cpu)?;
    frame_alloc::zero::<A>(pfn, 1);
    A::machine().frames.get(pfn).become_table(owner, level, base.0);
    A::machine().tables.fetch_add(1, Ordering::Relaxed);
    Ok(Table::at(pfn))
}

/// Frees a table that no walk can hold any more: a finished grace period, waited for or not ([`crate::smp::rcu::poll`],
/// [`crate::mm::gather`]), or whoever allocated a table and never linked it. [`crate::mm::state`] comes here at once
/// only where the guard `GraceBeforeFree` is taken away.
pub(crate) fn free<A: Arch>(cpu: &'static Cpu<A>, pfn: Pfn) {
    let table = Table::<A>::at(pfn);
    pause!(cpu, BeforeFree);
    oracle::on_free(cpu, table);
    cpu.events.write(EventKind::Free, 0, pfn.0.into(), 0);
    table.frame().set_state(FrameState::UnlinkedTable);
    oracle::poison::<A>(pfn, PAGE_SIZE);
    A::machine().tables.fetch_sub(1, Ordering::Relaxed);
    frame_alloc::free(cpu, pfn);
}
