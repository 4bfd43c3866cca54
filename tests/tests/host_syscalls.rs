//! Programs that make any system calls with any arguments, on several CPUs: the kernel answers each with a status or
//! lets the thread wait, nothing panics, and at the end everything that was charged is given back.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;

use kernel::abi::{Number, Rights, Status, WORDS};
use kernel::arch::Arch;
use kernel::object::account::Price;
use kernel::syscall::decode::decode;
use kernel::tlb::transport::TransportId;
use kernel::upcall;
use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use scripted::load;
use tests::host::{Tagged, Untagged};
use tests::kernel_of::{FREE, Kernel};

const CPUS: usize = 2;
const FRAMES: usize = 8192;
const SLOTS: u64 = 12;

type Call = [u64; WORDS];

/// Numbers that mean something as often as others.
fn word() -> impl Strategy<Value = u64> {
    prop_oneof![
        6 => 0..SLOTS,
        2 => (0..SLOTS, 0u64..16).prop_map(|(slot, info)| slot | info << 32),
        2 => (0u64..8).prop_map(|page| 0x4000_0000 + page * 4096),
        1 => (0u64..3).prop_map(|gib| gib << 30),
        1 => (0u64..5).prop_map(|pages| pages * 4096),
        1 => Just(1 << 21),
        3 => prop::sample::select(vec![1u64, 3, 7, 31]),
        1 => (0u32..64).prop_map(|bit| 1u64 << bit),
        1 => any::<u64>(),
    ]
}

fn call() -> impl Strategy<Value = Call> {
    // Those that end the caller or everything are tried, but not soon.
    let all =
        Number::ALL.iter().map(|n| (if matches!(n, Number::Exit | Number::End) { 1 } else { 20 }, Just(*n as u64)));
    let number = prop_oneof![60 => prop::strategy::Union::new_weighted(all.collect()), 1 => any::<u64>()];
    (number, prop::array::uniform7(word())).prop_map(|(number, rest)| {
        let mut words = [number, 0, 0, 0, 0, 0, 0, 0];
        words[1..].copy_from_slice(&rest);
        words
    })
}

/// What the threads of a run were answered.
type Seen = Rc<RefCell<BTreeSet<Status>>>;

fn run<A: Arch>(transport: TransportId, programs: &[Vec<Call>], order: &[usize], seen: &Seen) {
    let kernel = Kernel::<A>::new(CPUS, FRAMES, 16);
    kernel.world.choose("sync-all", transport);
    let free = FRAMES;
    let limit = Price { frames: 2048, bytes: 1 << 18, spaces: 2 };
    let children: Vec<_> = (0..2).map(|i| kernel.child(FREE + i, SLOTS as u32, limit)).collect();
    let mut threads = Vec::new();
    for (i, calls) in programs.iter().enumerate() {
        let (calls, seen) = (calls.clone(), seen.clone());
        let entry = load(move |user| {
            user.ask(Number::SetPatience, &[1]);
            for words in calls {
                let answer = user.call(words);
                seen.borrow_mut().insert(Status::from_number(answer[0]).expect("an answer begins with a status"));
            }
        });
        let child = &children[i % 2];
        threads.push(kernel.thread(&kernel.first, 4 + i as u64, child, entry, 3 + (i % 2) as u8, (i % CPUS) as u16, 0));
    }
    for (i, child) in children.iter().enumerate() {
        kernel.give(child, 0, FREE + i as u64, Rights::all(), 0);
        kernel.give(child, 1, FREE + 1 - i as u64, Rights::READ | Rights::GRANT, 0);
        kernel.give(child, 2, 4, Rights::all(), 0);
        let ask = |number, arguments: &[u64]| {
            assert_eq!(kernel.status(0, &threads[i], number, arguments), Status::Done, "{number:?}");
        };
        ask(Number::MakeEndpoint, &[3]);
        ask(Number::MakeFrames, &[4, 4]);
        ask(Number::MakeShared, &[5, 2]);
        ask(Number::MakeNotification, &[6]);
    }
    // Both call the same one.
    kernel.give(&children[1], 7, FREE, Rights::all(), 0);
    let common = children[0].table.get(3).expect("it was made");
    kernel::object::capability::derive(&common, &children[1].table, 8, Rights::all(), 5).expect("it is free");
    drop((common, threads, children));
    let mut at = 0;
    for _ in 0..24 {
        kernel.run(|_| {
            at += 1;
            order[at % order.len()]
        });
        // Waits are over some time; idle CPUs have ticks.
        for cpu in 0..CPUS {
            kernel.world.on(cpu, upcall::timer::<A>);
        }
    }
    kernel.finish(free);
}

fn programs() -> impl Strategy<Value = Vec<Vec<Call>>> {
    prop::collection::vec(prop::collection::vec(call(), 1..48), 4)
}

/// As every CPU is among them, all come to rest.
fn order() -> impl Strategy<Value = Vec<usize>> {
    prop::collection::vec(0..CPUS, 0..16).prop_map(|mut order| {
        order.extend(0..CPUS);
        order
    })
}

#[test]
fn random_programs_get_answers() {
    let seen = Seen::default();
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
        cases: 24,
        rng_seed: RngSeed::Fixed(1),
        failure_persistence: None,
        max_shrink_iters: 300,
        ..ProptestConfig::default()
    });
    let transports = prop::sample::select(TransportId::ALL.to_vec());
    let result =
        runner.run(&(transports, any::<bool>(), programs(), order()), |(transport, tagged, programs, order)| {
            if tagged {
                run::<Tagged>(transport, &programs, &order, &seen);
            } else {
                run::<Untagged>(transport, &programs, &order, &seen);
            }
            Ok(())
        });
    if let Err(error) = result {
        panic!("{error}");
    }
    // They came far: of all statuses most were answered, that of success among them.
    let seen = seen.borrow();
    let common = [Status::Done, Status::BadNumber, Status::BadArgument, Status::NoCapability, Status::WrongKind];
    let rarer = [Status::SlotTaken, Status::Forbidden, Status::NotMapped, Status::TimedOut, Status::Quota];
    for status in common.into_iter().chain(rarer) {
        assert!(seen.contains(&status), "nobody was answered {status:?}, but {seen:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 3_000,
        rng_seed: RngSeed::Fixed(1),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    /// Whatever the words are there is a request or a status, and no call looks at words behind its arguments.
    #[test]
    fn words_are_a_request_or_a_status(words in call(), other in prop::array::uniform7(any::<u64>())) {
        let decoded = decode(words);
        match Number::from_word(words[0]) {
            None => prop_assert_eq!(decoded, Err(Status::BadNumber)),
            Some(number) => {
                let mut changed = words;
                let behind = 1 + number.arguments();
                changed[behind..].copy_from_slice(&other[behind - 1..]);
                prop_assert_eq!(decode(changed), decoded);
            }
        }
    }
}

#[test]
fn numbers_and_statuses_are_their_own() {
    for (i, number) in Number::ALL.iter().enumerate() {
        assert_eq!((*number as u64, Number::from_word(i as u64)), (i as u64, Some(*number)));
    }
    for (i, status) in Status::ALL.iter().enumerate() {
        assert_eq!((*status as u64, Status::from_number(i as u64)), (i as u64, Some(*status)));
    }
    assert_eq!(decode([Number::Null as u64, u64::MAX, 1, 2, 3, 4, 5, 6]), Ok(kernel::syscall::decode::Request::Null));
    assert_eq!(Number::from_word(Number::ALL.len() as u64), None);
}
