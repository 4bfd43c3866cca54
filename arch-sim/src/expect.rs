//! What each cell of the matrix must come to, and why: known from the argument, never from the model.

use kernel::record::cell::Verdict;
use kernel::tlb::transport::TransportId;

use crate::model::scenario::{Operation, Scenario, Walker};
use crate::model::strategies::Listed;

/// What `strategy` must come to in `scenario`; none where nothing is known (a new strategy, and walkers that its promise does not speak of).
pub(crate) fn expected(strategy: &Listed, scenario: &Scenario) -> Option<Verdict> {
    let promise = (strategy.promises)(scenario.setting());
    if promise == Verdict::Refused {
        return Some(promise);
    }
    let safe = match scenario.walker {
        Walker::Loaded => return Some(beyond_the_promise(strategy, scenario).unwrap_or(promise)),
        Walker::Nmi => nmi(strategy, scenario)?,
        Walker::Foreign => foreign(strategy, scenario)?,
        Walker::Rcu => rcu(strategy.name)?,
    };
    Some(if safe { Verdict::Safe } else { Verdict::Unsafe })
}

/// What the promise does not say: the two ways in which the bit of v3 outlives the flush that it is about.
fn beyond_the_promise(strategy: &Listed, scenario: &Scenario) -> Option<Verdict> {
    if strategy.name != "gather-flag" || scenario.transport != TransportId::Mixed {
        return None;
    }
    match scenario.operation {
        // It stays set over a second flush of the same gather, which may go by broadcast where the first one interrupted.
        Operation::CollapseInBatch => Some(Verdict::Unsafe),
        // The last leaver's flush interrupts its own CPUs, an earlier one's went by broadcast; who walks for that one is not asked.
        Operation::UnshareThree => Some(Verdict::Unsafe),
        _ => None,
    }
}

/// Walks from an NMI. They end before the walk that they interrupt, so whoever waits for that one waits for them.
fn nmi(strategy: &Listed, scenario: &Scenario) -> Option<bool> {
    let as_loaded = expected_when_loaded(strategy, scenario);
    match strategy.name {
        // When the NMI's walk ends it clears the slot of the walk that it interrupted, which then is not looked for.
        "targeted" | "targeted-xchg" | "targeted-v4" if !scenario.nested_restores => {
            Some(as_loaded && scenario.transport == TransportId::Ipi)
        }
        "none" | "sync-all" | "static-hook" | "gather-flag" | "acked-generation" | "rcu" | "fresh-table"
        | "mask-targeted" | "coverage" | "targeted" | "targeted-xchg" | "targeted-v4" => Some(as_loaded),
        _ => None,
    }
}

fn expected_when_loaded(strategy: &Listed, scenario: &Scenario) -> bool {
    let loaded = Scenario { walker: Walker::Loaded, ..*scenario };
    expected(strategy, &loaded) == Some(Verdict::Safe)
}

/// Walks of an mm that is not loaded: the CPU is in no mask, and no flush by interrupt reaches it.
fn foreign(strategy: &Listed, scenario: &Scenario) -> Option<bool> {
    let asks_at_all = !scenario.transport.flush_implies_interrupt();
    match strategy.name {
        // Everybody is waited for.
        "sync-all" | "rcu" | "fresh-table" => Some(true),
        // Without the sync, or with one to the mask alone, nobody waits for it.
        "none" | "mask-targeted" | "acked-generation" | "coverage" => Some(false),
        // Right where the boolean makes it `sync-all`.
        "static-hook" => Some(!scenario.hook),
        // As soon as the flush interrupts anybody, nobody else is waited for; a broadcast interrupts nobody.
        "gather-flag" => Some(scenario.transport == TransportId::Broadcast),
        // What is published is the mm that is walked. Who walks for an mm that left earlier is known by what was loaded only.
        "targeted" | "targeted-xchg" => Some(!scenario.operation.is_chain()),
        "targeted-v4" => {
            Some(asks_at_all && scenario.transport != TransportId::Paravirt && !scenario.operation.is_chain())
        }
        _ => None,
    }
}

/// Readers with interrupts enabled: an interrupt says nothing of them, only a grace period does.
fn rcu(strategy: &str) -> Option<bool> {
    match strategy {
        "rcu" | "fresh-table" => Some(true),
        "none" | "sync-all" | "static-hook" | "gather-flag" | "targeted-v4" | "targeted" | "targeted-xchg"
        | "acked-generation" | "mask-targeted" | "coverage" => Some(false),
        _ => None,
    }
}
