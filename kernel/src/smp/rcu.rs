//! Grace periods: when may a table that nobody can reach any more be freed?
//!
//! A grace period numbered `n` begins by incrementing the machine's counter to `n`, after the unlink. It is over when
//! every online CPU has since been seen in a quiescent state, that is, outside every walk and every [`read`] section. A
//! CPU shows that by storing the counter's value in `seen`:
//!
//! - [`quiescent`], called between jobs, in every wait of the core and from the timer: `seen := counter`. The load is
//!   Acquire and the increment is Release, so a CPU that shows `n` sees the unlink from then on; the store is Release
//!   and the check is Acquire, so what it read before has happened before the free.
//! - an idle CPU shows infinity. Leaving idle is a Dekker shape (it stores `seen`, then reads tables; the freer clears
//!   an entry, then reads `seen`), so both sides have a full fence between.
//!
//! Nothing here interrupts anybody.

use core::sync::atomic::AtomicU32;

use crate::addr::{CpuId, Pfn};
use crate::arch::Arch;
use crate::atomic::{AtomicU64, Ordering};
use crate::machine::Machine;
use crate::record::shared::Doing;
use crate::smp::cpu::Cpu;
use crate::smp::wait::Wait;

/// What an idle CPU shows.
const IDLE: u64 = u64::MAX;
/// No frame: the end of a list.
const NONE: u32 = u32::MAX;

/// The machine's part of grace periods.
#[derive(Default)]
pub struct Rcu {
    started: AtomicU64,
}

/// One CPU's part of grace periods.
pub struct RcuCpu {
    seen: AtomicU64,
    nesting: AtomicU32,
    /// Frames whose grace period has begun, and its number.
    waiting: AtomicU32,
    waiting_for: AtomicU64,
    /// Frames retired since.
    next: AtomicU32,
    /// Frames in both lists.
    pending: AtomicU32,
}

impl Default for RcuCpu {
    fn default() -> RcuCpu {
        RcuCpu {
            seen: AtomicU64::new(IDLE),
            nesting: AtomicU32::new(0),
            waiting: AtomicU32::new(NONE),
            waiting_for: AtomicU64::new(0),
            next: AtomicU32::new(NONE),
            pending: AtomicU32::new(0),
        }
    }
}

impl RcuCpu {
    /// Frames that this CPU retired and that are not free yet.
    pub fn pending(&self) -> u32 {
        self.pending.load(Ordering::Relaxed)
    }
}

/// A section that no grace period passes. It may take interrupts, and nests.
pub struct ReadGuard<A: Arch> {
    cpu: &'static Cpu<A>,
}

/// Begins a section: a table reached inside it stays a table until the guard is dropped.
#[inline]
pub fn read<A: Arch>(cpu: &'static Cpu<A>) -> ReadGuard<A> {
    let nesting = cpu.rcu.nesting.load(Ordering::Relaxed);
    cpu.rcu.nesting.store(nesting + 1, Ordering::Relaxed);
    // The section is judged by this CPU itself (its timer, its waits): only the compiler must keep the order.
    core::sync::atomic::compiler_fence(Ordering::SeqCst);
    ReadGuard { cpu }
}

impl<A: Arch> Drop for ReadGuard<A> {
    #[inline]
    fn drop(&mut self) {
        core::sync::atomic::compiler_fence(Ordering::SeqCst);
        let nesting = self.cpu.rcu.nesting.load(Ordering::Relaxed);
        self.cpu.rcu.nesting.store(nesting - 1, Ordering::Relaxed);
    }
}

/// Shows that this CPU is in no walk and, if that is so, in no [`read`] section. Not to be called with interrupts
/// masked by a walk; the timer's handler, which cannot interrupt one, may call it.
#[inline]
pub fn quiescent<A: Arch>(cpu: &Cpu<A>) {
    // An idle CPU is quiescent for longer than this moment: its timer's handler must not end that.
    if cpu.rcu.nesting.load(Ordering::Relaxed) == 0 && cpu.rcu.seen.load(Ordering::Relaxed) != IDLE {
        // Acquire: pairs with the increment in `start`. Release: pairs with the load in `holding_up`.
        let started = A::machine().rcu.started.load(Ordering::Acquire);
        cpu.rcu.seen.store(started, Ordering::Release);
    }
}

/// The CPU goes idle: it is quiescent until [`leave_idle`].
pub fn enter_idle<A: Arch>(cpu: &Cpu<A>) {
    // Release: pairs with the load in `holding_up`.
    cpu.rcu.seen.store(IDLE, Ordering::Release);
}

