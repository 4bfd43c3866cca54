//! munmap: regions, leaves, then the tables that nothing else needs; `MADV_DONTNEED`: leaves only, with reclaim of
//! tables that became empty.

use alloc::vec::Vec;
use core::ops::Range;

use crate::addr::{Level, PAGE_SIZE, PMD_SIZE, PUD_SIZE, VirtAddr};
use crate::arch::Arch;
use crate::guard;
use crate::mm::address_space::{Backing, MapError, Mm, Region, check_cuts, check_range, region_at, split_at};
use crate::mm::file::File;
use crate::mm::gather::Gather;
use crate::mm::pace::Pace;
use crate::mm::share;
use crate::mm::table::Table;
use crate::mm::two_word;
use crate::mm::zap::{self, EmptyTables};
use crate::object::account::trim;
use crate::pause;
use crate::smp::cpu::Cpu;

/// Unmaps `range` and frees the tables that become unnecessary.
pub fn munmap<A: Arch>(cpu: &'static Cpu<A>, mm: &Mm<A>, range: Range<VirtAddr>) -> Result<(), MapError> {
    check_range::<A>(&range)?;
    let mut map = mm.map.write();
    // All that can fail, before anything is changed: a table with a leaf left in it must not be freed.
    check_cuts(&map, &range)?;
    zap::split_ends(cpu, mm, &range)?;
    split_at(&mut map, &range);
    let first = map.partition_point(|r| r.range.start < range.start);
    let last = map.partition_point(|r| r.range.start < range.end);
    let gone: Vec<Region<A>> = map.drain(first..last).collect();
    trim(&mut map);
    let floor = if first == 0 { VirtAddr(0) } else { map[first - 1].range.end };
    let ceiling = map.get(first).map_or(A::USER_END, |r| r.range.start);
    let mut gather = Gather::new(cpu, mm);
    gone.iter().for_each(|region| unmap_leaves(cpu, mm, region, region.range.clone(), &mut gather));
    free_tables(cpu, mm, mm.root(), Level::Pgd, &range, &(floor..ceiling), &mut gather);
    gather.finish();
    gone.iter().for_each(|region| leave_file(mm, region));
    two_word::wait_for_readers(cpu);
    drop(map);
    Ok(())
}

/// Goes on unmapping the region that begins at `at`, in the order of its addresses, until that is over, which is
/// `true`, or `pace` says that it shall be left, with everything flushed that is unmapped so far. It is the map lock
/// that is given up in between: see `object/unmapping.rs`.
pub fn unmap_some<A: Arch>(cpu: &'static Cpu<A>, mm: &Mm<A>, at: VirtAddr, pace: &mut Pace<'_>) -> bool {
    let mut map = mm.map.write();
    let index = map.partition_point(|r| r.range.start < at);
    if map.get(index).is_none_or(|r| r.range.start != at) {
        return true;
    }
    let floor = if index == 0 { VirtAddr(0) } else { map[index - 1].range.end };
    // Of one that goes too, only what is left is in the way.
    let ceiling = map.get(index + 1).map_or(A::USER_END, |r| r.gone.unwrap_or(r.range.start));
    let mut gather = Gather::new(cpu, mm);
    let over = go(cpu, mm, &mut map[index], &(floor..ceiling), &mut gather, pace);
    if over && !guard!(UnmapFirst) {
        leave_file(mm, &map[index]);
    }
    gather.finish();
    two_word::wait_for_readers(cpu);
    if over {
        let region = map.remove(index);
        trim(&mut map);
        if guard!(UnmapFirst) {
            leave_file(mm, &region);
        }
    }
    over
}

/// Unmaps `region` from where it was left, part by part, with the tables that map nothing outside of `free` any more,
/// until nothing is left of it, which is `true`, or `pace` says so. What it shows is not left yet ([`leave_file`]).
pub(super) fn go<A: Arch>(
    cpu: &'static Cpu<A>,
    mm: &Mm<A>,
    region: &mut Region<A>,
    free: &Range<VirtAddr>,
    gather: &mut Gather<'_, A>,
    pace: &mut Pace<'_>,
) -> bool {
    let end = region.range.end;
    let mut at = region.gone.unwrap_or(region.range.start);
    loop {
        let (part, work) = next_part(mm, region, at);
        unmap_leaves(cpu, mm, region, part.clone(), gather);
        let over = part.end == end;
        let ceiling = if over { free.end } else { part.end };
        free_tables(cpu, mm, mm.root(), Level::Pgd, &part, &(free.start..ceiling), gather);
        at = part.end;
        region.gone = Some(at);
        pause!(cpu, UnmapPart);
        pace.did(work);
        if over || pace.stops() {
            return over;
        }
    }
}

