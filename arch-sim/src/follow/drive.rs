//! Drives the core by the model's steps: each is a place to which one CPU is run.

use std::sync::atomic::Ordering;

use kernel::addr::CpuId;
use kernel::record::event::EventKind;

use super::{NotFollowed, in_words};
use crate::explore::hub::{Access, Kind};
use crate::explore::stops::Stops;
use crate::explore::{Execution, Process, StepNumber};
use crate::machine::Directed;
use crate::machine::scope::Scope;
use crate::model::ask::{self, Question};
use crate::model::check::Counterexample;
use crate::model::scenario::{Publication, Scenario};
use crate::model::state::{Stage, State, switching, walk};
use crate::model::step::Step;

/// Steps of the core that one step of the model may take.
const MOST_STEPS: usize = 100_000;

/// Why a step cannot be played.
enum Why {
    /// The core has nothing that it could be.
    NoCounterpart,
    /// It does not come there.
    Elsewhere(String),
}

/// A core that is driven.
struct Driver<'a, const TAGGED: bool> {
    execution: Directed<TAGGED>,
    scenario: &'a Scenario,
    schedule: Vec<Process>,
    /// By CPU: how many of its events have been looked at.
    seen: Vec<usize>,
    /// By CPU and kind, how many there were; of walks that hold and of unlinks, those of the table that matters.
    counts: Vec<[usize; 64]>,
    /// The same, as many as the model has had.
    wanted: Vec<[usize; 64]>,
    /// The last access of the program that was run last.
    last: Option<Access>,
    /// By mm, the flush generation in the beginning, and how many flushes the model has counted.
    flushes: [(u64, u64); 3],
}

/// Plays the counterexample, then lets everybody come to his end. Returns who took which step, and what is wrong.
pub(super) fn play<const TAGGED: bool>(
    scope: &Scope,
    scenario: &Scenario,
    counterexample: &Counterexample,
) -> Result<(Vec<Process>, Vec<String>), NotFollowed> {
    let execution = Directed::<TAGGED>::new(scope, 0, &Stops::Anywhere(scope.freezes()), true);
    let cpus = scope.cpus();
    let flushes = [1, 2, 3].map(|mm| (execution.mm(mm).flush_generation(), 0));
    let (seen, counts, wanted) = (vec![0; cpus], vec![[0; 64]; cpus], vec![[0; 64]; cpus]);
    let mut driver = Driver { execution, scenario, schedule: Vec::new(), seen, counts, wanted, last: None, flushes };
    driver.look();
    driver.wanted.clone_from(&driver.counts);
    let mut before = counterexample.first;
    for (i, (step, after)) in counterexample.steps.iter().enumerate() {
        driver.last = None;
        driver.follow(&before, *step, after).map_err(|why| {
            let told = in_words(scenario, counterexample, i + 1);
            match why {
                Why::NoCounterpart => NotFollowed::NoCounterpart(i + 1, told),
                Why::Elsewhere(where_) => NotFollowed::Elsewhere(i + 1, told, where_),
            }
        })?;
        before = *after;
    }
    driver.come_to_the_end();
    let findings = driver.execution.findings();
    Ok((driver.schedule, findings))
}

