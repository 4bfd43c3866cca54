//! What programs and the kernel agree on: system calls, statuses, rights, the layout of messages. Defined once, for
//! both sides, and without any part of the rest of this crate: a program depends on this module and on nothing else of
//! the kernel.
//!
//! A system call is eight words: its number ([`Number`]) and up to seven arguments. Its answer is eight words: a
//! [`Status`] and up to seven results. Objects are named by the number of a slot in the capability table of the calling
//! process, and by nothing else.

pub mod message;
pub mod number;
pub mod status;

pub use message::{Info, MESSAGE_WORDS, MOST_BYTES};
pub use number::Number;
pub use status::Status;

/// Bytes of the longest name of a program.
pub const NAME_BYTES: usize = 24;

/// A program's name as [`Number::Load`] takes it: its bytes, little endian, the rest 0. A longer one is cut, and found
/// nowhere.
pub fn name_words(name: &str) -> [u64; NAME_BYTES / 8] {
    let mut bytes = [0; NAME_BYTES];
    for (to, from) in bytes.iter_mut().zip(name.bytes()) {
        *to = from;
    }
    core::array::from_fn(|word| u64::from_le_bytes(core::array::from_fn(|byte| bytes[8 * word + byte])))
}

/// The bytes of a name, which ends at the first 0.
pub fn name_bytes(words: [u64; NAME_BYTES / 8]) -> ([u8; NAME_BYTES], usize) {
    let mut bytes = [0; NAME_BYTES];
    for (to, from) in bytes.iter_mut().zip(words.into_iter().flat_map(u64::to_le_bytes)) {
        *to = from;
    }
    (bytes, bytes.iter().position(|byte| *byte == 0).unwrap_or(NAME_BYTES))
}

/// Words of a system call, and of its answer.
pub const WORDS: usize = 8;

/// Priorities are below this; higher runs first.
pub const PRIORITIES: u8 = 32;

bitflags::bitflags! {
    /// What a capability allows.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct Rights: u32 {
        /// Frames: map for reading. Endpoint: receive. Notification: wait. Module: load from it. Meter: read the plan.
        const READ = 1;
        /// Frames: map for writing, truncate. Endpoint: call. Notification: signal. Meter: begin and finish operations.
        const WRITE = 2;
        /// Frames: map for execution.
        const EXECUTE = 4;
        /// Any: hand it to another process, by a message or by [`Number::Grant`].
        const GRANT = 8;
        /// Process: map, unmap, collapse, fork, make threads, give capabilities, choose its pager. Thread: migrate, set
        /// its priority, end it. Interrupt: bind, acknowledge.
        const MANAGE = 16;
    }
}

/// What kind of object a capability names, as [`Number::Identify`] answers it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u64)]
pub enum Kind {
    /// An address space, with the capability table and the account of what runs in it.
    Process = 1,
    /// Memory in 4 KiB pages.
    Frames = 2,
    /// Memory in 2 MiB pages, a GiB of addresses of them, under one PMD table that all who map it for writing share.
    SharedTable = 3,
    /// A thread.
    Thread = 4,
    /// Where calls go.
    Endpoint = 5,
    /// Bits that are set and waited for.
    Notification = 6,
    /// An interrupt line.
    Interrupt = 7,
    /// The programs that came with the kernel.
    Module = 8,
    /// What a run is to do, and where it says when it does it.
    Meter = 9,
}

impl Kind {
    /// The kind with this number.
    pub fn from_number(n: u64) -> Option<Kind> {
        use Kind::*;
        let all = [Process, Frames, SharedTable, Thread, Endpoint, Notification, Interrupt, Module, Meter];
        all.into_iter().find(|k| *k as u64 == n)
    }
}

/// Why the kernel calls a pager: the first word of its message. Then the address, the access ([`Access`]), and the
/// number of the thread. The badge is the one of the capability that [`Number::SetPager`] was given.
pub const FAULT: u64 = u64::MAX;

/// What a pager answers in the first word: the instruction is tried again. Anything else ends the thread.
pub const FAULT_HANDLED: u64 = 0;

/// What was tried, in the third word of a message about a fault.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u64)]
pub enum Access {
    /// Load.
    Read = 0,
    /// Store.
    Write = 1,
    /// Fetch.
    Execute = 2,
}
