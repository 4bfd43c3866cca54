//! From a counterexample to a scope: what each CPU has in the beginning, and what it does, one thing after the other.

use kernel::tlb::transport::TransportId;
use kernel::workload::WorkloadId;
use kernel::workload::walker::WalkerClass;

use crate::machine::scope::{Profile, Scope};
use crate::machine::staging::{Act, MOST_MMS, Staging};
use crate::model::check::Counterexample;
use crate::model::initiator::{BY_BROADCAST, BY_INTERRUPT};
use crate::model::scenario::{Operation, Scenario, walker_name};
use crate::model::state::State;
use crate::model::step::Step;

/// What the core calls an operation. It collapses in no gather: what is flushed in a gather behind pages is a table
/// that the mm shares.
fn workload(operation: Operation) -> WorkloadId {
    match operation {
        Operation::Collapse => WorkloadId::CollapseAnon,
        Operation::CollapseInBatch => WorkloadId::MunmapMany,
        Operation::UnshareThree => WorkloadId::UnshareChain,
        Operation::UnshareLast | Operation::Free | Operation::Pages => WorkloadId::UnshareMunmapLast,
    }
}

/// The scope in which `counterexample` is played.
pub(super) fn scope(strategy: usize, scenario: &Scenario, counterexample: &Counterexample) -> Scope {
    let cpus = usize::from(scenario.cpus);
    let mut staging = Staging {
        walker: walker_name(scenario.walker).into(),
        loaded: counterexample.first.cpus[..cpus].iter().map(|cpu| cpu.current()).collect(),
        freezes: vec![0; cpus],
        promoted: vec![0; MOST_MMS.into()],
        acts: vec![Vec::new(); cpus],
        nmis: vec![Vec::new(); cpus],
        in_use: false,
        filled: Vec::new(),
    };
    // The machine that has a broadcast instruction has tags as well: where `mixed` uses it, what is played has them,
    // which changes none of the model's other steps there.
    let broadcasts =
        counterexample.steps.iter().any(|(step, _)| matches!(step, Step::Flush(way) if way & BY_BROADCAST != 0));
    let mut before = counterexample.first;
    let mut flushed = [false; MOST_MMS as usize];
    for (step, after) in &counterexample.steps {
        add(&mut staging, scenario, &before, *step);
        if let Step::Flush(way) = step {
            let mm = usize::from(before.common.leaver()) - 1;
            if !std::mem::replace(&mut flushed[mm], true) && scenario.transport == TransportId::Mixed {
                staging.promoted[mm] = flushes_before(*way);
            }
        }
        before = *after;
    }
    let profile = if scenario.tagged || broadcasts { Profile::Arm } else { Profile::X86 };
    Scope {
        transport: scenario.transport,
        staging: Some(staging),
        guards: scenario.removed.guards(),
        ..Scope::of(profile, strategy, workload(scenario.operation), Vec::new())
    }
}

/// By interrupt and by broadcast.
const BOTH: u8 = BY_INTERRUPT | BY_BROADCAST;

/// How many flushes an mm has behind it, on many CPUs, that goes this way next.
fn flushes_before(way: u8) -> u8 {
    match way {
        BY_INTERRUPT => 0,
        BOTH => 1,
        _ => 2,
    }
}

fn add(staging: &mut Staging, scenario: &Scenario, before: &State, step: Step) {
    let Staging { acts, nmis, freezes, in_use, filled, .. } = staging;
    let mut act = |cpu: u8, act: Act| acts[usize::from(cpu)].push(act);
    match step {
        Step::WalkBegin(cpu, mm) if scenario.walker == WalkerClass::Rcu => act(cpu, Act::Read(mm)),
        Step::WalkBegin(cpu, mm) if scenario.walker == WalkerClass::TwoWord => act(cpu, Act::WalkTwoWord(mm)),
        Step::WalkBegin(cpu, mm) => act(cpu, Act::Walk(mm)),
        Step::SwitchBegin(cpu, 0) => act(cpu, Act::Unload),
        Step::SwitchBegin(cpu, mm) => act(cpu, Act::Load(mm)),
        Step::BecomeLazy(cpu) => act(cpu, Act::BecomeLazy),
        Step::LeaveLazy(cpu) => act(cpu, Act::LeaveLazy(before.cpus[usize::from(cpu)].current())),
        Step::Quiescent(cpu) => act(cpu, Act::Quiescent),
        Step::NmiBegin(cpu, mm) => nmis[usize::from(cpu)].push(mm),
        Step::Freeze(cpu) => freezes[usize::from(cpu)] += 1,
        Step::PutBack => *in_use = true,
        Step::Fill(mm) if !scenario.operation.collapses() => filled.push(mm),
        _ => {}
    }
}
