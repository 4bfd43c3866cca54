//! What hostile programs could do to the kernel or to others: faults that an attack on it found, each as one test.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

use kernel::abi::message::{Info, pack};
use kernel::abi::{Number, Rights, Status};
use kernel::addr::{PAGE_SIZE, VirtAddr};
use kernel::object::account::Price;
use kernel::object::interrupt::Interrupt;
use kernel::object::process::Process;
use kernel::object::removal::Removal;
use kernel::object::{Object, ObjectError, capability};
use kernel::scenario::Point;
use kernel::smp::cpu::Cpu;
use kernel::task::turn;
use scripted::load;
use tests::host::Untagged;
use tests::kernel_of::{FREE, Kernel};
use tests::talk::{ENDPOINT, IN, OUT, Talk, fill, heard, long, send};

const AT: u64 = 0x4000_0000;
const FRAMES: usize = 8192;
const LIMIT: Price = Price { frames: 1600, bytes: 1 << 16, spaces: 0 };

type Machine = Kernel<Untagged>;

fn turns(kernel: &Machine, cpu: usize) {
    while kernel.world.on(cpu, || turn::turn(kernel.world.cpu(cpu))) {}
}

/// The timer of `cpu` fires, and whoever wants to runs there.
fn tick(kernel: &Machine, cpu: usize) {
    kernel.world.on(cpu, kernel::upcall::timer::<Untagged>);
    turns(kernel, cpu);
}

/// A server and its client: the first process has both, and had `without` in use before there was a server.
struct Serves {
    kernel: Machine,
    client: Arc<Process<Untagged>>,
    server: Arc<Process<Untagged>>,
    without: Price,
}

impl Serves {
    fn new() -> Serves {
        let kernel = Machine::pair(FRAMES);
        let client = kernel.child(FREE, 8, LIMIT);
        let without = kernel.first.account.used();
        let server = kernel.child(FREE + 1, 8, LIMIT);
        Serves { kernel, client, server, without }
    }

    /// The server is deleted, and its account comes back whole, whatever its client does.
    fn ends(self, also: Price) {
        self.ends_and(also, |_| {});
    }

