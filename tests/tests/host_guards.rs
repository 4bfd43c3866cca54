//! Guards that a schedule of QEMU meets too seldom, or never: each with the interleaving that it is for, made by hand
//! on the machine of the host. With the guard nothing is wrong, without it something is.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};

use kernel::addr::{Level, PAGE_SIZE, PMD_SIZE, Pfn, VirtAddr};
use kernel::arch::Arch;
use kernel::guard::{self, Guard};
use kernel::injection::{Fault, Odds};
use kernel::mm::address_space::{Backing, Mm};
use kernel::mm::entry::Perm;
use kernel::mm::exit::exit;
use kernel::mm::fault;
use kernel::mm::file::File;
use kernel::mm::frame::FrameState;
use kernel::mm::pace::Pace;
use kernel::mm::page;
use kernel::mm::retract::retract_page_tables;
use kernel::mm::truncate::truncate;
use kernel::mm::unmap::{dontneed, unmap_some};
use kernel::record::cell::ViolationKind;
use kernel::scenario::Point;
use kernel::smp::cpu::Cpu;
use kernel::tlb::switch;
use kernel::tlb::transport::TransportId;
use tests::host::{Tagged, Untagged, World, run_on, while_waiting};

const AT: VirtAddr = VirtAddr(0x4000_0000);

/// Guards are taken away for the whole process.
static ALONE: Mutex<()> = Mutex::new(());

/// `is_wrong` says whether something went wrong: it must without the guard, and must not with it.
#[track_caller]
fn is_needed(guard: Guard, is_wrong: impl Fn() -> bool) {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    assert!(!is_wrong(), "with {guard:?}");
    guard::remove(1 << guard as u64);
    let wrong = is_wrong();
    guard::remove(0);
    assert!(wrong, "nobody misses {guard:?}");
}

/// A walk knows the head of the page that it is after. Before it has a reference the 2 MiB page is truncated and its
/// frames are given out one by one, the walk's own to the same file for the same place: the PTE is what it was, and the
/// head is somebody else's page.
#[test]
fn the_head_is_compared_again() {
    is_needed(Guard::HeadRecheck, || {
        let world = World::<Tagged>::new(2, 4096);
        // A broadcast waits for no walk.
        world.choose("none", TransportId::Broadcast);
        let (updater, walker) = (world.cpu(0), world.cpu(1));
        let file = File::<Tagged>::new();
        let huge = world.on(0, || file.huge_page(&mut file.lock(), 0)).expect("memory suffices");
        let mm = Mm::<Tagged>::new(updater, 0).expect("memory suffices");
        // Less than a PTE table's worth, so that the table stays.
        let range = AT..AT.add(64 * PAGE_SIZE);
        mm.map(range.clone(), Perm::WRITE, Backing::File(file.clone(), 0)).expect("nothing is there");
        world.on(0, || fault::populate(updater, &mm, range.clone())).expect("memory suffices");
        let (va, offset, part) = (AT.add(5 * PAGE_SIZE), 5 * PAGE_SIZE, Pfn(huge.0 + 5));
        let pte = mm.table_at(Level::Pte, va).expect("it is populated");
        let raw = pte.load(Level::Pte, va);
        let (theirs, frames) = (mm.clone(), &world.machine().frames);
        world.at_point(Point::AfterHead, move || {
            truncate(updater, &file, 0..PMD_SIZE).expect("no page is cut");
            // Until both are out.
            while [huge, part].iter().any(|pfn| frames.get(*pfn).refs() == 0) {
                page::alloc(updater, FrameState::File, file.id, offset).expect("they are free");
            }
            file.lock().pages.insert(offset, part);
            fault::handle(updater, &theirs, va, true).expect("the file has it");
        });
        let mut pages = [Pfn(0)];
        let walk = world.machine().policy.strategy().get_user_pages_fast;
        let got = world.on(1, || {
            switch::load(walker, &mm);
            walk(walker, &mm, va, false, &mut pages)
        });
        assert!(world.hook_ran() && pte.load(Level::Pte, va) == raw, "the entry is the same again");
        pages[..got].iter().for_each(|pfn| page::put_walked(walker, *pfn));
        // The file's, and the entry's; that of whoever got the head's frame.
        (frames.get(part).refs(), frames.get(huge).refs()) != (2, 1)
    });
}

