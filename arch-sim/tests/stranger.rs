//! Strategies that the kernel's list has never heard of, judged by the model: they say themselves how their walks show.

use arch_sim::matrix::{Bounds, Round, cell};
use arch_sim::model::scenario::Operation;
use arch_sim::model::strategies::Listed;
use kernel::arch::Arch;
use kernel::ledger::Elision;
use kernel::mm::address_space::Mm;
use kernel::record::cell::Verdict;
use kernel::smp::cpu::Cpu;
use kernel::smp::mask::CpuMask;
use kernel::sync::{Ask, Decision, Publication, Setting, Strategy, View};
use kernel::tlb::transport::TransportId;
use kernel::workload::walker::WalkerClass;

#[allow(unreachable_pub)]
#[path = "../../tests/strategies/any_mm.rs"]
mod any_mm;
#[allow(unreachable_pub)]
#[path = "../../tests/strategies/this_mm.rs"]
mod this_mm;

/// Interrupts whoever shows a walk of anything, and shows it by a store that nothing orders; or by one and a barrier.
struct Shown<const FENCED: bool>;

impl<const FENCED: bool> Strategy for Shown<FENCED> {
    const NAME: &'static str = "shown";
    const ABOUT: &'static str = "interrupt the CPUs that show a walk";
    const PUBLISHES: Publication = if FENCED { Publication::StoreFence } else { Publication::Store };

    fn promises(_setting: Setting) -> Verdict {
        Verdict::Safe
    }

    fn walk_begin<A: Arch>(cpu: &Cpu<A>, mm: &Mm<A>) -> u64 {
        cpu.walk_slot.0.store(mm.id.into(), kernel::atomic::Ordering::Relaxed);
        if FENCED {
            A::fence();
        }
        0
    }

    fn walk_end<A: Arch>(cpu: &Cpu<A>, _outer: u64) {
        cpu.walk_slot.0.store(0, kernel::atomic::Ordering::Release);
    }

    fn decide(view: &dyn View, _ask: &Ask<'_>) -> Decision {
        view.fence();
        let targets: CpuMask = view.online().iter().filter(|cpu| view.slot(*cpu) != 0).collect();
        if targets.is_empty() { Decision::Elide(Elision::NoWalker) } else { Decision::Interrupt(targets) }
    }
}

fn found<S: Strategy>(operation: Operation) -> Verdict {
    let bounds = Bounds { rounds: vec![Round { cpus: 2, moves: true }], ..Bounds::default() };
    cell(&Listed::of::<S>(), TransportId::Broadcast, operation, WalkerClass::Gup, &bounds).found
}

#[test]
fn what_a_walk_shows_is_the_strategys_own_word() {
    assert_eq!(found::<Shown<true>>(Operation::Collapse), Verdict::Safe);
    assert_eq!(found::<Shown<false>>(Operation::Collapse), Verdict::Unsafe);
}

/// The two of `docs/write-a-strategy.md`: the second forgets the walkers of whoever left earlier.
#[test]
fn the_two_of_the_book() {
    assert_eq!(found::<any_mm::AnyMm>(Operation::Collapse), Verdict::Safe);
    assert_eq!(found::<any_mm::AnyMm>(Operation::UnshareThree), Verdict::Safe);
    assert_eq!(found::<this_mm::ThisMm>(Operation::Collapse), Verdict::Safe);
    assert_eq!(found::<this_mm::ThisMm>(Operation::UnshareThree), Verdict::Unsafe);
}
