//! The explorer of interleavings against one that knows nothing of partial orders: small programs on simulated CPUs,
//! random ones too, must come to the same outcomes by both.

use std::collections::BTreeSet;
use std::time::Duration;

use arch_sim::explore::dpor::{Ending, Limits, explore};
use arch_sim::explore::hub::{Access, Command, Hub, Kind};
use arch_sim::explore::schedule::Schedule;
use arch_sim::explore::stops::Stops;
use arch_sim::explore::{Execution, Footprint, Process, Step, StepNumber, pct};

/// What a CPU of these tests can do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Op {
    Load(usize),
    Store(usize, u64),
    Add(usize, u64),
    Fence,
    Mask,
    Unmask,
    Ring(usize, Kind),
    /// Waits until the word has this value.
    Until(usize, u64),
    /// Looks whether this CPU is stopped; if it is, it has something to make good.
    Look(usize),
}

/// The word that says whether a CPU is stopped: 1 if it is, 2 if it has something to make good.
fn flag(cpu: usize) -> usize {
    4 + cpu
}

use Op::*;

#[derive(Clone, Default, Debug)]
struct Program {
    cpus: Vec<Vec<Op>>,
    /// What each runs in a handler.
    handlers: Vec<Vec<Op>>,
    buffers: bool,
    /// How often each CPU but the first may be stopped.
    freezes: u32,
}

/// One level of what a CPU runs: a list, and the next of it.
#[derive(Clone, Debug)]
struct Frame {
    ops: Vec<Op>,
    next: usize,
    /// It is what a stopped CPU does: how far it is.
    stopped: Option<Stopped>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stopped {
    Says,
    Waits,
    TakesBack,
}

#[derive(Clone)]
struct Toy {
    hub: Hub<usize>,
    memory: Vec<u64>,
    frames: Vec<Vec<Frame>>,
    handlers: Vec<Vec<Op>>,
    /// By CPU, everything that it has read.
    seen: Vec<Vec<u64>>,
}

impl Toy {
    fn new(program: &Program, stops: &Stops) -> Toy {
        let cpus = program.cpus.len();
        let mut hub = Hub::new(cpus, program.buffers, |i| match stops {
            Stops::Anywhere(freezes) => freezes[i],
            Stops::Before(_) => 0,
        });
        if let Stops::Before(looks) = stops {
            looks.iter().enumerate().for_each(|(cpu, look)| hub.stop_before(cpu, flag(cpu), *look));
        }
        let mut toy = Toy {
            hub,
            memory: vec![0; 4 + cpus],
            frames: program.cpus.iter().map(|ops| vec![Frame { ops: ops.clone(), next: 0, stopped: None }]).collect(),
            handlers: program.handlers.clone(),
            seen: vec![Vec::new(); cpus],
        };
        (0..cpus).for_each(|cpu| toy.announce(cpu));
        toy
    }

    fn announce(&mut self, cpu: usize) {
        loop {
            let frame = self.frames[cpu].last().expect("a CPU has a program");
            let access = match frame.ops.get(frame.next) {
                _ if frame.stopped == Some(Stopped::Says) => Access::Store(flag(cpu)),
                _ if frame.stopped == Some(Stopped::Waits) => Access::Thaw,
                _ if frame.stopped == Some(Stopped::TakesBack) => Access::Update(flag(cpu)),
                Some(Look(other)) => Access::Update(flag(*other)),
                Some(Load(at) | Until(at, _)) => Access::Load(*at),
                Some(Store(at, _)) => Access::Store(*at),
                Some(Add(at, _)) => Access::Update(*at),
                Some(Fence) => Access::Fence,
                Some(Mask) => Access::Mask,
                Some(Unmask) => Access::Unmask,
                Some(Ring(target, kind)) => Access::Ring(*target, *kind),
                None if self.frames[cpu].len() == 1 => Access::Over,
                None => {
                    self.frames[cpu].pop();
                    self.hub.handler_done(cpu);
                    continue;
                }
            };
            return self.hub.announce(cpu, access);
        }
    }

