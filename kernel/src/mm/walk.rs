//! Lockless walks: `get_user_pages_fast` and `pin_user_pages_fast`, in the manner of Linux's GUP-fast.
//!
//! A walk takes no lock and writes nothing but the reference counts of the pages that it returns. It rests on four
//! things:
//!
//! 1. **Interrupts are masked** from before the first entry is read until after the last pointer is used. Whoever wants
//!    to use a table again after unlinking it waits for an acknowledgement from interrupt level ([`crate::sync`]);
//!    whoever wants to free one waits for a grace period, which a CPU inside a walk does not pass.
//! 2. **Every entry is read once**, and the next table is computed from the value that was checked.
//! 3. **Reference, then recheck.** A page found through an entry may have been unmapped and given to somebody else
//!    meanwhile. So the walk takes a reference (a full barrier), then reads the PTE *and* the PMD entry again: if both
//!    are what they were, the page was mapped there while it was referenced. The PTE alone is not enough: when the
//!    whole table was retracted its entries stay as they are, and only the PMD entry tells. It is read once for all
//!    pages of a table, after the last reference; no later than that anybody uses a page. That it comes after the PTEs
//!    makes no difference: a table that is unlinked comes back unchanged or, while the walk holds it, not at all.
//! 4. **The head, too, again.** Inside a 2 MiB page the reference is taken on the head, which is found before anything
//!    holds it. Meanwhile that page may have been freed, and its frames given out one by one: head and part are
//!    strangers now, and the part may even be mapped again by the very same entry. So the walk compares the head once
//!    it has the reference, which keeps it what it is (Linux: `try_get_folio`). The page of a PMD leaf is its own head:
//!    there is nothing to compare.
//!
//! A walk that finds anything else than what it hoped for stops and returns what it has; the slow path,
//! [`crate::mm::fault::get_user_pages`], does the rest.

use core::sync::atomic::{AtomicU64, Ordering};

use crate::addr::{ENTRIES, Level, PAGE_SHIFT, Pfn, PhysAddr, VirtAddr};
use crate::arch::Arch;
use crate::guard;
use crate::mm::address_space::Mm;
use crate::mm::entry::{Entry, EntryCodec, Perm};
use crate::mm::frame::FrameTable;
use crate::mm::page;
use crate::mm::reference::{drop_again, give_back, reference};
use crate::mm::self_walk;
use crate::mm::table::Table;
use crate::oracle::ghost;
use crate::pause;
use crate::smp::cpu::Cpu;
use crate::sync::Strategy;

