//! The gather: collects what an operation unmapped, flushes once, and only then lets go of it.
//!
//! Pages and tables go in; [`Gather::flush`] invalidates the range that they covered, then drops the pages and retires
//! the tables. So nothing that a stale translation or a walk may still reach is freed. A gather with anything left in
//! it panics when it is dropped.
//!
//! Collected frames are kept in pages of pointers (batches). When there is no frame for one, a table is flushed at once
//! and freed after a grace period that is waited for; pages are flushed at once. The fault injection `batch` makes that
//! happen.
//!
//! Two gathers of one mm at the same time (`MADV_DONTNEED` by two threads) may each see entries that the other has
//! cleared and not flushed: found empty, there is nothing for the one to flush, and it would return while translations
//! are still there. Therefore a gather that finishes while another is under way flushes everything. The last of them
//! finishes alone, and need not: whoever was there before it has flushed what it saw cleared, or cleared it and flushes
//! it himself.

use core::slice::Iter;
use core::sync::atomic::{AtomicU64, Ordering};

use arrayvec::ArrayVec;

use crate::addr::{Level, Pfn, VirtAddr};
use crate::arch::Arch;
use crate::guard;
use crate::injection::Fault;
use crate::mm::address_space::Mm;
use crate::mm::file::{Contents, File};
use crate::mm::frame::FrameState;
use crate::mm::frame_alloc;
use crate::mm::page;
use crate::mm::self_map;
use crate::mm::share;
use crate::mm::state::{self, Unlinked};
use crate::mm::table::{self, Table};
use crate::oracle::{self, ghost};
use crate::record::event::EventKind;
use crate::smp::cpu::Cpu;
use crate::smp::rcu;
use crate::tlb::coverage::Coverage;
use crate::tlb::invalidation::Invalidation;
use crate::tlb::transport;

/// Pages kept in the gather itself before a batch page is taken.
const LOCAL: usize = 8;
/// Frames that one batch page names.
const BATCH: usize = 510;
/// Batch pages before the gather flushes.
const BATCHES: usize = 19;

/// Shared tables that may be left before they are settled: as many GiB as one flush covers.
pub(super) const UNSHARED: usize = 16;

/// What an operation has unmapped and not yet let go of.
#[must_use = "a gather must be finished"]
pub struct Gather<'m, A: Arch> {
    cpu: &'static Cpu<A>,
    mm: &'m Mm<A>,
    /// The range that was changed, empty if `start >= end`.
    start: VirtAddr,
    end: VirtAddr,
    /// The smallest leaf that was cleared or changed.
    stride: Level,
    freed_tables: bool,
    unshared_tables: bool,
    /// The highest level of what can be read through the recursive mapping and is no longer there: see
    /// [`crate::mm::self_map`].
    unreadable: Option<Level>,
    everything: bool,
    /// Some flush of this gather has interrupted another CPU; never cleared, as in v3 ([`crate::sync::gather_flag`]).
    interrupted: bool,
    local: [Pfn; LOCAL],
    pages: usize,
    page_batches: [Pfn; BATCHES],
    /// The room that is left in the last of them.
    room: Iter<'static, AtomicU64>,
    tables: usize,
    table_batch: Option<Pfn>,
    /// Shared tables that this mm has left and whose flush is due, by their offset in the file.
    unshared: ArrayVec<u64, UNSHARED>,
}

