//! Unmapping in parts: whoever is more urgent runs in between, what is half unmapped is shut, and in the end it is as if
//! all had gone at once.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use kernel::abi::{Number, Rights, Status};
use kernel::addr::{ENTRIES, Level, PAGE_SIZE, PMD_SIZE, PUD_SIZE, VirtAddr};
use kernel::mm::address_space::{MapError, Mm};
use kernel::object;
use kernel::object::account::Price;
use kernel::object::process::Process;
use kernel::object::removal::Removal;
use kernel::object::thread::Thread;
use kernel::scenario::Point;
use kernel::task::turn;
use kernel::tlb::switch;
use kernel::tlb::transport::TransportId;
use scripted::load;
use tests::host::Tagged;
use tests::kernel_of::{FREE, Kernel};

const AT: u64 = 0x4000_0000;
const FRAMES: usize = 16_000;
/// In the slots of the first process: another one, memory, what else is made.
const CHILD: u64 = FREE;
const MEMORY: u64 = FREE + 1;
const MORE: u64 = FREE + 2;
/// What is cleared between two questions, at most: less than two tables' worth.
const MOST: usize = 2 * ENTRIES;
/// A gather takes 9,698 pages: some that are one, and some that are two.
const SIZES: [(u64, u64); 3] = [(1, 1), (8, 1), (20, 2)];

/// A machine, a child of the first process, and a thread of the first process that never runs.
struct Stage {
    kernel: Kernel<Tagged>,
    child: Arc<Process<Tagged>>,
    speaker: Arc<Thread<Tagged>>,
}

/// A process whose threads are less urgent than others.
fn less_urgent(kernel: &Kernel<Tagged>, slot: u64, frames: u64) -> Arc<Process<Tagged>> {
    let limit = Price { frames, bytes: 1 << 20, spaces: 0 };
    let made = kernel.world.on(0, || kernel.first.make_child(kernel.world.cpu(0), slot as u32, 16, limit, 5));
    made.expect("there is enough")
}

impl Stage {
    fn new() -> Stage {
        let kernel = Kernel::with(2, FRAMES, 32, Price { frames: 14_000, bytes: 8 << 20, spaces: 8 });
        kernel.world.choose("sync-all", TransportId::Ipi);
        let child = less_urgent(&kernel, CHILD, 64);
        let speaker = kernel.thread(&kernel.first, MORE + 1, &kernel.first, VirtAddr(0x1000), 1, 0, 0);
        for cpu in 0..2 {
            kernel.world.on(cpu, || switch::load(kernel.world.cpu(cpu), &child.mm));
        }
        Stage { kernel, child, speaker }
    }

    fn ask(&self, number: Number, arguments: &[u64]) -> Status {
        self.kernel.status(0, &self.speaker, number, arguments)
    }

    /// Maps `tables` times 2 MiB of new memory into the child, and touches all of it.
    fn fill(&self, tables: u64) {
        fill(&self.kernel, &self.speaker, tables);
    }

    /// Lets one part of the child's mapping at `at` go. True: all of it has.
    fn part(&self, at: u64) -> bool {
        let cpu = self.kernel.world.cpu(0);
        self.kernel.world.on(0, || self.child.unmap(cpu, VirtAddr(at), &mut || true)).expect("it is there")
    }

    /// Entries of the child that map something in the GiB at [`AT`].
    fn left(&self) -> usize {
        mapped(&self.child.mm)
    }

    fn finish(self) {
        let Stage { kernel, child, speaker } = self;
        drop((child, speaker));
        kernel.finish(FRAMES);
    }
}

/// The same by `speaker`, whose process has the child in slot [`CHILD`].
fn fill(kernel: &Kernel<Tagged>, speaker: &Arc<Thread<Tagged>>, tables: u64) {
    let ask = |number, arguments: &[u64]| assert_eq!(kernel.status(0, speaker, number, arguments), Status::Done);
    ask(Number::MakeFrames, &[MEMORY, tables * ENTRIES as u64]);
    ask(Number::Map, &[CHILD, MEMORY, AT, 0, tables * PMD_SIZE, 3]);
    (0..tables).for_each(|n| ask(Number::Populate, &[CHILD, AT + n * PMD_SIZE, PMD_SIZE]));
}

fn mapped(mm: &Mm<Tagged>) -> usize {
    let tables = (0..PUD_SIZE / PMD_SIZE).filter_map(|n| mm.table_at(Level::Pte, VirtAddr(AT + n * PMD_SIZE)));
    tables.map(|table| usize::from(table.frame().population())).sum()
}

