//! Call, answer, wait: the steps of [`super`]'s protocol.

use alloc::boxed::Box;
use alloc::sync::{Arc, Weak};
use core::sync::atomic::Ordering;

use super::pin::{PinError, Pinned};
use super::reply::Caller;
use super::wait::{self, Delivery, Incoming, Outgoing, Phase, Sender, just, message, take_awaiting, tell};
use crate::abi::message::{ADDRESS_WORD, BYTES_WORD, CAPABILITY_WORD, Info};
use crate::abi::{Access, FAULT, FAULT_HANDLED, MESSAGE_WORDS, MOST_BYTES, Rights, Status, WORDS};
use crate::addr::{PAGE_SIZE, VirtAddr};
use crate::arch::Arch;
use crate::mm::address_space::MapError;
use crate::object::capability::{self, Node};
use crate::object::endpoint::Endpoint;
use crate::object::notification::Notification;
use crate::object::thread::Thread;
use crate::pause;
use crate::smp::cpu::Cpu;
use crate::task::{deadline, sched};

/// What became of a system call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// It is done, with this answer.
    Answer([u64; WORDS]),
    /// The thread waits, or has ended: this CPU turns to another.
    Waits,
    /// It is not done, since others want the CPU: it is gone on with when the thread runs next.
    Later,
}

impl From<Status> for Outcome {
    fn from(status: Status) -> Outcome {
        Outcome::Answer(just(status))
    }
}

/// Why a message is not made, or not waited for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Refused {
    /// The answer to the system call.
    With(Status),
    /// A page of the buffer is the pager's to bring: the thread waits for it, and then does its system call again.
    Paged,
    /// Others want the CPU: the thread does its system call again when it runs next.
    Again,
}

impl From<Status> for Refused {
    fn from(status: Status) -> Refused {
        Refused::With(status)
    }
}

/// Pins a buffer of `thread`, whose mm is loaded. Its pager is called for a page that is not there, as for an
/// instruction that touches it.
fn pin<A: Arch>(
    cpu: &'static Cpu<A>,
    thread: &Arc<Thread<A>>,
    at: VirtAddr,
    bytes: u64,
    write: bool,
) -> Result<Box<Pinned<A>>, Refused> {
    let process = &thread.process;
    Pinned::new(cpu, &process.mm, &process.account, at, bytes, write).map_err(|error| {
        let page = match error {
            PinError::Fault { at, error: MapError::NotMapped(_) | MapError::Forbidden(_) } => at,
            other => return Refused::With(other.status()),
        };
        // Each page of two buffers once, and some again: a pager that brings nothing is not asked for ever.
        let asked = thread.paged.fetch_add(1, Ordering::Relaxed);
        let access = if write { Access::Write } else { Access::Read };
        let may = u64::from(asked) < 4 * MOST_BYTES / PAGE_SIZE;
        if may && call_pager(cpu, thread, page, access as u64, true) {
            Refused::Paged
        } else {
            Refused::With(Status::BufferGone)
        }
    })
}

/// Makes a message of the words that `thread` gave, pinning what it points at. The thread's mm is loaded.
pub(crate) fn prepare<A: Arch>(
    cpu: &'static Cpu<A>,
    thread: &Arc<Thread<A>>,
    info: Info,
    words: [u64; MESSAGE_WORDS],
    badge: u32,
) -> Result<Outgoing<A>, Refused> {
    let process = &thread.process;
    let capability = if info.contains(Info::CAPABILITY) {
        let word = words[CAPABILITY_WORD];
        let node = process.table.get(word as u32).map_err(|error| error.status())?;
        let rights = Rights::from_bits((word >> 32) as u32).ok_or(Status::BadArgument)?;
        node.require(rights | Rights::GRANT).map_err(|error| error.status())?;
        Some((Arc::downgrade(&node), rights))
    } else {
        None
    };
    let long = if info.contains(Info::LONG) {
        Some(pin(cpu, thread, VirtAddr(words[ADDRESS_WORD]), words[BYTES_WORD], false)?)
    } else {
        None
    };
    Ok(Outgoing { words, badge, long, capability })
}

