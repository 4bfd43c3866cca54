//! Threads: registers, a priority, a CPU, and what the thread waits for.
//!
//! A thread is in one place at a time: on a CPU, in that CPU's queue, or waiting, in which case whoever it waits for
//! has it ([`crate::ipc::wait`]). Its registers are touched only by the CPU that it runs on; everybody else leaves an
//! answer in its state, which that CPU puts into the registers before it goes on.

use alloc::sync::Arc;
use core::cell::UnsafeCell;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use super::account::{Account, Paid, Price};
use super::capability::Node;
use super::endpoint::Endpoint;
use super::notification::{Bound, signal_bound};
use super::process::Process;
use super::{Object, ObjectError, capability};
use crate::abi::PRIORITIES;
use crate::addr::{CpuId, VirtAddr};
use crate::arch::Arch;
use crate::ipc::reply::Reply;
use crate::ipc::wait::{self, Phase, State};
use crate::smp::cpu::Cpu;
use crate::smp::lock::Mutex;
use crate::task::deadline::Deadline;
use crate::task::place::Place;
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

/// The registers of a thread. Whoever has the thread may touch them, and nobody else: the CPU that it is current on, or
/// that has taken it from its queue to run it.
pub(crate) struct Registers<A: Arch>(UnsafeCell<A::UserContext>);

// SAFETY: they are reached through `get` alone, by one CPU at a time; it goes from one to another by that one's queue,
// whose lock orders what they do.
unsafe impl<A: Arch> Sync for Registers<A> {}

impl<A: Arch> Registers<A> {
    /// Where they are.
    #[inline]
    pub(crate) fn get(&self) -> NonNull<A::UserContext> {
        // SAFETY: the address of a field.
        unsafe { NonNull::new_unchecked(self.0.get()) }
    }
}

/// The capability to an endpoint that a thread has called by or waited with last, and its slot: the next call is mostly
/// by the same, and then needs no look into the table. It may be deleted by now: whoever takes it from here looks
/// whether it is alive. A thread whose waits end by time has none. Like the registers it belongs to whoever has the
/// thread.
pub(crate) struct Near<A: Arch>(UnsafeCell<(u64, Option<Arc<Node<A>>>)>);

// SAFETY: reached through `at` and `set` alone, whose callers have the thread; see `Registers`.
unsafe impl<A: Arch> Sync for Near<A> {}

/// The slot of no capability: more than any table has.
const NO_SLOT: u64 = u64::MAX;

impl<A: Arch> Near<A> {
    fn nothing() -> Near<A> {
        Near(UnsafeCell::new((NO_SLOT, None)))
    }

    /// The capability, if it was in slot number `slot`. It is an endpoint's.
    ///
    /// # Safety
    /// The caller has the thread, and lets it not go before this.
    #[inline(always)]
    pub(crate) unsafe fn at(&self, slot: u64) -> Option<&Node<A>> {
        // SAFETY: the caller's promise.
        let (known, node) = unsafe { &*self.0.get() };
        // What no slot is has no node either.
        if *known == slot { node.as_deref() } else { None }
    }

    /// From now on there is none.
    ///
    /// # Safety
    /// As in [`Near::set`].
    unsafe fn forget(&self) {
        // SAFETY: the caller's promise.
        unsafe { *self.0.get() = (NO_SLOT, None) };
    }

    /// From now on it is `node`, an endpoint's, of slot `slot`.
    ///
    /// # Safety
    /// As in [`Near::at`], and there is no reference to the one before.
    pub(crate) unsafe fn set(&self, slot: u32, node: Arc<Node<A>>) {
        // SAFETY: the caller's promise.
        unsafe { *self.0.get() = (slot.into(), Some(node)) };
    }
}

