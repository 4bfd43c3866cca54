//! Reads through the recursive mapping, compared with the truth: the tables as they are linked now, which only the
//! oracle reads by their addresses.
//!
//! A walk of strategy `self-map` has no note of tables that it holds ([`crate::oracle::ghost`]): a hold would end by
//! itself when the flush is complete, since the next read faults. What has to be judged is that it really does. So each
//! read of a PTE is bracketed by two looks at the live tables. If nothing was unlinked and nothing flushed in between,
//! and both looks say the same, then the read must agree:
//!
//! - **a table is linked** and the read gave an entry that is not that table's: it went through a translation that some
//!   flush should have removed. Tables are linked only where the flush of the one before is complete, or that one is
//!   empty (`MADV_DONTNEED`), and an entry that is absent is not judged. So this is no race.
//! - **no table is linked**, and the table that the walk found has been used again since, so that its flush is long
//!   complete, and the read still gave an entry.

use crate::addr::{Level, Pfn, VirtAddr};
use crate::arch::Arch;
use crate::atomic;
use crate::mm::address_space::Mm;
use crate::mm::entry::{Entry, EntryCodec};
use crate::mm::table::Table;
use crate::oracle::{self, ghost};
use crate::record::cell::ViolationKind;
use crate::smp::cpu::Cpu;
use core::sync::atomic::Ordering;

/// The live tables on the way to an address.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Live {
    unlinks: u64,
    flushes: u64,
    pmd: u64,
    /// The PTE, if there is a table.
    pte: u64,
    /// Of the table that the walk found.
    generation: u32,
}

impl Live {
    fn look<A: Arch>(mm: &Mm<A>, va: VirtAddr, found: Pfn) -> Live {
        let machine = A::machine();
        let pmd = mm.table_at(Level::Pmd, va).map_or(0, |table| table.load(Level::Pmd, va));
        let pte = match A::Codec::decode(Level::Pmd, pmd) {
            Entry::Table(table) => Table::<A>::at(table.pfn()).load(Level::Pte, va),
            _ => 0,
        };
        Live {
            // Acquire: as in `acknowledge_generation` (tests/litmus/acked-generation).
            unlinks: machine.unlink_generation.load(Ordering::Acquire),
            flushes: mm.flush_generation(),
            pmd,
            pte,
            generation: machine.frames.lookup(found).map_or(0, |f| f.generation_now()),
        }
    }
}

/// The table that a walk found in a PMD entry.
#[derive(Clone, Copy)]
pub(crate) struct Found {
    /// Its frame: to ask the descriptor, never to be read.
    pub table: Pfn,
    /// How often the frame had become a table, or a page, then. 0 where nobody asks: builds without `checking`, where
    /// no leaf reads as a table.
    pub generation: u32,
}

/// Reads the PTE for `va` at `at`, where the walk had found `found` in the PMD entry.
#[inline(always)]
pub(crate) fn probe<A: Arch>(cpu: &'static Cpu<A>, mm: &Mm<A>, va: VirtAddr, at: VirtAddr, found: Found) -> u64 {
    if oracle::is_on() { judged(cpu, mm, va, at, found) } else { A::probe_entry(at) }
}

fn judged<A: Arch>(cpu: &'static Cpu<A>, mm: &Mm<A>, va: VirtAddr, at: VirtAddr, found: Found) -> u64 {
    // What the first look finds depends on who was here before: on who has changed the PMD entry, and on who has used
    // the table again.
    if let Some(pmd) = atomic::unseen(|| mm.table_at(Level::Pmd, va)) {
        atomic::mark(pmd.slot(va.index(Level::Pmd)), false);
    }
    if let Some(descriptor) = A::machine().frames.lookup(found.table) {
        descriptor.generation_now();
    }
    let before = atomic::unseen(|| Live::look(mm, va, found.table));
    let raw = A::probe_entry(at);
    let after = atomic::unseen(|| Live::look(mm, va, found.table));
    if raw == 0 || before != after {
        return raw;
    }
    let stale = match A::Codec::decode(Level::Pmd, after.pmd) {
        Entry::Table(_) => {
            let present = matches!(A::Codec::decode(Level::Pte, raw), Entry::Leaf { .. });
            raw != after.pte && (present || raw == oracle::POISON)
        }
        Entry::Leaf { .. } if A::LEAF_READS_AS_TABLE => false,
        _ => before.generation != found.generation,
    };
    if stale {
        oracle::report(cpu, ghost::describe(cpu, cpu, found.table, ViolationKind::StaleRecursion, va));
        ghost::read(cpu, raw, Table::at(found.table), va);
    }
    raw
}
