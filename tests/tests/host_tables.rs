//! The life of tables and frames on the host: what panics, what balances, what a stale translation or a late CPU must
//! not find.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use kernel::addr::{Level, PAGE_SIZE, PMD_SIZE, PUD_SIZE, Pfn, VirtAddr};
use kernel::arch::Arch;
use kernel::injection::{Fault, Odds};
use kernel::mm::address_space::{Backing, Mm};
use kernel::mm::collapse::collapse_anon;
use kernel::mm::entry::Perm;
use kernel::mm::file::File;
use kernel::mm::frame::FrameState;
use kernel::mm::protect::mprotect;
use kernel::mm::state::Unlinked;
use kernel::mm::unmap::{dontneed, munmap};
use kernel::mm::{exit, fault, fork, page};
use kernel::smp::rcu;
use kernel::task::turn;
use kernel::tlb::switch;
use kernel::tlb::transport::TransportId;
use tests::audit::Audit;
use tests::host::{Tagged, Untagged, World};

const AT: VirtAddr = VirtAddr(0x4000_0000);
/// Behind the oracle's tag.
const WORD: u64 = 8;

fn range(bytes: u64) -> Range<VirtAddr> {
    AT..AT.add(bytes)
}

/// An mm with `bytes` of populated anonymous memory at [`AT`], loaded on CPU 0.
fn populated<A: Arch>(world: &World<A>, bytes: u64) -> Arc<Mm<A>> {
    let cpu = world.cpu(0);
    let mm = Mm::new(cpu, 0).expect("memory suffices");
    mm.map(range(bytes), Perm::WRITE, Backing::Anon).expect("nothing is there");
    fault::populate(cpu, &mm, range(bytes)).expect("memory suffices");
    switch::load(cpu, &mm);
    mm
}

/// Ends `mm` and sees that nothing is left of it.
#[track_caller]
fn end<A: Arch>(world: &World<A>, mm: Arc<Mm<A>>, free: usize) {
    exit::exit(world.cpu(0), mm);
    world.settle();
    assert_eq!(world.machine().free_frames(), free, "frames");
    assert_eq!(world.machine().tables.load(Ordering::Relaxed), 0, "tables");
    assert_eq!(world.violations(), 0, "{:?}", world.machine().first_violation.take());
}

/// Unlinks the PTE table at [`AT`].
fn unlink<'m, A: Arch>(world: &World<A>, mm: &'m Mm<A>) -> Unlinked<'m, A> {
    mm.table_at(Level::Pmd, AT).expect("there is a PMD table").lock().unlink(world.cpu(0), mm, Level::Pmd, AT)
}

#[test]
#[should_panic(expected = "was dropped before it was reused, retired or put back")]
fn an_unlinked_table_that_is_dropped_panics() {
    let world = World::<Untagged>::new(1, 4096);
    let mm = populated(&world, PAGE_SIZE);
    drop(unlink(&world, &mm));
}

#[test]
#[should_panic(expected = "was dropped before it was reused, retired or put back")]
fn a_flushed_table_that_is_dropped_panics() {
    let world = World::<Untagged>::new(1, 4096);
    let mm = populated(&world, PAGE_SIZE);
    drop(unlink(&world, &mm).flush(world.cpu(0)));
}

#[test]
#[should_panic(expected = "was dropped before it was reused, retired or put back")]
fn a_drained_table_that_is_dropped_panics() {
    let world = World::<Untagged>::new(1, 4096);
    let mm = populated(&world, PAGE_SIZE);
    drop(unlink(&world, &mm).flush(world.cpu(0)).drain(world.cpu(0)));
}

#[test]
fn a_table_that_is_put_back_is_as_it_was() {
    let world = World::<Untagged>::new(1, 4096);
    let free = world.machine().free_frames();
    let mm = populated(&world, PAGE_SIZE);
    world.write(0, &mm, AT.add(WORD), 17).expect("it is writable");
    let drained = unlink(&world, &mm).flush(world.cpu(0)).drain(world.cpu(0));
    assert_eq!(drained.table().frame().state(), FrameState::UnlinkedTable);
    drained.relink(world.cpu(0), &mut mm.table_at(Level::Pmd, AT).expect("there is a PMD table").lock());
    assert_eq!(world.read(0, &mm, AT.add(WORD)), Ok(17));
    end(&world, mm, free);
}

#[test]
fn a_retired_table_is_free_only_after_a_grace_period() {
    let world = World::<Untagged>::new(2, 4096);
    let mm = populated(&world, PAGE_SIZE);
    let table = unlink(&world, &mm).flush(world.cpu(0));
    let frame = mm.root().frame();
    let before = world.machine().tables.load(Ordering::Relaxed);
    let reader = world.on(1, || rcu::read(world.cpu(1)));
    table.retire(world.cpu(0));
    world.settle();
    assert_eq!(world.machine().tables.load(Ordering::Relaxed), before, "freed while CPU 1 reads");
    world.on(1, || drop(reader));
    world.settle();
    assert_eq!(world.machine().tables.load(Ordering::Relaxed), before - 1);
    assert_eq!(frame.state(), FrameState::Table);
}

