//! Messages on the machine of the host: what arrives, and who is told what when something is taken away in between.

use std::cell::Cell;
use std::rc::Rc;

use kernel::abi::message::{BYTES_WORD, CAPABILITY_WORD, Info, MOST_BYTES};
use kernel::abi::{FAULT, Kind, Number, Rights, Status};
use kernel::addr::{PAGE_SIZE, VirtAddr};
use kernel::upcall;
use scripted::User;
use tests::host::{Tagged, Untagged};
use tests::kernel_of::FREE;
use tests::talk::{BADGE, ENDPOINT, Heard, IN, Log, OUT, Talk, fill, heard, long, send, stamps};

/// Receives one call, with `info`.
fn receive(user: &User<'_>, info: Info) -> Heard {
    heard(user.ask(Number::Wait, &[kernel::abi::message::pack(ENDPOINT as u32, info)]))
}

fn status(answer: [u64; 8]) -> Status {
    Status::from_number(answer[0]).expect("an answer begins with a status")
}

/// Takes long messages into [`IN`].
fn open_buffer(user: &User<'_>, bytes: u64, slot: u64) {
    assert_eq!(status(user.ask(Number::SetBuffer, &[IN.0, bytes, slot])), Status::Done);
}

fn nothing_left_over<T: Clone>(log: &Log<T>, expected: usize) -> Vec<T> {
    assert_eq!(log.borrow().len(), expected, "not all came so far");
    log.borrow().clone()
}

#[test]
fn short_messages_go_there_and_back() {
    for cpu in [0, 1] {
        let talk = Talk::<Untagged>::new();
        let log = Log::<Heard>::default();
        let (at_client, at_server) = (log.clone(), log.clone());
        talk.server(cpu, move |user| {
            let mut call = receive(user, Info::empty());
            for _ in 0..3 {
                at_server.borrow_mut().push(call);
                let doubled = call.words.map(|word| word * 2);
                call = send(user, Number::ReplyWait, ENDPOINT, Info::empty(), doubled);
            }
        });
        talk.client(move |user| {
            for n in 1..=3 {
                let answer = send(user, Number::Call, ENDPOINT, Info::empty(), [n, 2, 3, 4, 5, 6]);
                at_client.borrow_mut().push(answer);
            }
        });
        talk.kernel.run_in_turn();
        let log = nothing_left_over(&log, 6);
        for (n, pair) in log.chunks(2).enumerate() {
            let n = n as u64 + 1;
            let sent = Heard { status: Status::Done, badge: BADGE, info: Info::empty(), words: [n, 2, 3, 4, 5, 6] };
            assert_eq!(pair[0], sent);
            assert_eq!(pair[1], Heard { badge: 0, words: [2 * n, 4, 6, 8, 10, 12], ..sent });
        }
        talk.finish();
    }
}

/// Whoever comes first, and whatever the length.
#[test]
fn long_messages_arrive_whole() {
    for (server_first, bytes) in
        [(true, 1), (false, 1), (true, 4096), (false, 4097), (true, MOST_BYTES), (false, MOST_BYTES), (true, 300_000)]
    {
        let talk = Talk::<Tagged>::new();
        let log = Log::<(u64, usize)>::default();
        let (at_client, at_server) = (log.clone(), log.clone());
        let check = move |user: &User<'_>, heard: Heard, stamp: u64| {
            assert_eq!((heard.status, heard.info), (Status::Done, Info::LONG));
            assert_eq!(heard.words[BYTES_WORD], bytes);
            let whole = bytes / PAGE_SIZE;
            let seen = stamps(user, IN, whole * PAGE_SIZE);
            assert!(seen.iter().all(|s| *s == (stamp, stamp)), "{seen:?}");
            (stamp, seen.len())
        };
        talk.server(1, move |user| {
            open_buffer(user, MOST_BYTES, u64::MAX);
            let call = receive(user, Info::EXPECT_LONG);
            let checked = check(user, call, 11);
            at_server.borrow_mut().push(checked);
            fill(user, OUT, bytes, 22);
            send(user, Number::ReplyWait, ENDPOINT, Info::LONG, long(OUT, bytes));
        });
        talk.client(move |user| {
            fill(user, OUT, bytes, 11);
            open_buffer(user, MOST_BYTES, u64::MAX);
            let answer = send(user, Number::Call, ENDPOINT, Info::LONG | Info::EXPECT_LONG, long(OUT, bytes));
            let checked = check(user, answer, 22);
            at_client.borrow_mut().push(checked);
        });
        talk.run_cpu(usize::from(server_first));
        talk.kernel.run_in_turn();
        let whole = (bytes / PAGE_SIZE) as usize;
        assert_eq!(nothing_left_over(&log, 2), [(11, whole), (22, whole)]);
        talk.finish();
    }
}