/// Makes ready to receive: pins the thread's buffer if it takes long messages. The thread's mm is loaded.
pub(crate) fn expect<A: Arch>(
    cpu: &'static Cpu<A>,
    thread: &Arc<Thread<A>>,
    info: Info,
) -> Result<Incoming<A>, Refused> {
    let (buffer, slot) = {
        let state = thread.state.lock();
        (state.buffer, state.slot)
    };
    let long = if info.contains(Info::EXPECT_LONG) {
        let (at, bytes) = buffer.ok_or(Status::BufferGone)?;
        Some(pin(cpu, thread, at, bytes, true)?)
    } else {
        None
    };
    Ok(Incoming { long, slot })
}

/// Whether `outgoing` goes into `incoming`.
fn fits<A: Arch>(outgoing: &Outgoing<A>, incoming: &Incoming<A>) -> bool {
    let room = incoming.long.as_ref().map_or(0, |long| long.bytes());
    outgoing.long.as_ref().is_none_or(|long| long.bytes() <= room)
        && (outgoing.capability.is_none() || incoming.slot.is_some())
}

/// Copies what is long, and says what the receiver has to look at before it goes on. The receiver is taken, or is the
/// caller.
fn hand_over<A: Arch>(
    cpu: &'static Cpu<A>,
    outgoing: Outgoing<A>,
    incoming: Incoming<A>,
    sender: Option<Sender<A>>,
) -> Delivery<A> {
    let mut words = outgoing.words;
    let mut info = Info::empty();
    let long = match (&outgoing.long, incoming.long) {
        (Some(from), Some(into)) => {
            from.copy_to(cpu, &into);
            info |= Info::LONG;
            words[ADDRESS_WORD] = into.start().0;
            words[BYTES_WORD] = from.bytes();
            Some(into)
        }
        _ => None,
    };
    let capability = outgoing.capability.zip(incoming.slot).map(|((node, rights), slot)| {
        info |= Info::CAPABILITY;
        words[CAPABILITY_WORD] = slot.into();
        (node, rights, slot)
    });
    Delivery { words: message(outgoing.badge, info, words), long, capability, sender }
}

/// The receiver, with its mm loaded, looks at what was delivered: the answer to its system call. The sender is told.
pub(crate) fn receive<A: Arch>(cpu: &'static Cpu<A>, thread: &Arc<Thread<A>>, delivery: Delivery<A>) -> [u64; WORDS] {
    let Delivery { words, long, capability, sender } = delivery;
    let mut result = Ok(());
    if long.as_ref().is_some_and(|long| crate::guard!(IpcPinAgain) && !long.is_still_there(cpu)) {
        result = Err((Status::Undelivered, Status::BufferGone));
    }
    if result.is_ok()
        && let Some((node, rights, slot)) = capability
        && let Err(status) = accept(&node, thread, slot, rights)
    {
        result = Err((Status::Undelivered, status));
    }
    drop(long);
    let told = result.map_or_else(|(sender, _)| sender, |()| Status::Done);
    if let Some(sender) = &sender {
        tell(cpu, sender, told);
    }
    match result {
        Ok(()) => words,
        Err((_, status)) => {
            if let Some(Sender::Awaits(_)) = sender {
                let _told = thread.state.lock().caller.take();
            }
            just(status)
        }
    }
}

/// Puts a capability that came with a message into `slot` of the receiver's table.
fn accept<A: Arch>(node: &Weak<Node<A>>, thread: &Thread<A>, slot: u32, rights: Rights) -> Result<(), Status> {
    let node = node.upgrade().ok_or(Status::Gone)?;
    capability::derive(&node, &thread.process.table, slot, rights, 0).map_err(|error| error.status())?;
    Ok(())
}

