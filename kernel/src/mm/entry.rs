//! What a table entry says, whatever its bits: the neutral form, and the codec that each architecture supplies.

use crate::addr::{Level, PhysAddr};

bitflags::bitflags! {
    /// What a leaf allows to user mode. Readable is implied by being present.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct Perm: u8 {
        /// Stores are allowed.
        const WRITE = 1;
        /// Instruction fetches are allowed.
        const EXEC = 2;
    }
}

/// A decoded entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Entry {
    /// Nothing is mapped. The hardware caches no translation from it.
    Absent,
    /// The physical address of the next table.
    Table(PhysAddr),
    /// A page: 4 KiB in a PTE table, 2 MiB in a PMD table.
    Leaf {
        /// First byte of the page.
        page: PhysAddr,
        /// What it allows.
        perm: Perm,
    },
}

/// The entry format of one architecture. Leaves are user pages, accessed and (where writable) dirty bits set in
/// advance, not global.
///
/// Contract, tested for both architectures on the host: `decode(l, table(p)) == Table(p)`,
/// `decode(l, leaf(l, p, perm)) == Leaf { p, perm }`, `decode(l, 0) == Absent`.
pub trait EntryCodec {
    /// The entry that points at the table at `child`.
    fn table(child: PhysAddr) -> u64;
    /// The entry that maps `page`, which is aligned to the level's entry size.
    fn leaf(level: Level, page: PhysAddr, perm: Perm) -> u64;
    /// What `raw` says in a table of `level`.
    fn decode(level: Level, raw: u64) -> Entry;
}
