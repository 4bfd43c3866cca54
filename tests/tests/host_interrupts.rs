//! Interrupt lines: whoever has one, and nobody else, is told of it, once until he acknowledges it; what comes
//! meanwhile is remembered.

use std::sync::Arc;

use kernel::abi::{Number, Rights, Status};
use kernel::arch::Arch;
use kernel::object::account::Price;
use kernel::object::interrupt::{Interrupt, LINES};
use kernel::object::thread::Thread;
use kernel::object::{Object, ObjectError, capability};
use kernel::upcall;
use scripted::load;
use tests::host::{Tagged, Untagged};
use tests::kernel_of::{FREE, Kernel};

const FRAMES: usize = 4096;
/// The line, CPU 1's timer, and the driver, in the first process.
const LINE: u64 = FREE;
const DRIVER: u64 = FREE + 1;
/// In the driver: itself, the line, what is bound to it, and copies of these with fewer rights.
const OWN: u64 = 0;
const TIMER: u64 = 1;
const NOTE: u64 = 2;
const WEAK_TIMER: u64 = 3;
const WEAK_NOTE: u64 = 4;
const BITS: u64 = 0b100;

/// A machine whose first process has the timer of CPU 1, and a driver that is bound to it.
struct Driven<A: Arch> {
    kernel: Kernel<A>,
    thread: Arc<Thread<A>>,
}

impl<A: Arch> Driven<A> {
    fn new() -> Driven<A> {
        let kernel = Kernel::<A>::new(2, FRAMES, 16);
        let (first, cpu) = (&kernel.first, kernel.world.cpu(0));
        let line = Interrupt::new(&first.account, 1).expect("nobody has it");
        let put = || capability::install(cpu, &first.table, LINE as u32, Object::Interrupt(line));
        kernel.world.on(0, put).expect("there is room");
        let child = kernel.child(DRIVER, 8, Price { frames: 32, bytes: 1 << 16, spaces: 0 });
        kernel.give(&child, OWN, DRIVER, Rights::all(), 0);
        kernel.give(&child, TIMER, LINE, Rights::MANAGE, 0);
        // It waits for ever: what is asked for it is asked below.
        let entry = load(|user| {
            user.ask(Number::MakeNotification, &[7]);
            user.ask(Number::Wait, &[7]);
        });
        let thread = kernel.thread(&kernel.first, FREE + 2, &child, entry, 5, 1, 0);
        kernel.run_in_turn();
        let driven = Driven { kernel, thread };
        assert_eq!(driven.ask(Number::MakeNotification, &[NOTE]), Status::Done);
        assert_eq!(driven.ask(Number::Bind, &[TIMER, NOTE, BITS]), Status::Done);
        driven
    }

    fn ask(&self, number: Number, arguments: &[u64]) -> Status {
        self.kernel.status(1, &self.thread, number, arguments)
    }

    /// CPU `cpu` has a timer interrupt, and all take their turns.
    fn tick(&self, cpu: usize) {
        self.kernel.world.on(cpu, upcall::timer::<A>);
        self.kernel.run_in_turn();
    }

    /// Whether the driver was told since this was asked last.
    fn told(&self) -> bool {
        // One more bit, so that the wait is over.
        assert_eq!(self.ask(Number::Signal, &[NOTE, 1]), Status::Done);
        let answer = self.kernel.ask(1, &self.thread, Number::Wait, &[NOTE]);
        assert_eq!((answer[0], answer[1] & !BITS), (Status::Done as u64, 1));
        answer[1] & BITS != 0
    }

    fn finish(self) {
        drop(self.thread);
        self.kernel.finish(FRAMES);
    }
}

#[test]
fn a_line_tells_once_until_it_is_acknowledged_and_remembers_what_comes() {
    let driven = Driven::<Untagged>::new();
    assert!(!driven.told(), "it has not fired");
    driven.tick(0);
    assert!(!driven.told(), "that was another line");
    driven.tick(1);
    assert!(driven.told());
    driven.tick(1);
    driven.tick(1);
    assert!(!driven.told(), "it was not acknowledged");
    assert_eq!(driven.ask(Number::Acknowledge, &[TIMER]), Status::Done);
    assert!(driven.told(), "it fired meanwhile");
    assert_eq!(driven.ask(Number::Acknowledge, &[TIMER]), Status::Done);
    assert!(!driven.told(), "twice, which is once");
    driven.tick(1);
    assert!(driven.told());
    driven.finish();
}

