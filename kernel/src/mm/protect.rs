//! mprotect: changes what leaves allow, then flushes. Regions that share PMD tables stop sharing first: a shared table
//! has one permission.

use core::ops::Range;

use crate::addr::{Level, PAGE_SIZE, VirtAddr};
use crate::arch::Arch;
use crate::mm::address_space::{Backing, MapError, Mm, check_cuts, check_perm, check_range, split_at};
use crate::mm::entry::{Entry, EntryCodec, Perm};
use crate::mm::gather::Gather;
use crate::mm::table::Table;
use crate::mm::two_word;
use crate::mm::unmap;
use crate::mm::zap;
use crate::smp::cpu::Cpu;

/// Gives the leaves of `range` the permissions `perm`, now and for later faults.
pub fn mprotect<A: Arch>(cpu: &'static Cpu<A>, mm: &Mm<A>, range: Range<VirtAddr>, perm: Perm) -> Result<(), MapError> {
    check_range::<A>(&range)?;
    check_perm(&range, perm)?;
    let mut map = mm.map.write();
    // All that can fail, before anything is changed.
    check_cuts(&map, &range)?;
    if !map.iter().any(|r| r.range.start < range.end && range.start < r.range.end) {
        return Err(MapError::NotMapped(range.start));
    }
    zap::split_ends(cpu, mm, &range)?;
    split_at(&mut map, &range);
    let first = map.partition_point(|r| r.range.start < range.start);
    let last = map.partition_point(|r| r.range.start < range.end);
    let mut gather = Gather::new(cpu, mm);
    let mut left = false;
    for region in &mut map[first..last] {
        region.perm = perm;
        if let Backing::Shared(file, offset) = &region.backing {
            // What is faulted in from now on goes into tables of this mm alone; tables that are its own already are
            // changed below.
            left = true;
            let _own = unmap::leave_shared(cpu, mm, file, region, *offset, &mut gather);
        }
        let private = matches!(region.backing, Backing::Anon);
        change(mm, region.range.clone(), perm, private, &mut gather);
    }
    gather.finish();
    if left {
        two_word::wait_for_readers(cpu);
    }
    drop(map);
    Ok(())
}

/// No end of `range` cuts a leaf.
fn change<A: Arch>(mm: &Mm<A>, range: Range<VirtAddr>, perm: Perm, private: bool, gather: &mut Gather<'_, A>) {
    let mut va = range.start;
    while va < range.end {
        let gib = va.align_down(Level::Pud).add(Level::Pud.entry_size());
        // `None`: nothing in this whole GiB.
        if let Some(pmd) = mm.table_at(Level::Pmd, va) {
            while va < gib.min(range.end) {
                let next = va.align_down(Level::Pmd).add(Level::Pmd.entry_size()).min(range.end);
                change_pmd(pmd, va..next, perm, private, gather);
                va = next;
            }
        }
        va = gib;
    }
}

/// Changes what is in `range`, which lies within one PMD entry.
fn change_pmd<A: Arch>(pmd: Table<A>, range: Range<VirtAddr>, perm: Perm, private: bool, gather: &mut Gather<'_, A>) {
    let va = range.start;
    match pmd.entry(Level::Pmd, va) {
        Entry::Absent => {}
        Entry::Leaf { page, .. } => {
            assert!(range.end.0 - va.0 == Level::Pmd.entry_size(), "{va} cuts a 2 MiB leaf that was not split first");
            pmd.lock().change(Level::Pmd, va, A::Codec::leaf(Level::Pmd, page, perm));
            gather.changed(Level::Pmd, va);
        }
        Entry::Table(pte) => change_ptes(Table::at(pte.pfn()), range, perm, private, gather),
    }
}

// A function of its own: its loop has enough to keep in registers.
#[inline(never)]
fn change_ptes<A: Arch>(pte: Table<A>, range: Range<VirtAddr>, perm: Perm, private: bool, gather: &mut Gather<'_, A>) {
    let mut guard = pte.lock();
    let mut va = range.start;
    // The first that is changed, and the last so far.
    let mut changed: Option<(VirtAddr, VirtAddr)> = None;
    while va < range.end {
        if let Entry::Leaf { page, perm: old } = guard.entry(Level::Pte, va) {
            // A private page that others refer to as well is copied on the next write, not made writable.
            let widened = perm.contains(Perm::WRITE) && !old.contains(Perm::WRITE);
            let shared = private && widened && A::machine().frames.get(page.pfn()).refs() > 1;
            let new = if shared { perm - Perm::WRITE } else { perm };
            if old != new {
                guard.change(Level::Pte, va, A::Codec::leaf(Level::Pte, page, new));
                changed = Some((changed.map_or(va, |(first, _)| first), va));
            }
        }
        va = va.add(PAGE_SIZE);
    }
    if let Some((first, last)) = changed {
        gather.changed(Level::Pte, first);
        gather.changed(Level::Pte, last);
    }
}
