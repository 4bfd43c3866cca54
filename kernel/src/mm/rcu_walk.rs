//! A reader of page tables under RCU alone: interrupts are on, no lock is taken, nothing is referenced. In Linux, users
//! of `pte_offset_map` before they take the table's lock.
//!
//! What it holds stays a table until the read section ends, if tables are freed after a grace period. It may still be
//! *used again* under it: an interrupt to its CPU is taken at once and says nothing about the section. A reader that
//! must know locks the table and looks at the PMD entry again; this one does not, which makes it the class of walkers
//! that only a grace period waits for.

use crate::addr::{ENTRIES, Level, PAGE_SIZE, VirtAddr};
use crate::arch::Arch;
use crate::mm::address_space::Mm;
use crate::mm::entry::{Entry, EntryCodec};
use crate::mm::table::Table;
use crate::oracle::ghost;
use crate::pause;
use crate::record::event::EventKind;
use crate::smp::cpu::Cpu;
use crate::smp::rcu;

/// Counts the leaves of up to `count` entries from `start` on, within one PTE table.
pub fn count_leaves<A: Arch>(cpu: &'static Cpu<A>, mm: &Mm<A>, start: VirtAddr, count: usize) -> usize {
    let _section = rcu::read(cpu);
    ghost::begin(cpu, mm, start);
    let leaves = in_section(cpu, mm, start, count);
    ghost::release(cpu);
    cpu.events.write(EventKind::WalkEnd, mm.id, start.0, leaves as u64);
    leaves
}

fn in_section<A: Arch>(cpu: &'static Cpu<A>, mm: &Mm<A>, start: VirtAddr, count: usize) -> usize {
    let Some(pud) = mm.root().below(Level::Pgd, start) else { return 0 };
    ghost::hold(cpu, Level::Pud, pud, start);
    pause!(cpu, AfterPgdRead);
    let Some(pmd) = pud.below(Level::Pud, start) else { return 0 };
    ghost::hold(cpu, Level::Pmd, pmd, start);
    pause!(cpu, AfterPudRead);
    let Entry::Table(pte) = pmd.entry(Level::Pmd, start) else { return 0 };
    let pte = Table::<A>::at(pte.pfn());
    ghost::hold(cpu, Level::Pte, pte, start);
    pause!(cpu, AfterPmdRead);
    let mut leaves = 0;
    for i in 0..count.min(ENTRIES - start.index(Level::Pte)) as u64 {
        let va = start.add(i * PAGE_SIZE);
        let raw = pte.load(Level::Pte, va);
        ghost::read(cpu, raw, pte, va);
        pause!(cpu, AfterPteRead);
        leaves += usize::from(matches!(A::Codec::decode(Level::Pte, raw), Entry::Leaf { .. }));
        ghost::point(cpu);
    }
    leaves
}
