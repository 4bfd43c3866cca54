//! What the operations do when memory is short, whom a grace period waits for, and in which order locks are taken: on
//! the machine of the host.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use kernel::addr::{Level, PAGE_SIZE, PMD_SIZE, Pfn, VirtAddr};
use kernel::injection::{Fault, Odds};
use kernel::mm::address_space::{Backing, MapError, Mm};
use kernel::mm::collapse::collapse_anon;
use kernel::mm::entry::Perm;
use kernel::mm::file::File;
use kernel::mm::frame::FrameState;
use kernel::mm::protect::mprotect;
use kernel::mm::retract::collapse_pte_mapped;
use kernel::mm::unmap::{dontneed, munmap};
use kernel::mm::{exit, fault, page};
use kernel::record::cell::ViolationKind;
use kernel::record::event::EventKind;
use kernel::smp::cpu::Chance;
use kernel::smp::rcu;
use kernel::tlb::switch;
use kernel::tlb::transport::TransportId;
use tests::audit::Audit;
use tests::host::{Untagged, World, run_on};

const AT: VirtAddr = VirtAddr(0x4000_0000);
/// Behind the oracle's tag.
const WORD: u64 = 8;

fn pages(from: u64, to: u64) -> Range<VirtAddr> {
    AT.add(from * PAGE_SIZE)..AT.add(to * PAGE_SIZE)
}

/// Every frame that there is.
fn exhaust(world: &World<Untagged>) -> Vec<Pfn> {
    let one = || page::alloc(world.cpu(0), FrameState::Anon, 0, 0).ok();
    std::iter::from_fn(one).collect()
}

/// An mm on CPU 0 with 2 MiB at [`AT`] behind one leaf: of `file`, or anonymous.
fn behind_a_leaf(world: &World<Untagged>, file: Option<&Arc<File<Untagged>>>) -> Arc<Mm<Untagged>> {
    let cpu = world.cpu(0);
    let mm = Mm::<Untagged>::new(cpu, 0).expect("memory suffices");
    let backing = file.map_or(Backing::Anon, |file| Backing::File(file.clone(), 0));
    if let Some(file) = file {
        file.huge_page(&mut file.lock(), 0).expect("memory suffices");
    }
    mm.map(pages(0, 512), Perm::WRITE, backing).expect("nothing is there");
    fault::populate(cpu, &mm, pages(0, 512)).expect("memory suffices");
    switch::load(cpu, &mm);
    let collapsed = if file.is_some() { collapse_pte_mapped(cpu, &mm, AT) } else { collapse_anon(cpu, &mm, AT) };
    collapsed.expect("all pages are there and nobody uses them");
    world.settle();
    mm
}

/// A leaf of a file has to be split, and there is no frame for the table: the operation is refused, and everything is
/// as it was.
#[test]
fn what_needs_a_frame_and_gets_none_changes_nothing() {
    type Op = fn(&World<Untagged>, &Mm<Untagged>) -> Result<(), MapError>;
    let ops: [Op; 3] = [
        |world, mm| munmap(world.cpu(0), mm, pages(100, 512)),
        |world, mm| mprotect(world.cpu(0), mm, pages(0, 100), Perm::empty()),
        |world, mm| dontneed(world.cpu(0), mm, pages(100, 200)),
    ];
    for op in ops {
        let world = World::<Untagged>::new(1, 4096);
        let free = world.machine().free_frames();
        let file = File::<Untagged>::new();
        let mm = behind_a_leaf(&world, Some(&file));
        world.write(0, &mm, AT.add(WORD), 5).expect("it is writable");
        let before = (Audit::of([&*mm]).tables, Audit::of([&*mm]).pages);
        let held = exhaust(&world);
        assert!(matches!(op(&world, &mm), Err(MapError::OutOfFrames(_))));
        assert_eq!((Audit::of([&*mm]).tables, Audit::of([&*mm]).pages), before);
        assert_eq!(world.write(0, &mm, AT.add(511 * PAGE_SIZE + WORD), 6), Ok(()));
        assert_eq!(world.read(0, &mm, AT.add(WORD)), Ok(5));
        held.into_iter().for_each(|pfn| page::put(world.cpu(0), pfn, 1));
        op(&world, &mm).expect("memory suffices now");
        Audit::of([&*mm]).references::<Untagged>();
        exit::exit(world.cpu(0), mm);
        file.destroy(world.cpu(0));
        world.settle();
        assert_eq!(world.machine().free_frames(), free);
        assert_eq!(world.violations(), 0);
    }
}

