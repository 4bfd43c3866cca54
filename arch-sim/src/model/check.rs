//! Explores a scenario and says what came out.

use std::time::{Duration, Instant};

use stateright::{Checker, Model};

use super::scenario::Scenario;
use super::state::{Broken, State};
use super::step::Step;
use super::{Machine, PROPERTY};

/// When to stop.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Not many more states than this are generated.
    pub states: usize,
    /// Not much longer than this.
    pub time: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { states: 50_000_000, time: Duration::from_secs(60) }
    }
}

/// A way to a violation, the shortest there is.
#[derive(Clone, Debug)]
pub struct Counterexample {
    /// How it began.
    pub first: State,
    /// Each step, and the state after it.
    pub steps: Vec<(Step, State)>,
    /// What was violated in the end.
    pub broken: Broken,
}

/// What an exploration came to.
#[derive(Clone, Debug)]
pub struct Exploration {
    /// What was explored.
    pub scenario: Scenario,
    /// Different states.
    pub states: usize,
    /// States generated, those met before included.
    pub generated: usize,
    /// The longest way from the start.
    pub depth: usize,
    /// How long it took.
    pub time: Duration,
    /// Whether nothing was left to explore: only then does the absence of a counterexample mean something.
    pub exhausted: bool,
    /// The violation, if there is one.
    pub counterexample: Option<Counterexample>,
}

impl Exploration {
    /// States generated per second.
    pub fn rate(&self) -> f64 {
        self.generated as f64 / self.time.as_secs_f64().max(1e-9)
    }
}

/// Explores `scenario` breadth-first, so that the first violation found is one of the shortest. What is found where
/// CPUs are interchangeable is found again with each CPU as itself, to be told.
pub fn explore(scenario: &Scenario, limits: Limits) -> Exploration {
    let first = once(scenario, limits);
    if !scenario.symmetric || first.counterexample.is_none() {
        return Exploration { scenario: *scenario, ..first };
    }
    let second = once(&Scenario { symmetric: false, ..*scenario }, limits);
    Exploration {
        states: first.states + second.states,
        generated: first.generated + second.generated,
        time: first.time + second.time,
        ..second
    }
}

fn once(scenario: &Scenario, limits: Limits) -> Exploration {
    let began = Instant::now();
    let checker = Machine(*scenario)
        .checker()
        .threads(1)
        .target_state_count(limits.states)
        .timeout(limits.time)
        .spawn_bfs()
        .join();
    let time = began.elapsed();
    let counterexample = checker.discovery(PROPERTY).map(|path| {
        let mut steps = Vec::new();
        let mut pairs = path.into_vec().into_iter();
        let (first, mut step) = pairs.next().expect("a path has a first state");
        let mut last = first;
        for (state, next) in pairs {
            steps.push((step.expect("a state that is not the last has a step"), state));
            (step, last) = (next, state);
        }
        Counterexample { first, steps, broken: last.broken().expect("the last state violates") }
    });
    let within = checker.state_count() < limits.states && time < limits.time;
    Exploration {
        scenario: *scenario,
        states: checker.unique_state_count(),
        generated: checker.state_count(),
        depth: checker.max_depth(),
        time,
        exhausted: within && counterexample.is_none(),
        counterexample,
    }
}
