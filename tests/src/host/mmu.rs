//! One CPU's MMU: the root that it translates by, and a TLB that forgets nothing by itself.

use std::cell::{Cell, RefCell};

use kernel::addr::{Level, PhysAddr, VirtAddr};
use kernel::arch::{Arch, Asid, UserFault};
use kernel::mm::entry::{Entry, EntryCodec, Perm};
use kernel::tlb::invalidation::Invalidation;

/// A translation: of `size` bytes from `start` on, tagged `asid`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Translation {
    asid: Asid,
    start: u64,
    size: u64,
    page: PhysAddr,
    writable: bool,
}

/// See the head of this module.
#[derive(Default)]
pub(super) struct Mmu {
    root: Cell<Option<(PhysAddr, Asid)>>,
    tlb: RefCell<Vec<Translation>>,
}

impl Mmu {
    /// Translates by `root` from now on; where translations are not tagged the old ones go.
    pub(super) fn load(&self, root: Option<(PhysAddr, Asid)>, tagged: bool) {
        self.root.set(root);
        if !tagged {
            self.tlb.borrow_mut().clear();
        }
    }

    /// Translates `va`, by the TLB if it is there.
    pub(super) fn translate<A: Arch>(&self, va: VirtAddr, write: bool) -> Result<PhysAddr, UserFault> {
        let (root, asid) = self.root.get().ok_or(UserFault)?;
        let known = self.tlb.borrow().iter().find(|t| t.asid == asid && va.0.wrapping_sub(t.start) < t.size).copied();
        let translation = match known {
            Some(known) => known,
            None => {
                let found = walk::<A>(root, asid, va).ok_or(UserFault)?;
                self.tlb.borrow_mut().push(found);
                found
            }
        };
        if write && !translation.writable {
            // As on hardware, one that forbids the access is looked up again next time.
            self.tlb.borrow_mut().retain(|t| *t != translation);
            return Err(UserFault);
        }
        Ok(PhysAddr(translation.page.0 + (va.0 - translation.start)))
    }

    /// Drops what `what` names: one instruction per stride, each of which drops the translation that its address lies
    /// in and no other.
    pub(super) fn invalidate(&self, asid: Asid, what: &Invalidation, ceiling: u64) -> u32 {
        let everything = what.all || what.entries() > ceiling;
        self.tlb.borrow_mut().retain(|t| {
            if t.asid != asid {
                return true;
            }
            let step = what.stride.entry_size();
            // The first address of the sequence that is not below the translation.
            let first = what.start.0.max(what.start.0 + (t.start.saturating_sub(what.start.0)).next_multiple_of(step));
            let hit = |p: u64| p < what.end.0 && p >= t.start && p - t.start < t.size;
            !(everything || hit(first))
        });
        if everything { 1 } else { what.entries() as u32 }
    }
}

/// What hardware finds in the tables.
fn walk<A: Arch>(root: PhysAddr, asid: Asid, va: VirtAddr) -> Option<Translation> {
    let (mut table, mut level) = (root, Level::Pgd);
    loop {
        // SAFETY: the table is in RAM, which the direct map covers; entries are only accessed atomically.
        let slot = unsafe { &*A::direct_map(table).cast::<std::sync::atomic::AtomicU64>().add(va.index(level)) };
        match A::Codec::decode(level, slot.load(std::sync::atomic::Ordering::Relaxed)) {
            Entry::Absent => return None,
            Entry::Table(below) => (table, level) = (below, level.below()?),
            Entry::Leaf { page, perm } => {
                let start = va.align_down(level).0;
                return Some(Translation {
                    asid,
                    start,
                    size: level.entry_size(),
                    page,
                    writable: perm.contains(Perm::WRITE),
                });
            }
        }
    }
}
