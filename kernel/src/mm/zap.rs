//! Clearing leaves: the part that munmap, `MADV_DONTNEED`, exit and truncation have in common.
//!
//! A range may begin or end inside a 2 MiB leaf, which then has to become a table of 4 KiB leaves first, and that may
//! need a frame. It is the only thing that can fail, so it comes first ([`split_ends`]); from there on clearing cannot
//! fail, and no operation stops half way.
//!
//! An anonymous 2 MiB leaf has a table of its own deposited with its PMD table ([`crate::mm::collapse`]): splitting it
//! needs no frame. One of a file has none.

use core::ops::Range;

use crate::addr::{ENTRIES, Level, PAGE_SIZE, Pfn, PhysAddr, VirtAddr};
use crate::arch::Arch;
use crate::guard;
use crate::mm::address_space::{MapError, Mm};
use crate::mm::entry::{Entry, EntryCodec};
use crate::mm::frame::FrameState;
use crate::mm::gather::Gather;
use crate::mm::page;
use crate::mm::reclaim::{self, Emptied};
use crate::mm::self_map;
use crate::mm::state;
use crate::mm::table::{self, Table, TableGuard};
use crate::pause;
use crate::smp::cpu::Cpu;
use crate::smp::rcu;
use crate::tlb::invalidation::Invalidation;
use crate::tlb::transport;

/// What to do with a PTE table that the zap has emptied.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum EmptyTables {
    /// Leave it: the caller frees tables afterwards, or not at all.
    Keep,
    /// Give it back, as `CONFIG_PT_RECLAIM` does.
    Reclaim,
}

/// Splits the 2 MiB leaves that an end of `range` cuts. The map lock is held, so that nothing collapses them again
/// before it is dropped.
pub(super) fn split_ends<A: Arch>(cpu: &'static Cpu<A>, mm: &Mm<A>, range: &Range<VirtAddr>) -> Result<(), MapError> {
    for cut in [range.start, range.end] {
        if !cut.is_aligned(Level::Pmd)
            && let Some(pmd) = mm.table_at(Level::Pmd, cut)
        {
            split(cpu, mm, pmd, cut)?;
        }
    }
    Ok(())
}

/// Clears every leaf of `range`, whose ends cut none, and hands the pages to `gather`. The map lock is held, for
/// reading at least.
pub(super) fn zap<A: Arch>(
    cpu: &'static Cpu<A>,
    mm: &Mm<A>,
    range: Range<VirtAddr>,
    empty: EmptyTables,
    gather: &mut Gather<'_, A>,
) {
    let mut va = range.start;
    while va < range.end {
        let Some(pmd) = mm.table_at(Level::Pmd, va) else {
            // Nothing in this whole GiB.
            va = va.align_down(Level::Pud).add(Level::Pud.entry_size());
            continue;
        };
        let end = va.align_down(Level::Pud).add(Level::Pud.entry_size()).min(range.end);
        while va < end {
            let next = va.align_down(Level::Pmd).add(Level::Pmd.entry_size()).min(end);
            if pmd.load(Level::Pmd, va) != 0 {
                zap_pmd(cpu, mm, pmd, va..next, empty, gather);
            }
            va = next;
        }
    }
}

/// Clears what is in `range`, which lies within one PMD entry.
fn zap_pmd<A: Arch>(
    cpu: &'static Cpu<A>,
    mm: &Mm<A>,
    pmd: Table<A>,
    range: Range<VirtAddr>,
    empty: EmptyTables,
    gather: &mut Gather<'_, A>,
) {
    let whole = range.end.0 - range.start.0 == Level::Pmd.entry_size();
    loop {
        match pmd.entry(Level::Pmd, range.start) {
            Entry::Absent => return,
            Entry::Leaf { .. } => {
                assert!(whole, "{} cuts a 2 MiB leaf that was not split first", range.start);
                let mut guard = pmd.lock();
                let Entry::Leaf { page, .. } = guard.entry(Level::Pmd, range.start) else { continue };
                guard.clear(Level::Pmd, range.start);
                let deposited = deposited_for(&mut guard, page.pfn());
                // Under the map lock for reading a fault may link a table here as soon as the lock is dropped.
                let flushed = empty == EmptyTables::Reclaim && self_map::leaf_goes(cpu, mm, range.start);
                drop(guard);
                if let Some(deposited) = deposited {
                    // No entry points at it and no translation leads through it. But it was drained of walks that an
                    // interrupt ends, not of readers under RCU.
                    state::retire_deposited(cpu, deposited);
                }
                if !flushed {
                    gather.changed(Level::Pmd, range.start);
                }
                if gather.page(page.pfn()) {
                    gather.flush();
                }
                return;
            }
            Entry::Table(pte) => {
                let pte = Table::at(pte.pfn());
                let emptied = zap_ptes(cpu, mm, pmd, range.clone(), whole, empty, gather);
                if whole && empty == EmptyTables::Reclaim && emptied == Emptied::Unknown {
                    reclaim::rescan_and_free(cpu, mm, pmd, pte, range.start, gather);
                }
                return;
            }
        }
    }
}

