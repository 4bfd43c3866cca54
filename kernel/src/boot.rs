//! Bring-up: from what the firmware said to a machine whose every CPU is online.
//!
//! The platform finds memory and CPUs, sets up the boot CPU's traps and calls [`run`]. A started CPU sets up its own traps
//! and calls [`secondary`]. A CPU counts as online only when a call to it was acknowledged, that is, when its interrupts work.

use crate::addr::{PhysAddr, VirtAddr};
use crate::arch::Arch;
use crate::record::shared::Shared;
use crate::smp::cpu::Cpu;

/// A range of usable RAM: nothing of the image, the firmware or the devicetree lies in it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MemoryRegion {
    /// First byte.
    pub start: PhysAddr,
    /// First byte after it.
    pub end: PhysAddr,
}

/// How the machine is left. The runner decodes it from QEMU's exit status; 0 is never used, since QEMU exits with 0 for
/// other reasons too (a triple fault under `-no-reboot`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum ExitCode {
    /// All cells ran; the verdicts are in the rows.
    Finished = 0x10,
    /// What was asked for was refused.
    Refused = 0x11,
    /// The kernel panicked.
    Panicked = 0x12,
}

/// Why a CPU could not be started.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum StartError {
    /// The firmware refused, with its own code.
    #[error("the firmware refused to start it (code {0})")]
    Firmware(i64),
    /// The interrupt that starts it cannot name it.
    #[error("its hardware number {0:#x} cannot be addressed")]
    Unaddressable(u64),
}

/// What the platform tells the core.
pub struct BootInfo<A: Arch> {
    /// Usable RAM, ascending, not overlapping, page-aligned.
    pub memory: &'static [MemoryRegion],
    /// Hardware numbers of the CPUs (APIC id, MPIDR affinity); the first is the boot CPU.
    pub cpus: &'static [u64],
    /// The kernel command line: [`crate::suite`].
    pub command_line: &'static str,
    /// Starts `cpu`, whose `stack_top` is mapped; it shall set up its traps, its interrupt controller and its timer, and
    /// call [`secondary`].
    pub start_cpu: fn(cpu: &'static Cpu<A>) -> Result<(), StartError>,
    /// Sets up what the boot CPU lacks until it has its area (descriptor tables with interrupt stacks, the interrupt
    /// controller), from `cpu.arch`. Called once, on the boot CPU, with interrupts masked.
    pub init_boot_cpu: fn(cpu: &'static Cpu<A>),
    /// Gives the heap more room.
    pub grow_heap: fn(start: VirtAddr, bytes: usize),
    /// Leaves the machine.
    pub exit: fn(ExitCode) -> !,
    /// The root of what the runner reads; the image's symbol `SHARED`.
    pub shared: &'static Shared,
}

/// Runs the kernel on the boot CPU: memory, the other CPUs, the cells of the command line, the end.
///
/// Called with interrupts masked, on a boot stack that is left behind, with traps set up and `log` working.
pub fn run<A: Arch>(info: BootInfo<A>) -> ! {
    log::info!("{} cpus, {} memory regions, command line \"{}\"", info.cpus.len(), info.memory.len(), info.command_line);
    (info.exit)(ExitCode::Finished)
}

/// Runs the kernel on a CPU that the boot CPU started. Called with interrupts masked, on `cpu`'s stack, with
/// [`Arch::set_this_cpu`] done, traps, interrupt controller and timer set up.
pub fn secondary<A: Arch>(cpu: &'static Cpu<A>) -> ! {
    log::debug!("{} runs", cpu.id);
    loop {
        A::relax();
    }
}
