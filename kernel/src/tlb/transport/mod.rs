//! The transports: how a flush reaches other CPUs.

pub mod broadcast;
pub mod ipi;
pub mod mixed;
pub mod nmi;
pub mod paravirt;

use core::sync::atomic::Ordering;

use crate::arch::{Arch, NativeTransport};
use crate::ledger::recorded::{self, Way};
use crate::mm::address_space::Mm;
use crate::pause;
use crate::record::event::EventKind;
use crate::smp::cpu::Cpu;
use crate::suite::Named;
use crate::tlb::coverage::Coverage;
use crate::tlb::invalidation::Invalidation;

/// All transports, in the order of their numbers.
pub const NAMES: &[Named] = &[
    ("ipi", "interrupt the CPUs of the mm; each invalidates in its handler"),
    ("broadcast", "every TLB is reached and no walk waited for: one instruction, or an NMI that plays it"),
    ("paravirt", "as ipi, but CPUs that the hypervisor has frozen are acknowledged for and flush when they resume"),
    ("mixed", "mms on few CPUs flush by ipi, others by broadcast; an mm is promoted while it is in use"),
];

/// The number of a transport in [`NAMES`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum TransportId {
    /// [`ipi`].
    Ipi = 0,
    /// [`broadcast`].
    Broadcast = 1,
    /// [`paravirt`].
    Paravirt = 2,
    /// [`mixed`].
    Mixed = 3,
}

impl TransportId {
    /// All transports, in the order of their numbers.
    pub const ALL: [TransportId; 4] =
        [TransportId::Ipi, TransportId::Broadcast, TransportId::Paravirt, TransportId::Mixed];

    /// The transport with this number.
    pub fn from_number(n: u8) -> Option<TransportId> {
        TransportId::ALL.into_iter().find(|t| *t as u8 == n)
    }

    /// As on the command line.
    pub fn name(self) -> &'static str {
        NAMES[self as usize].0
    }

    /// What `A` flushes with when nobody chooses.
    pub fn native<A: Arch>() -> TransportId {
        match A::NATIVE_TRANSPORT {
            NativeTransport::Ipi => TransportId::Ipi,
            NativeTransport::Broadcast => TransportId::Broadcast,
        }
    }

    /// Whether flushes may reach other CPUs by an interrupt.
    pub fn interrupts(self) -> bool {
        self != TransportId::Broadcast
    }

    /// What the boolean of `static-hook` is, fixed at boot: whether every flush of tables interrupts every CPU of the
    /// mm. As posted: true for native interrupts only, false where there is a broadcast instruction and for paravirtual
    /// flushes.
    pub fn flush_implies_interrupt(self) -> bool {
        self == TransportId::Ipi
    }
}

/// How the next flush of `mm` travels.
fn way<A: Arch>(mm: &Mm<A>) -> Way {
    match A::machine().policy.transport() {
        TransportId::Ipi | TransportId::Paravirt => Way::Interrupts,
        TransportId::Broadcast => Way::Broadcast,
        TransportId::Mixed => mm.promotion.way(),
    }
}

/// One flush under way.
#[derive(Clone, Copy, Debug)]
pub struct Flush {
    /// What to invalidate.
    pub what: Invalidation,
    /// The mm's flush generation with this flush.
    pub generation: u64,
}

/// Flushes `what` of `mm` on every CPU that may have it, and waits until that is done.
///
/// Entries were changed before. When this returns, no CPU translates by what they were before, and the CPUs named in
/// the result have been in kernel code at interrupt level since. Called with interrupts enabled.
pub fn flush<A: Arch>(cpu: &'static Cpu<A>, mm: &Mm<A>, what: Invalidation) -> Coverage {
    if cfg!(feature = "checking") {
        let mut others = mm.mask.load(Ordering::Relaxed);
        others.remove(cpu.id);
        cpu.events.write(EventKind::FlushBegin, mm.id, what.start.0, others.count().into());
    }
    pause!(cpu, FlushBegin);
    let way = way(mm);
    recorded::flush(cpu, mm, &what, way);
    let coverage = match A::machine().policy.transport() {
        TransportId::Ipi => ipi::flush(cpu, mm, what),
        TransportId::Broadcast => broadcast::flush(cpu, mm, what),
        TransportId::Paravirt => paravirt::flush(cpu, mm, what),
        TransportId::Mixed => mixed::flush(cpu, mm, what, way),
    };
    crate::oracle::ghost::flushed(cpu);
    cpu.events.write(EventKind::FlushEnd, mm.id, what.start.0, coverage.interrupts().into());
    pause!(cpu, FlushEnd);
    coverage
}
