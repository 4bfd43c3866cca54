//! A counterexample of the model, played on the unchanged core: each step of the model is a stretch of the core's own
//! run, up to the place that the step is a model of.
//!
//! The model's steps are its own words for what the core does. That they are the right words is shown here: what the
//! CPUs do, and have in the beginning, becomes a scope (`staging`); then the scheduler of the simulated machine is
//! driven by the model's steps (`drive`). *Publishes*, *holds the table*, *clears the entry*, *counts a flush*, *reads
//! one more word*, each is a place that a CPU is run to: one of the kernel's events, an access that it is about to make
//! or has made, the end of a handler. Where the core cannot do what the model says comes next, that is told, with the
//! step. In the end the kernel's own oracle must have found what the model found, about the same CPU; and what was
//! played is a schedule, which replays like any other ([`crate::machine::recording`]).

mod drive;
mod staging;

use kernel::record::cell::ViolationKind;
use kernel::sync;

use crate::explore::schedule::Schedule;
use crate::machine::prove::{Wrong, exclusively};
use crate::machine::scope::{Profile, Scope};
use crate::model::check::{Counterexample, Exploration};
use crate::model::scenario::Scenario;
use crate::model::state::Broken;
use crate::model::words;

/// A counterexample that the core has as well.
#[derive(Clone, Debug)]
pub struct Followed {
    /// What was played.
    pub scope: Scope,
    /// The schedule, and what the oracles say.
    pub wrong: Wrong,
    /// How many steps the model has for it.
    pub steps: usize,
}

/// Why a counterexample is not one of the core.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NotFollowed {
    /// The model found nothing.
    #[error("the model has no counterexample")]
    Nothing,
    /// The core has nothing that the step could be.
    #[error("step {0} of the model ({1}) has no counterpart in the core")]
    NoCounterpart(usize, String),
    /// The core does not come where the step is.
    #[error("in step {0} of the model ({1}) the core does not get there: {2}")]
    Elsewhere(usize, String, String),
    /// The core did all of it, and no oracle found what the model found.
    #[error("the core did all of it, and its oracle found {0}")]
    Otherwise(String),
}

/// Plays the counterexample of `exploration`, which is one of `strategy`.
pub fn follow(strategy: &str, exploration: &Exploration) -> Result<Followed, NotFollowed> {
    let counterexample = exploration.counterexample.as_ref().ok_or(NotFollowed::Nothing)?;
    let scenario = &exploration.scenario;
    let strategy = sync::NAMES.iter().position(|(name, _)| *name == strategy).ok_or(NotFollowed::Nothing)?;
    let scope = staging::scope(strategy, scenario, counterexample);
    let played = exclusively(|| match scope.profile {
        Profile::Arm => drive::play::<true>(&scope, scenario, counterexample),
        Profile::X86 | Profile::Weakest => drive::play::<false>(&scope, scenario, counterexample),
    });
    let (schedule, findings) = played?;
    judge(counterexample, &findings)?;
    Ok(Followed {
        scope,
        wrong: Wrong { schedule: Schedule(schedule), ways: 0, findings },
        steps: counterexample.steps.len(),
    })
}

/// What the core's oracles say must be what the model said.
fn judge(counterexample: &Counterexample, findings: &[String]) -> Result<(), NotFollowed> {
    let culprit = counterexample.steps.last().map_or(0, |(_, state)| state.common.culprit());
    let of_kind = |kind: ViolationKind| format!("{}: the walk of cpu{culprit} ", kind.in_words());
    let found = match counterexample.broken {
        Broken::ReusedWhileHeld => findings.iter().any(|f| f.starts_with(&of_kind(ViolationKind::ReusedWhileHeld))),
        Broken::FreedWhileHeld => findings.iter().any(|f| f.starts_with(&of_kind(ViolationKind::FreedWhileHeld))),
        Broken::TornEntry => findings.iter().any(|f| f.starts_with(&of_kind(ViolationKind::TornEntry))),
        Broken::StaleTranslation | Broken::Conflict => findings.iter().any(|f| f.contains(" of cpu")),
    };
    let all = if findings.is_empty() { "nothing".into() } else { findings.join("; ") };
    if found { Ok(()) } else { Err(NotFollowed::Otherwise(all)) }
}

/// Step `number`, from 1 on, in words.
fn in_words(scenario: &Scenario, counterexample: &Counterexample, number: usize) -> String {
    let before = match number {
        1 => &counterexample.first,
        n => &counterexample.steps[n - 2].1,
    };
    let (step, after) = &counterexample.steps[number - 1];
    words::step(scenario, before, *step, after)
}
