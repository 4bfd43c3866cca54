//! The calling CPU's area, and what this architecture keeps in it.
//!
//! The GS base points at this CPU's [`Cpu`], in kernel mode always ([`crate::user_mode`] says when it is swapped). One
//! load through GS yields the area's address, which the area itself holds. Before a CPU has its area the GS base points
//! at zeroes.

use core::arch::asm;
use core::mem::offset_of;
use core::sync::atomic::{AtomicU64, Ordering};

use kernel::smp::cpu::Cpu;
use spin::Once;
use x86_64::VirtAddr;
use x86_64::registers::model_specific::GsBase;

use crate::X86;
use crate::descriptors::{CpuTables, InterruptStacks};

/// What this architecture keeps per CPU.
#[derive(Default)]
#[repr(C)]
pub struct CpuLocal {
    /// Address of the [`Cpu`] that this is in; 0 until it is set.
    address: AtomicU64,
    /// Stack pointer of the kernel code that went to ring 3.
    kernel_stack: AtomicU64,
    /// End of the frame of the thread that is in ring 3.
    frame_end: AtomicU64,
    /// The stack pointer of ring 3 while a SYSCALL has not saved it yet.
    user_stack: AtomicU64,
    /// Address of the task-state segment.
    pub(crate) task_state: AtomicU64,
    /// Segments and the task-state segment; unused on the boot CPU, which has static ones.
    pub tables: CpuTables,
    /// Stacks for interrupts that must not use the present one; as above.
    pub stacks: Once<&'static InterruptStacks>,
}

/// Where a [`Cpu`] holds its own address.
const ADDRESS: usize = offset_of!(Cpu<X86>, arch) + offset_of!(CpuLocal, address);
/// Where a [`Cpu`] holds what [`crate::user_mode`] keeps; for its assembly.
pub(crate) const KERNEL_STACK: usize = LOCAL + offset_of!(CpuLocal, kernel_stack);
pub(crate) const FRAME_END: usize = LOCAL + offset_of!(CpuLocal, frame_end);
pub(crate) const USER_STACK: usize = LOCAL + offset_of!(CpuLocal, user_stack);
pub(crate) const TASK_STATE: usize = LOCAL + offset_of!(CpuLocal, task_state);
const LOCAL: usize = offset_of!(Cpu<X86>, arch);
/// Where a [`Cpu`] holds the end of its stack; for the entry of started CPUs.
pub const STACK_TOP: usize = offset_of!(Cpu<X86>, stack_top);

/// What the GS base points at on a CPU without an area.
static NO_AREA: [AtomicU64; ADDRESS / 8 + 1] = [const { AtomicU64::new(0) }; ADDRESS / 8 + 1];

/// Makes [`address`] return 0 on this CPU.
pub fn init_without_area() {
    GsBase::write(VirtAddr::from_ptr(&NO_AREA));
}

/// The address of the calling CPU's area, or 0.
#[inline(always)]
pub fn address() -> usize {
    let raw: usize;
    // SAFETY: the GS base points at an area or at `NO_AREA`, both of which have a word at this offset. Not `pure`: code
    // that moves to another CPU must read it again.
    unsafe { asm!("mov {}, gs:[{}]", out(reg) raw, const ADDRESS, options(readonly, nostack, preserves_flags)) };
    raw
}

/// The calling CPU's area.
#[inline(always)]
pub fn this() -> &'static Cpu<X86> {
    let address = address();
    debug_assert!(address != 0, "this CPU has no area yet");
    // SAFETY: `set` stored the address of an area that lives for ever, before anything asked for it.
    unsafe { &*(address as *const Cpu<X86>) }
}

/// Makes `cpu` the calling CPU's area.
///
/// # Safety
/// `cpu` describes the calling CPU; no other CPU was given it.
pub unsafe fn set(cpu: &'static Cpu<X86>) {
    let address = VirtAddr::from_ptr(cpu);
    // Relaxed: only this CPU reads it.
    cpu.arch.address.store(address.as_u64(), Ordering::Relaxed);
    GsBase::write(address);
}
