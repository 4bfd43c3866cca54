//! When a wait ends. Each CPU counts its own ticks, and a thread may wait on one CPU after another: a number of ticks says
//! nothing without the CPU whose they are. A thread whose waits end by time is in the list of at most one CPU, which
//! looks at it with its ticks; and in one while it waits.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;

use super::sched::{look_again, ticks};
use crate::abi::Status;
use crate::addr::CpuId;
use crate::arch::Arch;
use crate::ipc::wait;
use crate::object::account::trim;
use crate::object::thread::Thread;
use crate::pause;
use crate::smp::cpu::Cpu;

/// When a wait is over: in ticks of the CPU where it began, and which that is. In one word, so that no tick of one CPU is
/// taken for another's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Deadline(u64);

impl Deadline {
    const CPU_BITS: u32 = 16;
    /// Of who waits for ever, or not.
    pub(crate) const NEVER: Deadline = Deadline(u64::MAX);

    /// `ticks` from `now` on, on `cpu`.
    pub(crate) fn after(cpu: CpuId, now: u64, ticks: u64) -> Deadline {
        // Later than any machine runs is never.
        let last = Deadline::NEVER.ticks() - 1;
        Deadline(now.saturating_add(ticks).min(last) << Deadline::CPU_BITS | u64::from(cpu.0))
    }

    pub(crate) const fn bits(self) -> u64 {
        self.0
    }

    pub(crate) const fn from_bits(bits: u64) -> Deadline {
        Deadline(bits)
    }

    /// By whose clock.
    pub(crate) fn cpu(self) -> CpuId {
        CpuId(self.0 as u16)
    }

    /// When, by that.
    pub(crate) fn ticks(self) -> u64 {
        self.0 >> Deadline::CPU_BITS
    }
}

/// `thread`, which runs here, begins a wait: its patience counts from now.
pub(crate) fn may_time_out<A: Arch>(cpu: &'static Cpu<A>, thread: &Arc<Thread<A>>) {
    let patience = thread.patience.load(Ordering::Relaxed);
    if patience == 0 {
        thread.set_deadline(Deadline::NEVER);
        return;
    }
    thread.set_deadline(Deadline::after(cpu.id, ticks(cpu), patience));
    // Once in one CPU's list at most. If that is another's, because it has waited there before, that one hands it over
    // when it next looks, which is with its next tick.
    //
    // Release: pairs with the swap in `end_waits`, behind which the deadline is read (tests/litmus/hand-over).
    if !thread.timed.swap(true, Ordering::Release) {
        cpu.tasks.timed.lock().push(Arc::downgrade(thread));
    }
}

/// Ends the waits whose time is over, if the timer has fired since.
#[inline]
pub(super) fn end_waits<A: Arch>(cpu: &'static Cpu<A>) {
    let now = ticks(cpu);
    // This CPU alone looks.
    if cpu.tasks.looked.load(Ordering::Relaxed) != now {
        cpu.tasks.looked.store(now, Ordering::Relaxed);
        end_waits_at(cpu, now);
    }
}

#[cold]
fn end_waits_at<A: Arch>(cpu: &'static Cpu<A>, now: u64) {
    let (mut over, mut elsewhere) = (Vec::new(), Vec::new());
    {
        let mut timed = cpu.tasks.timed.lock();
        timed.retain(|thread| {
            let Some(thread) = thread.upgrade() else { return false };
            // It is in no list: if it begins another wait from here on it puts itself into one. Acquire: of a wait that
            // it began before, the deadline is that of it (tests/litmus/hand-over).
            thread.timed.swap(false, Ordering::Acquire);
            let deadline = thread.deadline();
            pause!(cpu, DeadlineRead);
            if deadline == Deadline::NEVER || thread.is_ending() {
                return false;
            }
            let here = deadline.cpu() == cpu.id;
            if here && deadline.ticks() <= now {
                over.push((thread, deadline));
                return false;
            }
            // In a list again, unless it has put itself into one.
            if thread.timed.swap(true, Ordering::Relaxed) {
                return false;
            }
            if !here {
                elsewhere.push((thread, deadline.cpu()));
            }
            here
        });
        trim(&mut timed);
    }
    for (thread, deadline) in over {
        // Else it waits for something else by now.
        if thread.deadline() == deadline {
            wait::cancel(cpu, &thread, Status::TimedOut);
        }
    }
    for (thread, id) in elsewhere {
        let tasks = &A::machine().cpu(id).tasks;
        tasks.timed.lock().push(Arc::downgrade(&thread));
        // If it sleeps it has no timer: it had nothing to look at.
        tasks.handed.store(true, Ordering::Relaxed);
        look_again(cpu, id);
    }
}