#[test]
fn who_may_not_manage_a_line_or_signal_is_not_bound() {
    let driven = Driven::<Tagged>::new();
    let weak = Rights::all().difference(Rights::MANAGE).difference(Rights::WRITE).bits().into();
    let original = driven.kernel.first.table.get(LINE as u32).expect("it is there");
    driven.kernel.give(&driven.thread.process, WEAK_TIMER, LINE, Rights::GRANT | Rights::READ | Rights::WRITE, 0);
    assert_eq!(driven.ask(Number::Copy, &[NOTE, WEAK_NOTE, weak, 0]), Status::Done);
    assert_eq!(driven.ask(Number::Bind, &[WEAK_TIMER, NOTE, BITS]), Status::Forbidden);
    assert_eq!(driven.ask(Number::Bind, &[TIMER, WEAK_NOTE, BITS]), Status::Forbidden);
    assert_eq!(driven.ask(Number::Acknowledge, &[WEAK_TIMER]), Status::Forbidden);
    assert_eq!(driven.ask(Number::Acknowledge, &[NOTE]), Status::WrongKind);
    assert_eq!(driven.ask(Number::Bind, &[TIMER, TIMER, BITS]), Status::Forbidden);
    drop(original);
    driven.finish();
}

#[test]
fn a_line_has_one_owner_and_is_silent_when_that_is_over() {
    let driven = Driven::<Untagged>::new();
    let Driven { kernel, thread } = &driven;
    let account = &kernel.first.account;
    let taken = Interrupt::<Untagged>::new(account, 1).err();
    assert_eq!(taken, Some(ObjectError::BadArgument(1)), "somebody has it");
    assert!(Interrupt::<Untagged>::new(account, LINES).is_err(), "there is none");
    // The driver's notification goes: nobody is told of what comes.
    assert_eq!(driven.ask(Number::Delete, &[NOTE]), Status::Done);
    assert_eq!(driven.ask(Number::MakeNotification, &[NOTE]), Status::Done);
    driven.tick(1);
    assert!(!driven.told(), "another one is in its slot");
    assert_eq!(driven.ask(Number::Bind, &[TIMER, NOTE, BITS]), Status::Done);
    driven.tick(1);
    assert!(driven.told());
    assert_eq!(driven.ask(Number::Acknowledge, &[TIMER]), Status::Done);
    // The line is taken from it: it is not told any more, and can neither acknowledge nor be bound again.
    let original = kernel.first.table.get(LINE as u32).expect("it is there");
    kernel.world.on(0, || capability::revoke(kernel.world.cpu(0), &original)).expect("it is there");
    driven.tick(1);
    assert!(!driven.told(), "it was bound by what it has no more");
    assert_eq!(driven.ask(Number::Acknowledge, &[TIMER]), Status::NoCapability);
    assert_eq!(driven.ask(Number::Bind, &[TIMER, NOTE, BITS]), Status::NoCapability);
    // It goes: somebody else may have it, and is not told of what came before.
    let used = account.used();
    kernel.world.on(0, || capability::delete(kernel.world.cpu(0), &original)).expect("it is there");
    drop(original);
    assert!(account.used().bytes < used.bytes, "it is paid back");
    driven.tick(1);
    let again = Interrupt::new(account, 1).expect("nobody has it");
    let put = || capability::install(kernel.world.cpu(0), &kernel.first.table, LINE as u32, Object::Interrupt(again));
    kernel.world.on(0, put).expect("its slot is empty");
    kernel.give(&thread.process, TIMER, LINE, Rights::MANAGE, 0);
    assert_eq!(driven.ask(Number::Bind, &[TIMER, NOTE, BITS]), Status::Done);
    kernel.run_in_turn();
    assert!(!driven.told());
    driven.tick(1);
    assert!(driven.told());
    driven.finish();
}
