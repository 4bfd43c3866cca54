//! From words to requests. No argument is looked at anywhere else, and none is cut to a smaller type without a check.

use crate::abi::message::{Info, unpack};
use crate::abi::{MESSAGE_WORDS, NAME_BYTES, Number, PRIORITIES, Rights, Status, WORDS};
use crate::addr::VirtAddr;
use crate::object::account::Price;
use crate::object::meter::Latencies;

/// A slot of the caller's table.
pub type Slot = u32;

/// A system call, understood.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs, reason = "the fields are the arguments that `abi::Number` describes")]
pub enum Request {
    Null,
    Yield,
    Exit { status: u64 },
    Call { endpoint: Slot, info: Info, words: [u64; MESSAGE_WORDS] },
    ReplyWait { endpoint: Slot, info: Info, words: [u64; MESSAGE_WORDS] },
    Wait { at: Slot, info: Info },
    Signal { notification: Slot, bits: u64 },
    SetBuffer { at: VirtAddr, bytes: u64, slot: Option<Slot> },
    SetPatience { ticks: u64 },
    Copy { from: Slot, to: Slot, rights: Rights, badge: u32 },
    Delete { slot: Slot },
    Revoke { slot: Slot },
    Grant { process: Slot, to: Slot, from: Slot, rights: Rights, badge: u32 },
    MakeEndpoint { slot: Slot },
    MakeNotification { slot: Slot },
    MakeFrames { slot: Slot, pages: u64 },
    MakeShared { slot: Slot, pages: u64 },
    MakeProcess { slot: Slot, slots: u32, limit: Price, highest: u8 },
    MakeThread { process: Slot, slot: Slot, entry: VirtAddr, stack: VirtAddr, argument: u64, priority: u8, cpu: u16 },
    Map { process: Slot, memory: Slot, at: VirtAddr, offset: u64, bytes: u64, rights: Rights },
    MapAnonymous { process: Slot, at: VirtAddr, bytes: u64, rights: Rights },
    Unmap { process: Slot, at: VirtAddr },
    Protect { process: Slot, at: VirtAddr, rights: Rights },
    Discard { process: Slot, at: VirtAddr, bytes: u64 },
    Collapse { process: Slot, at: VirtAddr },
    Migrate { thread: Slot, cpu: u64 },
    SetPriority { thread: Slot, priority: u8 },
    End { what: Slot, status: u64 },
    SetPager { process: Slot, endpoint: Slot },
    Bind { what: Slot, notification: Slot, bits: u64 },
    Acknowledge { interrupt: Slot, when: u64 },
    Identify { slot: Slot },
    Balance,
    Load { process: Slot, module: Slot, name: [u64; NAME_BYTES / 8] },
    Populate { process: Slot, at: VirtAddr, bytes: u64 },
    Ended { what: Slot },
    Clock,
    Plan { meter: Slot },
    Begin { meter: Slot },
    Finish { meter: Slot },
    Tell { meter: Slot, latencies: Latencies },
    Progress { meter: Slot, syncs: u64 },
    MakeHuge { slot: Slot, pages: u64 },
    Truncate { memory: Slot, offset: u64, bytes: u64 },
    Fork { process: Slot, slot: Slot, slots: u32, limit: Price, highest: u8 },
}

/// Words that are read one after the other, each as what it must be.
struct Words([u64; WORDS]);

impl Words {
    fn word(&self, argument: usize) -> u64 {
        self.0[argument]
    }

    fn small<T: TryFrom<u64>>(&self, argument: usize) -> Result<T, Status> {
        T::try_from(self.0[argument]).map_err(|_| Status::BadArgument)
    }

    fn slot(&self, argument: usize) -> Result<Slot, Status> {
        // A slot that is too large for the type is beyond every table.
        Slot::try_from(self.0[argument]).map_err(|_| Status::NoCapability)
    }

    fn address(&self, argument: usize) -> VirtAddr {
        VirtAddr(self.0[argument])
    }

    fn rights(&self, argument: usize) -> Result<Rights, Status> {
        Rights::from_bits(self.small(argument)?).ok_or(Status::BadArgument)
    }

    fn priority(&self, word: u64) -> Result<u8, Status> {
        u8::try_from(word).ok().filter(|priority| *priority < PRIORITIES).ok_or(Status::BadArgument)
    }

    /// The slot and the info of the first argument; of the info only what is `allowed`.
    fn target(&self, allowed: Info) -> Result<(Slot, Info), Status> {
        let (slot, info) = unpack(self.0[1]).ok_or(Status::BadArgument)?;
        if allowed.contains(info) { Ok((slot, info)) } else { Err(Status::BadArgument) }
    }

    fn message(&self) -> [u64; MESSAGE_WORDS] {
        core::array::from_fn(|i| self.0[i + 2])
    }
}

