//! The short way of system calls, on the machine of the host: that it is taken where it may be, by priority too, and what becomes of a caller that ends while it waits there.

use kernel::abi::message::{Info, pack};
use kernel::abi::{Number, Rights, Status};
use kernel::arch::Arch;
use scripted::User;
use tests::host::{Tagged, Untagged};
use tests::kernel_of::FREE;
use tests::talk::{ENDPOINT, Log, Talk, heard, send};

const CALLS: u64 = 50;

/// Answers every call with its words and one more.
fn serve(user: &User<'_>) {
    let mut call = heard(user.ask(Number::Wait, &[pack(ENDPOINT as u32, Info::empty())]));
    loop {
        let answer = call.words.map(|word| word + 1);
        call = send(user, Number::ReplyWait, ENDPOINT, Info::empty(), answer);
    }
}

/// How many turns CPU 0 takes until a client there has made [`CALLS`] calls to a server on `cpu`, with these priorities.
fn turns<A: Arch>(cpu: u16, client: u8, server: u8) -> usize {
    let talk = Talk::<A>::new();
    let log = Log::<u64>::default();
    let seen = log.clone();
    talk.thread(&talk.client, cpu, server, serve);
    talk.run_cpu(cpu.into());
    talk.thread(&talk.client, 0, client, move |user| {
        for n in 0..CALLS {
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

/// A call whose server waits on the same CPU in the same process, and its answer, take no turn: the CPU goes from one thread to the other. Across CPUs each answer takes one.
#[test]
fn calls_on_one_cpu_take_no_turns() {
    for (client, server) in [(5, 5), (5, 9), (9, 5)] {
        // The first call may find nobody, or a server that nobody has called.
        assert!(turns::<Untagged>(0, client, server) <= 3, "priorities {client} and {server}");
        assert!(turns::<Tagged>(0, client, server) <= 3, "priorities {client} and {server}, tagged");
    }
    assert!(turns::<Untagged>(1, 5, 5) as u64 >= CALLS);
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
