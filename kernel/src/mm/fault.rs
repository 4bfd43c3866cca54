//! Faults: putting in what a region says belongs there; and the slow path of walks, which faults and then takes
//! references under the table's lock.
//!
//! The map lock is held for reading. PTE tables may be reclaimed meanwhile, so a table that was found without a lock is
//! used only inside a read section of [`crate::smp::rcu`] (it stays a table), and only after its lock is held and the
//! PMD entry still points at it (it still is *this* table).
//!
//! A page of a file is got without either: the file's lock comes before table locks, and its holder may wait for a
//! grace period. Then the table is looked for again.

use core::ops::Range;

use crate::addr::{Level, PMD_SIZE, PUD_SIZE, Pfn, PhysAddr, VirtAddr};
use crate::arch::Arch;
use crate::guard;
use crate::mm::address_space::{Backing, MapError, Mm, Region, region_at};
use crate::mm::entry::{Entry, EntryCodec, Perm};
use crate::mm::file::File;
use crate::mm::frame::FrameState;
use crate::mm::page;
use crate::mm::share;
use crate::mm::table::{self, Table, TableGuard};
use crate::oracle::{self, ghost};
use crate::pause;
use crate::smp::cpu::Cpu;
use crate::smp::rcu;
use crate::task::user::Access;
use crate::tlb::invalidation::Invalidation;
use crate::tlb::transport;

/// Makes the page at `va` present, and writable if `write`, if its region allows that.
pub fn handle<A: Arch>(cpu: &'static Cpu<A>, mm: &Mm<A>, va: VirtAddr, write: bool) -> Result<(), MapError> {
    let map = mm.map.read();
    let region = region_at(&map, va).ok_or(MapError::NotMapped(va))?;
    if write && !region.perm.contains(Perm::WRITE) {
        return Err(MapError::Forbidden(va));
    }
    in_region(cpu, mm, region, va.align_down(Level::Pte), write).map(|_| ())
}

/// A program's access at `va` found no translation that allows it: makes it possible if the region allows it.
pub fn of_program<A: Arch>(cpu: &'static Cpu<A>, mm: &Mm<A>, va: VirtAddr, access: Access) -> Result<(), MapError> {
    let map = mm.map.read();
    let region = region_at(&map, va).ok_or(MapError::NotMapped(va))?;
    let needed = match access {
        Access::Read => Perm::empty(),
        Access::Write => Perm::WRITE,
        Access::Execute => Perm::EXEC,
    };
    if !region.perm.contains(needed) {
        return Err(MapError::Forbidden(va));
    }
    let page = va.align_down(Level::Pte);
    if in_region(cpu, mm, region, page, access == Access::Write)? == Was::Present {
        // This CPU's TLB may still have a translation that allows less (another CPU has made the page writable since,
        // or this one just now): it goes. The hardware caches nothing for a leaf that was absent.
        let enabled = A::irq_save();
        cpu.ledger.recorded.alone();
        let n = A::invalidate_local(mm.asid(), &Invalidation::page(page));
        cpu.ledger.invalidations.add(n.into());
        A::irq_restore(enabled);
    }
    Ok(())
}

/// Makes every page of `range` present, for writing where the region allows it.
pub fn populate<A: Arch>(cpu: &'static Cpu<A>, mm: &Mm<A>, range: Range<VirtAddr>) -> Result<(), MapError> {
    let map = mm.map.read();
    let mut va = range.start;
    while va < range.end {
        let region = region_at(&map, va).ok_or(MapError::NotMapped(va))?;
        in_region(cpu, mm, region, va, region.perm.contains(Perm::WRITE))?;
        va = va.add(crate::addr::PAGE_SIZE);
    }
    Ok(())
}

/// What was at an address before a fault there was handled.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Was {
    /// Nothing, or a page that was replaced and flushed.
    Absent,
    /// The page that is there now.
    Present,
}