/// The last bytes of a page that a message does not reach keep what they had.
#[test]
fn nothing_is_written_behind_a_message() {
    let talk = Talk::<Untagged>::new();
    let log = Log::<u64>::default();
    let at_server = log.clone();
    talk.server(1, move |user| {
        user.write(IN.add(24), 5);
        open_buffer(user, PAGE_SIZE, u64::MAX);
        assert_eq!(receive(user, Info::EXPECT_LONG).status, Status::Done);
        let seen = [user.read(IN.add(16)), user.read(IN.add(24))];
        at_server.borrow_mut().extend(seen);
    });
    talk.client(move |user| {
        user.write(OUT.add(16), 3);
        user.write(OUT.add(24), 4);
        send(user, Number::Call, ENDPOINT, Info::LONG, long(OUT, 24));
    });
    talk.kernel.run_in_turn();
    assert_eq!(nothing_left_over(&log, 2), [3, 5]);
    talk.finish();
}

#[test]
fn what_does_not_fit_is_told_and_the_receiver_goes_on_waiting() {
    for server_first in [true, false] {
        let talk = Talk::<Untagged>::new();
        let log = Log::<(Status, u64)>::default();
        let (at_client, at_server) = (log.clone(), log.clone());
        talk.server(1, move |user| {
            open_buffer(user, 2 * PAGE_SIZE, u64::MAX);
            let call = receive(user, Info::EXPECT_LONG);
            at_server.borrow_mut().push((call.status, call.words[BYTES_WORD]));
        });
        talk.client(move |user| {
            for pages in [3, 2] {
                let answer = send(user, Number::Call, ENDPOINT, Info::LONG, long(OUT, pages * PAGE_SIZE));
                at_client.borrow_mut().push((answer.status, pages));
            }
        });
        talk.run_cpu(usize::from(server_first));
        talk.kernel.run_in_turn();
        let expected = [(Status::TooLong, 3), (Status::Done, 2 * PAGE_SIZE), (Status::Unanswered, 2)];
        assert_eq!(nothing_left_over(&log, 3), expected);
        talk.finish();
    }
}

#[test]
fn bad_buffers_are_refused() {
    let talk = Talk::<Untagged>::new();
    let log = Log::<Status>::default();
    let at_client = log.clone();
    talk.client(move |user| {
        let try_out = |at: u64, bytes: u64| {
            let answer = send(user, Number::Call, ENDPOINT, Info::LONG, long(VirtAddr(at), bytes));
            at_client.borrow_mut().push(answer.status);
        };
        try_out(OUT.0 + 8, 4096);
        try_out(OUT.0, 0);
        try_out(OUT.0, MOST_BYTES + 1);
        try_out(u64::MAX - 4095, 4096);
        try_out(0xffff_8000_0000_0000, 4096);
        try_out(0x1000, 4096);
        // The last page is not mapped.
        try_out(IN.0 + 0x10_1000, MOST_BYTES);
        let answer = send(user, Number::Call, ENDPOINT, Info::EXPECT_LONG, [0; 6]);
        at_client.borrow_mut().push(answer.status);
    });
    talk.kernel.run_in_turn();
    let [bad, gone] = [Status::BadArgument, Status::BufferGone];
    assert_eq!(nothing_left_over(&log, 8), [bad, bad, bad, bad, bad, gone, gone, gone]);
    talk.finish();
}

#[test]
fn capabilities_go_with_messages_if_they_may() {
    let talk = Talk::<Untagged>::new();
    let log = Log::<(Status, u64)>::default();
    let (at_client, at_server) = (log.clone(), log.clone());
    talk.server(1, move |user| {
        open_buffer(user, 0, 9);
        let call = receive(user, Info::empty());
        let kind = user.ask(Number::Identify, &[9]);
        at_server.borrow_mut().push((call.status, call.words[CAPABILITY_WORD]));
        at_server.borrow_mut().push((status(kind), kind[1] | kind[2] << 8));
        // The slot is in use: neither side has it.
        let second = send(user, Number::ReplyWait, ENDPOINT, Info::empty(), [0; 6]);
        at_server.borrow_mut().push((second.status, 0));
    });
    talk.client(move |user| {
        assert_eq!(status(user.ask(Number::MakeFrames, &[5, 2])), Status::Done);
        assert_eq!(status(user.ask(Number::Copy, &[5, 6, 3, 0])), Status::Done);
        let give = |slot: u64, rights: u64| {
            let words = [0, 0, 0, slot | rights << 32, 0, 0];
            let answer = send(user, Number::Call, ENDPOINT, Info::CAPABILITY, words);
            at_client.borrow_mut().push((answer.status, slot));
        };
        give(6, 1);
        give(5, 1);
        give(5, 1);
    });
    talk.kernel.run_in_turn();
    let expected = [
        (Status::Forbidden, 6),
        (Status::Done, 9),
        (Status::Done, Kind::Frames as u64 | 1 << 8),
        (Status::Done, 5),
        (Status::SlotTaken, 0),
        (Status::Undelivered, 5),
    ];
    assert_eq!(nothing_left_over(&log, 6), expected);
    talk.finish();
}

