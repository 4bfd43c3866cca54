//! From the first Rust function to [`kernel::boot::run`]; and the same for started CPUs.

use alloc::vec::Vec;
use core::fmt::Write;

use arch_aarch64::firmware::{Conduit, Gic};
use arch_aarch64::gic::GicError;
use arch_aarch64::kernel_map::{self, MapError, direct_map};
use arch_aarch64::{Aarch64, counter, features, psci, sgi, timer, vectors};
use kernel::addr::PhysAddr;
use kernel::boot::{BootInfo, ExitCode, StartError};
use kernel::smp::cpu::Cpu;
use spin::Once;

use super::devicetree::{self, Described, TreeError};
use super::uart::{self, Console};
use super::{entry, memory, semihosting};

/// What the CPUs need when they start.
struct Platform {
    gic: Gic,
    conduit: Conduit,
}

static PLATFORM: Once<Platform> = Once::new();

/// Why the kernel does not start.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
enum Refused {
    #[error("{0}")]
    Cpu(#[from] features::Unsupported),
    #[error("{0}")]
    Tree(#[from] TreeError),
    #[error("{0}")]
    Memory(#[from] MapError),
    #[error("{0}")]
    Gic(#[from] GicError),
    #[error("the devicetree has no CPU with the affinity {0:#x} of the one that booted")]
    UnknownBootCpu(u64),
}

/// The first Rust function on the boot CPU: on the boot stack, MMU on, interrupts masked.
pub(super) extern "C" fn start() -> ! {
    vectors::install();
    // No atomic instruction may be executed before the CPU is known to have them. The devicetree needs none.
    let tree = read_tree();
    let at = tree.as_ref().map_or(uart::FIXED_ADDRESS, |tree| tree.uart);
    // SAFETY: the devicetree says that a PL011 is there, or it is where this machine always has it; nothing else uses it yet.
    let mut console = unsafe { Console::new(at) };
    if let Err(refused) = features::check() {
        refuse(&mut console, refused.into());
    }
    match tree {
        Ok(tree) => match describe(tree) {
            Ok(info) => kernel::boot::run(info),
            Err(refused) => refuse(&mut console, refused),
        },
        Err(refused) => refuse(&mut console, refused.into()),
    }
}
