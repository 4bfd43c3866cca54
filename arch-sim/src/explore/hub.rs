//! Simulated CPUs as processes: what each may do next, what that touches, and what made it possible.
//!
//! A CPU's program stops before each access that others can notice and announces it ([`Access`]); the step is that
//! access and everything up to the next announcement. Beside its program a CPU has a process for each kind of
//! interruption, whose one step makes the CPU run a handler, and one for its store buffer (first in, first out; total
//! store order), whose steps write to memory. A load finds the youngest store of its own CPU to the same word; a fence
//! or a read-modify-write comes when the buffer is empty.
//!
//! Where an interruption comes is a choice of its own: its step depends on every step of its CPU. Where it could come
//! before the last step of the program, or, if interrupts were masked then, before they were masked, it is that step's
//! *rival*; and the program's first step after a handler is the rival of the interruption, before which it could have
//! come as well.

use std::collections::VecDeque;

use rustc_hash::FxHashMap;

pub use super::access::{Access, Command, KINDS, Kind};
use super::stops::Stop;
use super::{Footprint, Object, Process, Step, StepNumber};

#[derive(Clone, Copy, Debug)]
struct Store<W> {
    object: Object,
    word: W,
    value: u64,
    number: StepNumber,
}

/// A handler that runs.
#[derive(Clone, Copy, Debug)]
struct Handler {
    kind: Kind,
    number: StepNumber,
}

#[derive(Clone, Debug)]
struct CpuState<W> {
    pending: Option<Access>,
    /// The step that has brought it there.
    came: Option<StepNumber>,
    buffer: VecDeque<Store<W>>,
    last_drain: Option<StepNumber>,
    masked: bool,
    masked_by: Option<StepNumber>,
    handlers: Vec<Handler>,
    /// By kind: the ring that no handler has answered yet.
    rung: [Option<StepNumber>; KINDS],
    /// How often the hypervisor may still stop it.
    freezes: u32,
    /// How many NMIs may still come that nobody here has rung.
    nmis: u32,
    /// The last step of the program, and whether, before it, interrupts, NMIs and the hypervisor could come.
    last: Option<(StepNumber, [bool; KINDS])>,
    /// The last handler that has come to its end.
    returned: Option<Handler>,
    /// It came to its end since the program's last step.
    just_returned: bool,
    /// The last interruption since the program's last step.
    interrupted: Option<Handler>,
    /// What was read since the last wait, and when.
    reads: Vec<(Object, StepNumber)>,
    /// A handler has run since.
    woken: bool,
    /// Where the hypervisor stops it, if not anywhere.
    stop: Option<Stop>,
}

/// All CPUs. `W` is how the machine names a word in memory.
#[derive(Clone, Debug)]
pub struct Hub<W> {
    cpus: Vec<CpuState<W>>,
    buffers: bool,
    written: FxHashMap<Object, (StepNumber, usize)>,
    number: StepNumber,
    begun: bool,
    last_by: usize,
    /// A program has waited for something that it has not read through this: what it waits for is not known.
    pub blind_waits: u64,
}

/// What stands for an interrupt that is pending: no address.
fn flag(cpu: usize, kind: Kind) -> Object {
    usize::MAX - kind.process(cpu)
}

impl<W: Copy> Hub<W> {
    /// `cpus` CPUs, with store buffers or without; the hypervisor may stop each so often.
    pub fn new(cpus: usize, buffers: bool, freezes: impl Fn(usize) -> u32) -> Hub<W> {
        let cpu = |i| CpuState {
            pending: None,
            came: None,
            buffer: VecDeque::new(),
            last_drain: None,
            masked: false,
            masked_by: None,
            handlers: Vec::new(),
            rung: [None; KINDS],
            freezes: freezes(i),
            nmis: 0,
            last: None,
            returned: None,
            just_returned: false,
            interrupted: None,
            reads: Vec::new(),
            woken: false,
            stop: None,
        };
        Hub {
            cpus: (0..cpus).map(cpu).collect(),
            buffers,
            written: FxHashMap::default(),
            number: 0,
            begun: false,
            last_by: 0,
            blind_waits: 0,
        }
    }

