//! What the other CPUs do while the first one operates: walk, read through their TLBs, keep an mm loaded, stand by, or
//! nothing.
//!
//! They act only while the *window* is open, that is, during an operation; in between they wait, so that preparations
//! are neither slowed nor counted.
//!
//! In mode `contend` not all of them do the same, since what makes a rule wrong is often that CPUs differ (`Part`): one
//! that the flush interrupts beside one that it does not, a walk that an NMI hides beside a walk that an NMI makes. All
//! parts are filled from [`ALL_PARTS`] CPUs on.

mod nmi_walk;

use core::ops::Range;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

pub(crate) use nmi_walk::walk_in_nmi;

use super::bystander::Bystander;
use super::walker::WalkerClass;
use super::{AWAY, AWAY_PAGES, Target};
use crate::addr::{CpuId, Level, PAGE_SIZE, Pfn, VirtAddr};
use crate::arch::Arch;
use crate::ledger::Cause;
use crate::mm::address_space::Mm;
use crate::mm::fault;
use crate::mm::page;
use crate::mm::rcu_walk;
use crate::mm::unmap::dontneed;
use crate::oracle;
use crate::record::shared::Doing;
use crate::smp::call::call_many;
use crate::smp::cpu::Cpu;
use crate::smp::mask::CpuMask;
use crate::smp::nmi;
use crate::smp::rcu;
use crate::smp::wait::Wait;
use crate::suite::Mode;
use crate::tlb::switch;
use crate::tlb::transport::TransportId;

/// With fewer CPUs online, the one that operates included, some part of some class of walkers has nobody to play it.
pub const ALL_PARTS: u32 = 4;
/// Pages at the end of a range where walkers and those who drop pages meet.
const MEETING_PLACE: u64 = 2;
/// How often two pages that were dropped are faulted in and dropped again, so that a walk that stops there for long
/// misses none of it.
const SWAPS: usize = 2;

/// What the other CPUs are told. Lives on the first CPU's stack for one cell.
pub struct Crowd<'a, A: Arch> {
    mode: Mode,
    walker: WalkerClass,
    /// What the operation changes.
    target: &'a Mm<A>,
    /// What leaves second in a chain.
    second: Option<&'a Mm<A>>,
    /// What the operation does not change.
    other: Option<&'a Mm<A>>,
    /// Walks asked for by NMI that are not over.
    in_flight: AtomicU32,
    range: Range<VirtAddr>,
    step: u64,
    anon: bool,
    drops: bool,
    window: AtomicBool,
    /// The mm has come to more CPUs than it was on at first.
    spread: AtomicBool,
    stop: AtomicBool,
    /// Which round of preparations the others shall follow.
    round: AtomicU64,
    /// How many of them have.
    ready: AtomicU32,
    /// See [`super::bystander`].
    bystander: Bystander,
}

/// What one CPU of the crowd has to do with which mm.
#[derive(Clone, Copy)]
struct Part<'a, A: Arch> {
    /// It is loaded.
    loads: &'a Mm<A>,
    /// Its walks are of this one.
    walks: &'a Mm<A>,
    /// Those that an NMI makes in the middle of them are of this one.
    nmi_walks: &'a Mm<A>,
}

