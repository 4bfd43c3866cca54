//! Each part of the simulated hardware, three ways, against the unchanged core, in every interleaving of small scopes:
//! with the part on and the guard there no run is wrong; without the guard some is; and without the guard and with the
//! part off none is, so that it is this part that the guard is against.

use std::time::Duration;

use arch_sim::machine::prove::{Limits, Proof, Search, prove};
use arch_sim::machine::scope::{Profile, Role, Scope};
use arch_sim::machine::{Conflict, Deed, Hardware, Parts};
use kernel::guard::Guard;
use kernel::tlb::transport::TransportId;
use kernel::workload::WorkloadId;

const LIMITS: Limits = Limits { executions: 50_000, time: Duration::from_secs(600) };

/// Under the strategy that interrupts everybody: what shows is the hardware's doing.
fn scope(profile: Profile, workload: WorkloadId, role: Role) -> Scope {
    under("sync-all", profile, workload, role)
}

fn under(strategy: &str, profile: Profile, workload: WorkloadId, role: Role) -> Scope {
    let strategy = kernel::sync::NAMES.iter().position(|(name, _)| *name == strategy).expect("the kernel has it");
    Scope::of(profile, strategy, workload, vec![role])
}

fn all(scope: &Scope) -> Proof {
    let proof = prove(scope, Search::Exhaustive, LIMITS, &mut |_| {});
    assert!(proof.explored.exhausted, "{}: {:?}", scope.in_words(), proof.explored);
    proof
}

#[track_caller]
fn safe(scope: &Scope) {
    let proof = all(scope);
    assert_eq!(proof.wrong, 0, "{} on {:?}: {:?}", scope.in_words(), scope.hardware, proof.shortest);
}

#[track_caller]
fn wrong(scope: &Scope, words: &str) {
    let proof = all(scope);
    let says = proof.findings.iter().any(|finding| finding.contains(words));
    assert!(says, "{} on {:?}: {:?}", scope.in_words(), scope.hardware, proof.findings);
}

/// All three ways: `broken` is `good` without the guard.
#[track_caller]
fn three_ways(good: &Scope, broken: &Scope, words: &str, off: Parts) {
    safe(good);
    wrong(broken, words);
    safe(&with(broken, off));
}

fn without(scope: &Scope, guard: Guard) -> Scope {
    Scope { guards: 1 << guard as u64, ..scope.clone() }
}

fn on(scope: &Scope, hardware: Hardware) -> Scope {
    Scope { hardware, ..scope.clone() }
}

fn with(scope: &Scope, parts: Parts) -> Scope {
    on(scope, Hardware { parts, ..scope.hardware })
}

/// No walk leaves anything behind it.
const NOTHING_CACHED: Parts = Parts { tlb: false, walk_caches: [false; 3], stepwise: false, ..Parts::ALL };

/// A broadcast is waited for because of translations in TLBs, because of paging-structure caches, and because of walks
/// that are under way: each by itself is enough.
#[test]
fn tlbs_walk_caches_and_walks_under_way() {
    let good = scope(Profile::Arm, WorkloadId::UnshareMunmapLast, Role::Walk);
    let broken = on(&good, Hardware { completion: false, ..good.hardware });
    for (one, words) in [
        (Parts { tlb: true, ..NOTHING_CACHED }, "cached a translation"),
        (Parts { walk_caches: [true; 3], ..NOTHING_CACHED }, "cached the entry"),
        (Parts { stepwise: true, ..NOTHING_CACHED }, "a walk under way"),
    ] {
        three_ways(&with(&good, one), &with(&broken, one), words, NOTHING_CACHED);
    }
}

/// Control 20: an invalidation of leaves leaves the entry that pointed at the table. A PMD table is pointed at by an
/// entry of a PUD table, a PTE table by one of a PMD table; caches of other levels have nothing to do with it.
#[test]
fn each_level_has_its_walk_cache() {
    let only = |walk_caches| Parts { walk_caches, stepwise: false, ..Parts::ALL };
    let [pgd, pud, pmd] = [[true, false, false], [false, true, false], [false, false, true]].map(only);
    for (workload, needed, others) in
        [(WorkloadId::UnshareMunmapLast, pud, [pgd, pmd]), (WorkloadId::CollapseAnon, pmd, [pgd, pud])]
    {
        let good = scope(Profile::Arm, workload, Role::Walk);
        let leaf_only = on(&good, Hardware { all_levels: false, ..good.hardware });
        three_ways(&with(&good, needed), &with(&leaf_only, needed), "cached the entry", only([false; 3]));
        others.into_iter().for_each(|other| safe(&with(&leaf_only, other)));
    }
}

