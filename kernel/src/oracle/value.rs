//! Value checks: does what a walk or a translation returned belong where it was found?
//!
//! A page's descriptor says which mm and address, or which file and offset, it belongs to, and does not change while
//! anybody has a reference. So a walk's result can be judged after the fact: a page that was unmapped since is still
//! what it was; a page that was freed and used again is not.

use core::sync::atomic::Ordering;

use crate::addr::{ENTRIES, Level, PAGE_SIZE, Pfn, VirtAddr};
use crate::arch::Arch;
use crate::mm::address_space::{Backing, Mm, region_at};
use crate::mm::entry::{Entry, EntryCodec, Perm};
use crate::mm::frame::{FrameState, FrameTable};
use crate::mm::page;
use crate::mm::table::Table;
use crate::oracle::{self, ghost};
use crate::record::cell::ViolationKind;
use crate::smp::cpu::Cpu;

/// The first word of the page of `owner` at `address`.
pub fn tag(owner: u32, address: u64) -> u64 {
    (owner as u64) << 40 ^ (address >> 12) ^ 0x7a90_0000_0000_0000
}

/// What a frame says that it is: owner and address of the 4 KiB in it.
fn identity<A: Arch>(frames: &FrameTable<A>, pfn: Pfn) -> Option<(FrameState, u32, u64)> {
    let head = if frames.lookup(pfn)?.is_tail() { page::head::<A>(pfn) } else { pfn };
    let frame = frames.lookup(head)?;
    Some((frame.state(), frame.owner(), frame.address() + (pfn.0 - head.0) as u64 * PAGE_SIZE))
}

/// Whether `pfn` may be what `mm` has at `va`. `None` if that cannot be told just now.
fn explained<A: Arch>(mm: &Mm<A>, va: VirtAddr, pfn: Pfn) -> Option<bool> {
    let Some((state, owner, address)) = identity(&A::machine().frames, pfn) else { return Some(false) };
    match state {
        FrameState::Anon => Some(mm.descends_from(owner) && address == va.0),
        FrameState::File => {
            // Only tried: a walk waits for nobody.
            let map = mm.map.try_read()?;
            let region = region_at(&map, va)?;
            let (Backing::File(file, offset) | Backing::Shared(file, offset)) = &region.backing else {
                return Some(false);
            };
            Some(file.id == owner && offset + (va.0 - region.range.start.0) == address)
        }
        _ => Some(false),
    }
}

/// Judges the pages that a walk returned. The caller has a reference to each.
pub(crate) fn judge_walk<A: Arch>(cpu: &'static Cpu<A>, mm: &Mm<A>, start: VirtAddr, pages: &[Pfn]) {
    for (i, pfn) in pages.iter().enumerate() {
        let va = start.add(i as u64 * PAGE_SIZE);
        if explained(mm, va, *pfn) == Some(false) {
            oracle::report(cpu, ghost::describe(cpu, cpu, *pfn, ViolationKind::WrongPage, va));
        }
    }
}

/// Judges what a CPU read at the start of a page of `mm` through its TLB: the tag of what is there, never that of a
/// free frame or of somebody else's page.
pub(crate) fn judge_translation<A: Arch>(cpu: &'static Cpu<A>, mm: &Mm<A>, va: VirtAddr, observed: u64) {
    let ours = |owner: &u32| observed == tag(*owner, va.0);
    if !ours(&mm.id) && !mm.ancestors.iter().any(ours) {
        oracle::report(cpu, ghost::describe(cpu, cpu, Pfn(0), ViolationKind::StaleTranslation, va));
    }
}

