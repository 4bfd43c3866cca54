//! Plays a broadcast invalidation where there is none: the remote CPUs invalidate from an NMI.
//!
//! An NMI reaches code that has interrupts masked, so, like the instruction it stands for, it waits for no walk: a CPU
//! in the middle of one invalidates and goes on walking. What the handler acknowledges is therefore no statement about
//! walks, and the coverage does not count it.
//!
//! One broadcast is under way at a time. The targets are a set of bits, not a count: NMIs merge, and one that arrives
//! while another is handled is taken afterwards, so a handler may find nothing to do.

use crate::arch::{Arch, Asid, Doorbell};
use crate::atomic::{AtomicU32, AtomicUsize, Ordering};
use crate::mm::address_space::Mm;
use crate::record::event::{BY_NMI, EventKind, UNNAMED};
use crate::record::shared::Doing;
use crate::smp::cpu::Cpu;
use crate::smp::lock::Mutex;
use crate::smp::mask::{AtomicCpuMask, CpuMask};
use crate::smp::wait::Wait;
use crate::tlb::invalidation::Invalidation;

/// The broadcast under way.
pub struct Board<A: Arch> {
    /// Held by who broadcasts.
    turn: Mutex<A, ()>,
    /// CPUs that have not invalidated yet.
    pending: AtomicCpuMask,
    what: AtomicUsize,
    asid: AtomicU32,
    /// Invalidation instructions that the handlers executed.
    instructions: AtomicU32,
}

impl<A: Arch> Default for Board<A> {
    fn default() -> Self {
        Board {
            turn: Mutex::<A, _>::new(()),
            pending: AtomicCpuMask::new(),
            what: AtomicUsize::new(0),
            asid: AtomicU32::new(0),
            instructions: AtomicU32::new(0),
        }
    }
}

/// Invalidates `what` here and on every other CPU of the mask; returns how many instructions that took in all.
pub(super) fn invalidate<A: Arch>(cpu: &'static Cpu<A>, mm: &Mm<A>, what: &Invalidation) -> u32 {
    let machine = A::machine();
    let board = &machine.nmi_board;
    let _turn = board.turn.lock();
    let mut targets: CpuMask = mm.mask.load(Ordering::Relaxed);
    targets.remove(cpu.id);
    cpu.ledger.recorded.by_nmi::<A>(targets.count(), what);
    board.what.store(what as *const Invalidation as usize, Ordering::Relaxed);
    board.asid.store(mm.asid().0.into(), Ordering::Relaxed);
    board.instructions.store(0, Ordering::Relaxed);
    // Release: publishes the order, and the changed entries, to the handlers: one that was rung for something else has
    // no other bell (tests/litmus/board-order).
    board.pending.store(&targets, Ordering::Release);
    for id in targets.iter() {
        cpu.events.write(EventKind::Interrupt, 0, BY_NMI, id.0.into());
        A::ring(machine.cpu(id), Doorbell::Nmi);
    }
    let mine = A::invalidate_local(mm.asid(), what);
    let mut wait = Wait::new(cpu, Doing::WaitFlush);
    // Acquire: pairs with the release in `handle`.
    while !board.pending.load(Ordering::Acquire).is_empty() {
        wait.again(|| board.pending.load(Ordering::Relaxed).iter().next());
    }
    wait.done();
    mine + board.instructions.load(Ordering::Relaxed)
}

/// The NMI. Whatever it interrupted, it only reads the board and invalidates: it takes no lock and follows no table.
pub(crate) fn handle<A: Arch>(cpu: &'static Cpu<A>) {
    let board = &A::machine().nmi_board;
    // Acquire: pairs with the release in `invalidate` (tests/litmus/board-order).
    if !board.pending.load(Ordering::Acquire).contains(cpu.id) {
        return;
    }
    #[cfg(loom)]
    assert!(board.what.load(Ordering::Relaxed) != 0, "an order was taken before it was there");
    // SAFETY: while this CPU is pending, the initiator waits and keeps the order on its stack.
    let what = unsafe { &*(board.what.load(Ordering::Relaxed) as *const Invalidation) };
    let n = A::invalidate_local(Asid(board.asid.load(Ordering::Relaxed) as u16), what);
    board.instructions.fetch_add(n, Ordering::Relaxed);
    cpu.events.write(EventKind::Acknowledge, 0, BY_NMI, UNNAMED);
    // Release: pairs with the initiator's acquire. After it the order is gone.
    board.pending.remove(cpu.id, Ordering::Release);
}
