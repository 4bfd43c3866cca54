//! The serial line: a PL011, polled.

use arch_aarch64::kernel_map::direct_map;
use arm_pl011_uart::{DataBits, LineConfig, PL011Registers, Parity, StopBits, Uart, UniqueMmioPointer};
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU64, Ordering};

use kernel::addr::PhysAddr;
use kernel::arch::Arch;

use super::Native;

/// Where this machine always has a PL011: for errors that come before the devicetree is understood.
pub(super) const FIXED: u64 = 0x0900_0000;

/// Where the registers are.
static REGISTERS: AtomicU64 = AtomicU64::new(FIXED);

/// `apb_pclk` of this machine.
const CLOCK_HZ: u32 = 24_000_000;
const BAUD: u32 = 115_200;

/// Uses the PL011 at `registers` from now on, and sets it up. Called before other CPUs run.
pub(super) fn init(registers: PhysAddr) {
    // Relaxed: other CPUs are started afterwards.
    REGISTERS.store(registers.0, Ordering::Relaxed);
    let line = LineConfig { data_bits: DataBits::Bits8, parity: Parity::None, stop_bits: StopBits::One };
    // Its only error is a divisor that does not fit, and these constants' does.
    let _ = uart().enable(line, BAUD, CLOCK_HZ);
}

/// Sends `bytes`, each when there is room for it. The caller has the lock of whoever else would.
pub(crate) fn write(bytes: &[u8]) {
    let mut uart = uart();
    for &byte in bytes {
        while uart.is_tx_fifo_full() {
            Native::relax();
        }
        uart.write_word(byte);
    }
}

fn uart() -> Uart<'static> {
    let registers = direct_map(PhysAddr(REGISTERS.load(Ordering::Relaxed)));
    let registers = NonNull::new(registers.cast::<PL011Registers>()).expect("the direct map does not begin at 0");
    // SAFETY: a PL011 is there, mapped as device memory; this module alone uses it, and its callers exclude each other.
    Uart::new(unsafe { UniqueMmioPointer::new(registers) })
}
