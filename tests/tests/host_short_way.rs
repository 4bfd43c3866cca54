//! The short way of system calls, on the machine of the host: that it is taken where it may be, by priority too, and
//! what becomes of a caller that ends while it waits there.

use kernel::abi::message::{Info, pack};
use std::cell::Cell;
use std::rc::Rc;

use kernel::abi::{Number, Rights, Status};
use kernel::addr::VirtAddr;
use kernel::arch::Arch;
use kernel::object::account::Price;
use kernel::tlb::switch::{self, KERNEL_ASID};
use scripted::User;
use tests::host::{Host, Tagged, Untagged, run_on};
use tests::kernel_of::FREE;
use tests::talk::{ENDPOINT, Log, OUT, Talk, heard, send};

const CALLS: u64 = 50;

/// Where a program notes something.
const NOTE: VirtAddr = VirtAddr(OUT.0 + 8);

/// Answers every call with its words and one more, and looks after each whether its memory is its own.
fn serve(user: &User<'_>) {
    let mut call = heard(user.ask(Number::Wait, &[pack(ENDPOINT as u32, Info::empty())]));
    for n in 0.. {
        assert_eq!(user.read(NOTE), n, "this is another's memory");
        user.write(NOTE, n + 1);
        let answer = call.words.map(|word| word + 1);
        call = send(user, Number::ReplyWait, ENDPOINT, Info::empty(), answer);
    }
}

/// How many turns CPU 0 takes until a client there has made [`CALLS`] calls to a server on `cpu`, in its own process or
/// in another, with these priorities.
fn turns<A: Arch>(between: bool, cpu: u16, client: u8, server: u8) -> usize {
    let talk = Talk::<A>::new();
    let log = Log::<u64>::default();
    let seen = log.clone();
    talk.thread(if between { &talk.server } else { &talk.client }, cpu, server, serve);
    talk.run_cpu(cpu.into());
    talk.thread(&talk.client, 0, client, move |user| {
        for n in 0..CALLS {
            if between {
                assert_eq!(user.read(NOTE), n * 1000, "this is another's memory");
                user.write(NOTE, (n + 1) * 1000);
            }
            let answer = send(user, Number::Call, ENDPOINT, Info::empty(), [n, 2, 3, 4, 5, 6]);
            assert_eq!((answer.status, answer.words), (Status::Done, [n + 1, 3, 4, 5, 6, 7]));
            seen.borrow_mut().push(answer.words[0]);
        }
    });
    let mut turns = 0;
    while log.borrow().len() < CALLS as usize {
        let world = &talk.kernel.world;
        if world.on(0, || kernel::task::turn::turn(world.cpu(0))) {
            turns += 1;
        } else {
            talk.run_cpu(cpu.into());
        }
    }
    talk.finish();
    turns
}

/// A short call by a capability that only receives is refused, and so is an answer with one that only calls, on the
/// short way as on the long one.
#[test]
fn the_short_way_looks_at_rights() {
    let talk = Talk::<Untagged>::new();
    let log = Log::<Status>::default();
    let (at_server, at_client) = (log.clone(), log.clone());
    let copy = |user: &User<'_>, rights: Rights| {
        let made = user.ask(Number::Copy, &[ENDPOINT, ENDPOINT + 1, rights.bits().into(), 0]);
        assert_eq!(made[0], Status::Done as u64);
    };
    talk.server(0, move |user| {
        copy(user, Rights::WRITE);
        user.ask(Number::Wait, &[ENDPOINT]);
        let answer = send(user, Number::ReplyWait, ENDPOINT + 1, Info::empty(), [1; 6]);
        at_server.borrow_mut().push(answer.status);
        send(user, Number::ReplyWait, ENDPOINT, Info::empty(), [2; 6]);
    });
    talk.run_cpu(0);
    talk.client(move |user| {
        copy(user, Rights::READ);
        let refused = send(user, Number::Call, ENDPOINT + 1, Info::empty(), [0; 6]);
        at_client.borrow_mut().push(refused.status);
        let answer = send(user, Number::Call, ENDPOINT, Info::empty(), [0; 6]);
        assert_eq!(answer.words, [2; 6], "the answer that was refused came nevertheless");
        at_client.borrow_mut().push(answer.status);
    });
    talk.run_cpu(0);
    assert_eq!(*log.borrow(), [Status::Forbidden, Status::Forbidden, Status::Done]);
    talk.finish();
}

