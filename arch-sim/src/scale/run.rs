//! Programs on the event model: collapses by one CPU, and CPUs that leave shared tables all at once. Each operation is
//! unlink, flush, the strategy's decision, what it asks for.

use kernel::smp::cpu::Chance;
use kernel::tlb::transport::TransportId;

use super::ask::{Facts, Question, Wide, decide};
use super::costs::Preset;
use super::machine::{Call, Counts, Event, Machine, Walking};
use crate::model::scenario::Publication;
use crate::model::strategies::Listed;

/// Who does what.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Work {
    /// CPU 0 collapses, one after the other; so many CPUs (it among them) have the mm loaded, and so many of the others
    /// walk.
    Collapse {
        /// CPUs of the mm.
        mask: u32,
        /// Of these, the ones that walk.
        walkers: u32,
    },
    /// So many CPUs leave shared tables at once, each in an mm of its own; each table is taken for one whose last other
    /// sharer has left, so that a sync is asked for.
    Unshare {
        /// CPUs that leave.
        leavers: u32,
    },
}

/// One run.
#[derive(Clone, Debug)]
pub struct Setting {
    /// Its costs.
    pub costs: Preset,
    /// How flushes travel.
    pub transport: TransportId,
    /// The machine's CPUs.
    pub cpus: u32,
    /// The work.
    pub work: Work,
    /// Operations of each CPU that works.
    pub ops: u64,
    /// Its own work in each operation, whatever the strategy.
    pub other_ns: u64,
    /// Where walkers are in their walks.
    pub seed: u64,
}

/// How long a walk of the model is, and the time between two, of each walker.
const WALK_NS: u64 = 3_000;
const GAP_NS: u64 = 9_000;

/// What came out.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Outcome {
    /// Interrupts.
    pub counts: Counts,
    /// Operations done, by all.
    pub ops: u64,
    /// When the last one was over.
    pub took_ns: u64,
    /// The time of all operations together.
    pub latency_ns: u64,
}

/// Where an operation stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    Begin,
    Flush,
    Decide,
    Done,
}

struct Program {
    cpu: u32,
    stage: Stage,
    left: u64,
    began: u64,
    /// The machine's unlinks with its own.
    generation: u64,
}

/// What the strategy may see.
struct Seen<'m, 'p> {
    machine: &'m Machine<'p>,
    transport: TransportId,
    publishes: bool,
}

impl Facts for Seen<'_, '_> {
    fn cpus(&self) -> u32 {
        self.machine.cpus.len() as u32
    }
    fn transport(&self) -> TransportId {
        self.transport
    }
    fn loaded(&self, cpu: u32) -> Option<u32> {
        self.machine.cpus[cpu as usize].mm
    }
    fn slot(&self, cpu: u32) -> u64 {
        let cpu = &self.machine.cpus[cpu as usize];
        let walks = self.publishes && cpu.walking.is_some_and(|w| w.until(self.machine.now).is_some());
        if walks { cpu.mm.map_or(0, u64::from) } else { 0 }
    }
    fn acknowledged_generation(&self, cpu: u32) -> u64 {
        self.machine.cpus[cpu as usize].acknowledged_generation
    }
}

/// Runs `setting` under `strategy`.
pub fn run(setting: &Setting, strategy: &Listed) -> Outcome {
    let mut machine = Machine::new(&setting.costs, setting.cpus);
    let mut programs = stage(setting, &mut machine);
    let mut outcome = Outcome::default();
    for program in &programs {
        machine.at(0, Event::Go(program.cpu));
    }
    while let Some(cpu) = machine.next() {
        // Programs are of the first CPUs, in their order.
        let program = &mut programs[cpu as usize];
        match program.stage {
            Stage::Begin => {
                program.began = machine.now;
                machine.generation += 1;
                program.generation = machine.generation;
                program.stage = Stage::Flush;
                let time = machine.now + setting.other_ns;
                machine.at(time, Event::Go(cpu));
            }
            Stage::Flush => {
                program.stage = Stage::Decide;
                flush(setting, &mut machine, cpu);
            }
            Stage::Decide => {
                program.stage = Stage::Done;
                sync(setting, strategy, &mut machine, program);
            }
            Stage::Done => {
                outcome.ops += 1;
                outcome.latency_ns += machine.now - program.began;
                outcome.took_ns = machine.now;
                program.left -= 1;
                if program.left > 0 {
                    program.stage = Stage::Begin;
                    machine.at(machine.now, Event::Go(cpu));
                }
            }
        }
    }
    outcome.counts = machine.counts;
    outcome
}