/// What `words` ask for.
pub fn decode(words: [u64; WORDS]) -> Result<Request, Status> {
    let number = Number::from_word(words[0]).ok_or(Status::BadNumber)?;
    let w = Words(words);
    let sent = Info::LONG | Info::CAPABILITY | Info::EXPECT_LONG;
    Ok(match number {
        Number::Null => Request::Null,
        Number::Yield => Request::Yield,
        Number::Exit => Request::Exit { status: w.word(1) },
        Number::Call => {
            let (endpoint, info) = w.target(sent)?;
            Request::Call { endpoint, info, words: w.message() }
        }
        Number::ReplyWait => {
            let (endpoint, info) = w.target(sent | Info::UNCONFIRMED)?;
            Request::ReplyWait { endpoint, info, words: w.message() }
        }
        Number::Wait => {
            let (at, info) = w.target(Info::EXPECT_LONG)?;
            Request::Wait { at, info }
        }
        Number::Signal => Request::Signal { notification: w.slot(1)?, bits: w.word(2) },
        Number::SetBuffer => {
            // All ones: no capability is taken.
            let slot = if w.word(3) == u64::MAX { None } else { Some(w.slot(3)?) };
            Request::SetBuffer { at: w.address(1), bytes: w.word(2), slot }
        }
        Number::SetPatience => Request::SetPatience { ticks: w.word(1) },
        Number::Copy => Request::Copy { from: w.slot(1)?, to: w.slot(2)?, rights: w.rights(3)?, badge: w.small(4)? },
        Number::Delete => Request::Delete { slot: w.slot(1)? },
        Number::Revoke => Request::Revoke { slot: w.slot(1)? },
        Number::Grant => Request::Grant {
            process: w.slot(1)?,
            to: w.slot(2)?,
            from: w.slot(3)?,
            rights: w.rights(4)?,
            badge: w.small(5)?,
        },
        Number::MakeEndpoint => Request::MakeEndpoint { slot: w.slot(1)? },
        Number::MakeNotification => Request::MakeNotification { slot: w.slot(1)? },
        Number::MakeFrames => Request::MakeFrames { slot: w.slot(1)?, pages: w.word(2) },
        Number::MakeShared => Request::MakeShared { slot: w.slot(1)?, pages: w.word(2) },
        Number::MakeProcess => Request::MakeProcess {
            slot: w.slot(1)?,
            slots: w.small(2)?,
            limit: Price { frames: w.word(3), bytes: w.word(4), spaces: w.word(5) },
            highest: w.priority(w.word(6))?,
        },
        Number::MakeThread => Request::MakeThread {
            process: w.slot(1)?,
            slot: w.slot(2)?,
            entry: w.address(3),
            stack: w.address(4),
            argument: w.word(5),
            priority: w.priority(w.word(6) & 0xffff_ffff)?,
            cpu: u16::try_from(w.word(6) >> 32).map_err(|_| Status::BadArgument)?,
        },
        Number::Map => Request::Map {
            process: w.slot(1)?,
            memory: w.slot(2)?,
            at: w.address(3),
            offset: w.word(4),
            bytes: w.word(5),
            rights: w.rights(6)?,
        },
        Number::MapAnonymous => {
            Request::MapAnonymous { process: w.slot(1)?, at: w.address(2), bytes: w.word(3), rights: w.rights(4)? }
        }
        Number::Unmap => Request::Unmap { process: w.slot(1)?, at: w.address(2) },
        Number::Protect => Request::Protect { process: w.slot(1)?, at: w.address(2), rights: w.rights(3)? },
        Number::Discard => Request::Discard { process: w.slot(1)?, at: w.address(2), bytes: w.word(3) },
        Number::Collapse => Request::Collapse { process: w.slot(1)?, at: w.address(2) },
        Number::Migrate => Request::Migrate { thread: w.slot(1)?, cpu: w.word(2) },
        Number::SetPriority => Request::SetPriority { thread: w.slot(1)?, priority: w.priority(w.word(2))? },
        Number::End => Request::End { what: w.slot(1)?, status: w.word(2) },
        Number::SetPager => Request::SetPager { process: w.slot(1)?, endpoint: w.slot(2)? },
        Number::Bind => Request::Bind { what: w.slot(1)?, notification: w.slot(2)?, bits: w.word(3) },
        Number::Acknowledge => Request::Acknowledge { interrupt: w.slot(1)?, when: w.word(2) },
        Number::Identify => Request::Identify { slot: w.slot(1)? },
        Number::Balance => Request::Balance,
        Number::Load => {
            Request::Load { process: w.slot(1)?, module: w.slot(2)?, name: [w.word(3), w.word(4), w.word(5)] }
        }
        Number::Populate => Request::Populate { process: w.slot(1)?, at: w.address(2), bytes: w.word(3) },
        Number::Ended => Request::Ended { what: w.slot(1)? },
        Number::Clock => Request::Clock,
        Number::Plan => Request::Plan { meter: w.slot(1)? },
        Number::Begin => Request::Begin { meter: w.slot(1)? },
        Number::MakeHuge => Request::MakeHuge { slot: w.slot(1)?, pages: w.word(2) },
        Number::Truncate => Request::Truncate { memory: w.slot(1)?, offset: w.word(2), bytes: w.word(3) },
        Number::Fork => Request::Fork {
            process: w.slot(1)?,
            slot: w.slot(2)?,
            slots: w.small(3)?,
            limit: Price { frames: w.word(4), bytes: w.word(5), spaces: w.word(6) },
            highest: w.priority(w.word(7))?,
        },
        Number::Progress => Request::Progress { meter: w.slot(1)?, syncs: w.word(2) },
        Number::Finish => Request::Finish { meter: w.slot(1)? },
        Number::Tell => {
            let (times, least, median, longest) = (w.word(2), w.word(3), w.word(4), w.word(5));
            Request::Tell { meter: w.slot(1)?, latencies: Latencies { times, least, median, longest } }
        }
    })
}
