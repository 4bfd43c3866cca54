//! What a strategy has decided, carried out: the step from [`crate::mm::state::Flushed`] to
//! [`crate::mm::state::Drained`], and the same for a table that its last sharer claims ([`crate::mm::share`]). The
//! strategy is asked once, after the flush; the oracle judges before the first interrupt is sent.

use crate::arch::Arch;
use crate::guard;
use crate::ledger::{Cause, Elision, recorded};
use crate::mm::table::Table;
use crate::oracle;
use crate::pause;
use crate::record::event::EventKind;
use crate::smp::call::call_many;
use crate::smp::cpu::Cpu;
use crate::smp::mask::CpuMask;
use crate::smp::rcu;
use crate::sync::{Ask, Decision, MachineView};

/// Carries out the strategy's decision for `table`, which the mms in `unlinkers` have unlinked. True if another table
/// is wanted.
pub(super) fn settle<A: Arch>(cpu: &'static Cpu<A>, table: Table<A>, ask: &Ask<'_>, unlinkers: &[u32]) -> bool {
    pause!(cpu, SyncBegin);
    let decision = (A::machine().policy.strategy().decide)(&MachineView { cpu }, ask);
    recorded::decision(cpu, table, ask, &decision, unlinkers);
    pause!(cpu, SyncDecided);
    match decision {
        Decision::Elide(reason) => {
            cpu.ledger.elided(reason);
            cpu.events.write(EventKind::SyncElided, ask.party.mm, table.pfn().0.into(), reason as u64);
        }
        Decision::Interrupt(mut targets) => {
            targets.remove(cpu.id);
            if !guard!(SyncInterrupt) {
                targets = CpuMask::EMPTY;
            }
            cpu.events.write(EventKind::SyncBegin, ask.party.mm, table.pfn().0.into(), targets.count().into());
            oracle::judge_sync(cpu, table, unlinkers, &targets);
            call_many(cpu, &targets, Cause::Sync, acknowledge::<A>, 0);
            cpu.events.write(EventKind::SyncEnd, ask.party.mm, table.pfn().0.into(), 0);
        }
        Decision::Grace => rcu::synchronize(cpu),
        Decision::Fresh => {
            cpu.ledger.elided(Elision::FreshTable);
            return true;
        }
    }
    cpu.events.write(EventKind::Drained, ask.party.mm, table.pfn().0.into(), 0);
    pause!(cpu, SyncEnd);
    false
}

/// What a sync runs on its targets: that it runs is all that matters.
fn acknowledge<A: Arch>(_cpu: &'static Cpu<A>, _argument: usize) {}