/// Between two turns at programs a CPU reads no table, and says so: its timer may be set anew in each and never fire.
#[test]
fn a_cpu_that_takes_turns_holds_up_no_grace_period() {
    let world = World::<Untagged>::new(2, 4096);
    let mm = populated(&world, PAGE_SIZE);
    let table = unlink(&world, &mm).flush(world.cpu(0));
    let before = world.machine().tables.load(Ordering::Relaxed);
    table.retire(world.cpu(0));
    world.on(0, || rcu::poll(world.cpu(0)));
    assert_eq!(world.machine().tables.load(Ordering::Relaxed), before, "CPU 1 may still read it");
    assert!(!world.on(1, || turn::turn(world.cpu(1))), "it has nothing to do");
    world.on(0, || rcu::poll(world.cpu(0)));
    assert_eq!(world.machine().tables.load(Ordering::Relaxed), before - 1);
}

#[test]
fn references_freeze_only_when_they_are_as_expected() {
    let world = World::<Untagged>::new(1, 4096);
    let pfn = page::alloc(world.cpu(0), FrameState::Anon, 1, 0).expect("memory suffices");
    let frame = world.machine().frames.get(pfn);
    assert!(frame.try_get(2));
    assert!(!frame.freeze(1) && frame.refs() == 3);
    assert!(!frame.put(2));
    assert!(frame.freeze(1) && !frame.try_get(1) && frame.refs() == 0);
    frame.thaw(1);
    assert!(frame.try_get(1) && frame.refs() == 2);
    assert!(!frame.put(1) && frame.put(1));
}

#[test]
fn frames_balance_however_they_are_taken() {
    let world = World::<Untagged>::new(2, 4096);
    let (machine, free) = (world.machine(), world.machine().free_frames());
    let singles: Vec<Pfn> =
        (0..1500).map(|i| page::alloc(world.cpu(i % 2), FrameState::Anon, 1, 0).expect("memory suffices")).collect();
    let mut distinct = singles.clone();
    distinct.sort();
    distinct.dedup();
    assert_eq!(distinct.len(), singles.len());
    let huge = page::alloc_huge::<Untagged>(FrameState::Anon, 1, 0).expect("memory suffices");
    assert!(huge.0.is_multiple_of(512) && singles.iter().all(|s| s.0.wrapping_sub(huge.0) >= 512));
    assert_eq!(machine.free_frames(), free - 1500 - 512);
    // All by one CPU: its magazine spills.
    singles.into_iter().for_each(|pfn| page::put(world.cpu(0), pfn, 1));
    page::put(world.cpu(0), huge, 1);
    assert_eq!(machine.free_frames(), free);
    while page::alloc(world.cpu(0), FrameState::Anon, 1, 0).is_ok() {}
    assert_eq!(machine.allocator.free(), 0, "memory runs out only when there is none");
}

/// The gather with and without room for its batches gives everything back, and every CPU stops translating before it
/// does.
#[test]
fn gathers_balance_when_batches_fail() {
    for (inject, transport) in [0, 1, 3].into_iter().flat_map(|i| TransportId::ALL.map(|t| (i, t))) {
        let world = World::<Untagged>::new(2, 16384);
        world.choose("sync-all", transport);
        let free = world.machine().free_frames();
        world.machine().policy.injection.set(Odds::NONE.with(Fault::Batch, inject));
        let mm = populated(&world, 8 * PMD_SIZE);
        let last = AT.add(8 * PMD_SIZE - PAGE_SIZE);
        world.on(1, || switch::load(world.cpu(1), &mm));
        assert_eq!(world.read(1, &mm, last.add(WORD)), Ok(0));
        munmap(world.cpu(0), &mm, range(8 * PMD_SIZE)).expect("whole pages");
        assert!(world.on(1, || Untagged::read_user(last)).is_err(), "CPU 1 still translates");
        let tables = Audit::of([&*mm]).tables.len();
        assert_eq!(tables, 1, "the root is left");
        world.on(1, || switch::unload(world.cpu(1)));
        end(&world, mm, free);
    }
}

