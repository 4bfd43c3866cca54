//! Flush by broadcast: one instruction per entry reaches every TLB, and a barrier waits for completion (`TLBI …IS` and
//! `DSB`; `INVLPGB` and `TLBSYNC`). Whether there is such an instruction is asked of the machine, not of the
//! architecture; where there is none, [`super::nmi`] plays it.
//!
//! It interrupts nobody, so it proves nothing about walks in software: a CPU in the middle of one goes on, with
//! interrupts masked, while its TLB is invalidated under it. Its coverage is the initiator alone.
//!
//! An mm that has run on one CPU, flushed from that CPU, needs no broadcast: a local invalidation is enough.

use core::sync::atomic::Ordering;

use crate::arch::Arch;
use crate::guard;
use crate::mm::address_space::Mm;
use crate::smp::cpu::Cpu;
use crate::smp::irq;
use crate::smp::mask::CpuMask;
use crate::tlb::coverage::Coverage;
use crate::tlb::invalidation::Invalidation;
use crate::tlb::switch;

/// See [`super::flush`].
pub fn flush<A: Arch>(cpu: &'static Cpu<A>, mm: &Mm<A>, what: Invalidation) -> Coverage {
    let generation = switch::begin_flush(mm);
    if guard!(FlushBroadcast) {
        invalidate(cpu, mm, &what);
    }
    // Only if nothing is left out: a flush by interrupt that is under way (transport `mixed`) has not been here yet.
    let enabled = irq::mask(cpu);
    let caught_up = cpu.loaded.generation() + 1 == generation;
    if caught_up && mm.mask.contains(cpu.id) && cpu.loaded.mm() == mm.id {
        cpu.loaded.set_generation(generation);
    }
    irq::unmask(cpu, enabled);
    Coverage::new(CpuMask::only(cpu.id), 0)
}

/// Reaches every TLB that may have translations of the mm, and waits until they are gone.
pub(super) fn invalidate<A: Arch>(cpu: &'static Cpu<A>, mm: &Mm<A>, what: &Invalidation) {
    let instructions = if mm.mask.load(Ordering::Relaxed).is_subset(&CpuMask::only(cpu.id)) {
        // The mm has run here and nowhere else; whoever loads it after the fence of `begin_flush` sees the entries
        // changed.
        A::invalidate_local(mm.asid(), what)
    } else if A::has_broadcast_invalidation() {
        A::invalidate_broadcast(mm.asid(), what)
    } else {
        super::nmi::invalidate(cpu, mm, what)
    };
    cpu.ledger.invalidations.add(instructions.into());
}
