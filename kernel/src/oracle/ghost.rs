//! Ghost state: which tables each CPU's walk can still touch.
//!
//! The walk notes a table the moment it has its address, before it reads from it; a schedule point follows, so that
//! other CPUs may act while it is held. Notes are relaxed stores to the CPU's own words. On a machine that reorders
//! them they may come late, which can hide a violation and never invents one.

use core::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering, compiler_fence};

use crate::addr::{Level, Pfn, VirtAddr};
use crate::arch::Arch;
use crate::atomic;
use crate::mm::address_space::Mm;
use crate::mm::table::Table;
use crate::oracle::{self, value};
use crate::record::cell::{Violation, ViolationKind};
use crate::record::event::EventKind;
use crate::smp::cpu::Cpu;
use crate::tlb::transport::paravirt;

const NONE: u32 = u32::MAX;

/// One walk under way.
struct Note {
    mm: AtomicU32,
    address: AtomicU64,
    since: AtomicU64,
    /// Which walk of this CPU it is.
    walk: AtomicU64,
    /// By level, the frame of the table that is held.
    holds: [AtomicU32; 4],
}

/// What the oracle knows of one CPU's walks: one, or one and another that an NMI has begun in the middle of it.
pub struct Ghost {
    /// How many of `notes` are of walks under way. Raised before a note is written and lowered after it is cleared, so
    /// that an NMI in between takes the next one, or leaves this one as it found it.
    depth: AtomicUsize,
    notes: [Note; 2],
    /// How many walks this CPU has begun in this cell.
    walks: AtomicU64,
    /// When this CPU's last flush was complete.
    flushed_at: AtomicU64,
}

impl Default for Ghost {
    fn default() -> Ghost {
        let note = || Note {
            mm: AtomicU32::new(0),
            address: AtomicU64::new(0),
            since: AtomicU64::new(0),
            walk: AtomicU64::new(0),
            holds: [const { AtomicU32::new(NONE) }; 4],
        };
        Ghost {
            depth: AtomicUsize::new(0),
            notes: [note(), note()],
            walks: AtomicU64::new(0),
            flushed_at: AtomicU64::new(0),
        }
    }
}

impl Ghost {
    /// Starts to count walks anew.
    #[inline]
    pub fn reset(&self) {
        self.walks.store(0, Ordering::Relaxed);
    }

    /// The notes of walks under way.
    #[inline]
    fn under_way(&self) -> &[Note] {
        &self.notes[..self.depth.load(Ordering::Relaxed).min(self.notes.len())]
    }

    /// The note of the innermost walk; of the last one, if none is under way.
    #[inline]
    fn innermost(&self) -> &Note {
        let depth = self.depth.load(Ordering::Relaxed);
        &self.notes[depth.saturating_sub(1).min(self.notes.len() - 1)]
    }
}

/// A walk of `mm` begins at `start`; interrupts are masked.
#[inline(always)]
#[doc(hidden)]
pub fn begin<A: Arch>(cpu: &'static Cpu<A>, mm: &Mm<A>, start: VirtAddr) {
    cpu.ledger.walks.add(1);
    if oracle::is_on() {
        let ghost = &cpu.ghost;
        let depth = ghost.depth.load(Ordering::Relaxed);
        ghost.depth.store(depth + 1, Ordering::Relaxed);
        compiler_fence(Ordering::SeqCst);
        let walk = ghost.walks.load(Ordering::Relaxed) + 1;
        ghost.walks.store(walk, Ordering::Relaxed);
        let note = ghost.innermost();
        note.mm.store(mm.id, Ordering::Relaxed);
        note.address.store(start.0, Ordering::Relaxed);
        note.since.store(A::instructions(), Ordering::Relaxed);
        note.walk.store(walk, Ordering::Relaxed);
    }
    if cfg!(feature = "checking") {
        cpu.events.write(EventKind::WalkBegin, mm.id, start.0, (!A::irqs_enabled()).into());
    }
}

/// The walk has the address of `table`, of `level`, on its way to `va`; of the levels below it holds nothing any more.
#[inline(always)]
#[doc(hidden)]
pub fn hold<A: Arch>(cpu: &'static Cpu<A>, level: Level, table: Table<A>, va: VirtAddr) {
    if oracle::is_on() {
        let note = cpu.ghost.innermost();
        // On its way down it has left what it held below, of the entry before.
        note.holds[..level as usize].iter().for_each(|below| below.store(NONE, Ordering::Relaxed));
        note.holds[level as usize].store(table.pfn().0, Ordering::Relaxed);
        if level == Level::Pte && value::is_page(table) {
            oracle::report(cpu, describe(cpu, cpu, table.pfn(), ViolationKind::PageForTable, va));
        }
    }
    if cfg!(feature = "checking") {
        if level < Level::Pud {
            let mm = cpu.ghost.innermost().mm.load(Ordering::Relaxed);
            cpu.events.write(EventKind::WalkHolds, mm, table.pfn().0.into(), va.0);
        }
        point(cpu);
    }
}

/// The walk read `raw` in `table` for `va`.
#[inline(always)]
pub(crate) fn read<A: Arch>(cpu: &'static Cpu<A>, raw: u64, table: Table<A>, va: VirtAddr) {
    if oracle::is_on() && raw == oracle::POISON {
        let violation = describe(cpu, cpu, table.pfn(), ViolationKind::ReadPoison, va);
        oracle::report(cpu, violation);
    }
}

/// The walk is about to use two words of an entry of `table` for `va` that were one entry at no time when it read. True
/// where that is judged.
#[inline(always)]
pub(crate) fn torn<A: Arch>(cpu: &'static Cpu<A>, table: Table<A>, va: VirtAddr) -> bool {
    if oracle::is_on() {
        oracle::report(cpu, describe(cpu, cpu, table.pfn(), ViolationKind::TornEntry, va));
    }
    oracle::is_on()
}

