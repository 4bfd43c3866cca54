//! Who may go on: the turn, and what became of each step.
//!
//! The current step names an actor. That actor runs; all others wait in [`reach`], [`waits`] or [`enter`] until a step
//! of theirs is current. A step ends when its actor is at the point that it names, has completed, or has waited for
//! another CPU for longer than any CPU that runs would take to answer (*blocked*). An actor whose step ended as blocked
//! does not go on before its next step, even if what it waited for has come. After the last step all run freely.

use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence};

use crate::arch::Arch;
use crate::record::event::EventKind;
use crate::record::shared::Doing;
use crate::record::step::{StepOutcome, StepRecord};
use crate::scenario::Point;
use crate::scenario::script::{Goal, MAX_ACTORS, MAX_STEPS, Script};
use crate::smp::cpu::Cpu;
use crate::smp::irq;
use crate::smp::rcu;
use crate::tlb::transport::paravirt;

/// Rounds of [`Arch::relax`] after which a wait is taken for blocked: in each, every other CPU has run, and has taken
/// what interrupts it can take.
const PATIENCE: u32 = 128;
/// Rounds that an actor waits for its turn before the scenario is given up.
const BOUND: u64 = 400_000;
/// Before the first point.
const NOWHERE: u8 = u8::MAX;

/// The state of the scenario that is being played.
#[derive(Default)]
pub struct Stage {
    open: AtomicBool,
    /// `actor | goal << 8`, see [`encode`].
    steps: [AtomicU32; MAX_STEPS],
    count: AtomicUsize,
    current: AtomicUsize,
    records: [AtomicU64; MAX_STEPS],
    /// By actor: it has completed.
    over: [AtomicBool; MAX_ACTORS],
    /// By actor: the last point it was at.
    at: [AtomicU8; MAX_ACTORS],
    /// By actor: rounds that it has waited in its step.
    waited: [AtomicU32; MAX_ACTORS],
    begun: AtomicU64,
}

const COMPLETION: u32 = 0x100;
const FREEZE: u32 = 0x101;

fn encode(goal: Goal) -> u32 {
    match goal {
        Goal::Until(point) => point as u32,
        Goal::Completion => COMPLETION,
        Goal::Freeze => FREEZE,
    }
}

impl Stage {
    /// Whether a scenario is being played.
    #[inline(always)]
    pub fn is_open(&self) -> bool {
        // Relaxed: a pause point orders nothing. `actor` makes up for it.
        self.open.load(Ordering::Relaxed)
    }

    /// Begins to play `script`. Nobody is at any point.
    pub fn open(&self, script: &Script, now: u64) {
        for (slot, step) in self.steps.iter().zip(&script.steps) {
            slot.store(u32::from(step.actor) | encode(step.goal) << 8, Ordering::Relaxed);
        }
        self.records.iter().for_each(|r| r.store(0, Ordering::Relaxed));
        for actor in 0..MAX_ACTORS {
            self.over[actor].store(false, Ordering::Relaxed);
            self.at[actor].store(NOWHERE, Ordering::Relaxed);
            self.waited[actor].store(0, Ordering::Relaxed);
        }
        self.begun.store(now, Ordering::Relaxed);
        self.count.store(script.steps.len(), Ordering::Relaxed);
        self.current.store(0, Ordering::Relaxed);
        // Release: pairs with the acquire in `actor` of whoever sees it open and then reads the turn
        // (tests/litmus/hand-over).
        self.open.store(true, Ordering::Release);
    }

    /// Ends it. All actors have completed.
    pub fn close(&self) {
        self.open.store(false, Ordering::Relaxed);
    }

    /// The records of all steps.
    pub fn records(&self) -> [u64; MAX_STEPS] {
        core::array::from_fn(|i| self.records[i].load(Ordering::Relaxed))
    }

    /// Whether the first `actors` actors have completed.
    pub fn all_over(&self, actors: usize) -> bool {
        // Acquire: pairs with the release in `leave` (tests/litmus/hand-over).
        self.over[..actors].iter().all(|over| over.load(Ordering::Acquire))
    }

    /// The current step: whose, and its goal. `None` after the last.
    fn turn(&self) -> Option<(usize, u32)> {
        // Acquire: pairs with the release in `end_step`: what the actor before did is visible (tests/litmus/hand-over).
        let current = self.current.load(Ordering::Acquire);
        if current >= self.count.load(Ordering::Relaxed) {
            return None;
        }
        let step = self.steps[current].load(Ordering::Relaxed);
        Some(((step & 0xff) as usize, step >> 8))
    }

