//! Counting instructions with the cycle counter of the performance monitors.
//!
//! Under `-icount shift=0` one instruction takes one nanosecond of the machine's time, whichever CPU executes it, and
//! the cycle counter advances by one for each. But each CPU's counter starts at 0 when that CPU enables it. [`start`]
//! removes the offset: it finds how far the counter is behind the virtual counter, which is the same on all CPUs but
//! advances only every 16 ns, and adds that. So all CPUs read the same count, exactly; [`now`] on one CPU and later on
//! another may be subtracted.
//!
//! Without `-icount` the value is a cycle counter, good for ratios on one CPU and for nothing else.

use aarch64_cpu::asm::barrier;
use aarch64_cpu::registers::{CNTFRQ_EL0, CNTVCT_EL0, Readable};
use core::arch::asm;

/// `PMCR_EL0`: enable, reset nothing, 64-bit overflow (so that QEMU arms no overflow timer of its own).
const PMCR_E: u64 = 1 << 0;
const PMCR_LC: u64 = 1 << 6;
/// The cycle counter's bit in `PMCNTENSET_EL0`.
const CYCLE_COUNTER: u64 = 1 << 31;

macro_rules! write {
    ($name:literal, $value:expr) => {
        // SAFETY: the performance monitors observe and do not act; no interrupt of theirs is enabled.
        unsafe { asm!(concat!("msr ", $name, ", {}"), in(reg) $value, options(nomem, nostack, preserves_flags)) }
    };
}

/// The count.
#[inline(always)]
pub fn now() -> u64 {
    let count: u64;
    // SAFETY: reads a counter. Not `pure`: each call reads it again, and stays between the calls before and after it.
    unsafe { asm!("mrs {}, pmccntr_el0", out(reg) count, options(nomem, nostack, preserves_flags)) };
    count
}

/// Starts this CPU's counter, at the count that the machine's other CPUs have. Called once on each CPU, interrupts
/// masked.
pub fn start() {
    write!("pmcr_el0", PMCR_LC);
    write!("pmccfiltr_el0", 0u64);
    write!("pmcntenset_el0", CYCLE_COUNTER);
    write!("pmcr_el0", PMCR_LC | PMCR_E);
    barrier::isb(barrier::SY);
    let behind = offset();
    // The addition takes two instructions, and the value is that of the read: `behind` accounts for both.
    // SAFETY: as in `write!`.
    unsafe {
        asm!(
            "mrs {now}, pmccntr_el0",
            "add {now}, {now}, {behind}",
            "msr pmccntr_el0, {now}",
            now = out(reg) _,
            behind = in(reg) behind.wrapping_add(2),
            options(nomem, nostack, preserves_flags)
        );
    }
    barrier::isb(barrier::SY);
}

/// How far the cycle counter is behind the virtual counter's time.
///
/// A read of the virtual counter one instruction after a read of the cycle counter gives `time / tick`. So
/// `tick × virtual − cycles − 1` is the offset, less up to `tick − 1` that the division dropped; and among enough
/// pairs, taken an odd number of instructions apart, is one that dropped nothing. That is the largest.
fn offset() -> u64 {
    let tick = 1_000_000_000 / CNTFRQ_EL0.get().max(1);
    let mut largest = i64::MIN;
    for round in 0..64u64 {
        let (cycles, ticks): (u64, u64);
        // SAFETY: reads two counters.
        unsafe {
            asm!(
                "mrs {cycles}, pmccntr_el0",
                "mrs {ticks}, cntvct_el0",
                cycles = out(reg) cycles,
                ticks = out(reg) ticks,
                options(nomem, nostack, preserves_flags)
            );
        }
        largest = largest.max((ticks * tick) as i64 - cycles as i64 - 1);
        // A different number of instructions each time, so that every remainder of the division by `tick` occurs.
        for _ in 0..round & 15 {
            // SAFETY: does nothing.
            unsafe { asm!("nop", options(nomem, nostack, preserves_flags)) };
        }
    }
    debug_assert!(CNTVCT_EL0.get() > 0);
    largest as u64
}