    fn run(&mut self, cpu: usize, access: Access) {
        let frame = self.frames[cpu].last_mut().expect("a CPU has a program");
        if let Some(stopped) = frame.stopped {
            frame.stopped = match stopped {
                Stopped::Says => Some(Stopped::Waits),
                Stopped::Waits => Some(Stopped::TakesBack),
                Stopped::TakesBack => None,
            };
            if stopped == Stopped::Says && !self.hub.store(cpu, flag(cpu), flag(cpu), 1) {
                self.memory[flag(cpu)] = 1;
            }
            if stopped == Stopped::TakesBack {
                let owes = self.memory[flag(cpu)] == 2;
                self.memory[flag(cpu)] = 0;
                // Made good by what a handler does.
                let ops = if owes { self.handlers[cpu].clone() } else { Vec::new() };
                self.frames[cpu].last_mut().expect("it is what a stopped CPU does").ops = ops;
            }
            return self.announce(cpu);
        }
        let op = frame.ops[frame.next];
        if access == Access::Wait {
            return self.hub.announce(
                cpu,
                Access::Load(match op {
                    Until(at, _) => at,
                    _ => unreachable!("only this waits"),
                }),
            );
        }
        frame.next += 1;
        match op {
            Load(at) | Until(at, _) => {
                let value = self.hub.forwarded(cpu, at).unwrap_or(self.memory[at]);
                if let Until(_, wanted) = op {
                    if value != wanted {
                        self.frames[cpu].last_mut().expect("a CPU has a program").next -= 1;
                        return self.hub.announce(cpu, Access::Wait);
                    }
                } else {
                    self.seen[cpu].push(value);
                }
            }
            Store(at, value) => {
                if !self.hub.store(cpu, at, at, value) {
                    self.memory[at] = value;
                }
            }
            Add(at, by) => {
                self.seen[cpu].push(self.memory[at]);
                self.memory[at] += by;
            }
            Look(other) => {
                let word = &mut self.memory[flag(other)];
                let stopped = *word != 0 && other != cpu;
                self.seen[cpu].push(stopped.into());
                if stopped {
                    *word = 2;
                }
            }
            Fence | Mask | Unmask | Ring(..) => {}
        }
        self.announce(cpu);
    }

