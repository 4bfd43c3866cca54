//! Locks: those of the `spin` crate, waiting as this machine wants it.
//!
//! All locks of the core are taken with interrupts enabled and never from an interrupt handler, so a CPU that waits for
//! one still acknowledges flushes and syncs: the holder may wait for it. The order is: a file's visits, mm map, file,
//! PGD, PUD, PMD, PTE table, frame allocator. The only exception is the reclaim of an emptied PTE table, which tries
//! the PMD lock while it holds the PTE lock.
//!
//! Grace periods ([`crate::smp::rcu`]) stand in that order too, between the file and the tables. Whoever waits for one
//! may hold an mm's map lock and a file's lock (the last sharer of a table syncs under it, [`crate::mm::share`]), and
//! holds no table's lock. Whoever is in a read section takes only table locks and the frame allocator's. Otherwise a
//! reader would wait for a lock whose holder waits for the reader. `rcu::synchronize` and `File::lock` check the
//! reader's half in builds with `checking`; a table's lock, which many hold for short, is kept by the code: a strategy
//! is asked for its sync after the lock was dropped ([`crate::mm::state::Flushed::drain`]), and a gather takes tables
//! when none is held.

use core::marker::PhantomData;

use crate::arch::Arch;
use crate::record::shared::Doing;
use crate::scenario;
use crate::smp::rcu;

/// Waits by [`Arch::relax`].
pub struct Relax<A>(PhantomData<A>);

impl<A: Arch> spin::RelaxStrategy for Relax<A> {
    #[inline(always)]
    fn relax() {
        A::relax();
        // Whoever waits for a lock may be waited for by a holder who waits for a grace period. A walk that gives back a
        // page's last reference waits here too, for the frame allocator, and is not over: it has interrupts masked.
        if A::irqs_enabled() {
            rcu::quiescent(A::this_cpu());
        }
        scenario::waits(A::this_cpu(), Doing::WaitLock);
    }
}

/// A mutual-exclusion lock.
pub type Mutex<A, T> = spin::mutex::SpinMutex<T, Relax<A>>;
/// The guard of a [`Mutex`].
pub type MutexGuard<'a, A, T> = spin::mutex::SpinMutexGuard<'a, T, Relax<A>>;

/// A lock that several readers hold at once, in turns: whoever wants it takes a ticket, and keeps it until he has the
/// lock. So a writer who waits is passed by nobody who came later: programs whose threads read without a pause, by
/// touching pages, keep nobody from unmapping them. A CPU that reads must not ask again before it is done: a writer may
/// be in between.
pub struct RwLock<A, T> {
    turn: spin::mutex::TicketMutex<(), Relax<A>>,
    lock: spin::rwlock::RwLock<T, Relax<A>>,
}

impl<A: Arch, T> RwLock<A, T> {
    /// One that nobody holds.
    pub const fn new(value: T) -> RwLock<A, T> {
        RwLock { turn: spin::mutex::TicketMutex::new(()), lock: spin::rwlock::RwLock::new(value) }
    }

    /// Waits until it can be read.
    pub fn read(&self) -> spin::rwlock::RwLockReadGuard<'_, T, Relax<A>> {
        let _turn = self.turn.lock();
        self.lock.read()
    }

    /// Waits until it can be written.
    pub fn write(&self) -> spin::rwlock::RwLockWriteGuard<'_, T, Relax<A>> {
        let _turn = self.turn.lock();
        self.lock.write()
    }

    /// Reads, if that needs no wait and nobody waits.
    pub fn try_read(&self) -> Option<spin::rwlock::RwLockReadGuard<'_, T, Relax<A>>> {
        let _turn = self.turn.try_lock()?;
        self.lock.try_read()
    }
}
