//! A CPU that walks, switches, idles and takes interrupts: the steps of `kernel::mm::walk` and `kernel::tlb::switch`,
//! one shared access each.

use kernel::workload::walker::WalkerClass;

use super::scenario::{ANY, MmNumber, Publication, Removal, Scenario};
use super::state::{CpuState, SWITCHING, State, switching, walk, word};
use super::step::present;
use super::{mmu, two_word};

/// Publishes a walk by showing `mm`; returns where the walk is then. The walk masks interrupts in the same step, which
/// nobody can see.
fn publish(scenario: &Scenario, cpu: &mut CpuState, mm: u8) -> u8 {
    match scenario.publication {
        Publication::None => walk::READING,
        Publication::Store => {
            cpu.store(word::SLOT, mm);
            walk::READING
        }
        Publication::StoreFence => {
            cpu.store(word::SLOT, mm);
            walk::PUBLISHED
        }
        Publication::Exchange => {
            cpu.fence();
            cpu.set_slot(mm);
            walk::READING
        }
    }
}

fn unpublish(scenario: &Scenario, cpu: &mut CpuState) {
    if scenario.publication != Publication::None {
        cpu.store(word::SLOT, 0);
    }
}

/// A walk of `mm` begins.
pub(crate) fn begin(scenario: &Scenario, cpu: &mut CpuState, mm: MmNumber) {
    let rcu = scenario.walker == WalkerClass::Rcu;
    let at = if rcu { walk::READING } else { publish(scenario, cpu, mm) };
    cpu.set_rcu(rcu as u8);
    cpu.set_walk_mm(mm);
    cpu.set_walk(at);
}

/// The walk passes its barrier, or reads the entry: a walk that finds none is over at once, but for its slot.
pub(crate) fn go_on(scenario: &Scenario, state: &mut State, i: u8) {
    let cpu = &mut state.cpus[i as usize];
    if cpu.walk() == walk::PUBLISHED {
        cpu.fence();
        cpu.set_walk(walk::READING);
        return;
    }
    if scenario.two_words() {
        return two_word::read(scenario, state, i);
    }
    let linked = state.common.links(cpu.walk_mm());
    cpu.set_walk(walk::HOLDING);
    if !linked {
        // It goes on with nothing in its hands.
        cpu.set_walk_mm(0);
    }
}

/// The walk has used its last pointer, takes back what it published, and enables interrupts.
pub(crate) fn end(scenario: &Scenario, cpu: &mut CpuState) {
    if cpu.rcu() == 0 {
        unpublish(scenario, cpu);
    }
    cpu.set_walk(walk::NONE);
    cpu.set_walk_mm(0);
    cpu.set_rcu(0);
}

/// What the slot of `cpu` says because of the walk that an NMI has interrupted.
fn outer(scenario: &Scenario, cpu: CpuState) -> u8 {
    if scenario.nested_restores && cpu.rcu() == 0 { cpu.walk_shown() } else { 0 }
}

/// An NMI begins a walk of `mm`.
pub(crate) fn nmi_begin(scenario: &Scenario, cpu: &mut CpuState, mm: MmNumber) {
    let below = outer(scenario, *cpu);
    let at = publish(scenario, cpu, if below == 0 || below == mm { mm } else { ANY });
    cpu.set_nested(at);
    cpu.set_nested_mm(mm);
}

/// The NMI's walk passes its barrier, or reads the entry.
pub(crate) fn nmi_go_on(scenario: &Scenario, state: &mut State, i: u8) {
    let cpu = &mut state.cpus[i as usize];
    if cpu.nested() == walk::PUBLISHED {
        cpu.fence();
        cpu.set_nested(walk::READING);
    } else if state.common.links(cpu.nested_mm()) {
        cpu.set_nested(walk::HOLDING);
    } else {
        nmi_end(scenario, cpu);
    }
}

/// The NMI's walk is over.
pub(crate) fn nmi_end(scenario: &Scenario, cpu: &mut CpuState) {
    if scenario.publication != Publication::None {
        // An interrupt's return orders nothing, but a full buffer has to make room.
        if !cpu.can_store() {
            cpu.write_back();
        }
        // What the walk showed that the NMI interrupted; without that, nothing.
        let below = outer(scenario, *cpu);
        cpu.store(word::SLOT, below);
    }
    cpu.set_nested_mm(0);
    cpu.set_nested(walk::NONE);
}

/// The CPU says that it changes over.
pub(crate) fn switch_begin(cpu: &mut CpuState, to: MmNumber) {
    cpu.store(word::LOADED, SWITCHING);
    cpu.set_switch_to(to);
    cpu.set_switch(switching::SAID);
}