/// Gives a taken receiver what is for it, and wakes it.
fn give<A: Arch>(cpu: &'static Cpu<A>, receiver: &Arc<Thread<A>>, delivery: Delivery<A>, caller: Option<Caller<A>>) {
    {
        let mut state = receiver.state.lock();
        state.phase = Phase::Runs;
        if let Some(caller) = caller {
            state.caller.set(caller);
        }
        if delivery.long.is_none() && delivery.capability.is_none() {
            state.answer = Some(delivery.words);
        } else {
            state.delivery = Some(delivery);
        }
    }
    sched::wake(cpu, receiver);
}

/// Answers `client`, which was taken from its reply, with words alone, as [`reply`] does.
pub(crate) fn give_short<A: Arch>(cpu: &'static Cpu<A>, client: &Arc<Thread<A>>, words: [u64; MESSAGE_WORDS]) {
    let words = message(0, Info::empty(), words);
    give(cpu, client, Delivery { words, long: None, capability: None, sender: None }, None);
}

/// Sends `outgoing` to `endpoint` and waits for the answer, into `incoming`.
pub(crate) fn call<A: Arch>(
    cpu: &'static Cpu<A>,
    thread: &Arc<Thread<A>>,
    endpoint: &Arc<Endpoint<A>>,
    outgoing: Outgoing<A>,
    incoming: Incoming<A>,
) -> Result<(), Status> {
    let mut meeting = endpoint.meeting.lock();
    if meeting.ended {
        return Err(Status::Gone);
    }
    let Some(receiver) = meeting.receivers.first() else {
        deadline::may_time_out(cpu, thread);
        thread.state.lock().begin_at(endpoint, Phase::Calling { outgoing, incoming });
        meeting.callers.push(thread.clone());
        return Ok(());
    };
    let ready = receiver.state.lock().take_receiving(|incoming| fits(&outgoing, incoming));
    let Some(ready) = ready else { return Err(Status::TooLong) };
    let Some(receiver) = meeting.receivers.pop() else { return Err(Status::Gone) };
    drop(meeting);
    deadline::may_time_out(cpu, thread);
    let caller = {
        let mut state = thread.state.lock();
        let caller = Caller::begin(thread);
        state.phase = Phase::Awaiting { incoming };
        caller
    };
    let delivery = hand_over(cpu, outgoing, ready, Some(Sender::Awaits(caller.clone())));
    give(cpu, &receiver, delivery, Some(caller));
    Ok(())
}

/// Calls the pager of `thread`'s process for a fault, or, with `again`, for a page that its system call needs, which is
/// then to be done again. False if it has none, or it is gone.
pub(crate) fn call_pager<A: Arch>(
    cpu: &'static Cpu<A>,
    thread: &Arc<Thread<A>>,
    at: VirtAddr,
    access: u64,
    again: bool,
) -> bool {
    let Some((endpoint, badge)) = thread.process.pager() else { return false };
    let words = [FAULT, at.0, access, thread.id.into(), 0, 0];
    let outgoing = Outgoing { words, badge, long: None, capability: None };
    {
        let mut state = thread.state.lock();
        (state.fault, state.retry) = (true, again);
    }
    let called = call(cpu, thread, &endpoint, outgoing, Incoming { long: None, slot: None });
    if called.is_err() {
        let mut state = thread.state.lock();
        (state.fault, state.retry) = (false, false);
    }
    called.is_ok()
}

/// Answers the call that `thread` received last. `Ok(true)`: it waits until the answer has arrived.
pub(crate) fn reply<A: Arch>(
    cpu: &'static Cpu<A>,
    thread: &Arc<Thread<A>>,
    outgoing: Outgoing<A>,
    confirmed: bool,
) -> Result<bool, Status> {
    let caller = thread.state.lock().caller.take().ok_or(Status::NobodyWaits)?;
    let (client, incoming) = take_awaiting(&caller).ok_or(Status::NobodyWaits)?;
    let fault = core::mem::take(&mut client.state.lock().fault);
    if fault {
        if outgoing.words[0] != FAULT_HANDLED && !wait::give_up_again(&client, Status::BufferGone) {
            client.end(cpu, Status::NotMapped as u64);
        }
        client.state.lock().phase = Phase::Runs;
        sched::wake(cpu, &client);
        return Ok(false);
    }
    if !fits(&outgoing, &incoming) {
        wait::wake_with(cpu, &client, Status::TooLong);
        return Err(Status::TooLong);
    }
    let waits = confirmed && (outgoing.long.is_some() || outgoing.capability.is_some());
    let sender = waits.then(|| {
        deadline::may_time_out(cpu, thread);
        Sender::Confirms(thread.state.lock().begin_confirming(thread))
    });
    let delivery = hand_over(cpu, outgoing, incoming, sender);
    give(cpu, &client, delivery, None);
    Ok(waits)
}

