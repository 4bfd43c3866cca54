//! What QEMU's hardware does not do, against the unchanged core, in every interleaving of small scopes: with the guard
//! no run is wrong, without it some is, and for the reason named here.

use std::time::Duration;

use arch_sim::machine::prove::{Limits, Proof, Search, prove};
use arch_sim::machine::scope::{Profile, Role, Scope};
use arch_sim::machine::{Conflict, Deed, Hardware};
use kernel::guard::Guard;
use kernel::tlb::transport::TransportId;
use kernel::workload::WorkloadId;

const LIMITS: Limits = Limits { executions: 200_000, time: Duration::from_secs(600) };

/// Under the strategy that interrupts everybody: what shows is the hardware's doing.
fn scope(profile: Profile, workload: WorkloadId, role: Role) -> Scope {
    let strategy = kernel::sync::NAMES.iter().position(|(name, _)| *name == "sync-all").expect("the kernel has it");
    Scope::of(profile, strategy, workload, vec![role])
}

fn all(scope: &Scope) -> Proof {
    let proof = prove(scope, Search::Exhaustive, LIMITS, &mut |_| {});
    assert!(proof.explored.exhausted, "{}: {:?}", scope.in_words(), proof.explored);
    proof
}

fn safe(scope: &Scope) {
    let proof = all(scope);
    println!("{}: {} runs", scope.in_words(), proof.explored.executions);
    assert_eq!(proof.wrong, 0, "{} on {:?}: {:?}", scope.in_words(), scope.hardware, proof.shortest);
}

/// Some run is wrong, and the shortest says so in these words.
#[track_caller]
fn wrong(scope: &Scope, words: &str) {
    let some = Limits { executions: 500, ..LIMITS };
    let shortest = prove(scope, Search::Exhaustive, some, &mut |_| {})
        .shortest
        .unwrap_or_else(|| panic!("{} on {:?}: nothing found", scope.in_words(), scope.hardware));
    println!("{}: {:?}", scope.in_words(), shortest.findings);
    assert!(shortest.findings.iter().any(|finding| finding.contains(words)), "{:?}", shortest.findings);
}

fn without(scope: &Scope, guard: Guard) -> Scope {
    Scope { guards: 1 << guard as u64, ..scope.clone() }
}

fn on(scope: &Scope, hardware: Hardware) -> Scope {
    Scope { hardware, ..scope.clone() }
}

/// Control 23 (c): an address space ends, and the next one gets its tag, while another CPU has had the old one loaded.
#[test]
fn a_tag_is_flushed_everywhere_before_it_is_used_again() {
    for profile in [Profile::Arm, Profile::Weakest] {
        for role in [Role::Lazy, Role::Left] {
            let good = Scope { deed: Some(Deed::ReuseTag), ..scope(profile, WorkloadId::Munmap4k, role) };
            safe(&good);
            if role == Role::Lazy {
                // Nothing of it can be cached any more, but its root is still there to be walked.
                wrong(&without(&good, Guard::ExitUnloads), "as its root");
                continue;
            }
            wrong(&without(&good, Guard::FlushBroadcast), "a tag is used again");
            let late = Hardware { completion: false, ..good.hardware };
            wrong(&on(&good, late), "a tag is used again");
            let home = Hardware { shareable: false, ..good.hardware };
            wrong(&on(&good, home), "a tag is used again");
        }
    }
}

/// Rollover: more address spaces than tags. One tag is taken from an address space that nobody has loaded, and flushed
/// everywhere before another gets it; or its flushes, which do not know the tag any more, or the other's translations,
/// go wrong. Two tags, three address spaces.
#[test]
fn a_tag_is_taken_from_nobody_who_uses_it_and_flushed() {
    let base = Scope { deed: Some(Deed::TakeTag), ..scope(Profile::Arm, WorkloadId::Munmap4k, Role::Load) };
    let broadcast = on(&base, Hardware { asids: Some(3), ..base.hardware });
    let by_interrupt = Scope {
        profile: Profile::X86,
        transport: TransportId::Ipi,
        hardware: Hardware { asids: Some(3), broadcast: Some(false), ..Profile::X86.hardware() },
        ..base
    };
    // INVLPGB while an address space changes its tag, and from interrupts to broadcasts.
    let invlpgb = Scope {
        transport: TransportId::Mixed,
        hardware: Hardware { asids: Some(3), ..Hardware::INVLPGB },
        ..by_interrupt.clone()
    };
    for good in [broadcast, by_interrupt, invlpgb] {
        if good.transport == TransportId::Broadcast {
            safe(&good);
            wrong(&without(&good, Guard::TagLook), "");
            wrong(&without(&good, Guard::TagFlush), "a tag is used again");
        }
        for role in [Role::Lazy, Role::Left] {
            let good = Scope { roles: vec![role], ..good.clone() };
            safe(&good);
            wrong(&without(&good, if role == Role::Lazy { Guard::TagLook } else { Guard::TagFlush }), "");
        }
    }
}

