//! The key cells of the matrix, safe and unsafe, each known from the argument; the whole of it is `cargo xtask sim`.

use arch_sim::matrix::{Bounds, Round, Verdict, cell, scenario};
use arch_sim::model::check::{Limits, explore};
use arch_sim::model::scenario::{Operation, Publication, Removal, Removed, Scenario};
use arch_sim::model::state::Broken;
use arch_sim::model::strategies::{Listed, listed};
use arch_sim::model::words;
use arch_sim::results::{Row, Verdicts, table};
use arch_sim::run::{Checkpoint, Running, run};
use kernel::record::cell::Verdict as Outcome;
use kernel::tlb::transport::TransportId::{self, Broadcast, Ipi, Mixed, Paravirt};
use kernel::workload::walker::WalkerClass;

const TWO: Round = Round { cpus: 2, moves: true };
const THREE: Round = Round { cpus: 3, moves: false };

fn strategy(name: &str) -> Listed {
    listed().into_iter().find(|s| s.name == name).expect("the kernel lists it")
}

fn found(name: &str, transport: TransportId, operation: Operation, walker: WalkerClass) -> Verdict {
    let bounds = Bounds { rounds: vec![TWO, THREE], ..Bounds::default() };
    cell(&strategy(name), transport, operation, walker, &bounds)
}

fn is(name: &str, transport: TransportId, operation: Operation, walker: WalkerClass, outcome: Outcome) {
    let verdict = found(name, transport, operation, walker);
    assert_eq!(verdict.found, outcome, "{}", verdict.report());
}

#[test]
fn without_a_sync_a_broadcast_is_unsafe_and_an_interrupt_is_not() {
    is("none", Ipi, Operation::Collapse, WalkerClass::Gup, Outcome::Safe);
    is("none", Broadcast, Operation::Collapse, WalkerClass::Gup, Outcome::Unsafe);
    is("none", Paravirt, Operation::Collapse, WalkerClass::Gup, Outcome::Unsafe);
    is("none", Mixed, Operation::Collapse, WalkerClass::Gup, Outcome::Unsafe);
}

#[test]
fn an_interrupt_to_everybody_is_right_for_whoever_masks_interrupts() {
    for transport in TransportId::ALL {
        is("sync-all", transport, Operation::Collapse, WalkerClass::Foreign, Outcome::Safe);
    }
    is("sync-all", Broadcast, Operation::UnshareLast, WalkerClass::Gup, Outcome::Safe);
    is("sync-all", Ipi, Operation::Collapse, WalkerClass::Rcu, Outcome::Unsafe);
}

#[test]
fn the_hook_is_right_where_it_is_true_of_every_flush() {
    let with_hook = |transport, hook| {
        let posted = strategy("static-hook");
        let scenario = scenario(&posted, transport, Operation::Collapse, WalkerClass::Gup, TWO);
        explore(&Scenario { hook, ..scenario }, Limits::default())
    };
    assert!(with_hook(Ipi, true).exhausted);
    assert!(with_hook(Broadcast, false).exhausted);
    for transport in [Broadcast, Paravirt, Mixed] {
        let broken = with_hook(transport, true).counterexample.map(|c| c.broken);
        assert_eq!(broken, Some(Broken::ReusedWhileHeld), "a hook that lies about {}", transport.name());
    }
    // It speaks of the mask, and a walk of an mm that is not loaded is outside it.
    is("static-hook", Ipi, Operation::Collapse, WalkerClass::Foreign, Outcome::Unsafe);
}

#[test]
fn the_bit_of_v3_outlives_the_flush_that_it_is_about() {
    is("gather-flag", Mixed, Operation::Collapse, WalkerClass::Gup, Outcome::Safe);
    is("gather-flag", Mixed, Operation::CollapseInBatch, WalkerClass::Gup, Outcome::Unsafe);
    is("gather-flag", Mixed, Operation::UnshareThree, WalkerClass::Gup, Outcome::Unsafe);
    is("gather-flag", Paravirt, Operation::Collapse, WalkerClass::Gup, Outcome::Unsafe);
}

