//! A meter: what a run wants of its programs, and where they say when an operation begins and when it is over, so that
//! its interrupts and invalidations can be counted, and so that whoever watches the run sees that it goes on.
//!
//! Counted is what all CPUs do between the two calls, and what the bystander, the machine's last CPU, takes meanwhile.
//! One operation is under way at a time.

use alloc::sync::Arc;
use core::sync::atomic::Ordering;

use super::ObjectError;
use super::account::{Account, Paid, Price};
use crate::abi::name_words;
use crate::arch::Arch;
use crate::ledger::{Snapshot, Taken};
use crate::record::event::EventKind;
use crate::smp::cpu::Cpu;
use crate::smp::lock::Mutex;

/// What is to be done.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Plan {
    /// Operations.
    pub ops: u64,
    /// Where all choices come from.
    pub seed: u64,
    /// CPUs of the machine.
    pub cpus: u64,
    /// Number of the mode ([`crate::suite::Mode`]).
    pub mode: u64,
    /// Name of the workload.
    pub workload: &'static str,
}

impl Plan {
    /// As a program is told.
    pub fn words(&self) -> [u64; 7] {
        let [a, b, c] = name_words(self.workload);
        [self.ops, self.seed, self.cpus, self.mode, a, b, c]
    }
}

/// How often a program has measured how long something took, and what came out, in instructions.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Latencies {
    /// How often.
    pub times: u64,
    /// The shortest.
    pub least: u64,
    /// As many were shorter as were longer.
    pub median: u64,
    /// The longest.
    pub longest: u64,
}

/// Counts of all operations together.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Metered {
    /// How many were finished.
    pub ops: u64,
    /// By all CPUs.
    pub counts: Snapshot,
    /// From the begin of each to its end.
    pub instructions: u64,
    /// What the bystander took.
    pub bystander: Taken,
    /// What a program has told of its latencies.
    pub latencies: Latencies,
    /// How many tables programs know to have been about to be used again, if any of them has said so.
    pub syncs: Option<u64>,
}

/// What was counted, and of the operation under way what there was when it began.
#[derive(Default)]
struct State {
    open: Option<(Snapshot, Taken, u64)>,
    metered: Metered,
}

/// A meter.
pub struct Meter<A: Arch> {
    /// What is to be done.
    pub plan: Plan,
    state: Mutex<A, State>,
    _paid: Paid,
}

/// What all CPUs have counted so far.
fn totals<A: Arch>() -> Snapshot {
    A::machine().online().fold(Snapshot::default(), |sum, cpu| sum.plus(&cpu.ledger.snapshot()))
}

/// What the last CPU has taken so far.
fn taken<A: Arch>() -> Taken {
    A::machine().online().last().map(|cpu| cpu.ledger.taken()).unwrap_or_default()
}

impl<A: Arch> Meter<A> {
    /// A meter for `plan`; `payer` pays for the object.
    pub fn new(payer: &Arc<Account>, plan: Plan) -> Result<Arc<Meter<A>>, ObjectError> {
        let paid = payer.charge(Price::of::<Meter<A>>())?;
        Ok(Arc::new(Meter { plan, state: Mutex::<A, _>::new(State::default()), _paid: paid }))
    }

    /// An operation begins; one that is under way begins again.
    pub fn begin(&self, cpu: &Cpu<A>) {
        let mut state = self.state.lock();
        A::machine().operation.store(state.metered.ops, Ordering::Relaxed);
        cpu.events.write(EventKind::OperationBegin, 0, state.metered.ops, 0);
        state.open = Some((totals::<A>(), taken::<A>(), A::instructions()));
    }

    /// It is over: how many instructions it took.
    pub fn finish(&self, cpu: &Cpu<A>) -> Result<u64, ObjectError> {
        let mut state = self.state.lock();
        let (before, bystander, began) = state.open.take().ok_or(ObjectError::BadArgument(1))?;
        // Counted with the lock held, as in `begin`: nothing that began later is in what was there before.
        let now = (totals::<A>(), taken::<A>(), A::instructions());
        let metered = &mut state.metered;
        cpu.events.write(EventKind::OperationEnd, 0, metered.ops, 0);
        metered.ops += 1;
        metered.counts = metered.counts.plus(&now.0.since(&before));
        now.1.add_since(&bystander, &mut metered.bystander);
        let took = now.2.saturating_sub(began);
        metered.instructions = metered.instructions.saturating_add(took);
        A::machine().shared().progress.fetch_add(1, Ordering::Relaxed);
        Ok(took)
    }

    /// The run goes on; `syncs` more tables were about to be used again.
    pub fn progress(&self, syncs: u64) {
        let mut state = self.state.lock();
        // Whatever a program says here, it says of itself only.
        state.metered.syncs = Some(state.metered.syncs.unwrap_or(0).saturating_add(syncs));
        A::machine().shared().progress.fetch_add(1, Ordering::Relaxed);
    }

    /// A program has measured `latencies`.
    pub fn tell(&self, latencies: Latencies) {
        self.state.lock().metered.latencies = latencies;
    }

    /// What was counted so far.
    pub fn metered(&self) -> Metered {
        self.state.lock().metered
    }
}
