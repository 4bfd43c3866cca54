//! The ledger's self-test: what it says of calls between CPUs is what happened.

use std::cell::Cell;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use kernel::addr::CpuId;
use kernel::arch::Arch;
use kernel::ledger::Cause;
use kernel::ledger::events::{EventRing, Slot};
use kernel::ledger::profile::CpuProfile;
use kernel::record::event::{BY_NMI, EventKind};
use kernel::record::profile::{PARTS, Profile, bucket};
use kernel::record::ring::RingHeader;
use kernel::smp::call::call_many;
use kernel::smp::mask::CpuMask;
use tests::host::{Untagged, World, run_on};

/// Whoever counts interrupts alone counts too few, whoever counts requests counts too many: two syncs to a CPU that has
/// interrupts masked are two that are wanted, one vector, two acknowledged.
#[test]
fn two_syncs_to_a_busy_cpu_are_two_wanted_one_vector_two_acknowledged() {
    let world = World::<Untagged>::new(3, 512);
    let (second, busy) = (world.cpu(1), world.cpu(2));
    let targets = CpuMask::only(busy.id);
    let enabled = world.on(2, Untagged::irq_save);
    assert!(enabled);
    // CPU 0 waits for CPU 2; then CPU 1 asks it too and waits; then CPU 2 has done what it was at.
    world.while_waiting(move || {
        tests::host::while_waiting(move || {
            assert_eq!(busy.inbox.acknowledged.load(Ordering::Relaxed), 0, "it has interrupts masked");
            run_on(2, || Untagged::irq_restore(true));
        });
        run_on(1, || call_many(second, &targets, Cause::Sync, |_, _| {}, 0));
    });
    world.on(0, || call_many(world.cpu(0), &targets, Cause::Sync, |_, _| {}, 0));
    assert!(world.hook_ran());
    let counts: Vec<_> = (0..3).map(|index| world.cpu(index).ledger.snapshot()).collect();
    assert_eq!((counts[0].sync_ipis, counts[1].sync_ipis), (1, 1), "wanted, by each");
    assert_eq!((counts[0].vectors, counts[1].vectors), (1, 0), "the second finds an interrupt on its way");
    assert_eq!((counts[0].handled, counts[1].handled, counts[2].handled), (0, 0, 2));
    assert_eq!(busy.inbox.acknowledged.load(Ordering::Relaxed), 2);
    let from: Vec<u64> =
        world.events(2).iter().filter(|e| e.kind == EventKind::Acknowledge as u16).map(|e| e.b).collect();
    assert_eq!(from, [0, 1], "whose they were");
}

std::thread_local! {
    static NOW: Cell<u64> = const { Cell::new(0) };
}

/// A walk of an NMI in the middle of another has its own duration; what began outside of operations has none; a ring of
/// two events loses none of it.
#[test]
fn a_profile_is_made_of_events_as_they_are_written() {
    let header: &'static RingHeader = Box::leak(Box::default());
    let slot = || -> Slot { std::array::from_fn(|_| AtomicU64::new(0)) };
    let slots: &'static [Slot] = Vec::leak(vec![slot(), slot()]);
    let recorded: &'static CpuProfile = Box::leak(Box::default());
    let ring = EventRing::undisturbed(CpuId(3), header, slots, || NOW.get()).profiled(recorded);
    let at = |time: u64, kind: EventKind, a: u64| {
        NOW.set(time);
        ring.write(kind, 1, a, 0);
    };
    at(1, EventKind::WalkBegin, 0);
    recorded.set_part(Some(5));
    at(5, EventKind::WalkEnd, 0);
    at(10, EventKind::OperationBegin, 0);
    at(11, EventKind::WalkBegin, 0);
    at(13, EventKind::HandlerBegin, 1);
    at(14, EventKind::WalkBegin, 0);
    at(17, EventKind::WalkEnd, 0);
    at(18, EventKind::Acknowledge, BY_NMI);
    at(20, EventKind::HandlerEnd, 1);
    at(31, EventKind::WalkEnd, 0);
    at(32, EventKind::Acknowledge, Cause::Sync as u64);
    at(33, EventKind::Acknowledge, Cause::Wake as u64);
    at(40, EventKind::OperationEnd, 0);
    recorded.set_part(None);
    at(41, EventKind::Acknowledge, Cause::Sync as u64);

    let profile = Profile::new();
    recorded.hand_over(&profile, CpuId(3), 4);
    recorded.hand_over(&profile, CpuId(3), 4);
    let of = |counts: &[AtomicU32]| -> Vec<usize> {
        let filled = counts.iter().enumerate().filter(|(_, count)| count.load(Ordering::Relaxed) == 1);
        filled.map(|(index, _)| index).collect()
    };
    let [initiator, responder, walker] = &profile.durations;
    assert_eq!((of(initiator), of(responder), of(walker)), (vec![bucket(30)], vec![7], vec![3, 20]));
    let longest: Vec<u64> = profile.longest.iter().map(|ticks| ticks.load(Ordering::Relaxed)).collect();
    assert_eq!(longest, [30, 7, 20]);
    let [flush, sync, nmi] = &profile.interrupted[3];
    assert_eq!((of(flush), of(sync), of(nmi)), (vec![], vec![5], vec![5]));
    let all = profile.interrupted.iter().flatten().flatten().map(|count| count.load(Ordering::Relaxed)).sum::<u32>();
    assert!(all == 2 && PARTS > 5, "{all}");
}
