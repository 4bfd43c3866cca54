//! Tags: what the translations of an mm are told apart by (ASID, PCID), of which there are fewer than mms.
//!
//! An mm gets a tag when it is made, or, if there is none left then, when it is loaded; it keeps the tag until it ends,
//! or until another mm has to be loaded and there is none left. Then one is taken from an mm that no CPU has loaded:
//! marked as taken, looked for on all CPUs, flushed everywhere, given away. Two things must be so:
//!
//! - **Nobody translates by a tag that is taken.** A CPU that loads an mm says which, enters its mask, passes a full
//!   barrier, and then looks at the mm's tag; if it is marked, or gone, the CPU takes back what it said and asks for
//!   one. Whoever takes a tag marks it, passes a full barrier, and then looks who has the mm loaded, is loading it, or
//!   has not finished leaving it; if anybody, the mark goes and the mm keeps its tag. So at least one of the two sees
//!   the other.
//! - **Nothing of one mm is cached under the tag of another.** A tag that is taken is flushed on every CPU of the mm's
//!   mask before it is given. One that comes back from an mm that ended was flushed when that ended
//!   ([`crate::mm::exit`]).
//!
//! An mm has one tag: two CPUs that load one at the same time, when it has none, ask under one lock, and the second
//! finds what the first has given (guard `TagOnce`). By another tag a CPU would keep what no flush of the mm names.
//!
//! While it is marked an mm still has its tag, for flushes: whoever changes its entries meanwhile flushes under it.
//! When it has none there is nothing to flush.
//!
//! Linux does the same all at once, when its numbers run over (arm64: `new_context` in `mm/context.c`, whose model by
//! Catalin Marinas is `asidalloc.tla`); taking one at a time needs no generation in every switch.

use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;

use crate::arch::{Arch, Asid};
use crate::atomic::{AtomicU32, Ordering};
use crate::guard;
use crate::ledger::Cause;
use crate::mm::address_space::Mm;
use crate::record::shared::Doing;
use crate::smp::call::call_many;
use crate::smp::cpu::Cpu;
use crate::smp::irq;
use crate::smp::wait::Wait;
use crate::tlb::invalidation::Invalidation;

/// The tag of translations that belong to no mm; an mm that has it has none.
pub const NO_TAG: u32 = 0;
/// Set while somebody tries to take the tag away.
const TAKEN: u32 = 1 << 16;

/// The tag of one mm.
#[derive(Default)]
pub struct Tag(AtomicU32);

impl Tag {
    /// What translations are tagged with; the kernel's tag where there is none.
    #[inline(always)]
    pub fn asid(&self) -> Asid {
        Asid(self.0.load(Ordering::Relaxed) as u16)
    }

    /// Whether a CPU that has said that it loads the mm, and passed a full barrier since, may translate by it. Pairs
    /// with the fence in `take`.
    #[inline(always)]
    pub fn is_usable(&self) -> bool {
        let raw = self.0.load(Ordering::Relaxed);
        raw != NO_TAG && raw & TAKEN == 0
    }
}

/// All tags, and who has them.
pub struct Tags<A: Arch> {
    limit: u32,
    /// By tag, from 1 on: the mm that has it.
    holders: Vec<Weak<Mm<A>>>,
    /// Tags that came back, flushed everywhere.
    free: Vec<u32>,
    /// Where the search for one that can be taken begins.
    next: usize,
}

impl<A: Arch> Tags<A> {
    /// All of `limit` tags free but the kernel's.
    pub const fn new(limit: u32) -> Tags<A> {
        Tags { limit, holders: Vec::new(), free: Vec::new(), next: 0 }
    }

    /// Gives `mm` a tag, if there is one.
    pub(crate) fn give(&mut self, mm: &Arc<Mm<A>>) {
        if self.limit <= 1 {
            return;
        }
        let tag = match self.free.pop() {
            Some(tag) => tag,
            None if (self.holders.len() as u32) < self.limit - 1 => {
                self.holders.push(Weak::new());
                self.holders.len() as u32
            }
            None => return,
        };
        self.holders[tag as usize - 1] = Arc::downgrade(mm);
        mm.tag.0.store(tag, Ordering::Relaxed);
    }