/// Who has which mm, who walks, and who works.
fn stage(setting: &Setting, machine: &mut Machine<'_>) -> Vec<Program> {
    let chance = Chance::new(0);
    chance.seed(setting.seed, 0);
    let workers = match setting.work {
        Work::Collapse { mask, walkers } => {
            for cpu in 0..mask.min(setting.cpus) {
                machine.cpu(cpu).mm = Some(1);
                if (1..=walkers).contains(&cpu) {
                    let offset = chance.next() % (WALK_NS + GAP_NS);
                    machine.cpu(cpu).walking = Some(Walking { walk: WALK_NS, gap: GAP_NS, offset });
                }
            }
            1
        }
        Work::Unshare { leavers } => {
            for cpu in 0..leavers.min(setting.cpus) {
                machine.cpu(cpu).mm = Some(1 + cpu);
            }
            leavers.clamp(1, setting.cpus)
        }
    };
    let program = |cpu| Program { cpu, stage: Stage::Begin, left: setting.ops, began: 0, generation: 0 };
    (0..workers).inspect(|cpu| machine.cpu(*cpu).initiates = true).map(program).collect()
}

/// The others that have the mm of `cpu` loaded.
fn others_of(machine: &Machine<'_>, cpu: u32) -> Vec<u32> {
    let mm = machine.cpus[cpu as usize].mm;
    (0..machine.cpus.len() as u32).filter(|other| *other != cpu && machine.cpus[*other as usize].mm == mm).collect()
}

fn flush(setting: &Setting, machine: &mut Machine<'_>, cpu: u32) {
    let others = others_of(machine, cpu);
    let costs = &setting.costs;
    if setting.transport == TransportId::Ipi {
        machine.now += costs.invalidate.ns;
        return machine.call(cpu, &others, Call::Flush);
    }
    let takes = match others.is_empty() {
        true => costs.invalidate.ns,
        false => costs.broadcast.ns + costs.broadcast_per_cpu.ns * u64::from(setting.cpus),
    };
    machine.at(machine.now + takes, Event::Go(cpu));
}

fn sync(setting: &Setting, strategy: &Listed, machine: &mut Machine<'_>, program: &Program) {
    let cpu = program.cpu;
    let mm = machine.cpus[cpu as usize].mm;
    let by_interrupt = setting.transport == TransportId::Ipi;
    let decision = {
        let in_mask = |other: u32| machine.cpus[other as usize].mm == mm;
        let interrupted = |other: u32| by_interrupt && other != cpu && in_mask(other);
        let seen = Seen {
            machine,
            transport: setting.transport,
            publishes: !matches!(strategy.publication, Publication::None),
        };
        let question = Question {
            initiator: cpu,
            mm: mm.unwrap_or(0),
            generation: program.generation,
            in_mask: &in_mask,
            interrupted: &interrupted,
        };
        decide(strategy.decide, &seen, &question)
    };
    match decision {
        Wide::Interrupt(targets) => machine.call(cpu, &targets, Call::Sync),
        Wide::Elide(_) => {
            machine.counts.elided += 1;
            machine.at(machine.now, Event::Go(cpu));
        }
        Wide::Grace => machine.at(machine.now + setting.costs.grace.ns, Event::Go(cpu)),
        // Another table: a line that somebody else has freed.
        Wide::Fresh => machine.at(machine.now + setting.costs.line.ns, Event::Go(cpu)),
    }
}
