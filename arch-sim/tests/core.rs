//! The unchanged core in every interleaving of small scopes: it comes to what the model comes to, and what it finds
//! wrong replays.

use std::time::Duration;

use arch_sim::agreement::{Agreed, Cell};
use arch_sim::machine::Hardware;
use arch_sim::machine::prove::{Limits, Proof, Search, prove};
use arch_sim::machine::recording::{self, BadRecording};
use arch_sim::machine::scope::{Profile, Role, Scope};
use arch_sim::model::scenario::Operation;
use kernel::guard::Guard;
use kernel::record::cell::Verdict;
use kernel::tlb::transport::TransportId;
use kernel::workload::walker::WalkerClass;

const LIMITS: Limits = Limits { executions: 20_000, time: Duration::from_secs(600) };

fn cell(profile: Profile, strategy: &str, operation: Operation, walker: WalkerClass) -> Cell {
    Cell::new(profile, strategy, profile.transport(), operation, walker, 1).expect("both know it")
}

fn decide(cell: Cell) -> Agreed {
    cell.decide(Search::Exhaustive, LIMITS, &mut |_| {})
}

fn all(scope: &Scope) -> Proof {
    let proof = prove(scope, Search::Exhaustive, LIMITS, &mut |_| {});
    assert!(proof.explored.exhausted, "{}: {:?}", scope.in_words(), proof.explored);
    proof
}

fn strategies() -> impl Iterator<Item = &'static str> {
    // Those whose walks hold tables, which the model is about.
    kernel::sync::NAMES.iter().map(|(name, _)| *name).filter(|name| *name != "self-map")
}

/// Every strategy, one unshare by the last but one sharer against one walk: core, model and promise say the same.
#[test]
fn the_core_comes_to_what_the_model_comes_to() {
    for strategy in strategies() {
        for profile in [Profile::X86, Profile::Arm, Profile::Weakest] {
            let agreed = decide(cell(profile, strategy, Operation::UnshareLast, WalkerClass::Gup));
            assert!(agreed.agrees(), "{}", agreed.line());
            assert_eq!(agreed.core, agreed.promised, "{}", agreed.line());
        }
    }
}

/// The same for a collapse, on one profile: `cargo xtask sim --core` has the others.
#[test]
fn a_collapse_comes_to_what_the_model_comes_to() {
    for strategy in strategies() {
        let agreed = decide(cell(Profile::Arm, strategy, Operation::Collapse, WalkerClass::Gup));
        assert!(agreed.agrees(), "{}", agreed.line());
        assert_eq!(agreed.core, agreed.promised, "{}", agreed.line());
    }
}

#[test]
fn walkers_outside_the_mask_and_readers_under_rcu_too() {
    for (strategy, walker, verdict) in [
        ("sync-all", WalkerClass::Foreign, Verdict::Safe),
        ("targeted", WalkerClass::Foreign, Verdict::Safe),
        ("static-hook", WalkerClass::Foreign, Verdict::Unsafe),
        // It needs a third CPU, which the flush interrupts.
        ("gather-flag", WalkerClass::Foreign, Verdict::Unsafe),
        ("none", WalkerClass::Rcu, Verdict::Unsafe),
        ("sync-all", WalkerClass::Rcu, Verdict::Unsafe),
        ("rcu", WalkerClass::Rcu, Verdict::Safe),
        ("coverage", WalkerClass::Rcu, Verdict::Refused),
    ] {
        let agreed = decide(cell(Profile::X86, strategy, Operation::UnshareLast, walker));
        assert!(agreed.agrees(), "{}", agreed.line());
        assert_eq!(agreed.core, verdict, "{}", agreed.line());
    }
}

/// Entries that are read as two words: no interleaving has a walk use a pair that was never one entry, unless it does
/// not look at the low word again.
#[test]
fn entries_of_two_words() {
    for (profile, strategy, verdict) in [
        (Profile::X86, "none", Verdict::Safe),
        (Profile::Arm, "none", Verdict::Unsafe),
        (Profile::Arm, "sync-all", Verdict::Safe),
    ] {
        let agreed = decide(cell(profile, strategy, Operation::UnshareLast, WalkerClass::TwoWord));
        assert!(agreed.agrees(), "{}", agreed.line());
        assert_eq!(agreed.core, verdict, "{}", agreed.line());
    }
    for profile in [Profile::X86, Profile::Arm] {
        let kept = cell(profile, "sync-all", Operation::UnshareLast, WalkerClass::TwoWord).scope;
        let found =
            prove(&Scope { guards: 1 << Guard::LowAgain as u64, ..kept }, Search::Exhaustive, LIMITS, &mut |_| {});
        assert_ne!(found.wrong, 0, "{:?}", found.explored);
    }
}

/// A hypervisor that stops the walker at any place, for any time.
#[test]
fn frozen_cpus() {
    for (strategy, verdict) in [("none", Verdict::Unsafe), ("coverage", Verdict::Safe), ("targeted", Verdict::Safe)] {
        let on = TransportId::Paravirt;
        let cell = Cell::new(Profile::X86, strategy, on, Operation::UnshareLast, WalkerClass::Gup, 1);
        let agreed = decide(cell.expect("both know it"));
        assert!(agreed.agrees(), "{}", agreed.line());
        assert_eq!(agreed.core, verdict, "{}", agreed.line());
    }
}

