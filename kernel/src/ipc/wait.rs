//! Waiting: what a thread waits for, who may end that, and how.
//!
//! A thread that waits in a queue is *taken* by removing it from there under the queue's lock; one that waits for an answer, by changing its phase under its own. Whoever takes it, and nobody
//! else, gives it something and wakes it: a partner, a time that is over, or whoever ends it or what it waits at. Locks: the queue's, then the thread's.

use alloc::collections::VecDeque;
use alloc::sync::{Arc, Weak};

use super::pin::Pinned;
use crate::abi::message::Info;
use crate::abi::{MESSAGE_WORDS, Rights, Status, WORDS};
use crate::addr::VirtAddr;
use crate::arch::Arch;
use crate::object::capability::Node;
use crate::object::endpoint::Endpoint;
use crate::object::notification::Notification;
use crate::object::thread::Thread;
use crate::smp::cpu::Cpu;
use crate::task::sched;

/// Threads that wait, the most urgent first; of the same priority the first to come.
pub(crate) struct Queue<A: Arch>(VecDeque<Arc<Thread<A>>>);

impl<A: Arch> Default for Queue<A> {
    fn default() -> Self {
        Queue(VecDeque::new())
    }
}

impl<A: Arch> Queue<A> {
    pub(crate) fn push(&mut self, thread: Arc<Thread<A>>) {
        let at = self.0.partition_point(|other| other.priority() >= thread.priority());
        self.0.insert(at, thread);
    }

    pub(crate) fn first(&self) -> Option<&Arc<Thread<A>>> {
        self.0.front()
    }

    pub(crate) fn pop(&mut self) -> Option<Arc<Thread<A>>> {
        let first = self.0.pop_front();
        self.shrink();
        first
    }

    pub(crate) fn remove(&mut self, thread: &Arc<Thread<A>>) -> bool {
        let at = self.0.iter().position(|other| Arc::ptr_eq(other, thread));
        if let Some(at) = at {
            self.0.remove(at);
            self.shrink();
        }
        at.is_some()
    }

    /// Threads pay for their places; an empty queue keeps none.
    fn shrink(&mut self) {
        if self.0.is_empty() {
            self.0 = VecDeque::new();
        }
    }
}

/// A message on its way.
pub(crate) struct Outgoing<A: Arch> {
    pub(crate) words: [u64; MESSAGE_WORDS],
    pub(crate) badge: u32,
    pub(crate) long: Option<Pinned<A>>,
    pub(crate) capability: Option<(Arc<Node<A>>, Rights)>,
}

/// What a thread has ready to receive into.
pub(crate) struct Incoming<A: Arch> {
    pub(crate) long: Option<Pinned<A>>,
    pub(crate) slot: Option<u32>,
}

/// Who is to be answered: a thread, and which of its waits that is. It may be gone, or wait for something else by now.
pub(crate) struct Caller<A: Arch> {
    pub(crate) thread: Weak<Thread<A>>,
    pub(crate) wait: u64,
}

/// A message that lies in the receiver's pages and that the receiver has not yet looked at.
pub(crate) struct Delivery<A: Arch> {
    pub(crate) words: [u64; WORDS],
    pub(crate) long: Option<Pinned<A>>,
    pub(crate) capability: Option<(Arc<Node<A>>, Rights, u32)>,
    /// Who is told if it did not arrive.
    pub(crate) sender: Option<Caller<A>>,
    /// The sender waits for nothing but this.
    pub(crate) confirm: bool,
}

/// What a thread does.
#[derive(Default)]
pub(crate) enum Phase<A: Arch> {
    /// It runs, or is in a CPU's queue.
    #[default]
    Runs,
    /// Somebody is about to give it something.
    Taken,
    /// It calls, and nobody has received from it.
    Calling { endpoint: Arc<Endpoint<A>>, outgoing: Outgoing<A>, incoming: Incoming<A> },
    /// It waits for the answer.
    Awaiting { incoming: Incoming<A> },
    /// It waits for a call.
    Receiving { endpoint: Arc<Endpoint<A>>, incoming: Incoming<A> },
    /// It waits for bits.
    Listening { notification: Arc<Notification<A>> },
    /// It has answered, and waits until that has arrived.
    Confirming,
}