#[test]
fn v4_forgets_frozen_cpus_and_earlier_sharers() {
    is("targeted-v4", Paravirt, Operation::Collapse, WalkerClass::Gup, Outcome::Unsafe);
    is("targeted-v4", Broadcast, Operation::Collapse, WalkerClass::Gup, Outcome::Safe);
    is("targeted-v4", Broadcast, Operation::UnshareThree, WalkerClass::Gup, Outcome::Unsafe);
    is("targeted", Broadcast, Operation::UnshareThree, WalkerClass::Gup, Outcome::Safe);
    is("targeted", Paravirt, Operation::Collapse, WalkerClass::Gup, Outcome::Safe);
}

/// The read barrier of v4 does not order the store that clears the entry before the loads of what is published. An
/// exchange in its place hides that.
#[test]
fn the_read_barrier_of_v4_orders_nothing() {
    let outcome = |name, removed: &[Removal]| {
        let scenario = scenario(&strategy(name), Broadcast, Operation::Collapse, WalkerClass::Gup, TWO);
        let exploration = explore(&Scenario { removed: Removed::these(removed), ..scenario }, Limits::default());
        assert!(exploration.exhausted || exploration.counterexample.is_some());
        exploration.counterexample.map(|c| c.broken)
    };
    let store = [Removal::FlushFirst, Removal::ExchangeToUnlink];
    assert_eq!(outcome("targeted-v4", &store), Some(Broken::ReusedWhileHeld));
    assert_eq!(outcome("targeted-v4", &[Removal::FlushFirst]), None);
    assert_eq!(outcome("targeted", &store), None);
    assert_eq!(outcome("targeted-xchg", &store), None);
    // It is told a mask that was read after a flush, which has a barrier; without one, neither this nor any other rule
    // about masks holds.
    assert_eq!(outcome("coverage", &store), Some(Broken::ReusedWhileHeld));
    assert_eq!(outcome("coverage", &[Removal::FlushFirst]), None);
}

#[test]
fn a_publication_needs_its_barrier() {
    let base = scenario(&strategy("targeted"), Broadcast, Operation::Collapse, WalkerClass::Gup, TWO);
    let plain = explore(&Scenario { publication: Publication::Store, ..base }, Limits::default());
    assert_eq!(plain.counterexample.map(|c| c.broken), Some(Broken::ReusedWhileHeld));
    for publication in [Publication::StoreFence, Publication::Exchange] {
        assert!(explore(&Scenario { publication, ..base }, Limits::default()).exhausted);
    }
}

/// A walk from an NMI that clears the slot hides the walk that it interrupted; one that puts back what was shown does
/// not.
#[test]
fn an_nmi_must_put_back_what_the_walk_below_it_shows() {
    let base = scenario(&strategy("targeted"), Broadcast, Operation::Collapse, WalkerClass::Nmi, TWO);
    assert!(explore(&base, Limits::default()).exhausted);
    let clears = explore(&Scenario { nested_restores: false, ..base }, Limits::default());
    assert_eq!(clears.counterexample.map(|c| c.broken), Some(Broken::ReusedWhileHeld));
    let other = scenario(&strategy("targeted"), Broadcast, Operation::Collapse, WalkerClass::NmiOther, TWO);
    assert!(explore(&other, Limits::default()).exhausted);
    is("targeted-v4", Broadcast, Operation::Collapse, WalkerClass::Nmi, Outcome::Unsafe);
    is("coverage", Broadcast, Operation::Collapse, WalkerClass::Nmi, Outcome::Safe);
}

#[test]
fn ours_is_safe_for_loaded_mms_and_says_nothing_of_others() {
    for transport in TransportId::ALL {
        is("coverage", transport, Operation::Collapse, WalkerClass::Gup, Outcome::Safe);
    }
    is("coverage", Broadcast, Operation::UnshareThree, WalkerClass::Gup, Outcome::Safe);
}

#[test]
fn only_a_grace_period_waits_for_readers_with_interrupts_enabled() {
    for name in ["rcu", "fresh-table"] {
        is(name, Broadcast, Operation::Collapse, WalkerClass::Rcu, Outcome::Safe);
        is(name, Ipi, Operation::UnshareLast, WalkerClass::Rcu, Outcome::Safe);
    }
}