/// What makes a mapping go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Way {
    Unmap,
    Revoke,
    TakeDown,
}

const WAYS: [Way; 3] = [Way::Unmap, Way::Revoke, Way::TakeDown];

/// However it goes: no more than two tables' worth between two questions; and where nobody wants the CPU, as many
/// flushes as the gather's size makes it.
#[test]
fn a_mapping_goes_in_bounded_steps() {
    for (way, (tables, flushes)) in WAYS.into_iter().flat_map(|way| SIZES.map(|size| (way, size))) {
        let stage = Stage::new();
        stage.fill(tables);
        let (cpu, world) = (stage.kernel.world.cpu(0), &stage.kernel.world);
        let (before, most, asked) = (Cell::new(stage.left()), Cell::new(0), Cell::new(0));
        assert_eq!(before.get(), tables as usize * ENTRIES);
        let look = || {
            let now = stage.left();
            most.set(most.get().max(before.replace(now) - now));
            asked.set(asked.get() + 1);
            false
        };
        let begun = stage.child.mm.flush_generation();
        world.on(0, || match way {
            Way::Unmap => assert_eq!(stage.child.unmap(cpu, VirtAddr(AT), &mut || look()), Ok(true)),
            Way::Revoke => {
                let node = stage.kernel.first.table.get(MEMORY as u32).expect("it is there");
                assert!(Removal::revoke(&node).expect("it is alive").advance(cpu, look));
            }
            Way::TakeDown => {
                stage.child.end(cpu, 1);
                assert!(!object::finish_some(cpu, |_| look()) && stage.child.is_down());
            }
        });
        look();
        assert_eq!(stage.left(), 0);
        assert!(most.get() <= MOST, "{way:?} of {tables} tables: {} entries without a question", most.get());
        assert!(asked.get() >= tables, "{way:?} of {tables} tables: {} questions", asked.get());
        assert_eq!(stage.child.mm.flush_generation() - begun, flushes, "{way:?} of {tables} tables");
        stage.finish();
    }
}

/// What a half unmapped mapping is for others: nothing is put into it or in its place, and a fork has none of it; and
/// whoever comes to unmap it goes on where it was left.
#[test]
fn what_is_half_unmapped_is_shut() {
    let stage = Stage::new();
    let (child, world) = (stage.child.clone(), &stage.kernel.world);
    assert_eq!(stage.ask(Number::MapAnonymous, &[CHILD, AT, 4 * PMD_SIZE, 3]), Status::Done);
    (0..4).for_each(|n| assert_eq!(stage.ask(Number::Populate, &[CHILD, AT + n * PMD_SIZE, PMD_SIZE]), Status::Done));
    let (gone, there) = (VirtAddr(AT + 8), VirtAddr(AT + 3 * PMD_SIZE + 8));
    assert_eq!(world.write(1, &child.mm, gone, 7), Ok(()));
    assert_eq!(world.write(1, &child.mm, there, 9), Ok(()));
    let used = child.account.used();
    for part in 1..4 {
        assert!(!stage.part(AT));
        assert_eq!(stage.left(), (4 - part) * ENTRIES);
        // No CPU reaches what is gone; what is there is as it was.
        assert_eq!(world.read(1, &child.mm, gone), Err(MapError::NotMapped(gone)));
        assert_eq!(world.read(1, &child.mm, there), Ok(9));
        for at in [AT, AT + 3 * PMD_SIZE] {
            assert_eq!(stage.ask(Number::MapAnonymous, &[CHILD, at, PAGE_SIZE, 3]), Status::Overlaps);
            assert_eq!(stage.ask(Number::Populate, &[CHILD, at, PAGE_SIZE]), Status::NotMapped);
            assert_eq!(stage.ask(Number::Discard, &[CHILD, at, PAGE_SIZE]), Status::NotMapped);
            assert_eq!(stage.ask(Number::Collapse, &[CHILD, at]), Status::NotMapped);
        }
        assert_eq!(stage.ask(Number::Protect, &[CHILD, AT, 1]), Status::NotMapped);
        assert_eq!(child.account.used(), used);
    }
    assert_eq!(stage.ask(Number::Fork, &[CHILD, MORE, 8, 64, 1 << 16, 0, 5]), Status::Done);
    {
        let fork = stage.kernel.first.table.get(MORE as u32).expect("it was made");
        let object::Object::Process(fork) = fork.object() else { panic!("no process") };
        assert_eq!(mapped(&fork.mm), 0);
    }
    // By its address, from where it was left; and then there is room.
    assert_eq!(stage.ask(Number::Unmap, &[CHILD, AT]), Status::Done);
    assert_eq!(stage.ask(Number::Unmap, &[CHILD, AT]), Status::NotMapped);
    assert_eq!(stage.ask(Number::MapAnonymous, &[CHILD, AT, PAGE_SIZE, 3]), Status::Done);
    drop(child);
    stage.finish();
}

