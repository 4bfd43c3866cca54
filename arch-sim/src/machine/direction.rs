//! Where the interleaving of an execution is decided from outside: each CPU stops before each access that others can
//! notice, says what it is, and goes on when it is told to.
//!
//! The accesses are those of the boundary ([`kernel::arch::Arch`]) and those of the kernel's own atomics
//! ([`kernel::atomic::observed`]). What lies between two of them touches words of one CPU alone, or what a lock
//! protects. Stores go through the CPU's store buffer where the machine has them.

use std::cell::{Cell, RefCell};
use std::panic::Location;
use std::sync::atomic::Ordering;

use kernel::arch::Arch;
use kernel::atomic::{Observer, Word};
use kernel::smp::cpu::Cpu;
use kernel::tlb::transport::paravirt;
use kernel::upcall;

use super::arch::Sim;
use super::hardware::Conflict;
use super::world::{RAM_BYTES, world};
use crate::explore::Object;
use crate::explore::hub::{Access, Hub, Kind};

/// What directs, and what it needs to know.
pub(super) struct Direction {
    /// The CPUs, as processes.
    pub(super) hub: RefCell<Hub<Word<'static>>>,
    /// Accesses stop from now on; before, while everything is being set up, they do not.
    pub(super) live: Cell<bool>,
}

/// Makes the accesses of the kernel's atomics.
pub(super) struct Accesses<const TAGGED: bool>;

impl<const TAGGED: bool> Observer for Accesses<TAGGED> {
    fn load(&self, word: Word<'_>, _at: &'static Location<'static>) -> u64 {
        load::<TAGGED>(word)
    }

    fn store(&self, word: Word<'_>, value: u64, order: Ordering, _at: &'static Location<'static>) {
        match order {
            // As the two architectures do it, no later load passes it.
            Ordering::SeqCst => {
                update::<TAGGED>(word, &mut |_| Some(value));
            }
            _ => store::<TAGGED>(word, value),
        }
    }

    fn update(
        &self,
        word: Word<'_>,
        change: &mut dyn FnMut(u64) -> Option<u64>,
        _at: &'static Location<'static>,
    ) -> u64 {
        update::<TAGGED>(word, change)
    }

    fn mark(&self, notes: usize, changed: bool) {
        direction().stop_before::<TAGGED>(Access::Mark(notes, changed));
    }
}

fn direction() -> &'static Direction {
    world().direction.as_ref().expect("the execution is directed")
}

fn object(word: Word<'_>) -> Object {
    word.address()
}

/// What an oracle looks at: no access of the machine.
pub(super) fn unseen<R>(look: impl FnOnce() -> R) -> R {
    let live = world().direction.as_ref().map(|direction| direction.live.replace(false));
    let result = look();
    if let (Some(direction), Some(live)) = (&world().direction, live) {
        direction.live.set(live);
    }
    result
}

/// A load by the CPU that runs.
pub(super) fn load<const TAGGED: bool>(word: Word<'_>) -> u64 {
    let direction = direction();
    direction.stop_before::<TAGGED>(Access::Load(object(word)));
    let forwarded = direction.hub.borrow().forwarded(world().current.get(), object(word));
    forwarded.filter(|_| direction.live.get()).unwrap_or_else(|| word.read())
}

/// A store by the CPU that runs.
pub(super) fn store<const TAGGED: bool>(word: Word<'_>, value: u64) {
    let direction = direction();
    direction.stop_before::<TAGGED>(Access::Store(object(word)));
    // SAFETY: a word of the kernel's, in memory that is kept until the execution is over, its buffers included.
    let kept = unsafe { std::mem::transmute::<Word<'_>, Word<'static>>(word) };
    let buffered =
        direction.live.get() && direction.hub.borrow_mut().store(world().current.get(), object(word), kept, value);
    if !buffered {
        if let Word::U64(slot) = word
            && !world().hardware.preset
            && direction.live.get()
        {
            world().judge_plain_store(slot, 0, value);
        }
        write(word, value);
    }
}