    /// The same; then `more` is done.
    fn ends_and(self, also: Price, more: impl FnOnce(&'static Cpu<Untagged>)) {
        let Serves { kernel, client, server, without } = self;
        let original = kernel.first.table.get(FREE as u32 + 1).expect("it is there");
        drop(server);
        kernel.world.on(0, || capability::delete(kernel.world.cpu(0), &original)).expect("it may go");
        drop(original);
        turns(&kernel, 0);
        assert!(!client.has_ended());
        assert_eq!(kernel.first.account.used(), without.and(also), "what the server cost does not come back");
        kernel.world.on(0, || more(kernel.world.cpu(0)));
        drop(client);
        kernel.finish(FRAMES);
    }
}

/// A client that has called a server the short way, and calls nobody since, does not keep the server's account.
#[test]
fn a_client_keeps_no_endpoint() {
    let it = Serves::new();
    let maker = it.kernel.speaker(FREE + 2, &it.server);
    assert_eq!(it.kernel.status(0, &maker, Number::MakeEndpoint, &[1]), Status::Done);
    let node = it.server.table.get(1).expect("it was made");
    capability::derive(&node, &it.client.table, 1, Rights::all(), 0).expect("it is free");
    drop(node);
    let serves = load(|user| {
        let mut call = heard(user.ask(Number::Wait, &[pack(1, Info::empty())]));
        loop {
            call = send(user, Number::ReplyWait, 1, Info::empty(), call.words);
        }
    });
    let calls = load(|user| {
        for _ in 0..4 {
            assert_eq!(send(user, Number::Call, 1, Info::empty(), [1; 6]).status, Status::Done);
        }
        user.ask(Number::MakeNotification, &[2]);
        user.ask(Number::Wait, &[2]);
    });
    let (first, price) = (it.kernel.first.clone(), kernel::object::thread::price::<Untagged>());
    drop(it.kernel.thread(&first, FREE + 3, &it.server, serves, 5, 0, 0));
    turns(&it.kernel, 0);
    drop(it.kernel.thread(&first, FREE + 4, &it.client, calls, 5, 0, 0));
    turns(&it.kernel, 0);
    for slot in [FREE + 2, FREE + 3] {
        let original = first.table.get(slot as u32).expect("it is there");
        it.kernel.world.on(0, || capability::delete(it.kernel.world.cpu(0), &original)).expect("it may go");
    }
    drop((maker, first));
    turns(&it.kernel, 1);
    it.ends(price);
}

/// A thread that a stranger has made in a process goes with the process, whoever has the capability to the thread.
#[test]
fn a_stranger_keeps_no_process() {
    let it = Serves::new();
    it.kernel.give(&it.client, 0, FREE + 1, Rights::all(), 0);
    let stranger = it.kernel.speaker(FREE + 2, &it.client);
    let made = it.kernel.status(0, &stranger, Number::MakeThread, &[0, 1, 0x1000, 0x2000, 0, 1]);
    assert_eq!(made, Status::Done);
    drop(stranger);
    it.ends(kernel::object::thread::price::<Untagged>());
}

/// Nobody takes down what others have ended: neither by a system call that ends nobody, nor by one that ends another.
#[test]
fn who_asks_for_the_time_takes_nobody_down() {
    let kernel = Machine::pair(FRAMES);
    let child = kernel.child(FREE, 8, LIMIT);
    let asker = kernel.speaker(FREE + 1, &kernel.first.clone());
    kernel.world.on(0, || child.end(kernel.world.cpu(0), 7));
    let mine = kernel.child(FREE + 2, 8, Price { spaces: 1, ..LIMIT });
    let its =
        kernel.world.on(0, || mine.make_child(kernel.world.cpu(0), 1, 1, Price::NOTHING, 1)).expect("memory suffices");
    assert_eq!(kernel.status(0, &asker, Number::Clock, &[]), Status::Done);
    assert!(!child.is_down());
    drop((mine.clone(), its));
    assert_eq!(kernel.status(0, &asker, Number::End, &[FREE + 2, 7]), Status::Done);
    assert!(mine.is_down() && mine.account.used() == Price::NOTHING && !child.is_down());
    drop(mine);
    drop((child, asker));
    kernel.finish(FRAMES);
}

/// Who receives, and refuses one message after the other since it has no room for them, lets others run who are more
/// urgent.
#[test]
fn who_refuses_messages_makes_room() {
    const CALLERS: u64 = 20;
    let kernel = Machine::pair(FRAMES);
    let child = kernel.child(FREE, 8, LIMIT);
    kernel.endpoint(FREE + 1);
    kernel.give(&child, 1, FREE + 1, Rights::all(), 0);
    let own = kernel::object::payer::Payer::own(&child.account);
    child.map_anonymous(own, VirtAddr(AT), PAGE_SIZE, Rights::READ | Rights::WRITE).expect("it is free");
    let (refused, seen) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(false)));
    let receiver = kernel.speaker(FREE + 2, &child);
    assert_eq!(kernel.status(0, &receiver, Number::MakeNotification, &[2]), Status::Done);
    let bits = child.table.get(2).expect("it was made");
    for n in 0..CALLERS {
        let refused = refused.clone();
        let calls = load(move |user| {
            let answer = send(user, Number::Call, 1, Info::LONG, [0, 0, 0, 0, AT, 8]);
            assert_eq!(answer.status, Status::TooLong);
            refused.set(refused.get() + 1);
        });
        drop(kernel.thread(&kernel.first, FREE + 6 + n, &child, calls, 5, 0, 0));
    }
    turns(&kernel, 0);
    let at_urgent = seen.clone();
    let urgent = load(move |user| {
        user.ask(Number::Wait, &[2]);
        at_urgent.set(true);
    });
    drop(kernel.thread(&kernel.first, FREE + 4, &child, urgent, 9, 1, 0));
    let run = || kernel.world.on(1, || turn::turn(kernel.world.cpu(1)));
    assert!(run());
    let got = Rc::new(Cell::new(None));
    let at_receiver = got.clone();
    let receives = load(move |user| at_receiver.set(Some(heard(user.ask(Number::Wait, &[1])).status)));
    drop(kernel.thread(&kernel.first, FREE + 5, &child, receives, 5, 1, 0));
    let (wakes, cpu) = (bits.clone(), kernel.world.cpu(0));
    kernel.world.at_point(Point::Refused, move || {
        let Object::Notification(bits) = wakes.object() else { panic!("no notification") };
        bits.signal(cpu, 1);
    });
    for _ in 0..8 {
        if !seen.get() {
            run();
        }
    }
    assert!(seen.get() && kernel.world.hook_ran(), "the urgent thread does not run");
    turns(&kernel, 0);
    assert!(refused.get() < CALLERS / 2, "{} callers were refused meanwhile", refused.get());
    turns(&kernel, 1);
    turns(&kernel, 0);
    assert_eq!((refused.get(), got.get()), (CALLERS, None), "all are refused in the end, and it waits");
    drop((child, receiver, bits));
    kernel.finish(FRAMES);
}