    /// `mm` has ended, and was flushed everywhere: its tag is free.
    pub(crate) fn give_back(&mut self, mm: &Mm<A>) {
        let tag = mm.tag.0.swap(NO_TAG, Ordering::Relaxed);
        if tag != NO_TAG {
            self.holders[tag as usize - 1] = Weak::new();
            self.free.push(tag);
        }
    }
}

/// Makes sure that `mm` has a tag, before it is loaded. Interrupts are enabled, if there may be none left.
///
/// # Panics
/// If every tag is in use on some CPU: a machine has more than twice as many as CPUs.
#[inline]
pub(super) fn ensure<A: Arch>(cpu: &'static Cpu<A>, mm: &Mm<A>) {
    if A::tagged() && !mm.tag.is_usable() {
        find(cpu, mm);
    }
}

#[cold]
fn find<A: Arch>(cpu: &'static Cpu<A>, mm: &Mm<A>) {
    // Somebody looks whether it can be taken: it is kept, or gone, soon.
    let mut wait = Wait::new(cpu, Doing::WaitLock);
    while mm.tag.0.load(Ordering::Relaxed) & TAKEN != 0 {
        wait.again(|| None);
    }
    wait.done();
    let mut tags = A::machine().asids.lock();
    if guard!(TagOnce) && mm.tag.is_usable() {
        // Another CPU that loads the same mm was here first.
        return;
    }
    let free = tags.free.pop().map(|tag| (tag, None));
    let (tag, from) = free.or_else(|| take(cpu, &mut tags)).expect("a machine has more tags than twice its CPUs");
    tags.holders[tag as usize - 1] = mm.itself.clone();
    // Under the lock, where the next one looks.
    mm.tag.0.store(tag, Ordering::Relaxed);
    drop(tags);
    // Not under the lock: it may have been the last reference to an mm.
    drop(from);
}

/// Takes a tag from an mm that nobody has loaded, and flushes it everywhere.
fn take<A: Arch>(cpu: &'static Cpu<A>, tags: &mut Tags<A>) -> Option<(u32, Option<Arc<Mm<A>>>)> {
    for _ in 0..tags.holders.len() {
        let at = tags.next % tags.holders.len();
        tags.next = at + 1;
        let Some(mm) = tags.holders[at].upgrade() else { continue };
        let tag = at as u32 + 1;
        mm.tag.0.store(tag | TAKEN, Ordering::Relaxed);
        // Full: marked the tag, then look who has the mm loaded. Pairs with the fence in `switch::load`
        // (tests/litmus/tag-take).
        A::fence();
        if guard!(TagLook) && A::machine().online().any(|other| other.loaded.may_translate(&mm)) {
            mm.tag.0.store(tag, Ordering::Relaxed);
            continue;
        }
        if guard!(TagFlush) {
            flush(cpu, &mm);
        }
        mm.tag.0.store(NO_TAG, Ordering::Relaxed);
        return Some((tag, Some(mm)));
    }
    None
}

/// Drops everything that any CPU has cached of `mm`, which none has loaded.
fn flush<A: Arch>(cpu: &'static Cpu<A>, mm: &Mm<A>) {
    if A::has_broadcast_invalidation() {
        cpu.ledger.recorded.alone();
        let n = A::invalidate_broadcast(mm.asid(), &Invalidation::ALL);
        cpu.ledger.invalidations.add(n.into());
        return;
    }
    let enabled = irq::mask(cpu);
    drop_all(cpu, mm.asid().0.into());
    irq::unmask(cpu, enabled);
    let mut others = mm.mask.load(Ordering::Relaxed);
    others.remove(cpu.id);
    call_many(cpu, &others, Cause::FlushTables, drop_all::<A>, mm.asid().0.into());
}

fn drop_all<A: Arch>(cpu: &'static Cpu<A>, asid: usize) {
    cpu.ledger.recorded.alone();
    let n = A::invalidate_local(Asid(asid as u16), &Invalidation::ALL);
    cpu.ledger.invalidations.add(n.into());
}
