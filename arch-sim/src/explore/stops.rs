//! The hypervisor stops a CPU where somebody notices, and nowhere else.
//!
//! Whether a CPU is stopped others learn from one word, its *flag*: it says so there, others *look* by a
//! read-modify-write, and when the CPU goes on it takes the flag back. What can be chosen is the place in the CPU's
//! program, and which looks find the flag set. An exploration that lets the CPU stop anywhere, for any time, has a
//! class for each place with no look in between as well; each of those is the run without the stop over again, and they
//! are nearly all there are.
//!
//! So the first look that finds the flag set is chosen beforehand, by its number ([`Stops::Before`]; 0: no look does),
//! and explored for itself. The CPU stops when somebody has come to that look; the look is taken when the flag can be
//! seen; the CPU goes on at any time after it.
//!
//! **Nothing is lost.** Take a run in which the CPU stops, and the first look that finds it so. The CPU's program takes
//! no step while it is stopped, and what the stop itself changes, others can see by the flag alone. So the stop can be
//! moved behind every step of others that comes before that look, and before the look comes a step with which somebody
//! has come to it: the run that results is of the same outcome, and among those that are explored for that number. If
//! no look finds the flag set, the stop and what undoes it can be moved together, to before the CPU's next step, and
//! left out: the run with number 0. With a store buffer the flag is seen when it is written to memory, in the order of
//! the CPU's stores; the stop moves behind everything up to that.
//!
//! **Nothing is added.** Each run that is explored is one that a hypervisor may cause, which stops CPUs when it likes.
//! None ends with a look that waits for ever: a CPU can be stopped at any place. (Whoever looks is not stopped himself:
//! two that looked at each other could wait for each other, which would be found and told as a run that gets stuck.)
//!
//! `tests/explore` compares with stops that come anywhere: random programs come to the same outcomes.

use super::hub::Access;
use super::{Footprint, Object, StepNumber};

/// Where the hypervisor stops CPUs.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Stops {
    /// Anywhere; by CPU, how often.
    Anywhere(Vec<u32>),
    /// By CPU, the look that finds it stopped first, from 1 on; 0 for none.
    Before(Vec<u32>),
}

/// When one CPU is stopped.
#[derive(Clone, Debug)]
pub(super) struct Stop {
    owner: usize,
    flag: Object,
    /// The look that is to find it stopped, from 1 on.
    look: u32,
    /// Looks there have been.
    looks: u32,
    /// Somebody has come to that look, by these steps: his own, and the look before.
    reached: Option<[Option<StepNumber>; 2]>,
    /// The last look.
    last: Option<StepNumber>,
    stopped: bool,
    /// Others can see it, by this step.
    shown: Option<StepNumber>,
    /// That look.
    seen: Option<StepNumber>,
}

impl Stop {
    pub(super) fn new(owner: usize, flag: Object, look: u32) -> Stop {
        Stop { owner, flag, look, looks: 0, reached: None, last: None, stopped: false, shown: None, seen: None }
    }

    /// Whether `access` of `cpu` is a look.
    fn is_look(&self, cpu: usize, access: Access) -> bool {
        cpu != self.owner && access == Access::Update(self.flag)
    }

    /// `cpu` is about to do `access`; step `by` has brought it there.
    pub(super) fn announced(&mut self, cpu: usize, access: Access, by: Option<StepNumber>) {
        if self.is_look(cpu, access) && self.looks + 1 == self.look && self.reached.is_none() {
            self.reached = Some([by, self.last]);
        }
    }

    /// Whether the CPU can be stopped by now.
    pub(super) fn is_due(&self) -> bool {
        self.reached.is_some()
    }

    /// Whether `access` of `cpu` is the look that waits for the stop.
    pub(super) fn holds(&self, cpu: usize, access: Access) -> bool {
        self.is_look(cpu, access) && self.looks + 1 == self.look && self.shown.is_none()
    }

    /// Whether the CPU may go on, if it is stopped.
    pub(super) fn may_end(&self) -> bool {
        self.seen.is_some()
    }

    /// The CPU is stopped; returns the steps that made that possible.
    pub(super) fn stops(&mut self) -> [Option<StepNumber>; 2] {
        self.stopped = true;
        self.reached.unwrap_or_default()
    }

    /// The look, when the CPU goes on.
    pub(super) fn ended_by(&self) -> Option<StepNumber> {
        self.seen
    }

    /// Step `number`, of `cpu`'s program, is `access`; returns the step that made it possible, if it is the look.
    pub(super) fn taken(&mut self, cpu: usize, access: Access, number: StepNumber) -> Option<StepNumber> {
        if !self.is_look(cpu, access) {
            return None;
        }
        self.looks += 1;
        self.last = Some(number);
        let chosen = self.looks == self.look;
        if chosen {
            self.seen = Some(number);
        }
        self.shown.filter(|_| chosen)
    }

    /// Step `number` of `cpu` has this footprint.
    pub(super) fn wrote(&mut self, cpu: usize, footprint: &Footprint, number: StepNumber) {
        if cpu == self.owner && self.stopped && footprint.touches == Some((self.flag, true)) {
            self.shown.get_or_insert(number);
        }
    }

    /// How many looks there have been, where none was to find the CPU stopped.
    pub(super) fn looks(&self) -> u32 {
        if self.look == 0 { self.looks } else { 0 }
    }
}
