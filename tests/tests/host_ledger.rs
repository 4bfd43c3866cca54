//! The ledger's self-test: what it says of calls between CPUs is what happened.

use std::sync::atomic::Ordering;

use kernel::arch::Arch;
use kernel::ledger::Cause;
use kernel::record::event::EventKind;
use kernel::smp::call::call_many;
use kernel::smp::mask::CpuMask;
use tests::host::{Untagged, World, run_on};

/// Whoever counts interrupts alone counts too few, whoever counts requests counts too many: two syncs to a CPU that has interrupts masked are two that are wanted, one
/// vector, two acknowledged.
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