/// The CPU may read tables again.
pub fn leave_idle<A: Arch>(cpu: &Cpu<A>) {
    // Release: pairs with the load in `holding_up`, which may find this value instead of the one of `enter_idle`.
    cpu.rcu.seen.store(A::machine().rcu.started.load(Ordering::Relaxed), Ordering::Release);
    // Full: store `seen`, then read tables. Pairs with the fence in `start`.
    A::fence();
}

/// An NMI that reads tables begins. It may have interrupted an idle CPU, which grace periods do not wait for: says
/// whether it has.
pub(crate) fn enter_nmi<A: Arch>(cpu: &Cpu<A>) -> bool {
    let idle = cpu.rcu.seen.load(Ordering::Relaxed) == IDLE;
    if idle {
        leave_idle(cpu);
    }
    idle
}

/// The NMI has read its last table.
pub(crate) fn leave_nmi<A: Arch>(cpu: &Cpu<A>, idle: bool) {
    if idle {
        enter_idle(cpu);
    }
}

/// Begins a grace period and returns its number.
fn start<A: Arch>(machine: &Machine<A>) -> u64 {
    // Release: publishes the unlinks before it to every CPU that shows this number. Pairs with the load in `quiescent`.
    let number = machine.rcu.started.fetch_add(1, Ordering::Release) + 1;
    // Full: cleared an entry, then read `seen`. Pairs with the fence in `leave_idle`.
    A::fence();
    number
}

/// A CPU that has not yet passed grace period `number`; the caller itself has.
fn holding_up<A: Arch>(cpu: &Cpu<A>, number: u64) -> Option<CpuId> {
    A::machine()
        .online()
        // Acquire: pairs with the release in `quiescent` and `enter_idle`.
        .find(|other| other.id != cpu.id && other.rcu.seen.load(Ordering::Acquire) < number)
        .map(|other| other.id)
}

/// # Panics
/// If the CPU is in a [`read`] section: it does `what`, which may wait for a grace period, or for somebody who does.
pub(crate) fn assert_outside<A: Arch>(cpu: &Cpu<A>, what: &str) {
    assert!(cpu.rcu.nesting.load(Ordering::Relaxed) == 0, "{} {what} while it holds up grace periods", cpu.id);
}

/// Waits until every walk and every [`read`] section that was under way is over. The caller is in neither, and holds no
/// table's lock: a reader may wait for that inside its section.
pub fn synchronize<A: Arch>(cpu: &'static Cpu<A>) {
    assert_outside(cpu, "waits for a grace period");
    let number = start(A::machine());
    let mut wait = Wait::new(cpu, Doing::WaitGrace);
    while let Some(whom) = holding_up(cpu, number) {
        wait.again(|| Some(whom));
    }
    wait.done();
}

/// Frees `table` after a grace period, without waiting: [`crate::mm::state`] for what was unlinked, [`crate::mm::exit`]
/// for a root.
pub(crate) fn retire<A: Arch>(cpu: &'static Cpu<A>, table: Pfn) {
    let rcu = &cpu.rcu;
    let frame = A::machine().frames.get(table);
    frame.set_next(rcu.next.load(Ordering::Relaxed));
    rcu.next.store(table.0, Ordering::Relaxed);
    rcu.pending.store(rcu.pending() + 1, Ordering::Relaxed);
    poll(cpu);
}

/// Frees what this CPU retired and whose grace period is over, and begins one for the rest.
pub fn poll<A: Arch>(cpu: &'static Cpu<A>) {
    let rcu = &cpu.rcu;
    let waiting = rcu.waiting.load(Ordering::Relaxed);
    if waiting != NONE {
        if holding_up(cpu, rcu.waiting_for.load(Ordering::Relaxed)).is_some() {
            return;
        }
        let mut left = waiting;
        let mut freed = 0;
        while left != NONE {
            let pfn = Pfn(left);
            left = A::machine().frames.get(pfn).next();
            crate::mm::table::free(cpu, pfn);
            freed += 1;
        }
        rcu.waiting.store(NONE, Ordering::Relaxed);
        rcu.pending.store(rcu.pending() - freed, Ordering::Relaxed);
    }
    let next = rcu.next.load(Ordering::Relaxed);
    if next != NONE {
        rcu.next.store(NONE, Ordering::Relaxed);
        rcu.waiting.store(next, Ordering::Relaxed);
        rcu.waiting_for.store(start(A::machine()), Ordering::Relaxed);
    }
}

/// Waits until everything that this CPU retired is free.
pub fn barrier<A: Arch>(cpu: &'static Cpu<A>) {
    let mut wait = Wait::new(cpu, Doing::WaitGrace);
    while cpu.rcu.pending() != 0 {
        poll(cpu);
        let number = cpu.rcu.waiting_for.load(Ordering::Relaxed);
        if cpu.rcu.pending() != 0 {
            wait.again(|| holding_up(cpu, number));
        }
    }
    wait.done();
}
