//! The walk of strategy [`crate::sync::self_map`]: it reads entries through the recursive mapping of its own mm
//! ([`crate::mm::self_map`]) and never has the address of a table.
//!
//! What it reads by is translations, and a flush takes translations away. So after an unlink and a *completed* flush
//! that covers the table's recursive address, the next read does not reach the table any more: it faults, which reads
//! as an absent entry, and the walk ends. There is nothing for a sync to wait for.
//!
//! The order: the PMD entry; then for each page the PTE, a reference to the page (a full barrier), the PTE and the PMD
//! entry again. Why that is enough:
//!
//! - The last read of the PTE reached the table before its flush was complete, or the table was linked. If before, then
//!   so was the reference, and whoever waited for the flush sees it (a collapse's freeze fails). If linked, the page
//!   was mapped while it was referenced, as in every walk.
//! - A PTE value that is no entry can come from a table that is being taken down. It is only ever compared, and used to
//!   try a reference, which is given back.
//! - **Where a 2 MiB leaf reads as a table** (x86_64) the value may be the *contents* of a user's page, and user memory
//!   can be made to hold any value. So the PMD entry must have been this table's when the last PTE was read. That it is
//!   the same before and after does not say so: between the two a collapse may have put a leaf there and a split may
//!   have linked the same table again. But a table that is used again has a new generation
//!   ([`crate::mm::frame::Frame::generation`]). So there the walk reads the generation, then the PMD entry once more
//!   (it may have been a leaf when the generation was read), and the generation again at the end.
//!
//! `tests/tests/self_map_model.rs` tries every order of these steps with those of collapse, split, `MADV_DONTNEED` and
//! a new mapping, and has the counterexample for each step left out.
//!
//! A walk of an mm that is not loaded on this CPU would read another mm's tables: it is refused ([`Refused`]).

use crate::addr::{ENTRIES, Level, PAGE_SIZE, Pfn, VirtAddr};
use crate::arch::Arch;
use crate::guard;
use crate::mm::address_space::Mm;
use crate::mm::entry::{Entry, EntryCodec, Perm};
use crate::mm::reference::{drop_again, give_back, reference};
use crate::mm::self_map::entry_address;
use crate::oracle::ghost;
use crate::oracle::recursive::{self, Found};
use crate::pause;
use crate::smp::cpu::Cpu;

/// A walk that cannot be made through the recursive mapping.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Refused {
    /// Recursive addresses lead to the tables of the mm that is loaded, and to no other's.
    #[error("mm {0} is not loaded on this CPU: its tables cannot be read through the recursive mapping")]
    OtherMm(u32),
}

/// Whether a walk of `mm` can be made on this CPU. Interrupts are masked, so that it stays true.
#[inline(always)]
pub fn check<A: Arch>(cpu: &Cpu<A>, mm: &Mm<A>) -> Result<(), Refused> {
    if cpu.loaded.mm() == mm.id { Ok(()) } else { Err(Refused::OtherMm(mm.id)) }
}

/// Walks what one PMD entry maps.
#[inline(always)]
pub(super) fn one_pmd<A: Arch, const PIN: bool>(
    cpu: &'static Cpu<A>,
    mm: &Mm<A>,
    va: VirtAddr,
    write: bool,
    pages: &mut [Pfn],
) -> usize {
    if check(cpu, mm).is_err() {
        return 0;
    }
    let pmd_at = entry_address(A::SELF_MAP, Level::Pmd, va);
    pause!(cpu, AfterPudRead);
    let pmd_raw = A::probe_entry(pmd_at);
    ghost::point(cpu);
    pause!(cpu, AfterPmdRead);
    match A::Codec::decode(Level::Pmd, pmd_raw) {
        Entry::Absent => 0,
        Entry::Leaf { page, perm } => {
            if write && !perm.contains(Perm::WRITE) {
                return 0;
            }
            huge::<A, PIN>(cpu, pmd_at, pmd_raw, page.pfn(), va, pages)
        }
        Entry::Table(table) => ptes::<A, PIN>(cpu, mm, (pmd_at, pmd_raw, table.pfn()), va, write, pages),
    }
}

/// Takes pages out of a 2 MiB leaf. PUD entries are never leaves, so what is read at `pmd_at` is always an entry.
#[inline]
fn huge<A: Arch, const PIN: bool>(
    cpu: &'static Cpu<A>,
    pmd_at: VirtAddr,
    pmd_raw: u64,
    base: Pfn,
    va: VirtAddr,
    pages: &mut [Pfn],
) -> usize {
    let first = va.index(Level::Pte);
    let count = pages.len().min(ENTRIES - first);
    let frame = A::machine().frames.get(base);
    if !frame.try_get(count as u32) {
        return 0;
    }
    if PIN {
        frame.add_pins(count as u32);
    }
    ghost::point(cpu);
    pause!(cpu, BeforeRecheck);
    if guard!(PmdRecheck) && A::probe_entry(pmd_at) != pmd_raw {
        drop_again::<A, PIN>(base, count as u32);
        return 0;
    }
    for (i, page) in pages[..count].iter_mut().enumerate() {
        *page = Pfn(base.0 + (first + i) as u32);
    }
    count
}

/// Takes pages out of a PTE table, up to its end.
#[inline(always)]
fn ptes<A: Arch, const PIN: bool>(
    cpu: &'static Cpu<A>,
    mm: &Mm<A>,
    (pmd_at, pmd_raw, table): (VirtAddr, u64, Pfn),
    mut va: VirtAddr,
    write: bool,
    pages: &mut [Pfn],
) -> usize {
    let count = pages.len().min(ENTRIES - va.index(Level::Pte));
    let frames = cpu.frames;
    let Some(descriptor) = frames.lookup(table) else { return 0 };
    let asked = A::LEAF_READS_AS_TABLE || cfg!(feature = "checking");
    let generation = if asked { descriptor.generation_now() } else { 0 };
    let found = Found { table, generation };
    // The table was linked after its generation was read, not only before.
    if A::LEAF_READS_AS_TABLE && A::probe_entry(pmd_at) != pmd_raw {
        return 0;
    }
    let mut pte_at = entry_address(A::SELF_MAP, Level::Pte, va);
    for (done, out) in pages[..count].iter_mut().enumerate() {
        let raw = recursive::probe(cpu, mm, va, pte_at, found);
        ghost::point(cpu);
        pause!(cpu, AfterPteRead);
        let Entry::Leaf { page, perm } = A::Codec::decode(Level::Pte, raw) else { return done };
        if write && !perm.contains(Perm::WRITE) {
            return done;
        }
        let pfn = page.pfn();
        if !reference::<A, PIN>(cpu, &frames, pfn) {
            return done;
        }
        pause!(cpu, AfterReference);
        ghost::point(cpu);
        pause!(cpu, BeforeRecheck);
        // The PTE first: the PMD entry and the generation say what it was read through.
        let pte_changed = guard!(PteRecheck) && recursive::probe(cpu, mm, va, pte_at, found) != raw;
        let pmd_changed = guard!(PmdRecheck) && A::probe_entry(pmd_at) != pmd_raw;
        let reused = A::LEAF_READS_AS_TABLE && guard!(SelfMapReuse) && descriptor.generation_now() != generation;
        if pte_changed || pmd_changed || reused {
            give_back::<A, PIN>(&[pfn]);
            return done;
        }
        *out = pfn;
        va = va.add(PAGE_SIZE);
        pte_at = pte_at.add(8);
    }
    count
}