/// A place where other CPUs may run now; the seed decides whether, and for how long. Nothing in builds without
/// `checking`, and in cells that do not contend. Most stops are short; some last long enough for another CPU to finish
/// a whole operation.
#[inline(always)]
pub fn point<A: Arch>(cpu: &Cpu<A>) {
    if cfg!(feature = "checking") && A::machine().policy.schedule_points() {
        stop_by_chance(cpu);
    }
}

#[cold]
fn stop_by_chance<A: Arch>(cpu: &Cpu<A>) {
    let chance = cpu.chance.next();
    let rounds = match chance % 64 {
        0..3 => 8 << (chance >> 6 & 3) << (chance >> 8 & 1),
        3..16 => 1,
        _ => 0,
    };
    for _ in 0..rounds {
        A::relax();
    }
    paravirt::freeze_by_chance(cpu);
}

/// The walk has used its last pointer: it holds nothing any more. Before the strategy is told, so that a walk that is
/// seen to be over holds nothing.
#[inline(always)]
#[doc(hidden)]
pub fn release<A: Arch>(cpu: &Cpu<A>) {
    if oracle::is_on() {
        atomic::mark(&cpu.ghost, true);
        for hold in &cpu.ghost.innermost().holds {
            hold.store(NONE, Ordering::Relaxed);
        }
        compiler_fence(Ordering::SeqCst);
        let depth = cpu.ghost.depth.load(Ordering::Relaxed);
        cpu.ghost.depth.store(depth - 1, Ordering::Relaxed);
    }
}

/// The walk returns the first `done` of `pages`, from `start` on.
#[inline(always)]
pub(crate) fn end<A: Arch>(cpu: &'static Cpu<A>, mm: &Mm<A>, start: VirtAddr, pages: &[Pfn], done: usize) {
    cpu.ledger.pages.add(done as u64);
    if oracle::is_on() {
        value::judge_walk(cpu, mm, start, &pages[..done]);
    }
    cpu.events.write(EventKind::WalkEnd, mm.id, start.0, done as u64);
}

/// The walk of `other`, if there is one, of an mm that `concerns` and that can still touch `table`.
fn holder<A: Arch>(other: &Cpu<A>, table: Pfn, concerns: impl Fn(u32) -> bool) -> Option<&Note> {
    other.ghost.under_way().iter().find(|note| {
        concerns(note.mm.load(Ordering::Relaxed)) && note.holds.iter().any(|h| h.load(Ordering::Relaxed) == table.0)
    })
}

/// The number of the walk that the CPU is in, if it is in one and in no other inside it. Never in builds without
/// `checking`.
pub(crate) fn walk_under_way<A: Arch>(other: &Cpu<A>) -> Option<u64> {
    match other.ghost.under_way() {
        [only] => Some(only.walk.load(Ordering::Relaxed)),
        _ => None,
    }
}

/// Whether the CPU is in a walk of an mm that `concerns` and can still touch `table`.
pub(crate) fn holds<A: Arch>(other: &Cpu<A>, table: Pfn, concerns: impl Fn(u32) -> bool) -> bool {
    holder(other, table, concerns).is_some()
}

/// Looks for CPUs that hold `table` at the moment when it changes hands.
pub(crate) fn judge<A: Arch>(
    cpu: &'static Cpu<A>,
    table: Table<A>,
    kind: ViolationKind,
    concerns: impl Fn(u32) -> bool,
) {
    for other in A::machine().online() {
        if other.id == cpu.id {
            continue;
        }
        atomic::mark(&other.ghost, false);
        if let Some(note) = holder(other, table.pfn(), &concerns) {
            let va = VirtAddr(note.address.load(Ordering::Relaxed));
            oracle::report(cpu, of_note(cpu, other, note, table.pfn(), kind, va));
        }
    }
}

/// The flush that this CPU began is complete.
#[inline(always)]
pub(crate) fn flushed<A: Arch>(cpu: &Cpu<A>) {
    if oracle::is_on() {
        cpu.ghost.flushed_at.store(A::instructions(), Ordering::Relaxed);
    }
}

/// A violation by the innermost walk of `walker`, found by `updater` (the same CPU if the walk found it).
pub(crate) fn describe<A: Arch>(
    updater: &Cpu<A>,
    walker: &Cpu<A>,
    pfn: Pfn,
    kind: ViolationKind,
    va: VirtAddr,
) -> Violation {
    of_note(updater, walker, walker.ghost.innermost(), pfn, kind, va)
}

fn of_note<A: Arch>(
    updater: &Cpu<A>,
    walker: &Cpu<A>,
    note: &Note,
    pfn: Pfn,
    kind: ViolationKind,
    va: VirtAddr,
) -> Violation {
    let machine = A::machine();
    let frame = machine.frames.lookup(pfn);
    Violation {
        kind: kind as u16,
        walker: walker.id.0,
        updater: if updater.id == walker.id { Violation::NOBODY } else { updater.id.0 },
        level: frame.map_or(0, |f| f.level() as u16),
        mm: note.mm.load(Ordering::Relaxed),
        pfn: pfn.0,
        address: va.0,
        walk: note.walk.load(Ordering::Relaxed),
        op: machine.operation.load(Ordering::Relaxed),
        times: [
            note.since.load(Ordering::Relaxed),
            frame.map_or(0, |f| f.unlinked_at()),
            updater.ghost.flushed_at.load(Ordering::Relaxed),
            A::instructions(),
        ],
    }
}
