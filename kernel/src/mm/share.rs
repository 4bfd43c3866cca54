//! Shared PMD tables: several mms link one table for the same GiB of a file, as hugetlb does.
//!
//! An mm that leaves clears its own PUD entry and flushes its own TLB entries; the table lives on in the others.
//! Nothing more is needed until one sharer is left: that one may then treat the table as private, that is, *use it
//! again* for something else. At that moment no walk of **any** former sharer may hold it. Linux gets that by
//! interrupting every CPU when the last but one leaves. Here each mm that leaves records in [`SharedTable`] which CPUs
//! could still be walking it and did not acknowledge its flush; the strategy that is asked in the end is told of them.

use alloc::vec::Vec;
use core::sync::atomic::Ordering;

use arrayvec::ArrayVec;

use crate::addr::{Level, PUD_SIZE, VirtAddr};
use crate::arch::Arch;
use crate::guard;
use crate::mm::address_space::Mm;
use crate::mm::entry::EntryCodec;
use crate::mm::file::{Contents, File};
use crate::mm::frame_alloc::OutOfFrames;
use crate::mm::gather::{Gather, UNSHARED};
use crate::mm::settle;
use crate::mm::table::{self, Table, TableGuard};
use crate::oracle;
use crate::pause;
use crate::record::event::EventKind;
use crate::smp::cpu::Cpu;
use crate::smp::mask::CpuMask;
use crate::sync::coverage::can_hold;
use crate::sync::{Ask, MachineView, Party};
use crate::tlb::coverage::Coverage;

/// The most mms that left a table that [`SharedTable::former`] names: any number of processes may come and go while two
/// stay. Of more the oldest is forgotten: the oracle does not judge a walk of it that is still under way when so many
/// others have left. What strategies decide by, [`SharedTable::left_behind`], forgets nobody.
pub(crate) const MOST_FORMER: usize = 128;

/// The file's record of a PMD table that shows it.
pub struct SharedTable<A: Arch> {
    /// The table.
    pub table: Table<A>,
    /// CPUs that could walk it for mms that have left, and had not acknowledged when they left.
    pub left_behind: CpuMask,
    /// The mms that left since the table was last private, for the oracle; of very many the last.
    pub former: Vec<u32>,
}

/// Links the PMD table for the GiB at `offset` of `file` at `va` of the mm whose PUD table is locked by `pud`: the one
/// that others use, or a new one.
pub(super) fn join<A: Arch>(
    cpu: &'static Cpu<A>,
    mm: &Mm<A>,
    file: &File<A>,
    contents: &mut Contents<A>,
    offset: u64,
    pud: &mut TableGuard<A>,
    va: VirtAddr,
) -> Result<Table<A>, OutOfFrames> {
    debug_assert!(offset.is_multiple_of(PUD_SIZE));
    let shared = match contents.tables.get_mut(&offset) {
        Some(shared) => shared,
        None => {
            let table = table::alloc(cpu, file.id, Level::Pmd, VirtAddr(offset))?;
            contents.tables.entry(offset).or_insert(SharedTable {
                table,
                left_behind: CpuMask::EMPTY,
                former: Vec::new(),
            })
        }
    };
    let frame = shared.table.frame();
    frame.set_sharers(frame.sharers() + 1);
    // An mm that comes back walks the table by right.
    shared.former.retain(|id| *id != mm.id);
    pud.set(Level::Pud, va, A::Codec::table(shared.table.pfn().addr()));
    Ok(shared.table)
}

