//! What a capability has left behind ends with it, what a process has paid for comes back when it ends, and who is to
//! end does: faults that a reading of the kernel found, each as one test.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use kernel::abi::message::{CAPABILITY_WORD, Info, pack};
use kernel::abi::{Number, Rights, Status};
use kernel::addr::{Level, PAGE_SIZE, VirtAddr};
use kernel::ipc::exchange::Outcome;
use kernel::object::account::Price;
use kernel::object::process::Process;
use kernel::syscall;
use kernel::task::turn;
use kernel::tlb::switch;
use scripted::load;
use tests::host::Untagged;
use tests::kernel_of::{FREE, Kernel};
use tests::talk::{ENDPOINT, Log, Talk, heard, send};

const AT: u64 = 0x4000_0000;
const FRAMES: usize = 8192;
const LIMIT: Price = Price { frames: 256, bytes: 1 << 17, spaces: 0 };

type Machine = Kernel<Untagged>;

fn turns(kernel: &Machine, cpu: usize, most: usize) {
    for _ in 0..most {
        if !kernel.world.on(cpu, || turn::turn(kernel.world.cpu(cpu))) {
            return;
        }
    }
}

/// Whoever's capability was revoked has its faults and those of its children go there no more.
#[test]
fn a_revoked_capability_calls_no_pager() {
    let talk = Talk::<Untagged>::new();
    let log = Log::<Status>::default();
    let at_server = log.clone();
    talk.server(1, move |user| {
        let call = heard(user.ask(Number::Wait, &[pack(ENDPOINT as u32, Info::empty())]));
        at_server.borrow_mut().push(call.status);
    });
    talk.run_cpu(1);
    let thread = talk.client(move |user| {
        for (number, arguments) in
            [(Number::Copy, &[ENDPOINT, 6, 3, 0][..]), (Number::SetPager, &[0, 6]), (Number::Revoke, &[ENDPOINT])]
        {
            assert_eq!(user.ask(number, arguments)[0], Status::Done as u64, "{}", number.name());
        }
        user.read(VirtAddr(0x5000_0000));
    });
    talk.kernel.run_in_turn();
    assert_eq!((thread.is_ending(), thread.status()), (true, Status::NotMapped as u64));
    assert!(log.borrow().is_empty(), "the pager was called: {log:?}");
    drop(thread);
    talk.finish();
}

/// What is bound by a capability that was revoked sets no bits any more.
#[test]
fn a_revoked_capability_signals_nothing() {
    let kernel = Machine::pair(FRAMES);
    let child = kernel.child(FREE, 8, LIMIT);
    let (thread, other) =
        (kernel.speaker(FREE + 1, &child), kernel.thread(&kernel.first, FREE + 2, &child, VirtAddr(0x1000), 1, 0, 0));
    kernel.give(&child, 0, FREE + 2, Rights::all(), 0);
    let status = |number, arguments: &[u64]| kernel.status(0, &thread, number, arguments);
    for revoked in [false, true] {
        assert_eq!(status(Number::MakeNotification, &[1]), Status::Done);
        assert_eq!(status(Number::Copy, &[1, 2, 2, 0]), Status::Done);
        assert_eq!(status(Number::Bind, &[0, 2, 5]), Status::Done);
        if revoked {
            assert_eq!(status(Number::Revoke, &[1]), Status::Done);
            assert_eq!(status(Number::End, &[0, 7]), Status::Done);
            turns(&kernel, 0, 4);
            let words = [Number::Wait as u64, 1, 0, 0, 0, 0, 0, 0];
            let waits = kernel.world.on(0, || syscall::handle(kernel.world.cpu(0), &thread, words));
            assert_eq!(waits, Outcome::Waits, "a bit was set");
        } else {
            assert_eq!(status(Number::Delete, &[1]), Status::Done);
        }
    }
    drop((child, thread, other));
    kernel.finish(FRAMES);
}

/// Two children that know each other: what the first process has in use with both, and the threads that speak for them.
struct Pair {
    kernel: Machine,
    one: Arc<Process<Untagged>>,
    two: Arc<Process<Untagged>>,
    /// In use without `one`.
    without: Price,
}

impl Pair {
    /// `one` has a capability to `two` in its slot 0 that allows everything.
    fn new() -> Pair {
        let kernel = Machine::pair(FRAMES);
        let two = kernel.child(FREE, 8, LIMIT);
        kernel.endpoint(FREE + 1);
        kernel.give(&two, ENDPOINT, FREE + 1, Rights::all(), 0);
        let without = kernel.first.account.used();
        let one = kernel.child(FREE + 2, 8, LIMIT);
        kernel.give(&one, 0, FREE, Rights::all(), 0);
        Pair { kernel, one, two, without }
    }

