//! Revoking and taking down, a part at a time: the work for each thing that goes is the same however many there are,
//! and whoever is more urgent runs in between.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

use kernel::abi::{Number, Rights, Status};
use kernel::addr::{PAGE_SIZE, VirtAddr};
use kernel::object::account::Price;
use kernel::object::process::Process;
use kernel::object::removal::Removal;
use kernel::object::{Object, ObjectError, capability};
use kernel::scenario::Point;
use kernel::task::turn;
use kernel::tlb::transport::TransportId;
use scripted::load;
use tests::host::Untagged;
use tests::kernel_of::{FREE, Kernel};

const AT: u64 = 0x4000_0000;
const FRAMES: usize = 32_768;
const LIMIT: Price = Price { frames: 8192, bytes: 6 << 20, spaces: 0 };
/// In the slot of a child: memory, from which all is derived and with which all is mapped.
const MEMORY: u64 = 1;

type Machine = Kernel<Untagged>;

/// A machine and a child with `slots` slots, which has itself in slot 0 and memory in [`MEMORY`].
fn machine(slots: u32) -> (Machine, Arc<Process<Untagged>>) {
    let kernel = Machine::with(2, FRAMES, 128, Price { frames: 16_000, bytes: 16 << 20, spaces: 8 });
    kernel.world.choose("sync-all", TransportId::Ipi);
    let cpu = kernel.world.cpu(0);
    let child = kernel.world.on(0, || kernel.first.make_child(cpu, FREE as u32, slots, LIMIT, 5));
    let child = child.expect("there is enough");
    kernel.give(&child, 0, FREE, Rights::all(), 0);
    (kernel, child)
}

/// What the capabilities derived from one look like.
#[derive(Clone, Copy, Debug)]
enum Shape {
    /// All derived from the one.
    Fan,
    /// Each derived from the one before.
    Chain,
    /// One below another, and each with one beside it.
    Comb,
}

fn derive(child: &Arc<Process<Untagged>>, shape: Shape, many: u32) {
    let first = MEMORY as u32;
    for n in 1..=many {
        let from = match shape {
            Shape::Fan => first,
            Shape::Chain => first + n - 1,
            Shape::Comb => first + (n - 1) / 2 * 2,
        };
        let node = child.table.get(from).expect("it is there");
        capability::derive(&node, &child.table, first + n, Rights::READ | Rights::WRITE, 0).expect("the slot is free");
    }
}

/// Steps of revoking `many` capabilities of a shape.
fn steps_to_revoke(shape: Shape, many: u32) -> u64 {
    let (kernel, child) = machine(many + 8);
    let speaker = kernel.thread(&kernel.first, FREE + 1, &child, VirtAddr(0x1000), 1, 0, 0);
    assert_eq!(kernel.status(0, &speaker, Number::MakeFrames, &[MEMORY, 1]), Status::Done);
    derive(&child, shape, many);
    let root = child.table.get(MEMORY as u32).expect("it is there");
    let steps = Cell::new(1);
    let cpu = kernel.world.cpu(0);
    let over = kernel.world.on(0, || {
        let mut removal = Removal::revoke(&root).expect("it is alive");
        removal.advance(cpu, || {
            steps.set(steps.get() + 1);
            false
        })
    });
    assert!(over);
    assert!((1..=many).all(|n| child.table.check_free(MEMORY as u32 + n).is_ok()), "{shape:?}: a slot is not empty");
    drop((root, child, speaker));
    kernel.finish(FRAMES);
    steps.get()
}

/// Two steps for one that goes: down to it, and out with it. And one for sixteen that are killed, twice past each.
#[test]
fn a_revocation_takes_as_many_steps_as_descend() {
    for shape in [Shape::Fan, Shape::Chain, Shape::Comb] {
        for many in [64, 512, 4096] {
            let steps = steps_to_revoke(shape, many);
            let most = 2 * u64::from(many) + u64::from(many) / 8 + 8;
            assert!(steps <= most, "{shape:?} of {many}: {steps} steps");
        }
    }
}

