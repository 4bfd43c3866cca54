//! Source-DPOR: at least one interleaving of each class, by running again and again.
//!
//! A *node* is a place in the run where a process was chosen. After each step its *races* are found: earlier steps of
//! other processes that it depends on, with nothing in between that orders the two. To see the other order, some
//! process that can begin it must be tried at the node of the earlier step: one of the *initials* of what came after
//! that step and does not depend on it. A process whose step was tried at a node *sleeps* in what is tried there next,
//! until a step comes that depends on its own: what it would lead to has been seen.

use std::time::{Duration, Instant};

use rustc_hash::FxHashMap;

use super::{Execution, Object, Process, StepNumber};

/// A place in the run where a process was chosen.
#[derive(Clone, Copy, Debug)]
struct Node {
    process: Process,
    /// Processes that could take a step.
    enabled: u32,
    /// Processes to try, those that were tried included.
    backtrack: u32,
    /// Processes that were tried to the end.
    done: u32,
    /// Processes that need not be tried.
    sleep: u32,
}

/// A step of the run under way.
#[derive(Clone, Copy, Debug)]
struct Event {
    process: Process,
    /// Which of its process, from 1 on.
    local: u32,
}

/// Who has touched an object last.
#[derive(Clone, Default, Debug)]
struct Touched {
    writer: Option<StepNumber>,
    /// Since then, the last of each process.
    readers: Vec<StepNumber>,
}

/// When to stop.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Not more runs than this.
    pub executions: u64,
    /// Not much longer than this.
    pub time: Duration,
}

/// How a run ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ending {
    /// No process can take a step.
    Complete,
    /// Every process that could take a step sleeps: the rest has been seen.
    Asleep,
    /// It took so many steps that it is taken for endless.
    TooLong,
}

/// What an exploration came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Explored {
    /// Complete runs: classes of interleavings.
    pub executions: u64,
    /// Runs that were given up because the rest had been seen.
    pub asleep: u64,
    /// Steps taken, those that led again to where something else was to be tried included.
    pub steps: u64,
    /// The longest run.
    pub longest: u32,
    /// Whether nothing was left to try.
    pub exhausted: bool,
}

/// Steps after which a run is taken for endless.
const TOO_LONG: usize = 1_000_000;

/// The exploration.
#[derive(Default)]
struct Search {
    stack: Vec<Node>,
    events: Vec<Event>,
    /// Vector clocks, one after the other: how many steps of each process come before or are the event.
    clocks: Vec<u32>,
    width: usize,
    last_of: Vec<Option<StepNumber>>,
    touched: FxHashMap<Object, Touched>,
    /// Steps from here on are taken for the first time.
    fresh_from: usize,
}

/// Runs `start` again and again until every class of interleavings has been seen, or `limits` are reached. `done` sees
/// each run at its end, with the processes that took its steps, and says whether to go on.
pub fn explore<E: Execution>(
    mut start: impl FnMut() -> E,
    limits: Limits,
    mut done: impl FnMut(&mut E, Ending, &[Process]) -> bool,
) -> Explored {
    let began = Instant::now();
    let mut search = Search::default();
    let mut explored = Explored::default();
    let mut schedule = Vec::new();
    loop {
        let mut execution = start();
        let ending = search.run(&mut execution);
        explored.steps += search.events.len() as u64;
        explored.longest = explored.longest.max(search.events.len() as u32);
        match ending {
            Ending::Asleep => explored.asleep += 1,
            Ending::Complete | Ending::TooLong => explored.executions += 1,
        }
        schedule.clear();
        schedule.extend(search.events.iter().map(|event| event.process));
        let go_on = done(&mut execution, ending, &schedule) && ending != Ending::TooLong;
        if !search.turn_back() {
            explored.exhausted = go_on;
            return explored;
        }
        if !go_on || explored.executions + explored.asleep >= limits.executions || began.elapsed() >= limits.time {
            return explored;
        }
    }
}

/// The processes of a set.
fn members(set: u32) -> impl Iterator<Item = Process> {
    (0..super::MOST_PROCESSES).filter(move |process| set >> process & 1 != 0)
}

impl Search {
    /// One run: along the stack, then as it comes.
    fn run<E: Execution>(&mut self, execution: &mut E) -> Ending {
        self.width = execution.processes();
        self.events.clear();
        self.clocks.clear();
        self.touched.clear();
        self.last_of = vec![None; self.width];
        let mut sleep = 0;
        for depth in 0..TOO_LONG {
            let fresh = depth >= self.fresh_from;
            if depth == self.stack.len() {
                let enabled = execution.all_enabled();
                if enabled == 0 {
                    return Ending::Complete;
                }
                let awake = enabled & !sleep;
                if awake == 0 {
                    return Ending::Asleep;
                }
                // Whoever is running goes on: a run has no more switches than it needs.
                let last = self.events.last().map_or(0, |event| 1 << event.process);
                let process = if awake & last != 0 { last } else { awake }.trailing_zeros() as Process;
                self.stack.push(Node { process, enabled, backtrack: 1 << process, done: 0, sleep });
            }
            let node = self.stack[depth];
            let sleeping = if fresh { (node.sleep | node.done) & !(1 << node.process) } else { 0 };
            let asleep: Vec<(Process, super::Footprint)> =
                members(sleeping).filter_map(|process| Some((process, execution.next(process)?))).collect();
            let step = execution.step(node.process, depth as StepNumber);
            sleep = asleep
                .iter()
                .filter(|(_, footprint)| !footprint.depends_on(&step.footprint))
                .fold(0, |set, (process, _)| set | 1 << process);
            self.record(node.process, &step, fresh);
        }
        Ending::TooLong
    }

