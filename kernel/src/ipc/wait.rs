//! Waiting: what a thread waits for, who may end that, and how.
//!
//! A thread that waits in a queue is *taken* by removing it from there under the queue's lock; one that waits for an
//! answer, or for a confirmation, out of its `Reply`. Whoever
//! takes it, and nobody else, gives it something and wakes it: a partner, a time that is over, or whoever ends it or
//! what it waits at. Locks: the queue's, then the thread's.
//!
//! What a message consists of is moved from one place to the next: pinned pages, which most messages have none of, lie
//! in a box of their own.

use alloc::boxed::Box;
use alloc::sync::{Arc, Weak};

use super::pin::Pinned;
use super::reply::{Caller, Reply, Unanswered};
use crate::abi::message::Info;
use crate::abi::{MESSAGE_WORDS, Rights, Status, WORDS};
use crate::addr::VirtAddr;
use crate::arch::Arch;
use crate::object::capability::Node;
use crate::object::endpoint::Endpoint;
use crate::object::notification::Notification;
use crate::object::process::Process;
use crate::object::removal::Removal;
use crate::object::thread::Thread;
use crate::smp::cpu::Cpu;
use crate::task::sched;

/// A message on its way.
pub(crate) struct Outgoing<A: Arch> {
    pub(crate) words: [u64; MESSAGE_WORDS],
    pub(crate) badge: u32,
    pub(crate) long: Option<Box<Pinned<A>>>,
    /// What goes with it, if that is still there when it is received.
    pub(crate) capability: Option<(Weak<Node<A>>, Rights)>,
}

/// What a thread has ready to receive into.
pub(crate) struct Incoming<A: Arch> {
    pub(crate) long: Option<Box<Pinned<A>>>,
    pub(crate) slot: Option<u32>,
}

/// Who is told what became of a message.
pub(crate) enum Sender<A: Arch> {
    /// One that waits for the answer: told that there will be none.
    Awaits(Caller<A>),
    /// One that waits for nothing but this. It may be gone, or wait for something else by now.
    Confirms(Caller<A>),
}

/// A message that lies in the receiver's pages and that the receiver has not yet looked at.
pub(crate) struct Delivery<A: Arch> {
    pub(crate) words: [u64; WORDS],
    pub(crate) long: Option<Box<Pinned<A>>>,
    /// See [`Outgoing`]; and the slot.
    pub(crate) capability: Option<(Weak<Node<A>>, Rights, u32)>,
    /// Who is told if it did not arrive; none of a short answer, which always does.
    pub(crate) sender: Option<Sender<A>>,
}

/// What a thread does.
#[derive(Default)]
#[repr(u8)]
pub(crate) enum Phase<A: Arch> {
    /// It runs, or is in a CPU's queue.
    #[default]
    Runs,
    /// Somebody is about to give it something.
    Taken,
    /// It calls, and nobody has received from it.
    Calling { outgoing: Outgoing<A>, incoming: Incoming<A> },
    /// It waits for the answer, if it is in its [`super::reply::Reply`]; else that has come.
    Awaiting { incoming: Incoming<A> },
    /// It waits for a call, with its buffer ready for a long one.
    Receiving { long: Box<Pinned<A>> },
    /// It waits for a call.
    ReceivingShort,
    /// It waits for bits.
    Listening { notification: Arc<Notification<A>> },
    /// It has answered, and waits until that has arrived, if it is in its [`super::reply::Reply`]; else it has.
    Confirming,
}

/// A system call that is gone on with when its thread runs next.
pub(crate) enum Unfinished<A: Arch> {
    /// It removes capabilities.
    Removal(Removal<A>),
    /// It undoes a mapping of this process, which began here. Nothing is left of it if the process is gone.
    Unmapping(Weak<Process<A>>, VirtAddr),
    /// It has ended this process, which is taken down before it is answered.
    Ends(Weak<Process<A>>),
}

/// What others leave for a thread, and what they need to know of it.
pub(crate) struct State<A: Arch> {
    pub(crate) phase: Phase<A>,
    /// The endpoint where it calls or receives, or did last.
    at: Weak<Endpoint<A>>,
    /// Its address.
    at_address: usize,
    /// To be put into its registers.
    pub(crate) answer: Option<[u64; WORDS]>,
    /// To be looked at before that.
    pub(crate) delivery: Option<Delivery<A>>,
    /// It waits because of a fault: nothing goes into its registers.
    pub(crate) fault: bool,
    /// Its system call is to be done again.
    pub(crate) retry: bool,
    /// Its system call, where that is not over and others wanted its CPU.
    pub(crate) unfinished: Option<Unfinished<A>>,
    /// Its answer to a caller has been dealt with: how. The wait is yet to come.
    pub(crate) replied: Option<Status>,
    /// Whom it has received from and not answered.
    pub(crate) caller: Unanswered<A>,
    /// Where long messages go: address and length.
    pub(crate) buffer: Option<(VirtAddr, u64)>,
    /// Where capabilities go.
    pub(crate) slot: Option<u32>,
}