    fn outcome(&self) -> (Vec<Vec<u64>>, Vec<u64>, bool) {
        (self.seen.clone(), self.memory.clone(), self.hub.all_over())
    }
}

impl Execution for Toy {
    fn processes(&self) -> usize {
        self.hub.processes()
    }
    fn next(&self, process: Process) -> Option<Footprint> {
        self.hub.next(process)
    }
    fn enabled(&self, process: Process) -> bool {
        self.hub.enabled(process)
    }
    fn step(&mut self, process: Process, number: StepNumber) -> Step {
        let pending = self.hub.pending(Kind::of(process).0);
        let (step, command) = self.hub.step(process, number);
        match command {
            Command::Run(cpu) => self.run(cpu, pending.expect("it has announced what it does")),
            Command::Write(_, at, value) => self.memory[at] = value,
            Command::Deliver(cpu, kind) => {
                let (ops, stopped) = match kind {
                    Kind::Freeze => (Vec::new(), Some(Stopped::Says)),
                    _ => (self.handlers[cpu].clone(), None),
                };
                self.frames[cpu].push(Frame { ops, next: 0, stopped });
                self.announce(cpu);
            }
        }
        step
    }
}

type Outcome = (Vec<Vec<u64>>, Vec<u64>, bool);

/// So many interleavings are looked at one by one; a program that has more is left out.
const MOST_ORDERS: u64 = 8_000;

/// Every interleaving, one by one.
fn all_orders(toy: &Toy, number: StepNumber, outcomes: &mut BTreeSet<Outcome>, runs: &mut u64) {
    if *runs > MOST_ORDERS {
        return;
    }
    let enabled = toy.all_enabled();
    if enabled == 0 {
        *runs += 1;
        outcomes.insert(toy.outcome());
    }
    for process in (0..toy.processes()).filter(|process| enabled >> process & 1 != 0) {
        let mut next = toy.clone();
        next.step(process, number);
        all_orders(&next, number + 1, outcomes, runs);
    }
}

const LIMITS: Limits = Limits { executions: 1_000_000, time: Duration::from_secs(600) };

/// The CPUs are stopped anywhere, as often as the program says.
fn anywhere(program: &Program) -> Stops {
    Stops::Anywhere((0..program.cpus.len()).map(|cpu| if cpu > 0 { program.freezes } else { 0 }).collect())
}

fn explored_with(program: &Program, stops: &Stops, outcomes: &mut BTreeSet<Outcome>) -> (u64, u32) {
    let mut looks = 0;
    let explored = explore(
        || Toy::new(program, stops),
        LIMITS,
        |toy, ending, _| {
            if ending == Ending::Complete {
                looks = looks.max(toy.hub.looks());
                outcomes.insert(toy.outcome());
            }
            true
        },
    );
    assert!(explored.exhausted, "{program:?}");
    (explored.executions, looks)
}

fn reduced(program: &Program) -> (BTreeSet<Outcome>, u64) {
    let mut outcomes = BTreeSet::new();
    let (executions, _) = explored_with(program, &anywhere(program), &mut outcomes);
    (outcomes, executions)
}

/// The same, with CPUs stopped where somebody looks.
fn reduced_by_looks(program: &Program) -> (BTreeSet<Outcome>, u64) {
    let (cpus, mut outcomes) = (program.cpus.len(), BTreeSet::new());
    let (mut executions, looks) = explored_with(program, &Stops::Before(vec![0; cpus]), &mut outcomes);
    let mut all = vec![vec![0]];
    (1..cpus).for_each(|_| all = all.iter().flat_map(|some| (0..=looks).map(|l| [&some[..], &[l]].concat())).collect());
    for stops in all.into_iter().skip(1) {
        executions += explored_with(program, &Stops::Before(stops), &mut outcomes).0;
    }
    (outcomes, executions)
}

/// Compares the two; how many runs each took, none where there would be too many.
fn same(program: &Program) -> (u64, u64) {
    let (mut outcomes, mut runs) = (BTreeSet::new(), 0);
    all_orders(&Toy::new(program, &anywhere(program)), 0, &mut outcomes, &mut runs);
    if runs > MOST_ORDERS {
        return (0, 0);
    }
    let (found, executions) = reduced(program);
    // A run that gets stuck never comes to what it would have depended on next. It is a finding by itself, so nothing
    // is lost: some such run is seen if there is any.
    let stuck = |outcomes: &BTreeSet<Outcome>| outcomes.iter().any(|(.., over)| !over);
    assert_eq!(stuck(&found), stuck(&outcomes), "{program:?}");
    assert!(found.is_subset(&outcomes), "{program:?}");
    assert!(found == outcomes || stuck(&found), "{program:?}: {found:?}, not {outcomes:?}");
    assert!(executions <= runs);
    (executions, runs)
}

fn program(cpus: &[&[Op]], buffers: bool) -> Program {
    let handlers = vec![Vec::new(); cpus.len()];
    Program { cpus: cpus.iter().map(|ops| ops.to_vec()).collect(), handlers, buffers, freezes: 0 }
}

/// The shape of every publication: both miss each other only where stores wait in buffers and no fence follows.
#[test]
fn store_buffering() {
    let both_zero = |program: &Program| reduced(program).0.iter().any(|(seen, ..)| seen == &vec![vec![0], vec![0]]);
    let plain: [&[Op]; 2] = [&[Store(0, 1), Load(1)], &[Store(1, 1), Load(0)]];
    let fenced: [&[Op]; 2] = [&[Store(0, 1), Fence, Load(1)], &[Store(1, 1), Fence, Load(0)]];
    let half: [&[Op]; 2] = [&[Store(0, 1), Fence, Load(1)], &[Store(1, 1), Load(0)]];
    assert!(!both_zero(&program(&plain, false)));
    assert!(both_zero(&program(&plain, true)));
    assert!(both_zero(&program(&half, true)));
    assert!(!both_zero(&program(&fenced, true)));
    // Both orders of two pairs of accesses, less the one that is no order.
    assert_eq!(reduced(&program(&plain, false)).1, 3);
}

/// Buffers are first in, first out: who sees the second store sees the first.
#[test]
fn message_passing() {
    let seen = reduced(&program(&[&[Store(0, 1), Store(1, 1)], &[Load(1), Load(0)]], true)).0;
    assert!(!seen.iter().any(|(seen, ..)| seen[1] == [1, 0]));
    assert!(seen.iter().any(|(seen, ..)| seen[1] == [0, 1]));
}

/// Steps that have nothing to do with each other are run in one order.
#[test]
fn independent_steps_are_one_interleaving() {
    let loads = [Load(0); 6];
    let stores = [Store(1, 1); 6];
    let (executions, runs) = same(&program(&[&loads, &stores], false));
    assert_eq!((executions, runs), (1, 924));
}

#[test]
fn interrupts_come_wherever_they_may() {
    let mut handled = program(
        &[&[Store(0, 1), Ring(1, Kind::Interrupt), Until(1, 1)], &[Load(0), Mask, Load(0), Unmask, Load(0)]],
        false,
    );
    handled.handlers[1] = vec![Load(0), Store(1, 1)];
    let (executions, runs) = same(&handled);
    assert!(0 < executions && executions < runs);
    handled.buffers = true;
    same(&handled);
    // An NMI asks nobody.
    handled.cpus[0][1] = Ring(1, Kind::Nmi);
    same(&handled);
    handled.cpus[0].push(Ring(1, Kind::Interrupt));
    handled.buffers = false;
    same(&handled);
}

struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n
    }

    fn op(&mut self, cpus: u64) -> Op {
        let at = self.below(2) as usize;
        match self.below(10) {
            0..3 => Load(at),
            3..6 => Store(at, 1 + self.below(2)),
            6 => Add(at, 4),
            7 => Fence,
            8 => Ring(self.below(cpus) as usize, if self.below(3) == 0 { Kind::Nmi } else { Kind::Interrupt }),
            _ => Until(at, 1),
        }
    }

    /// A program whose first CPU, which is not stopped, looks whether others are.
    fn looking(&mut self) -> Program {
        let mut program = self.program();
        program.freezes = 1;
        for _ in 0..1 + self.below(2) {
            let other = 1 + self.below(program.cpus.len() as u64 - 1) as usize;
            let at = self.below(program.cpus[0].len() as u64 + 1) as usize;
            program.cpus[0].insert(at, Look(other));
        }
        program
    }

    fn program(&mut self) -> Program {
        let cpus = 2 + self.below(2);
        let most = if cpus == 2 { 4 } else { 2 };
        let list = |random: &mut Random, most: u64| -> Vec<Op> {
            (0..1 + random.below(most)).map(|_| random.op(cpus)).collect()
        };
        let mut lists: Vec<Vec<Op>> = (0..cpus).map(|_| list(self, most)).collect();
        for ops in &mut lists {
            if self.below(3) == 0 {
                ops.insert(0, Mask);
                ops.push(Unmask);
            }
        }
        let simple = |op: &Op| matches!(op, Load(_) | Store(..) | Add(..));
        let handlers = (0..cpus).map(|_| list(self, 2).into_iter().filter(simple).collect()).collect();
        Program { cpus: lists, handlers, buffers: self.below(2) == 0, freezes: self.below(4) as u32 / 3 }
    }
}