/// Clears PTEs. On the fast path of reclaim, everything was cleared in one section of the table's lock, and the table
/// is taken out at once.
#[allow(clippy::too_many_arguments)]
fn zap_ptes<A: Arch>(
    cpu: &'static Cpu<A>,
    mm: &Mm<A>,
    pmd: Table<A>,
    range: Range<VirtAddr>,
    whole: bool,
    empty: EmptyTables,
    gather: &mut Gather<'_, A>,
) -> Emptied {
    let mut va = range.start;
    let mut sections = 0;
    while va < range.end {
        // Others with the map lock for reading may reclaim or retract the table: it stays a table until its lock is
        // held, and this one while it is.
        let read = rcu::read(cpu);
        let Some(pte) = pmd.below(Level::Pmd, range.start) else { return Emptied::Freed };
        pause!(cpu, AfterZapLookup);
        let mut guard = pte.lock();
        if guard!(ZapPmdSame) && pmd.below(Level::Pmd, range.start) != Some(pte) {
            continue;
        }
        drop(read);
        sections += 1;
        let mut full = false;
        while va < range.end && !full {
            let raw = guard.clear(Level::Pte, va);
            if let Entry::Leaf { page, .. } = A::Codec::decode(Level::Pte, raw) {
                gather.changed(Level::Pte, va);
                full = gather.page(page::head::<A>(page.pfn()));
            }
            va = va.add(PAGE_SIZE);
        }
        if va >= range.end
            && sections == 1
            && whole
            && empty == EmptyTables::Reclaim
            && let Some(unlinked) = reclaim::try_fast(cpu, mm, pmd, &guard, range.start)
        {
            drop(guard);
            gather.table(unlinked);
            return Emptied::Freed;
        }
        drop(guard);
        pause!(cpu, AfterZap);
        if full {
            gather.flush();
        }
    }
    Emptied::Unknown
}

/// Takes the table that was deposited for the leaf of `page`, which is about to go: anonymous leaves have one.
fn deposited_for<A: Arch>(pmd: &mut TableGuard<A>, page: Pfn) -> Option<Table<A>> {
    let anonymous = A::machine().frames.get(page).state() == FrameState::Anon;
    if anonymous { pmd.withdraw() } else { None }
}

/// Replaces the 2 MiB leaf at `va`, if one is there, by a table of 4 KiB leaves of the same page. Break before make:
/// the entry is cleared and flushed before the table is linked.
pub(super) fn split<A: Arch>(cpu: &'static Cpu<A>, mm: &Mm<A>, pmd: Table<A>, va: VirtAddr) -> Result<(), MapError> {
    let base = va.align_down(Level::Pmd);
    let mut spare = None;
    loop {
        let mut guard = pmd.lock();
        let Entry::Leaf { page, perm } = guard.entry(Level::Pmd, base) else { break };
        let Some(pte) = deposited_for(&mut guard, page.pfn()).or_else(|| spare.take()) else {
            drop(guard);
            spare = Some(table::alloc(cpu, mm.id, Level::Pte, base)?);
            continue;
        };
        guard.clear(Level::Pmd, base);
        let what = Invalidation {
            start: base,
            end: base.add(Level::Pmd.entry_size()),
            stride: Level::Pmd,
            tables: false,
            all: false,
            recursive: self_map::covering::<A>(self_map::read_through_leaf::<A>()),
        };
        let _ = transport::flush(cpu, mm, what);
        let frame = A::machine().frames.get(page.pfn());
        // The leaf had one reference; each of the 512 entries has one.
        for _ in 1..ENTRIES {
            frame.get();
        }
        let mut inner = pte.lock();
        for i in 0..ENTRIES as u64 {
            let at = base.add(i * PAGE_SIZE);
            inner.set(Level::Pte, at, A::Codec::leaf(Level::Pte, PhysAddr(page.0 + i * PAGE_SIZE), perm));
        }
        drop(inner);
        guard.set(Level::Pmd, base, A::Codec::table(pte.pfn().addr()));
        break;
    }
    if let Some(unused) = spare {
        table::free(cpu, unused.pfn());
    }
    Ok(())
}
