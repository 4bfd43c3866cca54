//! What to run: the kernel command line, and the order of the cells that it stands for.
//!
//! Words are `key=value`, separated by spaces; lists are separated by commas; `all` stands for a whole list. Keys:
//! `strategies`, `transport`, `workloads`, `modes`, `walker`, `ops`, `seed`, `tries` (seeds for a control that does not
//! fire, 1 if not given), `hook` (`auto`, `true`, `false`), `engine` (`icount`, `mttcg`), `inject` (`NAME:N` for each
//! fault of [`crate::injection`]: it strikes once in N), `pins` (one in N walks of the crowd pins), `balance` (`whole`:
//! [`workload::balance`]), `guards` (a mask, in hexadecimal, of [`mod@crate::guard`] to take away), `oracle` (`on`,
//! `off`: nothing is judged, to measure what it costs), `bench` (`walk`: measure walks instead, see
//! [`crate::workload::bench`]; `barriers`: [`crate::workload::store_buffer`]), `profile` (`true`: record a
//! [`crate::record::profile::Profile`] of each cell, in a build that writes events), `scenario` (a [`Script`]), `user`
//! (`true`: programs in user mode do the operations), `log`, `module` (where programs are, on machines whose firmware
//! does not say). Unknown words are refused, with the word in the message. Cells are ordered by strategy, then
//! workload, then mode, each in the order given.

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use crate::arch::Arch;
use crate::injection::{Fault, Odds};
use crate::scenario::script::{Script, ScriptError};
use crate::sync;
use crate::tlb::transport::{self, TransportId};
use crate::workload::cell::Cell;
use crate::workload::walker::WalkerClass;
use crate::workload::{self, WorkloadId, bench};

/// A name of the command line, and what it stands for in one line.
pub type Named = (&'static str, &'static str);

/// What the other CPUs do while the operations run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Mode {
    /// Walkers of the same mm, on other pages.
    Same = 0,
    /// Walkers of the same mm, on the range that the operation changes: where verdicts come from.
    Contend = 1,
    /// Walkers of another mm.
    Other = 2,
    /// Nothing.
    Idle = 3,
    /// Loops that read user memory of the same mm through the TLB.
    Spin = 4,
    /// The mm stays loaded but unused.
    Lazy = 5,
    /// The last CPU spins outside every mm, the bystander; walkers of the same mm on the others, on other pages.
    Isolated = 6,
    /// A scenario says what every CPU does ([`crate::scenario`]).
    Scripted = 7,
}

impl Mode {
    /// The name of [`Mode::Scripted`], which goes with a scenario and is not chosen like the others.
    pub const SCRIPTED: Named = ("scripted", "a scenario says what every CPU does, step by step");

    /// The modes to choose from, in the order of their numbers.
    pub const NAMES: &'static [Named] = &[
        ("same", "walkers of the same mm on every other CPU, on other pages"),
        ("contend", "walkers on every other CPU, on the very range that the operation changes"),
        ("other", "walkers of another mm on every other CPU"),
        ("idle", "every other CPU is idle"),
        ("spin", "every other CPU reads user memory of the same mm through its TLB"),
        ("lazy", "every other CPU is idle with the mm still loaded"),
        (
            "isolated",
            "as same, but the last CPU spins outside every mm and says how often and how long it is interrupted",
        ),
    ];

    /// The name of the mode with this number.
    pub fn name_of(n: u16) -> Option<&'static str> {
        Mode::NAMES.get(n as usize).or((n == Mode::Scripted as u16).then_some(&Mode::SCRIPTED)).map(|named| named.0)
    }

    /// The modes to choose from, in the order of their numbers.
    pub const ALL: [Mode; 7] =
        [Mode::Same, Mode::Contend, Mode::Other, Mode::Idle, Mode::Spin, Mode::Lazy, Mode::Isolated];
}

/// How the machine runs; the kernel only has to know whether it may arm timers to be interrupted at seeded moments.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Engine {
    /// One host thread, virtual time counts instructions.
    Icount,
    /// One host thread per CPU.
    Mttcg,
}

/// What to run.
#[derive(Clone, Debug)]
pub struct Suite {
    /// Indices in [`sync::NAMES`].
    pub strategies: Vec<usize>,
    /// How flushes travel.
    pub transport: TransportId,
    /// The static hook: found from the transport, or overridden.
    pub hook: bool,
    /// Which workloads.
    pub workloads: Vec<WorkloadId>,
    /// Which modes.
    pub modes: Vec<Mode>,
    /// Who walks, in mode `contend`.
    pub walker: WalkerClass,
    /// Operations per cell.
    pub ops: u64,
    /// Where all choices come from.
    pub seed: u64,
    /// Seeds for a control that does not fire with the first one; each is derived from the one before.
    pub tries: u64,
    /// How the machine runs.
    pub engine: Engine,
    /// Faults to inject.
    pub inject: Odds,
    /// In mode `contend`, one in so many walks of the crowd pins what it finds; 0 for none.
    pub pins: u32,
    /// References and pins are added up after each cell too.
    pub whole_balance: bool,
    /// Guards to take away.
    pub guards: u64,
    /// Whether the oracle judges. Without it nothing has a verdict: to measure what it costs.
    pub oracle: bool,
    /// Whether durations, interrupts and waiting memory are recorded ([`crate::record::profile`]).
    pub profile: bool,
    /// A program in user mode does the operations, and others of it are what the other CPUs run.
    pub user: bool,
    /// What to play in mode `scripted`.
    pub script: Option<Script>,
    /// What is run instead of cells.
    pub bench: Option<Instead>,
    cpus: u64,
}

