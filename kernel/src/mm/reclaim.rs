//! Giving back PTE tables that `MADV_DONTNEED` has emptied (Linux: `CONFIG_PT_RECLAIM`, 6.14).
//!
//! The map lock is held for reading only, so faults go on meanwhile and may fill the table again. A table is taken out
//! only when it is known to be empty under its own lock *and* its parent's:
//!
//! - fast path: the zap cleared everything in one section of the table's lock and still holds it. The parent's lock
//!   comes first in the order, so it is only tried.
//! - otherwise: parent's lock, table's lock, and the table is **looked at again**: since the zap let go of it, a fault
//!   may have put a page there. Without that look the page is lost with the table.
//!
//! Whoever found the table before, without a lock, finds out when he has locked it: the PMD entry no longer points at
//! it ([`crate::mm::fault`]).

use crate::addr::{Level, VirtAddr};
use crate::arch::Arch;
use crate::guard;
use crate::injection::Fault;
use crate::mm::address_space::Mm;
use crate::mm::gather::Gather;
use crate::mm::state::Unlinked;
use crate::mm::table::{Table, TableGuard};
use crate::mm::two_word;
use crate::oracle;
use crate::pause;
use crate::smp::cpu::Cpu;

/// What became of the table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Emptied {
    /// It was empty and is in the gather.
    Freed,
    /// It was let go of: it has to be looked at again.
    Unknown,
}

/// Takes the table out if it is empty and the parent's lock is free.
pub(super) fn try_fast<'m, A: Arch>(
    cpu: &'static Cpu<A>,
    mm: &'m Mm<A>,
    pmd: Table<A>,
    pte: &TableGuard<A>,
    va: VirtAddr,
) -> Option<Unlinked<'m, A>> {
    if !pte.is_empty() || A::machine().policy.injection.strikes(cpu, Fault::Trylock) {
        return None;
    }
    let mut parent = pmd.try_lock()?;
    if parent.table().below(Level::Pmd, va) != Some(pte.table()) {
        return None;
    }
    let unlinked = parent.unlink(cpu, mm, Level::Pmd, va);
    two_word::wait_for_readers(cpu);
    Some(unlinked)
}

/// Takes the table out if, looked at again under both locks, it is empty.
pub(super) fn rescan_and_free<A: Arch>(
    cpu: &'static Cpu<A>,
    mm: &Mm<A>,
    pmd: Table<A>,
    pte: Table<A>,
    va: VirtAddr,
    gather: &mut Gather<'_, A>,
) {
    oracle::ghost::point(cpu);
    pause!(cpu, BeforeRescan);
    let mut parent = pmd.lock();
    if parent.table().below(Level::Pmd, va) != Some(pte) {
        return;
    }
    let table = pte.lock();
    if guard!(ReclaimRescan) && pte.scan() != 0 {
        return;
    }
    let unlinked = parent.unlink(cpu, mm, Level::Pmd, va);
    two_word::wait_for_readers(cpu);
    drop(table);
    drop(parent);
    gather.table(unlinked);
}
