//! Which mm each CPU translates by, and the order in which it changes.
//!
//! The mask of an mm (`mm_cpumask`) names every CPU that may hold translations of it, or that may be about to. A flush
//! reads it after the entries were changed; a CPU that loads the mm must therefore either be in the mask by then, or
//! see the change:
//!
//! - a CPU loading an mm says *switching*, enters the mask, then reads the flush generation and loads the root;
//! - a flush changes the entries, increments the generation, then reads the mask.
//!
//! Entering the mask and incrementing the generation are read-modify-writes followed by a full fence on both sides, so
//! at least one of the two sees the other. A CPU leaves a mask only itself, with interrupts masked, and after it holds
//! no translation of the mm any more.
//!
//! An idle CPU may keep the last mm loaded (*lazy*): it walks nothing in software, but its hardware still may,
//! speculatively. A flush of pages skips it; a flush of tables must not.

use crate::arch::{Arch, Asid};
use crate::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use crate::mm::address_space::Mm;
use crate::pause;
use crate::record::event::EventKind;
use crate::smp::cpu::Cpu;
use crate::smp::irq;
use crate::tlb::tag;

/// Shown while a CPU changes over: it may hold translations of the old mm and of the new one.
pub const SWITCHING: u32 = u32::MAX;
/// Shown while no mm is loaded.
pub const NO_MM: u32 = 0;

/// What a CPU shows of its MMU.
#[derive(Default)]
pub struct Loaded {
    /// The id of the mm that is loaded, [`NO_MM`] or [`SWITCHING`].
    mm: AtomicU32,
    /// The mm is loaded but not used.
    lazy: AtomicBool,
    /// The flush generation of the mm when it was loaded, or that the last flush here brought it to.
    generation: AtomicU64,
    /// The id of the mm that is being loaded, until it is unloaded.
    loading: AtomicU32,
    /// The mm itself; valid while `mm` names it. Only its own CPU follows it.
    pointer: AtomicUsize,
}

impl Loaded {
    /// The id of the mm that is loaded, [`NO_MM`] or [`SWITCHING`].
    #[inline]
    pub fn mm(&self) -> u32 {
        // Acquire: pairs with the release in `load`; a flush reads it after its own full fence.
        self.mm.load(Ordering::Acquire)
    }

    /// Whether the mm is loaded but not used.
    #[inline]
    pub fn is_lazy(&self) -> bool {
        // Acquire: pairs with the release in `become_lazy`; who leaves a lazy CPU out of a sync is behind its last
        // walk.
        self.lazy.load(Ordering::Acquire)
    }

    /// The flush generation that this CPU has caught up with.
    #[inline]
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Relaxed)
    }

    /// Whether the CPU may translate by `mm`: it has it loaded, is loading it, or has not finished leaving it. Asked
    /// behind a full fence that follows the mark in [`super::tag`].
    #[inline]
    pub(crate) fn may_translate<A: Arch>(&self, mm: &Mm<A>) -> bool {
        // In this order, which is that of a switch: who leaves an mm loads another root first.
        self.loading.load(Ordering::Relaxed) == mm.id
            || self.mm() == mm.id
            || self.pointer.load(Ordering::Relaxed) == mm as *const Mm<A> as usize
    }

    /// This CPU has caught up with `generation`.
    #[inline]
    pub(super) fn set_generation(&self, generation: u64) {
        self.generation.store(generation, Ordering::Relaxed);
    }
}

/// Loads `mm` on this CPU, which may walk it from then on. The caller keeps the mm alive until it is unloaded.
pub fn load<A: Arch>(cpu: &'static Cpu<A>, mm: &Mm<A>) {
    loop {
        tag::ensure(cpu, mm);
        let enabled = irq::mask(cpu);
        let done = try_load(cpu, mm);
        irq::unmask(cpu, enabled);
        if done {
            return;
        }
    }
}

