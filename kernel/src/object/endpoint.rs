//! Endpoints: where callers and receivers meet. At most one of the two queues has anybody in it.

use alloc::sync::Arc;

use super::ObjectError;
use super::account::{Account, Paid, Price};
use crate::abi::Status;
use crate::arch::Arch;
use crate::ipc::queue::Queue;
use crate::ipc::wait;
use crate::smp::cpu::Cpu;
use crate::smp::lock::Mutex;

/// Who waits at an endpoint.
pub(crate) struct Meeting<A: Arch> {
    /// Callers whom nobody has received from.
    pub(crate) callers: Queue<A>,
    /// Receivers whom nobody has called.
    pub(crate) receivers: Queue<A>,
    /// Nobody comes any more.
    pub(crate) ended: bool,
    /// Until then. Who keeps it longer has paid for that: see [`super::thread::price`].
    paid: Option<Paid>,
}

/// An endpoint.
pub struct Endpoint<A: Arch> {
    pub(crate) meeting: Mutex<A, Meeting<A>>,
}

impl<A: Arch> Endpoint<A> {
    /// One where nobody waits.
    pub fn new(payer: &Arc<Account>) -> Result<Arc<Endpoint<A>>, ObjectError> {
        let paid = Some(payer.charge(Price::of::<Endpoint<A>>())?);
        let meeting = Meeting { callers: Queue::default(), receivers: Queue::default(), ended: false, paid };
        Ok(Arc::new(Endpoint { meeting: Mutex::<A, _>::new(meeting) }))
    }

    /// It ends: one of those who wait here is told. True: nobody waits any more.
    pub(super) fn end_some(&self, cpu: &'static Cpu<A>) -> bool {
        let (one, paid) = {
            let mut meeting = self.meeting.lock();
            meeting.ended = true;
            (meeting.callers.pop().or_else(|| meeting.receivers.pop()), meeting.paid.take())
        };
        drop(paid);
        let Some(thread) = one else { return true };
        wait::wake_with(cpu, &thread, Status::Gone);
        false
    }
}