/// A strategy that refuses a class of walkers would be unsafe there.
#[test]
fn what_is_refused_would_be_unsafe() {
    for (name, walker) in [
        ("coverage", WalkerClass::Foreign),
        ("coverage", WalkerClass::NmiOther),
        ("coverage", WalkerClass::Rcu),
        ("mask-targeted", WalkerClass::Foreign),
        ("acked-generation", WalkerClass::Foreign),
        ("targeted", WalkerClass::Rcu),
    ] {
        is(name, Broadcast, Operation::Collapse, walker, Outcome::Refused);
        let exploration =
            explore(&scenario(&strategy(name), Broadcast, Operation::Collapse, walker, TWO), Limits::default());
        let broken = exploration.counterexample.map(|c| c.broken);
        assert_eq!(broken, Some(Broken::ReusedWhileHeld), "{name}, {walker:?}");
    }
}

/// Caches that are filled at once, and caches that are filled at any moment, come to the same verdict: the first is the
/// worst case of the second.
#[test]
fn fills_at_any_moment_show_nothing_that_eager_ones_do_not() {
    for (name, transport, operation) in [
        ("none", Broadcast, Operation::Collapse),
        ("coverage", Broadcast, Operation::Collapse),
        ("coverage", Ipi, Operation::Collapse),
        ("sync-all", Paravirt, Operation::Collapse),
        ("targeted", Mixed, Operation::Collapse),
    ] {
        for removed in [&[][..], &[Removal::AllLevels], &[Removal::Completion], &[Removal::LazyReached]] {
            let base = scenario(&strategy(name), transport, operation, WalkerClass::Gup, TWO);
            let eager = Scenario { removed: Removed::these(removed), ..base };
            let any = explore(&Scenario { eager_fills: false, ..eager }, Limits::default());
            let eager = explore(&eager, Limits::default());
            let kind = |e: &arch_sim::model::check::Exploration| e.counterexample.as_ref().map(|c| c.broken);
            assert_eq!(kind(&any), kind(&eager), "{name} on {} without {removed:?}", transport.name());
            assert!(any.states > eager.states || kind(&any).is_some());
        }
    }
}

/// CPUs that can be exchanged are: the verdict is the same, and where walks are many so are the states that are saved.
#[test]
fn interchangeable_cpus_change_no_verdict() {
    let (mut with, mut without) = (0, 0);
    for (name, transport, operation) in [
        ("none", Ipi, Operation::Collapse),
        ("none", Mixed, Operation::UnshareLast),
        ("sync-all", Paravirt, Operation::UnshareLast),
        ("gather-flag", Mixed, Operation::CollapseInBatch),
        ("targeted-v4", Broadcast, Operation::UnshareThree),
        ("targeted", Mixed, Operation::UnshareThree),
        ("acked-generation", Broadcast, Operation::UnshareThree),
        ("coverage", Broadcast, Operation::UnshareThree),
        ("rcu", Broadcast, Operation::Collapse),
    ] {
        let each = scenario(&strategy(name), transport, operation, WalkerClass::Gup, THREE);
        let symmetric = explore(&each, Limits::default());
        let each = explore(&Scenario { symmetric: false, ..each }, Limits::default());
        let kind =
            |e: &arch_sim::model::check::Exploration| e.counterexample.as_ref().map(|c| (c.broken, c.steps.len()));
        assert_eq!(kind(&symmetric), kind(&each), "{name} on {}", transport.name());
        assert_eq!(symmetric.exhausted, each.exhausted);
        if each.exhausted {
            (with, without) = (with + symmetric.states, without + each.states);
        }
    }
    assert!(with * 3 < without * 2, "{with} of {without} states");
}

#[test]
fn the_same_exploration_is_the_same_to_the_last_state() {
    let scenario = scenario(&strategy("none"), Broadcast, Operation::UnshareLast, WalkerClass::Gup, TWO);
    let (first, second) = (explore(&scenario, Limits::default()), explore(&scenario, Limits::default()));
    assert_eq!((first.states, first.generated, first.depth), (second.states, second.generated, second.depth));
    let text = |e: &arch_sim::model::check::Exploration| {
        words::interleaving(&e.scenario, e.counterexample.as_ref().expect("unsafe"))
    };
    assert_eq!(text(&first), text(&second));
}

