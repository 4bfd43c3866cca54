//! Faults that are injected: how often each strikes. By chance, so that a seed repeats them; never where nothing was
//! asked for, which draws no chance either.

use core::sync::atomic::{AtomicU32, Ordering};

use crate::arch::Arch;
use crate::smp::cpu::Cpu;
use crate::suite::Named;

/// A fault.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Fault {
    /// There is no frame for a gather's batch.
    Batch = 0,
    /// The lock of a parent is taken when it is tried.
    Trylock = 1,
    /// The queue of a CPU that is to be interrupted is full: whoever calls it has to wait for room.
    Queue = 2,
    /// The hypervisor takes a CPU away at a schedule point, for a while or until an interrupt for it comes. On the
    /// paravirtual transport it does so unasked.
    Freeze = 3,
}

/// How many faults there are.
const FAULTS: usize = Fault::NAMES.len();

impl Fault {
    /// All by name, in the order of their numbers.
    pub const NAMES: &'static [Named] = &[
        ("batch", "there is no frame for a gather's batch"),
        ("trylock", "the lock of a parent is taken when it is tried"),
        ("queue", "the queue of a CPU that is to be interrupted is full for a while"),
        ("freeze", "the hypervisor takes a CPU away at a schedule point, on any transport"),
    ];
}

/// By fault: it strikes once in so many times; 0 for never.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Odds([u32; FAULTS]);

impl Odds {
    /// Nothing is injected.
    pub const NONE: Odds = Odds([0; FAULTS]);

    /// The same, but for `fault`, which strikes once in `n` times.
    pub const fn with(mut self, fault: Fault, n: u32) -> Odds {
        self.0[fault as usize] = n;
        self
    }

    /// The same, but for the fault with this number in [`Fault::NAMES`].
    pub(crate) fn with_number(mut self, fault: usize, n: u32) -> Odds {
        self.0[fault] = n;
        self
    }

    /// Once in how many times `fault` strikes.
    pub const fn of(&self, fault: Fault) -> u32 {
        self.0[fault as usize]
    }
}

/// What is injected now.
#[derive(Default)]
pub struct Injection([AtomicU32; FAULTS]);

impl Injection {
    /// Injects by these odds from now on.
    pub fn set(&self, odds: Odds) {
        for (now, n) in self.0.iter().zip(odds.0) {
            now.store(n, Ordering::Relaxed);
        }
    }

    /// Whether `fault` strikes now.
    #[inline]
    pub(crate) fn strikes<A: Arch>(&self, cpu: &Cpu<A>, fault: Fault) -> bool {
        let n = self.0[fault as usize].load(Ordering::Relaxed);
        let strikes = n != 0 && cpu.chance.one_in(n.into());
        if strikes {
            cpu.ledger.injected.add(1);
        }
        strikes
    }
}
