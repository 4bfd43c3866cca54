//! Locks: those of the `spin` crate, waiting as this machine wants it.
//!
//! All locks of the core are taken with interrupts enabled and never from an interrupt handler, so a CPU that waits for one
//! still acknowledges flushes and syncs: the holder may wait for it. The order is: mm map, file, PGD, PUD, PMD, PTE table, frame allocator. The
//! only exception is the reclaim of an emptied PTE table, which tries the PMD lock while it holds the PTE lock.

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
        // Whoever waits for a lock may be waited for by a holder who waits for a grace period. A walk that gives back a page's last reference waits here too,
        // for the frame allocator, and is not over: it has interrupts masked.
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
/// A lock that several readers hold at once.
pub type RwLock<A, T> = spin::rwlock::RwLock<T, Relax<A>>;