/// A thread that drops the contents of a range has found the PTE table and not locked it. Meanwhile the file's tables
/// are retracted: the references behind the entries are gone, the entries are as they were, and they are nobody's to
/// drop again.
#[test]
fn a_table_that_is_retracted_meanwhile_is_left_alone() {
    is_needed(Guard::ZapPmdSame, || {
        let world = World::<Untagged>::new(2, 4096);
        world.choose("sync-all", TransportId::Ipi);
        let (retractor, dropper) = (world.cpu(0), world.cpu(1));
        let file = File::<Untagged>::new();
        let mm = Mm::<Untagged>::new(retractor, 0).expect("memory suffices");
        let range = AT..AT.add(PMD_SIZE);
        mm.map(range.clone(), Perm::WRITE, Backing::File(file.clone(), 0)).expect("nothing is there");
        world.on(0, || fault::populate(retractor, &mm, range.clone())).expect("memory suffices");
        let theirs = file.clone();
        world.at_point(Point::AfterZapLookup, move || {
            retract_page_tables(retractor, &theirs, 0..PMD_SIZE);
        });
        world.on(1, || dontneed(dropper, &mm, range.clone())).expect("it is mapped");
        assert!(world.hook_ran());
        let references = |pfn: &Pfn| world.machine().frames.get(*pfn).refs();
        // The file's own.
        file.lock().pages.values().any(|pfn| references(pfn) != 1)
    });
}

/// A fault puts a page into a table that is about to be given up, and there is no batch for the table: it is judged
/// like every other.
#[test]
fn a_table_that_is_freed_without_a_batch_is_judged() {
    is_needed(Guard::ReclaimRescan, || {
        let world = World::<Untagged>::new(2, 4096);
        world.choose("sync-all", TransportId::Broadcast);
        let (faulter, dropper) = (world.cpu(0), world.cpu(1));
        let mm = Mm::<Untagged>::new(faulter, 0).expect("memory suffices");
        let range = AT..AT.add(PMD_SIZE);
        mm.map(range.clone(), Perm::WRITE, Backing::Anon).expect("nothing is there");
        world.on(0, || fault::populate(faulter, &mm, AT..AT.add(PAGE_SIZE))).expect("memory suffices");
        // Neither a batch nor the fast path.
        world.machine().policy.injection.set(Odds::NONE.with(Fault::Batch, 1).with(Fault::Trylock, 1));
        let theirs = mm.clone();
        world.at_point(Point::BeforeRescan, move || {
            fault::handle(faulter, &theirs, AT, true).expect("memory suffices");
        });
        world.on(1, || dontneed(dropper, &mm, range.clone())).expect("it is mapped");
        assert!(world.hook_ran());
        let first = world.machine().first_violation.take();
        assert!(first.kind == 0 || first.kind == ViolationKind::LostMapping as u16, "{first:?}");
        first.kind != 0
    });
}

/// A part of a mapping is gone, and the rest not yet, when a program touches what is gone: its page would be in a table
/// that nobody comes to again.
#[test]
fn nothing_is_put_into_what_is_half_unmapped() {
    is_needed(Guard::GoingShut, || {
        let world = World::<Untagged>::new(1, 4096);
        world.choose("sync-all", TransportId::Ipi);
        let (cpu, free) = (world.cpu(0), world.machine().free_frames());
        let mm = Mm::<Untagged>::new(cpu, 0).expect("memory suffices");
        let range = AT..AT.add(2 * PMD_SIZE);
        mm.map(range.clone(), Perm::WRITE, Backing::Anon).expect("nothing is there");
        fault::populate(cpu, &mm, range).expect("memory suffices");
        assert!(!unmap_some(cpu, &mm, AT, &mut Pace::new(&mut || true)));
        let touched = fault::handle(cpu, &mm, AT, true);
        assert!(unmap_some(cpu, &mm, AT, &mut Pace::new(&mut || true)));
        exit(cpu, mm);
        world.settle();
        let lost = world.machine().free_frames() != free || world.violations() != 0;
        assert_eq!(touched.is_ok(), lost, "a page that is put there is lost");
        lost
    });
}

/// What unwinds a truncation that waits.
struct Waits;