/// A walk of `mm`, which the CPU has loaded: from an address on, for writing or not, into a slice of frames. Returns
/// how many pages it got; each has a reference for the caller.
pub type WalkFn<A> = fn(&'static Cpu<A>, &Mm<A>, VirtAddr, bool, &mut [Pfn]) -> usize;

/// Takes references to up to `pages.len()` pages from `start` on. Drop each by [`crate::mm::page::put_walked`].
pub fn get_user_pages_fast<A: Arch, S: Strategy>(
    cpu: &'static Cpu<A>,
    mm: &Mm<A>,
    start: VirtAddr,
    write: bool,
    pages: &mut [Pfn],
) -> usize {
    walk::<A, S, false>(cpu, mm, start, write, pages)
}

/// The same for pages that a device will access: pins them, and gives up if the mm is being forked. Drop each by
/// [`crate::mm::page::unpin_walked`].
pub fn pin_user_pages_fast<A: Arch, S: Strategy>(
    cpu: &'static Cpu<A>,
    mm: &Mm<A>,
    start: VirtAddr,
    write: bool,
    pages: &mut [Pfn],
) -> usize {
    // Acquire: pairs with the release in `fork`; what is read below is from after an even value
    // (tests/litmus/hand-over).
    let sequence = mm.write_protect_seq.load(Ordering::Acquire);
    if sequence & 1 != 0 {
        return 0;
    }
    let count = walk::<A, S, true>(cpu, mm, start, write, pages);
    pause!(cpu, PinSequence);
    // Full: pinned, then read the sequence. Pairs with the fence in `fork` between making it odd and reading the pins
    // (tests/litmus/pin-fork).
    A::fence();
    if guard!(ForkRetry) && mm.write_protect_seq.load(Ordering::Relaxed) != sequence {
        for pfn in &pages[..count] {
            page::unpin_walked(cpu, *pfn);
        }
        return 0;
    }
    count
}

/// Whether `count` pages from `start` on are some, and of user mode.
#[inline(always)]
pub(super) fn is_walkable<A: Arch>(start: VirtAddr, count: usize) -> bool {
    let length = (count as u64) << PAGE_SHIFT;
    let end = start.0.checked_add(length);
    end.is_some_and(|end| end <= A::USER_END.0) && length != 0 && start.is_aligned(Level::Pte)
}

#[inline(always)]
fn walk<A: Arch, S: Strategy, const PIN: bool>(
    cpu: &'static Cpu<A>,
    mm: &Mm<A>,
    start: VirtAddr,
    write: bool,
    pages: &mut [Pfn],
) -> usize {
    // Nearly every walk stays within one PTE table, and then within user mode's addresses if it begins there: they end
    // where a table's do. None wraps to more than all.
    const { assert!(A::USER_END.is_aligned(Level::Pmd)) };
    if pages.len().wrapping_sub(1) >= ENTRIES - start.index(Level::Pte) {
        return across_tables::<A, S, PIN>(cpu, mm, start, write, pages);
    }
    if !start.is_aligned(Level::Pte) || start >= A::USER_END {
        return 0;
    }
    bracketed::<A, S>(cpu, mm, start, pages, |pages| under_pmd::<A, S, PIN>(cpu, mm, start, write, pages))
}

/// What every walk of user mode's tables stands in: interrupts masked, what the strategy has said before and after, the
/// oracle told when tables and pages are held.
#[inline(always)]
pub(super) fn bracketed<A: Arch, S: Strategy>(
    cpu: &'static Cpu<A>,
    mm: &Mm<A>,
    start: VirtAddr,
    pages: &mut [Pfn],
    walk: impl FnOnce(&mut [Pfn]) -> usize,
) -> usize {
    let masked = guard!(WalkIrqOff);
    let enabled = if masked { A::irq_save() } else { false };
    ghost::begin(cpu, mm, start);
    pause!(cpu, WalkBegin);
    let published = guard!(WalkPublish) && guard!(PublishFirst);
    let outer = if published { S::walk_begin(cpu, mm) } else { 0 };
    pause!(cpu, Published);
    let done = walk(pages);
    ghost::release(cpu);
    S::walk_end(cpu, outer);
    pause!(cpu, WalkEnd);
    ghost::end(cpu, mm, start, pages, done);
    if masked {
        A::irq_restore(enabled);
    }
    done
}

/// Walks for what several PMD entries map, from the root for each.
#[inline(never)]
fn across_tables<A: Arch, S: Strategy, const PIN: bool>(
    cpu: &'static Cpu<A>,
    mm: &Mm<A>,
    start: VirtAddr,
    write: bool,
    pages: &mut [Pfn],
) -> usize {
    if !is_walkable::<A>(start, pages.len()) {
        return 0;
    }
    bracketed::<A, S>(cpu, mm, start, pages, |pages| {
        let (mut rest, mut done) = (pages, 0);
        while !rest.is_empty() {
            let va = start.add((done as u64) << PAGE_SHIFT);
            let (now, later) = rest.split_at_mut(rest.len().min(ENTRIES - va.index(Level::Pte)));
            let got = under_pmd::<A, S, PIN>(cpu, mm, va, write, now);
            done += got;
            // Less than all that the PMD entry was to give: the walk ends here.
            if got < now.len() {
                break;
            }
            rest = later;
        }
        done
    })
}

/// Walks for what one PMD entry maps.
#[inline(always)]
fn under_pmd<A: Arch, S: Strategy, const PIN: bool>(
    cpu: &'static Cpu<A>,
    mm: &Mm<A>,
    va: VirtAddr,
    write: bool,
    pages: &mut [Pfn],
) -> usize {
    if S::SELF_MAP {
        self_walk::one_pmd::<A, PIN>(cpu, mm, va, write, pages)
    } else {
        one_pmd::<A, S, PIN>(cpu, mm, va, write, pages)
    }
}

/// Walks from the root for what one PMD entry maps.
#[inline(always)]
fn one_pmd<A: Arch, S: Strategy, const PIN: bool>(
    cpu: &'static Cpu<A>,
    mm: &Mm<A>,
    va: VirtAddr,
    write: bool,
    pages: &mut [Pfn],
) -> usize {
    let root = mm.root();
    ghost::hold(cpu, Level::Pgd, root, va);
    let Some(pud) = root.below(Level::Pgd, va) else { return 0 };
    ghost::hold(cpu, Level::Pud, pud, va);
    pause!(cpu, AfterPgdRead);
    let Some(pmd) = pud.below(Level::Pud, va) else { return 0 };
    ghost::hold(cpu, Level::Pmd, pmd, va);
    pause!(cpu, AfterPudRead);
    let pmd_slot = pmd.slot(va.index(Level::Pmd));
    let pmd_raw = A::load_entry(pmd_slot);
    match A::Codec::decode(Level::Pmd, pmd_raw) {
        Entry::Absent => 0,
        Entry::Leaf { page, perm } => {
            if write && !perm.contains(Perm::WRITE) {
                return 0;
            }
            huge::<A, PIN>(cpu, pmd, pmd_raw, page.pfn(), va, pages)
        }
        Entry::Table(table) => {
            let Some(pte) = below_once(cpu, pmd, table, va) else { return 0 };
            ghost::hold(cpu, Level::Pte, pte, va);
            pause!(cpu, AfterPmdRead);
            if !guard!(PublishFirst) {
                S::walk_begin(cpu, mm);
            }
            ptes::<A, PIN>(cpu, (pmd_slot, pmd_raw), pte, va, write, pages)
        }
    }
}

/// The PTE table: from the value that was checked, never from another read of the entry, which may be something else by
/// now.
#[inline(always)]
fn below_once<A: Arch>(cpu: &'static Cpu<A>, pmd: Table<A>, checked: PhysAddr, va: VirtAddr) -> Option<Table<A>> {
    let address = if guard!(ReadOnce) {
        checked
    } else {
        pause!(cpu, BetweenReads);
        match pmd.entry(Level::Pmd, va) {
            Entry::Absent => return None,
            Entry::Table(again) => again,
            Entry::Leaf { page, .. } => page,
        }
    };
    Some(Table::at(address.pfn()))
}

/// Takes pages out of a 2 MiB leaf.
#[inline(never)]
fn huge<A: Arch, const PIN: bool>(
    cpu: &'static Cpu<A>,
    pmd: Table<A>,
    pmd_raw: u64,
    base: Pfn,
    va: VirtAddr,
    pages: &mut [Pfn],
) -> usize {
    let (first, count) = (va.index(Level::Pte), pages.len());
    let frame = A::machine().frames.get(base);
    if !frame.try_get(count as u32) {
        return 0;
    }
    if PIN {
        frame.add_pins(count as u32);
    }
    pause!(cpu, BeforeRecheck);
    if guard!(PmdRecheck) && pmd.load(Level::Pmd, va) != pmd_raw {
        drop_again::<A, PIN>(base, count as u32);
        return 0;
    }
    for (i, page) in pages[..count].iter_mut().enumerate() {
        *page = Pfn(base.0 + (first + i) as u32);
    }
    count
}

/// Takes pages out of a PTE table, and looks once at the PMD entry when it has all references: one that was taken
/// earlier was taken before that look as well. If the entry is another one, all are given back. `pages` is not empty.
#[inline(always)]
fn ptes<A: Arch, const PIN: bool>(
    cpu: &'static Cpu<A>,
    pmd: (&AtomicU64, u64),
    pte: Table<A>,
    va: VirtAddr,
    write: bool,
    pages: &mut [Pfn],
) -> usize {
    // SAFETY: the caller asks for no more pages than the table has from `va` on.
    let slots = unsafe { pte.slots(va.index(Level::Pte), pages.len()) };
    let frames = cpu.frames;
    for (taken, (slot, out)) in slots.iter().zip(pages.iter_mut()).enumerate() {
        if !take::<A, PIN>(cpu, &frames, slot, (pte, va.add((taken as u64) << PAGE_SHIFT)), write, out) {
            return fewer::<A, PIN>(cpu, pmd, &pages[..taken]);
        }
    }
    same_pmd::<A, PIN>(cpu, pmd, pages)
}

/// How many pages the walk has, if it did not get all: `pages`, or none.
#[cold]
#[inline(never)]
fn fewer<A: Arch, const PIN: bool>(cpu: &'static Cpu<A>, pmd: (&AtomicU64, u64), pages: &[Pfn]) -> usize {
    same_pmd::<A, PIN>(cpu, pmd, pages)
}

/// How many pages the walk has: `pages`, if the PMD entry is what it was; else none, and they are given back.
#[inline(always)]
fn same_pmd<A: Arch, const PIN: bool>(cpu: &'static Cpu<A>, (slot, raw): (&AtomicU64, u64), pages: &[Pfn]) -> usize {
    ghost::point(cpu);
    if guard!(PmdRecheck) && A::load_entry(slot) != raw {
        give_back::<A, PIN>(pages);
        return 0;
    }
    pages.len()
}

/// Takes the page of one slot, which maps `va` in `pte`: the reference, then the recheck of the PTE. The PMD entry is
/// the caller's to look at.
#[inline(always)]
fn take<A: Arch, const PIN: bool>(
    cpu: &'static Cpu<A>,
    frames: &FrameTable<A>,
    slot: &AtomicU64,
    (pte, va): (Table<A>, VirtAddr),
    write: bool,
    out: &mut Pfn,
) -> bool {
    let raw = A::load_entry(slot);
    ghost::read(cpu, raw, pte, va);
    pause!(cpu, AfterPteRead);
    let Entry::Leaf { page, perm } = A::Codec::decode(Level::Pte, raw) else { return false };
    if write && !perm.contains(Perm::WRITE) {
        return false;
    }
    let pfn = page.pfn();
    ghost::point(cpu);
    if !reference::<A, PIN>(cpu, frames, pfn) {
        return false;
    }
    pause!(cpu, AfterReference);
    ghost::point(cpu);
    pause!(cpu, BeforeRecheck);
    if guard!(PteRecheck) && A::load_entry(slot) != raw {
        give_back::<A, PIN>(&[pfn]);
        return false;
    }
    *out = pfn;
    true
}
