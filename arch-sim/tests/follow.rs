//! Counterexamples of the model, played on the unchanged core: its oracle finds what the model found.

use arch_sim::follow::{NotFollowed, follow};
use arch_sim::machine::recording;
use arch_sim::matrix::{Bounds, Round, scenario};
use arch_sim::model::check::{Limits, explore};
use arch_sim::model::scenario::{Operation, Removal, Removed, Scenario, walker_name};
use arch_sim::model::strategies::listed;
use arch_sim::run;
use kernel::tlb::transport::TransportId;
use kernel::workload::walker::WalkerClass;

fn of(strategy: &str, transport: TransportId, operation: Operation, walker: WalkerClass) -> Scenario {
    let strategy = listed().into_iter().find(|s| s.name == strategy).expect("it is listed");
    scenario(&strategy, transport, operation, walker, Round { cpus: 2, moves: true })
}

/// Every strategy, transport and class of walkers that is unsafe when the last but one sharer leaves;
/// `cargo xtask sim --replay-on-core` has the other operations too.
#[test]
fn each_counterexample_is_one_of_the_core() {
    let bounds = Bounds { operations: vec![Operation::UnshareLast], ..Bounds::default() };
    let mut played = 0;
    for verdict in run::unsafe_cells(&bounds) {
        let name = format!("{} {} {}", verdict.strategy, verdict.transport.name(), walker_name(verdict.walker));
        let exploration = verdict.explorations.last().expect("it was explored");
        let followed = follow(verdict.strategy, exploration).unwrap_or_else(|error| panic!("{name}: {error}"));
        // What was played is a schedule like any other, and replays from its text.
        let text = recording::record(&followed.scope, &followed.wrong);
        let (scope, wrong) = recording::read(&text).expect("what was written reads");
        assert_eq!((&scope, &wrong), (&followed.scope, &followed.wrong), "{name}");
        recording::again(&scope, &wrong).unwrap_or_else(|error| panic!("{name}: {error}"));
        played += 1;
    }
    assert!(played >= 40, "the matrix has more unsafe cells than {played}");
}

/// One strategy, in every operation and on every transport.
#[test]
fn each_operation_and_transport() {
    for transport in [TransportId::Broadcast, TransportId::Paravirt, TransportId::Mixed] {
        for operation in Bounds::default().operations {
            let exploration = explore(&of("none", transport, operation, WalkerClass::Gup), Limits::default());
            let followed = follow("none", &exploration);
            let followed =
                followed.unwrap_or_else(|error| panic!("{} {}: {error}", transport.name(), operation.name()));
            assert!(
                followed.wrong.schedule.0.len() > followed.steps,
                "each step of the model is one of the core, or more"
            );
        }
    }
}

/// The core has what keeps it from this: then nothing is played.
#[test]
fn a_core_that_syncs_does_not_follow() {
    let none = of("none", TransportId::Broadcast, Operation::UnshareLast, WalkerClass::Gup);
    let exploration = explore(&none, Limits::default());
    assert!(follow("none", &exploration).is_ok());
    for strategy in ["sync-all", "coverage", "targeted", "rcu"] {
        let refused = follow(strategy, &exploration).expect_err("it waits for the walk");
        assert!(matches!(refused, NotFollowed::Elsewhere(..)), "{strategy}: {refused}");
    }
}

/// A model without what the core has is wrong about the core, and this says where.
#[test]
fn a_model_that_lacks_a_guard_is_told_from_the_core() {
    let sync_all = of("sync-all", TransportId::Broadcast, Operation::UnshareLast, WalkerClass::Gup);
    let without = Scenario { removed: Removed::these(&[Removal::UnshareSync]), ..sync_all };
    let refused = follow("sync-all", &explore(&without, Limits::default())).expect_err("the core syncs");
    assert!(matches!(&refused, NotFollowed::NoCounterpart(..) | NotFollowed::Elsewhere(..)), "{refused}");
    assert_eq!(follow("sync-all", &explore(&sync_all, Limits::default())).err(), Some(NotFollowed::Nothing));
}

/// What reads of two words come to without their guards, the core without the same guards comes to.
#[test]
fn a_core_that_lacks_the_same_guard_follows() {
    for (strategy, transport, operation, removed) in [
        ("sync-all", TransportId::Ipi, Operation::Collapse, Removal::LowAgain),
        ("sync-all", TransportId::Broadcast, Operation::UnshareLast, Removal::LowAgain),
        ("fresh-table", TransportId::Broadcast, Operation::Collapse, Removal::TwoWordSync),
        ("coverage", TransportId::Broadcast, Operation::UnshareThree, Removal::TwoWordSync),
    ] {
        let base = of(strategy, transport, operation, WalkerClass::TwoWord);
        let without = Scenario { removed: Removed::these(&[removed]), ..base };
        let mut exploration = explore(&without, Limits::default());
        let followed =
            follow(strategy, &exploration).unwrap_or_else(|error| panic!("{strategy}, {removed:?}: {error}"));
        assert!(followed.wrong.findings[0].contains("two words"), "{:?}", followed.wrong.findings);
        // The core as it is does not.
        exploration.scenario = base;
        assert!(follow(strategy, &exploration).is_err(), "{strategy}, {removed:?}");
    }
}