impl<A: Arch> State<A> {
    /// That of a new thread, whose reply is `own`.
    pub(crate) fn new(own: Arc<Reply<A>>) -> State<A> {
        State {
            phase: Phase::Runs,
            at: Weak::new(),
            at_address: 0,
            answer: None,
            delivery: None,
            fault: false,
            retry: false,
            unfinished: None,
            replied: None,
            caller: Unanswered::new(own),
            buffer: None,
            slot: None,
        }
    }
}

impl<A: Arch> State<A> {
    /// Begins a wait at `endpoint`, in whose lock this is.
    pub(crate) fn begin_at(&mut self, endpoint: &Arc<Endpoint<A>>, phase: Phase<A>) {
        self.stay_at(endpoint);
        self.phase = phase;
    }

    /// What it begins to wait for is at `endpoint`.
    pub(crate) fn stay_at(&mut self, endpoint: &Arc<Endpoint<A>>) {
        if !self.is_at(endpoint) {
            (self.at, self.at_address) = (Arc::downgrade(endpoint), Arc::as_ptr(endpoint) as usize);
        }
    }

    /// Begins to wait for a call at `endpoint`, whose lock is held.
    pub(crate) fn receive_at(&mut self, endpoint: &Arc<Endpoint<A>>, long: Option<Box<Pinned<A>>>) {
        let phase = long.map_or(Phase::ReceivingShort, |long| Phase::Receiving { long });
        self.begin_at(endpoint, phase);
    }

    /// Takes what it has ready to receive a call into, if it waits for one and that `fits`.
    pub(crate) fn take_receiving(&mut self, fits: impl FnOnce(&Incoming<A>) -> bool) -> Option<Incoming<A>> {
        let slot = self.slot;
        let incoming = match core::mem::replace(&mut self.phase, Phase::Taken) {
            Phase::Receiving { long } => Incoming { long: Some(long), slot },
            Phase::ReceivingShort => Incoming { long: None, slot },
            other => {
                self.phase = other;
                return None;
            }
        };
        if fits(&incoming) {
            return Some(incoming);
        }
        self.phase = match incoming.long {
            Some(long) => Phase::Receiving { long },
            None => Phase::ReceivingShort,
        };
        None
    }

    /// Whether it waits for a call, and has no buffer ready for a long one.
    #[inline(always)]
    pub(crate) fn receives_short(&self) -> bool {
        matches!(self.phase, Phase::ReceivingShort)
    }

    /// It has the call that it waited for, since [`State::receives_short`].
    #[inline(always)]
    pub(crate) fn received_short(&mut self) {
        // A phase that has nothing in it: there is nothing to drop.
        core::mem::forget(core::mem::replace(&mut self.phase, Phase::Runs));
    }

    /// It runs, and begins to wait for a short call at the endpoint where it [`State::is_at`], whose lock is held.
    #[inline(always)]
    pub(crate) fn receive_short(&mut self) {
        debug_assert!(matches!(self.phase, Phase::Runs));
        // As above: a thread that runs has `Runs`.
        core::mem::forget(core::mem::replace(&mut self.phase, Phase::ReceivingShort));
    }

    /// Whether the endpoint where it waits or waited last is this one.
    #[inline(always)]
    pub(crate) fn is_at(&self, endpoint: &Endpoint<A>) -> bool {
        self.at_address == core::ptr::from_ref(endpoint) as usize
    }

    /// `thread`, whose state this is and which the calling code has, begins to wait for a confirmation.
    pub(crate) fn begin_confirming(&mut self, thread: &Arc<Thread<A>>) -> Caller<A> {
        self.phase = Phase::Confirming;
        Caller::begin(thread)
    }
}

/// An answer that is a status alone.
pub(crate) fn just(status: Status) -> [u64; WORDS] {
    [status as u64, 0, 0, 0, 0, 0, 0, 0]
}

/// The first two words of an answer that is a message, then its words.
pub(crate) fn message(badge: u32, info: Info, words: [u64; MESSAGE_WORDS]) -> [u64; WORDS] {
    let [a, b, c, d, e, f] = words;
    [Status::Done as u64, crate::abi::message::pack(badge, info), a, b, c, d, e, f]
}

/// Wakes `thread`, which the caller has taken, with `status`.
pub(crate) fn wake_with<A: Arch>(cpu: &'static Cpu<A>, thread: &Arc<Thread<A>>, status: Status) {
    wake_with_words(cpu, thread, just(status));
}

