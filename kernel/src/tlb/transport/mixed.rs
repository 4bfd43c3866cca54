//! Flush as machines with a broadcast instruction really do it: an mm that runs on few CPUs flushes by interrupt, one
//! that runs on many is promoted to broadcast (Linux: INVLPGB and global ASIDs).
//!
//! Promotion happens while the mm is in use. In the flush that finds the mm on more than [`FEW`] CPUs nothing changes
//! yet; the next one does both, since some CPUs may not yet take part in the broadcast; from then on it is broadcast
//! alone. What a flush did is in its coverage and nowhere else: no two in a row need be alike, which is what a boolean
//! fixed at boot, or one that is remembered from an earlier flush, cannot say.

use core::sync::atomic::{AtomicU8, Ordering};

use crate::arch::Arch;
use crate::ledger::recorded::Way;
use crate::mm::address_space::Mm;
use crate::smp::cpu::Cpu;
use crate::tlb::coverage::Coverage;
use crate::tlb::invalidation::Invalidation;
use crate::tlb::transport::{broadcast, ipi};

/// CPUs that an mm may run on before it is promoted.
pub const FEW: u32 = 2;

const BY_INTERRUPT: u8 = 0;
const TRANSITION: u8 = 1;
const BY_BROADCAST: u8 = 2;

/// How an mm flushes on this transport.
#[derive(Default)]
pub struct Promotion(AtomicU8);

impl Promotion {
    /// How the next flush travels.
    pub(super) fn way(&self) -> Way {
        // Relaxed: two flushes at once may both see the earlier stage, and then do more than is needed.
        match self.0.load(Ordering::Relaxed) {
            BY_INTERRUPT => Way::Interrupts,
            TRANSITION => Way::Both,
            _ => Way::Broadcast,
        }
    }
}

/// See [`super::flush`].
pub fn flush<A: Arch>(cpu: &'static Cpu<A>, mm: &Mm<A>, what: Invalidation, way: Way) -> Coverage {
    match way {
        Way::Interrupts => {
            let coverage = ipi::flush(cpu, mm, what);
            if mm.mask.load(Ordering::Relaxed).count() > FEW {
                mm.promotion.0.store(TRANSITION, Ordering::Relaxed);
            }
            coverage
        }
        Way::Both => {
            let coverage = ipi::flush(cpu, mm, what);
            broadcast::invalidate(cpu, mm, &what);
            mm.promotion.0.store(BY_BROADCAST, Ordering::Relaxed);
            coverage
        }
        Way::Broadcast => broadcast::flush(cpu, mm, what),
    }
}
