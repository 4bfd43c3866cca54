//! Where a thread is that waits for an answer, and who has to give one.
//!
//! Each thread has one [`Reply`], for ever. Who begins to wait puts itself there and gets the number of this wait; who
//! has received its call keeps both ([`Unanswered`]). *Taking* the thread out is one compare-and-swap of the number by
//! 0: the answer, the end of its patience and the end of the thread all do that, and one of them gets it. A number is
//! used once, so who comes with an old one, because its caller has given up and waits elsewhere by now, takes nobody.
//!
//! A reply names its thread by a plain pointer. The thread is alive while the number is not 0: a reference to it was
//! put in with the number, and goes to whoever takes it.

use alloc::sync::Arc;
use core::ptr;
use core::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

use crate::arch::Arch;
use crate::object::thread::Thread;
use crate::task::place::Place;

/// A thread's place to wait for an answer.
pub(crate) struct Reply<A: Arch> {
    /// The number of the wait that is on, or 0.
    wait: AtomicU64,
    /// Of the last one. Changed by whoever has the thread.
    last: AtomicU64,
    /// Whose it is. Valid while `wait` is not 0.
    thread: AtomicPtr<Thread<A>>,
}

impl<A: Arch> Default for Reply<A> {
    fn default() -> Self {
        Reply { wait: AtomicU64::new(0), last: AtomicU64::new(0), thread: AtomicPtr::new(ptr::null_mut()) }
    }
}

impl<A: Arch> Reply<A> {
    /// It is that of `thread`, which is new and has not waited.
    pub(crate) fn belongs_to(&self, thread: &Arc<Thread<A>>) {
        self.thread.store(Arc::as_ptr(thread).cast_mut(), Ordering::Relaxed);
    }
}

impl<A: Arch> Reply<A> {
    /// Puts the thread whose reply this is, and a reference to which is given away with this, there to wait. The number
    /// of the wait.
    #[inline(always)]
    fn begin(&self) -> u64 {
        let wait = self.last.load(Ordering::Relaxed) + 1;
        self.last.store(wait, Ordering::Relaxed);
        // AcqRel: whoever takes the thread sees what it left, and a thread that `take_any` came too early for sees that
        // it ends. Pairs with both that take (tests/litmus/call-ring).
        self.wait.swap(wait, Ordering::AcqRel);
        wait
    }

    #[inline(always)]
    fn take(&self, wait: u64) -> Option<Arc<Thread<A>>> {
        // Acquire: pairs with `begin` (tests/litmus/hand-over).
        self.wait.compare_exchange(wait, 0, Ordering::Acquire, Ordering::Relaxed).ok()?;
        // SAFETY: `begin` was given a reference to the thread with this number, which nobody takes twice.
        Some(unsafe { Arc::from_raw(self.thread.load(Ordering::Relaxed)) })
    }

    /// Takes the thread, whichever wait it is in.
    pub(crate) fn take_any(&self) -> Option<Arc<Thread<A>>> {
        // AcqRel: pairs with `begin` (tests/litmus/call-ring).
        if self.wait.swap(0, Ordering::AcqRel) == 0 {
            return None;
        }
        // SAFETY: as in `take`.
        Some(unsafe { Arc::from_raw(self.thread.load(Ordering::Relaxed)) })
    }
}

/// A thread in one of its waits for an answer. It may have stopped to wait since.
pub(crate) struct Caller<A: Arch> {
    reply: Arc<Reply<A>>,
    wait: u64,
}

impl<A: Arch> Clone for Caller<A> {
    fn clone(&self) -> Self {
        Caller { reply: self.reply.clone(), wait: self.wait }
    }
}

impl<A: Arch> Caller<A> {
    /// `thread`, which the calling code has, begins to wait. Under the lock of its state.
    pub(crate) fn begin(thread: &Arc<Thread<A>>) -> Caller<A> {
        let _in_reply = Arc::into_raw(thread.clone());
        let wait = thread.reply.begin();
        Caller { reply: thread.reply.clone(), wait }
    }

    /// Takes the thread, if it still waits for this answer.
    pub(crate) fn take(&self) -> Option<Arc<Thread<A>>> {
        self.reply.take(self.wait)
    }
}

/// Whom a thread has received from and not answered, if anybody. It keeps the last one's reply, so that calls by the
/// same one need not be counted in and out.
pub(crate) struct Unanswered<A: Arch> {
    /// At first the thread's own, by which nobody can be meant.
    reply: Arc<Reply<A>>,
    /// 0: nobody. Whom the short way has answered is not forgotten: the number is used, and finds nobody.
    wait: u64,
    /// Where it runs, if its call took the short way ([`crate::task::fast`]).
    place: Place,
}

impl<A: Arch> Unanswered<A> {
    /// That of a thread whose reply is `own`, which has received from nobody.
    pub(crate) fn new(own: Arc<Reply<A>>) -> Unanswered<A> {
        Unanswered { reply: own, wait: 0, place: Place::NOWHERE }
    }

    /// Has received from `caller`.
    pub(crate) fn set(&mut self, caller: Caller<A>) {
        *self = Unanswered { reply: caller.reply, wait: caller.wait, place: Place::NOWHERE };
    }

    /// Forgets it.
    pub(crate) fn take(&mut self) -> Option<Caller<A>> {
        self.place = Place::NOWHERE;
        let wait = core::mem::take(&mut self.wait);
        (wait != 0).then(|| Caller { reply: self.reply.clone(), wait })
    }

    /// Where the one runs whose call took the short way.
    #[inline(always)]
    pub(crate) fn place(&self) -> Place {
        self.place
    }

    /// Whether the last one was `thread`.
    #[inline(always)]
    pub(crate) fn was(&self, thread: &Thread<A>) -> bool {
        Arc::ptr_eq(&self.reply, &thread.reply)
    }

    /// Has received from `thread`, which runs on this CPU at `place`, begins to wait with this and is given away with
    /// it. False: nothing was done, since it ends. Without `ANY` it was the last one too.
    ///
    /// # Safety
    /// If true, the reference that `thread` stands for is given up by the caller.
    #[inline(always)]
    pub(crate) unsafe fn set_running<const ANY: bool>(&mut self, thread: &Thread<A>, place: Place) -> bool {
        let wait = thread.reply.begin();
        // Who ends it says so, then takes it from its reply: it is in order with the exchange in `begin`, so either he
        // has found it there or it finds here that it ends. If he has, it is in a queue by now, and the call is one
        // that nobody waits for.
        if thread.is_told_to_end()
            && let Some(thread) = thread.reply.take(wait)
        {
            let _ = Arc::into_raw(thread);
            return false;
        }
        (self.wait, self.place) = (wait, place);
        if ANY && !self.was(thread) {
            self.reply = thread.reply.clone();
        }
        true
    }

    /// Takes the one that waits, if it still does: its call took the short way.
    #[inline(always)]
    pub(crate) fn take_running(&mut self) -> Option<Arc<Thread<A>>> {
        // Whose call took the short way, where `place` says that it did.
        debug_assert!(self.wait != 0);
        // Where it ran stays: it says something of this wait only, whose number is used now.
        self.reply.take(self.wait)
    }
}
