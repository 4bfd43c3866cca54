//! A scope of the core, explored: every class of interleavings, or some by seeds, and the shortest one that is wrong.

use std::cell::RefCell;
use std::collections::{BTreeSet, HashSet};
use std::time::{Duration, Instant};

use kernel::record::cell::Violation;

use super::directed::Directed;
use super::run::ONE;
use super::scope::{Profile, Scope};
use super::world::CHOSEN;
use crate::explore::dpor::{self, Ending, Explored};
use crate::explore::hub::Kind;
use crate::explore::schedule::Schedule;
use crate::explore::stops::Stops;
use crate::explore::{Execution, StepNumber, pct};

pub use crate::explore::dpor::Limits;

/// How the interleavings are chosen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Search {
    /// All classes of them.
    Exhaustive,
    /// The same, with the hypervisor stopping CPUs where nobody notices too: to compare.
    Anywhere,
    /// As many as the limits allow, by seeds from this one on.
    Seeded(u64),
}

/// An interleaving in which something is wrong.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Wrong {
    /// Who takes which step.
    pub schedule: Schedule,
    /// Which way translations go that could go more than one: see [`Directed::ambiguous`].
    pub ways: u64,
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
    /// The different ways in which runs ended: see [`Directed::outcome`].
    pub outcomes: BTreeSet<u64>,
    /// Everything that was wrong in some run.
    pub findings: BTreeSet<String>,
    /// How long it took.
    pub time: Duration,
}

/// Explores `scope`; `progress` is told how many runs there have been. Holds off every other execution of the process:
/// guards are taken away for all of it.
pub fn prove(scope: &Scope, search: Search, limits: Limits, progress: &mut dyn FnMut(u64)) -> Proof {
    let _one = ONE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let proof = match scope.profile {
        Profile::X86 | Profile::Weakest => search_in::<false>(scope, search, limits, progress),
        Profile::Arm => search_in::<true>(scope, search, limits, progress),
    };
    kernel::guard::remove(0);
    proof
}

/// What is chosen before a run begins.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Choice {
    /// Which way translations go: see [`Directed::ambiguous`].
    ways: u64,
    stops: Stops,
}

/// What there is to choose, as far as is known by now, and what was tried of it.
struct Choices {
    walkers: usize,
    /// How many translations of a CPU could go more than one way, and how many at most.
    translations: u32,
    ways: u64,
    /// Where the hypervisor stops CPUs, if that is not chosen by looks.
    anywhere: Option<Stops>,
    /// By CPU, whether it can be stopped.
    freezes: Vec<u32>,
    /// How often somebody looks whether one CPU is stopped.
    looks: u32,
    tried: HashSet<Choice>,
}

impl Choices {
    fn new(scope: &Scope, anywhere: bool) -> Choices {
        let freezes = scope.freezes();
        let anywhere = anywhere || freezes.iter().any(|count| *count > 1) || freezes.iter().all(|count| *count == 0);
        let anywhere = anywhere.then(|| Stops::Anywhere(freezes.clone()));
        let walkers = scope.cpus() - 1;
        Choices { walkers, translations: 0, ways: 1, anywhere, freezes, looks: 0, tried: HashSet::new() }
    }

    fn learn(&mut self, (translations, ways): (u32, usize), looks: u32) {
        self.translations = self.translations.max(translations.min(CHOSEN));
        self.ways = self.ways.max(ways as u64);
        self.looks = self.looks.max(looks);
    }

    /// All ways: each translation of each CPU that walks, each way.
    fn all_ways(&self) -> impl Iterator<Item = u64> + use<> {
        let (walkers, translations, base) = (self.walkers, self.translations, self.ways.max(1));
        let count = base.pow(translations * walkers as u32);
        (0..count).map(move |mut number| {
            let mut ways = 0;
            for digit in 0..translations * walkers as u32 {
                let at = (1 + digit / translations) * CHOSEN + digit % translations;
                ways |= (number % base) << (2 * at);
                number /= base;
            }
            ways
        })
    }

    /// All places where CPUs that can be stopped are: each look, or none.
    fn all_stops(&self) -> Vec<Stops> {
        if let Some(anywhere) = &self.anywhere {
            return vec![anywhere.clone()];
        }
        let mut all = vec![Vec::new()];
        for freezes in &self.freezes {
            let most = if *freezes > 0 { self.looks } else { 0 };
            all = all.iter().flat_map(|some| (0..=most).map(|look| [&some[..], &[look]].concat())).collect();
        }
        all.into_iter().map(Stops::Before).collect()
    }