    /// So many NMIs may come to `cpu` that nobody here rings.
    pub fn expect_nmis(&mut self, cpu: usize, count: u32) {
        self.cpus[cpu].nmis = count;
    }

    /// The hypervisor stops `cpu` before look number `look` of others at `flag`, from 1 on; for 0 never.
    pub fn stop_before(&mut self, cpu: usize, flag: Object, look: u32) {
        self.cpus[cpu].freezes = look.min(1);
        self.cpus[cpu].stop = Some(Stop::new(cpu, flag, look));
    }

    /// How often others have looked at the flag of one CPU, at most; see [`Hub::stop_before`].
    pub fn looks(&self) -> u32 {
        self.stops().map(Stop::looks).max().unwrap_or(0)
    }

    fn stops(&self) -> impl Iterator<Item = &Stop> {
        self.cpus.iter().filter_map(|cpu| cpu.stop.as_ref())
    }

    /// How many processes there are.
    pub fn processes(&self) -> usize {
        self.cpus.len() * KINDS
    }

    /// The program of `cpu` stops before this.
    pub fn announce(&mut self, cpu: usize, access: Access) {
        self.cpus[cpu].pending = Some(access);
        self.cpus[cpu].came = self.begun.then_some(self.number);
        self.tell_stops(cpu);
    }

    /// What `cpu` is about to do may be what the hypervisor waits for.
    fn tell_stops(&mut self, cpu: usize) {
        let CpuState { pending: Some(access), came, .. } = self.cpus[cpu] else { return };
        self.cpus.iter_mut().filter_map(|cpu| cpu.stop.as_mut()).for_each(|stop| stop.announced(cpu, access, came));
    }

    /// What the program of `cpu` is about to do.
    pub fn pending(&self, cpu: usize) -> Option<Access> {
        self.cpus[cpu].pending
    }

    /// Whether interrupts are masked on `cpu`.
    pub fn masked(&self, cpu: usize) -> bool {
        self.cpus[cpu].masked
    }

    /// Whether `cpu` runs a handler of this kind.
    pub fn inside(&self, cpu: usize, kind: Kind) -> bool {
        self.cpus[cpu].handlers.iter().any(|handler| handler.kind == kind)
    }

    /// Whether every program is over.
    pub fn all_over(&self) -> bool {
        self.cpus.iter().all(|cpu| cpu.pending == Some(Access::Over) && cpu.handlers.is_empty())
    }

    /// The handler that `cpu` runs has come to its end.
    pub fn handler_done(&mut self, cpu: usize) {
        let cpu = &mut self.cpus[cpu];
        cpu.returned = cpu.handlers.pop();
        cpu.just_returned = true;
        cpu.woken = true;
        if cpu.returned.is_some_and(|handler| handler.kind == Kind::Interrupt) {
            cpu.masked = false;
        }
    }

    /// The value of a store of `cpu` to `object` that is still in its buffer.
    pub fn forwarded(&self, cpu: usize, object: Object) -> Option<u64> {
        self.cpus[cpu].buffer.iter().rev().find(|store| store.object == object).map(|store| store.value)
    }

    /// `cpu` stores: true if that is in its buffer now, false if the machine has to write it.
    pub fn store(&mut self, cpu: usize, object: Object, word: W, value: u64) -> bool {
        if self.buffers {
            self.cpus[cpu].buffer.push_back(Store { object, word, value, number: self.number });
        }
        self.buffers
    }

    /// Whether an interruption of this kind could come now.
    fn deliverable(cpu: &CpuState<W>, kind: Kind) -> bool {
        let inside = |kind| cpu.handlers.iter().any(|handler| handler.kind == kind);
        match kind {
            Kind::Interrupt => !cpu.masked && cpu.handlers.is_empty(),
            Kind::Nmi => !inside(Kind::Nmi) && !inside(Kind::Freeze),
            // Also when its program is over, where it does nothing: a run ends when it has come.
            Kind::Freeze => !inside(Kind::Freeze),
            Kind::Program | Kind::Buffer => false,
        }
    }

