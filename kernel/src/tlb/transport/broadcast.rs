//! Flush by broadcast: one instruction per entry reaches every TLB, and a barrier waits for completion. Native on aarch64
//! (`TLBI …IS`, `DSB`).
//!
//! It interrupts nobody, so it proves nothing about walks in software: a CPU in the middle of one goes on, with interrupts masked, while its TLB is
//! invalidated under it. Its coverage is the initiator alone.

use crate::arch::Arch;
use crate::guard;
use crate::mm::address_space::Mm;
use crate::smp::cpu::Cpu;
use crate::smp::mask::CpuMask;
use crate::tlb::coverage::Coverage;
use crate::tlb::invalidation::Invalidation;
use crate::tlb::switch;

/// See [`super::flush`].
pub fn flush<A: Arch>(cpu: &'static Cpu<A>, mm: &Mm<A>, what: Invalidation) -> Coverage {
    switch::begin_flush(mm);
    if guard!(FlushBroadcast) {
        let instructions = A::invalidate_broadcast(mm.asid(), &what);
        cpu.ledger.invalidations.add(instructions.into());
    }
    Coverage::new(CpuMask::only(cpu.id), 0)
}
