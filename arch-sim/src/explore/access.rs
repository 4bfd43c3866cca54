//! What simulated CPUs can be about to do, and which processes each consists of.

use super::{Object, Process};

/// Processes of each CPU.
pub const KINDS: usize = 5;

/// The processes of a CPU.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Kind {
    /// Its program, handlers included.
    Program = 0,
    /// Its store buffer.
    Buffer = 1,
    /// The delivery of an interrupt.
    Interrupt = 2,
    /// The delivery of an NMI.
    Nmi = 3,
    /// The hypervisor stops it for a while.
    Freeze = 4,
}

impl Kind {
    /// All, in the order of their numbers.
    pub const ALL: [Kind; KINDS] = [Kind::Program, Kind::Buffer, Kind::Interrupt, Kind::Nmi, Kind::Freeze];

    /// CPU and kind of a process.
    pub fn of(process: Process) -> (usize, Kind) {
        (process / KINDS, Kind::ALL[process % KINDS])
    }

    /// The process of this kind of `cpu`.
    pub fn process(self, cpu: usize) -> Process {
        cpu * KINDS + self as usize
    }

    /// In the name of a process, behind its CPU.
    pub(super) fn suffix(self) -> &'static str {
        match self {
            Kind::Program => "",
            Kind::Buffer => ".buffer",
            Kind::Interrupt => ".interrupt",
            Kind::Nmi => ".nmi",
            Kind::Freeze => ".freeze",
        }
    }
}

/// What a program is about to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Access {
    /// Read a word.
    Load(Object),
    /// Write a word; it goes through the store buffer where there is one.
    Store(Object),
    /// Read and write a word at once; a full barrier.
    Update(Object),
    /// A full barrier.
    Fence,
    /// Look at something, or change it, that is no word of the machine.
    Mark(Object, bool),
    /// Mask interrupts.
    Mask,
    /// Enable them.
    Unmask,
    /// Raise an interrupt of this kind on that CPU.
    Ring(usize, Kind),
    /// Go on when others have changed what was read since the last time.
    Wait,
    /// Go on at any time.
    Pause,
    /// Go on, if the hypervisor lets it: it was stopped.
    Thaw,
    /// Nothing any more.
    Over,
}

/// What the machine has to do for a step.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Command<W> {
    /// Let this CPU do what it has announced.
    Run(usize),
    /// Let this CPU run the handler of this kind.
    Deliver(usize, Kind),
    /// Write the oldest store of this CPU's buffer to memory.
    Write(usize, W, u64),
}
