//! The system calls, each as a function: arguments with names, and an error where the status is not [`Status::Done`].

use crate::abi::{Info, NAME_BYTES, Number, Rights, Status, message, name_bytes, name_words};
use crate::call::{raw, status};

/// Words of a message.
pub type Words = [u64; 6];

/// How a call that gives nothing back ended.
pub type Done = Result<(), Status>;

#[inline(always)]
fn ask(number: Number, arguments: [u64; 7]) -> Result<[u64; 8], Status> {
    let answer = raw(number as u64, arguments);
    match status(&answer) {
        Status::Done => Ok(answer),
        error => Err(error),
    }
}

#[inline(always)]
fn does(number: Number, arguments: [u64; 7]) -> Done {
    ask(number, arguments).map(|_| ())
}

/// Nothing.
pub fn null() -> Done {
    does(Number::Null, [0; 7])
}

/// Lets another thread of the same priority run.
pub fn give_way() {
    raw(Number::Yield as u64, [0; 7]);
}

/// Zeroed pages of `process` at `at`.
pub fn map_anonymous(process: u64, at: u64, bytes: u64, rights: Rights) -> Done {
    does(Number::MapAnonymous, [process, at, bytes, rights.bits().into(), 0, 0, 0])
}

/// `bytes` of `frames`, from `offset` on, at `at`.
pub fn map(process: u64, frames: u64, at: u64, offset: u64, bytes: u64, rights: Rights) -> Done {
    does(Number::Map, [process, frames, at, offset, bytes, rights.bits().into(), 0])
}

/// Undoes the mapping that begins at `at`.
pub fn unmap(process: u64, at: u64) -> Done {
    does(Number::Unmap, [process, at, 0, 0, 0, 0, 0])
}

/// Changes what the mapping at `at` allows.
pub fn protect(process: u64, at: u64, rights: Rights) -> Done {
    does(Number::Protect, [process, at, rights.bits().into(), 0, 0, 0, 0])
}

/// Drops what is in anonymous pages.
pub fn discard(process: u64, at: u64, bytes: u64) -> Done {
    does(Number::Discard, [process, at, bytes, 0, 0, 0, 0])
}

/// Makes one page of the 512 at `at`.
pub fn collapse(process: u64, at: u64) -> Done {
    does(Number::Collapse, [process, at, 0, 0, 0, 0, 0])
}

/// An endpoint in `slot`.
pub fn make_endpoint(slot: u64) -> Done {
    does(Number::MakeEndpoint, [slot, 0, 0, 0, 0, 0, 0])
}

/// A notification in `slot`.
pub fn make_notification(slot: u64) -> Done {
    does(Number::MakeNotification, [slot, 0, 0, 0, 0, 0, 0])
}

/// Memory of so many pages in `slot`.
pub fn make_frames(slot: u64, pages: u64) -> Done {
    does(Number::MakeFrames, [slot, pages, 0, 0, 0, 0, 0])
}

/// Memory of so many pages of 2 MiB in `slot`, which is mapped 4 KiB at a time until it is collapsed.
pub fn make_huge(slot: u64, pages: u64) -> Done {
    does(Number::MakeHuge, [slot, pages, 0, 0, 0, 0, 0])
}

/// Drops what is in pages of frames, for all who have mapped them.
pub fn truncate(slot: u64, offset: u64, bytes: u64) -> Done {
    does(Number::Truncate, [slot, offset, bytes, 0, 0, 0, 0])
}

/// A shared table of so many 2 MiB pages in `slot`.
pub fn make_shared(slot: u64, pages: u64) -> Done {
    does(Number::MakeShared, [slot, pages, 0, 0, 0, 0, 0])
}

/// What a new process may use.
#[derive(Clone, Copy)]
pub struct Limits {
    /// Slots of its table.
    pub slots: u64,
    /// 4 KiB frames.
    pub frames: u64,
    /// Bytes of the kernel's heap.
    pub bytes: u64,
    /// Address spaces.
    pub spaces: u64,
}

/// An empty process in `slot`.
pub fn make_process(slot: u64, limits: Limits, highest_priority: u8) -> Done {
    let Limits { slots, frames, bytes, spaces } = limits;
    does(Number::MakeProcess, [slot, slots, frames, bytes, spaces, highest_priority.into(), 0])
}

/// A process in `slot` with a copy of the anonymous memory of `process`, and nothing else that this has mapped.
pub fn fork(process: u64, slot: u64, limits: Limits, highest_priority: u8) -> Done {
    let Limits { slots, frames, bytes, spaces } = limits;
    does(Number::Fork, [process, slot, slots, frames, bytes, spaces, highest_priority.into()])
}

