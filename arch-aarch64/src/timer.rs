//! The virtual timer of each CPU (private interrupt 27), used as a one-shot.
//!
//! It compares the virtual counter with a deadline and holds its interrupt line up while it is enabled and the deadline
//! has passed. So the interrupt handler disarms it before it ends the interrupt ([`stop`]), or the line would raise it
//! again.

use aarch64_cpu::asm::barrier;
use aarch64_cpu::registers::{CNTFRQ_EL0, CNTV_CTL_EL0, CNTV_CVAL_EL0, CNTVCT_EL0, Readable, Writeable};

const NS_PER_S: u64 = 1_000_000_000;

/// Arms the timer: it fires `ns` nanoseconds from now, rounded up to the counter's resolution, and never in the past.
#[inline]
pub fn set(ns: u64) {
    let ticks = ns.saturating_mul(CNTFRQ_EL0.get()).div_ceil(NS_PER_S).max(1);
    CNTV_CVAL_EL0.set(CNTVCT_EL0.get().saturating_add(ticks));
    CNTV_CTL_EL0.write(CNTV_CTL_EL0::ENABLE::SET);
}

/// Disarms the timer and waits until its interrupt line is down.
#[inline]
pub fn stop() {
    CNTV_CTL_EL0.set(0);
    barrier::isb(barrier::SY);
}