impl<'m, A: Arch> Gather<'m, A> {
    /// Begins to gather for `mm`.
    pub fn new(cpu: &'static Cpu<A>, mm: &'m Mm<A>) -> Gather<'m, A> {
        // Relaxed: whoever finds an entry that this one has cleared finds it under the table's lock, and this count
        // with it.
        mm.gathers.fetch_add(1, Ordering::Relaxed);
        Gather {
            cpu,
            mm,
            start: VirtAddr(u64::MAX),
            end: VirtAddr(0),
            stride: Level::Pud,
            freed_tables: false,
            unshared_tables: false,
            unreadable: None,
            everything: false,
            interrupted: false,
            local: [Pfn(0); LOCAL],
            pages: 0,
            page_batches: [Pfn(0); BATCHES],
            room: [].iter(),
            tables: 0,
            table_batch: None,
            unshared: ArrayVec::new(),
        }
    }

    /// The entry of `level` for `va` was cleared or changed.
    #[inline]
    pub fn changed(&mut self, level: Level, va: VirtAddr) {
        let va = va.align_down(level);
        self.start = self.start.min(va);
        self.end = self.end.max(va.add(level.entry_size()));
        self.stride = self.stride.min(level);
        if level == Level::Pmd {
            self.unreadable = self.unreadable.max(self_map::read_through_leaf::<A>());
        }
    }

    /// The whole mm goes: one flush of everything.
    pub fn whole_mm(&mut self) {
        self.everything = true;
    }

    /// Takes over the reference that a cleared leaf had. True if the gather is full, and the caller should drop its
    /// locks and flush.
    #[inline]
    pub fn page(&mut self, head: Pfn) -> bool {
        if let Some(slot) = self.room.next() {
            slot.store(head.0.into(), Ordering::Relaxed);
        } else if self.pages < LOCAL {
            self.local[self.pages] = head;
        } else {
            return self.page_in_next_batch(head);
        }
        self.pages += 1;
        self.pages == LOCAL + BATCH * BATCHES
    }

    /// The same where what was there for pages is full.
    #[cold]
    fn page_in_next_batch(&mut self, head: Pfn) -> bool {
        let batch = (self.pages - LOCAL) / BATCH;
        if batch == BATCHES {
            unreachable!("a full gather was not flushed");
        }
        let Some(pfn) = self.batch_page() else {
            // No room for it: flush what there is, this page included.
            if guard!(BatchlessFlush) {
                let _ = self.invalidate();
                page::put(self.cpu, head, 1);
                self.let_go();
            } else {
                page::put(self.cpu, head, 1);
                self.let_go();
                let _ = self.invalidate();
            }
            return true;
        };
        self.page_batches[batch] = pfn;
        self.room = batch_slots::<A>(pfn).iter();
        self.page(head)
    }

    /// Takes over a table. No table lock is held: it may have to wait for a grace period.
    pub fn table(&mut self, unlinked: Unlinked<'_, A>) {
        self.freed_tables = true;
        self.changed(unlinked.parent_level(), unlinked.va());
        self.stride = self.stride.min(unlinked.table().frame().level());
        self.unreadable = self.unreadable.max(unlinked.parent_level().below());
        if self.table_batch.is_none() {
            self.table_batch = self.batch_page();
        }
        let Some(batch) = self.table_batch else {
            // The allocation failed: invalidate before the table goes, wait for whoever may hold it, free it.
            let flushed = unlinked.flush(self.cpu);
            self.interrupted |= flushed.coverage().interrupts() != 0;
            flushed.free_without_batch(self.cpu);
            return;
        };
        let table = unlinked.into_gather();
        batch_slots::<A>(batch)[self.tables].store(table.pfn().0.into(), Ordering::Relaxed);
        self.tables += 1;
        if self.tables == BATCH {
            self.flush();
        }
    }

    /// Whether [`Gather::settle_unshared`] must come before the next [`Gather::unshared`].
    pub(super) fn unshared_is_full(&self) -> bool {
        self.unshared.is_full()
    }

    /// This mm left a shared table, whose record in the file is at `offset`. To be settled before the file's lock is
    /// dropped.
    pub fn unshared(&mut self, unlinked: Unlinked<'_, A>, offset: u64) {
        let va = unlinked.va();
        unlinked.into_gather();
        self.unshared_tables = true;
        self.changed(Level::Pud, va);
        self.stride = self.stride.min(Level::Pmd);
        self.unreadable = self.unreadable.max(Some(Level::Pmd));
        self.unshared.push(offset);
    }

    /// Flushes for the tables that were left, and syncs for those that have one sharer now. Under the file's lock:
    /// afterwards the last sharer may use them as its own.
    pub fn settle_unshared(&mut self, file: &File<A>, contents: &mut Contents<A>) {
        if self.unshared.is_empty() {
            return;
        }
        let coverage = self.invalidate();
        let left = core::mem::take(&mut self.unshared);
        share::settle(self.cpu, self.mm, file, contents, &left, coverage, self.interrupted);
    }

    /// A frame for a batch, unless memory is short or that was to be pretended.
    fn batch_page(&mut self) -> Option<Pfn> {
        if A::machine().policy.injection.strikes(self.cpu, Fault::Batch) {
            return None;
        }
        let pfn = frame_alloc::alloc(self.cpu).ok()?;
        A::machine().frames.get(pfn).set_state(FrameState::Batch);
        Some(pfn)
    }

    /// Invalidates what was changed since the last time, if anything was.
    fn invalidate(&mut self) -> Option<Coverage> {
        let any = self.start < self.end || self.everything;
        let coverage = any.then(|| {
            let what = Invalidation {
                start: self.start,
                end: self.end,
                stride: self.stride,
                tables: self.freed_tables || self.unshared_tables,
                all: self.everything,
                recursive: self_map::covering::<A>(self.unreadable),
            };
            transport::flush(self.cpu, self.mm, what)
        });
        self.interrupted |= coverage.is_some_and(|c| c.interrupts() != 0);
        self.start = VirtAddr(u64::MAX);
        self.end = VirtAddr(0);
        self.stride = Level::Pud;
        self.freed_tables = false;
        self.unshared_tables = false;
        self.unreadable = None;
        coverage
    }

    /// Drops the pages and retires the tables: they were flushed.
    fn let_go(&mut self) {
        for i in 0..self.pages.min(LOCAL) {
            page::put(self.cpu, self.local[i], 1);
        }
        let in_batches = self.pages.saturating_sub(LOCAL);
        let batches = &self.page_batches[..in_batches.div_ceil(BATCH)];
        for (i, batch) in batches.iter().enumerate() {
            for slot in &batch_slots::<A>(*batch)[..(in_batches - i * BATCH).min(BATCH)] {
                page::put(self.cpu, Pfn(slot.load(Ordering::Relaxed) as u32), 1);
            }
        }
        for batch in batches {
            frame_alloc::free(self.cpu, *batch);
        }
        self.room = [].iter();
        self.pages = 0;
        if let Some(batch) = self.table_batch.take() {
            for i in 0..self.tables {
                let pfn = Pfn(batch_slots::<A>(batch)[i].load(Ordering::Relaxed) as u32);
                state::retire(self.cpu, Table::at(pfn));
            }
            frame_alloc::free(self.cpu, batch);
        }
        self.tables = 0;
    }

    /// Flushes and lets go of everything so far. No table lock is held.
    pub fn flush(&mut self) {
        if guard!(FlushBeforeFree) {
            let _ = self.invalidate();
            self.let_go();
        } else {
            self.let_go();
            let _ = self.invalidate();
        }
    }

    /// Flushes the rest and ends.
    pub fn finish(mut self) {
        debug_assert!(self.unshared.is_empty());
        // Cleared and not flushed: what another gather of this mm must not overlook.
        ghost::point(self.cpu);
        // Acquire: a gather that is seen to be over has flushed what it cleared. Pairs with the release below
        // (tests/litmus/hand-over).
        if self.mm.gathers.load(Ordering::Acquire) > 1 && guard!(NestedGather) {
            self.everything = true;
            self.freed_tables = true;
        }
        self.flush();
        // Release: see above (tests/litmus/hand-over).
        self.mm.gathers.fetch_sub(1, Ordering::Release);
        rcu::poll(self.cpu);
    }
}

impl<A: Arch> Drop for Gather<'_, A> {
    fn drop(&mut self) {
        assert!(
            self.pages == 0 && self.tables == 0 && self.unshared.is_empty(),
            "a gather was dropped with {} pages and {} tables in it",
            self.pages,
            self.tables
        );
    }
}

/// What a batch page names.
fn batch_slots<A: Arch>(batch: Pfn) -> &'static [AtomicU64; BATCH] {
    // SAFETY: the direct map covers all RAM; the frame is the gather's alone and holds 512 aligned words.
    unsafe { &*A::direct_map(batch.addr()).cast::<[AtomicU64; BATCH]>() }
}

impl<A: Arch> state::Flushed<'_, A> {
    /// The end of a table for which there was no batch: wait for a grace period, then free.
    fn free_without_batch(self, cpu: &'static Cpu<A>) {
        let table = self.into_table();
        cpu.events.write(EventKind::Retire, 0, table.pfn().0.into(), 0);
        oracle::on_retire(cpu, table);
        let policy = &A::machine().policy;
        let skipped = (policy.strategy().frees_without_grace)(policy.hook());
        if guard!(GraceBeforeFree) && !skipped {
            rcu::synchronize(cpu);
        }
        table::free(cpu, table.pfn());
    }
}
