//! What this CPU can do, from its identification registers, and what the kernel refuses to run without.
//!
//! Nothing here uses an atomic instruction: [`check`] runs before it is known that they exist.

use aarch64_cpu::registers::{ID_AA64MMFR0_EL1, ID_AA64MMFR1_EL1, Readable};
use core::arch::asm;

/// Reads a register that the register crate has no fields for.
macro_rules! identification {
    ($name:literal, $shift:literal) => {{
        let raw: u64;
        // SAFETY: identification registers are readable at EL1 and reading them has no effect.
        unsafe { core::arch::asm!(concat!("mrs {}, ", $name), out(reg) raw, options(nomem, nostack, preserves_flags)) };
        raw >> $shift & 15
    }};
}

/// Why this kernel does not run on this CPU.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Unsupported {
    /// The image uses large-system atomics.
    #[error("this CPU has no large-system atomics (FEAT_LSE); use -cpu max or a Neoverse")]
    NoLse,
    /// Tables have 4 KiB granules.
    #[error("this CPU has no 4 KiB translation granule")]
    NoGranule4K,
    /// ASIDs are stored, and written to registers, as 16 bits: [`kernel::arch::Arch::asids`].
    #[error("this CPU has 8-bit ASIDs; the kernel hands out 16-bit ones")]
    NarrowAsids,
    /// The GIC's CPU interface is used through system registers.
    #[error("this CPU has no GICv3 system registers; use -M virt,gic-version=3")]
    NoGicRegisters,
    /// Instructions are counted by the cycle counter.
    #[error("this CPU has no performance monitors (PMUv3), whose cycle counter the kernel needs")]
    NoCycleCounter,
}

/// Refuses a CPU that lacks what the kernel was built for.
pub fn check() -> Result<(), Unsupported> {
    if cfg!(target_feature = "lse") && identification!("ID_AA64ISAR0_EL1", 20) < 2 {
        return Err(Unsupported::NoLse);
    }
    if ID_AA64MMFR0_EL1.read(ID_AA64MMFR0_EL1::TGran4) == 0xf {
        return Err(Unsupported::NoGranule4K);
    }
    if ID_AA64MMFR0_EL1.read(ID_AA64MMFR0_EL1::ASIDBits) != 2 {
        return Err(Unsupported::NarrowAsids);
    }
    if identification!("ID_AA64PFR0_EL1", 24) == 0 {
        return Err(Unsupported::NoGicRegisters);
    }
    if matches!(identification!("ID_AA64DFR0_EL1", 8), 0 | 0xf) {
        return Err(Unsupported::NoCycleCounter);
    }
    Ok(())
}

/// Whether operations on ranges exist (`FEAT_TLBIRANGE`).
pub fn tlbi_range() -> bool {
    identification!("ID_AA64ISAR0_EL1", 56) >= 2
}

/// Forbids EL1 to access user memory by ordinary loads and stores, where the CPU can: from then on only the
/// unprivileged loads and stores of [`crate::user`] reach it. Exceptions keep it forbidden (`SCTLR_EL1.SPAN` is 0, see
/// [`crate::mmu`]).
pub fn forbid_user_access() {
    if ID_AA64MMFR1_EL1.read(ID_AA64MMFR1_EL1::PAN) != 0 {
        // SAFETY: sets PSTATE.PAN, which this CPU has; by its encoding, since the target's assembler does not know the
        // name.
        unsafe { asm!(".inst 0xd500419f", options(nostack, preserves_flags)) };
    }
}