/// A hypervisor that stops the walker only where somebody looks causes nothing less, and nothing more: the same states
/// in the end, the same wrong ones among them, in a small part of the runs.
#[test]
fn stops_that_nobody_sees_can_be_left_out() {
    for strategy in ["none", "targeted"] {
        let on = TransportId::Paravirt;
        let cell = Cell::new(Profile::X86, strategy, on, Operation::UnshareLast, WalkerClass::Gup, 1);
        let scope = cell.expect("both know it").scope;
        let few = all(&scope);
        let many = prove(&scope, Search::Anywhere, LIMITS, &mut |_| {});
        assert!(many.explored.exhausted, "{}: {:?}", scope.in_words(), many.explored);
        assert_eq!(few.outcomes, many.outcomes, "{}", scope.in_words());
        assert_eq!(few.wrong > 0, many.wrong > 0, "{}", scope.in_words());
        assert_eq!(few.wrong > 0, strategy == "none");
        assert!(few.outcomes.len() > 1, "{}", scope.in_words());
        assert!(few.explored.executions * 3 < many.explored.executions, "{:?} {:?}", few.explored, many.explored);
        println!("{}: {:?}, {:?}, {} ends", scope.in_words(), few.explored, many.explored, few.outcomes.len());
    }
}

/// The counterexample of the negative control: told in the kernel's events, written down, read and replayed.
#[test]
fn what_is_found_replays() {
    let scope = cell(Profile::Arm, "none", Operation::Collapse, WalkerClass::Gup).scope;
    let wrong = all(&scope).shortest.expect("never to sync is unsafe on a broadcast");
    // The walk takes the table, the whole collapse happens, the walk goes on: fewer turns do not do it.
    assert_eq!(wrong.schedule.switches(), 3);
    let text = recording::record(&scope, &wrong);
    let (scope_again, wrong_again) = recording::read(&text).expect("what was written reads");
    assert_eq!((&scope_again, &wrong_again), (&scope, &wrong));
    let replayed = recording::again(&scope_again, &wrong_again).expect("the same core does the same");
    let told = recording::interleaving(&scope, &wrong, &replayed);
    let at = |part: &str| told.find(part).unwrap_or_else(|| panic!("{part} is not in:\n{told}"));
    assert!(at("holds table") < at("unlinked from"));
    assert!(at("unlinked from") < at("elided"));
    assert!(at("elided") < at("VIOLATION"));

    let other = text.replace("strategy = \"none\"", "strategy = \"sync-all\"");
    let (scope, wrong) = recording::read(&other).expect("it is of the format");
    assert_eq!(recording::again(&scope, &wrong).err(), Some(BadRecording::Stale));
    assert!(matches!(recording::read("version = 1"), Err(BadRecording::Format(_))));
    assert!(matches!(recording::read(&text.replace("version = 1", "version = 9")), Err(BadRecording::Version(9))));
    assert!(matches!(recording::read(&text.replace("aarch64", "vax")), Err(BadRecording::Unknown { .. })));
}

/// Without what the kernel does about it, or the hardware, some interleaving is wrong; with it none is.
#[test]
fn each_guard_is_needed_in_some_interleaving() {
    let unshare = |profile, strategy| cell(profile, strategy, Operation::UnshareLast, WalkerClass::Gup).scope;
    let good = Hardware::default();
    let (x86, arm) = (unshare(Profile::X86, "static-hook"), unshare(Profile::Arm, "sync-all"));
    for scope in [&x86, &arm] {
        assert_eq!(all(scope).wrong, 0, "{}", scope.in_words());
    }
    let without = |scope: &Scope, guard: Guard| Scope { guards: 1 << guard as u64, ..scope.clone() };
    for scope in [
        // A walk that does not mask interrupts is interrupted, and its CPU acknowledges in the middle of it.
        without(&x86, Guard::WalkIrqOff),
        without(&x86, Guard::FlushIpi),
        without(&arm, Guard::UnshareSync),
        without(&arm, Guard::SyncInterrupt),
        without(&arm, Guard::FlushBroadcast),
        Scope { hardware: Hardware { all_levels: false, ..good }, ..arm.clone() },
        Scope { hardware: Hardware { completion: false, ..good }, ..arm.clone() },
        Scope { hardware: Hardware { shareable: false, ..good }, ..arm.clone() },
        Scope { hardware: Hardware { all_levels: false, ..good }, ..x86.clone() },
    ] {
        assert!(all(&scope).wrong > 0, "{} without {:x} on {:?}", scope.in_words(), scope.guards, scope.hardware);
    }
}

/// Stores that others see late change no verdict of these.
#[test]
fn store_buffers() {
    for (profile, strategy, wrong) in [
        (Profile::X86, "none", false),
        (Profile::X86, "targeted", false),
        (Profile::Arm, "none", true),
        (Profile::Arm, "targeted", false),
        (Profile::Arm, "targeted-xchg", false),
        (Profile::Arm, "sync-all", false),
    ] {
        let scope = cell(profile, strategy, Operation::UnshareLast, WalkerClass::Gup).scope;
        let scope = Scope { buffers: true, ..scope };
        assert_eq!(all(&scope).wrong > 0, wrong, "{}", scope.in_words());
    }
}

/// Beyond what can be exhausted: three CPUs, by seeds. The same seeds are the same runs.
#[test]
fn seeds_beyond() {
    let search = |strategy| {
        let base = cell(Profile::Arm, strategy, Operation::UnshareLast, WalkerClass::Gup).scope;
        let scope = Scope { roles: vec![Role::Walk, Role::LoadAndWalk], ..base };
        let limits = Limits { executions: 300, ..LIMITS };
        let proof = prove(&scope, Search::Seeded(1), limits, &mut |_| {});
        (proof.wrong, proof.explored.steps, proof.shortest)
    };
    let (wrong, ..) = search("none");
    assert!(wrong > 0);
    assert_eq!(search("none"), search("none"));
    assert_eq!(search("coverage").0, 0);
}
