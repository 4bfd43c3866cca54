//! What one flush proved: the CPUs that acknowledged it from code that cannot run inside a walk.

use crate::addr::CpuId;
use crate::smp::mask::CpuMask;

/// The outcome of one completed flush of one mm. Only a transport makes one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub struct Coverage {
    acknowledged: CpuMask,
    interrupts: u32,
}

impl Coverage {
    /// `acknowledged` ran kernel code at interrupt level after the flush began (the initiator, which is in no walk,
    /// counts); `interrupts` of them were interrupted for it.
    pub(super) const fn new(acknowledged: CpuMask, interrupts: u32) -> Coverage {
        Coverage { acknowledged, interrupts }
    }

    /// What is known where nothing was flushed: that the initiator is in no walk.
    pub(crate) fn of_no_flush(initiator: CpuId) -> Coverage {
        Coverage { acknowledged: CpuMask::only(initiator), interrupts: 0 }
    }

    /// For tests and models, which have no flush to show for it.
    #[doc(hidden)]
    pub const fn claimed_by_a_model(acknowledged: CpuMask, interrupts: u32) -> Coverage {
        Coverage { acknowledged, interrupts }
    }

    /// The CPUs that have, since the flush began, been seen outside every walk that has interrupts masked.
    pub fn acknowledged(&self) -> &CpuMask {
        &self.acknowledged
    }

    /// How many CPUs were interrupted.
    pub fn interrupts(&self) -> u32 {
        self.interrupts
    }
}