/// Where a thread begins, and on which CPU.
#[derive(Clone, Copy)]
pub struct Begin {
    /// A function that takes the argument and does not return.
    pub entry: u64,
    /// First byte above its stack; a multiple of 16.
    pub stack: u64,
    /// Its argument.
    pub argument: u64,
    /// Its priority.
    pub priority: u8,
    /// Its CPU.
    pub cpu: u64,
}

/// A thread of `process`, in `slot`.
pub fn make_thread(process: u64, slot: u64, begin: Begin) -> Done {
    // As after a call: where that pushes a return address, the stack is 8 bytes short of its alignment.
    let stack = begin.stack - if cfg!(target_arch = "x86_64") { 8 } else { 0 };
    let priority = u64::from(begin.priority) | begin.cpu << 32;
    does(Number::MakeThread, [process, slot, begin.entry, stack, begin.argument, priority, 0])
}

/// Has `bits` set in `notification` when the thread in `slot` ends, or the interrupt there fires.
pub fn bind(slot: u64, notification: u64, bits: u64) -> Done {
    does(Number::Bind, [slot, notification, bits, 0, 0, 0, 0])
}

/// Sets bits of a notification.
pub fn signal(notification: u64, bits: u64) -> Done {
    does(Number::Signal, [notification, bits, 0, 0, 0, 0, 0])
}

/// Waits for bits of a notification.
pub fn wait_for_bits(notification: u64) -> Result<u64, Status> {
    ask(Number::Wait, [message::pack(notification as u32, Info::empty()), 0, 0, 0, 0, 0, 0]).map(|answer| answer[1])
}

/// What was received.
#[derive(Clone, Copy)]
pub struct Received {
    /// Of the capability that it was sent with.
    pub badge: u32,
    /// What it consists of.
    pub info: Info,
    /// Its words.
    pub words: Words,
}

fn received(answer: Result<[u64; 8], Status>) -> Result<Received, Status> {
    let [_, first, words @ ..] = answer?;
    let (badge, info) = message::unpack(first).ok_or(Status::BadArgument)?;
    Ok(Received { badge, info, words })
}

fn with_first(endpoint: u64, info: Info, [a, b, c, d, e, f]: Words) -> [u64; 7] {
    [message::pack(endpoint as u32, info), a, b, c, d, e, f]
}

/// Sends a message and waits for the answer.
#[inline(always)]
pub fn call(endpoint: u64, info: Info, words: Words) -> Result<Received, Status> {
    received(ask(Number::Call, with_first(endpoint, info, words)))
}

/// Answers the last call and waits for the next.
#[inline(always)]
pub fn reply_wait(endpoint: u64, info: Info, words: Words) -> Result<Received, Status> {
    received(ask(Number::ReplyWait, with_first(endpoint, info, words)))
}

/// Waits for a call.
pub fn wait(endpoint: u64, info: Info) -> Result<Received, Status> {
    received(ask(Number::Wait, [message::pack(endpoint as u32, info), 0, 0, 0, 0, 0, 0]))
}

/// Where long messages and capabilities that the calling thread receives go.
pub fn set_buffer(at: u64, bytes: u64, slot: u64) -> Done {
    does(Number::SetBuffer, [at, bytes, slot, 0, 0, 0, 0])
}

/// How long the calling thread waits, in ticks.
pub fn set_patience(ticks: u64) -> Done {
    does(Number::SetPatience, [ticks, 0, 0, 0, 0, 0, 0])
}

/// Derives a capability into another process's table.
pub fn grant(process: u64, theirs: u64, slot: u64, rights: Rights, badge: u32) -> Done {
    does(Number::Grant, [process, theirs, slot, rights.bits().into(), badge.into(), 0, 0])
}

/// Empties a slot; the object ends with its original capability.
pub fn delete(slot: u64) -> Done {
    does(Number::Delete, [slot, 0, 0, 0, 0, 0, 0])
}

/// Deletes everything derived from a capability, and undoes what was mapped with it.
pub fn revoke(slot: u64) -> Done {
    does(Number::Revoke, [slot, 0, 0, 0, 0, 0, 0])
}

/// Ends a thread or a process.
pub fn end(slot: u64, status: u64) -> Done {
    does(Number::End, [slot, status, 0, 0, 0, 0, 0])
}

/// Who is called for faults of `process`.
pub fn set_pager(process: u64, endpoint: u64) -> Done {
    does(Number::SetPager, [process, endpoint, 0, 0, 0, 0, 0])
}

