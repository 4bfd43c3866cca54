//! The bystander of mode `isolated`: a CPU that spins outside every mm, as a program does that was given a CPU of its
//! own, and says what interrupts it.
//!
//! How often is in its ledger. How long is measured by its loop: it reads the instruction counter again and again, and
//! the longest step from one reading to the next is the gap, the loop's own few instructions included.
//!
//! Under `-icount` the counter counts the instructions of all CPUs, one of which runs at a time. So that the gap has
//! this CPU's instructions only, it gives way to the others with interrupts masked and unmasks them between two
//! readings: what was sent to it meanwhile it takes there, and nothing else runs between the two. The gap is then exact
//! and the same in every run: entry and exit of the interrupt, the handler, and what it invalidates. Without `-icount`
//! it is in ticks of the CPU's own counter, and whatever the host does is in it.
//!
//! Grace periods do not wait for it: it is outside the kernel, like an idle CPU.

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::arch::Arch;
use crate::smp::cpu::Cpu;
use crate::smp::rcu;

/// Readings after each turn of the others. An interrupt that was pending comes before the second or the third: on
/// x86_64 one instruction later than it is unmasked.
const READINGS: usize = 4;

/// What the bystander has seen.
#[derive(Default)]
pub struct Bystander {
    longest: AtomicU64,
}

impl Bystander {
    /// One turn of its loop. Only what comes while the window is open is counted.
    pub fn spin<A: Arch>(&self, cpu: &'static Cpu<A>, window: &AtomicBool) {
        rcu::enter_idle(cpu);
        let enabled = A::irq_save();
        A::relax();
        let mut readings = [0; READINGS + 1];
        readings[0] = A::instructions();
        A::irq_restore(enabled);
        for reading in &mut readings[1..] {
            *reading = A::instructions();
        }
        rcu::leave_idle(cpu);
        let longest = readings.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or(0);
        // Acquire: pairs with the release that opens it (tests/litmus/hand-over). Whoever interrupted this CPU is still
        // waiting: it was not let run since.
        if window.load(Ordering::Acquire) {
            self.longest.fetch_max(longest, Ordering::Relaxed);
        }
    }

    /// The longest gap, once the bystander has gone.
    pub fn longest_gap(&self) -> u64 {
        self.longest.load(Ordering::Relaxed)
    }
}
