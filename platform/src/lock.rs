//! The lock under the heap and the logs: usable from any context, and it knows who has it.
//!
//! It masks interrupts while it is held, so of all code on the same CPU only an NMI, an exception or a panic can meet
//! it held by the very code that was interrupted. Such an attempt is not refused and does not wait: it is told so
//! ([`Entry::nested`]) and has to cope (the heap gives nothing, the structured log drops the frame, the serial line
//! takes it out of order). Waiting is by [`Arch::relax`], not by the language's spin hint, since under `-icount` only
//! that lets the holder run on both machines.

use core::sync::atomic::{AtomicU32, Ordering};

use kernel::arch::Arch;

use crate::machine::{Native, cpu_number};

const FREE: u32 = 0;
/// The boot CPU before it has its area; no other CPU runs then.
const NO_NUMBER: u32 = u32::MAX;

/// A lock; see the module's text.
pub(crate) struct Lock {
    /// [`FREE`], or one more than the holder's number.
    holder: AtomicU32,
}

/// What [`Lock::enter`] did, for [`Lock::leave`].
#[must_use]
pub(crate) struct Entry {
    irqs_were_enabled: bool,
    /// The caller interrupted the code that holds the lock, on the same CPU.
    pub(crate) nested: bool,
}

impl Lock {
    pub(crate) const fn new() -> Lock {
        Lock { holder: AtomicU32::new(FREE) }
    }

    /// Takes the lock, with interrupts masked until [`Lock::leave`].
    pub(crate) fn enter(&self) -> Entry {
        loop {
            if let Some(entry) = self.enter_within(u32::MAX) {
                return entry;
            }
        }
    }

    /// As [`Lock::enter`], but gives up after so many rounds of waiting.
    pub(crate) fn enter_within(&self, rounds: u32) -> Option<Entry> {
        let irqs_were_enabled = Native::irq_save();
        let me = cpu_number().map_or(NO_NUMBER, |n| u32::from(n) + 1);
        for _ in 0..rounds {
            // Acquire: pairs with the release in `leave` of whoever had it (tests/litmus/hand-over,
            // tests/litmus/hand-back).
            match self.holder.compare_exchange(FREE, me, Ordering::Acquire, Ordering::Relaxed) {
                Ok(_) => return Some(Entry { irqs_were_enabled, nested: false }),
                Err(holder) if holder == me => return Some(Entry { irqs_were_enabled, nested: true }),
                Err(_) => Native::relax(),
            }
        }
        Native::irq_restore(irqs_were_enabled);
        None
    }

    /// Undoes the [`Lock::enter`] that returned `entry`, on the same CPU.
    pub(crate) fn leave(&self, entry: Entry) {
        if !entry.nested {
            // Release: pairs with the acquire in `enter_within` (tests/litmus/hand-over, tests/litmus/hand-back).
            self.holder.store(FREE, Ordering::Release);
        }
        Native::irq_restore(entry.irqs_were_enabled);
    }
}
