//! The product of an experiment's lists: guests, and the cells in each; and what the simulated machine explores.
//!
//! A guest runs one strategy on one machine with one seed, all workloads and modes one after the other, so that no row
//! depends on what else is run.

use std::path::PathBuf;

use itertools::iproduct;
use serde_json::json;

use super::file::Experiment;
use super::model::{self, ModelWork};
use crate::arch::Arch;
use crate::build::{Kind, image_path};
use crate::programs;
use crate::qemu::{self, Launch};
use crate::records::Record;
use crate::records::condition::{KERNEL, PROGRAMS};
use crate::suite::{self, Engine, Suite};
use crate::table::JUDGED;

/// What is done, or not, as a whole.
#[derive(Clone, Debug)]
pub(crate) struct Unit {
    /// What its files are called.
    pub(crate) name: String,
    /// What is to be done.
    pub(crate) work: Work,
}

/// Whose work a unit is.
#[derive(Clone, Debug)]
pub(crate) enum Work {
    /// QEMU's.
    Guest(Box<GuestWork>),
    /// The simulated machine's.
    Model(ModelWork),
}

/// One guest, or two: the one with the rows, and the one in which instructions are counted.
#[derive(Clone, Debug)]
pub(crate) struct GuestWork {
    /// Which machine.
    pub(crate) arch: Arch,
    /// With so many CPUs.
    pub(crate) cpus: u32,
    /// What it runs.
    pub(crate) suite: Suite,
    /// Which repetition, from 1.
    pub(crate) repetition: u32,
    /// Whether instructions are counted as well.
    pub(crate) instructions: bool,
}

/// All units, in the order of the rows.
pub(crate) fn units(experiment: &Experiment) -> Vec<Unit> {
    let guests = guests(experiment).into_iter().map(|guest| Work::Guest(Box::new(guest)));
    let all = guests.chain(model::works(experiment).into_iter().map(Work::Model));
    all.enumerate().map(|(i, work)| Unit { name: format!("{:05}-{}", i + 1, work.name()), work }).collect()
}

/// The guests, each once.
fn guests(experiment: &Experiment) -> Vec<GuestWork> {
    let e = experiment;
    let product = iproduct!(
        &e.archs,
        &e.cpus,
        &e.engines,
        &e.transports,
        &e.strategies,
        &e.hooks,
        &e.walkers,
        &e.by,
        &e.seeds,
        1..=e.repetitions
    );
    let mut guests: Vec<GuestWork> = Vec::new();
    for (&arch, &cpus, &engine, &transport, &strategy, &hook, &walker, &by, &seed, repetition) in product {
        // Workloads of programs are done by programs in any case, and once.
        let workloads: Vec<&'static str> =
            e.workloads.iter().copied().filter(|name| by == e.by[0] || !suite::is_program(name)).collect();
        if workloads.is_empty() {
            continue;
        }
        let suite = Suite {
            strategies: vec![strategy],
            transport: Some(transport.unwrap_or(arch.native_transport())),
            workloads,
            modes: e.modes.clone(),
            walker,
            ops: e.ops,
            seed,
            hook,
            engine,
            inject: e.inject.clone(),
            without: e.without.clone(),
            user: by == PROGRAMS,
            profile: e.profile,
            log: None,
        };
        // Instructions depend neither on walkers nor on seeds: the first of them counts.
        let first = (walker, seed, repetition) == (e.walkers[0], e.seeds[0], 1);
        let instructions = e.instructions && first && engine == Engine::Icount;
        guests.push(GuestWork { arch, cpus, suite, repetition, instructions });
    }
    let mut seen = std::collections::HashSet::new();
    // A list may name the architecture's own transport twice, by its name and as "native".
    guests.retain(|g| seen.insert((g.arch, g.cpus, g.repetition, g.suite.command_line(g.arch.native_transport()))));
    guests
}

/// What is known of each row before it is run, but for what does not change which rows an expectation is about.
pub(crate) fn cells(experiment: &Experiment) -> Vec<Record> {
    let mut cells = Vec::new();
    for unit in guests(experiment).iter().filter(|unit| unit.repetition == 1) {
        for workload in &unit.suite.workloads {
            let by_programs = unit.suite.user || suite::is_program(workload);
            let judged = [JUDGED];
            // What the others do is the programs' business: see `kernel::suite`.
            let modes = if suite::is_program(workload) { &judged[..] } else { &unit.suite.modes };
            for mode in modes {
                let mut cell = Record::new();
                let pairs = [
                    ("arch", json!(unit.arch.name())),
                    ("cpus", json!(unit.cpus)),
                    ("transport", json!(unit.suite.transport)),
                    ("strategy", json!(unit.suite.strategies[0])),
                    ("workload", json!(workload)),
                    ("mode", json!(mode)),
                    ("walker", json!(unit.suite.walker)),
                    ("by", json!(if by_programs { PROGRAMS } else { KERNEL })),
                    ("engine", json!(unit.suite.engine.name())),
                    ("seed", json!(unit.suite.seed)),
                ];
                cell.extend(pairs.map(|(key, value)| (key.to_owned(), value)));
                cells.push(cell);
            }
        }
    }
    cells.extend(model::works(experiment).iter().flat_map(ModelWork::cells));
    cells
}

impl Work {
    fn name(&self) -> String {
        match self {
            Work::Guest(guest) => guest.name(),
            Work::Model(work) => format!("model-{}-{}-{}-sim", work.transport, work.strategy, work.walker),
        }
    }
}

impl Unit {
    /// Rows that it gives.
    pub(crate) fn cells(&self) -> usize {
        match &self.work {
            Work::Guest(guest) => guest.suite.cells(),
            Work::Model(work) => work.workloads.len(),
        }
    }

    /// Host threads that it keeps busy.
    pub(crate) fn threads(&self) -> usize {
        match &self.work {
            Work::Guest(guest) if guest.suite.engine == Engine::Mttcg => guest.cpus as usize,
            _ => 1,
        }
    }

    /// The guest that it is, if it is one.
    pub(crate) fn guest(&self) -> Option<&GuestWork> {
        match &self.work {
            Work::Guest(guest) => Some(guest),
            Work::Model(_) => None,
        }
    }
}

impl GuestWork {
    fn name(&self) -> String {
        let s = &self.suite;
        let words = [self.arch.name(), s.transport.unwrap_or("native"), s.strategies[0], s.walker, s.engine.name()];
        let by = if s.user { "-programs" } else { "" };
        format!(
            "{}{by}-hook-{}-cpus-{}-seed-{}-repetition-{}",
            words.join("-"),
            s.hook.word(),
            self.cpus,
            s.seed,
            self.repetition
        )
    }

    /// The images it boots.
    pub(crate) fn kinds(&self) -> &'static [Kind] {
        if self.instructions { &[Kind::Plain, Kind::Checking] } else { &[Kind::Checking] }
    }

    /// The machine, as a person can start it by hand.
    pub(crate) fn launch(&self, kind: Kind, qemu: PathBuf) -> Launch {
        let suite = if kind == Kind::Plain { self.suite.measurement() } else { self.suite.clone() };
        Launch {
            arch: self.arch,
            qemu,
            cpus: self.cpus,
            memory_mib: qemu::default_memory_mib(self.cpus),
            image: image_path(self.arch, kind),
            ram: format!("/dev/shm/{}-{}.ram", self.arch.name(), kind.name()).into(),
            serial: "/dev/stderr".into(),
            module: suite.runs_programs().then(|| programs::path(self.arch)),
            command_line: suite.command_line(self.arch.native_transport()),
            engine: suite.engine,
            gdb: false,
        }
    }
}
