//! From the machine's entry code to the core.

use core::sync::atomic::Ordering;

use kernel::boot::{BootInfo, ExitCode, MemoryRegion, StartError};
use kernel::record::shared::{MAGIC, RunState, VERSION};
use kernel::smp::cpu::Cpu;

use crate::machine::{self, Native};
use crate::{SHARED, console, heap};

/// What the machine's entry code found out; the fields are those of [`BootInfo`].
pub(crate) struct Found {
    /// Usable RAM.
    pub(crate) memory: &'static [MemoryRegion],
    /// Hardware numbers of the CPUs, the boot CPU first.
    pub(crate) cpus: &'static [u64],
    /// The kernel command line.
    pub(crate) command_line: &'static str,
    /// The initial module, or nothing.
    pub(crate) module: &'static [u8],
    /// Starts a CPU.
    pub(crate) start_cpu: fn(&'static Cpu<Native>) -> Result<(), StartError>,
    /// Completes the boot CPU.
    pub(crate) init_boot_cpu: fn(&'static Cpu<Native>),
}

/// Hands over to the core. Called once, on the boot CPU, with interrupts masked and traps set up.
pub(crate) fn start(found: Found) -> ! {
    if let Err(error) = console::init(found.command_line) {
        refuse(format_args!("{error}"));
    }
    #[cfg(feature = "defmt")]
    crate::structured::init();
    kernel::boot::run(BootInfo {
        memory: found.memory,
        cpus: found.cpus,
        command_line: found.command_line,
        module: found.module,
        start_cpu: found.start_cpu,
        init_boot_cpu: found.init_boot_cpu,
        grow_heap: heap::grow,
        exit: machine::exit,
        shared: &SHARED,
    })
}

/// Ends the run because it was asked for something that cannot be, with one sentence on the serial line and in shared
/// memory.
pub(crate) fn refuse(why: core::fmt::Arguments<'_>) -> ! {
    let line = console::Line::new(why);
    console::init_default();
    log::error!("{}", line.as_str());
    SHARED.set_message(line.as_str());
    SHARED.set_state(RunState::Refused);
    publish();
    machine::exit(ExitCode::Refused)
}

/// Tells the runner that the root is valid, for a run that ends before the core has said so; what is not there yet is 0.
pub(crate) fn publish() {
    SHARED.version.store(VERSION, Ordering::Relaxed);
    // Release: pairs with the runner's read of the magic before anything else (tests/litmus/hand-over).
    SHARED.magic.store(MAGIC, Ordering::Release);
}
