//! Waits with a bound: each says what it waits for, for the runner to read, and panics with the same words when it
//! takes too long.

use core::sync::atomic::Ordering;

use crate::addr::CpuId;
use crate::arch::Arch;
use crate::record::event::EventKind;
use crate::record::shared::Doing;
use crate::scenario;
use crate::smp::cpu::Cpu;
use crate::smp::rcu;

/// Rounds of [`Arch::relax`] after which a wait is taken for a deadlock. A round lets every other CPU run once, so
/// under `-icount` this is some 10 million slices; no wait of a correct run comes near it.
const BOUND: u64 = 10_000_000;
/// Rounds after which the state becomes visible to the runner: short waits cost nothing.
const VISIBLE: u64 = 64;

/// A wait under way.
pub struct Wait<A: Arch> {
    cpu: &'static Cpu<A>,
    doing: Doing,
    before: u32,
    rounds: u64,
}

impl<A: Arch> Wait<A> {
    /// Begins to wait.
    #[inline]
    pub fn new(cpu: &'static Cpu<A>, doing: Doing) -> Wait<A> {
        Wait { cpu, doing, before: cpu.status.doing.load(Ordering::Relaxed), rounds: 0 }
    }

    /// One more round; `whom` names the CPU that is waited for, if one is.
    #[inline]
    pub fn again(&mut self, whom: impl FnOnce() -> Option<CpuId>) {
        A::relax();
        rcu::quiescent(self.cpu);
        scenario::waits(self.cpu, self.doing);
        self.rounds += 1;
        if self.rounds == 1 {
            self.cpu.events.write(EventKind::WaitBegin, 0, self.doing as u64, 0);
        }
        if self.rounds.is_multiple_of(VISIBLE) {
            self.cold(whom());
        }
    }

    #[cold]
    fn cold(&mut self, whom: Option<CpuId>) {
        let status = &self.cpu.status;
        status.doing.store(self.doing as u32, Ordering::Relaxed);
        status.waits_for.store(whom.map_or(u32::MAX, |c| c.0.into()), Ordering::Relaxed);
        if self.rounds >= BOUND {
            match whom {
                Some(whom) => panic!("{} {} ({})", self.cpu.id, self.doing.in_words(), whom),
                None => panic!("{} {}", self.cpu.id, self.doing.in_words()),
            }
        }
    }

    /// Ends the wait.
    #[inline]
    pub fn done(self) {
        if self.rounds > 0 {
            self.cpu.events.write(EventKind::WaitEnd, 0, self.doing as u64, 0);
        }
        if self.rounds >= VISIBLE {
            self.cpu.status.doing.store(self.before, Ordering::Relaxed);
            self.cpu.status.waits_for.store(u32::MAX, Ordering::Relaxed);
        }
    }
}
