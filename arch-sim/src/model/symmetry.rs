//! CPUs that walk are interchangeable: of states that differ only in which of them is which, one is explored.
//!
//! But for one thing: a strategy asks about them in the order of their numbers, and anything may happen between two
//! questions. So when it begins to ask, all orders go on ([`super::step::Step::Ask`]), and while it asks nothing is
//! exchanged.

use super::scenario::Scenario;
use super::state::{Stage, State};

/// The orders of up to three CPUs.
const ORDERS: [[usize; 3]; 6] = [[0, 1, 2], [1, 0, 2], [0, 2, 1], [1, 2, 0], [2, 0, 1], [2, 1, 0]];

/// How many orders there are of the CPUs that walk.
pub(crate) fn orders(scenario: &Scenario) -> u8 {
    match scenario.cpus {
        ..=2 => 1,
        3 => 2,
        _ => 6,
    }
}

/// The same state with the CPUs that walk in another order.
pub(crate) fn reorder(state: &mut State, order: u8) {
    let cpus = state.cpus;
    for (to, from) in ORDERS[order as usize].into_iter().enumerate() {
        state.cpus[1 + to] = cpus[1 + from];
    }
}

/// The one that stands for all that differ in their order only.
pub(crate) fn representative(scenario: &Scenario, mut state: State) -> State {
    // What is broken names a CPU.
    let fixed = state.common.stage() == Stage::Deciding || state.common.broken() != 0;
    if scenario.symmetric && !fixed {
        state.cpus[1..scenario.cpus as usize].sort_unstable();
    }
    state
}
