//! Regions with interrupts masked, outside of walks and handlers, written down for whoever looks at a trace.

use crate::arch::Arch;
use crate::record::event::EventKind;
use crate::smp::cpu::Cpu;

/// Masks interrupts; returns whether they were enabled, for [`unmask`].
#[inline(always)]
pub fn mask<A: Arch>(cpu: &Cpu<A>) -> bool {
    let enabled = A::irq_save();
    if enabled {
        cpu.events.write(EventKind::MaskBegin, 0, 0, 0);
    }
    enabled
}

/// Puts back what [`mask`] found.
#[inline(always)]
pub fn unmask<A: Arch>(cpu: &Cpu<A>, were_enabled: bool) {
    if were_enabled {
        cpu.events.write(EventKind::MaskEnd, 0, 0, 0);
    }
    A::irq_restore(were_enabled);
}
