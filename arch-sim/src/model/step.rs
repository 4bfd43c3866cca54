//! The steps of the model, and which of them are possible in a state.

use kernel::tlb::transport::TransportId;
use kernel::workload::walker::WalkerClass;

use super::scenario::{MmNumber, Operation, Publication, Removal, Scenario};
use super::state::{Stage, State, switching, walk};
use super::{initiator, mmu, symmetry, two_word, walker};

/// One step of one CPU, of its hardware, or of the hypervisor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// The operation goes on.
    Operate,
    /// The operation goes on, and its flush goes this way.
    Flush(u8),
    /// The operation goes on with the flush complete; CPUs that walk may be asked about in this order.
    Ask(u8),
    /// The initiator's unlinking store reaches memory.
    UnlinkVisible,
    /// The oldest store of this CPU reaches memory.
    StoreVisible(u8),
    /// A walk begins.
    WalkBegin(u8, MmNumber),
    /// The walk passes its barrier, or reads the entry.
    WalkOn(u8),
    /// The walk ends.
    WalkEnd(u8),
    /// An NMI begins a walk of this mm.
    NmiBegin(u8, MmNumber),
    /// That walk goes on.
    NmiOn(u8),
    /// It ends.
    NmiEnd(u8),
    /// The CPU begins to load this mm, or to unload (0).
    SwitchBegin(u8, MmNumber),
    /// It goes on with that.
    SwitchOn(u8),
    /// It becomes idle and keeps the mm.
    BecomeLazy(u8),
    /// It uses the mm again.
    LeaveLazy(u8),
    /// It takes the pending flush interrupt.
    HandleFlush(u8),
    /// It takes the pending sync interrupt.
    HandleSync(u8),
    /// It takes some other interrupt.
    OtherInterrupt(u8),
    /// The broadcast invalidation reaches it.
    BroadcastArrives(u8),
    /// It passes a quiescent state.
    Quiescent(u8),
    /// The hypervisor stops it.
    Freeze(u8),
    /// The hypervisor runs it again.
    Resume(u8),
    /// Its hardware caches the entry that points at the table.
    FillTable(u8),
    /// Its hardware caches a translation through the table.
    FillLeaf(u8),
    /// The collapse fails, and puts the table back. Only where entries are read as two words; so is the next.
    PutBack,
    /// The entry of this mm, which was cleared, is filled again.
    Fill(MmNumber),
}

/// All steps that are possible in `state`.
pub(crate) fn possible(scenario: &Scenario, state: &State, steps: &mut Vec<Step>) {
    // A page that was freed can be reached later, by a CPU that the flush has skipped; and an entry filled again
    // between two words of it that a walk reads.
    let goes_on = scenario.operation == Operation::Pages || scenario.two_words();
    let over = state.common.stage() == Stage::Done && !goes_on;
    if state.common.broken() != 0 || over {
        return;
    }
    initiator::possible(scenario, state, steps);
    for i in 0..scenario.cpus {
        let cpu = state.cpus[i as usize];
        if cpu.broadcast() == 1 {
            steps.push(Step::BroadcastArrives(i));
        }
        if !scenario.eager_fills {
            let (leaf, table) = mmu::fillable(scenario, state, cpu);
            if table {
                steps.push(Step::FillTable(i));
            }
            if leaf {
                steps.push(Step::FillLeaf(i));
            }
        }
    }
    for i in 1..scenario.cpus {
        of_walker(scenario, state, i, steps);
    }
}

/// The steps of a CPU that walks.
fn of_walker(scenario: &Scenario, state: &State, i: u8, steps: &mut Vec<Step>) {
    let cpu = state.cpus[i as usize];
    if cpu.buffered() > 0 {
        // Also of a frozen CPU: its stores are on their way.
        steps.push(Step::StoreVisible(i));
    }
    if cpu.frozen() == 1 {
        steps.push(Step::Resume(i));
        return;
    }
    if matches!(scenario.transport, TransportId::Paravirt) {
        steps.push(Step::Freeze(i));
    }
    match cpu.nested() {
        walk::NONE => {}
        walk::HOLDING => {
            if publishes_nothing(scenario) || cpu.can_store() {
                steps.push(Step::NmiEnd(i));
            }
            return;
        }
        _ => {
            steps.push(Step::NmiOn(i));
            return;
        }
    }
    let lazy = cpu.lazy() == 1;
    let between = cpu.switch() == switching::NONE;
    if between && !lazy && cpu.can_store() {
        for mm in 1..=scenario.mms() {
            let may = match scenario.walker {
                WalkerClass::Nmi => cpu.current() == mm,
                WalkerClass::NmiOther => cpu.current() != mm,
                _ => false,
            };
            if may {
                steps.push(Step::NmiBegin(i, mm));
            }
        }
    }
    if cpu.takes_interrupts() {
        if cpu.flush_ipi() == 1 {
            steps.push(Step::HandleFlush(i));
        }
        if cpu.sync_ipi() == 1 {
            steps.push(Step::HandleSync(i));
        }
        if cpu.seen_unlinks() < state.common.unlinks() {
            steps.push(Step::OtherInterrupt(i));
        }
    }
    if cpu.switch() != switching::NONE {
        if cpu.can_store() {
            steps.push(Step::SwitchOn(i));
        }
        return;
    }
    match cpu.walk() {
        walk::NONE => {}
        walk::HOLDING => {
            if cpu.rcu() == 1 || publishes_nothing(scenario) || cpu.can_store() {
                steps.push(Step::WalkEnd(i));
            }
            return;
        }
        _ => {
            steps.push(Step::WalkOn(i));
            return;
        }
    }
    if cpu.grace() == 1 {
        steps.push(Step::Quiescent(i));
    }
    if lazy {
        steps.push(Step::LeaveLazy(i));
    } else {
        for mm in 1..=scenario.mms() {
            let may = match scenario.walker {
                WalkerClass::Gup | WalkerClass::TwoWord | WalkerClass::Nmi | WalkerClass::NmiOther => {
                    cpu.current() == mm
                }
                WalkerClass::Foreign | WalkerClass::Rcu => true,
            };
            if may && cpu.can_store() {
                steps.push(Step::WalkBegin(i, mm));
            }
        }
        if cpu.current() != 0 && scenario.moves {
            steps.push(Step::BecomeLazy(i));
        }
    }
    if cpu.can_store() && scenario.moves {
        for mm in 0..=scenario.mms() {
            if mm != cpu.current() {
                steps.push(Step::SwitchBegin(i, mm));
            }
        }
    }
}