/// The shortest way to the bug, step by step: nothing shorter exists, and no step of it is about something else.
#[test]
fn the_counterexample_of_no_sync_on_broadcast_is_the_textbook_one() {
    let verdict = found("none", Broadcast, Operation::Collapse, WalkerClass::Gup);
    let report = verdict.report();
    for part in
        ["begins a walk", "holds the table", "clears the entry", "broadcasts", "no sync", "uses the table again"]
    {
        assert!(report.contains(part), "{report}");
    }
    assert_eq!(verdict.explorations[0].counterexample.as_ref().map(|c| c.steps.len()), Some(11), "{report}");
}

#[test]
fn an_exploration_that_was_cut_short_is_not_called_safe() {
    let limits = Limits { states: 500, ..Limits::default() };
    let bounds = Bounds { rounds: vec![TWO], limits, ..Bounds::default() };
    let verdict = cell(&strategy("sync-all"), Ipi, Operation::UnshareThree, WalkerClass::Gup, &bounds);
    assert_eq!(verdict.found, Outcome::Void);
    assert!(!verdict.is_as_expected());
}

#[test]
fn the_table_fits_and_marks_what_is_unexpected() {
    let bounds = Bounds::default();
    let fake = |strategy, found| Verdict {
        strategy,
        transport: Ipi,
        operation: Operation::Collapse,
        walker: WalkerClass::Gup,
        expected: Some(Outcome::Safe),
        found,
        explorations: Vec::new(),
    };
    let rows = [fake("none", Outcome::Unsafe), fake("sync-all", Outcome::Safe)].map(|verdict| Row::of(&verdict));
    let text = table(&rows, &bounds);
    assert!(text.lines().all(|line| line.chars().count() <= 100));
    assert!(text.lines().any(|line| line.trim_start().starts_with("none") && line.ends_with("U!")));
    assert!(text.lines().any(|line| line.trim_start().starts_with("sync-all") && line.ends_with('s')));
}

/// What was explored is not explored again, unless it was cut short; another program, or other bounds, begin anew.
#[test]
fn an_interrupted_run_goes_on() {
    let path = std::env::temp_dir().join(format!("sim-checkpoint-{}", std::process::id()));
    let bounds = Bounds {
        rounds: vec![TWO],
        strategies: vec!["none".into(), "sync-all".into()],
        transports: vec![Ipi, Broadcast],
        operations: vec![Operation::Collapse],
        walkers: vec![WalkerClass::Gup],
        ..Bounds::default()
    };
    let explore_all = |bounds: &Bounds, resume, deadline| {
        let checkpoint = Checkpoint::open(&path, bounds, resume).expect("it can be read");
        let known = checkpoint.len();
        let running = Running { threads: 2, deadline, checkpoint: Some(checkpoint) };
        (known, run(bounds, running, |_| {}).expect("it can be written"))
    };
    let (_, late) = explore_all(&bounds, false, Some(std::time::Instant::now()));
    assert!(late.len() == 4 && late.iter().all(|row| row.found == "void" && !row.as_expected));
    assert!(Verdicts::of(&late, &bounds).is_err());
    let (known, first) = explore_all(&bounds, true, None);
    assert_eq!((known, first.len()), (0, 4));
    let (known, second) = explore_all(&bounds, true, None);
    assert_eq!((known, &second), (4, &first));
    let (known, _) = explore_all(&Bounds { rounds: vec![TWO, THREE], ..bounds.clone() }, true, None);
    assert_eq!(known, 0);
    let kept = Verdicts::of(&second, &bounds).expect("all was explored");
    assert_eq!(kept.verdicts["gup"]["broadcast"]["none"], "U");
    assert_eq!(kept.verdicts["gup"]["ipi"]["none"], "s");
    std::fs::remove_file(&path).expect("it is there");
}
