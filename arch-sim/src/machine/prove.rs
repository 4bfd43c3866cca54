//! A scope of the core, explored: every class of interleavings, or some by seeds, and the shortest one that is wrong.

use std::time::{Duration, Instant};

use kernel::record::cell::Violation;

use super::directed::Directed;
use super::run::ONE;
use super::scope::{Profile, Scope};
use crate::explore::dpor::{self, Ending, Explored};
use crate::explore::schedule::Schedule;
use crate::explore::{Execution, StepNumber, pct};

pub use crate::explore::dpor::Limits;

/// How the interleavings are chosen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Search {
    /// All classes of them.
    Exhaustive,
    /// As many as the limits allow, by seeds from this one on.
    Seeded(u64),
}

/// An interleaving in which something is wrong.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Wrong {
    /// Who takes which step.
    pub schedule: Schedule,
    /// What is wrong in the end.
    pub findings: Vec<String>,
}

/// What became of a scope.
#[derive(Clone, Debug)]
pub struct Proof {
    /// Sizes; whether everything was seen.
    pub explored: Explored,
    /// Runs in which something was wrong.
    pub wrong: u64,
    /// Of these, the one in which CPUs take turns least often, and of those the one with the fewest steps.
    pub shortest: Option<Wrong>,
    /// How long it took.
    pub time: Duration,
}

/// Explores `scope`; `progress` is told how many runs there have been. Holds off every other execution of the process: guards are taken away for all of it.
pub fn prove(scope: &Scope, search: Search, limits: Limits, progress: &mut dyn FnMut(u64)) -> Proof {
    let _one = ONE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let proof = match scope.profile {
        Profile::X86 => search_in::<false>(scope, search, limits, progress),
        Profile::Arm => search_in::<true>(scope, search, limits, progress),
    };
    kernel::guard::remove(0);
    proof
}

fn search_in<const TAGGED: bool>(
    scope: &Scope,
    search: Search,
    limits: Limits,
    progress: &mut dyn FnMut(u64),
) -> Proof {
    let began = Instant::now();
    let mut proof = Proof { explored: Explored::default(), wrong: 0, shortest: None, time: Duration::ZERO };
    let (mut runs, mut blind) = (0, false);
    let mut look = |execution: &Directed<TAGGED>, schedule: &[usize]| {
        runs += 1;
        progress(runs);
        blind |= execution.waited_blindly();
        let findings = execution.findings();
        if findings.is_empty() {
            return;
        }
        proof.wrong += 1;
        let schedule = Schedule(schedule.to_vec());
        let length = |s: &Schedule| (s.switches(), s.0.len());
        if proof.shortest.as_ref().is_none_or(|best| length(&schedule) < length(&best.schedule)) {
            proof.shortest = Some(Wrong { schedule, findings });
        }
    };
    let explored = match search {
        Search::Exhaustive => dpor::explore(
            || Directed::<TAGGED>::new(scope, false),
            limits,
            |execution, ending, schedule| {
                if ending == Ending::Complete {
                    look(execution, schedule);
                }
                true
            },
        ),
        Search::Seeded(first) => {
            let mut explored = Explored::default();
            let mut steps = 1000;
            for seed in first..first.saturating_add(limits.executions) {
                let mut execution = Directed::<TAGGED>::new(scope, false);
                let schedule = pct::run(&mut execution, seed, steps, (seed % 4) as usize);
                steps = schedule.len() as u64;
                look(&execution, &schedule);
                explored.executions += 1;
                explored.steps += steps;
                explored.longest = explored.longest.max(steps as u32);
                if began.elapsed() >= limits.time {
                    break;
                }
            }
            explored
        }
    };
    proof.explored = Explored { exhausted: explored.exhausted && !blind, ..explored };
    proof.time = began.elapsed();
    proof
}

/// Runs `what`, which makes executions, and holds off every other execution of the process.
pub(crate) fn exclusively<R>(what: impl FnOnce() -> R) -> R {
    let _one = ONE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let result = what();
    kernel::guard::remove(0);
    result
}

/// One run again, by its schedule: what is wrong in it, and the kernel's events. `None` if the schedule does not fit the scope.
pub fn replay(scope: &Scope, schedule: &Schedule) -> Option<Replayed> {
    let _one = ONE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let replayed = match scope.profile {
        Profile::X86 => replay_in::<false>(scope, schedule),
        Profile::Arm => replay_in::<true>(scope, schedule),
    };
    kernel::guard::remove(0);
    replayed
}

/// What a run was, told again.
#[derive(Clone, Debug)]
pub struct Replayed {
    /// What is wrong in the end.
    pub findings: Vec<String>,
    /// The kernel's events; their times are numbers of steps.
    pub events: Vec<kernel::record::event::Event>,
    /// By CPU: how many of its events were overwritten.
    pub overwritten: Vec<u64>,
    /// By CPU: how many were never written, since they came in the middle of another.
    pub dropped: Vec<u64>,
    /// What the kernel's oracle found first.
    pub violation: Option<Violation>,
    /// How many steps it took.
    pub steps: usize,
}

fn replay_in<const TAGGED: bool>(scope: &Scope, schedule: &Schedule) -> Option<Replayed> {
    let mut execution = Directed::<TAGGED>::new(scope, true);
    for (number, process) in schedule.0.iter().enumerate() {
        if *process >= execution.processes() || !execution.enabled(*process) {
            return None;
        }
        execution.step(*process, number as StepNumber);
    }
    let (overwritten, dropped) = execution.lost_events();
    (execution.all_enabled() == 0).then(|| Replayed {
        violation: execution.violation(),
        findings: execution.findings(),
        events: execution.events(),
        overwritten,
        dropped,
        steps: schedule.0.len(),
    })
}