/// A CPU that only walks in software has cached nothing, unless its hardware walks unasked.
#[test]
fn hardware_walks_unasked() {
    let good = scope(Profile::Arm, WorkloadId::UnshareMunmapLast, Role::Walk);
    let broken = on(&good, Hardware { completion: false, ..good.hardware });
    three_ways(&good, &broken, "cached", Parts { speculation: false, ..Parts::ALL });
}

/// Controls 21 (b), 21 (e) and 23 (a): who does not wait, or too short a time, is wrong because broadcasts are late.
#[test]
fn broadcasts_are_late() {
    let prompt = Parts { late: false, ..Parts::ALL };
    for profile in [Profile::Arm, Profile::Weakest] {
        let good = scope(profile, WorkloadId::UnshareMunmapLast, Role::Walk);
        for hardware in [Hardware { completion: false, ..good.hardware }, Hardware { in_time: false, ..good.hardware }]
        {
            three_ways(&good, &on(&good, hardware), "cached", prompt);
        }
    }
    let base = scope(Profile::X86, WorkloadId::UnshareMunmapLast, Role::Walk);
    let good = Scope { transport: TransportId::Broadcast, hardware: Hardware::INVLPGB, ..base };
    three_ways(&good, &on(&good, Hardware { completion: false, ..Hardware::INVLPGB }), "cached", prompt);
}

/// Control 23 (c): without tags there is nothing that a new address space could find under its own.
#[test]
fn translations_are_tagged() {
    let good = Scope { deed: Some(Deed::ReuseTag), ..scope(Profile::Weakest, WorkloadId::Munmap4k, Role::Left) };
    let broken = without(&good, Guard::FlushBroadcast);
    safe(&good);
    wrong(&broken, "a tag is used again");
    safe(&on(&broken, Hardware { asids: Some(1), ..broken.hardware }));
}

/// Entries that are marked as global outlive their address space, where global entries match every tag.
#[test]
fn global_entries_match_every_tag() {
    let good = Scope { deed: Some(Deed::ReuseTag), ..scope(Profile::Arm, WorkloadId::Munmap4k, Role::Left) };
    let marked = on(&good, Hardware { not_global: false, ..good.hardware });
    three_ways(&good, &marked, "a tag is used again", Parts { global: false, ..Parts::ALL });
}

/// An entry is taken by an exchange because hardware sets dirty bits.
#[test]
fn hardware_sets_dirty_bits() {
    for profile in [Profile::X86, Profile::Arm] {
        let base = scope(profile, WorkloadId::Munmap4k, Role::Write);
        let good = on(&base, Hardware { preset: false, ..base.hardware });
        let plain = on(&good, Hardware { exchange: false, ..good.hardware });
        three_ways(&good, &plain, "a dirty bit is lost", Parts { dirty: false, ..Parts::ALL });
    }
}

/// Control 28: two entries for one address may be mixed, or fault, on one architecture; on the other it is one of them.
#[test]
fn two_entries_conflict() {
    let good = scope(Profile::Arm, WorkloadId::CollapseAnon, Role::Write);
    let broken = without(&good, Guard::UnlinkFlush);
    safe(&good);
    wrong(&broken, "two translations");
    let either = all(&on(&broken, Hardware { conflict: Conflict::Either, ..broken.hardware }));
    // What is stale is found all the same.
    assert!(either.wrong > 0 && !either.findings.iter().any(|finding| finding.contains("two translations")));
}

/// An invalidation by address has to name the recursive address of a table, where it leaves what it does not name.
#[test]
fn an_invalidation_takes_what_it_names() {
    let good = under("self-map", Profile::Arm, WorkloadId::UnshareMunmapLast, Role::Walk);
    let broken = without(&good, Guard::SelfMapFlush);
    three_ways(&good, &broken, "", Parts { by_address: false, ..Parts::ALL });
}

/// A CPU that owes a flush when it resumes: there is none where no hypervisor stops CPUs.
#[test]
fn a_hypervisor_stops_cpus() {
    let base = scope(Profile::X86, WorkloadId::Munmap4k, Role::Loaded);
    let good = Scope { transport: TransportId::Paravirt, ..base };
    let broken = without(&good, Guard::FlushOnResume);
    three_ways(&good, &broken, "cached", Parts { freezes: false, ..Parts::ALL });
}
