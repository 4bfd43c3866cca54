//! The collapse of small scopes. It fails while a walk has a reference, puts the table back and is tried again, by the
//! kernel's workload up to sixteen times. A walk that is under way takes one reference and drops it, so a second try
//! meets all that a first one has left behind it, and a third would meet nothing else; but each multiplies the places
//! to which interrupts can come.

use kernel::mm::collapse::{CollapseError, collapse_anon};
use kernel::smp::cpu::Cpu;
use kernel::workload::{OpError, Scene, Target};

use super::arch::Sim;

/// How often it is tried.
const TRIES: usize = 2;

/// A scene of [`kernel::workload::WorkloadId::CollapseAnon`], whose operation is tried that often.
pub(super) struct Retried<const TAGGED: bool>(pub(super) Box<dyn Scene<Sim<TAGGED>>>);

impl<const TAGGED: bool> Scene<Sim<TAGGED>> for Retried<TAGGED> {
    fn target(&self) -> Target<Sim<TAGGED>> {
        self.0.target()
    }

    fn prepare(&mut self, cpu: &'static Cpu<Sim<TAGGED>>, op: u64) -> Result<(), OpError> {
        self.0.prepare(cpu, op)
    }

    fn operate(&mut self, cpu: &'static Cpu<Sim<TAGGED>>, _op: u64) -> Result<(), OpError> {
        let target = self.0.target();
        for _ in 0..TRIES {
            match collapse_anon(cpu, &target.mm, target.range.start) {
                // Everything is as it was.
                Err(CollapseError::InUse(_)) => {}
                result => return Ok(result?),
            }
        }
        Ok(())
    }

    fn finish(self: Box<Self>, cpu: &'static Cpu<Sim<TAGGED>>) {
        self.0.finish(cpu);
    }
}
