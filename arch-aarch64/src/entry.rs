//! The format of stage 1 descriptors: 4 KiB granule, 48-bit addresses, four levels.
//!
//! | bits | leaf | table |
//! |---|---|---|
//! | 1:0 | `11` page, `01` block | `11` |
//! | 4:2 | attribute index 0: normal memory, write-back | the same, ignored |
//! | 7:6 | EL0 may read (and write) | EL1 may read, ignored |
//! | 9:8 | inner shareable | the same, ignored |
//! | 10 | accessed | the same, ignored |
//! | 11 | not global | the same, ignored |
//! | 47:12 | the page | the table |
//! | 54:53 | `UXN` by permission, `PXN` always | both, ignored |
//!
//! The hardware ignores the right-hand column in a table's role. It is there because a table descriptor is *also* read
//! as a page descriptor where a root points at itself: the last lookup of such a walk ends on a descriptor that was
//! written as a table, one level up or more, and without these bits it would fault on its access flag, be global, be
//! executable, or be open to EL0. So every table is readable through such a window by EL1 and by nobody else, and
//! writable by nobody. A 2 MiB block is no valid page descriptor at the last level (`01` is reserved there), so user
//! data can not be taken for entries.
//!
//! Access flags are set in advance and `TCR_EL1.HA` stays off: hardware never writes to a table.

use kernel::addr::{Level, PhysAddr};
use kernel::mm::entry::{Entry, EntryCodec, Perm};

/// Valid.
const VALID: u64 = 1 << 0;
/// With [`VALID`]: a table above the last level, a page at the last level. Without this bit a block.
const TABLE_OR_PAGE: u64 = 1 << 1;
/// Attribute index 0 of [`MAIR`].
const NORMAL: u64 = 0 << 2;
/// Attribute index 1 of [`MAIR`].
const DEVICE: u64 = 1 << 2;
/// EL0 has access too.
const EL0: u64 = 1 << 6;
/// No stores.
const READ_ONLY: u64 = 1 << 7;
const INNER_SHAREABLE: u64 = 3 << 8;
const ACCESSED: u64 = 1 << 10;
const NOT_GLOBAL: u64 = 1 << 11;
/// EL1 may not execute.
const PXN: u64 = 1 << 53;
/// EL0 may not execute.
const UXN: u64 = 1 << 54;
const ADDRESS: u64 = 0x0000_ffff_ffff_f000;

/// The value of `MAIR_EL1`: index 0 normal write-back memory, index 1 device nGnRnE.
pub const MAIR: u64 = 0x00ff;

/// What a table descriptor has beside the address.
const TABLE: u64 = VALID | TABLE_OR_PAGE | NORMAL | READ_ONLY | INNER_SHAREABLE | ACCESSED | NOT_GLOBAL | PXN | UXN;
/// What every user leaf has, whatever its permissions; the type is by level.
const USER_LEAF: u64 = VALID | NORMAL | EL0 | INNER_SHAREABLE | ACCESSED | NOT_GLOBAL | PXN;

/// A kernel block of normal memory, readable and writable.
pub const KERNEL_DATA_BLOCK: u64 = VALID | NORMAL | INNER_SHAREABLE | ACCESSED | PXN | UXN;
/// A kernel block of normal memory that is only read.
pub const KERNEL_RODATA_BLOCK: u64 = KERNEL_DATA_BLOCK | READ_ONLY;
/// A kernel block of normal memory that is read and executed.
pub const KERNEL_TEXT_BLOCK: u64 = VALID | NORMAL | INNER_SHAREABLE | ACCESSED | READ_ONLY | UXN;
/// A kernel block of device registers.
pub const KERNEL_DEVICE_BLOCK: u64 = VALID | DEVICE | ACCESSED | PXN | UXN;
/// A kernel page of normal memory, readable and writable.
pub const KERNEL_DATA_PAGE: u64 = KERNEL_DATA_BLOCK | TABLE_OR_PAGE;
/// A table of the kernel half: never read through a window, so the bare minimum.
pub const KERNEL_TABLE: u64 = VALID | TABLE_OR_PAGE;

/// The physical address in a descriptor.
pub const fn address(raw: u64) -> PhysAddr {
    PhysAddr(raw & ADDRESS)
}

/// Whether a descriptor is valid.
pub const fn is_valid(raw: u64) -> bool {
    raw & VALID != 0
}

/// The codec of this architecture.
#[derive(Clone, Copy, Debug)]
pub struct Codec;

impl EntryCodec for Codec {
    #[inline(always)]
    fn table(child: PhysAddr) -> u64 {
        child.0 | TABLE
    }

    #[inline(always)]
    fn leaf(level: Level, page: PhysAddr, perm: Perm) -> u64 {
        let kind = if level == Level::Pte { TABLE_OR_PAGE } else { 0 };
        let read_only = if perm.contains(Perm::WRITE) { 0 } else { READ_ONLY };
        let no_exec = if perm.contains(Perm::EXEC) { 0 } else { UXN };
        page.0 | USER_LEAF | kind | read_only | no_exec
    }