fn publishes_nothing(scenario: &Scenario) -> bool {
    scenario.publication == Publication::None
}

/// The state after `step`.
pub(crate) fn take(scenario: &Scenario, before: &State, step: Step) -> State {
    let mut after = *before;
    let state = &mut after;
    match step {
        Step::Operate => initiator::operate(scenario, state, 0),
        Step::Flush(way) => initiator::operate(scenario, state, way),
        Step::Ask(order) => {
            initiator::operate(scenario, state, 0);
            symmetry::reorder(state, order);
        }
        Step::UnlinkVisible => state.common.write_back(),
        Step::StoreVisible(i) => state.cpus[i as usize].write_back(),
        Step::WalkBegin(i, mm) => walker::begin(scenario, &mut state.cpus[i as usize], mm),
        Step::WalkOn(i) => walker::go_on(scenario, state, i),
        Step::WalkEnd(i) => walker::end(scenario, &mut state.cpus[i as usize]),
        Step::NmiBegin(i, mm) => walker::nmi_begin(scenario, &mut state.cpus[i as usize], mm),
        Step::NmiOn(i) => walker::nmi_go_on(scenario, state, i),
        Step::NmiEnd(i) => walker::nmi_end(scenario, &mut state.cpus[i as usize]),
        Step::SwitchBegin(i, mm) => walker::switch_begin(&mut state.cpus[i as usize], mm),
        Step::SwitchOn(i) => walker::switch_on(scenario, state, i),
        Step::BecomeLazy(i) => state.cpus[i as usize].set_lazy(1),
        Step::LeaveLazy(i) => walker::leave_lazy(scenario, state, i),
        Step::HandleFlush(i) => walker::handle_flush(scenario, state, i),
        Step::OtherInterrupt(i) => state.cpus[i as usize].set_seen_unlinks(state.common.unlinks()),
        Step::HandleSync(i) => {
            state.cpus[i as usize].set_seen_unlinks(state.common.unlinks());
            state.cpus[i as usize].fence();
            state.cpus[i as usize].set_sync_ipi(0);
        }
        Step::BroadcastArrives(i) => {
            let leaver = state.common.leaver();
            state.cpus[i as usize].set_broadcast(0);
            mmu::invalidate(scenario, &mut state.cpus[i as usize], leaver);
        }
        Step::Quiescent(i) => {
            state.cpus[i as usize].fence();
            state.cpus[i as usize].set_grace(0);
        }
        Step::Freeze(i) => state.cpus[i as usize].set_frozen(1),
        Step::Resume(i) => walker::resume(scenario, &mut state.cpus[i as usize]),
        Step::FillTable(i) => {
            let cpu = &mut state.cpus[i as usize];
            cpu.set_tables(cpu.tables() | 1 << (cpu.root() - 1));
        }
        Step::FillLeaf(i) => {
            let cpu = &mut state.cpus[i as usize];
            cpu.set_leaves(cpu.leaves() | 1 << (cpu.root() - 1));
        }
        Step::PutBack => two_word::put_back(scenario, state),
        Step::Fill(mm) => two_word::fill(state, mm),
    }
    if scenario.eager_fills {
        mmu::fill_all(scenario, state);
    }
    if scenario.operation == Operation::Pages && state.common.stage() == Stage::Done {
        initiator::judge_uses(scenario, state);
    }
    after
}

/// Whether a guard is there.
pub(crate) fn present(scenario: &Scenario, guard: Removal) -> bool {
    !scenario.removed.has(guard)
}
