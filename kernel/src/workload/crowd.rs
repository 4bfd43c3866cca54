//! What the other CPUs do while the first one operates: walk, read through their TLBs, keep an mm loaded, or nothing.
//!
//! They act only while the *window* is open, that is, during an operation; in between they wait, so that preparations are neither slowed nor counted.

use core::ops::Range;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use super::{AWAY, AWAY_PAGES, Target};
use crate::addr::{Level, PAGE_SIZE, Pfn, VirtAddr};
use crate::arch::Arch;
use crate::ledger::Cause;
use crate::mm::address_space::Mm;
use crate::mm::fault;
use crate::mm::page;
use crate::oracle;
use crate::record::shared::Doing;
use crate::smp::call::call_many;
use crate::smp::cpu::Cpu;
use crate::smp::mask::CpuMask;
use crate::smp::rcu;
use crate::smp::wait::Wait;
use crate::suite::Mode;
use crate::tlb::switch;

/// What the other CPUs are told. Lives on the first CPU's stack for one cell.
pub struct Crowd<'a, A: Arch> {
    mode: Mode,
    mm: &'a Mm<A>,
    range: Range<VirtAddr>,
    step: u64,
    anon: bool,
    window: AtomicBool,
    stop: AtomicBool,
    /// Which round of preparations the others shall follow.
    round: AtomicU64,
    /// How many of them have.
    ready: AtomicU32,
}

impl<'a, A: Arch> Crowd<'a, A> {
    /// A crowd that does what `mode` says to `target`; in mode `other` it walks `other` instead.
    pub fn new(mode: Mode, target: &'a Target<A>, other: Option<&'a Mm<A>>) -> Crowd<'a, A> {
        Crowd {
            mode,
            mm: other.unwrap_or(&target.mm),
            range: target.range.clone(),
            step: target.step,
            anon: target.anon,
            window: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            round: AtomicU64::new(0),
            ready: AtomicU32::new(0),
        }
    }

    fn others(cpu: &Cpu<A>) -> CpuMask {
        let mut others = *A::machine().online_mask();
        others.remove(cpu.id);
        others
    }

    /// Sets the other CPUs to work and waits until each has loaded its mm.
    pub fn gather(&self, cpu: &'static Cpu<A>) {
        if self.mode == Mode::Idle {
            return;
        }
        let others = Self::others(cpu);
        for id in others.iter() {
            A::machine().cpu(id).give_job(member::<A>, self as *const Crowd<'_, A> as usize);
        }
        call_many(cpu, &others, Cause::Wake, |_, _| {}, 0);
        self.next_round(cpu);
    }

    /// Waits until each of the other CPUs has its mm loaded (again, where the last flush made it unload).
    pub fn next_round(&self, cpu: &'static Cpu<A>) {
        if self.mode == Mode::Idle {
            return;
        }
        self.ready.store(0, Ordering::Relaxed);
        // Release: pairs with the acquire in `member`.
        self.round.fetch_add(1, Ordering::Release);
        let count = Self::others(cpu).count();
        let mut wait = Wait::new(cpu, Doing::WaitWorkload);
        // Acquire: pairs with the release in `member`.
        while self.ready.load(Ordering::Acquire) != count {
            wait.again(|| None);
        }
        wait.done();
    }

    /// The operation begins.
    pub fn open(&self) {
        self.window.store(true, Ordering::Release);
    }

    /// The operation is over.
    pub fn close(&self) {
        self.window.store(false, Ordering::Release);
    }

    /// Sends the other CPUs home and waits until each has unloaded its mm.
    pub fn disperse(&self, cpu: &'static Cpu<A>) {
        self.stop.store(true, Ordering::Release);
        let mut wait = Wait::new(cpu, Doing::WaitWorkload);
        for id in Self::others(cpu).iter() {
            while A::machine().cpu(id).has_job() {
                wait.again(|| Some(id));
            }
        }
        wait.done();
    }

    /// Where this CPU's next walk begins, and how many pages it wants.
    fn walk_at(&self, cpu: &Cpu<A>) -> (VirtAddr, usize) {
        if matches!(self.mode, Mode::Contend) {
            let size = self.range.end.0 - self.range.start.0;
            let pages = 1 + cpu.chance.next() as usize % 8;
            if self.step != 0 {
                let op = A::machine().operation.load(Ordering::Relaxed);
                return (self.range.start.add(op * self.step % size), pages);
            }
            let first = cpu.chance.next() % (size / PAGE_SIZE);
            return (self.range.start.add(first * PAGE_SIZE), pages.min((size / PAGE_SIZE - first) as usize));
        }
        (AWAY, AWAY_PAGES)
    }
}

/// What each of the other CPUs runs.
fn member<A: Arch>(cpu: &'static Cpu<A>, argument: usize) {
    // SAFETY: the first CPU keeps the crowd until `disperse` has seen this job end.
    let crowd = unsafe { &*(argument as *const Crowd<'_, A>) };
    let mut round = 0;
    while !crowd.stop.load(Ordering::Acquire) {
        let now = crowd.round.load(Ordering::Acquire);
        if now != round {
            round = now;
            switch::load(cpu, crowd.mm);
            if crowd.mode == Mode::Lazy {
                switch::become_lazy(cpu);
            }
            crowd.ready.fetch_add(1, Ordering::Release);
        }
        if crowd.window.load(Ordering::Acquire) {
            match crowd.mode {
                Mode::Same | Mode::Other => walk(cpu, crowd),
                Mode::Contend => contend(cpu, crowd),
                Mode::Spin => read_through_tlb(cpu, crowd.mm, AWAY),
                Mode::Lazy | Mode::Idle | Mode::Scripted => {}
            }
        }
        rcu::quiescent(cpu);
        A::relax();
    }
    switch::unload(cpu);
}

/// One walk of the strategy under test, and the end of its references.
fn walk<A: Arch>(cpu: &'static Cpu<A>, crowd: &Crowd<'_, A>) {
    let (start, count) = crowd.walk_at(cpu);
    let mut pages = [Pfn(0); AWAY_PAGES];
    let got = (A::machine().policy.strategy().get_user_pages_fast)(cpu, crowd.mm, start, false, &mut pages[..count]);
    for pfn in &pages[..got] {
        page::put_walked(cpu, *pfn);
    }
}

/// Mostly walks; now and then the slow path, and a look through the TLB.
fn contend<A: Arch>(cpu: &'static Cpu<A>, crowd: &Crowd<'_, A>) {
    match cpu.chance.next() % 16 {
        0 => {
            let (start, _) = crowd.walk_at(cpu);
            let mut pages = [Pfn(0); 1];
            // Nothing may be mapped there just now.
            if fault::get_user_pages(cpu, crowd.mm, start, false, &mut pages).is_ok() {
                page::put_walked(cpu, pages[0]);
            }
        }
        1..4 if crowd.anon => {
            let (start, _) = crowd.walk_at(cpu);
            read_through_tlb(cpu, crowd.mm, start.align_down(Level::Pte));
        }
        _ => walk(cpu, crowd),
    }
}

/// Reads a page's tag at its user address; nothing may be mapped there.
fn read_through_tlb<A: Arch>(cpu: &'static Cpu<A>, mm: &Mm<A>, va: VirtAddr) {
    if let Ok(observed) = A::read_user(va) {
        oracle::on_user_read(cpu, mm, va, observed);
    }
}