/// Wakes `thread`, which the caller has taken, with an answer.
pub(crate) fn wake_with_words<A: Arch>(cpu: &'static Cpu<A>, thread: &Arc<Thread<A>>, words: [u64; WORDS]) {
    let (fault, _pins) = {
        let mut state = thread.state.lock();
        let phase = core::mem::take(&mut state.phase);
        // Its pager did not come: a system call can be answered nevertheless.
        let fault = core::mem::take(&mut state.fault);
        let again = fault && core::mem::take(&mut state.retry);
        if again {
            state.replied = None;
        }
        let fault = fault && !again;
        if !fault {
            state.answer = Some(words);
        }
        (fault, phase)
    };
    if fault {
        // An instruction cannot go on.
        thread.end(cpu, words[0]);
    }
    sched::wake(cpu, thread);
}

/// The system call of `thread`, which is to be done again, is answered instead. False if there is none.
pub(crate) fn give_up_again<A: Arch>(thread: &Thread<A>, status: Status) -> bool {
    let mut state = thread.state.lock();
    let again = core::mem::take(&mut state.retry);
    if again {
        state.replied = None;
        state.answer = Some(just(status));
    }
    again
}

/// Takes the one that waits for this answer, if it still does, with what it has ready to receive into.
pub(crate) fn take_awaiting<A: Arch>(caller: &Caller<A>) -> Option<(Arc<Thread<A>>, Incoming<A>)> {
    let thread = caller.take()?;
    let mut state = thread.state.lock();
    let incoming = match core::mem::replace(&mut state.phase, Phase::Taken) {
        Phase::Awaiting { incoming } => incoming,
        // Its call took the short way, which puts nothing down.
        _ => Incoming { long: None, slot: state.slot },
    };
    drop(state);
    Some((thread, incoming))
}

/// Tells a sender what became of its message: one that waits for the answer only if there will be none.
pub(crate) fn tell<A: Arch>(cpu: &'static Cpu<A>, sender: &Sender<A>, status: Status) {
    match sender {
        Sender::Awaits(caller) => {
            if status != Status::Done
                && let Some((thread, _incoming)) = take_awaiting(caller)
            {
                wake_with(cpu, &thread, status);
            }
        }
        Sender::Confirms(confirms) => {
            let Some(thread) = confirms.take() else { return };
            {
                let mut state = thread.state.lock();
                state.phase = Phase::Runs;
                state.replied = Some(status);
                state.retry = true;
            }
            sched::wake(cpu, &thread);
        }
    }
}

/// Ends whatever `thread` waits for, with `status`; nothing if it does not wait, or somebody else has taken it.
pub(crate) fn cancel<A: Arch>(cpu: &'static Cpu<A>, thread: &Arc<Thread<A>>, status: Status) {
    enum At<A: Arch> {
        Endpoint(Arc<Endpoint<A>>),
        Notification(Arc<Notification<A>>),
        Taken,
    }
    let at = {
        let state = thread.state.lock();
        if thread.reply.take_any().is_some() {
            At::Taken
        } else {
            match &state.phase {
                Phase::Runs | Phase::Taken | Phase::Awaiting { .. } | Phase::Confirming => return,
                // If it has ended it has told all who waited there.
                Phase::Calling { .. } | Phase::Receiving { .. } | Phase::ReceivingShort => match state.at.upgrade() {
                    Some(endpoint) => At::Endpoint(endpoint),
                    None => return,
                },
                Phase::Listening { notification } => At::Notification(notification.clone()),
            }
        }
    };
    let taken = match at {
        At::Endpoint(endpoint) => {
            let mut meeting = endpoint.meeting.lock();
            let queued = meeting.callers.remove(thread) || meeting.receivers.remove(thread);
            drop(meeting);
            // Its call was received meanwhile: now it waits for the answer.
            queued || thread.reply.take_any().is_some()
        }
        At::Notification(notification) => notification.bits.lock().waiting.remove(thread),
        At::Taken => true,
    };
    if taken {
        wake_with(cpu, thread, status);
    }
}

/// `thread` ends: those who wait for it are told.
pub(crate) fn abandon<A: Arch>(cpu: &'static Cpu<A>, thread: &Arc<Thread<A>>) {
    let (caller, delivery) = {
        let mut state = thread.state.lock();
        (state.caller.take(), state.delivery.take())
    };
    if let Some(Delivery { sender: Some(sender), .. }) = &delivery {
        tell(cpu, sender, Status::Undelivered);
    }
    if let Some(caller) = caller {
        tell(cpu, &Sender::Awaits(caller), Status::Unanswered);
    }
}