/// A wait ends by the clock of the CPU where it began, though the thread waited on another before.
#[test]
fn a_wait_ends_by_its_own_clock() {
    let kernel = Machine::pair(FRAMES);
    for _ in 0..1000 {
        tick(&kernel, 1);
    }
    let child = kernel.child(FREE, 8, LIMIT);
    let status = Rc::new(Cell::new(None));
    let seen = status.clone();
    let program = load(move |user| {
        user.ask(Number::SetPatience, &[4]);
        user.ask(Number::MakeNotification, &[1]);
        user.ask(Number::Wait, &[1]);
        user.ask(Number::Migrate, &[0, 1]);
        seen.set(Some(user.ask(Number::Wait, &[1])[0]));
    });
    let thread = kernel.thread(&kernel.first, FREE + 1, &child, program, 5, 0, 0);
    kernel.give(&child, 0, FREE + 1, Rights::all(), 0);
    turns(&kernel, 0);
    let node = child.table.get(1).expect("it was made");
    let Object::Notification(bits) = node.object() else { panic!("no notification") };
    kernel.world.on(0, || bits.signal(kernel.world.cpu(0), 1));
    turns(&kernel, 0);
    turns(&kernel, 1);
    assert_eq!((thread.home().0, status.get()), (1, None));
    for _ in 0..8 {
        tick(&kernel, 0);
        tick(&kernel, 1);
    }
    assert_eq!(status.get(), Some(Status::TimedOut as u64));
    drop((child, thread, node));
    kernel.finish(FRAMES);
}

/// A thread goes to another CPU and begins to wait there while the one where it waited before looks at waits: it is in
/// some CPU's list all the same.
#[test]
fn a_wait_is_in_some_list() {
    let kernel = Machine::pair(FRAMES);
    let child = kernel.child(FREE, 8, LIMIT);
    let status = Rc::new(Cell::new(None));
    let seen = status.clone();
    let program = load(move |user| {
        user.ask(Number::SetPatience, &[4]);
        user.ask(Number::MakeNotification, &[1]);
        user.ask(Number::Wait, &[1]);
        user.ask(Number::SetPatience, &[0]);
        user.ask(Number::Migrate, &[0, 0]);
        user.ask(Number::SetPatience, &[4]);
        seen.set(Some(user.ask(Number::Wait, &[1])[0]));
    });
    let thread = kernel.thread(&kernel.first, FREE + 1, &child, program, 5, 1, 0);
    kernel.give(&child, 0, FREE + 1, Rights::all(), 0);
    turns(&kernel, 1);
    let node = child.table.get(1).expect("it was made");
    let Object::Notification(bits) = node.object() else { panic!("no notification") };
    kernel.world.on(0, || bits.signal(kernel.world.cpu(0), 1));
    turns(&kernel, 1);
    assert_eq!((thread.home().0, status.get()), (0, None));
    kernel.world.on(1, kernel::upcall::timer::<Untagged>);
    let cpu = kernel.world.cpu(0);
    kernel.world.at_point(Point::DeadlineRead, move || while turn::turn(cpu) {});
    turns(&kernel, 1);
    assert!(kernel.world.hook_ran());
    for _ in 0..8 {
        tick(&kernel, 0);
        tick(&kernel, 1);
    }
    assert_eq!(status.get(), Some(Status::TimedOut as u64));
    drop((child, thread, node));
    kernel.finish(FRAMES);
}