/// CPU 0 drops the first page of `file` in the middle of what another CPU does: whether it has to wait for that. What
/// it waits for is below it on this stack, so there it is torn away; to be done again then.
fn truncation_waits<A: Arch>(cpu: &'static Cpu<A>, file: &File<A>) -> bool {
    let over = Rc::new(Cell::new(false));
    let is_over = over.clone();
    while_waiting(move || {
        if !is_over.get() {
            resume_unwind(Box::new(Waits));
        }
    });
    let result = catch_unwind(AssertUnwindSafe(|| truncate(cpu, file, 0..PAGE_SIZE)));
    over.set(true);
    match result {
        Ok(result) => {
            result.expect("no page is cut");
            false
        }
        Err(what) => what.is::<Waits>() || resume_unwind(what),
    }
}

/// A file whose first page has 7 in it, and an mm that maps it at [`AT`] and is loaded on all CPUs of `world`.
fn with_seven<A: Arch>(world: &World<A>) -> (Arc<File<A>>, Arc<Mm<A>>) {
    let cpu = world.cpu(0);
    let (file, mm) = (File::<A>::new(), Mm::<A>::new(cpu, 0).expect("memory suffices"));
    mm.map(AT..AT.add(PAGE_SIZE), Perm::WRITE, Backing::File(file.clone(), 0)).expect("nothing is there");
    for cpu in 0..world.machine().cpus.len() {
        world.on(cpu, || switch::load(world.cpu(cpu), &mm));
    }
    world.write(0, &mm, AT.add(8), 7).expect("it is writable");
    (file, mm)
}

/// A fault has got a page from the file and not put it in when the page is truncated. What the fault puts in is taken
/// out again, or when the truncation is over a translation leads to what was there.
#[test]
fn a_truncation_waits_for_a_fault_that_has_its_page() {
    is_needed(Guard::TruncateWaits, || {
        let world = World::<Tagged>::new(2, 4096);
        world.choose("none", TransportId::Broadcast);
        let (truncator, faulter) = (world.cpu(0), world.cpu(1));
        let (file, mm) = with_seven(&world);
        world.on(0, || dontneed(truncator, &mm, AT..AT.add(PAGE_SIZE))).expect("it is mapped");
        let waited = Rc::new(Cell::new(None));
        let (waits, theirs) = (waited.clone(), file.clone());
        world.at_point(Point::FaultHasPage, move || waits.set(Some(truncation_waits(truncator, &theirs))));
        world.on(1, || fault::handle(faulter, &mm, AT, true)).expect("the file has it");
        assert!(world.hook_ran() || waited.get() == Some(false));
        if waited.get().expect("the fault asks the file") {
            world.on(0, || truncate(truncator, &file, 0..PAGE_SIZE)).expect("no page is cut");
        }
        let read = world.read(1, &mm, AT.add(8));
        assert!(read == Ok(0) || read == Ok(7), "{read:?}");
        read == Ok(7)
    });
}

/// A mapping is unmapped, and not flushed yet, when what it showed is truncated. A CPU has a translation of it: that is
/// gone when the truncation is over.
#[test]
fn a_truncation_waits_for_an_unmapping_that_has_not_flushed() {
    is_needed(Guard::UnmapFirst, || {
        let world = World::<Tagged>::new(3, 4096);
        world.choose("none", TransportId::Broadcast);
        let (truncator, unmapper) = (world.cpu(0), world.cpu(1));
        let (file, mm) = with_seven(&world);
        assert_eq!(world.read(2, &mm, AT.add(8)), Ok(7));
        let seen = Rc::new(Cell::new(None));
        let (sees, theirs) = (seen.clone(), file.clone());
        world.at_point(Point::FlushBegin, move || {
            let waits = truncation_waits(truncator, &theirs);
            // By the translation that it has.
            sees.set(Some((waits, run_on(2, || Tagged::read_user(AT.add(8))))));
        });
        assert!(world.on(1, || unmap_some(unmapper, &mm, AT, &mut Pace::new(&mut || false))));
        let (waited, read) = seen.get().expect("there was something to flush");
        assert_eq!(read, Ok(7), "the translation is there until it is flushed");
        assert!(run_on(2, || Tagged::read_user(AT.add(8))).is_err());
        !waited
    });
}
