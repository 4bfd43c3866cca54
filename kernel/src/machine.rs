//! The machine: all state of one booted kernel. There is one on hardware, and as many as one likes in a simulation.

use crate::addr::CpuId;
use crate::arch::Arch;
use crate::smp::cpu::Cpu;

/// All state of one booted kernel.
pub struct Machine<A: Arch> {
    /// The CPUs' areas, by number; all that the firmware named, started or not.
    pub cpus: &'static [&'static Cpu<A>],
}

impl<A: Arch> Machine<A> {
    /// The area of `id`.
    pub fn cpu(&self, id: CpuId) -> &'static Cpu<A> {
        self.cpus[id.index()]
    }
}
