//! Which thread runs where: a queue per CPU and priority, preemption by interrupts.
//!
//! A thread belongs to one CPU, its home, and goes into that CPU's queue from anywhere (`wake`). The highest priority
//! that is ready runs; within a priority each runs for a tick at a time. A thread changes its home when its home turns
//! to it next: only there are its registers. Its priority it may change at any time; whoever changes it puts it where
//! it then belongs (`requeue`), and whoever puts it into a queue looks at its priority when he has the queue's lock, so
//! of the two the second sees the first.
//!
//! Waking and going idle is a Dekker shape: the waker puts the thread into the queue, then reads what the CPU runs; the
//! CPU says what it runs, then reads its queue. Both have a full fence between, so either the waker sees that it must
//! interrupt, or the CPU sees the thread. An idle CPU reads the queue with interrupts masked, so an interrupt that
//! comes afterwards ends its sleep.

use alloc::collections::VecDeque;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::ptr;
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicU64, Ordering};

use crate::abi::PRIORITIES;
use crate::addr::CpuId;
use crate::arch::Arch;
use crate::object::account::trim_queue;
use crate::object::thread::Thread;
use crate::smp::call;
use crate::smp::cpu::Cpu;
use crate::smp::lock::Mutex;
use crate::smp::rcu;
use crate::task::place::Place;
use crate::tlb::switch;

/// Between two ticks where the run does not say, in ns of the machine's time.
const TICK_NS: u64 = 1_000_000;
/// To the next tick that a program asks for, at least.
const LEAST_NS: u64 = 1_000;

/// Threads pay for their places in a queue; so many of each are the kernel's.
const FREE_PLACES: usize = 64;

/// What a CPU knows of threads.
pub struct Tasks<A: Arch> {
    /// One bit for each priority that is ready. Changed under the lock of `queues`.
    ready: AtomicU32,
    queues: Mutex<A, [VecDeque<Arc<Thread<A>>>; PRIORITIES as usize]>,
    /// One more than the priority that runs; 0: none.
    running: AtomicU32,
    /// Timer interrupts so far.
    ticks: AtomicU64,
    /// The timer was set, and has not fired since.
    armed: AtomicBool,
    /// When the timer is to fire, in instructions; and when the last time was that it was to.
    next: AtomicU64,
    due: AtomicU64,
    /// The tick up to which waits were looked at. Its own.
    pub(super) looked: AtomicU64,
    /// The thread that runs wants another to.
    gives_way: AtomicBool,
    /// When this CPU last woke from idling, in instructions, and how many timer interrupts all others had had then.
    woke: AtomicU64,
    others: AtomicU64,
    /// Threads whose waits began here and end by the timer.
    pub(super) timed: Mutex<A, Vec<Weak<Thread<A>>>>,
    /// Another CPU has put one there.
    pub(super) handed: AtomicBool,
    /// The thread that runs, and a reference to it; null if none does. Its own.
    current: AtomicPtr<Thread<A>>,
    /// A [`Place`]: where it runs, and with which priority since it was last taken from a queue. Its own.
    place: AtomicU64,
}

impl<A: Arch> Default for Tasks<A> {
    fn default() -> Self {
        Tasks {
            ready: AtomicU32::new(0),
            queues: Mutex::<A, _>::new(core::array::from_fn(|_| VecDeque::new())),
            running: AtomicU32::new(0),
            ticks: AtomicU64::new(0),
            armed: AtomicBool::new(false),
            next: AtomicU64::new(0),
            due: AtomicU64::new(0),
            looked: AtomicU64::new(0),
            gives_way: AtomicBool::new(false),
            woke: AtomicU64::new(0),
            others: AtomicU64::new(0),
            timed: Mutex::<A, _>::new(Vec::new()),
            handed: AtomicBool::new(false),
            current: AtomicPtr::new(ptr::null_mut()),
            place: AtomicU64::new(0),
        }
    }
}

impl<A: Arch> Tasks<A> {
    /// The thread that runs here; null if none does.
    #[inline]
    pub(super) fn current(&self) -> *const Thread<A> {
        self.current.load(Ordering::Relaxed)
    }

    /// Where it runs, and with which priority.
    #[inline]
    pub(super) fn place(&self) -> Place {
        Place::from_bits(self.place.load(Ordering::Relaxed))
    }

    /// `thread` runs from here on. The reference to the one that did is whoever's that has it now.
    #[inline]
    pub(super) fn make_current(&self, thread: Arc<Thread<A>>) {
        self.current.store(Arc::into_raw(thread).cast_mut(), Ordering::Relaxed);
    }