/// The part of `region` from `at` on that is unmapped at once, and how much work that is at most: what one PMD entry
/// maps, a GiB in which there is nothing, or the whole of one that shares tables, which is one GiB for programs.
fn next_part<A: Arch>(mm: &Mm<A>, region: &Region<A>, at: VirtAddr) -> (Range<VirtAddr>, u64) {
    let end = region.range.end;
    if let Backing::Shared(..) = region.backing {
        return (at..end, (end.0 - at.0) / PMD_SIZE);
    }
    match mm.table_at(Level::Pmd, at) {
        None => (at..at.align_down(Level::Pud).add(PUD_SIZE).min(end), 1),
        Some(pmd) => {
            let next = at.align_down(Level::Pmd).add(PMD_SIZE).min(end);
            (at..next, if pmd.load(Level::Pmd, at) == 0 { 1 } else { (next.0 - at.0) / PAGE_SIZE })
        }
    }
}

/// Clears the leaves of one region in `part` of it; all of them where it shares tables. The map lock is held for
/// writing, and no end of the part cuts a leaf.
fn unmap_leaves<A: Arch>(
    cpu: &'static Cpu<A>,
    mm: &Mm<A>,
    region: &Region<A>,
    part: Range<VirtAddr>,
    gather: &mut Gather<'_, A>,
) {
    match &region.backing {
        Backing::Anon | Backing::File(..) => zap::zap(cpu, mm, part, EmptyTables::Keep, gather),
        Backing::Shared(file, offset) => {
            for own in leave_shared(cpu, mm, file, region, *offset, gather) {
                zap::zap(cpu, mm, own, EmptyTables::Keep, gather);
            }
        }
    }
}

/// Takes a region off its file. Its leaves are flushed, and the map lock is held: a truncation finds the region and waits
/// for that, or there is nothing left to wait for.
pub(super) fn leave_file<A: Arch>(mm: &Mm<A>, region: &Region<A>) {
    if let Backing::File(file, _) | Backing::Shared(file, _) = &region.backing {
        file.remove_mapping(mm, &region.range);
    }
}

/// For each GiB of a shared region: leaves the table if others use it too, else takes it off the file's list, so that
/// nobody joins it any more. Returns the ranges whose tables are this mm's own.
pub(super) fn leave_shared<A: Arch>(
    cpu: &'static Cpu<A>,
    mm: &Mm<A>,
    file: &File<A>,
    region: &Region<A>,
    offset: u64,
    gather: &mut Gather<'_, A>,
) -> Vec<Range<VirtAddr>> {
    let mut contents = file.lock();
    let mut va = region.range.start;
    let mut own = Vec::new();
    while va < region.range.end {
        let next = va.align_down(Level::Pud).add(PUD_SIZE).min(region.range.end);
        let at = offset + (va.0 - region.range.start.0);
        let at = at - at % PUD_SIZE;
        if let Some(pud) = mm.table_at(Level::Pud, va)
            && !share::leave(cpu, mm, &mut contents, at, pud, va, gather)
        {
            share::forget(&mut contents, at, pud.below(Level::Pud, va));
            own.push(va..next);
        }
        if gather.unshared_is_full() {
            gather.settle_unshared(file, &mut contents);
        }
        va = next;
    }
    // Flush and sync before anybody can find the tables again: the last sharer may use them as its own from here on.
    gather.settle_unshared(file, &mut contents);
    own
}

/// Frees the tables under `table` that map nothing outside `free` any more and something inside `range`. The leaves are
/// cleared.
pub(super) fn free_tables<A: Arch>(
    cpu: &'static Cpu<A>,
    mm: &Mm<A>,
    table: Table<A>,
    level: Level,
    range: &Range<VirtAddr>,
    free: &Range<VirtAddr>,
    gather: &mut Gather<'_, A>,
) {
    let Some(below) = level.below() else { return };
    let mut va = range.start.align_down(level);
    while va < range.end {
        if let Some(child) = table.below(level, va) {
            let inside = va.max(range.start)..va.add(level.entry_size()).min(range.end);
            free_tables(cpu, mm, child, below, &inside, free, gather);
            if free.start <= va && va.add(level.entry_size()) <= free.end {
                let unlinked = table.lock().unlink(cpu, mm, level, va);
                gather.table(unlinked);
            }
        }
        va = va.add(level.entry_size());
    }
}

/// `MADV_DONTNEED`: drops the pages of `range`, which stays mapped, and gives back PTE tables that this empties.
pub fn dontneed<A: Arch>(cpu: &'static Cpu<A>, mm: &Mm<A>, range: Range<VirtAddr>) -> Result<(), MapError> {
    check_range::<A>(&range)?;
    let map = mm.map.read();
    let region = region_at(&map, range.start).filter(|r| range.end <= r.range.end);
    let region = region.ok_or(MapError::NotMapped(range.start))?;
    if matches!(region.backing, Backing::Shared(..)) {
        // Its leaves are in tables that other mms link: dropping them here would drop them there, without a flush
        // there.
        return Err(MapError::Forbidden(range.start));
    }
    zap::split_ends(cpu, mm, &range)?;
    let mut gather = Gather::new(cpu, mm);
    zap::zap(cpu, mm, range, EmptyTables::Reclaim, &mut gather);
    gather.finish();
    drop(map);
    Ok(())
}
