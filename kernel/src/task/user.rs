//! What the core asks of a machine that has a user mode: the registers of a stopped thread, and why it stopped.

use crate::addr::VirtAddr;

/// What the registers of a thread in user mode hold; floating-point and SIMD registers included.
pub trait UserContext: Send + 'static {
    /// A thread that begins at `entry` with its stack pointer at `stack` and `argument` as its first argument; all
    /// other registers are 0.
    fn start(entry: VirtAddr, stack: VirtAddr, argument: u64) -> Self;
    /// The words of the system call that stopped it: its number, then up to seven arguments.
    fn call(&self) -> [u64; 8];
    /// Puts the answer where the program expects it: a status, then up to seven words.
    fn answer(&mut self, words: [u64; 8]);
    /// One of those words.
    #[inline]
    fn word(&self, n: usize) -> u64 {
        self.call()[n]
    }
    /// Puts the first two words of an answer: done, and `first`.
    fn take_first(&mut self, first: u64);
    /// Puts the others: the words of the call that stopped `from`, from its second argument on.
    fn take_words(&mut self, from: &Self);
    /// Takes in what the CPU still holds of it beside general registers. To be called on the CPU that it has just run
    /// on, before another context runs there, and before it is dropped.
    fn park(&mut self);
    /// The CPU goes from `from` to `to` without leaving the entry of system calls: the first is parked, and of the
    /// second everything is in the CPU that [`crate::arch::Arch::enter_user`] would put there.
    fn change_over(from: &mut Self, to: &mut Self);
    /// Whether it has nothing that takes more than a few instructions to move.
    #[inline(always)]
    fn is_light(&self) -> bool {
        true
    }
    /// What [`UserContext::change_over`] is where both are [`UserContext::is_light`].
    #[inline(always)]
    fn go_over_lightly(from: &mut Self, to: &mut Self) {
        Self::change_over(from, to);
    }
}

/// What a program tried to do to memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Access {
    /// Load.
    Read,
    /// Store, or a read-modify-write.
    Write,
    /// Fetch an instruction.
    Execute,
}

/// What else a program can do that stops it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ExceptionKind {
    /// This machine has no user mode.
    #[error("this machine has no user mode")]
    NoUserMode,
    /// An instruction that does not exist, or that user mode may not use.
    #[error("invalid instruction")]
    InvalidInstruction,
    /// An access that the processor refuses whatever is mapped there.
    #[error("forbidden by the processor")]
    Protection,
    /// An address that is not aligned as it must be.
    #[error("misaligned")]
    Misaligned,
    /// Division by zero or overflow, integer or floating-point, that traps.
    #[error("arithmetic error")]
    Arithmetic,
    /// A breakpoint, or a single step.
    #[error("breakpoint")]
    Breakpoint,
}

/// Why user mode was left.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum UserEvent {
    /// A system call: [`UserContext::call`] has its words.
    Call,
    /// An access that the tables do not allow. The instruction has had no effect and runs again when the context is
    /// entered again.
    Fault {
        /// The address.
        at: VirtAddr,
        /// What was tried.
        access: Access,
    },
    /// An interrupt. It was taken: its upcall has run.
    Interrupt,
    /// Anything else that the program did to itself.
    Exception {
        /// What.
        kind: ExceptionKind,
        /// The instruction.
        at: VirtAddr,
    },
}

/// The context of machines without user mode: entering it stops at once, with [`ExceptionKind::NoUserMode`].
#[derive(Default)]
pub struct NoUserMode;

impl NoUserMode {
    /// What comes of entering it.
    pub const REFUSED: UserEvent = UserEvent::Exception { kind: ExceptionKind::NoUserMode, at: VirtAddr(0) };
}

impl UserContext for NoUserMode {
    fn start(_entry: VirtAddr, _stack: VirtAddr, _argument: u64) -> NoUserMode {
        NoUserMode
    }

    fn call(&self) -> [u64; 8] {
        [0; 8]
    }

    fn answer(&mut self, _words: [u64; 8]) {}

    fn take_first(&mut self, _first: u64) {}

    fn take_words(&mut self, _from: &NoUserMode) {}

    fn park(&mut self) {}

    fn change_over(_from: &mut NoUserMode, _to: &mut NoUserMode) {}
}