/// Receives the next call at `endpoint`, or waits for one.
pub(crate) fn wait_for_call<A: Arch>(
    cpu: &'static Cpu<A>,
    thread: &Arc<Thread<A>>,
    endpoint: &Arc<Endpoint<A>>,
    info: Info,
) -> Result<Outcome, Refused> {
    let unanswered = thread.state.lock().caller.take();
    if let Some(caller) = unanswered {
        tell(cpu, &Sender::Awaits(caller), Status::Unanswered);
    }
    let incoming = expect(cpu, thread, info)?;
    let since = sched::ticks(cpu);
    loop {
        let mut meeting = endpoint.meeting.lock();
        if meeting.ended {
            return Err(Status::Gone.into());
        }
        let Some(first) = meeting.callers.first() else {
            deadline::may_time_out(cpu, thread);
            thread.state.lock().receive_at(endpoint, incoming.long);
            meeting.receivers.push(thread.clone());
            return Ok(Outcome::Waits);
        };
        // What it waits for changes while the queue is locked, so that who finds it gone from there finds it in its
        // reply.
        let (taken, who) = {
            let mut state = first.state.lock();
            let Phase::Calling { outgoing, incoming: theirs } = core::mem::replace(&mut state.phase, Phase::Taken)
            else {
                unreachable!("a thread in a queue of callers calls")
            };
            if fits(&outgoing, &incoming) {
                let who = Caller::begin(first);
                state.phase = Phase::Awaiting { incoming: theirs };
                (Ok(outgoing), Some(who))
            } else {
                (Err((outgoing, theirs)), None)
            }
        };
        let caller = meeting.callers.pop();
        drop(meeting);
        let (outgoing, who) = match (taken, who, caller) {
            (Ok(outgoing), Some(who), _) => (outgoing, who),
            (too_long, _, caller) => {
                drop(too_long);
                caller.inspect(|caller| wait::wake_with(cpu, caller, Status::TooLong));
                pause!(cpu, Refused);
                // Who was refused may call again at once, and be refused again: that keeps nobody from this CPU.
                if sched::is_wanted(cpu, thread.priority(), since) {
                    thread.state.lock().retry = true;
                    return Err(Refused::Again);
                }
                continue;
            }
        };
        thread.state.lock().caller.set(who.clone());
        let delivery = hand_over(cpu, outgoing, incoming, Some(Sender::Awaits(who)));
        return Ok(Outcome::Answer(receive(cpu, thread, delivery)));
    }
}

/// Takes the bits of `notification`, or waits for some.
pub(crate) fn wait_for_bits<A: Arch>(
    cpu: &'static Cpu<A>,
    thread: &Arc<Thread<A>>,
    notification: &Arc<Notification<A>>,
) -> Result<Outcome, Status> {
    let mut bits = notification.bits.lock();
    if bits.ended {
        return Err(Status::Gone);
    }
    if bits.bits != 0 {
        let taken = core::mem::take(&mut bits.bits);
        return Ok(Outcome::Answer([Status::Done as u64, taken, 0, 0, 0, 0, 0, 0]));
    }
    deadline::may_time_out(cpu, thread);
    thread.state.lock().phase = Phase::Listening { notification: notification.clone() };
    bits.waiting.push(thread.clone());
    Ok(Outcome::Waits)
}
