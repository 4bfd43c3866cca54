//! The format of table entries.
//!
//! A table entry allows everything, so that rights are decided by the leaf alone. Accessed is set in advance in both,
//! and dirty in writable leaves: the hardware then never writes to a table, and an entry changes only when the core
//! changes it.

use kernel::addr::{Level, PhysAddr};
use kernel::mm::entry::{Entry, EntryCodec, Perm};
use x86_64::structures::paging::PageTableFlags as Flags;

/// Bits 51 to 12: the address in a table entry, and in a leaf of a PTE table.
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// The format.
pub struct Codec;

impl Codec {
    /// The bits of a table entry.
    const TABLE: u64 =
        Flags::PRESENT.union(Flags::WRITABLE).union(Flags::USER_ACCESSIBLE).union(Flags::ACCESSED).bits();
    /// The bits of every leaf.
    const LEAF: u64 = Flags::PRESENT.union(Flags::USER_ACCESSIBLE).union(Flags::ACCESSED).bits();
    const WRITABLE: u64 = Flags::WRITABLE.union(Flags::DIRTY).bits();
    const NO_EXECUTE: u64 = Flags::NO_EXECUTE.bits();
    /// In a PMD table (or a PUD table): this is a leaf. In a PTE table the same bit selects a memory type.
    const HUGE: u64 = Flags::HUGE_PAGE.bits();

    /// The address bits of a leaf of `level`; below them a leaf above the PTE table has its memory type at bit 12.
    const fn leaf_address(level: Level) -> u64 {
        ADDRESS & !(level.entry_size() - 1)
    }
}

impl EntryCodec for Codec {
    #[inline(always)]
    fn table(child: PhysAddr) -> u64 {
        child.0 | Codec::TABLE
    }

    #[inline(always)]
    fn leaf(level: Level, page: PhysAddr, perm: Perm) -> u64 {
        debug_assert!(page.0 & (level.entry_size() - 1) == 0, "{page} is not aligned for a leaf of {level:?}");
        let huge = if matches!(level, Level::Pte) { 0 } else { Codec::HUGE };
        let write = if perm.contains(Perm::WRITE) { Codec::WRITABLE } else { 0 };
        let execute = if perm.contains(Perm::EXEC) { 0 } else { Codec::NO_EXECUTE };
        page.0 | Codec::LEAF | huge | write | execute
    }

    #[inline(always)]
    fn decode(level: Level, raw: u64) -> Entry {
        if raw & Flags::PRESENT.bits() == 0 {
            return Entry::Absent;
        }
        let leaf = match level {
            Level::Pte => true,
            Level::Pmd | Level::Pud => raw & Codec::HUGE != 0,
            Level::Pgd => false,
        };
        if !leaf {
            return Entry::Table(PhysAddr(raw & ADDRESS));
        }
        let mut perm = Perm::empty();
        perm.set(Perm::WRITE, raw & Flags::WRITABLE.bits() != 0);
        perm.set(Perm::EXEC, raw & Codec::NO_EXECUTE == 0);
        Entry::Leaf { page: PhysAddr(raw & Codec::leaf_address(level)), perm }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PERMS: [Perm; 4] = [Perm::empty(), Perm::WRITE, Perm::EXEC, Perm::WRITE.union(Perm::EXEC)];

    #[test]
    fn tables_come_back_at_every_level_that_has_them() {
        for level in [Level::Pmd, Level::Pud, Level::Pgd] {
            for child in [0x1000, 0x7654_3000, 0x000f_ffff_ffff_f000] {
                let child = PhysAddr(child);
                assert_eq!(Codec::decode(level, Codec::table(child)), Entry::Table(child));
            }
        }
    }

    #[test]
    fn leaves_come_back_with_their_rights() {
        for (level, page) in [
            (Level::Pte, 0x1000),
            (Level::Pte, 0x000f_ffff_ffff_f000),
            (Level::Pmd, 0x20_0000),
            (Level::Pmd, 0x000f_ffff_ffe0_0000),
        ] {
            for perm in PERMS {
                let page = PhysAddr(page);
                assert_eq!(Codec::decode(level, Codec::leaf(level, page, perm)), Entry::Leaf { page, perm });
            }
        }
    }

    #[test]
    fn nothing_is_absent_and_absent_whatever_its_other_bits() {
        for level in [Level::Pte, Level::Pmd, Level::Pud, Level::Pgd] {
            assert_eq!(Codec::decode(level, 0), Entry::Absent);
            assert_eq!(Codec::decode(level, !1), Entry::Absent);
        }
    }

    #[test]
    fn bits_are_those_of_the_manual() {
        assert_eq!(Codec::table(PhysAddr(0x1000)), 0x1027);
        assert_eq!(Codec::leaf(Level::Pte, PhysAddr(0x1000), Perm::WRITE | Perm::EXEC), 0x1067);
        assert_eq!(Codec::leaf(Level::Pte, PhysAddr(0x1000), Perm::empty()), 0x8000_0000_0000_1025);
        assert_eq!(Codec::leaf(Level::Pmd, PhysAddr(0x20_0000), Perm::WRITE), 0x8000_0000_0020_00e7);
    }

    #[test]
    fn what_the_hardware_may_set_changes_nothing() {
        let raw = Codec::leaf(Level::Pte, PhysAddr(0x5000), Perm::WRITE);
        assert_eq!(raw | Flags::ACCESSED.bits() | Flags::DIRTY.bits(), raw);
        let table = Codec::table(PhysAddr(0x5000));
        assert_eq!(table | Flags::ACCESSED.bits(), table);
    }

    #[test]
    fn the_memory_type_of_a_large_leaf_is_no_address_bit() {
        let raw = Codec::leaf(Level::Pmd, PhysAddr(0x40_0000), Perm::EXEC) | 1 << 12;
        assert_eq!(Codec::decode(Level::Pmd, raw), Entry::Leaf { page: PhysAddr(0x40_0000), perm: Perm::EXEC });
    }
}
