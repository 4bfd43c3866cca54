//! From the first Rust function to [`crate::start`]; and the same for started CPUs.
//!
//! Until [`features::check`] has passed, nothing here may execute an atomic read-modify-write: the image is built with
//! instructions for them that an old CPU lacks. Plain atomic loads and stores are ordinary instructions.

use alloc::boxed::Box;
use alloc::vec::Vec;

use aarch64_cpu::registers::{MPIDR_EL1, Readable};
use arch_aarch64::firmware::{Conduit, Gic};
use arch_aarch64::gic::GicError;
use arch_aarch64::kernel_map::{self, MapError, direct_map};
use arch_aarch64::{counter, features, psci, sgi, timer, user_mode, vectors};
use firmware::devicetree::{self, Described, TreeError};
use firmware::module::{self, BadModule};
use kernel::addr::PhysAddr;
use kernel::boot::{ExitCode, MemoryRegion, StartError};
use kernel::record::shared::RunState;
use kernel::smp::cpu::Cpu;
use spin::Once;

use super::{Native, console, entry, memory, semihosting};
use crate::{Found, SHARED};

/// What CPUs need when they start.
struct Firmware {
    gic: Gic,
    conduit: Conduit,
}

static FIRMWARE: Once<Firmware> = Once::new();

/// Why the kernel does not start.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
enum Refused {
    #[error("{0}")]
    Tree(#[from] TreeError),
    #[error("{0}")]
    Memory(#[from] MapError),
    #[error("{0}")]
    Gic(#[from] GicError),
    #[error("{0}")]
    BadModule(#[from] BadModule),
    #[error("the module at {0} is not in RAM")]
    Module(PhysAddr),
    #[error("the devicetree has no CPU with the affinity {0:#x} of the one that booted")]
    UnknownBootCpu(u64),
}

/// How the firmware is called, as far as it is known.
pub(super) fn conduit() -> Conduit {
    FIRMWARE.get().map_or(Conduit::Hvc, |firmware| firmware.conduit)
}

/// The first Rust function on the boot CPU: on the boot stack, MMU on, interrupts masked.
pub(super) extern "C" fn boot() -> ! {
    vectors::install();
    if let Err(unsupported) = features::check() {
        refuse_without_atomics(unsupported);
    }
    match find_out() {
        Ok(found) => crate::start(found),
        Err(refused) => crate::start::refuse(format_args!("{refused}")),
    }
}

/// As [`crate::start::refuse`], for a CPU that may lack the atomics which the log's lock needs.
fn refuse_without_atomics(why: features::Unsupported) -> ! {
    let line = crate::console::Line::new(format_args!("{why}"));
    for text in ["[cpu0] error: ", line.as_str(), "\n"] {
        console::write(text.as_bytes());
    }
    SHARED.set_message(line.as_str());
    SHARED.set_state(RunState::Refused);
    crate::start::publish();
    semihosting::exit(ExitCode::Refused)
}

fn find_out() -> Result<Found, Refused> {
    let tree = direct_map(PhysAddr(memory::RAM_START));
    // SAFETY: the entry code mapped these bytes, QEMU put the devicetree there, and nothing ever writes to them.
    let tree: &'static [u8] = unsafe { core::slice::from_raw_parts(tree, memory::TREE_ROOM) };
    let described = devicetree::read(tree)?;
    console::init(described.uart);

    let region = module::named(described.command_line)?;
    let bytes = region.map_or(Ok(&[][..]), |region| bytes_of_module(&described, region))?;
    let free = memory::take(&described.memory, region)?;
    kernel_map::map_device(described.distributor)?;
    for region in &described.redistributors {
        kernel_map::map_device(region.start)?;
    }
    let gic = Gic {
        distributor: described.distributor,
        redistributors: Box::leak(described.redistributors.as_slice().into()),
    };
    gic.init_distributor()?;
    FIRMWARE.call_once(|| Firmware { gic, conduit: described.conduit });
    Ok(Found {
        memory: Box::leak(free.as_slice().into()),
        cpus: boot_cpu_first(&described)?,
        command_line: described.command_line,
        module: bytes,
        start_cpu,
        init_boot_cpu: |cpu| init_cpu(cpu),
    })
}

/// The bytes of the module, which stay where they are: they were left out of what is free.
fn bytes_of_module(described: &Described<'_>, region: MemoryRegion) -> Result<&'static [u8], Refused> {
    if !described.memory.iter().any(|ram| ram.start <= region.start && region.end <= ram.end) {
        return Err(Refused::Module(region.start));
    }
    let bytes = (region.end.0 - region.start.0) as usize;
    // SAFETY: the direct map covers all RAM when this is read from, after `memory::take`; nobody writes there.
    Ok(unsafe { core::slice::from_raw_parts(direct_map(region.start), bytes) })
}

fn boot_cpu_first(described: &Described<'_>) -> Result<&'static [u64], Refused> {
    let own = MPIDR_EL1.get() & sgi::AFFINITY;
    let mut cpus = Vec::from(described.cpus.as_slice());
    let place = cpus.iter().position(|&hw_id| hw_id == own).ok_or(Refused::UnknownBootCpu(own))?;
    cpus[..=place].rotate_right(1);
    Ok(cpus.leak())
}

fn start_cpu(cpu: &'static Cpu<Native>) -> Result<(), StartError> {
    let context = core::ptr::from_ref(cpu) as u64;
    psci::start(conduit(), cpu.hw_id, entry::secondary_address().0, context)
}

/// The first Rust function on a started CPU: on its own stack, with its area, MMU on, interrupts masked.
pub(super) extern "C" fn secondary(cpu: &'static Cpu<Native>) -> ! {
    vectors::install();
    init_cpu(cpu);
    kernel::boot::secondary(cpu)
}

/// Everything of a CPU but its vectors: access rights, counter, timer, interrupts.
fn init_cpu(cpu: &'static Cpu<Native>) {
    features::forbid_user_access();
    user_mode::init_cpu();
    counter::start();
    timer::stop();
    let gic = &FIRMWARE.get().expect("the boot CPU set it before any CPU came here").gic;
    if let Err(error) = gic.init_cpu(cpu.hw_id, cpu.id.index()) {
        panic!("{} has no interrupts: {error}", cpu.id);
    }
}