/// Two CPUs load an address space that has no tag: it gets one, and not one from each, or what is flushed under the one
/// stays under the other.
#[test]
fn an_address_space_has_one_tag() {
    let base = Scope { deed: Some(Deed::LoadUntagged), ..scope(Profile::Arm, WorkloadId::Munmap4k, Role::Load) };
    let good = on(&base, Hardware { asids: Some(3), ..base.hardware });
    safe(&good);
    wrong(&without(&good, Guard::TagOnce), "cached");
}

/// An entry that is not marked as the address space's own outlives the flush of that address space, and the tag.
#[test]
fn entries_of_an_address_space_are_not_global() {
    let good = Scope { deed: Some(Deed::ReuseTag), ..scope(Profile::Arm, WorkloadId::Munmap4k, Role::Left) };
    wrong(&on(&good, Hardware { not_global: false, ..good.hardware }), "a tag is used again");
}

/// Controls 21 (e) and 23 (a): the wait ends early, for an erratum or for want of TLBSYNC. What the errata ask for
/// helps against the one.
#[test]
fn a_wait_that_ends_early_is_done_twice() {
    for profile in [Profile::Arm, Profile::Weakest] {
        let good = scope(profile, WorkloadId::UnshareMunmapLast, Role::Walk);
        safe(&good);
        let early = Hardware { in_time: false, ..good.hardware };
        wrong(&on(&good, early), "cached");
        safe(&on(&good, Hardware { repeated: true, ..early }));
        wrong(&on(&good, Hardware { completion: false, repeated: true, ..good.hardware }), "cached");
    }
}

/// Control 23 (a) on x86_64 as it is where it broadcasts.
#[test]
fn invlpgb_is_followed_by_tlbsync() {
    for transport in [TransportId::Broadcast, TransportId::Mixed] {
        for workload in [WorkloadId::UnshareMunmapLast, WorkloadId::Munmap4k] {
            let base = scope(Profile::X86, workload, Role::Walk);
            let good = Scope { transport, hardware: Hardware::INVLPGB, ..base };
            safe(&good);
            if transport == TransportId::Broadcast {
                wrong(&on(&good, Hardware { completion: false, ..Hardware::INVLPGB }), "cached");
            }
        }
    }
}

/// Hardware that notes in an entry that it has written by it: the entry is taken by an exchange, or what hardware noted
/// since it was read is lost.
#[test]
fn an_entry_is_taken_by_an_exchange() {
    for profile in [Profile::X86, Profile::Arm, Profile::Weakest] {
        let base = scope(profile, WorkloadId::Munmap4k, Role::Write);
        let managed = on(&base, Hardware { preset: false, ..base.hardware });
        safe(&managed);
        let plain = Hardware { exchange: false, ..managed.hardware };
        wrong(&on(&managed, plain), "a dirty bit is lost");
        // Where nothing is left for hardware to note, a plain store loses nothing.
        safe(&on(&base, Hardware { exchange: false, ..base.hardware }));
    }
}

/// What `mprotect` does, a plain store over a live entry, is right only because hardware never writes to one: dirty
/// bits are set in advance.
#[test]
fn a_live_entry_is_stored_over_because_it_is_dirty_in_advance() {
    let base = scope(Profile::Arm, WorkloadId::Mprotect4k, Role::Write);
    safe(&base);
    wrong(&on(&base, Hardware { preset: false, ..base.hardware }), "a dirty bit is lost");
}

/// Control 28: where the flush between is left out, the old entries and the new one are cached at once.
#[test]
fn an_entry_is_broken_before_another_is_made() {
    for profile in [Profile::Arm, Profile::Weakest] {
        let good = scope(profile, WorkloadId::CollapseAnon, Role::Write);
        assert_eq!(good.hardware.conflict, Conflict::Any);
        safe(&good);
        wrong(&without(&good, Guard::UnlinkFlush), "two translations");
    }
}
