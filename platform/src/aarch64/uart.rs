//! The console: a PL011, polled.

use arm_pl011_uart::{DataBits, LineConfig, PL011Registers, Parity, StopBits, Uart, UniqueMmioPointer};
use arch_aarch64::kernel_map::direct_map;
use core::ptr::NonNull;
use kernel::addr::PhysAddr;

/// Where the console of the `virt` machine is: for errors that come before the devicetree is understood.
pub const FIXED_ADDRESS: PhysAddr = PhysAddr(0x0900_0000);

/// `apb_pclk` of the `virt` machine.
const CLOCK_HZ: u32 = 24_000_000;
const BAUD: u32 = 115_200;

/// A PL011 that is ready to send.
pub struct Console(Uart<'static>);

impl Console {
    /// Sets up the PL011 at `registers`.
    ///
    /// # Safety
    /// A PL011's registers are there, the direct map has them as device memory, and no other `Console` has them.
    pub unsafe fn new(registers: PhysAddr) -> Console {
        let registers = NonNull::new(direct_map(registers).cast::<PL011Registers>()).expect("the direct map is not at 0");
        // SAFETY: the caller's promise is the same.
        let mut uart = Uart::new(unsafe { UniqueMmioPointer::new(registers) });
        let line = LineConfig { data_bits: DataBits::Bits8, parity: Parity::None, stop_bits: StopBits::One };
        // Its only error is a divisor that does not fit, and these constants do. Without it QEMU's PL011 sends all the same.
        let _ = uart.enable(line, BAUD, CLOCK_HZ);
        Console(uart)
    }

    /// Sends one byte, when there is room for it.
    pub fn send(&mut self, byte: u8) {
        while self.0.is_tx_fifo_full() {
            // Not `spin_loop`, which is no hint to QEMU on this architecture.
            <arch_aarch64::Aarch64 as kernel::arch::Arch>::relax();
        }
        self.0.write_word(byte);
    }
}

impl core::fmt::Write for Console {
    fn write_str(&mut self, text: &str) -> core::fmt::Result {
        text.bytes().for_each(|byte| self.send(byte));
        Ok(())
    }
}