fn in_region<A: Arch>(
    cpu: &'static Cpu<A>,
    mm: &Mm<A>,
    region: &Region<A>,
    va: VirtAddr,
    write: bool,
) -> Result<Was, MapError> {
    if let Backing::File(file, offset) = &region.backing
        && offset + (va.0 - region.range.start.0) >= file.bytes
    {
        return Err(MapError::NotMapped(va));
    }
    if let Backing::Shared(file, offset) = &region.backing {
        return shared(cpu, mm, region, file, *offset, va).map(|()| Was::Present);
    }
    let pud = descend(cpu, mm, mm.root(), Level::Pgd, va)?;
    let pmd = descend(cpu, mm, pud, Level::Pud, va)?;
    let mut ready = None;
    let result = loop {
        let read = rcu::read(cpu);
        let pte = match pmd.entry(Level::Pmd, va) {
            Entry::Leaf { .. } => break Ok(Was::Present),
            Entry::Table(pte) => Table::at(pte.pfn()),
            Entry::Absent => match descend(cpu, mm, pmd, Level::Pmd, va) {
                Ok(pte) => pte,
                Err(error) => break Err(error),
            },
        };
        ghost::point(cpu);
        pause!(cpu, AfterPmdLookup);
        let mut guard = pte.lock();
        if guard!(FaultPmdSame) && pmd.below(Level::Pmd, va) != Some(pte) {
            // Reclaimed or collapsed since: look again.
            continue;
        }
        match guard.entry(Level::Pte, va) {
            Entry::Leaf { page, perm } if write && !perm.contains(Perm::WRITE) => {
                break break_copy_on_write(cpu, mm, region, &mut guard, va, page.pfn());
            }
            Entry::Absent => {
                let pfn = match (&region.backing, ready.take()) {
                    (_, Some(pfn)) => pfn,
                    (Backing::File(file, offset), None) => {
                        drop(guard);
                        drop(read);
                        match file.page(cpu, offset + (va.0 - region.range.start.0)) {
                            Ok(pfn) => ready = Some(pfn),
                            Err(error) => break Err(error.into()),
                        }
                        pause!(cpu, FaultHasPage);
                        continue;
                    }
                    (Backing::Anon | Backing::Shared(..), None) => {
                        match page::alloc(cpu, FrameState::Anon, mm.id, va.0) {
                            Ok(pfn) => pfn,
                            Err(error) => break Err(error.into()),
                        }
                    }
                };
                guard.set(Level::Pte, va, A::Codec::leaf(Level::Pte, pfn.addr(), region.perm));
                oracle::on_fill(cpu, pte, va);
                break Ok(Was::Absent);
            }
            _ => break Ok(Was::Present),
        }
    };
    // Somebody else has put a page there meanwhile. It may lie inside a 2 MiB page of the file, whose head has the
    // reference.
    if let Some(unused) = ready {
        page::put_walked(cpu, unused);
    }
    result
}

/// Gives the mm a page of its own at `va`, or the one it has if nobody else uses it.
fn break_copy_on_write<A: Arch>(
    cpu: &'static Cpu<A>,
    mm: &Mm<A>,
    region: &Region<A>,
    guard: &mut TableGuard<A>,
    va: VirtAddr,
    old: Pfn,
) -> Result<Was, MapError> {
    let frame = A::machine().frames.get(old);
    let private = matches!(region.backing, Backing::Anon);
    // A page of 2 MiB is never shared: a fork copies it.
    let alone = || A::machine().frames.get(page::head::<A>(old)).order() != 0 || frame.refs() == 1;
    if !private || alone() {
        guard.change(Level::Pte, va, A::Codec::leaf(Level::Pte, old.addr(), region.perm));
        return Ok(Was::Present);
    }
    let new = page::alloc(cpu, FrameState::Anon, mm.id, va.0)?;
    page::copy::<A>(old, new);
    page::tag::<A>(new, mm.id, va.0);
    // Another page at the same address: break before make.
    guard.clear(Level::Pte, va);
    let _ = transport::flush(cpu, mm, Invalidation::page(va));
    guard.set(Level::Pte, va, A::Codec::leaf(Level::Pte, new.addr(), region.perm));
    page::put(cpu, old, 1);
    Ok(Was::Absent)
}

/// The table that the entry of `table` for `va` points at, made if it is not there.
pub(super) fn descend<A: Arch>(
    cpu: &'static Cpu<A>,
    mm: &Mm<A>,
    table: Table<A>,
    level: Level,
    va: VirtAddr,
) -> Result<Table<A>, MapError> {
    if let Some(below) = table.below(level, va) {
        return Ok(below);
    }
    let Some(child) = level.below() else { return Ok(table) };
    let new = table::alloc(cpu, mm.id, child, va.align_down(level))?;
    let mut guard = table.lock();
    if let Some(below) = guard.table().below(level, va) {
        drop(guard);
        table::free(cpu, new.pfn());
        return Ok(below);
    }
    guard.set(level, va, A::Codec::table(new.pfn().addr()));
    Ok(new)
}