/// A thread.
pub struct Thread<A: Arch> {
    /// For reports.
    pub id: u32,
    /// What it runs in.
    pub process: Arc<Process<A>>,
    /// Its registers.
    pub(crate) registers: Registers<A>,
    /// The capability that it has called by last.
    pub(crate) near: Near<A>,
    /// Where it waits for answers.
    pub(crate) reply: Arc<Reply<A>>,
    /// What it waits for.
    pub(crate) state: Mutex<A, State<A>>,
    /// A [`Place`]. Its home is changed by the CPU that is it, and by no other.
    place: AtomicU64,
    ending: AtomicBool,
    status: AtomicU64,
    /// How often its pager was called in the system call that it is in. Its own.
    pub(crate) paged: AtomicU32,
    /// For how many ticks it waits; 0 for ever. Changed by itself.
    pub(crate) patience: AtomicU64,
    /// When its wait is over: a [`Deadline`].
    deadline: AtomicU64,
    /// It is in some CPU's list of waits that end.
    pub(crate) timed: AtomicBool,
    bound: Mutex<A, Option<Bound<A>>>,
    _paid: Paid,
}

/// What a thread costs.
pub fn price<A: Arch>() -> Price {
    // Its places in its process's lists, one queue, one list of timed waits. A capability that is gone keeps its memory
    // while the thread is bound to it, while a message of the thread's that others wait for has it with it, while a
    // removal of its has begun with it or come to it, and while it is the one that it called by last, with its endpoint; so does an
    // endpoint that it received from, the reply of the last one that called it, and that of who waits until it has looked
    // at an answer; and a process while it undoes a mapping of that.
    let (node, endpoint, reply) = (Price::of::<Node<A>>(), Price::of::<Endpoint<A>>(), Price::of::<Reply<A>>());
    let kept = node
        .and(node)
        .and(node)
        .and(node)
        .and(node)
        .and(endpoint)
        .and(endpoint)
        .and(reply)
        .and(reply)
        .and(Price::of::<Process<A>>());
    let own = Price::of::<Thread<A>>().and(Price::of::<Reply<A>>());
    own.and(Price::growing::<Arc<Thread<A>>>(5)).and(kept)
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
        if let Ok(node) = &result
            && process.is_stranger(maker)
        {
            process.has_guest(node);
        }
        sched::wake(cpu, &thread);
        result.map(|_| thread)
    }

    fn new(payer: &Arc<Account>, process: &Arc<Process<A>>, start: Start) -> Result<Arc<Thread<A>>, ObjectError> {
        let paid = payer.charge(price::<A>())?;
        let reply = Arc::new(Reply::default());
        let thread = Arc::new(Thread {
            id: A::machine().objects.id(),
            process: process.clone(),
            registers: Registers(UnsafeCell::new(A::UserContext::start(start.entry, start.stack, start.argument))),
            near: Near::nothing(),
            state: Mutex::<A, _>::new(State::new(reply.clone())),
            reply,
            place: AtomicU64::new(Place::new(start.cpu, start.priority).bits()),
            ending: AtomicBool::new(false),
            status: AtomicU64::new(0),
            paged: AtomicU32::new(0),
            patience: AtomicU64::new(0),
            deadline: AtomicU64::new(Deadline::NEVER.bits()),
            timed: AtomicBool::new(false),
            bound: Mutex::<A, _>::new(None),
            _paid: paid,
        });
        thread.reply.belongs_to(&thread);
        Ok(thread)
    }

    /// Where it runs, or shall run.
    #[inline]
    pub(crate) fn place(&self) -> Place {
        Place::from_bits(self.place.load(Ordering::Relaxed))
    }

    /// Puts `value` into the 16 bits from `shift` on of its place; what they were.
    fn replace(&self, shift: u32, value: u16) -> u16 {
        let replaced = |bits: u64| Some(bits & !(0xffff << shift) | u64::from(value) << shift);
        let before = self.place.fetch_update(Ordering::Relaxed, Ordering::Relaxed, replaced);
        before.map_or(value, |bits| (bits >> shift) as u16)
    }

    /// Its priority.
    #[inline]
    pub fn priority(&self) -> u8 {
        self.place().priority()
    }

    /// Changes its priority: at once in its CPU's queue; where it waits for others it keeps its place. One that ends
    /// keeps what it ends with.
    pub fn set_priority(self: &Arc<Thread<A>>, cpu: &'static Cpu<A>, priority: u8) -> Result<(), ObjectError> {
        if priority > self.process.highest || priority >= PRIORITIES {
            return Err(ObjectError::BadArgument(1));
        }
        self.replace(Place::PRIORITY, priority.into());
        sched::requeue(cpu, self);
        Ok(())
    }

    /// It ends: it is as urgent as threads of its process may be, whatever its own priority was made. A thread that is
    /// kept from running shall not be kept from ending.
    pub(crate) fn hurry(&self) {
        self.replace(Place::PRIORITY, self.process.highest.into());
    }

    /// The CPU whose queue it goes into.
    #[inline]
    pub fn home(&self) -> CpuId {
        self.place().home()
    }

    /// Asks for it to run on `cpu` from when it is next scheduled.
    pub fn migrate(&self, cpu: u64) -> Result<(), ObjectError> {
        if cpu >= A::machine().cpus.len() as u64 {
            return Err(ObjectError::BadArgument(1));
        }
        self.replace(Place::WANTED, cpu as u16);
        Ok(())
    }

    /// If it shall be elsewhere: moves it there. For the CPU that has just taken it from its queue and holds none of
    /// its registers.
    pub(crate) fn moves(&self) -> bool {
        let wanted = self.place().wanted().0;
        self.replace(Place::HOME, wanted) != wanted
    }

    /// Whether it shall move.
    pub(crate) fn shall_move(&self) -> bool {
        let place = self.place();
        place.wanted() != place.home()
    }

    /// Whether its waits end by time. If they do not it has no deadline.
    #[inline(always)]
    pub(crate) fn gives_up(&self) -> bool {
        self.patience.load(Ordering::Relaxed) != 0
    }

    /// It waits for so many ticks from here on; 0 for ever. It is the one that runs.
    pub(crate) fn set_patience(&self, ticks: u64) {
        if ticks != 0 {
            // SAFETY: it runs here, and is in the kernel.
            unsafe { self.near.forget() };
        }
        self.patience.store(ticks, Ordering::Relaxed);
        self.set_deadline(Deadline::NEVER);
    }

    /// When its wait is over.
    pub(crate) fn deadline(&self) -> Deadline {
        Deadline::from_bits(self.deadline.load(Ordering::Relaxed))
    }

    /// It begins a wait that is over then. It is the one that runs.
    pub(crate) fn set_deadline(&self, deadline: Deadline) {
        self.deadline.store(deadline.bits(), Ordering::Relaxed);
    }

    /// Whether it waits for a call, or has one that it has not looked at: what a test of delivery reads.
    pub fn has_unread(&self) -> bool {
        let state = self.state.lock();
        state.delivery.is_some()
            || matches!(state.phase, Phase::Receiving { .. } | Phase::ReceivingShort | Phase::Taken)
    }

    /// Whether it ends as soon as a CPU turns to it.
    #[inline]
    pub fn is_ending(&self) -> bool {
        // Acquire: pairs with `end` (tests/litmus/hand-over).
        self.ending.load(Ordering::Acquire)
    }

    /// The same, for who is ordered with whoever ends it by other means: the lock of its state, or its reply; and reads
    /// nothing more of that.
    #[inline(always)]
    pub(crate) fn is_told_to_end(&self) -> bool {
        self.ending.load(Ordering::Relaxed)
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
        // Release: pairs with `is_ending`, behind which the status is read (tests/litmus/hand-over).
        if self.ending.swap(true, Ordering::Release) {
            return;
        }
        sched::requeue(cpu, self);
        wait::cancel(cpu, self, crate::abi::Status::Gone);
        sched::look_again(cpu, self.home());
    }

    /// Has `bits` set when it ends in the notification that `node` names, for as long as that is there.
    pub fn bind(&self, node: &Arc<Node<A>>, bits: u64) {
        *self.bound.lock() = Some((Arc::downgrade(node), bits));
    }

    /// It runs nowhere any more, and nothing has it: for the CPU that it ran on last.
    pub(crate) fn leave(self: &Arc<Thread<A>>, cpu: &'static Cpu<A>) {
        // SAFETY: this CPU has it, and it is in the kernel.
        unsafe { self.near.forget() };
        wait::abandon(cpu, self);
        let bound = self.bound.lock().take();
        signal_bound(cpu, bound);
        self.process.leave(self, self.status());
    }
}
