//! The CPU that does the operation: the steps of `kernel::mm::state`, `kernel::mm::share` and the transports, one
//! shared access each.

use kernel::addr::CpuId;
use kernel::smp::mask::CpuMask;
use kernel::sync::Decision;
use kernel::tlb::transport::TransportId;

use super::ask::{self, Answer};
use super::mmu;
use super::scenario::{MmNumber, Operation, Removal, Scenario};
use super::state::{Broken, CpuState, SWITCHING, Stage, State, switching, walk};
use super::step::{Step, present};
use super::{symmetry, two_word};

/// By interrupt.
pub(crate) const BY_INTERRUPT: u8 = 1;
/// By broadcast.
pub(crate) const BY_BROADCAST: u8 = 2;

/// How a flush may go after one that went `before` (0 for none). Where the transport leaves it open, an mm is promoted:
/// from interrupts to both, and from there to broadcast.
fn ways(transport: TransportId, before: u8) -> &'static [u8] {
    const BOTH: u8 = BY_INTERRUPT | BY_BROADCAST;
    match transport {
        TransportId::Ipi | TransportId::Paravirt => &[BY_INTERRUPT],
        TransportId::Broadcast => &[BY_BROADCAST],
        TransportId::Mixed => match before {
            0 => &[BY_INTERRUPT, BOTH, BY_BROADCAST],
            BY_INTERRUPT => &[BY_INTERRUPT, BOTH],
            _ => &[BY_BROADCAST],
        },
    }
}

/// Whether the flush under way is one of tables.
pub(crate) fn flushes_tables(scenario: &Scenario, common: super::state::Common) -> bool {
    scenario.operation != Operation::Pages && common.stage() != Stage::PagesWait && common.stage() != Stage::PagesBegun
}

/// What the initiator can do now.
pub(crate) fn possible(scenario: &Scenario, state: &State, steps: &mut Vec<Step>) {
    let common = state.common;
    if common.unlink_buffered() == 1 {
        steps.push(Step::UnlinkVisible);
    }
    two_word::possible(scenario, state, steps);
    let cpus = &state.cpus[..scenario.cpus as usize];
    let any = |pending: fn(CpuState) -> u8| cpus.iter().any(|cpu| pending(*cpu) == 1);
    let ready = match common.stage() {
        Stage::PagesBegun | Stage::FlushBegun => {
            steps.extend(ways(scenario.transport, common.way()).iter().copied().map(Step::Flush));
            return;
        }
        Stage::PagesWait | Stage::FlushWait => {
            let complete = !any(CpuState::broadcast) || !present(scenario, Removal::Completion);
            complete && !any(CpuState::flush_ipi)
        }
        Stage::SyncWait | Stage::ReadersWait => !any(CpuState::sync_ipi),
        Stage::GraceWait | Stage::Retired => !any(CpuState::grace),
        // What it writes into the table reaches memory after the store that unlinked it.
        Stage::Drained => common.unlink_buffered() == 0,
        Stage::Flushed if scenario.symmetric => {
            steps.extend((0..symmetry::orders(scenario)).map(Step::Ask));
            return;
        }
        Stage::Done => false,
        _ => true,
    };
    if ready {
        steps.push(Step::Operate);
    }
}

/// The operation goes on; a flush goes `way`.
pub(crate) fn operate(scenario: &Scenario, state: &mut State, way: u8) {
    let operation = scenario.operation;
    let mm = state.common.leaver();
    match state.common.stage() {
        Stage::Linked if operation == Operation::CollapseInBatch && state.common.pages_flushed() == 0 => {
            state.common.next_generation(mm);
            state.common.set_stage(Stage::PagesBegun);
        }
        Stage::PagesBegun => {
            send(scenario, state, way, mm);
            state.common.set_stage(Stage::PagesWait);
        }
        Stage::PagesWait => {
            state.common.set_pages_flushed(1);
            state.common.set_stage(Stage::Linked);
        }
        Stage::Linked => unlink(scenario, state, mm),
        Stage::Unlinked if !present(scenario, Removal::FlushFirst) => {
            for (i, cpu) in state.cpus[..scenario.cpus as usize].iter_mut().enumerate() {
                cpu.set_acknowledged((i == 0) as u8);
            }
            state.common.set_stage(Stage::Flushed);
        }
        Stage::Unlinked => {
            if present(scenario, Removal::StoreBeforeFlush) {
                state.common.write_back();
            }
            state.common.next_generation(mm);
            state.common.set_stage(Stage::FlushBegun);
        }
        Stage::FlushBegun => {
            send(scenario, state, way, mm);
            state.common.set_stage(Stage::FlushWait);
        }
        Stage::FlushWait => state.common.set_stage(Stage::Flushed),
        Stage::Flushed => flushed(scenario, state, mm),
        Stage::Deciding => match ask::go_on(scenario, state) {
            Answer::Read => {}
            Answer::LeftBehind(cpus) => next_leaver(scenario, state, &cpus),
            Answer::Decided(decision) => decided(scenario, state, &decision),
        },
        Stage::SyncWait | Stage::GraceWait => state.common.set_stage(Stage::Drained),
        Stage::Drained => {
            hand_over(scenario, state, Broken::ReusedWhileHeld);
            if two_word::waits(scenario) && !operation.collapses() {
                // As `kernel::mm::unmap` does before it lets go of the map lock.
                two_word::wait_for_readers(scenario, state);
            }
        }
        Stage::Retired => {
            hand_over(scenario, state, Broken::FreedWhileHeld);
        }
        Stage::Fresh => retire(scenario, state),
        Stage::ReadersWait => readers_waited(scenario, state),
        Stage::Done => {}
    }
}

