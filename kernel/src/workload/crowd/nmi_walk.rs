//! Walks of the crowd that are made in an NMI: who asks for them, whom, and what the NMI does.

use core::sync::atomic::Ordering;

use super::Crowd;
use crate::addr::{CpuId, Pfn};
use crate::arch::{Arch, Doorbell};
use crate::oracle::ghost;
use crate::smp::cpu::Cpu;
use crate::workload::{AWAY, AWAY_PAGES};

impl<A: Arch> Crowd<'_, A> {
    /// Asks another CPU of the crowd to walk, by NMI: one that is in a walk just now, once in that walk; now and then
    /// any.
    pub(super) fn ask_for_nmi_walk(&self, cpu: &Cpu<A>) {
        let machine = A::machine();
        let count = machine.cpus.len() - 1;
        let first = cpu.chance.next() as usize;
        let mut from_first = (0..count).map(|n| machine.cpu(CpuId((1 + (first + n) % count) as u16)));
        let any = cpu.chance.one_in(4);
        let once =
            |other: &&'static Cpu<A>| other.id != cpu.id && (any || other.nmi.is_new(ghost::walk_under_way(other)));
        let Some(target) = from_first.find(once) else { return };
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        // Release: pairs with the acquire of the NMI (tests/litmus/hand-over).
        let before = target.nmi.walk.swap(self as *const Crowd<'_, A> as usize, Ordering::Release);
        if before != 0 {
            // The one asked for before has not begun, and stands for both.
            self.in_flight.fetch_sub(1, Ordering::Relaxed);
        }
        A::ring(target, Doorbell::Nmi);
    }
}

/// The walk that was asked for by NMI: `argument` is the crowd.
pub(crate) fn walk_in_nmi<A: Arch>(cpu: &'static Cpu<A>, argument: usize) {
    // SAFETY: the crowd stays until none of its NMI walks is in flight.
    let crowd = unsafe { &*(argument as *const Crowd<'_, A>) };
    let part = crowd.part(cpu.id);
    // Either the walk that it interrupts matters, which it hides or not, or its own does.
    let hides = part.nmi_walks.id != crowd.target.id || part.nmi_walks.id == part.walks.id;
    // One that hides is every other time of pages that no operation touches: its references, which it cannot drop, keep
    // no collapse from what it has interrupted.
    let (start, count) = if hides && cpu.chance.one_in(2) { (AWAY, 1) } else { crowd.walk_at(cpu) };
    if cpu.nmi.has_room(count) {
        let mut pages = [Pfn(0); AWAY_PAGES];
        let walk = A::machine().policy.strategy().get_user_pages_fast;
        let got = walk(cpu, part.nmi_walks, start, false, &mut pages[..count]);
        pages[..got].iter().for_each(|pfn| cpu.nmi.defer(*pfn));
        // It is the NMI's last walk, not its end: what it interrupted stands still for a while yet, now and then for
        // longer than an operation takes.
        let chance = cpu.chance.next();
        let rounds = if hides && chance.is_multiple_of(8) { 64 << (chance >> 8 & 3) } else { 0 };
        (0..rounds).for_each(|_| A::relax());
    }
    // Release: pairs with the acquire of who waits for the end (tests/litmus/hand-back).
    crowd.in_flight.fetch_sub(1, Ordering::Release);
}
