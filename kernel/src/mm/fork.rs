//! fork: a child that shares the parent's anonymous pages until one of them writes.
//!
//! A page that a walk has pinned must stay the parent's: a device writes to it. So fork copies pinned pages at once,
//! and a pin that comes while fork runs must either be seen or be given back. Fork makes the mm's sequence odd, then
//! reads pin counts; `pin_user_pages_fast` pins, then reads the sequence; both have a full fence between. At least one
//! sees the other.

use alloc::sync::Arc;
use core::sync::atomic::Ordering;

use crate::addr::{ENTRIES, Level, PAGE_SIZE, VirtAddr};
use crate::arch::Arch;
use crate::guard;
use crate::mm::address_space::{Backing, MapError, Mm, Region};
use crate::mm::entry::{Entry, EntryCodec, Perm};
use crate::mm::fault;
use crate::mm::frame::FrameState;
use crate::mm::gather::Gather;
use crate::mm::page;
use crate::mm::table::Table;
use crate::mm::zap;
use crate::pause;
use crate::smp::cpu::Cpu;

/// A copy of `parent`: private pages are shared until written, files and shared tables are mapped again and faulted in
/// on demand.
pub fn fork<A: Arch>(cpu: &'static Cpu<A>, parent: &Arc<Mm<A>>) -> Result<Arc<Mm<A>>, MapError> {
    let child = Mm::child_of(cpu, parent)?;
    let all = |region: &Region<A>| child.map(region.range.clone(), region.perm, region.backing.clone());
    match copy_with(cpu, parent, &child, all) {
        Ok(()) => Ok(child),
        Err(error) => {
            super::exit::exit(cpu, child);
            Err(error)
        }
    }
}

/// Shares the private pages of `parent` with `child`, which has all of its private regions and no pages in them, until
/// either writes. An error leaves `child` with some of them.
pub fn copy<A: Arch>(cpu: &'static Cpu<A>, parent: &Mm<A>, child: &Mm<A>) -> Result<(), MapError> {
    copy_with(cpu, parent, child, |_| Ok(()))
}

/// The same; `begin` is called for each region of `parent` before its pages are shared.
fn copy_with<A: Arch>(
    cpu: &'static Cpu<A>,
    parent: &Mm<A>,
    child: &Mm<A>,
    begin: impl Fn(&Region<A>) -> Result<(), MapError>,
) -> Result<(), MapError> {
    let map = parent.map.write();
    parent.write_protect_seq.fetch_add(1, Ordering::Relaxed);
    // Full: odd, then read the pins. Pairs with the fence in `pin_user_pages_fast` (tests/litmus/pin-fork).
    A::fence();
    pause!(cpu, ForkBegin);
    let mut gather = Gather::new(cpu, parent);
    // What is being unmapped has no copy.
    let result = map.iter().filter(|region| region.gone.is_none()).try_for_each(|region| {
        begin(region)?;
        match region.backing {
            Backing::Anon => copy_region(cpu, parent, child, region, &mut gather),
            _ => Ok(()),
        }
    });
    gather.finish();
    pause!(cpu, ForkEnd);
    // Release: the pages are protected and flushed before the sequence is even again. Pairs with the first load of
    // `pin_user_pages_fast` (tests/litmus/hand-over).
    parent.write_protect_seq.fetch_add(1, Ordering::Release);
    drop(map);
    result
}

fn copy_region<A: Arch>(
    cpu: &'static Cpu<A>,
    parent: &Mm<A>,
    child: &Mm<A>,
    region: &Region<A>,
    gather: &mut Gather<'_, A>,
) -> Result<(), MapError> {
    let mut va = region.range.start.align_down(Level::Pmd);
    while va < region.range.end {
        if let Some(pmd) = parent.table_at(Level::Pmd, va) {
            zap::split(cpu, parent, pmd, va)?;
            if let Some(pte) = pmd.below(Level::Pmd, va) {
                copy_ptes(cpu, child, pte, va, region, gather)?;
            }
        }
        va = va.add(Level::Pmd.entry_size());
    }
    Ok(())
}

fn copy_ptes<A: Arch>(
    cpu: &'static Cpu<A>,
    child: &Mm<A>,
    pte: Table<A>,
    base: VirtAddr,
    region: &Region<A>,
    gather: &mut Gather<'_, A>,
) -> Result<(), MapError> {
    let pud = fault::descend(cpu, child, child.root(), Level::Pgd, base)?;
    let pmd = fault::descend(cpu, child, pud, Level::Pud, base)?;
    let copy = fault::descend(cpu, child, pmd, Level::Pmd, base)?;
    let mut from = pte.lock();
    let mut to = copy.lock();
    for i in 0..ENTRIES as u64 {
        let va = base.add(i * PAGE_SIZE);
        if va < region.range.start || va >= region.range.end {
            continue;
        }
        let Entry::Leaf { page, perm } = from.entry(Level::Pte, va) else { continue };
        let pfn = page.pfn();
        // Pages inside a 2 MiB page are copied: their references are the head's, and cannot tell who uses which.
        let whole = page::head::<A>(pfn) == pfn && A::machine().frames.get(pfn).order() == 0;
        if !whole || A::machine().frames.get(pfn).pins() != 0 {
            let new = page::alloc(cpu, FrameState::Anon, child.id, va.0)?;
            page::copy::<A>(pfn, new);
            page::tag::<A>(new, child.id, va.0);
            to.set(Level::Pte, va, A::Codec::leaf(Level::Pte, new.addr(), perm));
            continue;
        }
        pause!(cpu, ForkPinsRead);
        A::machine().frames.get(pfn).get();
        if perm.contains(Perm::WRITE) && guard!(ForkProtects) {
            from.change(Level::Pte, va, A::Codec::leaf(Level::Pte, page, perm - Perm::WRITE));
            gather.changed(Level::Pte, va);
        }
        to.set(Level::Pte, va, A::Codec::leaf(Level::Pte, page, perm - Perm::WRITE));
    }
    Ok(())
}
