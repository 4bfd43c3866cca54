//! What an NMI does on a CPU, and what it must not: it may interrupt any code, in the middle of any lock, so it takes
//! none and frees nothing.
//!
//! Two things come by NMI: the invalidation that plays a broadcast ([`crate::tlb::transport::nmi`]), and, for the
//! walker classes that ask for it, a walk. NMIs merge, so each has a request word of its own.

use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering, compiler_fence};

use crate::addr::Pfn;
use crate::arch::Arch;
use crate::mm::page;
use crate::record::event::EventKind;
use crate::smp::cpu::Cpu;
use crate::smp::rcu;
use crate::tlb::transport::{nmi, paravirt};
use crate::workload::crowd;

/// References that NMIs may leave behind until the CPU drops them.
const DEFERRED: usize = 64;

/// One CPU's part.
pub struct Nmi {
    /// A walk is asked for: what to walk, or 0.
    pub(crate) walk: AtomicUsize,
    /// The last of its walks in which an NMI was asked for.
    last: AtomicU64,
    inside: AtomicBool,
    deferred: [AtomicU32; DEFERRED],
    count: AtomicUsize,
}

impl Default for Nmi {
    fn default() -> Nmi {
        Nmi {
            walk: AtomicUsize::new(0),
            last: AtomicU64::new(0),
            inside: AtomicBool::new(false),
            deferred: [const { AtomicU32::new(0) }; DEFERRED],
            count: AtomicUsize::new(0),
        }
    }
}

impl Nmi {
    /// Whether this CPU is in an NMI just now.
    pub fn is_inside(&self) -> bool {
        self.inside.load(Ordering::Relaxed)
    }

    /// Walks are counted anew.
    pub(crate) fn reset(&self) {
        self.last.store(0, Ordering::Relaxed);
    }

    /// Whether `walk` is one in which no NMI was asked for before. From now on it is not.
    pub(crate) fn is_new(&self, walk: Option<u64>) -> bool {
        // Relaxed: two that ask at once ask twice.
        walk.is_some_and(|walk| self.last.swap(walk, Ordering::Relaxed) != walk)
    }

    /// Whether a walk of `pages` pages could defer all its references, those it takes back included.
    pub(crate) fn has_room(&self, pages: usize) -> bool {
        self.count.load(Ordering::Relaxed) + 2 * pages <= DEFERRED
    }

    /// In an NMI: leaves a reference to be dropped later.
    pub(crate) fn defer(&self, pfn: Pfn) {
        let at = self.count.load(Ordering::Relaxed);
        self.deferred[at].store(pfn.0, Ordering::Relaxed);
        self.count.store(at + 1, Ordering::Relaxed);
    }
}

/// The NMI.
pub(crate) fn enter<A: Arch>(cpu: &'static Cpu<A>) {
    cpu.ledger.nmis.add(1);
    cpu.events.write(EventKind::HandlerBegin, 0, 1, 0);
    nmi::handle(cpu);
    if cpu.nmi.walk.load(Ordering::Relaxed) != 0 {
        walk(cpu);
    }
    cpu.events.write(EventKind::HandlerEnd, 0, 1, 0);
}

/// Walks, if somebody has asked for it.
fn walk<A: Arch>(cpu: &'static Cpu<A>) {
    // Acquire: pairs with the release of who asked (tests/litmus/hand-over).
    let what = cpu.nmi.walk.swap(0, Ordering::Acquire);
    if what == 0 {
        return;
    }
    paravirt::resume_if_frozen(cpu);
    let idle = rcu::enter_nmi(cpu);
    cpu.nmi.inside.store(true, Ordering::Relaxed);
    crowd::walk_in_nmi(cpu, what);
    cpu.nmi.inside.store(false, Ordering::Relaxed);
    rcu::leave_nmi(cpu, idle);
}

/// Drops the references that NMIs left. Outside NMIs; one that comes meanwhile adds behind what is taken here.
pub fn drop_deferred<A: Arch>(cpu: &'static Cpu<A>) {
    loop {
        let enabled = A::irq_save();
        let count = cpu.nmi.count.load(Ordering::Relaxed);
        let last = count.checked_sub(1).map(|at| cpu.nmi.deferred[at].load(Ordering::Relaxed));
        compiler_fence(Ordering::SeqCst);
        // An NMI between these lines has added more: only take the last one if it still is.
        let taken = last.is_some()
            && cpu.nmi.count.compare_exchange(count, count - 1, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        A::irq_restore(enabled);
        match last {
            None => return,
            Some(pfn) if taken => page::put_walked(cpu, Pfn(pfn)),
            Some(_) => {}
        }
    }
}
