//! Threads that wait at an endpoint or a notification, in the order in which they are taken.

use alloc::collections::VecDeque;
use alloc::sync::Arc;

use crate::arch::Arch;
use crate::object::account::trim_queue;
use crate::object::thread::Thread;

/// Threads that wait, the most urgent first; of the same priority the first to come. One alone needs no memory.
pub(crate) struct Queue<A: Arch> {
    first: Option<Arc<Thread<A>>>,
    others: VecDeque<Arc<Thread<A>>>,
}

impl<A: Arch> Default for Queue<A> {
    fn default() -> Self {
        Queue { first: None, others: VecDeque::new() }
    }
}

impl<A: Arch> Queue<A> {
    pub(crate) fn push(&mut self, thread: Arc<Thread<A>>) {
        match self.first {
            None => self.first = Some(thread),
            Some(_) => self.push_behind(thread),
        }
    }

    /// Puts `thread` into the queue, which is empty.
    #[inline(always)]
    pub(crate) fn push_first(&mut self, thread: Arc<Thread<A>>) {
        debug_assert!(self.first.is_none());
        // There is nothing to drop.
        core::mem::forget(self.first.replace(thread));
    }

    /// Whether there is no more than one.
    #[inline(always)]
    pub(crate) fn is_alone(&self) -> bool {
        self.others.is_empty()
    }

    /// Takes the only one.
    #[inline(always)]
    pub(crate) fn pop_alone(&mut self) -> Option<Arc<Thread<A>>> {
        debug_assert!(self.is_alone());
        self.first.take()
    }

    fn push_behind(&mut self, thread: Arc<Thread<A>>) {
        match &mut self.first {
            Some(first) if first.priority() < thread.priority() => {
                let later = core::mem::replace(first, thread);
                self.others.push_front(later);
            }
            _ => {
                let at = self.others.partition_point(|other| other.priority() >= thread.priority());
                self.others.insert(at, thread);
            }
        }
    }

    #[inline]
    pub(crate) fn first(&self) -> Option<&Arc<Thread<A>>> {
        self.first.as_ref()
    }

    pub(crate) fn pop(&mut self) -> Option<Arc<Thread<A>>> {
        let first = self.first.take();
        if !self.others.is_empty() {
            self.first = self.others.pop_front();
            self.shrink();
        }
        first
    }

    pub(crate) fn remove(&mut self, thread: &Arc<Thread<A>>) -> bool {
        if self.first.as_ref().is_some_and(|first| Arc::ptr_eq(first, thread)) {
            self.pop();
            return true;
        }
        let at = self.others.iter().position(|other| Arc::ptr_eq(other, thread));
        if let Some(at) = at {
            self.others.remove(at);
            self.shrink();
        }
        at.is_some()
    }

    /// Threads pay for their places: those of threads that have gone are given back.
    fn shrink(&mut self) {
        trim_queue(&mut self.others, 0);
    }
}