/// A call whose server waits on the same CPU, in the same process or in another, and its answer, take no turn: the CPU
/// goes from one thread to the other. Across CPUs each answer takes one.
#[test]
fn calls_on_one_cpu_take_no_turns() {
    for between in [false, true] {
        for (client, server) in [(5, 5), (5, 9), (9, 5)] {
            // The first call may find nobody, or a server that nobody has called. Pages are brought without a turn.
            let which = format!("priorities {client} and {server}, between processes: {between}");
            assert!(turns::<Untagged>(between, 0, client, server) <= 3, "{which}");
            assert!(turns::<Tagged>(between, 0, client, server) <= 3, "{which}, tagged");
        }
        assert!(turns::<Untagged>(between, 1, 5, 5) as u64 >= CALLS);
    }
}

/// A machine with six tags.
type Short = Host<7, true>;

/// Where the tag of the one that would go on was taken meanwhile the short way does not wait for another: messages take
/// the long way, and arrive.
#[test]
fn a_lost_tag_is_the_long_way() {
    let talk = Talk::<Short>::new();
    let limit = Price { frames: 16, bytes: 1 << 12, spaces: 0 };
    let others: Vec<_> = (0..8).map(|i| talk.kernel.child(20 + i, 0, limit).mm.clone()).collect();
    let cpu = talk.kernel.world.cpu(1);
    // CPU 1 loads so many others that whoever waits loses its tag.
    let steal = Rc::new(move || others.iter().for_each(|mm| run_on(1, || switch::load(cpu, mm))));
    let (at_server, at_client) = (steal.clone(), steal);
    let log = Log::<(u64, u64)>::default();
    let seen = log.clone();
    talk.thread(&talk.server, 0, 5, move |user| {
        user.write(NOTE, 7);
        let mut call = heard(user.ask(Number::Wait, &[pack(ENDPOINT as u32, Info::empty())]));
        for n in 0.. {
            if n % 3 == 1 {
                at_server();
            }
            let answer = [call.words[0] + user.read(NOTE), 0, 0, 0, 0, 0];
            call = send(user, Number::ReplyWait, ENDPOINT, Info::empty(), answer);
        }
    });
    talk.run_cpu(0);
    let (client, server) = (talk.client.mm.clone(), talk.server.mm.clone());
    let lost = Rc::new(Cell::new([0, 0]));
    let losses = lost.clone();
    talk.client(move |user| {
        user.write(NOTE, 8);
        for n in 0..12 {
            if n % 3 == 2 {
                at_client();
            }
            let before = [&client, &server].map(|mm| u64::from(mm.asid() == KERNEL_ASID));
            losses.set([losses.get()[0] + before[0], losses.get()[1] + before[1]]);
            let answer = send(user, Number::Call, ENDPOINT, Info::empty(), [n, 0, 0, 0, 0, 0]);
            seen.borrow_mut().push((answer.words[0], user.read(NOTE)));
        }
    });
    talk.run_cpu(0);
    assert_eq!(*log.borrow(), (0..12).map(|n| (n + 7, 8)).collect::<Vec<_>>());
    assert!(lost.get()[1] >= 4, "the server did not lose its tag: {lost:?}");
    talk.kernel.world.on(1, || switch::unload(cpu));
    talk.finish();
}