impl<const TAGGED: bool> Driver<'_, TAGGED> {
    /// One step of `process`.
    fn take(&mut self, process: Process) {
        let (cpu, kind) = Kind::of(process);
        self.last = self.execution.pending(cpu).filter(|_| kind == Kind::Program);
        self.execution.step(process, self.schedule.len() as StepNumber);
        self.schedule.push(process);
        self.look();
    }

    /// Counts the events that are new.
    fn look(&mut self) {
        let table = self.execution.table().map(|table| u64::from(table.0));
        for cpu in 0..self.seen.len() {
            for event in self.execution.events_since(cpu, self.seen[cpu]) {
                self.seen[cpu] += 1;
                let kind = EventKind::from_number(event.kind);
                let of_a_table = matches!(kind, Some(EventKind::WalkHolds | EventKind::Unlink));
                if !of_a_table || Some(event.a) == table {
                    self.counts[cpu][usize::from(event.kind) % 64] += 1;
                }
            }
        }
    }

    /// Runs the program of `cpu` until `there`.
    fn run(&mut self, cpu: usize, there: impl Fn(&Self) -> bool) -> Result<(), Why> {
        let program = Kind::Program.process(cpu);
        for _ in 0..MOST_STEPS {
            if there(self) {
                return Ok(());
            }
            if !self.execution.enabled(program) {
                let about = format!("cpu{cpu} waits, before {:?}", self.execution.pending(cpu));
                return Err(Why::Elsewhere(about));
            }
            self.take(program);
        }
        Err(Why::Elsewhere(format!("cpu{cpu} takes {MOST_STEPS} steps and is not there")))
    }

    /// Runs `cpu` until it has written one more event of this kind than the model has had.
    fn run_to_event(&mut self, cpu: usize, kind: EventKind) -> Result<(), Why> {
        let kind = usize::from(kind as u16);
        self.wanted[cpu][kind] += 1;
        let wanted = self.wanted[cpu][kind];
        self.run(cpu, |driver| driver.counts[cpu][kind] >= wanted)
    }

    /// An interruption of `cpu` comes.
    fn interrupt(&mut self, cpu: usize, kind: Kind) -> Result<(), Why> {
        let process = kind.process(cpu);
        if !self.execution.enabled(process) {
            return Err(Why::Elsewhere(format!("no {kind:?} can come to cpu{cpu}")));
        }
        self.take(process);
        Ok(())
    }

    fn run_handler(&mut self, cpu: usize, kind: Kind) -> Result<(), Why> {
        self.interrupt(cpu, kind)?;
        self.run(cpu, |driver| !driver.execution.inside(cpu, kind))
    }

    /// Runs the first CPU until the entry of `mm` is not empty.
    fn run_to_entry(&mut self, mm: u8) -> Result<(), Why> {
        let entry = self.execution.entry(mm);
        self.run(0, |_| entry.load(Ordering::Relaxed) != 0)
    }

    fn run_act(&mut self, cpu: usize) -> Result<(), Why> {
        // It is between two acts: into the next one, and out again.
        self.take(Kind::Program.process(cpu));
        self.run(cpu, |driver| driver.execution.is_between_acts(cpu))
    }

    fn follow(&mut self, before: &State, step: Step, after: &State) -> Result<(), Why> {
        use Kind::{Freeze, Interrupt, Nmi};
        let was = |i: u8| before.cpus[usize::from(i)];
        let is = |i: u8| after.cpus[usize::from(i)];
        match step {
            Step::Operate | Step::Flush(_) => self.operate(before, after),
            Step::WalkBegin(i, _) => self.begin_walk(i.into()),
            Step::WalkOn(i) if self.scenario.two_words() && was(i).walk() == walk::READING => {
                self.read_a_word(i.into(), was(i).walk_mm(), after)
            }
            Step::WalkOn(i) => {
                let cleared = is(i).walk() == walk::HOLDING && is(i).walk_mm() == 0;
                self.walk_on(i.into(), was(i).walk(), cleared)
            }
            Step::WalkEnd(i) => self.run(i.into(), |driver| driver.execution.is_between_acts(i.into())),
            Step::NmiBegin(i, _) => {
                self.interrupt(i.into(), Nmi)?;
                self.begin_walk(i.into())
            }
            Step::NmiOn(i) => {
                let over = is(i).nested() == walk::NONE;
                if over {
                    return self.run(i.into(), |driver| !driver.execution.inside(i.into(), Nmi));
                }
                self.walk_on(i.into(), was(i).nested(), false)
            }
            Step::NmiEnd(i) => self.run(i.into(), |driver| !driver.execution.inside(i.into(), Nmi)),
            Step::SwitchBegin(i, _) => self.run(i.into(), |driver| driver.execution.says_switching(i.into())),
            Step::SwitchOn(i) => self.switch_on(i.into(), was(i).switch_to(), after),
            Step::BecomeLazy(i) | Step::LeaveLazy(i) | Step::Quiescent(i) => self.run_act(i.into()),
            Step::HandleFlush(i) | Step::HandleSync(i) => self.run_handler(i.into(), Interrupt),
            Step::Freeze(i) => {
                self.interrupt(i.into(), Freeze)?;
                self.run(i.into(), |driver| driver.execution.pending(i.into()) == Some(Access::Thaw))
            }
            Step::Resume(i) => self.run(i.into(), |driver| !driver.execution.inside(i.into(), Freeze)),
            // A store is seen at once here, and a broadcast arrives when it is waited for.
            Step::StoreVisible(_) | Step::UnlinkVisible | Step::BroadcastArrives(_) => Ok(()),
            // Caches hold all that they may, always.
            Step::FillTable(_) | Step::FillLeaf(_) => Ok(()),
            Step::PutBack => self.operate(before, after),
            Step::Fill(mm) => self.run_to_entry(mm),
            Step::Ask(_) | Step::OtherInterrupt(_) => Err(Why::NoCounterpart),
        }
    }

    /// A walk reads one more word of the entry of `mm`; the last of them may be all that it takes to hold the table.
    fn read_a_word(&mut self, cpu: usize, mm: u8, after: &State) -> Result<(), Why> {
        let entry = core::ptr::from_ref(self.execution.entry(mm)) as usize;
        self.run(cpu, |driver| driver.last == Some(Access::Load(entry)))?;
        let is = after.cpus[cpu];
        match (is.walk(), is.walk_mm()) {
            (walk::HOLDING, 0) => self.walk_on(cpu, walk::READING, true),
            (walk::HOLDING, _) if after.broken().is_none() => self.walk_on(cpu, walk::READING, false),
            _ => Ok(()),
        }
    }

    /// Up to where the walk has published itself, and has not passed its barrier yet.
    fn begin_walk(&mut self, cpu: usize) -> Result<(), Why> {
        self.run_to_event(cpu, EventKind::WalkBegin)?;
        let slot = range_of(&self.execution.cpu(cpu).walk_slot);
        let reader = self.scenario.walker == kernel::workload::walker::WalkerClass::Rcu;
        match self.scenario.publication {
            _ if reader => Ok(()),
            Publication::None => Ok(()),
            Publication::Store => {
                self.run(cpu, |driver| matches!(driver.last, Some(Access::Store(at)) if slot.contains(&at)))
            }
            Publication::StoreFence => self.run(cpu, |driver| driver.execution.pending(cpu) == Some(Access::Fence)),
            Publication::Exchange => {
                self.run(cpu, |driver| matches!(driver.last, Some(Access::Update(at)) if slot.contains(&at)))
            }
        }
    }

    fn walk_on(&mut self, cpu: usize, was: u8, cleared: bool) -> Result<(), Why> {
        if was == walk::PUBLISHED {
            return self.run(cpu, |driver| driver.last == Some(Access::Fence));
        }
        if cleared {
            // It has nothing in its hands, and is about to say so.
            return self.run(cpu, |driver| matches!(driver.execution.pending(cpu), Some(Access::Mark(_, true))));
        }
        self.run_to_event(cpu, EventKind::WalkHolds)
    }

    /// Up to where everything is that is so in `after`.
    fn switch_on(&mut self, cpu: usize, to: u8, after: &State) -> Result<(), Why> {
        let is = after.cpus[cpu];
        let id = CpuId(cpu as u16);
        if is.switch() == switching::NONE {
            return self.run(cpu, |driver| driver.execution.is_between_acts(cpu));
        }
        if to != 0 && is.in_mask(to) {
            self.run(cpu, |driver| driver.execution.mm(to).mask.contains(id))?;
        }
        if is.root() == to {
            self.run(cpu, |driver| driver.execution.translates_by(cpu, to))?;
        }
        Ok(())
    }

    /// The first CPU.
    fn operate(&mut self, before: &State, after: &State) -> Result<(), Why> {
        let waits = |driver: &Self| driver.execution.pending(0) == Some(Access::Wait);
        let mm = before.common.leaver();
        match (before.common.stage(), after.common.stage()) {
            (Stage::Linked, Stage::PagesBegun) | (Stage::Unlinked, Stage::FlushBegun) => {
                let (base, counted) = &mut self.flushes[usize::from(mm) - 1];
                *counted += 1;
                let generation = *base + *counted;
                self.run(0, |driver| driver.execution.mm(mm).flush_generation() >= generation)
            }
            (Stage::PagesBegun | Stage::FlushBegun, _) => {
                let kind = usize::from(EventKind::FlushEnd as u16);
                let wanted = self.wanted[0][kind] + 1;
                self.run(0, |driver| waits(driver) || driver.counts[0][kind] >= wanted)
            }
            (Stage::PagesWait | Stage::FlushWait, _) => self.run_to_event(0, EventKind::FlushEnd),
            (Stage::Linked, _) => self.run_to_event(0, EventKind::Unlink),
            (Stage::Flushed, Stage::Deciding) => Ok(()),
            (Stage::Deciding, now) => {
                self.read(ask::question(self.scenario, before))?;
                match now {
                    Stage::Linked => self.run_to_event(0, EventKind::StillLinked),
                    Stage::ReadersWait => {
                        self.run_to_event(0, EventKind::StillLinked)?;
                        self.run(0, waits)
                    }
                    Stage::Drained => self.run_to_event(0, EventKind::SyncElided),
                    Stage::SyncWait => {
                        let end = usize::from(EventKind::SyncEnd as u16);
                        self.run(0, |driver| waits(driver) || driver.counts[0][end] > driver.wanted[0][end])
                    }
                    Stage::GraceWait => self.run(0, waits),
                    _ => Ok(()),
                }
            }
            (Stage::SyncWait, _) => self.run_to_event(0, EventKind::SyncEnd),
            (Stage::GraceWait, _) => self.run_to_event(0, EventKind::Drained),
            (Stage::Drained, Stage::ReadersWait) => {
                self.run_to_event(0, EventKind::Reuse)?;
                self.run(0, waits)
            }
            (_, Stage::Done) if after.common.links(mm) => self.run_to_entry(mm),
            (Stage::Fresh, Stage::ReadersWait) => self.run(0, waits),
            (Stage::Fresh, _) => self.run_to_event(0, EventKind::Retire),
            // It goes on as soon as it is told to.
            (Stage::ReadersWait, _) => Ok(()),
            (Stage::Drained, _) => self.run_to_event(0, EventKind::Reuse),
            _ => Err(Why::NoCounterpart),
        }
    }

    /// The first CPU reads what the strategy asks for next.
    fn read(&mut self, question: Option<Question>) -> Result<(), Why> {
        let of = |driver: &Self, cpu: CpuId| driver.execution.cpu(cpu.index());
        let words = match question {
            None | Some(Question::ReadFence) => return Ok(()),
            Some(Question::Fence) => return self.run(0, |driver| driver.last == Some(Access::Fence)),
            Some(Question::Slot(cpu)) => range_of(&of(self, cpu).walk_slot),
            Some(Question::Loaded(cpu) | Question::Lazy(cpu)) => range_of(&of(self, cpu).loaded),
            Some(Question::Generation(cpu)) => range_of(&of(self, cpu).inbox),
        };
        self.run(0, |driver| matches!(driver.last, Some(Access::Load(at)) if words.contains(&at)))
    }

    /// What the counterexample is about has happened: everybody goes on to his end, the other CPUs before the first.
    fn come_to_the_end(&mut self) {
        let processes = self.execution.processes();
        for _ in 0..20 * MOST_STEPS {
            match (0..processes).rev().find(|process| self.execution.enabled(*process)) {
                Some(process) => self.take(process),
                None => return,
            }
        }
    }
}

/// The addresses of a value's words.
fn range_of<T>(value: &T) -> std::ops::Range<usize> {
    let start = core::ptr::from_ref(value) as usize;
    start..start + size_of::<T>()
}