impl<'a, A: Arch> Crowd<'a, A> {
    /// A crowd that does what `mode` says to `target`. In mode `other` it loads and walks `other`; in mode `contend`
    /// see `Crowd::part`.
    pub fn new(mode: Mode, walker: WalkerClass, target: &'a Target<A>, other: Option<&'a Mm<A>>) -> Crowd<'a, A> {
        Crowd {
            mode,
            walker,
            target: &target.mm,
            second: target.second.as_deref(),
            other,
            in_flight: AtomicU32::new(0),
            range: target.range.clone(),
            step: target.step,
            anon: target.anon,
            drops: target.drops,
            window: AtomicBool::new(false),
            spread: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            round: AtomicU64::new(0),
            ready: AtomicU32::new(0),
            bystander: Bystander::default(),
        }
    }

    /// What `id` has to do with which mm. In mode `contend`:
    ///
    /// - in a chain the last CPU has the mm loaded that leaves second, so that its flush, too, may interrupt somebody;
    /// - walks of an mm that is not loaded are made by every other CPU, beside CPUs that have it loaded and are
    ///   interrupted by its flush;
    /// - where NMIs walk another mm than what they interrupt, one of the two is the target: on the first CPU the walk
    ///   that is interrupted, on the others the NMI's; in the second half of the cell the former on all odd CPUs, so
    ///   that the mm runs on few CPUs first and on many later.
    fn part(&self, id: CpuId) -> Part<'a, A> {
        let all = |mm| Part { loads: mm, walks: mm, nmi_walks: mm };
        if self.mode != Mode::Contend {
            return all(self.other.unwrap_or(self.target));
        }
        let last = A::machine().cpus.len() - 1;
        let (odd, first) = (!id.index().is_multiple_of(2), id.index() == 1);
        // Relaxed: whoever sees it late plays its old part for one more round.
        let spread = self.spread.load(Ordering::Relaxed);
        let second = self.second.filter(|_| last > 1 && id.index() == last);
        match (self.walker, self.other, second) {
            (WalkerClass::NmiOther, _, Some(second)) => Part { nmi_walks: self.target, ..all(second) },
            (_, _, Some(second)) => all(second),
            (WalkerClass::Foreign, Some(other), None) if odd => Part { loads: other, ..all(self.target) },
            (WalkerClass::NmiOther, Some(other), None) if odd && (first || spread) => {
                Part { nmi_walks: other, ..all(self.target) }
            }
            (WalkerClass::NmiOther, Some(other), None) => Part { nmi_walks: self.target, ..all(other) },
            _ => all(self.target),
        }
    }

    /// Whether `mm` is one that the operation changes.
    fn changes(&self, mm: &Mm<A>) -> bool {
        self.other.is_none_or(|other| other.id != mm.id)
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
        // Release: pairs with the acquire in `member` (tests/litmus/hand-over).
        self.round.fetch_add(1, Ordering::Release);
        let count = Self::others(cpu).count();
        let mut wait = Wait::new(cpu, Doing::WaitWorkload);
        // Acquire: pairs with the release in `member` (tests/litmus/hand-over).
        while self.ready.load(Ordering::Acquire) != count {
            wait.again(|| None);
        }
        wait.done();
    }

    /// The CPU that has nothing to do with any mm, where the mode has one.
    pub fn bystander(&self, cpu: &Cpu<A>) -> Option<&'static Cpu<A>> {
        A::machine().online().last().filter(|last| self.mode == Mode::Isolated && last.id != cpu.id)
    }

    /// The longest that it was kept from its loop while an operation was under way.
    pub fn longest_gap(&self) -> u64 {
        self.bystander.longest_gap()
    }

    /// Whether the others invalidate when nobody waits for it: for flushes of their own, or when they resume.
    pub fn invalidates_by_itself(&self, transport: TransportId) -> bool {
        self.mode == Mode::Contend && (self.drops || transport == TransportId::Paravirt)
    }

    /// The second half of the cell begins: see `Crowd::part`.
    pub fn spread(&self) {
        self.spread.store(true, Ordering::Relaxed);
    }

    /// The operation begins.
    pub fn open(&self) {
        // Release: pairs with the acquire in `member` (tests/litmus/hand-over).
        self.window.store(true, Ordering::Release);
    }

    /// The operation is over.
    pub fn close(&self) {
        self.window.store(false, Ordering::Relaxed);
    }

    /// Sends the other CPUs home and waits until each has unloaded its mm.
    pub fn disperse(&self, cpu: &'static Cpu<A>) {
        // Release: pairs with the acquire in `member` (tests/litmus/hand-over).
        self.stop.store(true, Ordering::Release);
        let mut wait = Wait::new(cpu, Doing::WaitWorkload);
        for id in Self::others(cpu).iter() {
            while A::machine().cpu(id).has_job() {
                wait.again(|| Some(id));
            }
        }
        // Acquire: pairs with the release in `walk_in_nmi`: no NMI uses the crowd any more (tests/litmus/hand-back).
        while self.in_flight.load(Ordering::Acquire) != 0 {
            wait.again(|| None);
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
            let count = size / PAGE_SIZE;
            // Where others drop pages too, half of everything is about the last few, which the operation reaches last,
            // so that they meet.
            let first = if self.drops && cpu.chance.one_in(2) {
                count - 1 - cpu.chance.next() % count.min(MEETING_PLACE)
            } else {
                cpu.chance.next() % count
            };
            return (self.range.start.add(first * PAGE_SIZE), pages.min((count - first) as usize));
        }
        (AWAY, AWAY_PAGES)
    }
}