/// A read-modify-write by the CPU that runs.
pub(super) fn update<const TAGGED: bool>(word: Word<'_>, change: &mut dyn FnMut(u64) -> Option<u64>) -> u64 {
    direction().stop_before::<TAGGED>(Access::Update(object(word)));
    let was = word.read();
    if let Some(value) = change(was) {
        write(word, value);
    }
    was
}

/// Memory has `value` from now on. Where it is an entry of a table, caches take what was there before.
pub(super) fn write(word: Word<'_>, value: u64) {
    let world = world();
    if (world.ram as usize..world.ram as usize + RAM_BYTES).contains(&word.address()) {
        world.fill();
    }
    word.write(value);
}

impl Direction {
    /// The CPU that runs stops, says what it is about to do, and runs handlers until it may do that.
    pub(super) fn stop_before<const TAGGED: bool>(&self, next: Access) {
        if self.live.get() && !kernel::atomic::observed::is_observed() {
            // An oracle looks: no access of the machine.
            return;
        }
        if !self.live.get() {
            assert!(next != Access::Wait, "nobody can be waited for while everything is being set up");
            return;
        }
        let world = world();
        let index = world.current.get();
        loop {
            self.hub.borrow_mut().announce(index, next);
            world.suspend();
            match world.cores[index].handler.take() {
                None => return,
                Some(kind) => {
                    handle::<TAGGED>(kind);
                    self.hub.borrow_mut().handler_done(index);
                }
            }
        }
    }
}

/// Whether CPU `i` makes good a flush before it runs anything else: it is frozen and owes one, or has begun to. What it
/// has cached until then nobody uses.
pub(super) fn uses_nothing_cached<const TAGGED: bool>(i: usize, cpu: &Cpu<Sim<TAGGED>>) -> bool {
    // With nothing to make good a resumed CPU is done as soon as it says that it runs.
    let making_good = world().cores[i].resuming.get();
    unseen(|| cpu.vcpu.owes_a_flush() || making_good && !cpu.vcpu.owes_nothing_frozen())
}

impl Direction {
    /// Whether two translations of an address are cached on a CPU that is neither lazy nor frozen: both catch up before
    /// they translate.
    pub(super) fn judge_conflicts<const TAGGED: bool>(&self) {
        let world = world();
        if world.hardware.conflict != Conflict::Any || !world.findings.borrow().is_empty() {
            return;
        }
        for i in 0..world.cores.len() {
            let Some((va, one, other)) = world.conflict(i) else { continue };
            let cpu = Sim::<TAGGED>::cpu_number(i);
            if !uses_nothing_cached(i, cpu) && !unseen(|| cpu.loaded.is_lazy()) {
                world.findings.borrow_mut().push(format!(
                    "cpu{i} has two translations of {va}, to {one} and {other}: an entry was made before the old one was broken"
                ));
            }
        }
    }
}

/// What an interruption makes the CPU run.
fn handle<const TAGGED: bool>(kind: Kind) {
    let core = world().core();
    let masked = core.masked.replace(true);
    match kind {
        Kind::Interrupt => upcall::call::<Sim<TAGGED>>(),
        Kind::Nmi => {
            upcall::nmi::<Sim<TAGGED>>();
            if let Some((also, with)) = world().also_in_nmi.get() {
                also(with);
            }
        }
        Kind::Freeze => {
            let cpu = Sim::<TAGGED>::this_cpu();
            paravirt::freeze(cpu);
            direction().stop_before::<TAGGED>(Access::Thaw);
            core.resuming.set(true);
            paravirt::resume(cpu);
            core.resuming.set(false);
        }
        Kind::Program | Kind::Buffer => unreachable!("these interrupt nothing"),
    }
    core.masked.set(masked);
}
