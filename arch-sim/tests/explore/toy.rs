//! Simulated CPUs of a few words and a few things to do, for the explorer's tests; random ones too.

use arch_sim::explore::hub::{Access, Command, Hub, Kind};
use arch_sim::explore::stops::Stops;
use arch_sim::explore::{Execution, Footprint, Process, Step, StepNumber};

/// What a CPU of these tests can do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Op {
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
pub(crate) fn flag(cpu: usize) -> usize {
    4 + cpu
}

pub(crate) use Op::*;

#[derive(Clone, Default, Debug)]
pub(crate) struct Program {
    pub(crate) cpus: Vec<Vec<Op>>,
    /// What each runs in a handler.
    pub(crate) handlers: Vec<Vec<Op>>,
    pub(crate) buffers: bool,
    /// How often each CPU but the first may be stopped.
    pub(crate) freezes: u32,
}

/// One level of what a CPU runs: a list, and the next of it.
#[derive(Clone, Debug)]
pub(crate) struct Frame {
    pub(crate) ops: Vec<Op>,
    pub(crate) next: usize,
    /// It is what a stopped CPU does: how far it is.
    pub(crate) stopped: Option<Stopped>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Stopped {
    Says,
    Waits,
    TakesBack,
}

#[derive(Clone)]
pub(crate) struct Toy {
    pub(crate) hub: Hub<usize>,
    pub(crate) memory: Vec<u64>,
    pub(crate) frames: Vec<Vec<Frame>>,
    pub(crate) handlers: Vec<Vec<Op>>,
    /// By CPU, everything that it has read.
    pub(crate) seen: Vec<Vec<u64>>,
}

impl Toy {
    pub(crate) fn new(program: &Program, stops: &Stops) -> Toy {
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

    pub(crate) fn announce(&mut self, cpu: usize) {
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

    pub(crate) fn run(&mut self, cpu: usize, access: Access) {
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

    pub(crate) fn outcome(&self) -> (Vec<Vec<u64>>, Vec<u64>, bool) {
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

pub(crate) type Outcome = (Vec<Vec<u64>>, Vec<u64>, bool);

pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n
    }

    pub(crate) fn op(&mut self, cpus: u64) -> Op {
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
    pub(crate) fn looking(&mut self) -> Program {
        let mut program = self.program();
        program.freezes = 1;
        for _ in 0..1 + self.below(2) {
            let other = 1 + self.below(program.cpus.len() as u64 - 1) as usize;
            let at = self.below(program.cpus[0].len() as u64 + 1) as usize;
            program.cpus[0].insert(at, Look(other));
        }
        program
    }

    pub(crate) fn program(&mut self) -> Program {
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