    /// Something that was not tried yet.
    fn next(&mut self) -> Option<Choice> {
        let stops = self.all_stops();
        let all = stops.iter().flat_map(|stops| self.all_ways().map(|ways| Choice { ways, stops: stops.clone() }));
        let found = { all }.find(|choice| !self.tried.contains(choice))?;
        self.tried.insert(found.clone());
        Some(found)
    }

    /// Whether more could go several ways than are chosen for, or more ways than there is a number for.
    fn too_many(&self) -> bool {
        self.translations >= CHOSEN || self.ways > 4
    }
}

fn search_in<const TAGGED: bool>(
    scope: &Scope,
    search: Search,
    limits: Limits,
    progress: &mut dyn FnMut(u64),
) -> Proof {
    let began = Instant::now();
    let mut proof = Proof {
        explored: Explored::default(),
        wrong: 0,
        shortest: None,
        outcomes: BTreeSet::new(),
        findings: BTreeSet::new(),
        time: Duration::ZERO,
    };
    let (mut runs, mut blind) = (0, false);
    let choices = RefCell::new(Choices::new(scope, search == Search::Anywhere));
    let mut look = |execution: &Directed<TAGGED>, ways: u64, schedule: &[usize]| {
        runs += 1;
        progress(runs);
        choices.borrow_mut().learn(execution.ambiguous(), execution.looks());
        blind |= execution.waited_blindly();
        proof.outcomes.insert(execution.outcome());
        let findings = execution.findings();
        if findings.is_empty() {
            return;
        }
        proof.wrong += 1;
        proof.findings.extend(findings.iter().cloned());
        let schedule = Schedule(schedule.to_vec());
        let length = |s: &Schedule| (s.switches(), s.0.len());
        if proof.shortest.as_ref().is_none_or(|best| length(&schedule) < length(&best.schedule)) {
            proof.shortest = Some(Wrong { schedule, ways, findings });
        }
    };
    let mut explored = Explored::default();
    match search {
        Search::Exhaustive | Search::Anywhere => {
            explored.exhausted = true;
            while let Some(Choice { ways, stops }) = { choices.borrow_mut().next() } {
                let left = Limits {
                    executions: limits.executions.saturating_sub(explored.executions + explored.asleep),
                    time: limits.time.saturating_sub(began.elapsed()),
                };
                let some = dpor::explore(
                    || Directed::<TAGGED>::new(scope, ways, &stops, false),
                    left,
                    |execution, ending, schedule| {
                        if ending == Ending::Complete {
                            look(execution, ways, schedule);
                        }
                        true
                    },
                );
                explored = Explored {
                    executions: explored.executions + some.executions,
                    asleep: explored.asleep + some.asleep,
                    steps: explored.steps + some.steps,
                    longest: explored.longest.max(some.longest),
                    exhausted: explored.exhausted && some.exhausted,
                };
                if !explored.exhausted {
                    break;
                }
            }
        }
        Search::Seeded(first) => {
            let mut steps = 1000;
            let stops = Stops::Anywhere(scope.freezes());
            for seed in first..first.saturating_add(limits.executions) {
                // Any number will do, as long as the seed says which.
                let ways = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
                let mut execution = Directed::<TAGGED>::new(scope, ways, &stops, false);
                let schedule = pct::run(&mut execution, seed, steps, (seed % 4) as usize);
                steps = schedule.len() as u64;
                look(&execution, ways, &schedule);
                explored.executions += 1;
                explored.steps += steps;
                explored.longest = explored.longest.max(steps as u32);
                if began.elapsed() >= limits.time {
                    break;
                }
            }
        }
    }
    let all = !blind && !choices.borrow().too_many();
    proof.explored = Explored { exhausted: explored.exhausted && all, ..explored };
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

/// One run again, by its schedule and the ways of its translations: what is wrong in it, and the kernel's events.
/// `None` if the schedule does not fit the scope.
pub fn replay(scope: &Scope, ways: u64, schedule: &Schedule) -> Option<Replayed> {
    let _one = ONE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let replayed = match scope.profile {
        Profile::X86 | Profile::Weakest => replay_in::<false>(scope, ways, schedule),
        Profile::Arm => replay_in::<true>(scope, ways, schedule),
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

fn replay_in<const TAGGED: bool>(scope: &Scope, ways: u64, schedule: &Schedule) -> Option<Replayed> {
    let freezes = |cpu| schedule.0.iter().filter(|process| **process == Kind::Freeze.process(cpu)).count() as u32;
    let stops = Stops::Anywhere((0..scope.cpus()).map(freezes).collect());
    let mut execution = Directed::<TAGGED>::new(scope, ways, &stops, true);
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