#[test]
fn waits_end_with_what_is_waited_for_and_with_time() {
    let talk = Talk::<Untagged>::new();
    let log = Log::<Status>::default();
    let (at_client, at_server) = (log.clone(), log.clone());
    talk.client(move |user| {
        let call = || send(user, Number::Call, ENDPOINT, Info::empty(), [0; 6]).status;
        user.ask(Number::SetPatience, &[2]);
        for _ in 0..4 {
            let status = call();
            at_client.borrow_mut().push(status);
            user.ask(Number::SetPatience, &[0]);
        }
    });
    talk.kernel.run_in_turn();
    let tick = || {
        talk.kernel.world.on(0, upcall::timer::<Untagged>);
        talk.kernel.run_in_turn();
    };
    tick();
    assert_eq!(log.borrow().len(), 0);
    tick();
    assert_eq!(nothing_left_over(&log, 1), [Status::TimedOut]);
    // It receives twice without an answer, and ends with the second.
    talk.server(1, move |user| {
        for _ in 0..2 {
            let status = receive(user, Info::empty()).status;
            at_server.borrow_mut().push(status);
        }
    });
    talk.kernel.run_in_turn();
    let seen = nothing_left_over(&log, 5);
    assert_eq!(seen[1..], [Status::Done, Status::Unanswered, Status::Done, Status::Unanswered]);
    let endpoint = talk.kernel.first.table.get(FREE as u32).expect("it is there");
    talk.kernel
        .world
        .on(0, || kernel::object::capability::delete(talk.kernel.world.cpu(0), &endpoint))
        .expect("nobody revokes it");
    talk.kernel.run_in_turn();
    assert_eq!(log.borrow()[5], Status::Gone);
    drop(endpoint);
    talk.finish();
}

#[test]
fn a_pager_is_called_for_faults_and_may_refuse() {
    const PAGED: u64 = 0x5000_0000;
    let talk = Talk::<Untagged>::new();
    let log = Log::<u64>::default();
    let (at_client, at_server) = (log.clone(), log.clone());
    talk.kernel.give(&talk.server, 5, FREE + 1, Rights::all(), 0);
    talk.server(1, move |user| {
        assert_eq!(status(user.ask(Number::SetPager, &[5, ENDPOINT])), Status::Done);
        assert_eq!(status(user.ask(Number::MakeFrames, &[6, 1])), Status::Done);
        let mut fault = receive(user, Info::empty());
        for answer in [0, 1] {
            at_server.borrow_mut().extend([fault.words[0], fault.words[1], fault.words[2]]);
            if answer == 0 {
                let mapped = user.ask(Number::Map, &[5, 6, PAGED, 0, PAGE_SIZE, 3]);
                assert_eq!(status(mapped), Status::Done);
            }
            fault = send(user, Number::ReplyWait, ENDPOINT, Info::empty(), [answer, 0, 0, 0, 0, 0]);
        }
    });
    talk.run_cpu(1);
    let thread = talk.client(move |user| {
        user.write(VirtAddr(PAGED + 8), 42);
        let read = user.read(VirtAddr(PAGED + 8));
        at_client.borrow_mut().push(read);
        user.read(VirtAddr(PAGED + 4096));
        unreachable!("the pager refused");
    });
    talk.kernel.run_in_turn();
    assert_eq!(nothing_left_over(&log, 7), [FAULT, PAGED + 8, 1, 42, FAULT, PAGED + 4096, 0]);
    assert_eq!((thread.is_ending(), thread.status()), (true, Status::NotMapped as u64));
    drop(thread);
    talk.finish();
}