    /// The thread that runs here, again.
    pub(super) fn share_current(&self) -> Arc<Thread<A>> {
        let current = self.current();
        assert!(!current.is_null(), "no thread runs");
        // SAFETY: `make_current` put a reference there; this is another one.
        unsafe {
            Arc::increment_strong_count(current);
            Arc::from_raw(current)
        }
    }

    /// None runs any more: the reference to the one that did.
    pub(super) fn take_current(&self) -> Arc<Thread<A>> {
        let current = self.current.swap(ptr::null_mut(), Ordering::Relaxed);
        assert!(!current.is_null(), "no thread runs");
        // SAFETY: `make_current` put a reference there, and it is taken out once.
        unsafe { Arc::from_raw(current) }
    }
}

/// Puts `thread`, which waits for nothing any more, into its CPU's queue.
pub(crate) fn wake<A: Arch>(cpu: &'static Cpu<A>, thread: &Arc<Thread<A>>) {
    let home = thread.home();
    let tasks = &A::machine().cpu(home).tasks;
    let priority = {
        let mut queues = tasks.queues.lock();
        let priority = thread.priority();
        queues[priority as usize].push_back(thread.clone());
        tasks.ready.fetch_or(1 << priority, Ordering::Relaxed);
        priority
    };
    see_to(cpu, home, priority);
}

/// A thread of `priority` was put into the queue of CPU `home`, which looks at it if what runs there is less urgent.
fn see_to<A: Arch>(cpu: &'static Cpu<A>, home: CpuId, priority: u8) {
    if home != cpu.id {
        // Full: put it there, then read what runs. Pairs with the fence in `next` (tests/litmus/wake-run).
        A::fence();
        if A::machine().cpu(home).tasks.running.load(Ordering::Relaxed) <= u32::from(priority) {
            look_again(cpu, home);
        }
    }
}

/// The priority of `thread` was changed, or it is to end: if it is in its CPU's queue it goes where it belongs now,
/// behind its like. Of two who do this the second, by the queue's lock, knows what the first did; so who ends hurries,
/// whatever priority it is given at the same time.
pub(crate) fn requeue<A: Arch>(cpu: &'static Cpu<A>, thread: &Arc<Thread<A>>) {
    let home = thread.home();
    let tasks = &A::machine().cpu(home).tasks;
    let priority = {
        let mut queues = tasks.queues.lock();
        if thread.is_ending() {
            thread.hurry();
        }
        // It may have moved before; if it does from here on it takes along what it was told.
        if thread.home() != home {
            drop(queues);
            return requeue(cpu, thread);
        }
        let priority = thread.priority();
        let found = queues.iter().enumerate().find_map(|(at, queue)| {
            let place = queue.iter().position(|other| Arc::ptr_eq(other, thread))?;
            Some((at, place))
        });
        let Some((at, place)) = found.filter(|(at, _)| *at != usize::from(priority)) else { return };
        let Some(thread) = queues[at].remove(place) else { return };
        trim_queue(&mut queues[at], FREE_PLACES);
        if queues[at].is_empty() {
            tasks.ready.fetch_and(!(1 << at), Ordering::Relaxed);
        }
        queues[priority as usize].push_back(thread);
        tasks.ready.fetch_or(1 << priority, Ordering::Relaxed);
        priority
    };
    see_to(cpu, home, priority);
}

/// Has CPU `id` look at its queue, and at what its thread has been told.
pub(crate) fn look_again<A: Arch>(cpu: &'static Cpu<A>, id: CpuId) {
    if id != cpu.id {
        call::interrupt(cpu, A::machine().cpu(id));
    }
}

/// Takes the thread that shall run next. `None`: there is none, and the CPU counts as idle.
pub(super) fn next<A: Arch>(cpu: &'static Cpu<A>) -> Option<Arc<Thread<A>>> {
    let tasks = &cpu.tasks;
    tasks.gives_way.store(false, Ordering::Relaxed);
    if tasks.ready.load(Ordering::Relaxed) == 0 {
        tasks.running.store(0, Ordering::Relaxed);
        // Full: nothing runs, then read what is ready. Pairs with the fence in `wake` (tests/litmus/wake-run).
        A::fence();
        if tasks.ready.load(Ordering::Relaxed) == 0 {
            return None;
        }
    }
    let mut queues = tasks.queues.lock();
    let ready = tasks.ready.load(Ordering::Relaxed);
    let priority = ready.checked_ilog2()?;
    let queue = &mut queues[priority as usize];
    let thread = queue.pop_front();
    if queue.is_empty() {
        tasks.ready.fetch_and(!(1 << priority), Ordering::Relaxed);
    }
    trim_queue(queue, FREE_PLACES);
    tasks.running.store(priority + 1, Ordering::Relaxed);
    tasks.place.store(Place::new(cpu.id, priority as u8).bits(), Ordering::Relaxed);
    thread
}