/// Each small mapping that goes with its capability is one step.
#[test]
fn undoing_mappings_takes_as_many_steps_as_there_are() {
    let steps = |many: u64| {
        let (kernel, child) = machine(8);
        let speaker = kernel.thread(&kernel.first, FREE + 1, &child, VirtAddr(0x1000), 1, 0, 0);
        assert_eq!(kernel.status(0, &speaker, Number::MakeFrames, &[MEMORY, many]), Status::Done);
        for n in 0..many {
            let at = AT + 2 * n * PAGE_SIZE;
            let status = kernel.status(0, &speaker, Number::Map, &[0, MEMORY, at, n * PAGE_SIZE, PAGE_SIZE, 3]);
            assert_eq!(status, Status::Done, "mapping {n}");
        }
        // Some go by themselves, so that others have changed places in both lists.
        for n in (0..many).step_by(3) {
            assert_eq!(kernel.status(0, &speaker, Number::Unmap, &[0, AT + 2 * n * PAGE_SIZE]), Status::Done);
        }
        let root = child.table.get(MEMORY as u32).expect("it is there");
        let (cpu, steps) = (kernel.world.cpu(0), Cell::new(1));
        kernel.world.on(0, || {
            Removal::revoke(&root).expect("it is alive").advance(cpu, || {
                steps.set(steps.get() + 1);
                false
            })
        });
        let regions = child.mm.map.read().len();
        assert_eq!(regions, 0, "of {many} mappings");
        drop((root, child, speaker));
        kernel.finish(FRAMES);
        (steps.get(), many - many.div_ceil(3))
    };
    for many in [30, 300, 1500] {
        let (steps, undone) = steps(many);
        assert!((undone..undone + 8).contains(&steps), "{undone} mappings: {steps} steps");
    }
}

/// What is deleted with much that depends on it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Dies {
    /// An endpoint, at which threads wait for an answer.
    Called,
    /// One at which they wait for a call.
    Received,
    /// A notification.
    Notification,
}

/// Whoever waits at what is deleted is told one step after the other, and each is; nobody can come to wait since the
/// first.
#[test]
fn those_who_wait_are_told_one_after_the_other() {
    const MANY: usize = 100;
    for dies in [Dies::Called, Dies::Received, Dies::Notification] {
        let (kernel, child) = machine(8);
        let speaker = kernel.thread(&kernel.first, FREE + 1, &child, VirtAddr(0x1000), 1, 0, 0);
        let (make, wait) = match dies {
            Dies::Called => (Number::MakeEndpoint, Number::Call),
            Dies::Received => (Number::MakeEndpoint, Number::Wait),
            Dies::Notification => (Number::MakeNotification, Number::Wait),
        };
        assert_eq!(kernel.status(0, &speaker, make, &[MEMORY]), Status::Done);
        let told = Rc::new(Cell::new(0));
        let (world, cpu) = (&kernel.world, kernel.world.cpu(0));
        let waiter = || {
            let told = told.clone();
            load(move |user| {
                let status = Status::from_number(user.ask(wait, &[MEMORY])[0]);
                if status == Some(Status::Gone) {
                    told.set(told.get() + 1);
                }
            })
        };
        let run = || while world.on(1, || turn::turn(world.cpu(1))) {};
        let threads: Vec<_> =
            (0..MANY).map(|n| kernel.thread(&kernel.first, FREE + 2 + n as u64, &child, waiter(), 5, 1, 0)).collect();
        run();
        assert_eq!(told.get(), 0);
        let node = child.table.get(MEMORY as u32).expect("it is there");
        let (before, most) = (Cell::new(0), Cell::new(0));
        let mut removal = Removal::delete(&node).expect("nobody revokes it").expect("it is there");
        let mut steps = 1;
        while !world.on(0, || removal.advance(cpu, || true)) {
            run();
            most.set(most.get().max(told.get() - before.replace(told.get())));
            steps += 1;
        }
        run();
        assert_eq!((told.get(), most.get()), (MANY, 1), "{dies:?}");
        assert!(steps > MANY && steps < MANY + 8, "{dies:?}: {steps} steps");
        drop((child, speaker, node, removal, threads));
        kernel.finish(FRAMES);
    }
}

/// The pages of memory that is deleted go as many at a time as a table has.
#[test]
fn pages_go_some_at_a_time() {
    let (kernel, child) = machine(8);
    let speaker = kernel.thread(&kernel.first, FREE + 1, &child, VirtAddr(0x1000), 1, 0, 0);
    let ask = |number, arguments: &[u64]| assert_eq!(kernel.status(0, &speaker, number, arguments), Status::Done);
    ask(Number::MakeFrames, &[MEMORY, 4 * 512]);
    ask(Number::Map, &[0, MEMORY, AT, 0, 4 * 512 * PAGE_SIZE, 3]);
    (0..4).for_each(|n| ask(Number::Populate, &[0, AT + n * 512 * PAGE_SIZE, 512 * PAGE_SIZE]));
    ask(Number::Unmap, &[0, AT]);
    let node = child.table.get(MEMORY as u32).expect("it is there");
    let free = || kernel.world.machine().free_frames();
    let (begun, before, most) = (free(), Cell::new(free()), Cell::new(0));
    let mut removal = Removal::delete(&node).expect("nobody revokes it").expect("it is there");
    let over = kernel.world.on(0, || {
        removal.advance(kernel.world.cpu(0), || {
            most.set(most.get().max(free() - before.replace(free())));
            false
        })
    });
    assert!(
        over && most.get() == 512 && free() - begun == 4 * 512,
        "{} at once, {} in all",
        most.get(),
        free() - begun
    );
    drop((child, speaker, node, removal));
    kernel.finish(FRAMES);
}