/// What others leave for a thread, and what they need to know of it.
pub(crate) struct State<A: Arch> {
    pub(crate) phase: Phase<A>,
    /// How many waits it has begun.
    pub(crate) wait: u64,
    /// To be put into its registers.
    pub(crate) answer: Option<[u64; WORDS]>,
    /// To be looked at before that.
    pub(crate) delivery: Option<Delivery<A>>,
    /// It waits because of a fault: nothing goes into its registers.
    pub(crate) fault: bool,
    /// Its system call is to be done again.
    pub(crate) retry: bool,
    /// Its answer to a caller has been dealt with: how. The wait is yet to come.
    pub(crate) replied: Option<Status>,
    /// Whom it has received from and not answered.
    pub(crate) caller: Option<Caller<A>>,
    /// Where long messages go: address and length.
    pub(crate) buffer: Option<(VirtAddr, u64)>,
    /// Where capabilities go.
    pub(crate) slot: Option<u32>,
    /// For how many ticks it waits; 0 for ever.
    pub(crate) patience: u64,
}

impl<A: Arch> Default for State<A> {
    fn default() -> Self {
        State {
            phase: Phase::Runs,
            wait: 0,
            answer: None,
            delivery: None,
            fault: false,
            retry: false,
            replied: None,
            caller: None,
            buffer: None,
            slot: None,
            patience: 0,
        }
    }
}

impl<A: Arch> State<A> {
    /// Begins a wait in `phase`. In the lock of whatever queue it goes into.
    pub(crate) fn begin(&mut self, phase: Phase<A>) -> u64 {
        self.wait += 1;
        self.phase = phase;
        self.wait
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
        let fault = core::mem::take(&mut state.fault);
        if !fault {
            state.answer = Some(words);
        }
        (fault, phase)
    };
    if fault {
        // Its pager did not come: it cannot go on.
        thread.end(cpu, words[0]);
    }
    sched::wake(cpu, thread);
}

/// Takes the one that waits for an answer since its wait `wait`, if it still does.
pub(crate) fn take_awaiting<A: Arch>(caller: &Caller<A>) -> Option<(Arc<Thread<A>>, Incoming<A>)> {
    let thread = caller.thread.upgrade()?;
    let mut state = thread.state.lock();
    if state.wait != caller.wait || !matches!(state.phase, Phase::Awaiting { .. }) {
        return None;
    }
    let Phase::Awaiting { incoming } = core::mem::replace(&mut state.phase, Phase::Taken) else { return None };
    drop(state);
    Some((thread, incoming))
}

/// Tells a sender what became of its message: one that waits for the answer that there will be none; one that waits for nothing else, `status`.
pub(crate) fn tell<A: Arch>(cpu: &'static Cpu<A>, sender: &Caller<A>, confirm: bool, status: Status) {
    if !confirm {
        if status != Status::Done
            && let Some((thread, _incoming)) = take_awaiting(sender)
        {
            wake_with(cpu, &thread, status);
        }
        return;
    }
    let Some(thread) = sender.thread.upgrade() else { return };
    {
        let mut state = thread.state.lock();
        if state.wait != sender.wait || !matches!(state.phase, Phase::Confirming) {
            return;
        }
        state.phase = Phase::Runs;
        state.replied = Some(status);
        state.retry = true;
    }
    sched::wake(cpu, &thread);
}

/// Ends whatever `thread` waits for, with `status`; nothing if it does not wait, or somebody else has taken it.
pub(crate) fn cancel<A: Arch>(cpu: &'static Cpu<A>, thread: &Arc<Thread<A>>, status: Status) {
    enum At<A: Arch> {
        Endpoint(Arc<Endpoint<A>>),
        Notification(Arc<Notification<A>>),
        Taken,
    }
    let at = {
        let mut state = thread.state.lock();
        match &state.phase {
            Phase::Runs | Phase::Taken => return,
            Phase::Calling { endpoint, .. } | Phase::Receiving { endpoint, .. } => At::Endpoint(endpoint.clone()),
            Phase::Listening { notification } => At::Notification(notification.clone()),
            Phase::Awaiting { .. } | Phase::Confirming => {
                let phase = core::mem::replace(&mut state.phase, Phase::Taken);
                drop(state);
                drop(phase);
                At::Taken
            }
        }
    };
    let taken = match at {
        At::Endpoint(endpoint) => {
            let mut meeting = endpoint.meeting.lock();
            meeting.callers.remove(thread) || meeting.receivers.remove(thread)
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
    if let Some(Delivery { sender: Some(sender), confirm, .. }) = &delivery {
        tell(cpu, sender, *confirm, Status::Undelivered);
    }
    if let Some(caller) = caller {
        tell(cpu, &caller, false, Status::Unanswered);
    }
}
