//! What each system call takes: for every capability that it names, the rights without any of which it is refused, and
//! with no others of which it is not. The table says it once more, by what `Rights` promises, and not by what the
//! kernel looks at.

use kernel::abi::{Info, Number, Rights, Status, WORDS, message, name_words};
use kernel::arch::Arch;
use kernel::ipc::exchange::Outcome;
use kernel::object::account::Price;
use kernel::object::interrupt::Interrupt;
use kernel::object::meter::{Meter, Plan};
use kernel::object::module::Module;
use kernel::object::{Object, capability};
use kernel::syscall;
use scripted::load;
use tests::host::Untagged;
use tests::kernel_of::{FREE, Kernel};

const FRAMES_OF_MACHINE: usize = 4096;
/// What the caller has: itself, another process and its thread, and one of each kind else.
const OWN: u64 = 0;
const PROCESS: u64 = 1;
const THREAD: u64 = 2;
const ENDPOINT: u64 = 3;
const NOTE: u64 = 4;
const MEMORY: u64 = 5;
const MODULE: u64 = 6;
const METER: u64 = 7;
const LINE: u64 = 8;
/// A copy of one of these, with some rights; and an empty slot.
const W: u64 = 20;
const EMPTY: u64 = 21;
/// Where nothing is mapped, and where something is in the other process.
const NOWHERE: u64 = 0x4000_0000;
const SOMEWHERE: u64 = 0x5000_0000;
const PAGE: u64 = 4096;
const HUGE: u64 = 2 << 20;

const READ: Rights = Rights::READ;
const WRITE: Rights = Rights::WRITE;
const EXECUTE: Rights = Rights::EXECUTE;
const GRANT: Rights = Rights::GRANT;
const MANAGE: Rights = Rights::MANAGE;

/// A call: its number, its arguments, of which [`W`] stands for the capability that is looked at, what that is to, and
/// what it takes.
struct Takes(Number, Vec<u64>, u64, Rights);

/// A call at `endpoint` with the capability in `slot`, of which the receiver is to get what makes it readable.
fn with_capability(endpoint: u64, slot: u64) -> Vec<u64> {
    let mut words = vec![message::pack(endpoint as u32, Info::CAPABILITY), 0, 0, 0, 0, 0, 0];
    words[1 + message::CAPABILITY_WORD] = slot | u64::from(READ.bits()) << 32;
    words
}

fn table() -> Vec<Takes> {
    let [a, b, c] = name_words("nothing");
    let t = |number, arguments: &[u64], object, rights| Takes(number, arguments.to_vec(), object, rights);
    let (read, write, execute) = (READ.bits().into(), (READ | WRITE).bits().into(), (READ | EXECUTE).bits().into());
    vec![
        t(Number::Call, &[W], ENDPOINT, WRITE),
        t(Number::Call, &with_capability(ENDPOINT, W), MEMORY, GRANT | READ),
        t(Number::ReplyWait, &[W], ENDPOINT, READ),
        t(Number::Wait, &[W], ENDPOINT, READ),
        t(Number::Wait, &[W], NOTE, READ),
        t(Number::Signal, &[W, 1], NOTE, WRITE),
        t(Number::Copy, &[W, EMPTY, write, 0], MEMORY, READ | WRITE),
        t(Number::Grant, &[W, EMPTY, MEMORY, read, 0], PROCESS, MANAGE),
        t(Number::Grant, &[PROCESS, EMPTY, W, write, 0], MEMORY, GRANT | READ | WRITE),
        t(Number::MakeThread, &[W, EMPTY, PAGE, 0, 0, 1], PROCESS, MANAGE),
        t(Number::Map, &[W, MEMORY, NOWHERE, 0, PAGE, read], PROCESS, MANAGE),
        t(Number::Map, &[PROCESS, W, NOWHERE, 0, PAGE, read], MEMORY, READ),
        t(Number::Map, &[PROCESS, W, NOWHERE, 0, PAGE, write], MEMORY, READ | WRITE),
        t(Number::Map, &[PROCESS, W, NOWHERE, 0, PAGE, execute], MEMORY, READ | EXECUTE),
        t(Number::MapAnonymous, &[W, NOWHERE, PAGE, write], PROCESS, MANAGE),
        t(Number::Unmap, &[W, SOMEWHERE], PROCESS, MANAGE),
        t(Number::Protect, &[W, SOMEWHERE, read], PROCESS, MANAGE),
        t(Number::Discard, &[W, SOMEWHERE, PAGE], PROCESS, MANAGE),
        t(Number::Collapse, &[W, SOMEWHERE], PROCESS, MANAGE),
        t(Number::Populate, &[W, SOMEWHERE, PAGE], PROCESS, MANAGE),
        t(Number::Fork, &[W, EMPTY, 0, 0, 0, 0, 1], PROCESS, MANAGE),
        t(Number::Migrate, &[W, 0], THREAD, MANAGE),
        t(Number::SetPriority, &[W, 1], THREAD, MANAGE),
        t(Number::End, &[W, 0], THREAD, MANAGE),
        t(Number::End, &[W, 0], PROCESS, MANAGE),
        t(Number::Ended, &[W], THREAD, MANAGE),
        t(Number::Ended, &[W], PROCESS, MANAGE),
        t(Number::SetPager, &[W, ENDPOINT], PROCESS, MANAGE),
        t(Number::SetPager, &[PROCESS, W], ENDPOINT, WRITE),
        t(Number::Bind, &[W, NOTE, 1], THREAD, MANAGE),
        t(Number::Bind, &[W, NOTE, 1], LINE, MANAGE),
        t(Number::Bind, &[LINE, W, 1], NOTE, WRITE),
        t(Number::Acknowledge, &[W, 0], LINE, MANAGE),
        t(Number::Load, &[W, MODULE, a, b, c], PROCESS, MANAGE),
        t(Number::Load, &[PROCESS, W, a, b, c], MODULE, READ),
        t(Number::Plan, &[W], METER, READ),
        t(Number::Begin, &[W], METER, WRITE),
        t(Number::Finish, &[W], METER, WRITE),
        t(Number::Progress, &[W, 0], METER, WRITE),
        t(Number::Tell, &[W, 0, 0, 0, 0], METER, WRITE),
        t(Number::Truncate, &[W, 0, PAGE], MEMORY, WRITE),
    ]
}