    #[inline(always)]
    fn decode(level: Level, raw: u64) -> Entry {
        match (raw & VALID != 0, raw & TABLE_OR_PAGE != 0, level) {
            (false, ..) => Entry::Absent,
            (true, true, Level::Pte) => leaf(level, raw),
            (true, true, _) => Entry::Table(address(raw)),
            (true, false, Level::Pmd | Level::Pud) => leaf(level, raw),
            // Reserved at the last level and at the root: no translation, and none is cached.
            (true, false, Level::Pte | Level::Pgd) => Entry::Absent,
        }
    }
}

#[inline(always)]
fn leaf(level: Level, raw: u64) -> Entry {
    let mut perm = Perm::empty();
    perm.set(Perm::WRITE, raw & READ_ONLY == 0);
    perm.set(Perm::EXEC, raw & UXN == 0);
    Entry::Leaf { page: PhysAddr(raw & ADDRESS & !(level.entry_size() - 1)), perm }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    const LEVELS: [Level; 4] = [Level::Pte, Level::Pmd, Level::Pud, Level::Pgd];

    fn perms() -> Vec<Perm> {
        (0..4).map(Perm::from_bits_truncate).collect()
    }

    /// Every single address bit, and all of them, that an entry of `level` can hold.
    fn pages(level: Level) -> Vec<PhysAddr> {
        let mut all: Vec<_> = (level.shift()..48).map(|bit| PhysAddr(1 << bit)).collect();
        all.push(PhysAddr(0));
        all.push(PhysAddr(ADDRESS & !(level.entry_size() - 1)));
        all
    }

    #[test]
    fn leaves_come_back() {
        for level in [Level::Pte, Level::Pmd] {
            for page in pages(level) {
                for perm in perms() {
                    assert_eq!(Codec::decode(level, Codec::leaf(level, page, perm)), Entry::Leaf { page, perm });
                }
            }
        }
    }

    #[test]
    fn tables_come_back() {
        for level in [Level::Pmd, Level::Pud, Level::Pgd] {
            for child in pages(Level::Pte) {
                assert_eq!(Codec::decode(level, Codec::table(child)), Entry::Table(child));
            }
        }
    }

    #[test]
    fn what_the_hardware_ignores_is_absent() {
        for level in LEVELS {
            assert_eq!(Codec::decode(level, 0), Entry::Absent);
            assert_eq!(Codec::decode(level, !VALID), Entry::Absent);
        }
        assert_eq!(Codec::decode(Level::Pte, VALID | ADDRESS), Entry::Absent);
        assert_eq!(Codec::decode(Level::Pgd, VALID | ADDRESS), Entry::Absent);
    }

    #[test]
    fn known_descriptors() {
        let page = PhysAddr(0x4567_8000);
        assert_eq!(Codec::leaf(Level::Pte, page, Perm::WRITE), 0x0060_0000_4567_8f43);
        assert_eq!(Codec::leaf(Level::Pte, page, Perm::empty()), 0x0060_0000_4567_8fc3);
        assert_eq!(Codec::leaf(Level::Pte, page, Perm::EXEC), 0x0020_0000_4567_8fc3);
        assert_eq!(Codec::leaf(Level::Pmd, PhysAddr(0x4560_0000), Perm::WRITE), 0x0060_0000_4560_0f41);
        assert_eq!(Codec::table(page), 0x0060_0000_4567_8f83);
    }

    /// A table descriptor, read as a page descriptor, is a page that EL1 reads, that nobody writes or executes and EL0
    /// does not see.
    #[test]
    fn a_table_is_a_harmless_page() {
        let raw = Codec::table(PhysAddr(0x1000));
        for bits in [VALID, TABLE_OR_PAGE, READ_ONLY, INNER_SHAREABLE, ACCESSED, NOT_GLOBAL, PXN, UXN] {
            assert_eq!(raw & bits, bits);
        }
        assert_eq!(raw & (EL0 | DEVICE), 0);
        // And none of the hierarchical controls, which would act in its table's role.
        assert_eq!(raw >> 59, 0);
    }

    /// A 2 MiB block, read as a page descriptor, is no translation.
    #[test]
    fn a_block_is_no_page() {
        let raw = Codec::leaf(Level::Pmd, PhysAddr(0x20_0000), Perm::WRITE);
        assert_eq!(Codec::decode(Level::Pte, raw), Entry::Absent);
    }

    #[test]
    fn no_user_leaf_runs_in_the_kernel_or_is_global() {
        for level in [Level::Pte, Level::Pmd] {
            for perm in perms() {
                let raw = Codec::leaf(level, PhysAddr(0), perm);
                assert_eq!(raw & (PXN | NOT_GLOBAL | ACCESSED), PXN | NOT_GLOBAL | ACCESSED);
            }
        }
    }

    #[test]
    fn kernel_memory_is_never_both_writable_and_executable() {
        for raw in [KERNEL_DATA_BLOCK, KERNEL_RODATA_BLOCK, KERNEL_TEXT_BLOCK, KERNEL_DEVICE_BLOCK, KERNEL_DATA_PAGE] {
            assert!(raw & READ_ONLY != 0 || raw & PXN != 0);
            assert_eq!(raw & (EL0 | UXN), UXN);
        }
    }
}