/// A truncation finds what a half unmapped mapping still shows, on whatever CPU.
#[test]
fn a_truncation_finds_what_is_half_unmapped() {
    let stage = Stage::new();
    stage.fill(4);
    let there = VirtAddr(AT + 3 * PMD_SIZE + 8);
    assert_eq!(stage.kernel.world.write(1, &stage.child.mm, there, 9), Ok(()));
    assert!(!stage.part(AT));
    assert_eq!(stage.ask(Number::Truncate, &[MEMORY, 0, 4 * PMD_SIZE]), Status::Done);
    assert_eq!(stage.left(), 0);
    let read = stage.kernel.world.read(1, &stage.child.mm, there);
    assert_eq!(read, Err(MapError::NotMapped(there)));
    stage.finish();
}

/// Two mappings, of which one ends and the other begins in the middle of a table, and the other goes on behind what the
/// next higher table maps, go part by part in whatever order, and no table is left.
#[test]
fn mappings_that_go_at_once_leave_no_table() {
    let gib = AT + PUD_SIZE;
    let middle = gib - 2 * PMD_SIZE + 64 * PAGE_SIZE;
    for order in 0_u32..1 << 4 {
        let stage = Stage::new();
        for (at, end) in [(gib - 3 * PMD_SIZE, middle), (middle, gib + 2 * PMD_SIZE)] {
            assert_eq!(stage.ask(Number::MapAnonymous, &[CHILD, at, end - at, 3]), Status::Done);
            let mut page = at;
            while page < end {
                let bytes = PMD_SIZE.min(end - page);
                assert_eq!(stage.ask(Number::Populate, &[CHILD, page, bytes]), Status::Done);
                page += bytes;
            }
        }
        let mut over = [false; 2];
        for turn in 0.. {
            let first = if turn < 4 { (order >> turn & 1) as usize } else { 0 };
            let Some(which) = [first, 1 - first].into_iter().find(|which| !over[*which]) else { break };
            over[which] = stage.part([gib - 3 * PMD_SIZE, middle][which]);
        }
        assert!(stage.child.mm.table_at(Level::Pud, VirtAddr(AT)).is_none(), "order {order:#b}: a table is left");
        assert!(stage.child.mm.map.read().is_empty());
        stage.finish();
    }
}

/// A thread that undoes a mapping is left; somebody else ends what it began and maps something else there, which stays.
#[test]
fn what_is_mapped_since_stays() {
    let stage = Stage::new();
    let (cpu, world, child) = (stage.kernel.world.cpu(0), &stage.kernel.world, &stage.child);
    for revokes in [false, true] {
        stage.fill(3);
        assert!(!stage.part(AT));
        let (number, what) = if revokes { (Number::Revoke, vec![MEMORY]) } else { (Number::Unmap, vec![CHILD, AT]) };
        assert_eq!(stage.ask(number, &what), Status::Done);
        assert_eq!((stage.left(), child.mm.map.read().len()), (0, 0));
        assert_eq!(stage.ask(Number::MapAnonymous, &[CHILD, AT, PMD_SIZE, 3]), Status::Done);
        assert_eq!(world.write(1, &child.mm, VirtAddr(AT + 8), 5), Ok(()));
        // It goes on with what is over.
        assert!(world.on(0, || child.unmap_on(cpu, VirtAddr(AT), &mut || true)));
        assert_eq!(world.read(0, &child.mm, VirtAddr(AT + 8)), Ok(5));
        assert_eq!(stage.ask(Number::Unmap, &[CHILD, AT]), Status::Done);
        assert_eq!(stage.ask(Number::Delete, &[MEMORY]), Status::Done);
    }
    stage.finish();
}