/// What names no capability, or does to its own slot what whoever has it may.
const WITHOUT: [Number; 16] = [
    Number::Null,
    Number::Yield,
    Number::Exit,
    Number::SetBuffer,
    Number::SetPatience,
    Number::Delete,
    Number::Revoke,
    Number::MakeEndpoint,
    Number::MakeNotification,
    Number::MakeFrames,
    Number::MakeShared,
    Number::MakeHuge,
    Number::MakeProcess,
    Number::Identify,
    Number::Balance,
    Number::Clock,
];

/// Makes the call with a copy of `object` that has `rights`: what it is answered, if it does not wait.
fn answer<A: Arch>(number: Number, arguments: &[u64], object: u64, rights: Rights) -> Option<Status> {
    let kernel = Kernel::<A>::new(2, FRAMES_OF_MACHINE, 32);
    let price = |frames| Price { frames, bytes: 1 << 17, spaces: 1 };
    let (caller, other) = (kernel.child(FREE, 32, price(1600)), kernel.child(FREE + 1, 32, price(800)));
    let (first, cpu) = (&kernel.first, kernel.world.cpu(0));
    kernel.give(&caller, OWN, FREE, Rights::all(), 0);
    kernel.give(&caller, PROCESS, FREE + 1, Rights::all(), 0);
    let forever = || {
        load(|user| {
            user.ask(Number::MakeNotification, &[30]);
            user.ask(Number::Wait, &[30]);
        })
    };
    let thread = kernel.thread(first, FREE + 2, &caller, forever(), 1, 0, 0);
    kernel.thread(first, FREE + 3, &other, forever(), 1, 1, 0);
    kernel.give(&caller, THREAD, FREE + 3, Rights::all(), 0);
    kernel.run_in_turn();
    let account = &first.account;
    let plan = Plan { ops: 1, seed: 1, cpus: 2, mode: 0, workload: "none" };
    let made = [
        (LINE, Object::Interrupt(Interrupt::new(account, 1).expect("nobody has it"))),
        (MODULE, Object::Module(Module::new(account, &[]).expect("there is enough"))),
        (METER, Object::Meter(Meter::new(account, plan).expect("there is enough"))),
    ];
    for (slot, object) in made {
        let at = FREE + 10 + slot;
        kernel.world.on(0, || capability::install(cpu, &first.table, at as u32, object)).expect("it is empty");
        kernel.give(&caller, slot, at, Rights::all(), 0);
    }
    let ask = |number, arguments: &[u64]| {
        let mut words = [0; WORDS];
        words[0] = number as u64;
        words[1..=arguments.len()].copy_from_slice(arguments);
        let mut outcome = kernel.world.on(0, || syscall::handle(cpu, &thread, words));
        loop {
            match outcome {
                Outcome::Answer(words) => return Some(Status::from_number(words[0]).expect("a status")),
                Outcome::Waits => return None,
                Outcome::Later => outcome = kernel.world.on(0, || syscall::go_on(cpu, &thread)),
            }
        }
    };
    let done = |number, arguments: &[u64]| assert_eq!(ask(number, arguments), Some(Status::Done), "{number:?}");
    done(Number::MakeEndpoint, &[ENDPOINT]);
    done(Number::MakeNotification, &[NOTE]);
    done(Number::Signal, &[NOTE, 1]);
    done(Number::MakeFrames, &[MEMORY, 4]);
    done(Number::MapAnonymous, &[PROCESS, SOMEWHERE, HUGE, 3]);
    done(Number::Populate, &[PROCESS, SOMEWHERE, HUGE]);
    done(Number::Copy, &[object, W, rights.bits().into(), 0]);
    let answer = ask(number, arguments);
    drop((thread, caller, other));
    kernel.finish(FRAMES_OF_MACHINE);
    answer
}

#[test]
fn each_call_takes_the_rights_that_it_is_to_take_and_no_others() {
    for Takes(number, arguments, object, rights) in table() {
        let asked = |rights| answer::<Untagged>(number, &arguments, object, rights);
        for missing in rights.iter() {
            let answer = asked(Rights::all() - missing);
            assert_eq!(answer, Some(Status::Forbidden), "{number:?} {arguments:x?} without {missing:?}");
        }
        let answer = asked(rights);
        let refused = [Status::Forbidden, Status::BadArgument, Status::WrongKind, Status::NoCapability, Status::Quota];
        let refused = answer.is_some_and(|status| refused.contains(&status));
        // An operation that was not begun is not finished, whoever asks.
        assert!(!refused || number == Number::Finish, "{number:?} {arguments:x?} with {rights:?}: {answer:?}");
    }
}

#[test]
fn no_call_is_left_out() {
    for number in Number::ALL {
        let rows = table().iter().filter(|row| row.0 == *number).count();
        assert_eq!(rows > 0, !WITHOUT.contains(number), "{number:?}");
    }
}