/// An anonymous leaf has its table deposited, for this very moment.
#[test]
fn an_anonymous_leaf_is_split_without_a_frame() {
    let world = World::<Untagged>::new(1, 4096);
    let free = world.machine().free_frames();
    let mm = behind_a_leaf(&world, None);
    let held = exhaust(&world);
    munmap(world.cpu(0), &mm, pages(100, 512)).expect("its table is there");
    assert_eq!(Audit::of([&*mm]).pages.values().sum::<u32>(), 100);
    held.into_iter().for_each(|pfn| page::put(world.cpu(0), pfn, 1));
    exit::exit(world.cpu(0), mm);
    world.settle();
    assert_eq!((world.machine().free_frames(), world.violations()), (free, 0));
}

/// The leaf of a file next to an anonymous one does not take the table that is deposited for that.
#[test]
fn a_deposited_table_is_for_anonymous_leaves() {
    let world = World::<Untagged>::new(1, 8192);
    let cpu = world.cpu(0);
    let file = File::<Untagged>::new();
    let mm = behind_a_leaf(&world, Some(&file));
    let next = AT.add(PMD_SIZE)..AT.add(2 * PMD_SIZE);
    mm.map(next.clone(), Perm::WRITE, Backing::Anon).expect("nothing is there");
    fault::populate(cpu, &mm, next.clone()).expect("memory suffices");
    collapse_anon(cpu, &mm, next.start).expect("all pages are there and nobody uses them");
    munmap(cpu, &mm, pages(0, 512)).expect("whole pages");
    world.settle();
    let held = exhaust(&world);
    dontneed(cpu, &mm, next.start..next.start.add(PAGE_SIZE)).expect("its table is there");
    assert_eq!(Audit::of([&*mm]).pages.values().sum::<u32>(), 511);
    assert!(!held.is_empty());
}

/// Pages of a shared region are 2 MiB: a range that cuts one is refused before anything is changed.
#[test]
fn a_shared_page_is_not_cut() {
    let world = World::<Untagged>::new(1, 4096);
    let (cpu, file) = (world.cpu(0), File::<Untagged>::new());
    let mm = Mm::<Untagged>::new(cpu, 0).expect("memory suffices");
    let whole = AT..AT.add(1 << 30);
    let cut = AT.add(3 * PAGE_SIZE);
    assert_eq!(mm.map(cut..whole.end, Perm::WRITE, Backing::Shared(file.clone(), 0)), Err(MapError::CutsHugePage(cut)));
    mm.map(whole.clone(), Perm::WRITE, Backing::Shared(file.clone(), 0)).expect("nothing is there");
    fault::handle(cpu, &mm, AT, true).expect("memory suffices");
    assert_eq!(munmap(cpu, &mm, AT..cut), Err(MapError::CutsHugePage(cut)));
    assert_eq!(mprotect(cpu, &mm, cut..whole.end, Perm::empty()), Err(MapError::CutsHugePage(cut)));
    assert_eq!(Audit::of([&*mm]).pages.len(), 1);
    munmap(cpu, &mm, AT..AT.add(PMD_SIZE)).expect("whole pages of 2 MiB");
    assert!(Audit::of([&*mm]).pages.is_empty());
}

/// A deposited table was drained of walks that an interrupt ends. A reader under RCU is none, so the table waits for it
/// like every other.
#[test]
fn a_deposited_table_is_freed_after_a_grace_period() {
    let world = World::<Untagged>::new(2, 4096);
    world.choose("sync-all", TransportId::Ipi);
    let mm = behind_a_leaf(&world, None);
    let before = world.machine().tables.load(Ordering::Relaxed);
    assert_eq!(before, 4, "three levels, and the deposited one");
    let reader = world.on(1, || rcu::read(world.cpu(1)));
    world.on(0, || munmap(world.cpu(0), &mm, pages(0, 512))).expect("whole pages");
    world.settle();
    assert_eq!(world.machine().tables.load(Ordering::Relaxed), before, "freed while CPU 1 reads");
    world.on(1, || drop(reader));
    world.settle();
    assert_eq!(world.machine().tables.load(Ordering::Relaxed), 1, "the root");
    assert_eq!(world.violations(), 0);
}

/// Who has a file's lock may wait for a grace period. So nobody waits for that lock inside a read section: a fault that
/// does lets grace periods pass meanwhile.
#[test]
fn a_fault_that_waits_for_a_file_holds_up_no_grace_period() {
    let world = World::<Untagged>::new(2, 4096);
    let cpu = world.cpu(0);
    let file: &'static Arc<File<Untagged>> = Box::leak(Box::new(File::new()));
    let mm = Mm::<Untagged>::new(cpu, 0).expect("memory suffices");
    mm.map(pages(0, 8), Perm::WRITE, Backing::File(file.clone(), 0)).expect("nothing is there");
    let contents = world.on(1, || file.lock());
    let other = world.cpu(1);
    world.while_waiting(move || {
        run_on(1, || {
            // What the last sharer of a table does under this lock.
            rcu::synchronize(other);
            drop(contents);
        });
    });
    world.on(0, || fault::handle(cpu, &mm, AT, true)).expect("memory suffices");
    assert!(world.hook_ran(), "the fault had to wait");
    Audit::of([&*mm]).references::<Untagged>();
}

