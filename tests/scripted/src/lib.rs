//! Programs for machines on the host: closures that make system calls and touch memory, each on a stack of its own.
//!
//! [`load`] gives a closure an address; a thread that begins there runs it. [`Scripted`] is the context of such a
//! thread: entering it lets the closure go on to its next step. A closure that returns exits with status 0.

pub mod storm;
pub mod words;

use std::cell::{Cell, RefCell};

use corosensei::stack::DefaultStack;
use corosensei::{Coroutine, CoroutineResult, Yielder};
use kernel::abi::{Number, WORDS};
use kernel::addr::VirtAddr;
use kernel::arch::{Arch, UserFault};
use kernel::task::user::{Access, UserContext, UserEvent};

/// Bytes of a program's stack.
const STACK: usize = 256 << 10;
/// Where programs begin: a page apart, so that no address is a program's by mistake.
const FIRST: u64 = 0x10_0000;

/// What a program does next.
#[derive(Clone, Copy)]
enum Step {
    Call([u64; WORDS]),
    Read(VirtAddr),
    Write(VirtAddr, u64),
    /// Nothing: a moment at which an interrupt stops it.
    Pause,
}

type Program = Box<dyn FnOnce(&User<'_>)>;
type Strand = Coroutine<[u64; WORDS], Step, (), DefaultStack>;

thread_local! {
    static PROGRAMS: RefCell<Vec<Option<Program>>> = const { RefCell::new(Vec::new()) };
}

/// Gives `program` an address on this host thread.
pub fn load(program: impl FnOnce(&User<'_>) + 'static) -> VirtAddr {
    PROGRAMS.with_borrow_mut(|programs| {
        programs.push(Some(Box::new(program)));
        VirtAddr(FIRST + ((programs.len() - 1) as u64) * 4096)
    })
}

/// A program's view of the machine.
pub struct User<'a> {
    yielder: &'a Yielder<[u64; WORDS], Step>,
    /// The argument that its thread was started with.
    pub argument: u64,
}

impl User<'_> {
    /// Makes a system call.
    pub fn call(&self, words: [u64; WORDS]) -> [u64; WORDS] {
        self.yielder.suspend(Step::Call(words))
    }

    /// Makes the system call `number` with up to seven arguments.
    pub fn ask(&self, number: Number, arguments: &[u64]) -> [u64; WORDS] {
        let mut words = [0; WORDS];
        words[0] = number as u64;
        words[1..=arguments.len()].copy_from_slice(arguments);
        self.call(words)
    }

    /// Loads eight bytes.
    pub fn read(&self, at: VirtAddr) -> u64 {
        self.yielder.suspend(Step::Read(at))[0]
    }

    /// Stores eight bytes.
    pub fn write(&self, at: VirtAddr, value: u64) {
        self.yielder.suspend(Step::Write(at, value));
    }

    /// Does nothing for a moment.
    pub fn pause(&self) {
        self.yielder.suspend(Step::Pause);
    }
}

/// The registers of a thread that runs a closure.
pub struct Scripted {
    strand: RefCell<Option<Strand>>,
    /// The step that is under way: done again if it faulted.
    step: Cell<Option<Step>>,
    /// What the closure gets when it goes on.
    result: Cell<[u64; WORDS]>,
    over: Cell<bool>,
}

// SAFETY: a machine on the host has one thread, and so has everything in it.
unsafe impl Send for Scripted {}

impl UserContext for Scripted {
    fn start(entry: VirtAddr, _stack: VirtAddr, argument: u64) -> Scripted {
        let index = entry.0.wrapping_sub(FIRST) / 4096;
        let program = PROGRAMS.with_borrow_mut(|programs| programs.get_mut(index as usize).and_then(Option::take));
        let strand = program.map(|program| {
            let stack = DefaultStack::new(STACK).expect("the host has memory for a stack");
            Coroutine::with_stack(stack, move |yielder, _| program(&User { yielder, argument }))
        });
        let over = Cell::new(strand.is_none());
        Scripted { strand: RefCell::new(strand), step: Cell::new(None), result: Cell::new([0; WORDS]), over }
    }

    fn call(&self) -> [u64; WORDS] {
        match self.step.get() {
            Some(Step::Call(words)) => words,
            _ => [0; WORDS],
        }
    }

    fn answer(&mut self, words: [u64; WORDS]) {
        self.step.set(None);
        self.result.set(words);
    }

    fn take_first(&mut self, first: u64) {
        self.answer([0, first, 0, 0, 0, 0, 0, 0]);
    }

    fn take_words(&mut self, from: &Scripted) {
        let [_, _, words @ ..] = from.call();
        let mut result = self.result.get();
        result[2..].copy_from_slice(&words);
        self.result.set(result);
    }

    fn park(&mut self) {}

    fn change_over(_from: &mut Scripted, _to: &mut Scripted) {}
}

impl Scripted {
    /// Lets the program go on, on a CPU of `A`, until it calls, faults or pauses; what [`Arch::enter_user`] does there.
    pub fn enter<A: Arch>(&mut self) -> UserEvent {
        loop {
            let step = match self.step.get() {
                // An access that faulted, and shall be tried again.
                Some(step @ (Step::Read(_) | Step::Write(..))) => step,
                _ => {
                    let step = self.go_on();
                    self.step.set(Some(step));
                    step
                }
            };
            let (access, at, accessed) = match step {
                Step::Call(_) => return UserEvent::Call,
                Step::Pause => {
                    self.step.set(None);
                    return UserEvent::Interrupt;
                }
                Step::Read(at) => (Access::Read, at, A::read_user(at)),
                Step::Write(at, value) => (Access::Write, at, A::write_user(at, value).map(|()| 0)),
            };
            match accessed {
                Ok(value) => {
                    self.step.set(None);
                    self.result.set([value, 0, 0, 0, 0, 0, 0, 0]);
                }
                Err(UserFault) => return UserEvent::Fault { at, access },
            }
        }
    }

    fn go_on(&self) -> Step {
        if !self.over.get()
            && let Some(strand) = &mut *self.strand.borrow_mut()
            && let CoroutineResult::Yield(step) = strand.resume(self.result.get())
        {
            return step;
        }
        self.over.set(true);
        let mut exit = [0; WORDS];
        exit[0] = Number::Exit as u64;
        Step::Call(exit)
    }
}
