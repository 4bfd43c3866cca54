//! `targeted-xchg`: as [`super::targeted`], but the walk is published by one exchange instead of a store and a full
//! barrier, as the review of v4 proposed.
//!
//! The exchange is acquire and release in one instruction: `XCHG` on x86_64, `SWPAL` on aarch64. Both keep it before
//! every later load, which the language does not promise of an AcqRel read-modify-write (loom shows that;
//! `tests/litmus` shows that the two architectures do). `SWP`, `SWPA` or `SWPL` would not do.

use core::sync::atomic::Ordering;

use super::{Ask, Decision, LookBarrier, Predicted, Publication, Round, Setting, Strategy, View, targeted};
use crate::arch::Arch;
use crate::mm::address_space::Mm;
use crate::record::cell::Verdict;
use crate::smp::cpu::Cpu;

/// Interrupt who may walk the table.
pub struct TargetedXchg;

impl Strategy for TargetedXchg {
    const NAME: &'static str = "targeted-xchg";
    const ABOUT: &'static str = "as targeted, published by one exchange instead of a store and a barrier";
    const PUBLISHES: Publication = Publication::Exchange;
    const RESTORES: bool = true;

    fn promises(setting: Setting) -> Verdict {
        targeted::promises(setting)
    }

    fn predicts(round: &Round) -> Option<Predicted> {
        targeted::predicts(round)
    }

    #[inline(always)]
    fn walk_begin<A: Arch>(cpu: &Cpu<A>, mm: &Mm<A>) -> u64 {
        let outer = cpu.walk_slot.0.load(Ordering::Relaxed);
        // AcqRel, one instruction: pairs with the fence in `targeted::decide`, see the head of this file
        // (tests/litmus/exchange-scan).
        cpu.walk_slot.0.swap(targeted::inside(outer, mm.id), Ordering::AcqRel);
        outer
    }

    #[inline(always)]
    fn walk_end<A: Arch>(cpu: &Cpu<A>, outer: u64) {
        // Release: pairs with the acquire of `View::slot` (tests/litmus/walk-end).
        cpu.walk_slot.0.store(outer, Ordering::Release);
    }

    #[inline(always)]
    fn look_barrier() -> Option<LookBarrier> {
        Some(targeted::look_barrier())
    }

    fn decide(view: &dyn View, ask: &Ask<'_>) -> Decision {
        targeted::decide(view, ask)
    }
}
