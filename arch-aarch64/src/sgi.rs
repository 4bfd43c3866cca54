//! Which software-generated interrupt means what, and how a CPU is named in the register that sends one.
//!
//! Two of them are used. [`CALL`] is an ordinary Group 1 interrupt, which `PSTATE.I` masks. [`NMI`] is in Group 0 and
//! arrives as an FIQ: the kernel masks interrupts by `PSTATE.I` alone, so it reaches code that runs with interrupts
//! off. Its priority has to be strictly higher than that of everything else. The CPU interface signals only the
//! highest-priority pending interrupt: at equal priorities a pending ordinary interrupt that the CPU has masked would
//! hide it.

use kernel::arch::Doorbell;

/// The SGI of [`Doorbell::Call`].
pub const CALL: u32 = 1;
/// The SGI of [`Doorbell::Nmi`].
pub const NMI: u32 = 15;
/// The private peripheral interrupt of the virtual timer.
pub const TIMER: u32 = 27;
/// Priority of [`NMI`]: lower numbers are more urgent.
pub const NMI_PRIORITY: u8 = 0x20;
/// Priority of everything else.
pub const ORDINARY_PRIORITY: u8 = 0xa0;

/// The affinity fields of `MPIDR_EL1`, which are a CPU's hardware number here.
pub const AFFINITY: u64 = 0xff_00ff_ffff;

/// A CPU that no target list can name: a list has 16 places, and `Aff0` must be one of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("affinity {0:#x} has an Aff0 above 15, which a target list cannot name")]
pub struct Unaddressable(pub u64);

/// Whether `hw_id` can be named.
pub const fn check(hw_id: u64) -> Result<(), Unaddressable> {
    if hw_id & 0xff > 15 { Err(Unaddressable(hw_id)) } else { Ok(()) }
}

/// The word that sends `bell` to the CPU with affinity `hw_id`, which passed [`check`].
#[inline(always)]
pub const fn word(hw_id: u64, bell: Doorbell) -> u64 {
    let intid = match bell {
        Doorbell::Call => CALL,
        Doorbell::Nmi => NMI,
    };
    let aff1 = hw_id >> 8 & 0xff;
    let aff2 = hw_id >> 16 & 0xff;
    let aff3 = hw_id >> 32 & 0xff;
    aff3 << 48 | aff2 << 32 | (intid as u64) << 24 | aff1 << 16 | 1 << (hw_id & 15)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words() {
        assert_eq!(word(0, Doorbell::Call), 0x0100_0001);
        assert_eq!(word(3, Doorbell::Nmi), 0x0f00_0008);
        assert_eq!(word(0x1f0f, Doorbell::Call), 0x011f_8000);
        assert_eq!(word(0x04_0003_0201, Doorbell::Nmi), 0x0004_0003_0f02_0002);
    }

    #[test]
    fn what_a_list_cannot_name() {
        assert_eq!(check(0x1f0f), Ok(()));
        assert_eq!(check(0x10), Err(Unaddressable(0x10)));
    }

    #[test]
    fn an_nmi_is_more_urgent_than_everything_else() {
        const { assert!(NMI_PRIORITY < ORDINARY_PRIORITY) };
        // And stays so with only the upper four bits of priorities implemented.
        const { assert!(NMI_PRIORITY >> 4 < ORDINARY_PRIORITY >> 4) };
    }
}