/// The same with interrupts masked, and without any wait. False, and another mm is loaded as before, if there is no tag
/// for it just now.
pub(crate) fn try_load<A: Arch>(cpu: &'static Cpu<A>, mm: &Mm<A>) -> bool {
    let loaded = &cpu.loaded;
    if loaded.mm.load(Ordering::Relaxed) == mm.id {
        if loaded.lazy.swap(false, Ordering::Relaxed) {
            // Full: no longer lazy, then read the generation. Pairs with the fence in `begin_flush`; a flush that saw
            // this CPU lazy and skipped it had incremented the generation before.
            A::fence();
            let generation = mm.flush_generation();
            if loaded.generation() < generation {
                if A::tagged() {
                    cpu.ledger.recorded.alone();
                    // Loading a root drops nothing that is tagged.
                    let n = A::invalidate_local(mm.asid(), &super::invalidation::Invalidation::ALL);
                    cpu.ledger.invalidations.add(n.into());
                } else {
                    // SAFETY: the caller keeps the mm alive; interrupts are masked.
                    unsafe { A::load_root(mm.root.addr(), mm.asid()) };
                }
                loaded.set_generation(generation);
            }
        }
        return true;
    }
    let previous = loaded.mm.load(Ordering::Relaxed);
    loaded.loading.store(mm.id, Ordering::Relaxed);
    // Relaxed: whoever sees it takes the CPU for one that walks.
    loaded.mm.store(SWITCHING, Ordering::Relaxed);
    pause!(cpu, Switching);
    let was_in = mm.mask.insert(cpu.id, Ordering::Relaxed);
    pause!(cpu, AfterMaskInsert);
    // Full: entered the mask, then read the generation and (by hardware) the entries. Pairs with the fence in
    // `begin_flush`. Said what is loaded, then look at its tag: pairs with the fence in `tag::take`.
    A::fence();
    if A::tagged() && !mm.tag.is_usable() {
        // Somebody takes its tag away just now.
        loaded.loading.store(NO_MM, Ordering::Relaxed);
        // Relaxed: whoever saw it before sees what was before.
        loaded.mm.store(previous, Ordering::Relaxed);
        return false;
    }
    catch_up(cpu);
    let generation = mm.flush_generation();
    // SAFETY: the caller keeps the mm, and with it the root, alive until it is unloaded; interrupts are masked.
    unsafe { A::load_root(mm.root.addr(), mm.asid()) };
    if A::tagged() && was_in && A::machine().policy.transport().interrupts() {
        // Tagged translations from an earlier stay are still here. A flush whose interrupt is on its way has this
        // generation already, so its handler will take this CPU for caught up: they go now.
        cpu.ledger.recorded.alone();
        let n = A::invalidate_local(mm.asid(), &super::invalidation::Invalidation::ALL);
        cpu.ledger.invalidations.add(n.into());
    }
    pause!(cpu, AfterRootLoad);
    if previous != NO_MM && !A::tagged() {
        leave(cpu);
    }
    loaded.pointer.store(mm as *const Mm<A> as usize, Ordering::Relaxed);
    loaded.set_generation(generation);
    loaded.lazy.store(false, Ordering::Relaxed);
    // Release: whoever sees the mm here sees the state above.
    loaded.mm.store(mm.id, Ordering::Release);
    cpu.events.write(EventKind::Switch, mm.id, 0, 0);
    true
}

/// Unloads mm number `id`, if that is what is loaded: who asks for it cannot know what this CPU has loaded by now, and
/// uses.
pub(crate) fn unload_if<A: Arch>(cpu: &'static Cpu<A>, id: u32) {
    if cpu.loaded.mm() == id {
        unload(cpu);
    }
}

/// Unloads whatever mm is loaded. Where translations are not tagged, none of it is left.
pub fn unload<A: Arch>(cpu: &'static Cpu<A>) {
    let enabled = irq::mask(cpu);
    if cpu.loaded.mm.load(Ordering::Relaxed) != NO_MM {
        // Relaxed: as in `load`.
        cpu.loaded.mm.store(SWITCHING, Ordering::Relaxed);
        if A::tagged() {
            // Full: shown as switching, then read the generation. Pairs with the fence in `begin_flush`: see `catch_up`
            // (tests/litmus/lazy-flush).
            A::fence();
            catch_up(cpu);
        }
        // SAFETY: interrupts are masked.
        unsafe { A::load_kernel_root() };
        if !A::tagged() {
            leave(cpu);
        }
        cpu.loaded.lazy.store(false, Ordering::Relaxed);
        cpu.loaded.mm.store(NO_MM, Ordering::Release);
        cpu.loaded.pointer.store(0, Ordering::Relaxed);
        cpu.loaded.loading.store(NO_MM, Ordering::Relaxed);
    }
    irq::unmask(cpu, enabled);
}

/// Tagged translations outlive a switch. If flushes of the mm that is being unloaded were skipped here because it was
/// lazy, they are made up for now: when it is loaded again nobody knows. The CPU shows [`SWITCHING`] and has had a full
/// fence since, so a flush that is not seen here does not skip it. Pairs with `begin_flush`.
fn catch_up<A: Arch>(cpu: &Cpu<A>) {
    let pointer = cpu.loaded.pointer.load(Ordering::Relaxed) as *const Mm<A>;
    if !A::tagged() || !cpu.loaded.is_lazy() || pointer.is_null() {
        return;
    }
    // SAFETY: the mm named here is alive until this CPU has unloaded it, which it is doing just now.
    let mm = unsafe { &*pointer };
    if cpu.loaded.generation() < mm.flush_generation() {
        cpu.ledger.recorded.alone();
        let n = A::invalidate_local(mm.asid(), &super::invalidation::Invalidation::ALL);
        cpu.ledger.invalidations.add(n.into());
    }
}