/// One more step of a change: enter the mask, read the generation, load the root and leave the old mask, say what is
/// loaded.
pub(crate) fn switch_on(scenario: &Scenario, state: &mut State, i: u8) {
    let common = state.common;
    let cpu = &mut state.cpus[i as usize];
    let to = cpu.switch_to();
    if to == 0 {
        mmu::load_root(scenario, cpu, 0);
        leave_old(scenario, cpu);
        finish(cpu, 0);
        return;
    }
    let had_tags = scenario.tagged && cpu.in_mask(to) && present(scenario, Removal::TagsOutliveSwitch);
    match cpu.switch() {
        switching::SAID if present(scenario, Removal::MaskBeforeRoot) => {
            cpu.set_had_tags(had_tags as u8);
            cpu.change_mask(to, true);
            cpu.set_switch(switching::IN_MASK);
        }
        switching::SAID => {
            cpu.set_had_tags(had_tags as u8);
            cpu.set_generation(common.generation(to));
            mmu::load_root(scenario, cpu, to);
            cpu.set_switch(switching::HALF);
        }
        switching::IN_MASK if present(scenario, Removal::GenerationBeforeRoot) => {
            cpu.set_generation(common.generation(to));
            cpu.set_switch(switching::HALF);
        }
        switching::IN_MASK => {
            mmu::load_root(scenario, cpu, to);
            cpu.set_switch(switching::HALF);
        }
        _ => {
            if !present(scenario, Removal::MaskBeforeRoot) {
                cpu.change_mask(to, true);
            } else if present(scenario, Removal::GenerationBeforeRoot) {
                mmu::load_root(scenario, cpu, to);
            } else {
                cpu.set_generation(common.generation(to));
            }
            leave_old(scenario, cpu);
            finish(cpu, to);
            if cpu.had_tags() == 1 {
                // What it has cached is as old as it was.
                mmu::invalidate(scenario, cpu, to);
                cpu.set_had_tags(0);
            }
        }
    }
}

/// Where translations are not tagged, nothing of the old mm is left: leaves its mask.
fn leave_old(scenario: &Scenario, cpu: &mut CpuState) {
    let old = cpu.current();
    if old != 0 && !scenario.tagged {
        cpu.change_mask(old, false);
    }
}

fn finish(cpu: &mut CpuState, loaded: MmNumber) {
    cpu.store(word::LOADED, loaded);
    cpu.set_current(loaded);
    cpu.set_lazy(0);
    cpu.set_switch(switching::NONE);
    cpu.set_switch_to(0);
    if loaded == 0 {
        cpu.set_generation(0);
    }
}

/// The CPU uses its mm again, and catches up with flushes that skipped it.
pub(crate) fn leave_lazy(scenario: &Scenario, state: &mut State, i: u8) {
    let common = state.common;
    let cpu = &mut state.cpus[i as usize];
    cpu.fence();
    cpu.set_lazy(0);
    let mm = cpu.current();
    let now = common.generation(mm);
    if present(scenario, Removal::CatchUp) && cpu.generation() < now {
        mmu::load_root(scenario, cpu, mm);
        if scenario.tagged && present(scenario, Removal::CatchUpInvalidates) {
            mmu::invalidate(scenario, cpu, mm);
        }
        cpu.set_generation(now);
    }
}

/// The handler of a flush: invalidates, and acknowledges.
pub(crate) fn handle_flush(scenario: &Scenario, state: &mut State, i: u8) {
    let common = state.common;
    let cpu = &mut state.cpus[i as usize];
    let mm = common.leaver();
    let now = common.generation(mm);
    let of_tables = super::initiator::flushes_tables(scenario, common);
    cpu.set_seen_unlinks(common.unlinks());
    if cpu.current() != mm {
        if scenario.tagged {
            mmu::invalidate(scenario, cpu, mm);
        }
        cpu.change_mask(mm, false);
    } else if cpu.lazy() == 1 && of_tables {
        mmu::load_root(scenario, cpu, 0);
        mmu::invalidate(scenario, cpu, mm);
        cpu.change_mask(mm, false);
        cpu.set_loaded(0);
        cpu.set_current(0);
        cpu.set_lazy(0);
        cpu.set_generation(0);
    } else if cpu.generation() < now {
        mmu::invalidate(scenario, cpu, mm);
        cpu.set_generation(now);
    }
    // The acknowledgement is a read-modify-write.
    cpu.fence();
    cpu.set_flush_ipi(0);
    cpu.set_acknowledged(1);
}

/// The hypervisor runs the CPU again; a flush that was acknowledged on its behalf is made good first: nothing of what
/// was cached is left.
pub(crate) fn resume(scenario: &Scenario, cpu: &mut CpuState) {
    cpu.set_frozen(0);
    if cpu.flush_on_resume() == 1 {
        cpu.set_flush_on_resume(0);
        if present(scenario, Removal::ResumeFlushesAll) {
            cpu.set_leaves(0);
            cpu.set_tables(0);
        } else if cpu.current() != 0 {
            let loaded = cpu.current();
            mmu::invalidate(scenario, cpu, loaded);
        }
    }
}