    /// `one` ends: everything that the first process had given it comes back.
    fn one_ends(self, slots: &[u64], also: Price) {
        let Pair { kernel, one, two, without } = self;
        let first = kernel.first.clone();
        let delete = |slot: u64| {
            let node = first.table.get(slot as u32).expect("it is there");
            kernel.world.on(0, || kernel::object::capability::delete(kernel.world.cpu(0), &node)).expect("it may go");
        };
        slots.iter().copied().for_each(delete);
        drop(one);
        delete(FREE + 2);
        kernel.run_in_turn();
        assert!(!two.has_ended());
        assert_eq!(first.account.used(), without.and(also), "the account of a process that has ended is not whole");
        drop((first, two));
        kernel.finish(FRAMES);
    }
}

/// A message that nobody receives, with a capability in it, does not keep the object: whoever made that ends, and its
/// account comes back.
#[test]
fn a_message_on_its_way_keeps_no_object() {
    let pair = Pair::new();
    let one = pair.kernel.speaker(FREE + 3, &pair.one);
    let ask = |number, arguments: &[u64]| pair.kernel.status(0, &one, number, arguments);
    assert_eq!(ask(Number::MakeFrames, &[1, 8]), Status::Done);
    assert_eq!(ask(Number::Grant, &[0, 3, 1, 31, 0]), Status::Done);
    let program = load(move |user| {
        send(user, Number::Call, ENDPOINT, Info::CAPABILITY, {
            let mut words = [0; 6];
            words[CAPABILITY_WORD] = 3 | 1 << 32;
            words
        });
    });
    let two = pair.kernel.thread(&pair.kernel.first, FREE + 4, &pair.two, program, 1, 0, 0);
    turns(&pair.kernel, 0, 100);
    let also = kernel::object::thread::price::<Untagged>();
    drop((one, two));
    pair.one_ends(&[FREE + 3], also);
}

/// Memory that a stranger has mapped in a process goes when the stranger does.
#[test]
fn what_a_stranger_maps_goes_with_it() {
    let pair = Pair::new();
    let one = pair.kernel.speaker(FREE + 3, &pair.one);
    assert_eq!(pair.kernel.status(0, &one, Number::MapAnonymous, &[0, AT, 4 * PAGE_SIZE, 3]), Status::Done);
    let mm = pair.two.mm.clone();
    pair.kernel.world.on(1, || switch::load(pair.kernel.world.cpu(1), &mm));
    assert_eq!(pair.kernel.world.write(1, &mm, VirtAddr(AT + 8), 5), Ok(()));
    drop((one, mm));
    pair.one_ends(&[FREE + 3], Price::NOTHING);
}

/// A thread that is made less urgent than one that never rests, and then ended, ends nevertheless; and one that is made
/// more urgent while it waits for the CPU gets it.
#[test]
fn priorities_count_at_once() {
    let kernel = Machine::pair(FRAMES);
    let (busy, low, high) =
        (kernel.child(FREE, 8, LIMIT), kernel.child(FREE + 1, 8, LIMIT), kernel.child(FREE + 2, 8, LIMIT));
    let over = Rc::new(Cell::new(false));
    let stop = over.clone();
    let spins = load(move |user| {
        while !stop.get() {
            user.pause();
        }
    });
    drop(kernel.thread(&kernel.first, FREE + 3, &busy, spins, 5, 0, 0));
    turns(&kernel, 0, 2);
    let log = Rc::new(RefCell::new(Vec::new()));
    let waits = |name: &'static str| {
        let log = log.clone();
        load(move |_| log.borrow_mut().push(name))
    };
    drop(kernel.thread(&kernel.first, FREE + 4, &low, waits("low"), 7, 0, 0));
    drop(kernel.thread(&kernel.first, FREE + 5, &high, waits("high"), 3, 0, 0));
    let first = kernel.first.clone();
    let manager = kernel.speaker(FREE + 6, &first);
    let status = |number, arguments: &[u64]| kernel.status(1, &manager, number, arguments);
    assert_eq!(status(Number::SetPriority, &[FREE + 4, 1]), Status::Done);
    turns(&kernel, 0, 4);
    assert!(log.borrow().is_empty(), "one that is less urgent ran: {log:?}");
    assert_eq!(status(Number::SetPriority, &[FREE + 5, 6]), Status::Done);
    turns(&kernel, 0, 2);
    assert_eq!(*log.borrow(), ["high"]);
    assert_eq!(status(Number::End, &[FREE + 4, 9]), Status::Done);
    // Too late to keep it from ending.
    assert_eq!(status(Number::SetPriority, &[FREE + 4, 0]), Status::Done);
    turns(&kernel, 0, 4);
    assert!(low.has_ended(), "it is kept from ending by one that never rests");
    assert_eq!((low.status(), log.borrow().len()), (9, 1));
    over.set(true);
    drop((busy, low, high, first, manager));
    kernel.finish(FRAMES);
}