/// Has a thread go to another CPU.
pub fn migrate(thread: u64, cpu: u64) -> Done {
    does(Number::Migrate, [thread, cpu, 0, 0, 0, 0, 0])
}

/// Maps the program `name` of `module` into `process`: where it begins.
pub fn load(process: u64, module: u64, name: &str) -> Result<u64, Status> {
    let [a, b, c] = name_words(name);
    ask(Number::Load, [process, module, a, b, c, 0, 0]).map(|answer| answer[1])
}

/// Makes the pages there present, 2 MiB at a time.
pub fn populate(process: u64, at: u64, bytes: u64) -> Done {
    does(Number::Populate, [process, at, bytes, 0, 0, 0, 0])
}

/// What a thread or a process ended with, if it has.
pub fn ended(slot: u64) -> Result<Option<u64>, Status> {
    ask(Number::Ended, [slot, 0, 0, 0, 0, 0, 0]).map(|answer| (answer[1] != 0).then_some(answer[2]))
}

/// Instructions that the machine has executed, now and at other moments.
#[derive(Clone, Copy)]
pub struct Clock {
    /// Now.
    pub now: u64,
    /// When this CPU last woke from idling.
    pub woke: u64,
    /// Timer interrupts that other CPUs have had since: if there were any, their instructions may be among these.
    pub others: u64,
    /// When the last timer interrupt of this CPU was due.
    pub due: u64,
    /// When the next is.
    pub next: u64,
}

/// The time, in instructions.
pub fn clock() -> Clock {
    let [_, now, woke, others, due, next, ..] = raw(Number::Clock as u64, [0; 7]);
    Clock { now, woke, others, due, next }
}

/// The interrupt in `slot` may fire again; at the time `when` if it is the timer of the calling thread's CPU, and
/// `when` is neither 0 nor later than it would anyway.
pub fn acknowledge(slot: u64, when: u64) -> Done {
    does(Number::Acknowledge, [slot, when, 0, 0, 0, 0, 0])
}

/// What is to be done.
#[derive(Clone, Copy)]
pub struct Plan {
    /// Operations.
    pub ops: u64,
    /// Where all choices come from.
    pub seed: u64,
    /// CPUs of the machine.
    pub cpus: u64,
    /// Number of the mode.
    pub mode: u64,
    /// Name of the workload.
    pub workload: Name,
}

/// A name of at most 24 bytes.
#[derive(Clone, Copy)]
pub struct Name([u8; NAME_BYTES], usize);

impl Name {
    /// As text.
    pub fn as_str(&self) -> &str {
        core::str::from_utf8(&self.0[..self.1]).unwrap_or_default()
    }
}

/// What `meter` says is to be done.
pub fn plan(meter: u64) -> Result<Plan, Status> {
    let [_, ops, seed, cpus, mode, a, b, c] = ask(Number::Plan, [meter, 0, 0, 0, 0, 0, 0])?;
    let (bytes, length) = name_bytes([a, b, c]);
    Ok(Plan { ops, seed, cpus, mode, workload: Name(bytes, length) })
}

/// An operation begins: from here on interrupts and invalidations are counted.
pub fn begin(meter: u64) -> Done {
    does(Number::Begin, [meter, 0, 0, 0, 0, 0, 0])
}

/// It is over: instructions that it took.
pub fn finish(meter: u64) -> Result<u64, Status> {
    ask(Number::Finish, [meter, 0, 0, 0, 0, 0, 0]).map(|answer| answer[1])
}

/// The run goes on; `syncs` tables were about to be used again because of this program since it last said so.
pub fn progress(meter: u64, syncs: u64) -> Done {
    does(Number::Progress, [meter, syncs, 0, 0, 0, 0, 0])
}

/// How long something took, measured so many times: what is told last counts.
pub fn tell(meter: u64, times: u64, least: u64, median: u64, longest: u64) -> Done {
    does(Number::Tell, [meter, times, least, median, longest, 0, 0])
}

/// Derives a capability within the caller's own table.
pub fn copy(from: u64, to: u64, rights: Rights, badge: u32) -> Done {
    does(Number::Copy, [from, to, rights.bits().into(), badge.into(), 0, 0, 0])
}

/// A message's word that names the capability in `slot`, of which the receiver gets `rights`.
pub fn capability(slot: u64, rights: Rights) -> u64 {
    slot | u64::from(rights.bits()) << 32
}

/// Waits until a thread or a process has ended: what with.
pub fn wait_for_end(slot: u64) -> Result<u64, Status> {
    loop {
        if let Some(status) = ended(slot)? {
            return Ok(status);
        }
        give_way();
        crate::call::relax();
    }
}