/// Leaves the mask of the mm that was loaded; none of its translations is left here. Where translations are tagged, a
/// CPU stays in the mask when it switches away (its TLB keeps them) and leaves it in [`flushed_all`].
fn leave<A: Arch>(cpu: &Cpu<A>) {
    let pointer = cpu.loaded.pointer.load(Ordering::Relaxed) as *const Mm<A>;
    if pointer.is_null() {
        return;
    }
    // SAFETY: the mm named here is alive until this CPU has unloaded it, which it is doing just now.
    unsafe { &*pointer }.mask.remove(cpu.id, Ordering::Release);
}

/// Keeps the loaded mm, unused.
pub fn become_lazy<A: Arch>(cpu: &Cpu<A>) {
    // Release: pairs with `Loaded::is_lazy`.
    cpu.loaded.lazy.store(true, Ordering::Release);
}

/// A flush begins: entries were changed before, the mask and other CPUs' states are read after. Returns the new
/// generation.
pub(super) fn begin_flush<A: Arch>(mm: &Mm<A>) -> u64 {
    let generation = mm.next_flush_generation();
    // Full: changed the entries and the generation, then read the mask and what CPUs have loaded. Pairs with the fences
    // in `load`.
    A::fence();
    pause!(A::this_cpu(), AfterGeneration);
    generation
}

/// In the handler of a flush that took everything of an mm that is not loaded here: the CPU leaves the mask.
pub(super) fn flushed_all<A: Arch>(cpu: &Cpu<A>, mm: &Mm<A>) {
    debug_assert!(cpu.loaded.mm() != mm.id);
    // Release: as in `leave`; nothing is read through its translations after this (tests/litmus/walk-end).
    mm.mask.remove(cpu.id, Ordering::Release);
}

/// What a flush does on a CPU, its own or in a handler, with interrupts masked.
pub(super) fn invalidate_here<A: Arch>(cpu: &'static Cpu<A>, mm: &Mm<A>, flush: &super::transport::Flush) {
    let (loaded, recorded) = (&cpu.loaded, &cpu.ledger.recorded);
    if loaded.mm() != mm.id {
        recorded.not_made::<A>(&flush.what);
        // Switched away meanwhile, or the mask bit is old. Tagged translations may still be here.
        if A::tagged() {
            recorded.alone();
            let n = A::invalidate_local(mm.asid(), &super::invalidation::Invalidation::ALL);
            cpu.ledger.invalidations.add(n.into());
        }
        flushed_all(cpu, mm);
        return;
    }
    if loaded.is_lazy() && flush.what.tables {
        recorded.not_made::<A>(&flush.what);
        unload(cpu);
        if A::tagged() {
            recorded.alone();
            let n = A::invalidate_local(mm.asid(), &super::invalidation::Invalidation::ALL);
            cpu.ledger.invalidations.add(n.into());
            flushed_all(cpu, mm);
        }
        return;
    }
    let generation = loaded.generation();
    if generation >= flush.generation {
        recorded.not_made::<A>(&flush.what);
        return;
    }
    // A flush in between was skipped here (lazy): one range is not enough.
    let behind = generation + 1 < flush.generation;
    if behind {
        recorded.not_made::<A>(&flush.what);
        recorded.alone();
    }
    let what = if behind { &super::invalidation::Invalidation::ALL } else { &flush.what };
    let n = A::invalidate_local(mm.asid(), what);
    cpu.ledger.invalidations.add(n.into());
    loaded.set_generation(flush.generation);
}

/// A frozen CPU resumes and owes a flush: everything of the mm that is loaded goes. Interrupts are masked.
pub(super) fn flush_on_resume<A: Arch>(cpu: &Cpu<A>) {
    let pointer = cpu.loaded.pointer.load(Ordering::Relaxed) as *const Mm<A>;
    if !matches!(cpu.loaded.mm(), NO_MM | SWITCHING) && !pointer.is_null() {
        // SAFETY: the mm that this CPU has loaded is alive until it unloads it.
        let mm = unsafe { &*pointer };
        let generation = mm.flush_generation();
        let n = A::invalidate_local(mm.asid(), &super::invalidation::Invalidation::ALL);
        cpu.ledger.invalidations.add(n.into());
        cpu.loaded.set_generation(generation);
    }
}

/// The tag of translations that belong to no mm.
pub const KERNEL_ASID: Asid = Asid(0);