#[test]
fn collapse_and_split_keep_what_pages_contain() {
    let world = World::<Tagged>::new(2, 16384);
    let free = world.machine().free_frames();
    let mm = populated(&world, PMD_SIZE);
    let words = [(0, 5), (1, 6), (511, 7)];
    let word = |page: u64| AT.add(page * PAGE_SIZE + WORD);
    for (page, value) in words {
        world.write(0, &mm, word(page), value).expect("it is writable");
    }
    for _ in 0..3 {
        collapse_anon(world.cpu(0), &mm, AT).expect("all pages are there and nobody uses them");
        assert_eq!(Audit::of([&*mm]).tables.len(), 3, "the PTE table is deposited");
        words.iter().for_each(|(page, value)| assert_eq!(world.read(0, &mm, word(*page)), Ok(*value)));
        dontneed(world.cpu(0), &mm, AT.add(2 * PAGE_SIZE)..AT.add(3 * PAGE_SIZE)).expect("it is mapped");
        let audit = Audit::of([&*mm]);
        assert_eq!((audit.tables.len(), audit.pages.len()), (4, 1), "split: 511 entries of one page");
        assert_eq!(audit.pages.values().sum::<u32>(), 511);
        words.iter().for_each(|(page, value)| assert_eq!(world.read(0, &mm, word(*page)), Ok(*value)));
        // Pages of their own again, so that they can be collapsed again.
        munmap(world.cpu(0), &mm, range(PMD_SIZE)).expect("whole pages");
        mm.map(range(PMD_SIZE), Perm::WRITE, Backing::Anon).expect("nothing is there");
        fault::populate(world.cpu(0), &mm, range(PMD_SIZE)).expect("memory suffices");
        words.iter().for_each(|(page, value)| world.write(0, &mm, word(*page), *value).expect("it is writable"));
    }
    end(&world, mm, free);
}

#[test]
fn a_pinned_page_stays_with_the_parent() {
    let world = World::<Untagged>::new(1, 8192);
    let free = world.machine().free_frames();
    let cpu = world.cpu(0);
    let mm = populated(&world, 2 * PAGE_SIZE);
    world.write(0, &mm, AT.add(WORD), 1).expect("it is writable");
    let mut pinned = [Pfn(0)];
    let pin = world.machine().policy.strategy().pin_user_pages_fast;
    assert_eq!(pin(cpu, &mm, AT, true, &mut pinned), 1);
    let child = fork::fork(cpu, &mm).expect("memory suffices");
    let audit = Audit::of([&*mm, &*child]);
    let mut entries: Vec<u32> = audit.pages.values().copied().collect();
    entries.sort();
    assert_eq!(entries, [1, 1, 2], "the pinned page was copied, the other is shared");
    world.write(0, &mm, AT.add(WORD), 2).expect("it is writable");
    // SAFETY: the pin keeps the page; its words are only accessed atomically.
    let device =
        unsafe { &*Untagged::direct_map(pinned[0].addr()).add(WORD as usize).cast::<std::sync::atomic::AtomicU64>() };
    assert_eq!(device.load(Ordering::Relaxed), 2, "the device sees what the parent writes");
    page::unpin_walked(cpu, pinned[0]);
    switch::load(cpu, &child);
    assert_eq!(world.read(0, &child, AT.add(WORD)), Ok(1));
    exit::exit(cpu, mm);
    end(&world, child, free);
}

/// Sharers of a PMD table are counted, and the last one has it for itself.
#[test]
fn sharers_are_counted() {
    let world = World::<Untagged>::new(2, 16384);
    let (cpu, free) = (world.cpu(0), world.machine().free_frames());
    let file = File::<Untagged>::new();
    let at = VirtAddr(PUD_SIZE * 4)..VirtAddr(PUD_SIZE * 5);
    let mms: Vec<_> = (0..3)
        .map(|_| {
            let mm = Mm::new(cpu, 0).expect("memory suffices");
            mm.map(at.clone(), Perm::WRITE, Backing::Shared(file.clone(), 0)).expect("nothing is there");
            fault::handle(cpu, &mm, at.start, true).expect("memory suffices");
            mm
        })
        .collect();
    let table = mms[0].table_at(Level::Pmd, at.start).expect("it is faulted in");
    assert!(mms.iter().all(|mm| mm.table_at(Level::Pmd, at.start) == Some(table)));
    assert_eq!((table.frame().sharers(), table.frame().population()), (3, 1));
    let audit = Audit::of(mms.iter().map(|mm| &**mm));
    assert_eq!(audit.tables[&table.pfn().0], 3);
    audit.references::<Untagged>();
    munmap(cpu, &mms[0], at.clone()).expect("whole pages");
    assert_eq!(table.frame().sharers(), 2);
    mprotect(cpu, &mms[1], at.clone(), Perm::empty()).expect("it is mapped");
    assert_eq!((table.frame().sharers(), table.frame().state()), (1, FrameState::Table));
    assert!(mms[1].table_at(Level::Pmd, at.start).is_none());
    assert!(file.lock().tables.contains_key(&0));
    for mm in mms {
        exit::exit(cpu, mm);
    }
    assert!(file.lock().tables.is_empty());
    file.destroy(cpu);
    world.settle();
    assert_eq!(world.machine().free_frames(), free);
}