/// A thread that undoes a mapping, one that revokes its memory, and a CPU that takes down the process, make room for a
/// thread that is more urgent after no more than two tables' worth, and end what they began.
#[test]
fn the_more_urgent_run_while_a_mapping_goes() {
    const TABLES: u64 = 8;
    for (way, ends) in [(Way::Unmap, false), (Way::Unmap, true), (Way::Revoke, false), (Way::TakeDown, false)] {
        let stage = Stage::new();
        let owner = less_urgent(&stage.kernel, MORE, 4200);
        stage.kernel.give(&owner, CHILD, CHILD, Rights::all(), 0);
        let speaker = stage.kernel.thread(&stage.kernel.first, MORE + 2, &owner, VirtAddr(0x1000), 1, 0, 0);
        fill(&stage.kernel, &speaker, TABLES);
        let world = &stage.kernel.world;
        let other = stage.kernel.child(MORE + 3, 8, Price { frames: 64, bytes: 1 << 16, spaces: 0 });
        let (seen, answered) = (Rc::new(Cell::new(None)), Rc::new(RefCell::new(None)));
        let (at_urgent, at_slow, mm) = (seen.clone(), answered.clone(), stage.child.mm.clone());
        let urgent = load(move |user| {
            user.ask(Number::MakeNotification, &[2]);
            user.ask(Number::Wait, &[2]);
            at_urgent.set(Some(mapped(&mm)));
        });
        let run = || world.on(1, || turn::turn(world.cpu(1)));
        drop(stage.kernel.thread(&stage.kernel.first, MORE + 4, &other, urgent, 9, 1, 0));
        assert!(run());
        let slow = (way != Way::TakeDown).then(|| {
            let (number, what) = match way {
                Way::Unmap => (Number::Unmap, vec![CHILD, AT]),
                _ => (Number::Revoke, vec![MEMORY]),
            };
            let slow = load(move |user| *at_slow.borrow_mut() = Some(user.ask(number, &what)[0]));
            stage.kernel.thread(&stage.kernel.first, MORE + 5, &owner, slow, 5, 1, 0)
        });
        if way == Way::TakeDown {
            world.on(0, || stage.child.end(world.cpu(0), 1));
        }
        let ended = slow.clone().filter(|_| ends);
        let notification = other.table.get(2).expect("it was made");
        let (wakes, from) = (notification.clone(), world.cpu(0));
        world.at_point(Point::UnmapPart, move || {
            let object::Object::Notification(notification) = wakes.object() else { panic!("no notification") };
            notification.signal(from, 1);
            if let Some(thread) = ended {
                thread.end(from, 7);
            }
        });
        let mut turns = 0;
        while seen.get().is_none() {
            assert!(turns < 8, "the urgent thread does not run; {way:?}");
            run();
            turns += 1;
        }
        assert!(world.hook_ran());
        let left = seen.get().expect("it has run");
        assert!(left + MOST >= TABLES as usize * ENTRIES, "{left} entries were left; {way:?}");
        assert_eq!(*answered.borrow(), None);
        while run() {}
        assert_eq!((stage.left(), stage.child.mm.map.read().len()), (0, 0), "{way:?}, ended: {ends}");
        let answer = (way != Way::TakeDown && !ends).then_some(Status::Done as u64);
        assert_eq!(*answered.borrow(), answer);
        drop((owner, speaker, other, notification, slow));
        stage.finish();
    }
}

/// Many small mappings of a process that ends go in bounded steps as well, in as many gathers as there are times 256 of
/// them.
#[test]
fn many_small_mappings_go_in_bounded_steps() {
    const MANY: u64 = 600;
    let stage = Stage::new();
    let (cpu, world) = (stage.kernel.world.cpu(0), &stage.kernel.world);
    for n in 0..MANY {
        let at = AT + 2 * n * PAGE_SIZE;
        assert_eq!(stage.ask(Number::MapAnonymous, &[CHILD, at, PAGE_SIZE, 3]), Status::Done);
        assert_eq!(world.write(0, &stage.child.mm, VirtAddr(at + 8), n), Ok(()));
    }
    let begun = stage.child.mm.flush_generation();
    let (before, most) = (Cell::new(stage.left()), Cell::new(0));
    let over = world.on(0, || {
        stage.child.end(cpu, 1);
        !object::finish_some(cpu, |_| {
            let now = stage.left();
            most.set(most.get().max(before.replace(now) - now));
            false
        })
    });
    assert!(over && stage.child.is_down() && most.get() <= MOST);
    assert_eq!(stage.child.mm.flush_generation() - begun, MANY.div_ceil(256));
    stage.finish();
}