/// What a revocation takes away can be found until nothing of it is mapped any more, and what is being revoked is not
/// deleted under its feet: when a revocation is done, all is done.
#[test]
fn a_revocation_is_done_when_it_says_so() {
    let kernel = Machine::pair(FRAMES);
    let child = kernel.child(FREE, 8, LIMIT);
    kernel.give(&child, 0, FREE, Rights::all(), 0);
    let first = kernel.first.clone();
    let (thread, theirs) = (kernel.speaker(FREE + 1, &first), kernel.speaker(FREE + 2, &child));
    let status = |number, arguments: &[u64]| kernel.status(0, &thread, number, arguments);
    assert_eq!(status(Number::MakeFrames, &[10, 4]), Status::Done);
    assert_eq!(status(Number::Copy, &[10, 11, 31, 0]), Status::Done);
    let places = [AT, AT + (1 << 21)];
    for (slot, at) in [2, 3].into_iter().zip(places) {
        assert_eq!(status(Number::Grant, &[FREE, slot, 11, 3, 0]), Status::Done);
        assert_eq!(kernel.status(1, &theirs, Number::Map, &[0, slot, at, 0, PAGE_SIZE, 3]), Status::Done);
    }
    kernel.world.on(1, || switch::load(kernel.world.cpu(1), &child.mm));
    for at in places {
        assert_eq!(kernel.world.write(1, &child.mm, VirtAddr(at + 8), 1), Ok(()));
    }
    // The one that was derived last is the first to go.
    let seen = Rc::new(RefCell::new(None));
    let (seen_then, table) = (seen.clone(), child.table.clone());
    let (cpu, deleter) = (kernel.world.cpu(1), thread.clone());
    let at = VirtAddr(places[1]);
    let pmd = child.mm.table_at(Level::Pmd, at).expect("it was touched");
    kernel.world.after_load(pmd, Level::Pmd, at, move || {
        let words = [Number::Delete as u64, 11, 0, 0, 0, 0, 0, 0];
        let answer = tests::host::run_on(1, || syscall::handle(cpu, &deleter, words));
        let Outcome::Answer(answer) = answer else { unreachable!("a deletion does not wait") };
        *seen_then.borrow_mut() = Some((table.check_free(3).is_err(), Status::from_number(answer[0])));
    });
    assert_eq!(status(Number::Revoke, &[11]), Status::Done);
    for at in places {
        assert!(kernel.world.read(1, &child.mm, VirtAddr(at + 8)).is_err(), "still mapped at {at:#x}");
    }
    assert_eq!(seen.take(), Some((true, Some(Status::Busy))));
    assert_eq!(status(Number::Delete, &[11]), Status::Done);
    drop((child, thread, theirs, first));
    kernel.finish(FRAMES);
}

/// Numbers of address spaces are not used again, by which CPUs say what they have loaded: when all were used there are
/// no more. Files use none of them up.
#[test]
fn numbers_of_address_spaces_run_out_and_are_not_used_again() {
    let kernel = Machine::pair(FRAMES);
    let first = kernel.first.clone();
    let thread = kernel.speaker(FREE, &first);
    let status = |number, arguments: &[u64]| kernel.status(0, &thread, number, arguments);
    let next = &kernel.world.machine().next_mm;
    next.store((1 << 30) - 1, Ordering::Relaxed);
    let make = |slot| status(Number::MakeProcess, &[slot, 4, 16, 1 << 12, 0, 3]);
    assert_eq!(make(10), Status::Done);
    for slot in 12..16 {
        assert_eq!(status(Number::MakeFrames, &[slot, 1]), Status::Done);
    }
    assert_eq!((make(11), make(11)), (Status::OutOfMemory, Status::OutOfMemory));
    drop((thread, first));
    kernel.finish(FRAMES);
}