/// If the table at `va` has other sharers, leaves it: unlinks it from `mm` and tells the gather. Under the file's lock.
///
/// Returns false if the table is this mm's alone: then the caller empties and frees it like any other.
pub(super) fn leave<A: Arch>(
    cpu: &'static Cpu<A>,
    mm: &Mm<A>,
    contents: &mut Contents<A>,
    offset: u64,
    pud: Table<A>,
    va: VirtAddr,
    gather: &mut Gather<'_, A>,
) -> bool {
    let Some(shared) = contents.tables.get_mut(&offset) else { return false };
    let frame = shared.table.frame();
    if pud.below(Level::Pud, va) != Some(shared.table) || frame.sharers() < 2 {
        return false;
    }
    let unlinked = pud.lock().unlink(cpu, mm, Level::Pud, va);
    frame.set_sharers(frame.sharers() - 1);
    if shared.former.len() == MOST_FORMER {
        shared.former.remove(0);
    }
    shared.former.push(mm.id);
    gather.unshared(unlinked, offset);
    pause!(cpu, AfterLeave);
    true
}

/// After the flush of everything that `mm` left (`coverage`; none if nothing was to flush): remembers who was not
/// reached, and where one sharer is left, does what the strategy asks for.
pub(super) fn settle<A: Arch>(
    cpu: &'static Cpu<A>,
    mm: &Mm<A>,
    file: &File<A>,
    contents: &mut Contents<A>,
    offsets: &[u64],
    coverage: Option<Coverage>,
    gather_interrupted: bool,
) {
    let Some(coverage) = coverage else { return };
    let mask = mm.mask.load(Ordering::Relaxed);
    // Full: the entries were cleared, then read what CPUs have loaded. Pairs with the fence of a CPU that loads the mm
    // (tests/litmus/join-flush).
    A::fence();
    let unreached = can_hold(&MachineView { cpu }, mm.id, &mask).without(coverage.acknowledged());
    let generation = A::machine().unlink_generation.load(Ordering::Relaxed);
    let mut exclusive = ArrayVec::<u64, UNSHARED>::new();
    let mut left_behind = CpuMask::EMPTY;
    let mut former = Vec::new();
    for offset in offsets {
        let Some(shared) = contents.tables.get_mut(offset) else { continue };
        // The table stays a table: of those that still link it.
        shared.table.frame().set_state(crate::mm::frame::FrameState::Table);
        if shared.table.frame().sharers() > 1 {
            shared.left_behind = shared.left_behind.union(&unreached);
            let (frame, sharers) = (shared.table.pfn().0.into(), shared.table.frame().sharers().into());
            cpu.events.write(EventKind::StillLinked, mm.id, frame, sharers);
            continue;
        }
        left_behind = left_behind.union(&shared.left_behind);
        former.extend_from_slice(&shared.former);
        exclusive.push(*offset);
    }
    if exclusive.is_empty() {
        return;
    }
    let left_before = former.iter().any(|id| *id != mm.id);
    let party = Party { mm: mm.id, mask, coverage };
    let first = contents.tables[&exclusive[0]].table;
    // One round for all tables of the batch. `Fresh` cannot be done here, the table is the survivor's; it is a grace
    // period then.
    if guard!(UnshareSync)
        && settle::settle(
            cpu,
            first,
            &Ask { party, left_behind: &left_behind, left_before, generation, gather_interrupted },
            &former,
        )
    {
        crate::smp::rcu::synchronize(cpu);
    }
    for offset in exclusive {
        let Some(shared) = contents.tables.get_mut(&offset) else { continue };
        pause!(cpu, BeforeReuse);
        oracle::on_reuse(cpu, shared.table, &shared.former);
        cpu.events.write(EventKind::Reuse, file.id, shared.table.pfn().0.into(), offset);
        shared.left_behind = CpuMask::EMPTY;
        shared.former.clear();
    }
    pause!(cpu, AfterSettle);
}

/// Forgets the record at `offset` if it is of `table`, which from now on is used by one mm alone.
pub(super) fn forget<A: Arch>(contents: &mut Contents<A>, offset: u64, table: Option<Table<A>>) {
    if contents.tables.get(&offset).is_some_and(|shared| Some(shared.table) == table) {
        contents.tables.remove(&offset);
    }
}
