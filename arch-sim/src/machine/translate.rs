//! How a simulated CPU translates, and what an invalidation for all CPUs is: the hardware behind [`Sim`].
//!
//! By a seed, a translation comes from the TLB or from a walk. Directed, everything that could be cached is, and the
//! MMU may use any of it or walk anew ([`super::prove`] tries each way): so neither a stale translation nor its absence
//! hides anything.

use std::sync::atomic::AtomicU64;

use kernel::addr::{PhysAddr, VirtAddr};
use kernel::arch::{Arch, Asid, UserFault};
use kernel::atomic::Word;
use kernel::tlb::invalidation::Invalidation;

use super::arch::Sim;
use super::direction;
use super::hardware::Conflict;
use super::mmu::Leaf;
use super::world::{TRANSLATIONS, world};
use crate::explore::hub::Access;

impl<const TAGGED: bool> Sim<TAGGED> {
    /// The translation of `va`, from the TLB or by a walk.
    pub(super) fn translate(va: VirtAddr, write: bool) -> Result<PhysAddr, UserFault> {
        let world = world();
        world.note(va);
        if world.direction.is_some() {
            return Self::one_way(va, write).ok_or(UserFault);
        }
        let from_cache = world.choose(2) == 0;
        let mut mmu = world.core().mmu.borrow_mut();
        if let Some((one, other)) = mmu.conflict(va) {
            world.findings.borrow_mut().push(format!(
                "cpu{} uses {va}, for which two translations are cached, to {one} and {other}: an entry was made before the old one was broken",
                world.current.get()
            ));
            let mixture = PhysAddr(one.0 | other.0);
            let outcomes = [Some(one), Some(other), Some(mixture).filter(|pa| world.is_ram(*pa)), None];
            let among = if world.hardware.conflict == Conflict::Any { 4 } else { 2 };
            return outcomes[world.choose(among) as usize].ok_or(UserFault);
        }
        let allowed = |leaf: &Leaf| leaf.write || !write;
        let cached = mmu.cached(va).find(allowed);
        let leaf = cached.or_else(|| mmu.walk(va, from_cache, |pa| world.read_if_ram(pa)).filter(allowed));
        let leaf = leaf.ok_or(UserFault)?;
        if cached.is_none() || write && !leaf.dirty {
            if !world.mark_used(leaf.slot, write) {
                return Err(UserFault);
            }
            if write {
                mmu.dirtied(leaf);
            }
        }
        Ok(leaf.leads(va))
    }

    /// Where interleavings are directed every translation that could be cached is, and the MMU may use any of them, or
    /// walk: which, is one of the choices.
    fn one_way(va: VirtAddr, write: bool) -> Option<PhysAddr> {
        let world = world();
        let core = world.core();
        let mut mmu = core.mmu.borrow_mut();
        let walked = mmu.walk(va, false, |pa| world.read_if_ram(pa));
        let mut ways = vec![walked];
        for leaf in mmu.cached(va) {
            if !ways.iter().any(|way| way.is_some_and(|way| way.leads(va) == leaf.leads(va) && (way.dirty || !write))) {
                ways.push(Some(leaf));
            }
        }
        let leaf = ways[world.way(ways.len())].filter(|leaf| leaf.write || !write)?;
        if write && !leaf.dirty {
            if !world.mark_used(leaf.slot, true) {
                return None;
            }
            mmu.dirtied(leaf);
        }
        Some(leaf.leads(va)).filter(|pa| world.is_ram(*pa))
    }

    /// Sends an invalidation to all, and waits until it, and all before it, have arrived if `completes`.
    pub(super) fn broadcast(asid: Asid, what: &Invalidation, completes: bool) {
        if world().translates.get() {
            Self::point(Access::Mark(TRANSLATIONS, true));
        }
        Self::hardware_point();
        let world = world();
        world.note(what.start);
        for (i, core) in world.cores.iter().enumerate() {
            if world.hardware.shareable || i == world.current.get() {
                core.mmu.borrow_mut().arriving.push((asid.0, *what));
            }
        }
        if world.direction.is_some() {
            // What arrives late is worse than what arrives early: it comes when it is waited for, or never.
            world.fill();
            for core in world.cores.iter().filter(|_| completes || !world.hardware.parts.late) {
                let mut mmu = core.mmu.borrow_mut();
                for (asid, what) in std::mem::take(&mut mmu.arriving) {
                    mmu.invalidate(asid, &what, &world.hardware);
                }
            }
            return;
        }
        while completes && world.cores.iter().any(|core| !core.mmu.borrow().arriving.is_empty()) {
            Self::relax();
        }
    }

    /// A place where the MMU is about to translate `va` for a program.
    pub(super) fn translation_point(va: VirtAddr, write: bool) {
        let core = world().core();
        core.probing.set(Some((va, write)));
        Self::point(Access::Pause);
        core.probing.set(None);
    }

    /// An entry is replaced by a load and a plain store.
    pub(super) fn replace_plainly(slot: &AtomicU64, raw: u64) -> u64 {
        let old = Self::load_entry(slot);
        Self::point(Access::Store(std::ptr::from_ref(slot) as usize));
        world().judge_plain_store(slot, old, raw);
        direction::write(Word::U64(slot), raw);
        old
    }
}
