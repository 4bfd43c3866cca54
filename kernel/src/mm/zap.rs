//! Clearing leaves: the part that munmap, `MADV_DONTNEED`, exit and truncation have in common.

use core::ops::Range;

use crate::addr::{ENTRIES, Level, PAGE_SIZE, VirtAddr};
use crate::arch::Arch;
use crate::mm::address_space::{MapError, Mm};
use crate::mm::entry::{Entry, EntryCodec};
use crate::mm::gather::Gather;
use crate::mm::page;
use crate::mm::reclaim::{self, Emptied};
use crate::mm::self_map;
use crate::mm::table::{self, Table};
use crate::pause;
use crate::smp::cpu::Cpu;
use crate::smp::rcu;

/// What to do with a PTE table that the zap has emptied.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum EmptyTables {
    /// Leave it: the caller frees tables afterwards, or not at all.
    Keep,
    /// Give it back, as `CONFIG_PT_RECLAIM` does.
    Reclaim,
}

/// Clears every leaf of `range` and hands the pages to `gather`. The map lock is held, for reading at least.
pub(super) fn zap<A: Arch>(
    cpu: &'static Cpu<A>,
    mm: &Mm<A>,
    range: Range<VirtAddr>,
    empty: EmptyTables,
    gather: &mut Gather<'_, A>,
) -> Result<(), MapError> {
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
                zap_pmd(cpu, mm, pmd, va..next, empty, gather)?;
            }
            va = next;
        }
    }
    Ok(())
}

/// Clears what is in `range`, which lies within one PMD entry.
fn zap_pmd<A: Arch>(
    cpu: &'static Cpu<A>,
    mm: &Mm<A>,
    pmd: Table<A>,
    range: Range<VirtAddr>,
    empty: EmptyTables,
    gather: &mut Gather<'_, A>,
) -> Result<(), MapError> {
    let whole = range.end.0 - range.start.0 == Level::Pmd.entry_size();
    loop {
        match pmd.entry(Level::Pmd, range.start) {
            Entry::Absent => return Ok(()),
            Entry::Leaf { .. } if whole => {
                let mut guard = pmd.lock();
                let Entry::Leaf { page, .. } = guard.entry(Level::Pmd, range.start) else { continue };
                guard.clear(Level::Pmd, range.start);
                let deposited = guard.withdraw();
                // Under the map lock for reading a fault may link a table here as soon as the lock is dropped.
                let flushed = empty == EmptyTables::Reclaim && self_map::leaf_goes(cpu, mm, range.start);
                drop(guard);
                if let Some(deposited) = deposited {
                    // It was drained before it was deposited, and no entry points at it.
                    table::free(cpu, deposited.pfn());
                }
                if !flushed {
                    gather.changed(Level::Pmd, range.start);
                }
                if gather.page(page.pfn()) {
                    gather.flush();
                }
                return Ok(());
            }
            Entry::Leaf { .. } => split(cpu, mm, pmd, range.start)?,
            Entry::Table(pte) => {
                let pte = Table::at(pte.pfn());
                let emptied = zap_ptes(cpu, mm, pmd, range.clone(), whole, empty, gather);
                if whole && empty == EmptyTables::Reclaim && emptied == Emptied::Unknown {
                    reclaim::rescan_and_free(cpu, mm, pmd, pte, range.start, gather);
                }
                return Ok(());
            }
        }
    }
}

/// Clears PTEs. On the fast path of reclaim, everything was cleared in one section of the table's lock, and the table is taken out at once.
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
        // Others with the map lock for reading may reclaim or retract the table: it stays a table until its lock is held, and this one while it is.
        let read = rcu::read(cpu);
        let Some(pte) = pmd.below(Level::Pmd, range.start) else { return Emptied::Freed };
        let mut guard = pte.lock();
        if pmd.below(Level::Pmd, range.start) != Some(pte) {
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

/// Replaces a 2 MiB leaf by a table of 4 KiB leaves of the same page. Break before make: the entry is cleared and flushed before the
/// table is linked.
pub(super) fn split<A: Arch>(cpu: &'static Cpu<A>, mm: &Mm<A>, pmd: Table<A>, va: VirtAddr) -> Result<(), MapError> {
    let base = va.align_down(Level::Pmd);
    // A spare in case none was deposited (a leaf of a file).
    let spare = table::alloc(cpu, mm.id, Level::Pte, base)?;
    let mut guard = pmd.lock();
    let Entry::Leaf { page, perm } = guard.entry(Level::Pmd, base) else {
        drop(guard);
        table::free(cpu, spare.pfn());
        return Ok(());
    };
    let deposited = guard.withdraw();
    let pte = deposited.unwrap_or(spare);
    guard.clear(Level::Pmd, base);
    let what = crate::tlb::invalidation::Invalidation {
        start: base,
        end: base.add(Level::Pmd.entry_size()),
        stride: Level::Pmd,
        tables: false,
        all: false,
        recursive: self_map::covering::<A>(self_map::read_through_leaf::<A>()),
    };
    let _ = crate::tlb::transport::flush(cpu, mm, what);
    let frame = A::machine().frames.get(page.pfn());
    // The leaf had one reference; each of the 512 entries has one.
    for _ in 1..ENTRIES {
        frame.get();
    }
    let mut inner = pte.lock();
    for i in 0..ENTRIES as u64 {
        let at = base.add(i * PAGE_SIZE);
        let raw = A::Codec::leaf(Level::Pte, crate::addr::PhysAddr(page.0 + i * PAGE_SIZE), perm);
        inner.set(Level::Pte, at, raw);
    }
    drop(inner);
    guard.set(Level::Pmd, base, A::Codec::table(pte.pfn().addr()));
    drop(guard);
    if deposited.is_some() {
        table::free(cpu, spare.pfn());
    }
    Ok(())
}
