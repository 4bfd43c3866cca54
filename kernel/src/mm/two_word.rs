//! Entries of two words: GUP-fast on a machine that cannot read an entry at once (Linux: `pmdp_get_lockless`,
//! `ptep_get_lockless` where an entry is two words, as with x86's PAE).
//!
//! Both machines of this kernel have entries of one word, so the reader denies itself what they can do: of each load it
//! uses one part, the bits below [`BOUNDARY`] or those above. PAE's boundary is at 4 GiB, inside the frame number;
//! there, two entries with the same low word name frames that are a multiple of 4 GiB apart. Here it is the lowest bit
//! of the frame number: the entries of *all* tables have the same low word, which is the worst that a boundary can be,
//! on a machine of any size.
//!
//! 1. **Low, high, low.** The reader reads the low word, which says whether the entry is present, then the high word,
//!    then the low word again. If that has changed, it begins anew (guard `LowAgain`).
//! 2. **Nobody fills again what a reader is reading.** What is left is an entry that is cleared after the first read,
//!    and filled again by one with the same low word before the last: the high word may be that of the empty entry, or
//!    of one in between, and both low words are the same. No look by the reader can tell. So it keeps interrupts masked
//!    over all three, as over the whole walk, and whoever clears an entry that pointed at a table waits for interrupt
//!    level on every CPU that may be reading it before the entry can be filled. A collapse does so by its flush and by
//!    what its strategy asks for, before it puts the table back or a page in its place. Where a table is given up
//!    nobody asks a strategy: there `wait_for_readers` interrupts every CPU (guard `TwoWordSync`; Linux:
//!    `pmdp_get_lockless_sync`), under the lock of the parent where faults may go on meanwhile, as in reclaim and
//!    retraction, else before the map lock is dropped.
//! 3. **A PTE is cleared and filled again with no wait at all**, by `MADV_DONTNEED` and a fault. A torn PTE names a
//!    wrong frame, or none: the reference, and both entries read again after it, are the protection, as in the walk.
//!
//! The oracle knows what the entry was at each of the three reads, and judges what the reader makes of an upper entry
//! before it uses it.

use crate::addr::{ENTRIES, Level, PAGE_SHIFT, PAGE_SIZE, Pfn, VirtAddr};
use crate::arch::Arch;
use crate::guard;
use crate::ledger::Cause;
use crate::mm::address_space::Mm;
use crate::mm::entry::{Entry, EntryCodec, Perm};
use crate::mm::reference;
use crate::mm::table::Table;
use crate::mm::walk;
use crate::oracle::ghost;
use crate::pause;
use crate::smp::call::call_many;
use crate::smp::cpu::Cpu;
use crate::sync::Strategy;

/// The lowest bit of an entry's high word.
pub const BOUNDARY: u32 = 12;

const LOW: u64 = (1 << BOUNDARY) - 1;

/// What a reader made of an entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Reading {
    /// A low word and a high word.
    raw: u64,
    /// The entry was this at none of the reads.
    torn: bool,
}

/// Reads the entry of `level` for `va`, word by word.
#[inline(always)]
fn read<A: Arch>(cpu: &'static Cpu<A>, table: Table<A>, level: Level, va: VirtAddr) -> Reading {
    loop {
        let low = table.load(level, va);
        pause!(cpu, AfterLowWord);
        ghost::point(cpu);
        let high = table.load(level, va);
        pause!(cpu, AfterHighWord);
        ghost::point(cpu);
        let again = table.load(level, va);
        if guard!(LowAgain) && (low ^ again) & LOW != 0 {
            A::relax();
            continue;
        }
        let raw = low & LOW | high & !LOW;
        return Reading { raw, torn: ![low, high, again].contains(&raw) };
    }
}

/// The same for an entry above the PTE, which is used at once: the oracle judges it. `None` if it was torn.
#[inline(always)]
fn read_upper<A: Arch>(cpu: &'static Cpu<A>, table: Table<A>, level: Level, va: VirtAddr) -> Option<u64> {
    let reading = read(cpu, table, level, va);
    let present = A::Codec::decode(level, reading.raw) != Entry::Absent;
    // What it would find there is anybody's guess.
    (!(reading.torn && present && ghost::torn(cpu, table, va))).then_some(reading.raw)
}

#[inline(always)]
fn below<A: Arch>(cpu: &'static Cpu<A>, table: Table<A>, level: Level, va: VirtAddr) -> Option<Table<A>> {
    match A::Codec::decode(level, read_upper(cpu, table, level, va)?) {
        Entry::Table(pa) => Some(Table::at(pa.pfn())),
        _ => None,
    }
}