/// An answer that its receiver does not look at keeps nothing of the thread that has sent it.
#[test]
fn an_answer_on_its_way_keeps_no_thread() {
    let talk = Talk::<Untagged>::new();
    let server = talk.server(1, |user| {
        heard(user.ask(Number::Wait, &[pack(ENDPOINT as u32, Info::empty())]));
        fill(user, OUT, 8, 22);
        send(user, Number::ReplyWait, ENDPOINT, Info::LONG, long(OUT, 8));
    });
    talk.run_cpu(1);
    let got = Rc::new(Cell::new(None));
    let at_client = got.clone();
    talk.client(move |user| {
        assert_eq!(user.ask(Number::SetBuffer, &[IN.0, PAGE_SIZE, u64::MAX])[0], Status::Done as u64);
        at_client.set(Some(send(user, Number::Call, ENDPOINT, Info::EXPECT_LONG, [0; 6]).status));
    });
    talk.run_cpu(0);
    talk.run_cpu(1);
    // It waits until the client has looked.
    assert_eq!((got.get(), Arc::weak_count(&server)), (None, 0));
    talk.run_cpu(0);
    assert_eq!(got.get(), Some(Status::Done));
    talk.run_cpu(1);
    drop(server);
    talk.finish();
}

/// A removal that a stranger has begun and does not go on with keeps nothing of what it removes.
#[test]
fn a_removal_that_stands_still_keeps_nothing() {
    for deletes in [false, true] {
        let it = Serves::new();
        let maker = it.kernel.speaker(FREE + 2, &it.server);
        assert_eq!(it.kernel.status(0, &maker, Number::MakeFrames, &[1, 8]), Status::Done);
        let node = it.server.table.get(1).expect("it was made");
        let derived = capability::derive(&node, &it.client.table, 1, Rights::all(), 0).expect("it is free");
        let below = capability::derive(&derived, &it.client.table, 2, Rights::all(), 0).expect("it is free");
        let mut removal = if deletes {
            Removal::delete(&derived).expect("nobody revokes it").expect("it is there")
        } else {
            Removal::revoke(&derived).expect("it is there")
        };
        drop((node, derived, below));
        assert!(!it.kernel.world.on(0, || removal.advance(it.kernel.world.cpu(0), || true)));
        let original = it.kernel.first.table.get(FREE as u32 + 2).expect("it is there");
        it.kernel.world.on(0, || capability::delete(it.kernel.world.cpu(0), &original)).expect("it may go");
        drop((maker, original));
        turns(&it.kernel, 1);
        it.ends_and(Price::NOTHING, |cpu| assert!(removal.advance(cpu, || false)));
    }
}

/// Who binds a line by a capability that another thread has just deleted with the line is told so, and nobody's CPU
/// ticks for it.
#[test]
fn nobody_binds_a_line_that_has_ended() {
    let kernel = Machine::pair(FRAMES);
    let cpu = kernel.world.cpu(0);
    let asker = kernel.speaker(FREE, &kernel.first.clone());
    let interrupt = Interrupt::new(&kernel.first.account, 1).expect("nobody has it");
    let installed =
        capability::install(cpu, &kernel.first.table, FREE as u32 + 1, Object::Interrupt(interrupt.clone()));
    let line = installed.expect("it is empty");
    assert_eq!(kernel.status(0, &asker, Number::MakeNotification, &[FREE + 2]), Status::Done);
    assert_eq!(kernel.status(0, &asker, Number::Bind, &[FREE + 1, FREE + 2, 1]), Status::Done);
    let lines = &kernel.world.machine().objects.lines;
    assert!(lines.is_wanted(1));
    assert_eq!(kernel.status(0, &asker, Number::Delete, &[FREE + 1]), Status::Done);
    let bits = kernel.first.table.get(FREE as u32 + 2).expect("it was made");
    assert_eq!(kernel.world.on(0, || interrupt.bind(cpu, &line, &bits, 1)), Err(ObjectError::Gone));
    assert!(!lines.is_wanted(1));
    drop((asker, interrupt, line, bits));
    kernel.finish(FRAMES);
}
