//! Forged histories, right and wrong, put before the oracle; what it finds is compared with a slow reading of the whole
//! history that shares no code with it.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use kernel::addr::{Level, PAGE_SIZE, PUD_SIZE, Pfn, VirtAddr};
use kernel::mm::address_space::{Backing, Mm};
use kernel::mm::entry::Perm;
use kernel::mm::file::File;
use kernel::mm::frame::FrameState;
use kernel::mm::page;
use kernel::mm::table::{self, Table};
use kernel::oracle::{self, ghost};
use kernel::record::cell::ViolationKind;
use proptest::prelude::*;
use proptest::test_runner::{RngSeed, TestRunner};
use tests::host::{Untagged, World};

const CPUS: usize = 4;
const MMS: usize = 3;
const TABLES: usize = 4;
const AT: VirtAddr = VirtAddr(0x4000_0000);

/// What may happen. CPUs, mms and tables by number.
#[derive(Clone, Debug)]
enum Event {
    /// A walk of an mm begins, in the middle of another if there is one.
    Begin(usize, usize),
    /// The CPU's innermost walk takes a table, at a level.
    Hold(usize, usize, usize),
    /// The innermost walk is over.
    End(usize),
    /// The CPU uses a table again that these mms have unlinked.
    Reuse(usize, usize, Vec<usize>),
    /// The CPU frees a table that was unlinked.
    Free(usize, usize),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        3 => (0..CPUS, 0..MMS).prop_map(|(c, m)| Event::Begin(c, m)),
        6 => (0..CPUS, 0usize..4, 0..TABLES).prop_map(|(c, l, t)| Event::Hold(c, l, t)),
        2 => (0..CPUS).prop_map(Event::End),
        3 => (0..CPUS, 0..TABLES, prop::collection::vec(0..MMS, 0..3)).prop_map(|(c, t, m)| Event::Reuse(c, t, m)),
        1 => (0..CPUS, 0..TABLES).prop_map(|(c, t)| Event::Free(c, t)),
    ]
}

/// The walks of `cpu` that are under way after `history`, outermost first: the mm, and what is held at each level.
fn under_way(history: &[Event], cpu: usize) -> Vec<(usize, BTreeMap<usize, usize>)> {
    let mut walks: Vec<(usize, BTreeMap<usize, usize>)> = Vec::new();
    for event in history {
        match event {
            Event::Begin(c, mm) if *c == cpu => walks.push((*mm, BTreeMap::new())),
            Event::End(c) if *c == cpu => drop(walks.pop()),
            Event::Hold(c, level, table) if *c == cpu => {
                let innermost = walks.last_mut().expect("a walk is under way");
                // Level 0 is the lowest: whoever takes a table has left what he held further down.
                innermost.1.retain(|held, _| held >= level);
                innermost.1.insert(*level, *table);
            }
            _ => {}
        }
    }
    walks
}

/// How many CPUs the last event of `history` wrongs.
fn wronged(history: &[Event]) -> u64 {
    let (actor, table, unlinkers) = match history.last() {
        Some(Event::Reuse(cpu, table, mms)) => (*cpu, *table, mms.clone()),
        Some(Event::Free(cpu, table)) => (*cpu, *table, (0..MMS).collect()),
        _ => return 0,
    };
    let wronged = (0..CPUS).filter(|cpu| *cpu != actor).filter(|cpu| {
        let walks = under_way(history, *cpu);
        walks.iter().any(|(mm, held)| unlinkers.contains(mm) && held.values().any(|t| *t == table))
    });
    wronged.count() as u64
}

/// Whether `event` can happen after `history`: no walk ends or holds that has not begun, and NMIs do not nest.
fn possible(history: &[Event], event: &Event) -> bool {
    match event {
        Event::Begin(cpu, _) => under_way(history, *cpu).len() < 2,
        Event::End(cpu) | Event::Hold(cpu, ..) => !under_way(history, *cpu).is_empty(),
        Event::Reuse(..) | Event::Free(..) => true,
    }
}

fn config(cases: u32) -> ProptestConfig {
    ProptestConfig { cases, rng_seed: RngSeed::Fixed(3), failure_persistence: None, ..ProptestConfig::default() }
}

fn by_state(world: &World<Untagged>) -> u64 {
    (0..CPUS).map(|cpu| world.cpu(cpu).ledger.snapshot().violations_ghost).sum()
}