/// Who removes much.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Remover {
    /// A thread that revokes.
    Thread,
    /// One that is ended meanwhile.
    Ends,
    /// A CPU that takes down a process.
    TakesDown,
}

/// A thread that revokes much makes room for one that is more urgent, is done in the end, and its call is answered; if
/// it is ended meanwhile it is done all the same. So does a CPU that takes down a process.
#[test]
fn the_more_urgent_run_in_between() {
    const MANY: u32 = 500;
    for remover in [Remover::Thread, Remover::Ends, Remover::TakesDown] {
        let (kernel, child) = machine(MANY + 8);
        let speaker = kernel.thread(&kernel.first, FREE + 1, &child, VirtAddr(0x1000), 1, 1, 0);
        assert_eq!(kernel.status(0, &speaker, Number::MakeFrames, &[MEMORY, 1]), Status::Done);
        derive(&child, Shape::Comb, MANY);
        let other = kernel.child(FREE + 2, 8, Price { frames: 64, bytes: 1 << 16, spaces: 0 });
        let left = |child: &Process<Untagged>| {
            (1..=MANY)
                .filter(|n| child.table.check_free(MEMORY as u32 + n) == Err(ObjectError::SlotTaken(MEMORY as u32 + n)))
                .count()
        };
        let (seen, answered) = (Rc::new(Cell::new(None)), Rc::new(Cell::new(None)));
        let (at_urgent, at_slow, its_child) = (seen.clone(), answered.clone(), child.clone());
        let urgent = load(move |user| {
            user.ask(Number::MakeNotification, &[2]);
            user.ask(Number::Wait, &[2]);
            at_urgent.set(Some(left(&its_child)));
        });
        let world = &kernel.world;
        let run = || world.on(1, || turn::turn(world.cpu(1)));
        drop(kernel.thread(&kernel.first, FREE + 3, &other, urgent, 9, 1, 0));
        assert!(run());
        let slow = (remover != Remover::TakesDown).then(|| {
            let slow = load(move |user| at_slow.set(Some(user.ask(Number::Revoke, &[MEMORY])[0])));
            kernel.thread(&kernel.first, FREE + 4, &child, slow, 5, 1, 0)
        });
        if slow.is_none() {
            assert_eq!(kernel.status(0, &speaker, Number::End, &[0, 3]), Status::Done);
        }
        let ended = slow.clone().filter(|_| remover == Remover::Ends);
        let notification = other.table.get(2).expect("it was made");
        let (wakes, from) = (notification.clone(), world.cpu(0));
        world.at_point(Point::RemovalStep, move || {
            let Object::Notification(notification) = wakes.object() else { panic!("no notification") };
            notification.signal(from, 1);
            if let Some(thread) = ended {
                thread.end(from, 7);
            }
        });
        let mut turns = 0;
        while seen.get().is_none() {
            assert!(turns < 8, "the urgent thread does not run");
            run();
            turns += 1;
        }
        assert!(world.hook_ran());
        let then = seen.get().expect("it has run");
        assert!(then > MANY as usize / 2, "{then} of {MANY} were left; {remover:?}");
        assert_eq!(answered.get(), None);
        while run() {}
        assert_eq!(left(&child), 0);
        assert_eq!(answered.get(), (remover == Remover::Thread).then_some(Status::Done as u64));
        drop((child, other, notification, speaker, slow));
        kernel.finish(FRAMES);
    }
}

/// For whoever asks, a process has ended when it is taken down, not when its threads have: what it does on the way out is
/// over by then.
#[test]
fn a_process_has_ended_when_it_is_taken_down() {
    let (kernel, child) = machine(8);
    let asker = kernel.thread(&kernel.first, FREE + 1, &kernel.first, VirtAddr(0x1000), 1, 0, 0);
    let ended = || kernel.ask(0, &asker, Number::Ended, &[FREE]);
    assert_eq!(ended()[..2], [Status::Done as u64, 0]);
    // It has no threads, and nobody has taken it down yet; the CPU that takes a turn next does.
    kernel.world.on(0, || child.end(kernel.world.cpu(0), 7));
    assert!(child.has_ended() && !child.is_down());
    assert_eq!(ended()[..2], [Status::Done as u64, 0]);
    kernel.world.on(1, || turn::turn(kernel.world.cpu(1)));
    assert_eq!(ended()[..3], [Status::Done as u64, 1, 7]);
    drop((child, asker));
    kernel.finish(FRAMES);
}