/// Judges a table that was unlinked for good. Nobody changes it any more, so its population must be what a scan says. A
/// leaf that is left in it must be of a file (whose reference went with the table) or must be counted nowhere.
pub(crate) fn judge_retired<A: Arch>(cpu: &'static Cpu<A>, table: Table<A>) {
    let va = VirtAddr(table.frame().address());
    let leaves = table.frame().level() == Level::Pte;
    let (mut used, mut lost) = (0_u16, false);
    // After an entry of a 2 MiB page that is mapped bit by bit: what the entry of its next part is, and how many parts
    // are left. Its head was looked at.
    let (mut next, mut left) = (0, 0);
    // SAFETY: a table has so many slots.
    for slots in unsafe { table.slots(0, ENTRIES) }.chunks_exact(AT_ONCE) {
        // Not by the walk's own load: on a simulated machine that is a step in which others act.
        let entries: [u64; AT_ONCE] = core::array::from_fn(|i| slots[i].load(Ordering::Relaxed));
        if entries.iter().fold(0, |any, raw| any | raw) == 0 {
            continue;
        }
        let all_behind = || (0..).zip(entries).all(|(i, raw)| raw == next + i * PAGE_SIZE);
        if left >= AT_ONCE as u64 && all_behind() {
            (used, next, left) = (used + AT_ONCE as u16, next + AT_ONCE as u64 * PAGE_SIZE, left - AT_ONCE as u64);
            continue;
        }
        for raw in entries {
            used += u16::from(raw != 0);
            if left != 0 && raw == next {
                (next, left) = (next + PAGE_SIZE, left - 1);
            } else if leaves && let Entry::Leaf { page, .. } = A::Codec::decode(Level::Pte, raw) {
                lost |= is_lost::<A>(page.pfn());
                (next, left) = (raw + PAGE_SIZE, parts_behind::<A>(page.pfn()));
            }
        }
    }
    if used != table.frame().population() {
        oracle::report(cpu, ghost::describe(cpu, cpu, table.pfn(), ViolationKind::Miscounted, va));
    }
    if lost {
        oracle::report(cpu, ghost::describe(cpu, cpu, table.pfn(), ViolationKind::LostMapping, va));
    }
}

/// Entries that are looked at together: nearly always they are all empty.
const AT_ONCE: usize = 8;

/// Whether an entry that is gone still counts for this anonymous page.
fn is_lost<A: Arch>(pfn: Pfn) -> bool {
    let frames = &A::machine().frames;
    matches!(identity(frames, pfn), Some((FrameState::Anon, _, _))) && frames.lookup(pfn).is_some_and(|f| f.refs() != 0)
}

/// How many parts of a 2 MiB page are behind the one in `pfn`; 0 where it is no such page's.
fn parts_behind<A: Arch>(pfn: Pfn) -> u64 {
    let is_part = |pfn| A::machine().frames.lookup(pfn).is_some_and(|frame| frame.is_tail());
    let behind = ENTRIES as u64 - 1 - u64::from(pfn.0) % ENTRIES as u64;
    if behind != 0 && is_part(Pfn(pfn.0 + 1)) { behind } else { 0 }
}

/// Whether what is taken for a table is a page of some mm or file.
pub(crate) fn is_page<A: Arch>(table: Table<A>) -> bool {
    A::machine()
        .frames
        .lookup(table.pfn())
        .is_none_or(|f| matches!(f.state(), FrameState::Anon | FrameState::File | FrameState::Tail))
}

/// A leaf was set in `pte`: if nothing points at that table any more, what was mapped is lost.
pub(crate) fn judge_fill<A: Arch>(cpu: &'static Cpu<A>, pte: Table<A>, va: VirtAddr) {
    if pte.frame().state() == FrameState::UnlinkedTable {
        oracle::report(cpu, ghost::describe(cpu, cpu, pte.pfn(), ViolationKind::LostMapping, va));
    }
}

/// A page at `va` was pinned for writing, and the pin was kept: the mm must still be allowed to write to it.
#[inline]
pub(crate) fn judge_pin<A: Arch>(cpu: &'static Cpu<A>, mm: &Mm<A>, va: VirtAddr, pfn: Pfn) {
    if !oracle::is_on() {
        return;
    }
    let entry = mm.table_at(Level::Pte, va).map(|pte| pte.entry(Level::Pte, va));
    if let Some(Entry::Leaf { page, perm }) = entry
        && page.pfn() == pfn
        && !perm.contains(Perm::WRITE)
    {
        oracle::report(cpu, ghost::describe(cpu, cpu, pfn, ViolationKind::PinnedAndShared, va));
    }
}
