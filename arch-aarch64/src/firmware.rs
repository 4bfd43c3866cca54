//! What this crate needs to be told about the machine; the platform takes it from the devicetree.

use kernel::addr::PhysAddr;

/// How the firmware is called.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Conduit {
    /// By a hypervisor call: QEMU's own firmware, for a kernel that starts at EL1.
    Hvc,
    /// By a secure monitor call: where the kernel starts at EL2.
    Smc,
}

/// A contiguous range of redistributors.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RedistributorRegion {
    /// First register.
    pub start: PhysAddr,
    /// Bytes.
    pub bytes: u64,
}

/// Where the interrupt controller's registers are; all of them in the direct map as device memory.
#[derive(Clone, Copy, Debug)]
pub struct Gic {
    /// The distributor.
    pub distributor: PhysAddr,
    /// The redistributors, in the order of the CPUs.
    pub redistributors: &'static [RedistributorRegion],
}
