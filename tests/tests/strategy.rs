//! Strategies from outside the core's own list: those of `docs/write-a-strategy.md`, word for word.

#[allow(unreachable_pub)]
#[path = "../strategies/any_mm.rs"]
mod any_mm;
#[allow(unreachable_pub)]
#[path = "../strategies/this_mm.rs"]
mod this_mm;

use kernel::addr::CpuId;
use kernel::arch::Arch;
use kernel::smp::mask::CpuMask;
use kernel::sync::{Ask, Decision, Entry, LoadedMm, Party, Strategy, View};
use kernel::tlb::coverage::Coverage;
use kernel::tlb::transport::TransportId;

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

/// A run takes any entry, of the core's list or not ([`kernel::machine::Policy::set`]). That one can be made of these for every machine is for the compiler to check.
#[allow(dead_code)]
fn entries<A: Arch>() -> [Entry<A>; 2] {
    [Entry::of::<any_mm::AnyMm>(), Entry::of::<this_mm::ThisMm>()]
}