/// Who is more urgent than the one that would go on, and ready, runs first.
#[test]
fn nobody_is_passed_over() {
    let talk = Talk::<Untagged>::new();
    let log = Log::<&'static str>::default();
    let (at_client, at_server, at_third) = (log.clone(), log.clone(), log.clone());
    talk.thread(&talk.client, 0, 7, move |user| {
        assert_eq!(user.ask(Number::MakeNotification, &[7])[0], Status::Done as u64);
        assert_eq!(user.ask(Number::Wait, &[7])[1], 1);
        at_third.borrow_mut().push("third");
    });
    talk.run_cpu(0);
    talk.thread(&talk.client, 0, 9, move |user| {
        let call = heard(user.ask(Number::Wait, &[pack(ENDPOINT as u32, Info::empty())]));
        assert_eq!(user.ask(Number::Signal, &[5, 1])[0], Status::Done as u64);
        at_server.borrow_mut().push("server");
        send(user, Number::ReplyWait, ENDPOINT, Info::empty(), call.words);
    });
    let notification = talk.client.table.get(7).expect("it was made");
    let given = kernel::object::capability::derive(&notification, &talk.client.table, 5, Rights::WRITE, 0);
    drop((given.expect("the slot is free"), notification));
    talk.run_cpu(0);
    talk.thread(&talk.client, 0, 5, move |user| {
        send(user, Number::Call, ENDPOINT, Info::empty(), [0; 6]);
        at_client.borrow_mut().push("client");
    });
    talk.run_cpu(0);
    assert_eq!(*log.borrow(), ["server", "third", "client"]);
    talk.finish();
}

/// A thread whose waits begin to end by time is not kept by an answer that never comes, though its calls took the short
/// way before.
#[test]
fn patience_counts_after_short_calls() {
    let talk = Talk::<Untagged>::new();
    let log = Log::<Status>::default();
    let seen = log.clone();
    talk.thread(&talk.client, 0, 5, |user| {
        let mut call = heard(user.ask(Number::Wait, &[pack(ENDPOINT as u32, Info::empty())]));
        for _ in 0..3 {
            call = send(user, Number::ReplyWait, ENDPOINT, Info::empty(), call.words);
        }
        user.ask(Number::MakeNotification, &[7]);
        user.ask(Number::Wait, &[7]);
    });
    talk.run_cpu(0);
    talk.client(move |user| {
        for n in 0..4 {
            if n == 3 {
                user.ask(Number::SetPatience, &[1]);
            }
            let answer = send(user, Number::Call, ENDPOINT, Info::empty(), [1; 6]);
            seen.borrow_mut().push(answer.status);
        }
    });
    talk.run_cpu(0);
    assert_eq!(*log.borrow(), [Status::Done; 3], "the last call waits");
    for _ in 0..2 {
        run_on(0, kernel::upcall::timer::<Untagged>);
        talk.run_cpu(0);
    }
    assert_eq!(log.borrow().get(3), Some(&Status::TimedOut));
    talk.finish();
}

/// A caller that is ended while it waits on the short way ends, and its server is told that nobody waits.
#[test]
fn a_caller_that_ends_is_not_answered() {
    let talk = Talk::<Untagged>::new();
    let log = Log::<Status>::default();
    let at_server = log.clone();
    talk.thread(&talk.client, 0, 5, move |user| {
        let mut call = heard(user.ask(Number::Wait, &[pack(ENDPOINT as u32, Info::empty())]));
        for _ in 0..3 {
            call = send(user, Number::ReplyWait, ENDPOINT, Info::empty(), call.words);
        }
        assert_eq!(user.ask(Number::End, &[6, 77])[0], Status::Done as u64);
        let told = send(user, Number::ReplyWait, ENDPOINT, Info::empty(), call.words);
        at_server.borrow_mut().push(told.status);
    });
    talk.run_cpu(0);
    let client = talk.client(|user| {
        loop {
            send(user, Number::Call, ENDPOINT, Info::empty(), [1; 6]);
        }
    });
    // The second thread that was begun.
    talk.kernel.give(&talk.client, 6, FREE + 4, Rights::all(), 0);
    talk.run_cpu(0);
    assert_eq!((client.is_ending(), client.status()), (true, 77));
    assert_eq!(*log.borrow(), [Status::NobodyWaits]);
    drop(client);
    talk.finish();
}