/// What each of the other CPUs runs.
fn member<A: Arch>(cpu: &'static Cpu<A>, argument: usize) {
    // SAFETY: the first CPU keeps the crowd until `disperse` has seen this job end.
    let crowd = unsafe { &*(argument as *const Crowd<'_, A>) };
    let mut round = 0;
    let mut part = crowd.part(cpu.id);
    let stands_by = crowd.bystander(A::machine().cpus[0]).is_some_and(|last| last.id == cpu.id);
    // Acquire, of both: pairs with the releases of the first CPU (tests/litmus/hand-over).
    while !crowd.stop.load(Ordering::Acquire) {
        let now = crowd.round.load(Ordering::Acquire);
        if now != round {
            round = now;
            part = crowd.part(cpu.id);
            if !stands_by {
                switch::load(cpu, part.loads);
            }
            if crowd.mode == Mode::Lazy {
                switch::become_lazy(cpu);
            }
            // Release: pairs with the acquire in `next_round` (tests/litmus/hand-over).
            crowd.ready.fetch_add(1, Ordering::Release);
        }
        if stands_by {
            crowd.bystander.spin(cpu, &crowd.window);
            continue;
        }
        // Acquire: pairs with the release in `open` (tests/litmus/hand-over).
        if crowd.window.load(Ordering::Acquire) {
            match crowd.mode {
                Mode::Same | Mode::Other | Mode::Isolated => walk(cpu, crowd, part.walks),
                Mode::Contend => contend(cpu, crowd, &part),
                Mode::Spin => read_through_tlb(cpu, part.loads, AWAY),
                Mode::Lazy | Mode::Idle | Mode::Scripted => {}
            }
        }
        nmi::drop_deferred(cpu);
        rcu::quiescent(cpu);
        A::relax();
    }
    switch::unload(cpu);
    // NMIs asked for before the end may still come, and find the CPU idle.
    let mut wait = Wait::new(cpu, Doing::WaitWorkload);
    // Acquire: as in `disperse` (tests/litmus/hand-back).
    while crowd.in_flight.load(Ordering::Acquire) != 0 {
        wait.again(|| None);
    }
    wait.done();
    nmi::drop_deferred(cpu);
    // What this CPU retired is freed before the cell's balance is drawn.
    rcu::barrier(cpu);
}

/// One walk of `mm` under the strategy under test, and the end of its references.
fn walk<A: Arch>(cpu: &'static Cpu<A>, crowd: &Crowd<'_, A>, mm: &Mm<A>) {
    let (start, count) = crowd.walk_at(cpu);
    if crowd.mode == Mode::Contend && crowd.walker == WalkerClass::Rcu {
        rcu_walk::count_leaves(cpu, mm, start, count);
        return;
    }
    let mut pages = [Pfn(0); AWAY_PAGES];
    let strategy = A::machine().policy.strategy();
    let by_two_words = crowd.mode == Mode::Contend && crowd.walker == WalkerClass::TwoWord;
    let walk = if by_two_words { strategy.get_user_pages_two_word } else { strategy.get_user_pages_fast };
    let pin_one_in = A::machine().policy.pins.load(Ordering::Relaxed);
    let pins = pin_one_in != 0 && cpu.chance.one_in(pin_one_in.into());
    let walk = if pins { strategy.pin_user_pages_fast } else { walk };
    let got = walk(cpu, mm, start, false, &mut pages[..count]);
    if crowd.mode == Mode::Contend && got > 0 && cpu.chance.one_in(16) {
        // The references are kept for a while, in which nobody may give the pages to somebody else.
        for _ in 0..1 + cpu.chance.next() % 8 {
            A::relax();
        }
        oracle::on_put(cpu, mm, start, &pages[..got]);
    }
    if pins {
        cpu.ledger.pins.add(got as u64);
        return pages[..got].iter().for_each(|pfn| page::unpin_walked(cpu, *pfn));
    }
    for pfn in &pages[..got] {
        page::put_walked(cpu, *pfn);
    }
}

/// Mostly walks; now and then the slow path, and a look through the TLB.
fn contend<A: Arch>(cpu: &'static Cpu<A>, crowd: &Crowd<'_, A>, part: &Part<'_, A>) {
    if crowd.walker.nests() && A::machine().cpus.len() > 2 {
        crowd.ask_for_nmi_walk(cpu);
    }
    let mm = part.loads;
    if crowd.walker == WalkerClass::Rcu || part.walks.id != mm.id || !crowd.changes(mm) {
        return walk(cpu, crowd, part.walks);
    }
    match cpu.chance.next() % 16 {
        0 => {
            let (start, _) = crowd.walk_at(cpu);
            let mut pages = [Pfn(0); 1];
            // Nothing may be mapped there just now.
            if fault::get_user_pages(cpu, mm, start, false, &mut pages).is_ok() {
                page::put_walked(cpu, pages[0]);
            }
        }
        4..8 if crowd.drops => drop_and_look(cpu, crowd, mm),
        1..4 if crowd.anon => {
            let (start, _) = crowd.walk_at(cpu);
            read_through_tlb(cpu, mm, start.align_down(Level::Pte));
        }
        _ => walk(cpu, crowd, mm),
    }
}

/// Drops two pages as the first CPU does, at the same time, and looks for what it had written there: its own flush, or
/// the other's that was under way when its own began, must have come before its drop returned. Then it faults both in
/// again: each gets the frame that the other had, while the table is the same.
fn drop_and_look<A: Arch>(cpu: &'static Cpu<A>, crowd: &Crowd<'_, A>, mm: &Mm<A>) {
    let (at, _) = crowd.walk_at(cpu);
    let start = VirtAddr(at.0 - at.0 % (2 * PAGE_SIZE));
    let end = VirtAddr(crowd.range.end.0.min(start.0 + 2 * PAGE_SIZE));
    // The first word is the tag. Nobody else writes the same.
    let (word, mark) = (start.add(8), cpu.chance.next() | 1);
    let written = A::write_user(word, mark).is_ok();
    let dropped = dontneed(cpu, mm, start..end).is_ok();
    if written && dropped && A::read_user(word).is_ok_and(|seen| seen == mark) {
        oracle::on_outlived_drop(cpu, start);
    }
    for _ in 0..SWAPS {
        // Short of memory it stays as it is: the next operation populates the range.
        let _ = fault::populate(cpu, mm, start..end);
        let _ = dontneed(cpu, mm, start..end);
    }
    let _ = fault::populate(cpu, mm, start..end);
}

/// Reads a page's tag at its user address; nothing may be mapped there.
fn read_through_tlb<A: Arch>(cpu: &'static Cpu<A>, mm: &Mm<A>, va: VirtAddr) {
    if let Ok(observed) = A::read_user(va) {
        oracle::on_user_read(cpu, mm, va, observed);
    }
}
