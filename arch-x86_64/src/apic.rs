//! The local APIC of the calling CPU, in xAPIC mode: its registers lie at one address, behind which each CPU finds its
//! own.
//!
//! Our own few registers instead of the crate `x2apic`: its handle is one object per CPU that must be borrowed mutably
//! for every access, which an NMI handler could not honour; it tests the mode at each of them, on the path whose
//! instructions are measured; and its `enable` leaves both interrupt pins unmasked with vector 0.
//!
//! An interrupt to another CPU takes two stores (target, then command). An ordinary interrupt handler must not come
//! between them, so interrupts are masked there; an NMI handler can, and therefore must not send.

use core::ptr::{read_volatile, write_volatile};

use kernel::arch::Doorbell;
use kernel::boot::StartError;
use x86_64::instructions::interrupts::without_interrupts;
use x86_64::registers::model_specific::{ApicBase, ApicBaseFlags};

use crate::kernel_map::APIC_WINDOW;
use crate::traps::{CALL_VECTOR, SPURIOUS_VECTOR, TIMER_VECTOR};

/// Ticks of the timer in a second, undivided: QEMU's, under any accelerator.
pub const TIMER_HZ: u64 = 1_000_000_000;
/// The highest number that an interrupt can be addressed to; 255 means all.
pub const LAST_ID: u64 = 254;

/// Registers, by their offsets.
#[derive(Clone, Copy)]
#[repr(u64)]
enum Register {
    Id = 0x20,
    TaskPriority = 0x80,
    EndOfInterrupt = 0xb0,
    Spurious = 0xf0,
    CommandLow = 0x300,
    CommandHigh = 0x310,
    TimerEntry = 0x320,
    Pin0Entry = 0x350,
    Pin1Entry = 0x360,
    ErrorEntry = 0x370,
    TimerCount = 0x380,
    TimerDivide = 0x3e0,
}

/// In the spurious register: the APIC is on.
const ENABLED: u32 = 1 << 8;
/// In an entry of the local vector table: masked.
const MASKED: u32 = 1 << 16;
/// In the divide register: by 1.
const UNDIVIDED: u32 = 0b1011;

/// In the command register.
mod command {
    /// The one before was not yet accepted.
    pub(super) const PENDING: u32 = 1 << 12;
    /// The level of all commands but a deassertion.
    pub(super) const ASSERT: u32 = 1 << 14;
    pub(super) const NMI: u32 = 0b100 << 8;
    pub(super) const INIT: u32 = 0b101 << 8;
    pub(super) const STARTUP: u32 = 0b110 << 8;
}

/// The APIC cannot be used as this module does.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ApicError {
    /// It is switched off.
    #[error("the local APIC is switched off")]
    Off,
    /// It is in x2APIC mode, where it has no registers in memory.
    #[error("the local APIC is in x2APIC mode, which this kernel does not drive")]
    X2Apic,
}

fn read(register: Register) -> u32 {
    // SAFETY: the kernel map has the APIC's registers there, as uncached memory; reading these has no effect.
    unsafe { read_volatile((APIC_WINDOW + register as u64) as *const u32) }
}

fn write(register: Register, value: u32) {
    // SAFETY: as for `read`; the callers in this module write what the register is for.
    unsafe { write_volatile((APIC_WINDOW + register as u64) as *mut u32, value) }
}

/// Whether the calling CPU's APIC is on and in xAPIC mode.
///
/// # Errors
/// When it is not.
pub fn check() -> Result<(), ApicError> {
    let (_, flags) = ApicBase::read();
    if flags.contains(ApicBaseFlags::X2APIC_ENABLE) {
        Err(ApicError::X2Apic)
    } else if !flags.contains(ApicBaseFlags::LAPIC_ENABLE) {
        Err(ApicError::Off)
    } else {
        Ok(())
    }
}

/// Switches the calling CPU's APIC on: all vectors accepted, both pins and the error interrupt masked, the timer
/// stopped.
pub fn init_cpu() {
    write(Register::TaskPriority, 0);
    for entry in [Register::Pin0Entry, Register::Pin1Entry, Register::ErrorEntry] {
        write(entry, MASKED);
    }
    write(Register::Spurious, ENABLED | u32::from(SPURIOUS_VECTOR));
    write(Register::TimerDivide, UNDIVIDED);
    // One-shot mode is 0.
    write(Register::TimerEntry, u32::from(TIMER_VECTOR));
    stop_timer();
}

/// The calling CPU's number.
pub fn id() -> u64 {
    u64::from(read(Register::Id) >> 24)
}

/// Ends the interrupt that is being handled.
#[inline(always)]
pub fn end_of_interrupt() {
    write(Register::EndOfInterrupt, 0);
}

/// Sends `what` to the CPU with number `target`.
#[inline]
fn send(target: u64, what: u32) {
    without_interrupts(|| {
        while read(Register::CommandLow) & command::PENDING != 0 {
            core::hint::spin_loop();
        }
        write(Register::CommandHigh, (target as u32) << 24);
        // Uncached stores are not reordered with earlier stores, so the handler sees those.
        write(Register::CommandLow, what);
    });
}

/// Rings `bell` on the CPU with number `target`.
#[inline]
pub fn ring(target: u64, bell: Doorbell) {
    let what = match bell {
        Doorbell::Call => command::ASSERT | CALL_VECTOR as u32,
        Doorbell::Nmi => command::ASSERT | command::NMI,
    };
    send(target, what);
}

/// Resets the CPU with number `target` and makes it run real-mode code at the start of page `page`, which is below 1
/// MiB.
///
/// # Errors
/// When no interrupt can be addressed to it.
pub fn start(target: u64, page: u8) -> Result<(), StartError> {
    if target > LAST_ID {
        return Err(StartError::Unaddressable(target));
    }
    send(target, command::ASSERT | command::INIT);
    // The second is for processors that lose the first; one that runs ignores it.
    for _ in 0..2 {
        send(target, command::ASSERT | command::STARTUP | u32::from(page));
    }
    Ok(())
}

/// Arms the calling CPU's timer, once. More than 4.29 s is taken for that.
#[inline]
pub fn set_timer(ns: u64) {
    // The timer counts nanoseconds. A count of 0 would stop it.
    const { assert!(TIMER_HZ == 1_000_000_000) };
    write(Register::TimerCount, ns.clamp(1, u64::from(u32::MAX)) as u32);
}

/// Disarms the calling CPU's timer.
#[inline]
pub fn stop_timer() {
    write(Register::TimerCount, 0);
}
