//! One CPU's ring of events in shared memory. Written by its CPU alone, by plain stores.
//!
//! An event is written with interrupts masked, so a handler's events come before it or after it. An NMI may come in the
//! middle of one; what it would write then is left out and counted ([`RingHeader::dropped`]), so that a reader knows.
//! Masking interrupts is no barrier, and neither is anything else here.

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering, compiler_fence};

use crate::addr::CpuId;
use crate::arch::Arch;
use crate::ledger::profile::CpuProfile;
use crate::record::event::{EVENT_BYTES, Event, EventKind};
use crate::record::ring::RingHeader;

/// One event's words.
pub type Slot = [AtomicU64; EVENT_BYTES / 8];

/// What the writer needs of its machine.
struct Machine {
    now: fn() -> u64,
    irq_save: fn() -> bool,
    irq_restore: fn(bool),
}

/// The memory of one ring, and the machine it is on.
struct Memory {
    header: &'static RingHeader,
    slots: &'static [Slot],
    machine: Machine,
    profile: Option<&'static CpuProfile>,
}

/// The writer's end of one CPU's ring; without memory it writes nothing.
pub struct EventRing {
    memory: Option<Memory>,
    cpu: CpuId,
    /// An event is being written.
    writing: AtomicBool,
}

impl EventRing {
    /// A ring that keeps nothing.
    pub const fn off(cpu: CpuId) -> EventRing {
        EventRing { memory: None, cpu, writing: AtomicBool::new(false) }
    }

    /// A ring over `slots`, a power of two of them, described by `header`; `A` has the instruction counter.
    pub fn new<A: Arch>(cpu: CpuId, header: &'static RingHeader, slots: &'static [Slot]) -> EventRing {
        assert!(slots.len().is_power_of_two());
        let machine = Machine { now: A::instructions, irq_save: A::irq_save, irq_restore: A::irq_restore };
        EventRing {
            memory: Some(Memory { header, slots, machine, profile: None }),
            cpu,
            writing: AtomicBool::new(false),
        }
    }

    /// The same on a machine where nothing comes between two accesses that others can notice: there, masking interrupts
    /// would be such an access of its own.
    pub fn undisturbed(cpu: CpuId, header: &'static RingHeader, slots: &'static [Slot], now: fn() -> u64) -> EventRing {
        assert!(slots.len().is_power_of_two());
        let machine = Machine { now, irq_save: || false, irq_restore: |_| () };
        EventRing {
            memory: Some(Memory { header, slots, machine, profile: None }),
            cpu,
            writing: AtomicBool::new(false),
        }
    }

    /// The same ring, whose events `profile` takes notice of.
    pub fn profiled(mut self, profile: &'static CpuProfile) -> EventRing {
        if let Some(memory) = &mut self.memory {
            memory.profile = Some(profile);
        }
        self
    }

    /// What takes notice of the events.
    pub fn profile(&self) -> Option<&'static CpuProfile> {
        self.memory.as_ref().and_then(|memory| memory.profile)
    }

    /// Writes one event. In a build without `checking` this is nothing.
    #[inline(always)]
    pub fn write(&self, kind: EventKind, mm: u32, a: u64, b: u64) {
        if cfg!(feature = "checking") {
            self.put(kind, mm, a, b);
        }
    }

    fn put(&self, kind: EventKind, mm: u32, a: u64, b: u64) {
        let Some(Memory { header, slots, machine, profile }) = &self.memory else { return };
        let enabled = (machine.irq_save)();
        if self.writing.load(Ordering::Relaxed) {
            header.dropped.store(header.dropped.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        } else {
            self.writing.store(true, Ordering::Relaxed);
            compiler_fence(Ordering::SeqCst);
            let event = Event { time: (machine.now)(), kind: kind as u16, cpu: self.cpu.0, mm, a, b };
            append(header, slots, &event);
            if let Some(profile) = profile {
                profile.note(kind, &event);
            }
            compiler_fence(Ordering::SeqCst);
            self.writing.store(false, Ordering::Relaxed);
        }
        (machine.irq_restore)(enabled);
    }
}

/// Puts `event` where the oldest was.
fn append(header: &RingHeader, slots: &[Slot], event: &Event) {
    let written = header.written.load(Ordering::Relaxed);
    let slot = &slots[(written as usize / EVENT_BYTES) & (slots.len() - 1)];
    slot[0].store(event.time, Ordering::Relaxed);
    slot[1].store(event.kind as u64 | (event.cpu as u64) << 16 | (event.mm as u64) << 32, Ordering::Relaxed);
    slot[2].store(event.a, Ordering::Relaxed);
    slot[3].store(event.b, Ordering::Relaxed);
    // Release: pairs with the runner's acquire of `written` (tests/litmus/hand-over).
    header.written.store(written + EVENT_BYTES as u64, Ordering::Release);
}