/// Whatever some interleaving of a program comes to, the reduced ones come to as well, and to nothing else.
#[test]
fn random_programs_have_the_same_outcomes() {
    let (mut saved, mut compared) = ((0, 0), 0);
    for seed in 0..400 {
        let (executions, runs) = same(&Random(seed).program());
        saved = (saved.0 + executions, saved.1 + runs);
        compared += u64::from(runs > 0);
    }
    assert!(compared > 200, "{compared} programs were compared");
    assert!(saved.0 * 4 < saved.1, "{saved:?}");
}

/// CPUs that are stopped where somebody looks, and nowhere else, come to what they come to when they are stopped
/// anywhere; in fewer runs.
#[test]
fn stops_that_nobody_sees_change_nothing() {
    let (mut saved, mut compared, mut seen) = ((0, 0), 0, 0);
    for seed in 0..150 {
        let program = Random(seed).looking();
        let (anywhere, many) = reduced(&program);
        let (found, few) = reduced_by_looks(&program);
        let stuck = |outcomes: &BTreeSet<Outcome>| outcomes.iter().any(|(.., over)| !over);
        assert_eq!(stuck(&found), stuck(&anywhere), "{seed}: {program:?}");
        if stuck(&found) {
            continue;
        }
        let lost: Vec<&Outcome> = anywhere.difference(&found).collect();
        let added: Vec<&Outcome> = found.difference(&anywhere).collect();
        assert!(lost.is_empty() && added.is_empty(), "{seed}: {program:?}: lost {lost:?}, added {added:?}");
        saved = (saved.0 + few, saved.1 + many);
        compared += 1;
        let mut never = BTreeSet::new();
        explored_with(&program, &Stops::Before(vec![0; program.cpus.len()]), &mut never);
        seen += u32::from(never != anywhere);
    }
    assert!(compared > 80 && seen > 50, "{compared} programs were compared, {seen} of them notice stops");
    assert!(saved.0 * 2 < saved.1, "{saved:?}");
}

/// Runs by seeds come to nothing else, and their schedules replay from text.
#[test]
fn a_run_by_a_seed_replays() {
    let mut hits = 0;
    for seed in 0..100 {
        let program = Random(seed).program();
        let (outcomes, _) = reduced(&program);
        let mut toy = Toy::new(&program, &anywhere(&program));
        let schedule = Schedule(pct::run(&mut toy, seed, 12, 3));
        assert!(outcomes.contains(&toy.outcome()), "{program:?}");
        let written: Schedule = schedule.to_string().parse().expect("what was written reads");
        assert_eq!(written, schedule);
        let mut again = Toy::new(&program, &anywhere(&program));
        written.0.iter().enumerate().for_each(|(number, process)| {
            again.step(*process, number as StepNumber);
        });
        assert_eq!(again.outcome(), toy.outcome());
        hits += usize::from(outcomes.len() > 1);
    }
    assert!(hits > 20, "{hits} programs have more than one outcome");
}

#[test]
fn a_schedule_that_is_none_is_refused() {
    for text in ["cpu", "cpu1.what", "cpu0*x", "cpu99", "cpu0*99999999999"] {
        assert!(text.parse::<Schedule>().is_err(), "{text}");
    }
}