    /// Whether `process` can take a step.
    pub fn enabled(&self, process: Process) -> bool {
        let (index, kind) = Kind::of(process);
        let cpu = &self.cpus[index];
        match kind {
            Kind::Buffer => !cpu.buffer.is_empty(),
            Kind::Interrupt => cpu.rung[kind as usize].is_some() && Self::deliverable(cpu, kind),
            Kind::Nmi => (cpu.rung[kind as usize].is_some() || cpu.nmis > 0) && Self::deliverable(cpu, kind),
            Kind::Freeze => {
                cpu.freezes > 0 && Self::deliverable(cpu, kind) && cpu.stop.as_ref().is_none_or(Stop::is_due)
            }
            Kind::Program if cpu.pending.is_some_and(|access| self.stops().any(|stop| stop.holds(index, access))) => {
                false
            }
            Kind::Program => match cpu.pending {
                None | Some(Access::Over) => false,
                Some(Access::Update(_) | Access::Fence) => cpu.buffer.is_empty(),
                Some(Access::Wait) => self.may_go_on(index),
                Some(Access::Thaw) => cpu.stop.as_ref().is_none_or(Stop::may_end),
                Some(_) => true,
            },
        }
    }

    fn may_go_on(&self, index: usize) -> bool {
        let cpu = &self.cpus[index];
        if cpu.reads.is_empty() {
            // It waits for something that was not seen here, like a lock: when anybody else has done anything.
            return cpu.woken || self.last_by != index;
        }
        let changed = |(object, when): &(Object, StepNumber)| {
            self.written.get(object).is_some_and(|(number, by)| number > when && *by != index)
        };
        cpu.woken || cpu.reads.iter().any(changed)
    }

    /// What the next step of `process` would touch, if it can take one.
    pub fn next(&self, process: Process) -> Option<Footprint> {
        if !self.enabled(process) {
            return None;
        }
        let (index, kind) = Kind::of(process);
        let cpu = &self.cpus[index];
        let own = Some(index as u8);
        Some(match kind {
            Kind::Buffer => {
                Footprint { touches: cpu.buffer.front().map(|store| (store.object, true)), ..Footprint::default() }
            }
            Kind::Freeze => Footprint { cpu: own, ..Footprint::default() },
            Kind::Interrupt | Kind::Nmi => {
                Footprint { cpu: own, touches: Some((flag(index, kind), true)), reads: Vec::new() }
            }
            Kind::Program => {
                let mut footprint = Footprint { cpu: own, ..Footprint::default() };
                match cpu.pending? {
                    Access::Load(object) => footprint.touches = Some((object, false)),
                    Access::Store(object) if !self.buffers => footprint.touches = Some((object, true)),
                    Access::Update(object) => footprint.touches = Some((object, true)),
                    Access::Mark(object, changed) => footprint.touches = Some((object, changed)),
                    Access::Ring(target, kind) => footprint.touches = Some((flag(target, kind), true)),
                    Access::Wait => footprint.reads = cpu.reads.iter().map(|(object, _)| *object).collect(),
                    _ => {}
                }
                footprint
            }
        })
    }

