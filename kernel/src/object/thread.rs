//! Threads: registers, a priority, a CPU, and what the thread waits for.
//!
//! A thread is in one place at a time: on a CPU, in that CPU's queue, or waiting, in which case whoever it waits for has it ([`crate::ipc::wait`]). Its registers are touched only by the CPU
//! that it runs on; everybody else leaves an answer in its state, which that CPU puts into the registers before it goes on.

use alloc::sync::Arc;
use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU16, AtomicU64, Ordering};

use super::account::{Account, Paid, Price};
use super::notification::{Bound, Notification};
use super::process::Process;
use super::{Object, ObjectError, capability};
use crate::abi::PRIORITIES;
use crate::addr::{CpuId, VirtAddr};
use crate::arch::Arch;
use crate::ipc::wait::{self, Phase, State};
use crate::smp::cpu::Cpu;
use crate::smp::lock::Mutex;
use crate::task::sched;
use crate::task::user::UserContext;

/// Where a thread begins.
#[derive(Clone, Copy, Debug)]
pub struct Start {
    /// First instruction.
    pub entry: VirtAddr,
    /// Stack pointer.
    pub stack: VirtAddr,
    /// First argument.
    pub argument: u64,
    /// Its priority, below [`PRIORITIES`].
    pub priority: u8,
    /// Its CPU.
    pub cpu: CpuId,
}

/// A thread.
pub struct Thread<A: Arch> {
    /// For reports.
    pub id: u32,
    /// What it runs in.
    pub process: Arc<Process<A>>,
    /// Its registers; held by the CPU that it runs on while it does.
    pub(crate) context: Mutex<A, A::UserContext>,
    /// What it waits for.
    pub(crate) state: Mutex<A, State<A>>,
    priority: AtomicU8,
    /// The CPU whose queue it goes into. Changed by that CPU only.
    home: AtomicU16,
    /// The CPU that it shall go to.
    wanted: AtomicU16,
    ending: AtomicBool,
    status: AtomicU64,
    /// When its wait is over, in ticks of the CPU where it began.
    pub(crate) deadline: AtomicU64,
    /// It is in that CPU's list of waits that end.
    pub(crate) timed: AtomicBool,
    bound: Mutex<A, Option<Bound<A>>>,
    _paid: Paid,
}

/// What a thread costs.
pub fn price<A: Arch>() -> Price {
    // Its places in its process's list, one queue, one list of timed waits.
    // A notification that has ended and that it is bound to keeps its memory till then.
    Price::of::<Thread<A>>().and(Price::growing::<Arc<Thread<A>>>(4)).and(Price::of::<Notification<A>>())
}

impl<A: Arch> Thread<A> {
    /// Makes a thread of `process`, with its original capability in `slot` of `maker`, who pays, and lets it run.
    pub fn make(
        cpu: &'static Cpu<A>,
        maker: &Arc<Process<A>>,
        slot: u32,
        process: &Arc<Process<A>>,
        start: Start,
    ) -> Result<Arc<Thread<A>>, ObjectError> {
        if start.priority > process.highest || start.priority >= PRIORITIES {
            return Err(ObjectError::BadArgument(6));
        }
        if start.cpu.index() >= A::machine().cpus.len() || start.entry >= A::USER_END || start.stack > A::USER_END {
            return Err(ObjectError::BadArgument(6));
        }
        maker.table.check_free(slot)?;
        let thread = Thread::new(&maker.account, process, start)?;
        process.join(&thread)?;
        // If there is no room after all it is ended, and leaves its process when it is first scheduled.
        let result = capability::install(cpu, &maker.table, slot, Object::Thread(thread.clone()));
        sched::wake(cpu, &thread);
        result.map(|()| thread)
    }