#[test]
#[should_panic(expected = "takes a file's lock while it holds up grace periods")]
fn a_file_is_not_locked_in_a_read_section() {
    let world = World::<Untagged>::new(1, 4096);
    let file = File::<Untagged>::new();
    world.on(0, || {
        let _reader = rcu::read(world.cpu(0));
        drop(file.lock());
    });
}

/// Somebody else puts the page of a file there while this fault waits for the file: its own reference is given back, to
/// the head where the file has a 2 MiB page.
#[test]
fn two_faults_for_one_page_of_a_file_balance() {
    for huge in [false, true] {
        let world = World::<Untagged>::new(2, 4096);
        let cpu = world.cpu(0);
        let file: &'static Arc<File<Untagged>> = Box::leak(Box::new(File::new()));
        let mm = Mm::<Untagged>::new(cpu, 0).expect("memory suffices");
        mm.map(pages(0, 8), Perm::WRITE, Backing::File(file.clone(), 0)).expect("nothing is there");
        let mut contents = world.on(1, || file.lock());
        let head = huge.then(|| file.huge_page(&mut contents, 0).expect("memory suffices"));
        let (theirs, other) = (mm.clone(), world.cpu(1));
        world.while_waiting(move || {
            drop(contents);
            run_on(1, || fault::handle(other, &theirs, AT.add(PAGE_SIZE), true)).expect("memory suffices");
        });
        world.on(0, || fault::handle(cpu, &mm, AT.add(PAGE_SIZE), true)).expect("memory suffices");
        assert!(world.hook_ran(), "the fault had to wait");
        let audit = Audit::of([&*mm]);
        assert_eq!(audit.pages.len(), 1);
        match head {
            None => audit.references::<Untagged>(),
            Some(head) => {
                assert_eq!(world.machine().frames.get(head).refs(), 2, "the file's and the entry's");
                assert_eq!(world.machine().frames.get(Pfn(head.0 + 1)).refs(), 0, "a tail has none");
            }
        }
    }
}

/// A grandchild walks and reads a page that is still its grandparent's.
#[test]
fn what_a_grandchild_inherited_is_its_own() {
    let world = World::<Untagged>::new(1, 8192);
    let cpu = world.cpu(0);
    let first = Mm::<Untagged>::new(cpu, 0).expect("memory suffices");
    first.map(pages(0, 4), Perm::WRITE, Backing::Anon).expect("nothing is there");
    switch::load(cpu, &first);
    world.write(0, &first, AT.add(WORD), 7).expect("it is writable");
    let child = kernel::mm::fork::fork(cpu, &first).expect("memory suffices");
    let grandchild = kernel::mm::fork::fork(cpu, &child).expect("memory suffices");
    assert_eq!(grandchild.ancestors, [first.id, child.id]);
    switch::load(cpu, &grandchild);
    let mut found = [Pfn(0)];
    let walk = world.machine().policy.strategy().get_user_pages_fast;
    assert_eq!(walk(cpu, &grandchild, AT, false, &mut found), 1);
    page::put_walked(cpu, found[0]);
    kernel::oracle::on_user_read(cpu, &grandchild, AT, world.read(0, &grandchild, AT).expect("it is mapped"));
    assert_eq!(world.violations(), 0, "{:?}", world.machine().first_violation.take());
    // A stranger's is still none of its own.
    let stranger = page::alloc(cpu, FrameState::Anon, 77, AT.0).expect("memory suffices");
    kernel::oracle::on_put(cpu, &grandchild, AT, &[stranger]);
    assert_eq!(world.violations(), 1);
}

/// The events of a flush say whom it may concern and whom it interrupted.
#[test]
fn the_events_of_a_flush_count_cpus() {
    let world = World::<Untagged>::new(3, 4096);
    world.choose("sync-all", TransportId::Ipi);
    let mm = Mm::<Untagged>::new(world.cpu(0), 0).expect("memory suffices");
    mm.map(pages(0, 1), Perm::WRITE, Backing::Anon).expect("nothing is there");
    for index in 0..3 {
        world.on(index, || switch::load(world.cpu(index), &mm));
    }
    switch::become_lazy(world.cpu(2));
    world.write(0, &mm, AT.add(WORD), 7).expect("it is writable");
    // Of pages only: a lazy CPU may be left out.
    world.on(0, || mprotect(world.cpu(0), &mm, pages(0, 1), Perm::empty())).expect("it is mapped");
    let of = |kind: EventKind| world.events(0).into_iter().rfind(|e| e.kind == kind as u16).expect("it was written");
    assert_eq!((of(EventKind::FlushBegin).a, of(EventKind::FlushBegin).b), (AT.0, 2));
    assert_eq!((of(EventKind::FlushEnd).a, of(EventKind::FlushEnd).b), (AT.0, 1));
}