fn by_value(world: &World<Untagged>) -> u64 {
    (0..CPUS).map(|cpu| world.cpu(cpu).ledger.snapshot().violations_value).sum()
}

#[test]
fn walks_and_tables_are_judged_as_the_history_says() {
    let world = World::<Untagged>::new(CPUS, 2048);
    let mms: Vec<Arc<Mm<Untagged>>> = (0..MMS).map(|_| Mm::new(world.cpu(0), 0).expect("memory suffices")).collect();
    let tables: Vec<Table<Untagged>> =
        (0..TABLES).map(|_| table::alloc(world.cpu(0), 1, Level::Pte, AT).expect("memory suffices")).collect();
    tables.iter().for_each(|table| table.frame().set_state(FrameState::UnlinkedTable));
    let level = |number: usize| Level::from_number(number as u8).expect("there are four");
    let (wrong, right) = (Cell::new(0), Cell::new(0));
    let result = TestRunner::new(config(4000)).run(&prop::collection::vec(event(), 1..40), |events| {
        let mut history = Vec::new();
        for event in events {
            if !possible(&history, &event) {
                continue;
            }
            history.push(event);
            let before = by_state(&world);
            match history.last().expect("just pushed") {
                Event::Begin(cpu, mm) => ghost::begin(world.cpu(*cpu), &mms[*mm], AT),
                Event::Hold(cpu, at, table) => ghost::hold(world.cpu(*cpu), level(*at), tables[*table], AT),
                Event::End(cpu) => ghost::release(world.cpu(*cpu)),
                Event::Reuse(cpu, table, unlinkers) => {
                    let ids: Vec<u32> = unlinkers.iter().map(|mm| mms[*mm].id).collect();
                    oracle::on_reuse(world.cpu(*cpu), tables[*table], &ids);
                }
                Event::Free(cpu, table) => oracle::on_free(world.cpu(*cpu), tables[*table]),
            }
            let expected = wronged(&history);
            prop_assert_eq!(by_state(&world) - before, expected);
            let first = world.machine().first_violation.take();
            prop_assert_eq!(first.kind == 0, expected == 0);
            if let Some(Event::Reuse(cpu, table, _)) = history.last()
                && expected > 0
            {
                prop_assert_eq!(first.kind, ViolationKind::ReusedWhileHeld as u16);
                prop_assert_eq!(usize::from(first.updater), *cpu);
                prop_assert_eq!(first.pfn, tables[*table].pfn().0);
            }
            wrong.set(wrong.get() + u64::from(expected > 0));
            let judged = matches!(history.last(), Some(Event::Reuse(..) | Event::Free(..)));
            right.set(right.get() + u64::from(expected == 0 && judged));
        }
        for cpu in 0..CPUS {
            under_way(&history, cpu).iter().for_each(|_| ghost::release(world.cpu(cpu)));
        }
        Ok(())
    });
    result.expect("the oracle agrees");
    let (wrong, right) = (wrong.get(), right.get());
    assert!(wrong > 1000 && right > 1000, "{wrong} wrong and {right} right: too few of a kind");
    assert_eq!(by_value(&world), 0);
}

/// A page that a test has made, and what it is.
#[derive(Clone, Copy, Debug)]
struct Made {
    pfn: Pfn,
    /// An mm's number, or that of a file.
    owner: u32,
    address: u64,
    file: bool,
}