/// What can be run instead of cells.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Instead {
    /// The cost of walks: [`crate::workload::bench`].
    Walks,
    /// The search for a missing barrier: [`crate::workload::store_buffer`].
    Barriers,
}

/// A word of the command line that cannot be granted.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SuiteError {
    /// Not `key=value`, or an unknown key.
    #[error("the kernel command line has an unknown word: {0}")]
    Word(String),
    /// A name that is not in the key's list.
    #[error("{key} knows no {name}")]
    Name {
        /// The key.
        key: &'static str,
        /// The name.
        name: String,
    },
    /// A number that is none, or is out of range.
    #[error("{key} wants a number of at least 1, not {value}")]
    Number {
        /// The key.
        key: &'static str,
        /// What was given.
        value: String,
    },
    /// A workload that no program can do.
    #[error("{0} is for scenarios, which programs do not play")]
    NoUserForm(&'static str),
    /// A scenario that makes no sense.
    #[error(transparent)]
    Scenario(#[from] ScriptError),
    /// A scenario with more actors than CPUs.
    #[error("the scenario needs {actors} CPUs, the machine has {cpus}")]
    TooFewCpus {
        /// Its actors.
        actors: usize,
        /// The machine's CPUs.
        cpus: u64,
    },
}

impl Suite {
    /// Reads the command line for a machine of `cpus` CPUs. What is not said is the default: every workload and
    /// strategy, modes `same`, `other` and `contend`, 64 operations, seed 1, the native transport, the hook that
    /// belongs to it.
    pub fn parse<A: Arch>(command_line: &str, cpus: usize) -> Result<Suite, SuiteError> {
        let mut suite = Suite {
            strategies: (0..sync::NAMES.len()).collect(),
            transport: TransportId::native::<A>(),
            hook: false,
            workloads: WorkloadId::ALL.to_vec(),
            modes: alloc::vec![Mode::Same, Mode::Other, Mode::Contend],
            walker: WalkerClass::Gup,
            ops: 64,
            seed: 1,
            tries: 1,
            engine: Engine::Icount,
            inject: Odds::NONE.with(Fault::Trylock, 4),
            pins: 0,
            whole_balance: false,
            guards: 0,
            oracle: true,
            profile: false,
            user: false,
            script: None,
            bench: None,
            cpus: cpus as u64,
        };
        let mut hook = None;
        for word in command_line.split_ascii_whitespace() {
            let (key, value) = word.split_once('=').ok_or_else(|| SuiteError::Word(word.to_string()))?;
            match key {
                "strategies" => suite.strategies = list("strategies", value, sync::NAMES)?,
                "transport" => {
                    let number = one("transport", value, transport::NAMES)? as u8;
                    suite.transport = TransportId::from_number(number).unwrap_or(suite.transport);
                }
                "workloads" => {
                    suite.workloads = match workload::STAGED.iter().position(|(name, _)| *name == value) {
                        Some(n) => alloc::vec![WorkloadId::STAGED[n]],
                        None => {
                            let (names, more) = (workload::NAMES, workload::PROGRAMS);
                            let ids = WorkloadId::ALL.into_iter().chain(WorkloadId::PROGRAMS);
                            let ids: Vec<WorkloadId> = ids.collect();
                            let numbers = list_of("workloads", value, names, more)?;
                            numbers.into_iter().map(|n| ids[n]).collect()
                        }
                    };
                }
                "modes" => {
                    let numbers = list("modes", value, Mode::NAMES)?;
                    suite.modes = numbers.into_iter().map(|n| Mode::ALL[n]).collect();
                }
                "walker" => suite.walker = WalkerClass::ALL[one("walker", value, WalkerClass::NAMES)?],
                "ops" => suite.ops = number("ops", value)?.max(1),
                "seed" => suite.seed = number("seed", value)?,
                "tries" => suite.tries = number("tries", value)?.max(1),
                "hook" => {
                    hook = match value {
                        "auto" => None,
                        "true" => Some(true),
                        "false" => Some(false),
                        _ => return Err(SuiteError::Name { key: "hook", name: value.to_string() }),
                    }
                }
                "engine" => {
                    suite.engine = match value {
                        "icount" => Engine::Icount,
                        "mttcg" => Engine::Mttcg,
                        _ => return Err(SuiteError::Name { key: "engine", name: value.to_string() }),
                    }
                }
                "inject" => {
                    for fault in value.split(',') {
                        let unknown = || SuiteError::Name { key: "inject", name: fault.to_string() };
                        let (name, n) = fault.split_once(':').ok_or_else(unknown)?;
                        let which = one("inject", name, Fault::NAMES).map_err(|_| unknown())?;
                        suite.inject = suite.inject.with_number(which, number("inject", n)? as u32);
                    }
                }
                "guards" => {
                    suite.guards = u64::from_str_radix(value, 16)
                        .map_err(|_| SuiteError::Number { key: "guards", value: value.to_string() })?;
                }
                "pins" => suite.pins = number("pins", value)? as u32,
                "balance" => match value {
                    "whole" => suite.whole_balance = true,
                    _ => return Err(SuiteError::Name { key: "balance", name: value.to_string() }),
                },
                "oracle" => match value {
                    "on" => suite.oracle = true,
                    "off" => suite.oracle = false,
                    _ => return Err(SuiteError::Name { key: "oracle", name: value.to_string() }),
                },
                "profile" => {
                    suite.profile = match value {
                        "true" => true,
                        "false" => false,
                        _ => return Err(SuiteError::Name { key: "profile", name: value.to_string() }),
                    }
                }
                "user" => {
                    suite.user = match value {
                        "true" => true,
                        "false" => false,
                        _ => return Err(SuiteError::Name { key: "user", name: value.to_string() }),
                    }
                }
                "scenario" => {
                    suite.script = Some(Script::parse(value)?);
                    suite.modes = alloc::vec![Mode::Scripted];
                }
                "bench" => match value {
                    "walk" => suite.bench = Some(Instead::Walks),
                    "barriers" => suite.bench = Some(Instead::Barriers),
                    _ => return Err(SuiteError::Name { key: "bench", name: value.to_string() }),
                },
                // The console's own, and the boot code's.
                "log" | "module" => {}
                _ => return Err(SuiteError::Word(word.to_string())),
            }
        }
        if let Some(id) = suite.workloads.iter().find(|id| suite.user && !id.has_user_form()) {
            return Err(SuiteError::NoUserForm(WorkloadId::name_of(*id as u16).unwrap_or_default()));
        }
        if let Some(actors) = suite.script.as_ref().map(|s| s.actors.len()).filter(|n| *n as u64 > suite.cpus) {
            return Err(SuiteError::TooFewCpus { actors, cpus: suite.cpus });
        }
        suite.hook = hook.unwrap_or(suite.transport.flush_implies_interrupt());
        Ok(suite)
    }

    /// Whether the operations of `workload` are done by programs: those of its own, or the one that does the suite's.
    pub fn by_program(&self, workload: WorkloadId) -> bool {
        workload.runs_programs() || self.user
    }

    /// The cells, in the order in which they run.
    pub fn cells(&self) -> impl Iterator<Item = Cell> + '_ {
        self.strategies.iter().flat_map(move |strategy| {
            self.workloads.iter().flat_map(move |workload| {
                let modes = if workload.runs_programs() { self.mode_of_programs() } else { &self.modes };
                modes.iter().map(move |mode| Cell { strategy: *strategy, workload: *workload, mode: *mode })
            })
        })
    }

    /// What the other CPUs do is the programs' business: `contend` says that the schedule is a seeded one, `idle` that
    /// it is left alone, for a measurement.
    fn mode_of_programs(&self) -> &'static [Mode] {
        if self.modes == [Mode::Idle] { &[Mode::Idle] } else { &[Mode::Contend] }
    }

    /// How many rows come out.
    pub fn rows(&self) -> usize {
        match self.bench {
            Some(Instead::Walks) => self.strategies.len() * bench::PAGES.len(),
            Some(Instead::Barriers) => self.strategies.len(),
            None => self.cells().count(),
        }
    }

    /// Mean time between the timer interrupts of one CPU: 2 µs per CPU, since virtual time is common to all. None where
    /// CPUs run freely.
    pub fn tick_ns(&self) -> u64 {
        match self.engine {
            Engine::Icount => 2000 * self.cpus,
            Engine::Mttcg => 0,
        }
    }
}

fn one(key: &'static str, name: &str, names: &[Named]) -> Result<usize, SuiteError> {
    names.iter().position(|(n, _)| *n == name).ok_or_else(|| SuiteError::Name { key, name: name.to_string() })
}

fn list(key: &'static str, value: &str, names: &[Named]) -> Result<Vec<usize>, SuiteError> {
    list_of(key, value, names, &[])
}

/// The same with `more` names behind `names`, for which `all` does not stand.
fn list_of(key: &'static str, value: &str, names: &[Named], more: &[Named]) -> Result<Vec<usize>, SuiteError> {
    if value == "all" {
        return Ok((0..names.len()).collect());
    }
    let names = [names, more].concat();
    value.split(',').map(|name| one(key, name, &names)).collect()
}

fn number(key: &'static str, value: &str) -> Result<u64, SuiteError> {
    value.parse().map_err(|_| SuiteError::Number { key, value: value.to_string() })
}