/// A thread of `priority`, which is not the present one's, may go on instead of it, since none in the queue is more
/// urgent: it is said to run. With interrupts masked.
pub(super) fn takes_over<A: Arch>(cpu: &Cpu<A>, priority: u8) -> bool {
    let tasks = &cpu.tasks;
    let before = tasks.running.swap(u32::from(priority) + 1, Ordering::Relaxed);
    // Full: said what runs, then read the queue. Pairs with the fence in `wake` (tests/litmus/wake-run).
    A::fence();
    let may = tasks.ready.load(Ordering::Relaxed) >> priority <= 1;
    if may {
        tasks.place.store(Place::new(cpu.id, priority).bits(), Ordering::Relaxed);
    } else {
        tasks.running.store(before, Ordering::Relaxed);
    }
    may
}

/// The present thread goes on at `place`, after all.
#[cold]
pub(super) fn goes_on<A: Arch>(cpu: &Cpu<A>, place: Place) {
    cpu.tasks.running.store(u32::from(place.priority()) + 1, Ordering::Relaxed);
    cpu.tasks.place.store(place.bits(), Ordering::Relaxed);
}

/// Puts `thread`, which ran since tick `since`, back: before its like if its time is not over.
pub(super) fn put_back<A: Arch>(cpu: &'static Cpu<A>, thread: &Arc<Thread<A>>, since: u64) {
    let over = ticks(cpu) != since || cpu.tasks.gives_way.load(Ordering::Relaxed);
    let mut queues = cpu.tasks.queues.lock();
    let priority = thread.priority();
    let queue = &mut queues[priority as usize];
    if over {
        queue.push_back(thread.clone());
    } else {
        queue.push_front(thread.clone());
    }
    cpu.tasks.ready.fetch_or(1 << priority, Ordering::Relaxed);
}

/// Whether the running thread, which began at tick `since`, shall make room: for a higher priority, or for its like
/// when its time is over.
pub(super) fn makes_room<A: Arch>(cpu: &Cpu<A>, priority: u8, since: u64) -> bool {
    let ready = cpu.tasks.ready.load(Ordering::Relaxed);
    let above = ready >> priority > 1;
    let beside = ready & (1 << priority) != 0;
    let over = cpu.tasks.ticks.load(Ordering::Relaxed) != since || cpu.tasks.gives_way.load(Ordering::Relaxed);
    above || (beside && over)
}

/// Whether what this CPU does for long with `priority`, since tick `since`, shall be left for now: for a thread that is
/// more urgent, for an interrupt line that somebody may wait for, or because its time is over.
pub(crate) fn is_wanted<A: Arch>(cpu: &Cpu<A>, priority: u8, since: u64) -> bool {
    let above = cpu.tasks.ready.load(Ordering::Relaxed) >> priority > 1;
    above || ticks(cpu) != since || A::machine().objects.lines.is_raised(cpu.id)
}

/// The running thread gives way to its like.
pub(crate) fn give_way<A: Arch>(cpu: &Cpu<A>) {
    cpu.tasks.gives_way.store(true, Ordering::Relaxed);
}

/// How many timer interrupts there were.
pub fn ticks<A: Arch>(cpu: &Cpu<A>) -> u64 {
    cpu.tasks.ticks.load(Ordering::Relaxed)
}

/// When this CPU last woke from idling, in instructions, and how many timer interrupts other CPUs have had since.
///
/// From there, or from when its timer was due if that is later, to a thread's first instruction is what it takes to run
/// when its time has come. Under `-icount` the counter counts all CPUs'
/// instructions, but they take turns, and a CPU that was not left alone loses its turn when a timer fires: if none has,
/// nobody else's instructions are in it.
pub fn woke<A: Arch>(cpu: &Cpu<A>) -> (u64, u64) {
    let since = ticks_of_others(cpu).saturating_sub(cpu.tasks.others.load(Ordering::Relaxed));
    (cpu.tasks.woke.load(Ordering::Relaxed), since)
}

fn ticks_of_others<A: Arch>(cpu: &Cpu<A>) -> u64 {
    A::machine().online().filter(|other| other.id != cpu.id).map(|other| ticks(other)).sum()
}

/// Sees to it that the timer fires, also where the run does not ask for it: a program that never stops must not keep
/// others of its priority, waits that end, or grace periods from going on.
pub(super) fn arm<A: Arch>(cpu: &Cpu<A>) {
    let asked = A::machine().policy.tick_ns.load(Ordering::Relaxed) != 0;
    if !asked && !cpu.tasks.armed.swap(true, Ordering::Relaxed) {
        set_timer(cpu, TICK_NS);
    }
}

