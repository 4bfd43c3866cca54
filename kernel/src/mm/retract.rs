//! Retracting PTE tables of files: when the pages are one 2 MiB page already, or are about to be truncated, the tables
//! that map them one by one are taken out and freed after a grace period. No table is used again, so no sync is needed;
//! but until the grace period is over a walk may still read the retracted table, whose entries are as they were. That
//! is what the PMD recheck of the walk is for.

use core::ops::Range;

use crate::addr::{ENTRIES, Level, PMD_SIZE, Pfn, PhysAddr, VirtAddr};
use crate::arch::Arch;
use crate::mm::address_space::{Backing, Mm, region_at};
use crate::mm::collapse::CollapseError;
use crate::mm::entry::{Entry, EntryCodec};
use crate::mm::file::File;
use crate::mm::page::{self, HUGE_ORDER};
use crate::mm::table::Table;
use crate::mm::two_word;
use crate::smp::cpu::Cpu;
use crate::smp::rcu;

/// Maps the 2 MiB page of a file at `va` by one leaf instead of 512 entries (`MADV_COLLAPSE` of a PTE-mapped huge
/// page).
pub fn collapse_pte_mapped<A: Arch>(cpu: &'static Cpu<A>, mm: &Mm<A>, va: VirtAddr) -> Result<(), CollapseError> {
    if !va.is_aligned(Level::Pmd) {
        return Err(CollapseError::NotEligible(va));
    }
    let map = mm.map.write();
    let region = region_at(&map, va).ok_or(CollapseError::NotEligible(va))?;
    let Backing::File(file, offset) = &region.backing else { return Err(CollapseError::NotEligible(va)) };
    let at = offset + (va.0 - region.range.start.0);
    if va.add(PMD_SIZE) > region.range.end || !at.is_multiple_of(PMD_SIZE) {
        return Err(CollapseError::NotEligible(va));
    }
    let huge = file.find(at).filter(|p| A::machine().frames.get(*p).order() == HUGE_ORDER);
    let huge = huge.ok_or(CollapseError::NotEligible(va))?;
    let pmd = mm.table_at(Level::Pmd, va).ok_or(CollapseError::NotPopulated(va))?;
    let mut parent = pmd.lock();
    let pte = parent.table().below(Level::Pmd, va).ok_or(CollapseError::NotPopulated(va))?;
    let table = pte.lock();
    let matches = (0..ENTRIES as u32).all(|i| maps(pte, i as usize, Pfn(huge.0 + i)));
    if !matches {
        return Err(CollapseError::InUse(va));
    }
    let unlinked = parent.unlink(cpu, mm, Level::Pmd, va);
    let flushed = unlinked.flush(cpu);
    two_word::wait_for_readers(cpu);
    drop(table);
    // The entries are left as they are for whoever still reads them; the references behind them go.
    A::machine().frames.get(huge).get();
    page::put(cpu, huge, ENTRIES as u32);
    parent.set(Level::Pmd, va, A::Codec::leaf(Level::Pmd, huge.addr(), region.perm));
    drop(parent);
    flushed.retire(cpu);
    drop(map);
    rcu::poll(cpu);
    Ok(())
}

/// Whether entry `index` maps exactly `pfn`.
fn maps<A: Arch>(table: Table<A>, index: usize, pfn: Pfn) -> bool {
    let raw = A::load_entry(table.slot(index));
    matches!(A::Codec::decode(Level::Pte, raw), Entry::Leaf { page, .. } if page == PhysAddr(pfn.addr().0))
}

/// Takes the PTE tables that map nothing but bytes `range` of `file` out of every mm, and drops the references behind
/// their entries. Faults bring them back.
pub fn retract_page_tables<A: Arch>(cpu: &'static Cpu<A>, file: &File<A>, range: Range<u64>) {
    file.begin_visits().visit(&range, |mm, at, offset| {
        let shown = offset + (at.end.0 - at.start.0);
        let first = at.start.add(range.start.saturating_sub(offset));
        let end = VirtAddr(at.end.0 - shown.saturating_sub(range.end));
        let mut va = first.add(PMD_SIZE - 1).align_down(Level::Pmd);
        while va.add(PMD_SIZE) <= end {
            retract_one(cpu, mm, file, offset + (va.0 - at.start.0), va);
            va = va.add(PMD_SIZE);
        }
    });
    rcu::poll(cpu);
}

/// Only where the whole table shows this part of this file: a mapping that was found under the file's lock may be gone
/// by now.
fn retract_one<A: Arch>(cpu: &'static Cpu<A>, mm: &Mm<A>, file: &File<A>, at: u64, va: VirtAddr) {
    let map = mm.map.read();
    let shows_it = region_at(&map, va).is_some_and(|r| match &r.backing {
        Backing::File(mapped, offset) => {
            mapped.id == file.id && offset + (va.0 - r.range.start.0) == at && va.add(PMD_SIZE) <= r.range.end
        }
        _ => false,
    });
    if !shows_it {
        return;
    }
    let Some(pmd) = mm.table_at(Level::Pmd, va) else { return };
    let mut parent = pmd.lock();
    let Some(pte) = parent.table().below(Level::Pmd, va) else { return };
    let table = pte.lock();
    let unlinked = parent.unlink(cpu, mm, Level::Pmd, va);
    let flushed = unlinked.flush(cpu);
    two_word::wait_for_readers(cpu);
    drop(table);
    drop(parent);
    for i in 0..ENTRIES {
        if let Entry::Leaf { page, .. } = A::Codec::decode(Level::Pte, A::load_entry(pte.slot(i))) {
            page::put(cpu, page::head::<A>(page.pfn()), 1);
        }
    }
    flushed.retire(cpu);
    drop(map);
}