    /// `process` takes its next step: what it is, and what the machine has to do.
    pub fn step(&mut self, process: Process, number: StepNumber) -> (Step, Command<W>) {
        let (index, kind) = Kind::of(process);
        let footprint = self.next(process).expect("a process that can take a step was chosen");
        (self.number, self.begun) = (number, true);
        self.last_by = index;
        if let Some(stop) = &mut self.cpus[index].stop {
            stop.wrote(index, &footprint, number);
        }
        if let Some((object, true)) = footprint.touches {
            self.written.insert(object, (number, index));
        }
        let mut step = Step { footprint, ..Step::default() };
        let command = match kind {
            Kind::Buffer => {
                let cpu = &mut self.cpus[index];
                let store = cpu.buffer.pop_front().expect("its buffer is not empty");
                cpu.last_drain = Some(number);
                step.enabled_by[0] = Some(store.number);
                Command::Write(index, store.word, store.value)
            }
            Kind::Program => {
                self.program(index, number, &mut step);
                Command::Run(index)
            }
            Kind::Interrupt | Kind::Nmi | Kind::Freeze => {
                self.interrupt(index, kind, number, &mut step);
                Command::Deliver(index, kind)
            }
        };
        (step, command)
    }

    fn program(&mut self, index: usize, number: StepNumber, step: &mut Step) {
        let access = self.cpus[index].pending.take().expect("it has announced what it does");
        let stops = self.cpus.iter_mut().filter_map(|cpu| cpu.stop.as_mut());
        step.enabled_by[1] = stops.filter_map(|stop| stop.taken(index, access, number)).last();
        (0..self.cpus.len()).for_each(|cpu| self.tell_stops(cpu));
        let cpu = &mut self.cpus[index];
        step.follows = cpu.interrupted.take().map(|handler| handler.number);
        if std::mem::take(&mut cpu.just_returned) {
            step.rival = cpu.returned.map(|handler| handler.number);
        }
        let mut open = [false; KINDS];
        Kind::ALL.into_iter().for_each(|kind| open[kind as usize] = Self::deliverable(cpu, kind));
        cpu.last = Some((number, open));
        match access {
            Access::Load(object) => cpu.reads.push((object, number)),
            Access::Update(object) => {
                cpu.reads.push((object, number));
                step.enabled_by[0] = cpu.last_drain;
            }
            Access::Fence => step.enabled_by[0] = cpu.last_drain,
            Access::Mask => {
                cpu.masked = true;
                cpu.masked_by = Some(number);
            }
            Access::Unmask => cpu.masked = false,
            Access::Wait => {
                if cpu.reads.is_empty() {
                    self.blind_waits += 1;
                }
                cpu.reads.clear();
                cpu.woken = false;
            }
            Access::Ring(target, kind) => {
                let rung = &mut self.cpus[target].rung[kind as usize];
                *rung = rung.or(Some(number));
            }
            Access::Thaw => step.enabled_by[0] = cpu.stop.as_ref().and_then(Stop::ended_by),
            Access::Store(_) | Access::Mark(..) | Access::Pause | Access::Over => {}
        }
    }

    fn interrupt(&mut self, index: usize, kind: Kind, number: StepNumber, step: &mut Step) {
        let cpu = &mut self.cpus[index];
        step.follows = cpu.interrupted.map(|handler| handler.number).or(cpu.last.map(|(number, _)| number));
        step.enabled_by[0] = cpu.rung[kind as usize].take();
        if kind == Kind::Nmi && step.enabled_by[0].is_none() {
            cpu.nmis -= 1;
        }
        step.rival = match cpu.last {
            _ if cpu.interrupted.is_some() => {
                cpu.interrupted.filter(|handler| handler.kind != kind).map(|handler| handler.number)
            }
            Some((last, open)) if open[kind as usize] => Some(last),
            // It could not come before the last step of the program, so not before what shut it out.
            Some(_) if kind == Kind::Interrupt && cpu.returned.is_none_or(|h| Some(h.number) < cpu.masked_by) => {
                cpu.masked_by
            }
            _ => cpu.returned.filter(|handler| handler.kind != kind).map(|handler| handler.number),
        };
        if kind == Kind::Freeze {
            cpu.freezes -= 1;
            step.enabled_by = cpu.stop.as_mut().map(Stop::stops).unwrap_or_default();
        }
        if kind == Kind::Interrupt {
            cpu.masked = true;
        }
        cpu.handlers.push(Handler { kind, number });
        cpu.interrupted = Some(Handler { kind, number });
    }
}