fn unlink(scenario: &Scenario, state: &mut State, mm: MmNumber) {
    if !present(scenario, Removal::BreakBeforeMake) {
        // The new entry is in memory while the old one may be cached.
        judge_conflict(scenario, state, mm);
    }
    let common = &mut state.common;
    common.set_former(common.former() | 1 << (mm - 1));
    common.set_unlink_buffered(1);
    if present(scenario, Removal::ExchangeToUnlink) && present(scenario, Removal::StoreBeforeFlush) {
        common.write_back();
    }
    common.set_unlinks(common.unlinks() + 1);
    common.set_stage(Stage::Unlinked);
}

/// Reads the mask, sends what the transport sends, and invalidates at home.
fn send(scenario: &Scenario, state: &mut State, way: u8, mm: MmNumber) {
    let tables = flushes_tables(scenario, state.common);
    // An mm that has run here and nowhere else needs no broadcast.
    let elsewhere = state.cpus[1..scenario.cpus as usize].iter().any(|cpu| cpu.in_mask(mm));
    let others = elsewhere && present(scenario, Removal::Shareable);
    state.common.set_way(way);
    for (i, cpu) in state.cpus[..scenario.cpus as usize].iter_mut().enumerate() {
        cpu.set_acknowledged((i == 0) as u8);
        if way & BY_BROADCAST != 0 && (others || i == 0) {
            cpu.set_broadcast(1);
        }
        if way & BY_INTERRUPT == 0 {
            continue;
        }
        if i == 0 {
            if cpu.in_mask(mm) {
                mmu::invalidate(scenario, cpu, mm);
            }
        } else if others && is_target(scenario, *cpu, mm, tables) {
            // Entering the target's inbox is a read-modify-write.
            state.common.write_back();
            if cpu.frozen() == 1 {
                cpu.set_flush_on_resume(1);
            } else {
                cpu.set_flush_ipi(1);
                state.common.set_interrupted(1);
            }
        }
    }
}

/// Whether a flush by interrupt is meant for `cpu`.
fn is_target(scenario: &Scenario, cpu: CpuState, mm: MmNumber, tables: bool) -> bool {
    if !cpu.in_mask(mm) {
        return false;
    }
    let lazy_here = cpu.loaded() == mm && cpu.lazy() == 1;
    if tables {
        return present(scenario, Removal::LazyReached) || !lazy_here;
    }
    if scenario.tagged { !lazy_here } else { cpu.loaded() == SWITCHING || cpu.loaded() == mm && !lazy_here }
}

/// The flush of `mm` is complete: goes on with the next mm, asks the strategy, or frees.
fn flushed(scenario: &Scenario, state: &mut State, mm: MmNumber) {
    match scenario.operation {
        Operation::Pages => state.common.set_stage(Stage::Done),
        Operation::Free => {
            retire(scenario, state);
            if two_word::waits(scenario) {
                two_word::wait_for_readers(scenario, state);
            }
        }
        operation => {
            for cpu in &mut state.cpus[..scenario.cpus as usize] {
                cpu.set_party(cpu.in_mask(mm) as u8);
            }
            state.common.set_stage(Stage::Deciding);
            let unshare = matches!(operation, Operation::UnshareLast | Operation::UnshareThree);
            if mm == operation.leavers() && unshare && !present(scenario, Removal::UnshareSync) {
                state.common.set_stage(Stage::Drained);
            }
        }
    }
}

/// The mm has left, and these CPUs could still walk for it: the next one leaves, with a gather of its own.
fn next_leaver(scenario: &Scenario, state: &mut State, left_behind: &CpuMask) {
    for (i, cpu) in state.cpus[..scenario.cpus as usize].iter_mut().enumerate() {
        if left_behind.contains(CpuId(i as u16)) {
            cpu.set_left_behind(1);
        }
    }
    state.forget_answers();
    if two_word::waits(scenario) {
        two_word::wait_for_readers(scenario, state);
    } else {
        begin_next(state);
    }
}

fn begin_next(state: &mut State) {
    state.common.set_interrupted(0);
    state.common.set_way(0);
    state.common.set_leaver(state.common.leaver() + 1);
    state.common.set_stage(Stage::Linked);
}

