//! What whoever drives a directed execution may look at, without touching anything: what a CPU is about to do, what it
//! has loaded, what the kernel has written down.

use std::sync::atomic::{AtomicU64, Ordering};

use kernel::addr::{Level, Pfn};
use kernel::mm::address_space::Mm;
use kernel::record::event::{EVENT_BYTES, Event};
use kernel::record::ring::RingHeader;
use kernel::smp::cpu::Cpu;
use kernel::tlb::switch::SWITCHING;
use kernel::workload::WorkloadId;

use super::arch::Sim;
use super::directed::{Directed, EVENTS};
use super::staging::MmNumber;
use crate::explore::hub::{Access, Kind};

impl<const TAGGED: bool> Directed<TAGGED> {
    /// What the program of `cpu` is about to do.
    pub(crate) fn pending(&self, cpu: usize) -> Option<Access> {
        self.direction().hub.borrow().pending(cpu)
    }

    /// Whether `cpu` runs a handler of this kind.
    pub(crate) fn inside(&self, cpu: usize, kind: Kind) -> bool {
        self.direction().hub.borrow().inside(cpu, kind)
    }

    /// Whether `cpu` runs no handler and is between two things that it does.
    pub(crate) fn is_between_acts(&self, cpu: usize) -> bool {
        let handlers = [Kind::Interrupt, Kind::Nmi, Kind::Freeze];
        self.pending(cpu) == Some(Access::Pause) && !handlers.iter().any(|kind| self.inside(cpu, *kind))
    }

    /// The kernel's area of `cpu`.
    pub(crate) fn cpu(&self, cpu: usize) -> &'static Cpu<Sim<TAGGED>> {
        self.cpus[cpu]
    }

    /// An mm of the staging.
    pub(crate) fn mm(&self, number: MmNumber) -> &Mm<Sim<TAGGED>> {
        self.plot.mm(number)
    }

    /// The table that changes hands.
    pub(crate) fn table(&self) -> Option<Pfn> {
        self.table
    }

    /// The entry of this mm that points at the table that changes hands, or did.
    pub(crate) fn entry(&self, mm: MmNumber) -> &'static AtomicU64 {
        let level = if self.plot.scope.workload == WorkloadId::CollapseAnon { Level::Pmd } else { Level::Pud };
        let parent = self.mm(mm).table_at(level, self.plot.va).expect("the parent stays");
        parent.slot(self.plot.va.index(level))
    }

    /// Whether `cpu` says that it changes over.
    pub(crate) fn says_switching(&self, cpu: usize) -> bool {
        self.cpus[cpu].loaded.mm() == SWITCHING
    }

    /// Whether the hardware of `cpu` translates by this mm; by none, where it is 0.
    pub(crate) fn translates_by(&self, cpu: usize, mm: MmNumber) -> bool {
        let root = self.world.cores[cpu].mmu.borrow().root.map(|(root, _)| root);
        root == (mm != 0).then(|| self.mm(mm).root.addr())
    }

    /// By CPU: how many events were overwritten, and how many never written.
    pub(super) fn lost_events(&self) -> (Vec<u64>, Vec<u64>) {
        let number = |of: fn(&RingHeader) -> &AtomicU64| {
            self.rings.iter().map(|ring| of(ring).load(Ordering::Relaxed)).collect::<Vec<_>>()
        };
        let written = number(|ring| &ring.written);
        let overwritten = written.iter().map(|bytes| (bytes / EVENT_BYTES as u64).saturating_sub(EVENTS as u64));
        (overwritten.collect(), number(|ring| &ring.dropped))
    }

    /// The events that `cpu` has written, from number `from` on.
    pub(crate) fn events_since(&self, cpu: usize, from: usize) -> Vec<Event> {
        let (Some(header), Some(slots)) = (self.rings.get(cpu), self.slots.get(cpu)) else { return Vec::new() };
        let written = header.written.load(Ordering::Relaxed) as usize / EVENT_BYTES;
        let event = |i: usize| {
            let word = |n: usize| slots[i % EVENTS][n].load(Ordering::Relaxed);
            Event {
                time: word(0),
                kind: word(1) as u16,
                cpu: (word(1) >> 16) as u16,
                mm: (word(1) >> 32) as u32,
                a: word(2),
                b: word(3),
            }
        };
        (from.max(written.saturating_sub(EVENTS))..written).map(event).collect()
    }
}