    /// The current step ends, and the next one whose actor has not completed is current. Only its actor calls this.
    fn end_step(&self, outcome: StepOutcome, doing: u8, now: u64) {
        let mut current = self.current.load(Ordering::Relaxed);
        let count = self.count.load(Ordering::Relaxed);
        let time = u32::try_from(now.saturating_sub(self.begun.load(Ordering::Relaxed))).unwrap_or(u32::MAX);
        let mut outcome = outcome;
        let mut doing = doing;
        loop {
            let actor = (self.steps[current].load(Ordering::Relaxed) & 0xff) as usize;
            let at = Some(self.at[actor].load(Ordering::Relaxed)).filter(|at| *at != NOWHERE);
            self.records[current].store(StepRecord { outcome, at, doing, time }.pack(), Ordering::Relaxed);
            current += 1;
            if current >= count {
                break;
            }
            let next = (self.steps[current].load(Ordering::Relaxed) & 0xff) as usize;
            // Acquire: as in `all_over` (tests/litmus/hand-over).
            if !self.over[next].load(Ordering::Acquire) {
                break;
            }
            (outcome, doing) = (StepOutcome::Over, 0);
        }
        // Release: pairs with the acquire in `turn` (tests/litmus/hand-over).
        self.current.store(current, Ordering::Release);
    }

    /// Something waits for what no step brings: from here on all run freely.
    fn give_up(&self, now: u64) {
        if self.turn().is_some() {
            self.end_step(StepOutcome::Stuck, 0, now);
            // Release: as in `end_step` (tests/litmus/hand-over).
            self.current.store(self.count.load(Ordering::Relaxed), Ordering::Release);
        }
    }
}

/// The actor of this CPU. What runs in an NMI is no actor.
fn actor<A: Arch>(cpu: &Cpu<A>) -> Option<usize> {
    // Acquire: pairs with the release in `open`, which this CPU has seen (tests/litmus/hand-over).
    fence(Ordering::Acquire);
    Some(cpu.id.index()).filter(|i| *i < MAX_ACTORS && !cpu.nmi.is_inside())
}

/// The actor of this CPU waits for its first step.
pub fn enter<A: Arch>(cpu: &Cpu<A>) {
    if let Some(me) = actor(cpu) {
        await_turn(cpu, me, true);
    }
}

/// The actor of this CPU has completed.
pub fn leave<A: Arch>(cpu: &Cpu<A>) {
    let stage = &A::machine().stage;
    let Some(me) = actor(cpu) else { return };
    // Release: pairs with the acquire in `all_over` (tests/litmus/hand-over).
    stage.over[me].store(true, Ordering::Release);
    if let Some((whose, goal)) = stage.turn()
        && whose == me
    {
        let outcome = if goal == COMPLETION { StepOutcome::Completed } else { StepOutcome::NotReached };
        stage.end_step(outcome, 0, A::instructions());
    }
}

/// See [`crate::pause`].
#[cold]
pub fn reach<A: Arch>(cpu: &Cpu<A>, point: Point) {
    let stage = &A::machine().stage;
    let Some(me) = actor(cpu) else { return };
    if stage.over[me].load(Ordering::Relaxed) {
        return;
    }
    stage.at[me].store(point as u8, Ordering::Relaxed);
    let Some((whose, goal)) = stage.turn() else { return };
    if whose == me {
        if goal != point as u32 {
            return;
        }
        cpu.events.write(EventKind::Pause, 0, point as u64, 0);
        stage.end_step(StepOutcome::Reached, 0, A::instructions());
    }
    await_turn(cpu, me, false);
}

/// See [`super::waits`].
#[cold]
pub fn waits<A: Arch>(cpu: &Cpu<A>, doing: Doing) {
    let stage = &A::machine().stage;
    let Some(me) = actor(cpu) else { return };
    if stage.over[me].load(Ordering::Relaxed) {
        return;
    }
    let Some((whose, _)) = stage.turn() else { return };
    if whose == me {
        let waited = stage.waited[me].load(Ordering::Relaxed) + 1;
        stage.waited[me].store(waited, Ordering::Relaxed);
        if waited < PATIENCE {
            return;
        }
        stage.end_step(StepOutcome::Blocked, doing as u8, A::instructions());
    }
    // A walk that gives back a page's last reference waits here too, for the frame allocator; it has interrupts masked.
    await_turn(cpu, me, A::irqs_enabled());
}

/// Waits until a step of this actor that lets it run is current. `calm`: the CPU is in no walk, so grace periods need
/// not wait for it.
fn await_turn<A: Arch>(cpu: &Cpu<A>, me: usize, calm: bool) {
    let stage = &A::machine().stage;
    let mut rounds = 0;
    while let Some((whose, goal)) = stage.turn() {
        if whose == me && goal != FREEZE {
            break;
        }
        if whose == me {
            stage.end_step(StepOutcome::Frozen, 0, A::instructions());
            freeze(cpu, me);
            continue;
        }
        A::relax();
        if calm {
            rcu::quiescent(cpu);
        }
        rounds += 1;
        if rounds > BOUND {
            stage.give_up(A::instructions());
        }
    }
    stage.waited[me].store(0, Ordering::Relaxed);
}

/// The hypervisor takes the CPU away, until its actor's next step or until an interrupt for it comes.
fn freeze<A: Arch>(cpu: &Cpu<A>, me: usize) {
    let enabled = irq::mask(cpu);
    paravirt::freeze(cpu);
    let mut rounds = 0;
    while A::machine().stage.turn().is_some_and(|(whose, _)| whose != me) && !cpu.inbox.is_raised() && rounds < BOUND {
        A::relax();
        rounds += 1;
    }
    paravirt::resume(cpu);
    irq::unmask(cpu, enabled);
}
