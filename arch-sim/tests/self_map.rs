//! Strategy `self-map` is decided: the kernel's own walk through the recursive mapping, over an MMU that caches
//! whatever it may and uses any of what it has cached, against the kernel's operations, in every interleaving of one
//! operation and one walk. With each thing that it rests on no run is wrong; without it some is.

use std::time::Duration;

use arch_sim::machine::prove::{Limits, Proof, Search, prove};
use arch_sim::machine::scope::{Profile, Role, Scope};
use arch_sim::machine::{Deed, Hardware};
use kernel::guard::Guard;
use kernel::tlb::transport::TransportId;
use kernel::workload::WorkloadId;

const LIMITS: Limits = Limits { executions: 50_000, time: Duration::from_secs(600) };

fn scope(profile: Profile, transport: TransportId, workload: WorkloadId, deed: Option<Deed>) -> Scope {
    let strategy = kernel::sync::NAMES.iter().position(|(name, _)| *name == "self-map").expect("the kernel has it");
    Scope { transport, deed, ..Scope::of(profile, strategy, workload, vec![Role::Walk]) }
}

fn all(scope: &Scope) -> Proof {
    let proof = prove(scope, Search::Exhaustive, LIMITS, &mut |_| {});
    println!(
        "{} without {:#x}: {} runs, {} asleep, {} wrong, {:.1?}",
        scope.in_words(),
        scope.guards,
        proof.explored.executions,
        proof.explored.asleep,
        proof.wrong,
        proof.time
    );
    if let Some(shortest) = &proof.shortest {
        println!("  {:?}", shortest.findings);
    }
    assert!(proof.explored.exhausted, "{}: {:?}", scope.in_words(), proof.explored);
    proof
}

fn without(scope: &Scope, guard: Guard) -> Scope {
    Scope { guards: 1 << guard as u64, ..scope.clone() }
}

const OPERATIONS: [(WorkloadId, Option<Deed>); 4] = [
    (WorkloadId::UnshareMunmapLast, None),
    (WorkloadId::Munmap4k, None),
    (WorkloadId::CollapseAnon, None),
    (WorkloadId::CollapseAnon, Some(Deed::DropHuge)),
];

/// On the way that each profile usually flushes.
#[test]
fn the_flush_is_the_sync() {
    for (profile, transport) in [
        (Profile::Arm, TransportId::Broadcast),
        (Profile::Weakest, TransportId::Broadcast),
        (Profile::X86, TransportId::Ipi),
    ] {
        for (workload, deed) in OPERATIONS {
            assert_eq!(all(&scope(profile, transport, workload, deed)).wrong, 0);
        }
    }
}

/// The recursive address of a table that was unlinked is flushed.
#[test]
fn the_flush_covers_the_recursive_addresses_of_tables() {
    for profile in [Profile::Arm, Profile::Weakest] {
        for (workload, deed) in OPERATIONS.into_iter().filter(|(_, deed)| deed.is_none()) {
            let scope = scope(profile, TransportId::Broadcast, workload, deed);
            assert!(all(&without(&scope, Guard::SelfMapFlush)).wrong > 0, "{}", scope.in_words());
        }
    }
}

/// Where a 2 MiB leaf reads as a table, its recursive address is flushed before a table takes its place; elsewhere it
/// need not be.
#[test]
fn the_flush_covers_the_recursive_addresses_of_leaves() {
    let drop = |profile| scope(profile, TransportId::Broadcast, WorkloadId::CollapseAnon, Some(Deed::DropHuge));
    assert!(all(&without(&drop(Profile::Weakest), Guard::SelfMapLeaf)).wrong > 0);
    assert_eq!(all(&without(&drop(Profile::Arm), Guard::SelfMapLeaf)).wrong, 0);
}

/// The flush is complete when whoever asked for it goes on.
#[test]
fn the_flush_is_complete() {
    let good = scope(Profile::Arm, TransportId::Broadcast, WorkloadId::UnshareMunmapLast, None);
    let late = Hardware { completion: false, ..good.hardware };
    assert!(all(&Scope { hardware: late, ..good }).wrong > 0);
}

/// An address space ends, and its tag is used again: nothing of the old recursive mapping is left under it, though CPUs
/// that had it loaded could cache that until they unloaded it.
#[test]
fn a_tag_takes_no_recursive_mapping_along() {
    for role in [Role::Lazy, Role::Left] {
        let base = scope(Profile::Arm, TransportId::Broadcast, WorkloadId::Munmap4k, Some(Deed::ReuseTag));
        let good = Scope { roles: vec![role], ..base };
        assert_eq!(all(&good).wrong, 0, "{role:?}");
        if role == Role::Lazy {
            // It could cache the root's own entry once more, between the last flush and the load of another root.
            assert!(all(&without(&good, Guard::SelfMapExit)).wrong > 0);
        }
    }
}

/// Where a hypervisor may stop the walk at any place too; where flushes are mixed, those of the machine's first
/// flushes. The collapse on `paravirt` is tens of thousands of classes: `cargo xtask sim --strategy self-map` has it.
#[test]
fn on_other_transports() {
    for (workload, deed) in OPERATIONS {
        for transport in [TransportId::Paravirt, TransportId::Mixed] {
            let large = transport == TransportId::Paravirt && workload == WorkloadId::CollapseAnon && deed.is_none();
            if !large {
                assert_eq!(all(&scope(Profile::X86, transport, workload, deed)).wrong, 0);
            }
        }
    }
}

/// Who owes a flush when it resumes makes it.
#[test]
fn a_resumed_walk_has_its_translations_flushed() {
    let good = scope(Profile::X86, TransportId::Paravirt, WorkloadId::UnshareMunmapLast, None);
    assert!(all(&without(&good, Guard::FlushOnResume)).wrong > 0);
}
