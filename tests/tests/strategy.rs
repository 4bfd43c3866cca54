//! Strategies from outside the core's own list: those of `docs/write-a-strategy.md`, word for word.

#[allow(unreachable_pub)]
#[path = "../strategies/any_mm.rs"]
mod any_mm;
#[allow(unreachable_pub)]
#[path = "../strategies/this_mm.rs"]
mod this_mm;

use kernel::addr::{CpuId, PMD_SIZE, VirtAddr};
use kernel::mm::address_space::{self, Backing};
use kernel::mm::collapse::collapse_anon;
use kernel::mm::entry::Perm;
use kernel::mm::{exit, fault};
use kernel::smp::mask::CpuMask;
use kernel::sync::{Ask, Decision, Entry, LoadedMm, Party, Setting, Strategy, View};
use kernel::tlb::coverage::Coverage;
use kernel::tlb::switch;
use kernel::tlb::transport::TransportId;
use kernel::workload::walker::WalkerClass;
use tests::host::{Tagged, World};

/// What a machine shows: CPU `n` has `loaded[n]`; CPU 0 asks.
struct Shown {
    loaded: Vec<LoadedMm>,
}

impl View for Shown {
    fn initiator(&self) -> CpuId {
        CpuId(0)
    }
    fn online(&self) -> CpuMask {
        CpuMask::first(self.loaded.len())
    }
    fn loaded(&self, cpu: CpuId) -> LoadedMm {
        self.loaded[cpu.index()]
    }
    fn slot(&self, _cpu: CpuId) -> u64 {
        0
    }
    fn hook(&self) -> bool {
        false
    }
    fn transport(&self) -> TransportId {
        TransportId::Broadcast
    }
    fn acknowledged_generation(&self, _cpu: CpuId) -> u64 {
        0
    }
    fn fence(&self) {}
    fn read_fence(&self) {}
}

/// Asks `S` for mm 1, whose flush was acknowledged by `acknowledged`; returns the CPUs that it interrupts.
fn targets<S: Strategy>(loaded: &[LoadedMm], acknowledged: &[u16]) -> Vec<u16> {
    let mask = |cpus: &[u16]| cpus.iter().map(|n| CpuId(*n)).collect::<CpuMask>();
    let view = Shown { loaded: loaded.to_vec() };
    let coverage = Coverage::claimed_by_a_model(mask(acknowledged), acknowledged.len() as u32 - 1);
    let party = Party { mm: 1, mask: view.online(), coverage };
    let ask = Ask { party, left_behind: &CpuMask::EMPTY, left_before: false, generation: 1, gather_interrupted: false };
    match S::decide(&view, &ask) {
        Decision::Elide(_) => Vec::new(),
        Decision::Interrupt(targets) => targets.iter().map(|cpu| cpu.0).collect(),
        other => panic!("{other:?}"),
    }
}

use LoadedMm::{Lazy, Mm, None as Nothing, Unknown};

#[test]
fn any_mm_interrupts_who_may_walk_and_nobody_else() {
    assert_eq!(targets::<any_mm::AnyMm>(&[Mm(1), Mm(1), Mm(2), Lazy(1), Nothing, Unknown], &[0]), [1, 2, 5]);
    assert_eq!(targets::<any_mm::AnyMm>(&[Mm(1), Lazy(1), Nothing], &[0]), []);
}

#[test]
fn who_acknowledged_the_flush_is_not_interrupted_again() {
    assert_eq!(targets::<any_mm::AnyMm>(&[Mm(1), Mm(1), Mm(1)], &[0, 1]), [2]);
    assert_eq!(targets::<this_mm::ThisMm>(&[Mm(1), Mm(1), Mm(1)], &[0, 1, 2]), []);
}

#[test]
fn this_mm_forgets_walkers_of_an_mm_that_left_earlier() {
    let walkers_of_the_former = [Mm(1), Mm(2), Mm(2)];
    assert_eq!(targets::<any_mm::AnyMm>(&walkers_of_the_former, &[0]), [1, 2]);
    assert_eq!(targets::<this_mm::ThisMm>(&walkers_of_the_former, &[0]), []);
}

static ANY_MM: Entry<Tagged> = Entry::of::<any_mm::AnyMm>();

/// A whole collapse on the host's machine, whose flushes are broadcast, under a strategy that the core has never heard
/// of. Returns sync interrupts and elisions.
fn collapse(other_has_it_loaded: bool) -> (u64, u64) {
    let world = World::<Tagged>::new(2, 4096);
    let (transport, walker) = (TransportId::Broadcast, WalkerClass::Gup);
    world.machine().policy.set(&ANY_MM, Setting { transport, hook: false, chain: false, batch: false, walker });
    let (cpu, at) = (world.cpu(0), VirtAddr(0x4000_0000));
    let mm = address_space::Mm::new(cpu, 0).expect("memory suffices");
    let range = at..at.add(PMD_SIZE);
    mm.map(range.clone(), Perm::WRITE, Backing::Anon).expect("nothing is there");
    fault::populate(cpu, &mm, range).expect("memory suffices");
    switch::load(cpu, &mm);
    if other_has_it_loaded {
        world.on(1, || switch::load(world.cpu(1), &mm));
    }
    collapse_anon(cpu, &mm, at).expect("nobody else uses the pages");
    let counts = cpu.ledger.snapshot();
    if other_has_it_loaded {
        world.on(1, || switch::unload(world.cpu(1)));
    }
    exit::exit(cpu, mm);
    world.settle();
    assert_eq!(world.violations(), 0);
    (counts.sync_ipis, counts.syncs_elided)
}

#[test]
fn a_strategy_from_outside_runs() {
    assert_eq!(collapse(true), (1, 0));
    assert_eq!(collapse(false), (0, 1));
}
