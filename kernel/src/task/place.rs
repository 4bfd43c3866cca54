//! Where a thread runs: its CPU, the one that it shall go to, its priority.

use crate::addr::CpuId;

/// Where a thread runs, and with which priority: in one word, so that one comparison says whether two threads may
/// change places.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Place(u64);

impl Place {
    pub(crate) const HOME: u32 = 0;
    pub(crate) const WANTED: u32 = 16;
    pub(crate) const PRIORITY: u32 = 32;

    const HEAVY: u64 = 1 << 48;
    const STRANGE: u64 = 1 << 49;
    /// Where no thread runs.
    pub(crate) const NOWHERE: Place = Place(u64::MAX);

    /// The same, of a thread that takes more than a few instructions to move ([`super::user::UserContext::is_light`]). It is no
    /// other's.
    pub(crate) const fn heavy(self) -> Place {
        Place(self.0 | Place::HEAVY)
    }

    /// The same, of a thread of another process than the one that has its call.
    pub(crate) const fn strange(self) -> Place {
        Place(self.0 | Place::STRANGE)
    }

    /// The same, of any thread.
    pub(crate) const fn plain(self) -> Place {
        Place(self.0 & !(Place::HEAVY | Place::STRANGE))
    }

    pub(crate) const fn new(cpu: CpuId, priority: u8) -> Place {
        Place((cpu.0 as u64) << Place::HOME | (cpu.0 as u64) << Place::WANTED | (priority as u64) << Place::PRIORITY)
    }

    pub(crate) const fn from_bits(bits: u64) -> Place {
        Place(bits)
    }

    pub(crate) const fn bits(self) -> u64 {
        self.0
    }

    /// The CPU whose queue the thread goes into.
    pub(crate) const fn home(self) -> CpuId {
        CpuId((self.0 >> Place::HOME) as u16)
    }

    /// The CPU that it shall go to.
    pub(crate) const fn wanted(self) -> CpuId {
        CpuId((self.0 >> Place::WANTED) as u16)
    }

    pub(crate) const fn priority(self) -> u8 {
        (self.0 >> Place::PRIORITY) as u8
    }

    /// Whether it is to run on `cpu`, and nowhere else.
    pub(crate) fn is_at(self, cpu: CpuId) -> bool {
        self.home() == cpu && self.wanted() == cpu
    }
}
