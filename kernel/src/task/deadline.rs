//! When a wait ends. Each CPU counts its own ticks, and a thread may wait on one CPU after another: a number of ticks says
//! nothing without the CPU whose they are.

use crate::addr::CpuId;

/// When a wait is over: in ticks of the CPU where it began, and which that is. In one word, so that no tick of one CPU is
/// taken for another's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Deadline(u64);

impl Deadline {
    const CPU_BITS: u32 = 16;
    /// Of who waits for ever, or not.
    pub(crate) const NEVER: Deadline = Deadline(u64::MAX);

    /// `ticks` from `now` on, on `cpu`.
    pub(crate) fn after(cpu: CpuId, now: u64, ticks: u64) -> Deadline {
        // Later than any machine runs is never.
        let last = Deadline::NEVER.ticks() - 1;
        Deadline(now.saturating_add(ticks).min(last) << Deadline::CPU_BITS | u64::from(cpu.0))
    }

    pub(crate) const fn bits(self) -> u64 {
        self.0
    }

    pub(crate) const fn from_bits(bits: u64) -> Deadline {
        Deadline(bits)
    }

    /// By whose clock.
    pub(crate) fn cpu(self) -> CpuId {
        CpuId(self.0 as u16)
    }

    /// When, by that.
    pub(crate) fn ticks(self) -> u64 {
        self.0 >> Deadline::CPU_BITS
    }
}