    fn clock(&self, event: StepNumber) -> &[u32] {
        &self.clocks[event as usize * self.width..][..self.width]
    }

    /// Whether `event` comes before whatever has `clock`.
    fn is_before(&self, event: StepNumber, clock: &[u32]) -> bool {
        let event = self.events[event as usize];
        clock[event.process] >= event.local
    }

    fn join(&self, clock: &mut [u32], event: StepNumber) {
        clock.iter_mut().zip(self.clock(event)).for_each(|(mine, theirs)| *mine = (*mine).max(*theirs));
    }

    /// Writes the step down and, if it is taken for the first time, sees to its races.
    fn record(&mut self, process: Process, step: &super::Step, fresh: bool) {
        let number = self.events.len() as StepNumber;
        let mut clock = vec![0; self.width];
        let last = self.last_of[process];
        last.iter().chain(step.enabled_by.iter().flatten()).for_each(|event| self.join(&mut clock, *event));

        let mut candidates: Vec<StepNumber> = Vec::new();
        let footprint = &step.footprint;
        let touches = footprint.touches.iter().copied().chain(footprint.reads.iter().map(|object| (*object, false)));
        for (object, writes) in touches {
            let Some(touched) = self.touched.get(&object) else { continue };
            candidates.extend(touched.writer);
            if writes {
                candidates.extend(&touched.readers);
            }
        }
        candidates.retain(|event| self.events[*event as usize].process != process && !self.is_before(*event, &clock));
        let mut races = candidates.clone();
        races.retain(|event| {
            !candidates.iter().any(|other| other != event && self.is_before(*event, self.clock(*other)))
        });
        races.extend(step.rival);
        races.sort_unstable();
        races.dedup();

        candidates.iter().chain(&step.follows).for_each(|event| self.join(&mut clock, *event));
        let local = last.map_or(0, |event| self.events[event as usize].local) + 1;
        clock[process] = local;
        self.events.push(Event { process, local });
        self.clocks.extend_from_slice(&clock);
        self.last_of[process] = Some(number);
        for object in &footprint.reads {
            self.read(*object, number);
        }
        match footprint.touches {
            Some((object, true)) => {
                let touched = self.touched.entry(object).or_default();
                touched.writer = Some(number);
                touched.readers.clear();
            }
            Some((object, false)) => self.read(object, number),
            None => {}
        }
        if fresh {
            races.into_iter().for_each(|earlier| self.try_other_order(earlier, number));
        }
    }

    fn read(&mut self, object: Object, number: StepNumber) {
        let process = self.events[number as usize].process;
        let events = &self.events;
        let touched = self.touched.entry(object).or_default();
        touched.readers.retain(|event| events[*event as usize].process != process);
        touched.readers.push(number);
    }

    /// Sees to it that at the node of `earlier` something is tried that can lead to `later` coming first.
    fn try_other_order(&mut self, earlier: StepNumber, later: StepNumber) {
        // Of what is between and does not depend on `earlier`: each process' first step, and whether that can be the
        // very first.
        let mut first: Vec<Option<u32>> = vec![None; self.width];
        let (mut initials, mut length) = (0, 0);
        for number in earlier + 1..=later {
            if number != later && self.is_before(earlier, self.clock(number)) {
                continue;
            }
            length += 1;
            let event = self.events[number as usize];
            if first[event.process].is_some() {
                continue;
            }
            let clock = self.clock(number);
            if first.iter().zip(clock).all(|(first, seen)| first.is_none_or(|first| *seen < first)) {
                initials |= 1 << event.process;
            }
            first[event.process] = Some(event.local);
        }
        let wanted = self.events[later as usize].process;
        let node = &mut self.stack[earlier as usize];
        if initials & node.backtrack != 0 {
            return;
        }
        let possible = initials & node.enabled;
        if possible & 1 << wanted != 0 {
            node.backtrack |= 1 << wanted;
        } else if possible != 0 {
            node.backtrack |= 1 << possible.trailing_zeros();
        } else if length > 1 {
            node.backtrack |= node.enabled;
        }
        // Else `earlier` is what made `later` possible: there is no other order.
    }

    /// Goes back to the last node with something left to try; says whether there is one.
    fn turn_back(&mut self) -> bool {
        while let Some(node) = self.stack.last_mut() {
            node.done |= 1 << node.process;
            let left = node.backtrack & !node.done & !node.sleep;
            if left != 0 {
                node.process = left.trailing_zeros() as Process;
                self.fresh_from = self.stack.len() - 1;
                return true;
            }
            self.stack.pop();
        }
        false
    }
}
