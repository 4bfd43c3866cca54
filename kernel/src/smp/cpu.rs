//! One CPU's area: everything that belongs to it alone, or that others read of it.

use crate::addr::{CpuId, VirtAddr};
use crate::arch::Arch;

/// The area of one CPU. Lives for ever; reached by [`Arch::this_cpu`] or through [`crate::machine::Machine::cpus`].
#[repr(C, align(128))]
pub struct Cpu<A: Arch> {
    /// Its dense number.
    pub id: CpuId,
    /// Its hardware number (APIC id, MPIDR affinity).
    pub hw_id: u64,
    /// End of its kernel stack, which has an unmapped page below its lowest byte.
    pub stack_top: VirtAddr,
    /// What the architecture keeps here.
    pub arch: A::CpuLocal,
}
