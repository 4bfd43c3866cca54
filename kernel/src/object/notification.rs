//! Notifications: 64 bits that are set by signals and taken, all at once, by whoever waits. A signal never waits.

use alloc::sync::{Arc, Weak};

use super::account::{Account, Paid, Price};
use super::capability::Node;
use super::{Object, ObjectError};
use crate::abi::Status;
use crate::arch::Arch;
use crate::ipc::queue::Queue;
use crate::ipc::wait;
use crate::smp::cpu::Cpu;
use crate::smp::lock::Mutex;

/// The bits, and who waits for any.
pub(crate) struct Bits<A: Arch> {
    pub(crate) bits: u64,
    pub(crate) waiting: Queue<A>,
    pub(crate) ended: bool,
}

/// The capability to a notification that something is bound to, and the bits to set. It may be gone.
pub(super) type Bound<A> = (Weak<Node<A>>, u64);

/// Sets the bits of whoever is `bound`, if the capability is still there.
pub(super) fn signal_bound<A: Arch>(cpu: &'static Cpu<A>, bound: Option<Bound<A>>) {
    let Some((node, bits)) = bound else { return };
    let Some(node) = node.upgrade().filter(|node| node.is_alive()) else { return };
    if let Object::Notification(notification) = node.object() {
        notification.signal(cpu, bits);
    }
}

/// A notification.
pub struct Notification<A: Arch> {
    pub(crate) bits: Mutex<A, Bits<A>>,
    _paid: Paid,
}

impl<A: Arch> Notification<A> {
    /// One without a bit set.
    pub fn new(payer: &Arc<Account>) -> Result<Arc<Notification<A>>, ObjectError> {
        let paid = payer.charge(Price::of::<Notification<A>>())?;
        let bits = Bits { bits: 0, waiting: Queue::default(), ended: false };
        Ok(Arc::new(Notification { bits: Mutex::<A, _>::new(bits), _paid: paid }))
    }

    /// Sets `bits`, and gives all that are set to who has waited longest, if anybody does.
    pub fn signal(&self, cpu: &'static Cpu<A>, bits: u64) {
        let woken = {
            let mut state = self.bits.lock();
            state.bits |= bits;
            if state.bits == 0 {
                return;
            }
            let waiting = state.waiting.pop();
            waiting.map(|thread| (thread, core::mem::take(&mut state.bits)))
        };
        if let Some((thread, bits)) = woken {
            wait::wake_with_words(cpu, &thread, [Status::Done as u64, bits, 0, 0, 0, 0, 0, 0]);
        }
    }

    /// It ends: one of those who wait is told. True: nobody waits any more.
    pub(super) fn end_some(&self, cpu: &'static Cpu<A>) -> bool {
        let one = {
            let mut state = self.bits.lock();
            state.ended = true;
            state.waiting.pop()
        };
        let Some(thread) = one else { return true };
        wait::wake_with(cpu, &thread, Status::Gone);
        false
    }
}