/// Puts a 2 MiB page of a file at `va`, in the PMD table that all sharers of its GiB use.
fn shared<A: Arch>(
    cpu: &'static Cpu<A>,
    mm: &Mm<A>,
    region: &Region<A>,
    file: &File<A>,
    offset: u64,
    va: VirtAddr,
) -> Result<(), MapError> {
    let va = va.align_down(Level::Pmd);
    let at = offset + (va.0 - region.range.start.0);
    if at >= file.bytes {
        return Err(MapError::NotMapped(va));
    }
    let gib = va.align_down(Level::Pud);
    // One table has one permission: only regions that show the whole GiB for writing share.
    let sharable = region.range.start <= gib
        && gib.add(PUD_SIZE) <= region.range.end
        && at % PUD_SIZE == va.0 % PUD_SIZE
        && region.perm.contains(Perm::WRITE);
    let pud = descend(cpu, mm, mm.root(), Level::Pgd, va)?;
    let mut contents = file.lock();
    let pmd = match pud.below(Level::Pud, va) {
        Some(pmd) => pmd,
        None if sharable => share::join(cpu, mm, file, &mut contents, at - at % PUD_SIZE, &mut pud.lock(), gib)?,
        None => descend(cpu, mm, pud, Level::Pud, va)?,
    };
    let page = file.huge_page(&mut contents, at - at % PMD_SIZE)?;
    let mut guard = pmd.lock();
    if guard.entry(Level::Pmd, va) == Entry::Absent {
        A::machine().frames.get(page).get();
        guard.set(Level::Pmd, va, A::Codec::leaf(Level::Pmd, page.addr(), region.perm));
    }
    Ok(())
}

/// The slow path behind [`crate::mm::walk`]: takes references to `pages.len()` pages from `start` on, faulting them in.
/// Returns how many it got.
pub fn get_user_pages<A: Arch>(
    cpu: &'static Cpu<A>,
    mm: &Mm<A>,
    start: VirtAddr,
    write: bool,
    pages: &mut [Pfn],
) -> Result<usize, MapError> {
    for (done, out) in pages.iter_mut().enumerate() {
        let va = start.add((done as u64) << crate::addr::PAGE_SHIFT);
        loop {
            if let Err(error) = handle(cpu, mm, va, write) {
                return if done == 0 { Err(error) } else { Ok(done) };
            }
            if let Some(pfn) = get_locked(cpu, mm, va, write, false) {
                *out = pfn;
                break;
            }
        }
    }
    Ok(pages.len())
}

/// The slow path behind [`crate::mm::walk::pin_user_pages_fast`]: pins the page at `va`, faulting it in. Under the map
/// lock, so no fork is under way. Drop it by [`page::unpin_walked`].
pub fn pin_user_page<A: Arch>(cpu: &'static Cpu<A>, mm: &Mm<A>, va: VirtAddr, write: bool) -> Result<Pfn, MapError> {
    loop {
        handle(cpu, mm, va, write)?;
        if let Some(pfn) = get_locked(cpu, mm, va, write, true) {
            return Ok(pfn);
        }
    }
}

/// Takes a reference, or a pin, under the lock of the table that maps `va`.
fn get_locked<A: Arch>(cpu: &'static Cpu<A>, mm: &Mm<A>, va: VirtAddr, write: bool, pin: bool) -> Option<Pfn> {
    let map = mm.map.read();
    region_at(&map, va)?;
    let _read = rcu::read(cpu);
    let pmd = mm.table_at(Level::Pmd, va)?;
    let (level, table) = match pmd.entry(Level::Pmd, va) {
        Entry::Absent => return None,
        Entry::Leaf { .. } => (Level::Pmd, pmd),
        Entry::Table(pte) => (Level::Pte, Table::at(pte.pfn())),
    };
    let guard = table.lock();
    if level == Level::Pte && pmd.below(Level::Pmd, va) != Some(table) {
        return None;
    }
    let Entry::Leaf { page, perm } = guard.entry(level, va) else { return None };
    if write && !perm.contains(Perm::WRITE) {
        return None;
    }
    let inside = va.0 & (level.entry_size() - 1) & !(crate::addr::PAGE_SIZE - 1);
    let pfn = PhysAddr(page.0 + inside).pfn();
    let frame = A::machine().frames.get(page::head::<A>(pfn));
    frame.get();
    if pin {
        frame.add_pins(1);
    }
    Some(pfn)
}