    fn new(payer: &Arc<Account>, process: &Arc<Process<A>>, start: Start) -> Result<Arc<Thread<A>>, ObjectError> {
        let paid = payer.charge(price::<A>())?;
        Ok(Arc::new(Thread {
            id: A::machine().objects.id(),
            process: process.clone(),
            context: Mutex::<A, _>::new(A::UserContext::start(start.entry, start.stack, start.argument)),
            state: Mutex::<A, _>::new(State::default()),
            priority: AtomicU8::new(start.priority),
            home: AtomicU16::new(start.cpu.0),
            wanted: AtomicU16::new(start.cpu.0),
            ending: AtomicBool::new(false),
            status: AtomicU64::new(0),
            deadline: AtomicU64::new(u64::MAX),
            timed: AtomicBool::new(false),
            bound: Mutex::<A, _>::new(None),
            _paid: paid,
        }))
    }

    /// Its priority.
    #[inline]
    pub fn priority(&self) -> u8 {
        self.priority.load(Ordering::Relaxed)
    }

    /// Changes its priority, from when it is next put into a queue.
    pub fn set_priority(&self, priority: u8) -> Result<(), ObjectError> {
        if priority > self.process.highest || priority >= PRIORITIES {
            return Err(ObjectError::BadArgument(1));
        }
        self.priority.store(priority, Ordering::Relaxed);
        Ok(())
    }

    /// The CPU whose queue it goes into.
    #[inline]
    pub fn home(&self) -> CpuId {
        CpuId(self.home.load(Ordering::Relaxed))
    }

    /// Asks for it to run on `cpu` from when it is next scheduled.
    pub fn migrate(&self, cpu: u64) -> Result<(), ObjectError> {
        if cpu >= A::machine().cpus.len() as u64 {
            return Err(ObjectError::BadArgument(1));
        }
        self.wanted.store(cpu as u16, Ordering::Relaxed);
        Ok(())
    }

    /// If it shall be elsewhere: moves it there. For the CPU that has just taken it from its queue and holds none of its registers.
    pub(crate) fn moves(&self) -> bool {
        let wanted = self.wanted.load(Ordering::Relaxed);
        self.home.swap(wanted, Ordering::Relaxed) != wanted
    }

    /// Whether it shall move.
    pub(crate) fn shall_move(&self) -> bool {
        self.wanted.load(Ordering::Relaxed) != self.home.load(Ordering::Relaxed)
    }

    /// Whether it waits for a call, or has one that it has not looked at: what a test of delivery reads.
    pub fn has_unread(&self) -> bool {
        let state = self.state.lock();
        state.delivery.is_some() || matches!(state.phase, Phase::Receiving { .. } | Phase::Taken)
    }

    /// Whether it ends as soon as a CPU turns to it.
    #[inline]
    pub fn is_ending(&self) -> bool {
        // Acquire: pairs with `end`.
        self.ending.load(Ordering::Acquire)
    }

    /// What it ended with.
    pub fn status(&self) -> u64 {
        self.status.load(Ordering::Relaxed)
    }

    /// Ends it: if it waits its wait is over, if it runs elsewhere that CPU is interrupted.
    pub fn end(self: &Arc<Thread<A>>, cpu: &'static Cpu<A>, status: u64) {
        if self.ending.load(Ordering::Relaxed) {
            return;
        }
        self.status.store(status, Ordering::Relaxed);
        // Release: pairs with `is_ending`.
        if self.ending.swap(true, Ordering::Release) {
            return;
        }
        wait::cancel(cpu, self, crate::abi::Status::Gone);
        sched::look_again(cpu, self.home());
    }

    /// Has `bits` set in `notification` when it ends.
    pub fn bind(&self, notification: Arc<Notification<A>>, bits: u64) {
        *self.bound.lock() = Some((Arc::downgrade(&notification), bits));
    }

    /// It runs nowhere any more, and nothing has it: for the CPU that it ran on last.
    pub(crate) fn leave(self: &Arc<Thread<A>>, cpu: &'static Cpu<A>) {
        wait::abandon(cpu, self);
        let bound = self.bound.lock().take();
        if let Some((notification, bits)) = bound
            && let Some(notification) = notification.upgrade()
        {
            notification.signal(cpu, bits);
        }
        self.process.leave(self, self.status());
    }
}