/// Nobody reads two words any more who began before: what was to come then comes.
fn readers_waited(scenario: &Scenario, state: &mut State) {
    match scenario.operation {
        Operation::Free => state.common.set_stage(Stage::Retired),
        operation if operation.collapses() => two_word::put_back(scenario, state),
        operation if state.common.leaver() < operation.leavers() => begin_next(state),
        _ => state.common.set_stage(Stage::Done),
    }
}

/// The table is used again, or freed: whoever has it violates `broken`.
fn hand_over(scenario: &Scenario, state: &mut State, broken: Broken) {
    judge_walks(scenario, state, broken);
    judge_caches(scenario, state);
    if scenario.two_words() {
        state.common.set_handed_over(broken as u8);
    }
    state.common.set_stage(Stage::Done);
}

/// Begins a grace period.
fn begin_grace(scenario: &Scenario, state: &mut State) {
    state.common.write_back();
    for cpu in &mut state.cpus[1..scenario.cpus as usize] {
        cpu.set_grace(1);
    }
}

fn retire(scenario: &Scenario, state: &mut State) {
    state.common.write_back();
    if present(scenario, Removal::GraceBeforeFree) {
        begin_grace(scenario, state);
    }
    state.common.set_stage(Stage::Retired);
}

/// Carries the decision out, as `kernel::mm::state::settle` does.
fn decided(scenario: &Scenario, state: &mut State, decision: &Decision) {
    match decision {
        Decision::Elide(_) => {
            state.common.set_stage(Stage::Drained);
        }
        Decision::Interrupt(targets) => {
            for (i, cpu) in state.cpus[..scenario.cpus as usize].iter_mut().enumerate().skip(1) {
                if targets.contains(CpuId(i as u16)) {
                    state.common.write_back();
                    cpu.set_sync_ipi(1);
                }
            }
            state.common.set_stage(Stage::SyncWait);
        }
        Decision::Grace => {
            begin_grace(scenario, state);
            state.common.set_stage(Stage::GraceWait);
        }
        Decision::Fresh => {
            if matches!(scenario.operation, Operation::UnshareLast | Operation::UnshareThree) {
                // The table is the survivor's: it cannot be another one.
                begin_grace(scenario, state);
                state.common.set_stage(Stage::GraceWait);
            } else if scenario.two_words() {
                // Whether it is used or put back turns out only now.
                state.common.set_stage(Stage::Fresh);
            } else {
                retire(scenario, state);
            }
        }
    }
    state.forget_answers();
}

pub(crate) fn break_it(state: &mut State, what: Broken, cpu: usize) {
    if state.common.broken() == 0 {
        state.common.set_broken(what as u8);
        state.common.set_culprit(cpu as u8);
    }
}

/// No walk of an mm that unlinked the table may hold it.
fn judge_walks(scenario: &Scenario, state: &mut State, what: Broken) {
    let former = state.common.former();
    let concerns = |mm: MmNumber| mm != 0 && former >> (mm - 1) & 1 != 0;
    for i in 1..scenario.cpus as usize {
        let cpu = state.cpus[i];
        let outer = cpu.walk() == walk::HOLDING && concerns(cpu.walk_mm());
        let nested = cpu.nested() == walk::HOLDING && concerns(cpu.nested_mm());
        if outer || nested {
            break_it(state, what, i);
        }
    }
}

/// No TLB and no paging-structure cache may lead through it for such an mm. A frozen CPU that invalidates before it
/// runs uses none.
fn judge_caches(scenario: &Scenario, state: &mut State) {
    if !present(scenario, Removal::FlushFirst) {
        return;
    }
    let former = state.common.former();
    for i in 0..scenario.cpus as usize {
        let cpu = state.cpus[i];
        let harmless = cpu.frozen() == 1 && cpu.flush_on_resume() == 1;
        if (cpu.leaves() | cpu.tables()) & former != 0 && !harmless {
            break_it(state, Broken::StaleTranslation, i);
        }
    }
}

/// The page was freed: no CPU that uses the mm may have a translation to it. One that is lazy may, until it uses the mm
/// again.
pub(crate) fn judge_uses(scenario: &Scenario, state: &mut State) {
    for i in 0..scenario.cpus as usize {
        let cpu = state.cpus[i];
        let uses = cpu.current() != 0 && cpu.lazy() == 0 && cpu.frozen() == 0 && cpu.switch() == switching::NONE;
        if uses && cpu.leaves() >> (cpu.current() - 1) & 1 != 0 {
            break_it(state, Broken::StaleTranslation, i);
        }
    }
}

/// A new entry for `mm` is written over the old one: nobody may have the old one cached.
fn judge_conflict(scenario: &Scenario, state: &mut State, mm: MmNumber) {
    for i in 0..scenario.cpus as usize {
        if (state.cpus[i].leaves() | state.cpus[i].tables()) >> (mm - 1) & 1 != 0 {
            break_it(state, Broken::Conflict, i);
        }
    }
}
