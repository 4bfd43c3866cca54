//! The calling CPU's area, and what this architecture keeps in it.
//!
//! `TPIDR_EL1` holds the address of this CPU's [`Cpu`]; 0 until [`set`]. The register belongs to EL1 and nothing else
//! uses it.

use core::arch::asm;
use core::cell::UnsafeCell;
use core::mem::offset_of;
use core::sync::atomic::AtomicUsize;

use kernel::smp::cpu::Cpu;

use crate::Aarch64;

/// Bytes of the stack for exceptions that found the ordinary stack pointer unusable.
pub const EMERGENCY_BYTES: usize = 8192;

/// A stack that only the exception entry of its CPU uses, and only on the way to a panic.
#[repr(C, align(16))]
pub struct EmergencyStack(UnsafeCell<[u8; EMERGENCY_BYTES]>);

// SAFETY: Rust code never refers to the bytes; the exception entry of one CPU uses them as a stack.
unsafe impl Sync for EmergencyStack {}

impl EmergencyStack {
    /// An empty one.
    pub const fn new() -> EmergencyStack {
        EmergencyStack(UnsafeCell::new([0; EMERGENCY_BYTES]))
    }
}

impl Default for EmergencyStack {
    fn default() -> Self {
        EmergencyStack::new()
    }
}

/// What this architecture keeps per CPU.
#[derive(Default)]
#[repr(C)]
pub struct CpuLocal {
    /// The stack pointer of the kernel as it entered EL0: entries find it there, and who goes back to EL0 puts it back.
    kernel_stack: AtomicUsize,
    emergency: EmergencyStack,
}

/// Used by a CPU that has no area yet.
#[unsafe(no_mangle)]
static BOOT_EMERGENCY_STACK: EmergencyStack = EmergencyStack::new();

/// Where the end of the emergency stack lies in a [`Cpu`]; for the exception entry.
pub const EMERGENCY_TOP: usize = offset_of!(Cpu<Aarch64>, arch) + offset_of!(CpuLocal, emergency) + EMERGENCY_BYTES;
/// Where `kernel_stack` lies in a [`Cpu`]; for the assembly of [`crate::user_entry`].
pub(crate) const KERNEL_STACK: usize = offset_of!(Cpu<Aarch64>, arch) + offset_of!(CpuLocal, kernel_stack);
/// Where the kernel stack's end is kept in a [`Cpu`]; for the entry of started CPUs.
pub const STACK_TOP: usize = offset_of!(Cpu<Aarch64>, stack_top);

/// The address of the calling CPU's area, or 0.
#[inline(always)]
pub fn address() -> usize {
    let raw: usize;
    // SAFETY: reads a register. Not `pure`: code that moves to another CPU must read it again.
    unsafe { asm!("mrs {}, tpidr_el1", out(reg) raw, options(nomem, nostack, preserves_flags)) };
    raw
}

/// The calling CPU's area.
#[inline(always)]
pub fn this() -> &'static Cpu<Aarch64> {
    debug_assert!(address() != 0, "this CPU has no area yet");
    // SAFETY: `set` stored the address of an area that lives for ever, before anything asked for it.
    unsafe { &*(address() as *const Cpu<Aarch64>) }
}

/// Makes `cpu` the calling CPU's area.
///
/// # Safety
/// `cpu` describes the calling CPU; no other CPU was given it.
pub unsafe fn set(cpu: &'static Cpu<Aarch64>) {
    let raw = cpu as *const Cpu<Aarch64> as usize;
    // SAFETY: the register has no effect on the CPU; the caller vouches for the area.
    unsafe { asm!("msr tpidr_el1, {}", in(reg) raw, options(nomem, nostack, preserves_flags)) };
}
