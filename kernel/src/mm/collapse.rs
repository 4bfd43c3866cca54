//! Collapse: 512 anonymous 4 KiB pages become one 2 MiB page, and their PTE table is kept for a later split. The
//! operation that the sync IPI was introduced for (Linux commit 2ba99c5e0881).
//!
//! Steps, as in Linux's `collapse_huge_page`: take the map lock for writing; clear the PMD entry under its lock and
//! flush (nobody translates through the table any more, but a walk may hold it); **drop the lock, then drain**; freeze
//! each page (a walk that got a reference before makes this fail); copy; deposit the table, which is *using it again*;
//! install the 2 MiB leaf. On failure the table is put back as it was.
//!
//! The drain is asked for before the pages are touched, as Linux does, since from there on the table's contents are the
//! collapse's own.

use crate::addr::{ENTRIES, Level, PAGE_SIZE, Pfn, VirtAddr};
use crate::arch::Arch;
use crate::guard;
use crate::mm::address_space::{Backing, MapError, Mm, region_at};
use crate::mm::entry::{Entry, EntryCodec};
use crate::mm::frame::FrameState;
use crate::mm::page;
use crate::mm::table::Table;
use crate::oracle::ghost;
use crate::pause;
use crate::smp::cpu::Cpu;
use crate::smp::rcu;

/// Why a range was not collapsed; it is as it was before.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum CollapseError {
    /// The range is not one whole 2 MiB page of one anonymous region.
    #[error("{0} does not begin 2 MiB of one anonymous region")]
    NotEligible(VirtAddr),
    /// There is no PTE table, or an entry of it is empty.
    #[error("not all of the 512 pages from {0} on are present")]
    NotPopulated(VirtAddr),
    /// Somebody else refers to this page: a walk, another mm.
    #[error("the page at {0} is in use elsewhere")]
    InUse(VirtAddr),
    /// Memory is short, or the tables could not be changed.
    #[error(transparent)]
    Map(#[from] MapError),
}

/// Collapses the 2 MiB at `va`.
pub fn collapse_anon<A: Arch>(cpu: &'static Cpu<A>, mm: &Mm<A>, va: VirtAddr) -> Result<(), CollapseError> {
    if !va.is_aligned(Level::Pmd) {
        return Err(CollapseError::NotEligible(va));
    }
    let huge = page::alloc_huge::<A>(FrameState::Anon, mm.id, va.0).map_err(MapError::from)?;
    let result = collapse_into(cpu, mm, va, huge);
    if result.is_err() {
        page::put(cpu, huge, 1);
    }
    rcu::poll(cpu);
    result
}

fn collapse_into<A: Arch>(cpu: &'static Cpu<A>, mm: &Mm<A>, va: VirtAddr, huge: Pfn) -> Result<(), CollapseError> {
    let map = mm.map.write();
    let region = region_at(&map, va).filter(|r| {
        matches!(r.backing, Backing::Anon) && r.range.start <= va && va.add(Level::Pmd.entry_size()) <= r.range.end
    });
    let perm = region.ok_or(CollapseError::NotEligible(va))?.perm;
    let pmd = mm.table_at(Level::Pmd, va).ok_or(CollapseError::NotPopulated(va))?;
    let mut parent = pmd.lock();
    if parent.table().below(Level::Pmd, va).is_none_or(|pte| pte.frame().population() as usize != ENTRIES) {
        return Err(CollapseError::NotPopulated(va));
    }
    let unlinked = parent.unlink(cpu, mm, Level::Pmd, va);
    let flushed = unlinked.flush(cpu);
    // The lock is dropped before any sync: other CPUs may wait for it.
    drop(parent);
    ghost::point(cpu);
    let drained = flushed.drain(cpu);
    ghost::point(cpu);
    let old = drained.table();
    let pages = match freeze_all::<A>(old, va) {
        Ok(pages) => pages,
        Err(error) => {
            drained.relink(cpu, &mut pmd.lock());
            return Err(error);
        }
    };
    pause!(cpu, AfterFreeze);
    let spare = match drained.reuse(cpu) {
        Ok(spare) => spare,
        Err((drained, error)) => {
            thaw::<A>(&pages);
            drained.relink(cpu, &mut pmd.lock());
            return Err(MapError::from(error).into());
        }
    };
    for (i, pfn) in pages.into_iter().enumerate() {
        let to = Pfn(huge.0 + i as u32);
        page::copy::<A>(pfn, to);
        page::tag::<A>(to, mm.id, va.0 + i as u64 * PAGE_SIZE);
        page::free(cpu, pfn);
    }
    pause!(cpu, AfterCopy);
    let mut parent = pmd.lock();
    parent.deposit(spare);
    parent.set(Level::Pmd, va, A::Codec::leaf(Level::Pmd, huge.addr(), perm));
    Ok(())
}

/// The page of entry `index` of a table that is full.
fn leaf<A: Arch>(table: Table<A>, index: usize) -> Pfn {
    match A::Codec::decode(Level::Pte, A::load_entry(table.slot(index))) {
        Entry::Leaf { page, .. } => page.pfn(),
        _ => unreachable!("a full table lost entry {index}"),
    }
}

/// Freezes all pages of a full table and returns them, or none.
fn freeze_all<A: Arch>(table: Table<A>, va: VirtAddr) -> Result<[Pfn; ENTRIES], CollapseError> {
    let mut pages = [Pfn(0); ENTRIES];
    for i in 0..ENTRIES {
        let pfn = leaf::<A>(table, i);
        let frame = A::machine().frames.get(pfn);
        let frozen = if guard!(CollapseFreeze) {
            frame.state() == FrameState::Anon && frame.freeze(1)
        } else {
            frame.thaw(0);
            true
        };
        if !frozen {
            thaw::<A>(&pages[..i]);
            return Err(CollapseError::InUse(va.add(i as u64 * PAGE_SIZE)));
        }
        pages[i] = pfn;
    }
    Ok(pages)
}

fn thaw<A: Arch>(pages: &[Pfn]) {
    for pfn in pages {
        A::machine().frames.get(*pfn).thaw(1);
    }
}
