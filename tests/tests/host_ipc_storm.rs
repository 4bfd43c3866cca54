//! Long messages while the memory of both sides is taken away, on the machine of the host: in turns of whole steps, in
//! an order by the seed. `arch-sim/tests/storm.rs` has the same with every step of the kernel in between.

use kernel::abi::Status;
use kernel::arch::Arch;
use kernel::object::account::Price;
use kernel::task::turn::turn;
use kernel::tlb::switch;
use kernel::tlb::transport::TransportId;
use scripted::storm::{Outcome, Storm};
use tests::host::{Tagged, Untagged, World};

const FRAMES: usize = 8192;

fn storm<A: Arch>(transport: TransportId, seed: u64) -> Outcome {
    let world = World::<A>::new(3, FRAMES);
    world.choose("sync-all", transport);
    let free = world.machine().free_frames();
    let storm = world.on(0, || Storm::begin(world.cpu(0), 6000, 40, seed));
    let mut order = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut step = || {
        order = order.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let at = (order >> 33) as usize % 3;
        world.on(at, || turn(world.cpu(at)));
    };
    let mut steps = 0;
    while !storm.is_over() {
        step();
        steps += 1;
        assert!(steps < 200_000, "the storm does not end: {:?}", storm.so_far());
    }
    world.on(0, || storm.end(world.cpu(0)));
    for _ in 0..10_000 {
        step();
    }
    assert!(storm.is_gone(), "{:?}", storm.left());
    let (outcome, left) = storm.outcome();
    assert_eq!(left, Price::NOTHING, "still charged");
    for cpu in 0..3 {
        world.on(cpu, || switch::unload(world.cpu(cpu)));
    }
    world.settle();
    assert_eq!(world.violations(), 0);
    assert_eq!(world.machine().free_frames(), free, "frames were not given back");
    outcome
}

#[test]
fn messages_are_whole_or_refused_in_a_storm() {
    let mut all = Outcome::default();
    for seed in 1..=6 {
        for transport in TransportId::ALL {
            let outcomes = [storm::<Untagged>(transport, seed), storm::<Tagged>(transport, seed)];
            for outcome in outcomes {
                assert_eq!(outcome.wrong, Vec::<String>::new(), "seed {seed}, {}", transport.name());
                all.received += outcome.received;
                all.exact += outcome.exact;
                all.meddled += outcome.meddled;
                all.collapsed += outcome.collapsed;
                all.refused.extend(outcome.refused);
            }
        }
    }
    // It was a storm, and it was not only that.
    println!("{} received, {} of them exactly; {} refused", all.received, all.exact, all.refused.len());
    println!("{} times meddled, {} collapses", all.meddled, all.collapsed);
    assert!(all.exact > 1_000 && all.meddled > 100 && all.collapsed > 20);
    assert!(all.refused.contains(&Status::Undelivered));
}
