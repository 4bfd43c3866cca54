//! Flush by interrupt: the CPUs of the mm's mask invalidate in their handlers and acknowledge.
//!
//! Native on x86_64; on aarch64 what some vendors' software modes do. An acknowledgement comes from an interrupt
//! handler, which cannot run inside a walk of that CPU: so for the CPUs in its coverage this flush is a sync as well.
//!
//! A flush of tables reaches every CPU of the mask, lazy ones too: their hardware may walk. A flush of pages skips CPUs
//! that are lazy or have another mm loaded; they catch up by the generation when they load this one again.

use crate::arch::Arch;
use crate::guard;
use crate::ledger::Cause;
use crate::mm::address_space::Mm;
use crate::oracle;
use crate::pause;
use crate::smp::call::call_many;
use crate::smp::cpu::Cpu;
use crate::smp::irq;
use crate::smp::mask::CpuMask;
use crate::tlb::coverage::Coverage;
use crate::tlb::invalidation::Invalidation;
use crate::tlb::switch::{self, SWITCHING};
use crate::tlb::transport::Flush;

/// What the handler needs; lives on the initiator's stack while the call is under way.
struct Order<'a, A: Arch> {
    mm: &'a Mm<A>,
    flush: Flush,
}

/// See [`super::flush`].
pub fn flush<A: Arch>(cpu: &'static Cpu<A>, mm: &Mm<A>, what: Invalidation) -> Coverage {
    let flush = Flush { what, generation: switch::begin_flush(mm) };
    let targets = targets(cpu, mm, &what);
    cpu.ledger.recorded.told::<A>(targets.count(), &what);
    pause!(cpu, AfterTargets);
    deliver(cpu, mm, flush, targets)
}

/// Invalidates here and, by interrupt, on `targets`.
pub(super) fn deliver<A: Arch>(cpu: &'static Cpu<A>, mm: &Mm<A>, flush: Flush, targets: CpuMask) -> Coverage {
    let what = flush.what;
    if mm.mask.contains(cpu.id) {
        let enabled = irq::mask(cpu);
        switch::invalidate_here(cpu, mm, &flush);
        irq::unmask(cpu, enabled);
    }
    let cause = if what.tables { Cause::FlushTables } else { Cause::FlushPages };
    let order = Order { mm, flush };
    if guard!(FlushIpi) {
        oracle::judge_flush(cpu, mm, &targets, cause);
        call_many(cpu, &targets, cause, handle::<A>, &order as *const Order<'_, A> as usize);
    }
    let interrupts = targets.count();
    let mut acknowledged = targets;
    acknowledged.insert(cpu.id);
    Coverage::new(acknowledged, interrupts)
}

/// The other CPUs that must invalidate.
pub(super) fn targets<A: Arch>(cpu: &Cpu<A>, mm: &Mm<A>, what: &Invalidation) -> CpuMask {
    let mut targets = mm.mask.load(core::sync::atomic::Ordering::Relaxed);
    targets.remove(cpu.id);
    if what.tables {
        return targets;
    }
    if A::tagged() {
        // Tagged translations outlive a switch, so only lazy CPUs, which catch up before they use them, may be skipped.
        return targets.iter().filter(|id| !is_lazy_in(cpu, mm, *id)).collect();
    }
    targets
        .iter()
        .filter(|id| {
            let loaded = A::machine().cpu(*id).loaded.mm();
            loaded == SWITCHING || (loaded == mm.id && !A::machine().cpu(*id).loaded.is_lazy())
        })
        .collect()
}

fn is_lazy_in<A: Arch>(_cpu: &Cpu<A>, mm: &Mm<A>, id: crate::addr::CpuId) -> bool {
    let loaded = &A::machine().cpu(id).loaded;
    loaded.mm() == mm.id && loaded.is_lazy()
}

fn handle<A: Arch>(cpu: &'static Cpu<A>, argument: usize) {
    // SAFETY: the initiator waits in `call_many` until this handler has returned, and keeps the order on its stack till
    // then.
    let order = unsafe { &*(argument as *const Order<'_, A>) };
    switch::invalidate_here(cpu, order.mm, &order.flush);
}
