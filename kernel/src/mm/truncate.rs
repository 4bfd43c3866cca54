//! Truncation: pages are taken from a file, and from every mm that has them.
//!
//! First the file gives them up, under its lock: no fault finds them there from then on. Then every mapping that shows
//! them is visited with the map lock of its mm held for writing. A fault holds that lock for reading from before it
//! asks the file for a page until it has put the page in. So one that got a page from the file before is over, and what
//! it put in is taken out; one that comes after gets another page. One that unmaps holds the lock until it has flushed,
//! and only then is the mapping taken off the file. A single pass is enough, and when it is over no translation leads
//! to what was truncated: only who has pinned a page still has it.
//!
//! One truncation of a file comes after the other. A 2 MiB page that the file has given up may be mapped by one leaf
//! until its own truncation has been everywhere; another that begins or ends inside it would cut that.

use core::ops::Range;

use crate::addr::{Level, Pfn, VirtAddr};
use crate::arch::Arch;
use crate::guard;
use crate::mm::address_space::{Backing, MapError, Mm, Region};
use crate::mm::file::File;
use crate::mm::gather::Gather;
use crate::mm::page::HUGE_ORDER;
use crate::mm::zap::{self, EmptyTables};
use crate::pause;
use crate::smp::cpu::Cpu;
use crate::smp::rcu;

/// Drops bytes `range` of `file`, which is of whole pages and not one that shares tables. What is read there afterwards
/// is zeroed pages.
///
/// # Errors
/// An end of the range cuts a 2 MiB page of the file. Nothing was changed.
pub fn truncate<A: Arch>(cpu: &'static Cpu<A>, file: &File<A>, range: Range<u64>) -> Result<(), MapError> {
    let visits = file.begin_visits();
    for cut in [range.start, range.end] {
        let cut = VirtAddr(cut);
        let inside = !cut.is_aligned(Level::Pmd) && file.find(cut.align_down(Level::Pmd).0).is_some_and(is_huge::<A>);
        if inside {
            return Err(MapError::CutsHugePage(cut));
        }
    }
    file.drop_pages(cpu, range.clone());
    pause!(cpu, Truncated);
    if guard!(TruncateUnmaps) {
        visits.visit(&range, |mm, at, _| take_out(cpu, mm, file, &at, &range));
    }
    rcu::poll(cpu);
    Ok(())
}

fn is_huge<A: Arch>(pfn: Pfn) -> bool {
    A::machine().frames.get(pfn).order() == HUGE_ORDER
}

/// Clears what `mm` shows of bytes `range` of `file` in the part `at` of it, as its regions are now.
fn take_out<A: Arch>(cpu: &'static Cpu<A>, mm: &Mm<A>, file: &File<A>, at: &Range<VirtAddr>, range: &Range<u64>) {
    // For writing: whoever faults there, with a page that the file has given up, is over. Without the guard for reading.
    let alone = guard!(TruncateWaits).then(|| mm.map.write());
    let beside = alone.is_none().then(|| mm.map.read());
    let map: &[Region<A>] = match (&alone, &beside) {
        (Some(map), _) => map,
        (_, Some(map)) => map,
        (None, None) => return,
    };
    let mut gather = Gather::new(cpu, mm);
    for region in map.iter().filter(|r| r.range.start < at.end && at.start < r.range.end) {
        let Backing::File(shown, offset) = &region.backing else { continue };
        if !core::ptr::eq(&**shown, file) {
            continue;
        }
        let end = offset + (region.range.end.0 - region.range.start.0);
        let (first, last) = (range.start.max(*offset), range.end.min(end));
        if first < last {
            let part = region.range.start.add(first - offset)..region.range.start.add(last - offset);
            zap::zap(cpu, mm, part, EmptyTables::Reclaim, &mut gather);
        }
    }
    gather.finish();
    drop((alone, beside));
}