/// Sets the timer, and notes when it is to fire: under `-icount` a nanosecond of the machine's time is an instruction.
pub(crate) fn set_timer<A: Arch>(cpu: &Cpu<A>, ns: u64) {
    cpu.tasks.next.store(A::instructions().saturating_add(ns), Ordering::Relaxed);
    A::set_timer(ns);
}

/// The timer is to fire when `when` instructions are over, or when it would anyway, whatever comes first. Where the run
/// has ticks of its own, these are often enough.
pub(crate) fn tick_at<A: Arch>(cpu: &Cpu<A>, when: u64) {
    let asked = A::machine().policy.tick_ns.load(Ordering::Relaxed) != 0;
    let armed = cpu.tasks.armed.swap(true, Ordering::Relaxed);
    if asked || (armed && cpu.tasks.next.load(Ordering::Relaxed) <= when) {
        return;
    }
    set_timer(cpu, when.saturating_sub(A::instructions()).clamp(LEAST_NS, TICK_NS));
}

/// When the timer interrupt that came last was due, and when the next is, in instructions.
pub fn due<A: Arch>(cpu: &Cpu<A>) -> (u64, u64) {
    (cpu.tasks.due.load(Ordering::Relaxed), cpu.tasks.next.load(Ordering::Relaxed))
}

/// The timer fired. At interrupt level.
pub(crate) fn tick<A: Arch>(cpu: &Cpu<A>) {
    cpu.tasks.armed.store(false, Ordering::Relaxed);
    cpu.tasks.due.store(cpu.tasks.next.load(Ordering::Relaxed), Ordering::Relaxed);
    cpu.tasks.ticks.store(ticks(cpu) + 1, Ordering::Relaxed);
    A::machine().objects.lines.raise(cpu.id.index());
}

/// Drops what the CPU keeps of threads that have ended: places in the list of waits that end by the timer, and the
/// timer.
pub(crate) fn forget<A: Arch>(cpu: &Cpu<A>) {
    drop(core::mem::take(&mut *cpu.tasks.timed.lock()));
    if cpu.tasks.armed.swap(false, Ordering::Relaxed) {
        A::stop_timer();
    }
}

/// Sleeps until an interrupt, unless there is something to do. Called with interrupts enabled, after
/// [`super::turn::turn`] found nothing.
///
/// The mm that is loaded stays so, unused; grace periods do not wait for this CPU.
///
/// A CPU whose timer line somebody is bound to does not sleep but polls, as is usual where latency counts: it gives way
/// to the others with interrupts masked, notes the time, and only then takes what has come. So what [`woke`] says is
/// before the first instruction of whatever handler, on every architecture.
pub fn idle<A: Arch>(cpu: &'static Cpu<A>) {
    idle_unless(cpu, || false);
}

/// The same, but not if `over`, which is asked with interrupts masked: whoever makes it true interrupts the CPU
/// afterwards, and if that comes before this it ends no sleep.
pub fn idle_unless<A: Arch>(cpu: &'static Cpu<A>, over: impl Fn() -> bool) {
    switch::become_lazy(cpu);
    if !cpu.tasks.timed.lock().is_empty() {
        arm(cpu);
    }
    let lines = &A::machine().objects.lines;
    let ticks_before = ticks(cpu);
    let goes_on = || cpu.tasks.ready.load(Ordering::Relaxed) != 0 || lines.is_raised(cpu.id) || over();
    let enabled = A::irq_save();
    // Looked at with interrupts masked, like `over`: who says so interrupts this CPU afterwards.
    let handed = cpu.tasks.handed.swap(false, Ordering::Relaxed);
    if !handed && !goes_on() {
        rcu::enter_idle(cpu);
        // Looked at with interrupts masked: who binds it interrupts this CPU afterwards.
        if lines.is_wanted(cpu.id.index()) {
            arm(cpu);
            while !goes_on() && ticks(cpu) == ticks_before && lines.is_wanted(cpu.id.index()) {
                A::relax();
                note_waking(cpu);
                A::irq_restore(true);
                let _ = A::irq_save();
            }
        } else {
            A::wait_for_interrupt();
            note_waking(cpu);
        }
        rcu::leave_idle(cpu);
    }
    A::irq_restore(enabled);
}

fn note_waking<A: Arch>(cpu: &Cpu<A>) {
    cpu.tasks.woke.store(A::instructions(), Ordering::Relaxed);
    cpu.tasks.others.store(ticks_of_others(cpu), Ordering::Relaxed);
}