/// A table that finds no batch is retired, flushed and freed under the same names as any other.
#[test]
fn a_table_without_a_batch_leaves_the_same_events() {
    let world = World::<Untagged>::new(2, 4096);
    world.choose("sync-all", TransportId::Ipi);
    let mm = Mm::<Untagged>::new(world.cpu(0), 0).expect("memory suffices");
    mm.map(pages(0, 1), Perm::WRITE, Backing::Anon).expect("nothing is there");
    world.on(0, || fault::populate(world.cpu(0), &mm, pages(0, 1))).expect("memory suffices");
    let pte = mm.table_at(Level::Pte, AT).expect("it is populated").pfn();
    world.machine().policy.injection.set(Odds::NONE.with(Fault::Batch, 1));
    world.on(0, || munmap(world.cpu(0), &mm, pages(0, 1))).expect("whole pages");
    let kinds: Vec<u16> = world.events(0).into_iter().filter(|e| e.a == u64::from(pte.0)).map(|e| e.kind).collect();
    assert_eq!(kinds, [EventKind::Link, EventKind::Unlink, EventKind::Retire, EventKind::Free].map(|kind| kind as u16));
}

/// A pseudo-random sequence of what is done to tables: the population is what a scan says after every step.
#[test]
fn population_matches_scan() {
    let world = World::<Untagged>::new(1, 4096);
    let cpu = world.cpu(0);
    let mm = Mm::<Untagged>::new(cpu, 0).expect("memory suffices");
    mm.map(AT..AT.add(1 << 30), Perm::WRITE, Backing::Anon).expect("nothing is there");
    let pmd = || mm.table_at(Level::Pmd, AT).expect("it stays");
    let mut there = BTreeSet::new();
    let (chance, mut most) = (Chance::default(), 0);
    chance.seed(1, 0);
    for _ in 0..1500 {
        let index = chance.next() % 512;
        let va = AT.add(index * PAGE_SIZE);
        match chance.next() % 8 {
            0..=4 => {
                fault::handle(cpu, &mm, va, true).expect("memory suffices");
                there.insert(index);
            }
            5 if !there.is_empty() => {
                let end = (index + 1 + chance.next() % 4).min(512);
                dontneed(cpu, &mm, va..AT.add(end * PAGE_SIZE)).expect("it is mapped");
                there.retain(|page| *page < index || end <= *page);
            }
            6 if !there.is_empty() => {
                mprotect(cpu, &mm, pages(0, 512), Perm::empty()).expect("it is mapped");
                mprotect(cpu, &mm, pages(0, 512), Perm::WRITE).expect("it is mapped");
            }
            7 if !there.is_empty() => {
                let flushed = pmd().lock().unlink(cpu, &mm, Level::Pmd, AT).flush(cpu);
                assert_eq!((pmd().frame().population(), pmd().scan()), (0, 0));
                flushed.relink(cpu, &mut pmd().lock());
            }
            _ => continue,
        }
        let pte = mm.table_at(Level::Pte, AT).expect("it was faulted in");
        assert_eq!((pte.frame().population(), pte.scan()), (there.len() as u16, there.len() as u16));
        assert_eq!((pmd().frame().population(), pmd().scan()), (1, 1));
        most = most.max(there.len());
    }
    assert!(most > 100, "{most}");
    assert_eq!(world.violations(), 0);
}

/// A table that is given up with a wrong count is found out.
#[test]
fn a_wrong_population_is_reported() {
    let world = World::<Untagged>::new(1, 4096);
    let cpu = world.cpu(0);
    let mm = Mm::<Untagged>::new(cpu, 0).expect("memory suffices");
    mm.map(pages(0, 2), Perm::WRITE, Backing::Anon).expect("nothing is there");
    fault::populate(cpu, &mm, pages(0, 2)).expect("memory suffices");
    // Not through the table's guard.
    mm.table_at(Level::Pte, AT).expect("it is populated").slot(1).store(0, Ordering::Relaxed);
    munmap(cpu, &mm, pages(0, 2)).expect("whole pages");
    assert_eq!(world.machine().first_violation.take().kind, ViolationKind::Miscounted as u16);
}
