//! One CPU's ring of events in shared memory. Written by its CPU alone, by plain stores.

use core::sync::atomic::{AtomicU64, Ordering};

use crate::addr::CpuId;
use crate::record::event::{EVENT_BYTES, Event, EventKind};
use crate::record::ring::RingHeader;

/// The writer's end of one CPU's ring; without memory it writes nothing.
pub struct EventRing {
    header: Option<&'static RingHeader>,
    slots: &'static [[AtomicU64; EVENT_BYTES / 8]],
    cpu: CpuId,
    now: fn() -> u64,
}

impl EventRing {
    /// A ring that keeps nothing.
    pub const fn off(cpu: CpuId) -> EventRing {
        EventRing { header: None, slots: &[], cpu, now: || 0 }
    }

    /// A ring over `slots`, a power of two of them, described by `header`; `now` is the machine's instruction counter.
    pub fn new(
        cpu: CpuId,
        header: &'static RingHeader,
        slots: &'static [[AtomicU64; EVENT_BYTES / 8]],
        now: fn() -> u64,
    ) -> EventRing {
        assert!(slots.len().is_power_of_two());
        EventRing { header: Some(header), slots, cpu, now }
    }

    /// Writes one event. In a build without `checking` this is nothing.
    ///
    /// Interrupted by a handler that writes too, it may lose the handler's event, never its own; walks and handlers write with interrupts masked.
    #[inline(always)]
    pub fn write(&self, kind: EventKind, mm: u32, a: u64, b: u64) {
        if cfg!(feature = "checking") {
            self.put(kind, mm, a, b);
        }
    }

    fn put(&self, kind: EventKind, mm: u32, a: u64, b: u64) {
        let Some(header) = self.header else { return };
        let written = header.written.load(Ordering::Relaxed);
        let event = Event { time: (self.now)(), kind: kind as u16, cpu: self.cpu.0, mm, a, b };
        let slot = &self.slots[(written as usize / EVENT_BYTES) & (self.slots.len() - 1)];
        slot[0].store(event.time, Ordering::Relaxed);
        slot[1].store(event.kind as u64 | (event.cpu as u64) << 16 | (event.mm as u64) << 32, Ordering::Relaxed);
        slot[2].store(a, Ordering::Relaxed);
        slot[3].store(b, Ordering::Relaxed);
        // Release: pairs with the runner's acquire of `written`.
        header.written.store(written + EVENT_BYTES as u64, Ordering::Release);
    }
}