/// A system call whose buffer the pager has to fill waits for it: what is sent is whole. A pager that refuses, or
/// brings nothing however often it is asked, ends the call and not the thread.
#[test]
fn a_pager_fills_the_buffer_of_a_system_call() {
    const PAGED: u64 = 0x5000_0000;
    const WINDOW: u64 = 0x6000_0000;
    const BYTES: u64 = 3 * PAGE_SIZE;
    let talk = Talk::<Untagged>::new();
    let log = Log::<(Status, Vec<u64>)>::default();
    let (at_client, at_server) = (log.clone(), log.clone());
    talk.kernel.give(&talk.server, 5, FREE + 1, Rights::all(), 0);
    talk.server(1, move |user| {
        assert_eq!(status(user.ask(Number::SetPager, &[5, ENDPOINT])), Status::Done);
        assert_eq!(status(user.ask(Number::MakeFrames, &[6, 3])), Status::Done);
        assert_eq!(status(user.ask(Number::Map, &[0, 6, WINDOW, 0, BYTES, 3])), Status::Done);
        (0..3).for_each(|page| user.write(VirtAddr(WINDOW + page * PAGE_SIZE), 100 + page));
        open_buffer(user, MOST_BYTES, u64::MAX);
        let mut heard = receive(user, Info::EXPECT_LONG);
        let mut asked = 0;
        loop {
            let [first, at, ..] = heard.words;
            let answer = match (heard.status, first) {
                (Status::Done, FAULT) if at < PAGED + BYTES => {
                    asked += 1;
                    let mapped = user.ask(Number::Map, &[5, 6, at, at - PAGED, PAGE_SIZE, 3]);
                    assert_eq!(status(mapped), Status::Done);
                    0
                }
                // One page is refused. All others are promised and not brought.
                (Status::Done, FAULT) => u64::from(at == PAGED + BYTES),
                (status, _) => {
                    let words = (0..3).map(|page| user.read(IN.add(page * PAGE_SIZE)));
                    at_server.borrow_mut().push((status, words.chain([asked]).collect()));
                    7
                }
            };
            heard = send(user, Number::ReplyWait, ENDPOINT, Info::EXPECT_LONG, [answer, 0, 0, 0, 0, 0]);
        }
    });
    talk.run_cpu(1);
    let thread = talk.client(move |user| {
        for at in [PAGED, PAGED + BYTES, PAGED + BYTES + PAGE_SIZE] {
            let answer = send(user, Number::Call, ENDPOINT, Info::LONG, long(VirtAddr(at), BYTES));
            at_client.borrow_mut().push((answer.status, vec![answer.words[0]]));
        }
    });
    talk.kernel.run_in_turn();
    let expected = [
        (Status::Done, vec![100, 101, 102, 3]),
        (Status::Done, vec![7]),
        (Status::BufferGone, vec![0]),
        (Status::BufferGone, vec![0]),
    ];
    assert_eq!(nothing_left_over(&log, 4), expected);
    assert_eq!(thread.status(), 0, "the thread itself goes on");
    drop(thread);
    talk.finish();
}

#[test]
fn threads_run_by_priority_and_move_when_asked_to() {
    let talk = Talk::<Untagged>::new();
    let log = Log::<&'static str>::default();
    let (low, high) = (log.clone(), log.clone());
    let gate = Rc::new(Cell::new(false));
    let opened = gate.clone();
    let lower = talk.thread(&talk.client, 0, 3, move |user| {
        low.borrow_mut().push("low begins");
        opened.set(true);
        user.pause();
        low.borrow_mut().push("low ends");
    });
    let higher = talk.thread(&talk.client, 0, 9, move |user| {
        high.borrow_mut().push("high waits");
        assert_eq!(status(user.ask(Number::MakeNotification, &[7])), Status::Done);
        assert_eq!(status(user.ask(Number::Wait, &[7])), Status::Done);
        high.borrow_mut().push("high runs");
        user.pause();
        high.borrow_mut().push("high ends");
    });
    talk.run_cpu(0);
    assert!(gate.get());
    // It is woken while the other one has the CPU again: it goes first.
    let again = log.clone();
    talk.thread(&talk.client, 0, 3, move |user| {
        again.borrow_mut().push("another signals");
        assert_eq!(status(user.ask(Number::Signal, &[7, 4])), Status::Done);
        again.borrow_mut().push("another ends");
    });
    higher.migrate(2).expect("there is such a CPU");
    talk.run_cpu(0);
    let before = log.borrow().len();
    talk.run_cpu(2);
    let seen = log.borrow().clone();
    let (here, there) = seen.split_at(before);
    assert_eq!(here, ["high waits", "low begins", "low ends", "another signals", "another ends"]);
    assert_eq!(there, ["high runs", "high ends"]);
    drop((lower, higher));
    talk.finish();
}