/// [`walk::get_user_pages_fast`], by two words.
pub fn get_user_pages<A: Arch, S: Strategy>(
    cpu: &'static Cpu<A>,
    mm: &Mm<A>,
    start: VirtAddr,
    write: bool,
    pages: &mut [Pfn],
) -> usize {
    if !walk::is_walkable::<A>(start, pages.len()) {
        return 0;
    }
    walk::bracketed::<A, S>(cpu, mm, start, pages, |pages| {
        let mut done = 0;
        while done < pages.len() {
            let va = start.add((done as u64) << PAGE_SHIFT);
            let wanted = (pages.len() - done).min(ENTRIES - va.index(Level::Pte));
            let got = one_pmd(cpu, mm, va, write, &mut pages[done..done + wanted]);
            done += got;
            if got < wanted {
                break;
            }
        }
        done
    })
}

/// Walks from the root for what one PMD entry maps.
fn one_pmd<A: Arch>(cpu: &'static Cpu<A>, mm: &Mm<A>, va: VirtAddr, write: bool, pages: &mut [Pfn]) -> usize {
    let root = mm.root();
    ghost::hold(cpu, Level::Pgd, root, va);
    let Some(pud) = below(cpu, root, Level::Pgd, va) else { return 0 };
    ghost::hold(cpu, Level::Pud, pud, va);
    pause!(cpu, AfterPgdRead);
    let Some(pmd) = below(cpu, pud, Level::Pud, va) else { return 0 };
    ghost::hold(cpu, Level::Pmd, pmd, va);
    pause!(cpu, AfterPudRead);
    let Some(pmd_raw) = read_upper(cpu, pmd, Level::Pmd, va) else { return 0 };
    let taken = match A::Codec::decode(Level::Pmd, pmd_raw) {
        Entry::Absent => return 0,
        Entry::Leaf { perm, .. } if write && !perm.contains(Perm::WRITE) => return 0,
        Entry::Leaf { page, .. } => {
            if !A::machine().frames.get(page.pfn()).try_get(pages.len() as u32) {
                return 0;
            }
            let first = page.pfn().0 + va.index(Level::Pte) as u32;
            pages.iter_mut().zip(first..).for_each(|(page, pfn)| *page = Pfn(pfn));
            pages.len()
        }
        Entry::Table(pte) => {
            let pte = Table::at(pte.pfn());
            ghost::hold(cpu, Level::Pte, pte, va);
            pause!(cpu, AfterPmdRead);
            ptes(cpu, pte, va, write, pages)
        }
    };
    ghost::point(cpu);
    pause!(cpu, BeforeRecheck);
    if guard!(PmdRecheck) && read(cpu, pmd, Level::Pmd, va).raw != pmd_raw {
        reference::give_back::<A, false>(&pages[..taken]);
        return 0;
    }
    taken
}

/// Takes pages out of a PTE table; stops at the first that cannot be had.
fn ptes<A: Arch>(cpu: &'static Cpu<A>, pte: Table<A>, va: VirtAddr, write: bool, pages: &mut [Pfn]) -> usize {
    for (done, out) in pages.iter_mut().enumerate() {
        let va = va.add(done as u64 * PAGE_SIZE);
        let raw = read(cpu, pte, Level::Pte, va).raw;
        ghost::read(cpu, raw, pte, va);
        pause!(cpu, AfterPteRead);
        let Entry::Leaf { page, perm } = A::Codec::decode(Level::Pte, raw) else { return done };
        if write && !perm.contains(Perm::WRITE) || !reference::reference::<A, false>(cpu, &cpu.frames, page.pfn()) {
            return done;
        }
        pause!(cpu, AfterReference);
        if guard!(PteRecheck) && read(cpu, pte, Level::Pte, va).raw != raw {
            reference::give_back::<A, false>(&[page.pfn()]);
            return done;
        }
        *out = page.pfn();
    }
    pages.len()
}

/// An entry that pointed at a table was cleared, and the caller keeps others from filling it: waits until no CPU is
/// between the words of it. Nothing to do where entries are read at once. Interrupts are enabled.
pub(super) fn wait_for_readers<A: Arch>(cpu: &'static Cpu<A>) {
    if !A::machine().policy.reads_two_words() || !guard!(TwoWordSync) {
        return;
    }
    let mut others = *A::machine().online_mask();
    others.remove(cpu.id);
    cpu.ledger.recorded.waits_for_readers();
    call_many(cpu, &others, Cause::Sync, |_, _| {}, 0);
}