/// Walks are said to have returned pages that do and pages that do not belong where they were found; user memory is
/// said to have been read.
#[test]
fn pages_are_judged_by_what_they_are() {
    let world = World::<Untagged>::new(CPUS, 4096);
    let cpu = world.cpu(0);
    let parent = Mm::<Untagged>::new(cpu, 0).expect("memory suffices");
    let mm = Mm::<Untagged>::new(cpu, parent.id).expect("memory suffices");
    let stranger = Mm::<Untagged>::new(cpu, 0).expect("memory suffices");
    let files = [File::<Untagged>::new(), File::new()];
    // A GiB each: anonymous; the first file from its page 3 on; nothing.
    let anon = AT;
    let mapped = AT.add(PUD_SIZE);
    mm.map(anon..mapped, Perm::WRITE, Backing::Anon).expect("nothing is there");
    let skipped = 3 * PAGE_SIZE;
    mm.map(mapped..mapped.add(PUD_SIZE), Perm::WRITE, Backing::File(files[0].clone(), skipped))
        .expect("nothing is there");
    let mut made = Vec::new();
    for owner in [mm.id, parent.id, stranger.id] {
        for page in 0..4 {
            let address = anon.0 + page * PAGE_SIZE;
            let pfn = page::alloc(cpu, FrameState::Anon, owner, address).expect("memory suffices");
            made.push(Made { pfn, owner, address, file: false });
        }
    }
    for file in &files {
        for page in 0..8 {
            let address = page * PAGE_SIZE;
            let pfn = page::alloc(cpu, FrameState::File, file.id, address).expect("memory suffices");
            made.push(Made { pfn, owner: file.id, address, file: true });
        }
    }
    let table = table::alloc(cpu, mm.id, Level::Pte, anon).expect("memory suffices");
    let freed = page::alloc(cpu, FrameState::Anon, mm.id, anon.0).expect("memory suffices");
    page::put(cpu, freed, 1);
    // Where each page belongs in `mm`, as the lines above say. Of a file's page where nothing is mapped the oracle does
    // not judge: it may have been unmapped since.
    let belongs = |page: &Made, va: u64| match page.file {
        false => (page.owner == mm.id || page.owner == parent.id) && page.address == va,
        true if va >= mapped.0 + PUD_SIZE => true,
        true => page.owner == files[0].id && va >= mapped.0 && va - mapped.0 + skipped == page.address,
    };
    let somewhere = (0usize..3, 0u64..8).prop_map(|(region, page)| AT.0 + region as u64 * PUD_SIZE + page * PAGE_SIZE);
    let (wrong, right) = (Cell::new(0), Cell::new(0));
    let result =
        TestRunner::new(config(4000)).run(&(somewhere, 0..made.len() + 2, any::<bool>()), |(va, which, aim)| {
            let known = made.get(which);
            // Half of the time where it belongs, if it belongs anywhere.
            let home = known.map(|page| match page.file {
                true => (mapped.0 + page.address).saturating_sub(skipped),
                false => page.address,
            });
            let va = if aim { home.unwrap_or(va) } else { va };
            let pfn = known.map_or(if which == made.len() { table.pfn() } else { freed }, |page| page.pfn);
            let expected = u64::from(!known.is_some_and(|page| belongs(page, va)));
            let before = by_value(&world);
            oracle::on_put(cpu, &mm, VirtAddr(va), &[pfn]);
            prop_assert_eq!(by_value(&world) - before, expected, "walk to {:x} returned {:?}", va, known);
            if let Some(page) = known.filter(|page| !page.file) {
                let before = by_value(&world);
                oracle::on_user_read(cpu, &mm, VirtAddr(va), page::peek::<Untagged>(page.pfn));
                prop_assert_eq!(by_value(&world) - before, expected, "{:x} was read from {:?}", va, page);
            }
            wrong.set(wrong.get() + expected);
            right.set(right.get() + 1 - expected);
            Ok(())
        });
    result.expect("the oracle agrees");
    let (wrong, right) = (wrong.get(), right.get());
    assert!(wrong > 500 && right > 500, "{wrong} wrong and {right} right: too few of a kind");
    let before = by_value(&world);
    oracle::on_user_read(cpu, &mm, anon, page::peek::<Untagged>(freed));
    assert_eq!(by_value(&world) - before, 1, "a page that is free was read");
    assert_eq!(by_state(&world), 0);
}

/// A table that goes for good with a page of an mm still in it has lost that page.
#[test]
fn a_page_that_goes_with_its_table_is_missed() {
    for lost in [false, true] {
        let world = World::<Untagged>::new(CPUS, 2048);
        let cpu = world.cpu(0);
        let mm = Mm::<Untagged>::new(cpu, 0).expect("memory suffices");
        mm.map(AT..AT.add(PAGE_SIZE), Perm::WRITE, Backing::Anon).expect("nothing is there");
        kernel::mm::fault::handle(cpu, &mm, AT, true).expect("memory suffices");
        let table = mm.table_at(Level::Pte, AT).expect("it was faulted in");
        if !lost {
            table.lock().clear(Level::Pte, AT);
        }
        oracle::on_retire(cpu, table);
        assert_eq!(by_value(&world), u64::from(lost));
        let kind = world.machine().first_violation.take().kind;
        assert_eq!(kind, if lost { ViolationKind::LostMapping as u16 } else { 0 });
        assert_eq!(world.machine().tables.load(Ordering::Relaxed), 4);
    }
}
