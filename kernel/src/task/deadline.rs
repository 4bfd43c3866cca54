//! When a wait ends, and ending those whose time is over. Each CPU counts its own ticks, and a thread may wait on one CPU after another: a number of ticks says
//! nothing without the CPU whose they are.

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
    if !thread.timed.swap(true, Ordering::Relaxed) {
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
            let deadline = thread.deadline();
            let ends = deadline != Deadline::NEVER && !thread.is_ending();
            if ends && deadline.cpu() != cpu.id {
                elsewhere.push(thread);
                return false;
            }
            let late = ends && deadline.ticks() <= now;
            let kept = ends && !late;
            if !kept {
                thread.timed.store(false, Ordering::Relaxed);
            }
            if late {
                over.push(thread);
            }
            kept
        });
        trim(&mut timed);
    }
    for thread in over {
        wait::cancel(cpu, &thread, Status::TimedOut);
    }
    for thread in elsewhere {
        let id = thread.deadline().cpu();
        A::machine().cpu(id).tasks.timed.lock().push(Arc::downgrade(&thread));
        // If it sleeps it has no timer: it had nothing to look at.
        look_again(cpu, id);
    }
}
