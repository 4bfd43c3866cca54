//! All interleavings of a few CPUs, without those that differ in nothing: stateless re-execution with partial-order
//! reduction.
//!
//! Something that can be run again and again ([`Execution`]) consists of *processes*, each of which knows its next step
//! before it takes it. Two steps of different processes are *dependent* if they touch the same object and one of them
//! writes it, or if they are of one CPU; interleavings in which all dependent steps come in the same order have the
//! same outcome. [`dpor`] runs at least one of each such class: source sets and sleep sets (Abdulla, Aronis, Jonsson,
//! Sagonas: Optimal dynamic partial order reduction, POPL 2014, algorithm 1, Source-DPOR). [`pct`] runs some, by seeds,
//! where all are too many (Burckhardt, Kothari, Musuvathi, Nagarakatte: A randomized scheduler with probabilistic
//! guarantees of finding bugs, ASPLOS 2010).
//!
//! [`hub`] makes processes of simulated CPUs: each has one for its program, one for the delivery of its interrupts and
//! NMIs, and, where it has a store buffer, one for the buffer. It says what is possible, what depends on what, and what
//! enables what. A CPU that waits for others to change what it has read takes its next step only when one has: a round
//! of a wait that reads what it has read before changes nothing.
//!
//! [`stops`] says where the hypervisor stops a CPU: nowhere that nobody notices.
//!
//! [`schedule`] is how an interleaving is written down.

mod access;
pub mod dpor;
pub mod hub;
pub mod pct;
pub mod schedule;
pub mod stops;

/// Number of a process, below [`MOST_PROCESSES`].
pub type Process = usize;

/// As many as a set of processes has room for.
pub const MOST_PROCESSES: usize = 32;

/// Number of a step in its execution.
pub type StepNumber = u32;

/// An object that steps touch: the address of a word, or a number that is no address.
pub type Object = usize;

/// What a step touches.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Footprint {
    /// The CPU whose control it changes, if it is a step of one: steps of one CPU depend on each other.
    pub cpu: Option<u8>,
    /// An object, and whether it is written.
    pub touches: Option<(Object, bool)>,
    /// Objects that are read as well.
    pub reads: Vec<Object>,
}

impl Footprint {
    /// Whether steps with these footprints, of different processes, may not be exchanged.
    pub fn depends_on(&self, other: &Footprint) -> bool {
        let same_cpu = self.cpu.is_some() && self.cpu == other.cpu;
        same_cpu || self.conflicts(other) || other.conflicts(self)
    }

    /// Whether this writes what `other` touches.
    fn conflicts(&self, other: &Footprint) -> bool {
        let Some((object, true)) = self.touches else { return false };
        other.touches.is_some_and(|(touched, _)| touched == object) || other.reads.contains(&object)
    }
}

/// What a step was.
#[derive(Clone, Default, Debug)]
pub struct Step {
    /// What it touched.
    pub footprint: Footprint,
    /// Steps without which it would not have been possible, and which cannot come after it.
    pub enabled_by: [Option<StepNumber>; 2],
    /// A step of the same CPU, by another process, that it could have come before.
    pub rival: Option<StepNumber>,
    /// The last step of the same CPU, by another process.
    pub follows: Option<StepNumber>,
}

/// One run of something, step by step, from its beginning.
pub trait Execution {
    /// How many processes there are, for the whole run.
    fn processes(&self) -> usize;
    /// What the next step of `process` would touch; `None` if it can take none now.
    fn next(&self, process: Process) -> Option<Footprint>;
    /// Whether `process` can take a step now.
    fn enabled(&self, process: Process) -> bool;
    /// `process`, which can, takes its next step, which is number `number`.
    fn step(&mut self, process: Process, number: StepNumber) -> Step;

    /// The processes that can take a step now, one bit each.
    fn all_enabled(&self) -> u32 {
        (0..self.processes()).filter(|process| self.enabled(*process)).fold(0, |set, process| set | 1 << process)
    }
}
