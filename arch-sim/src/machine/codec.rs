//! The format of entries of the simulated machine: the address, and a few low bits.

use kernel::addr::{Level, PhysAddr};
use kernel::mm::entry::{Entry, EntryCodec, Perm};

use super::world;

const PRESENT: u64 = 1;
const TABLE: u64 = 2;
const WRITE: u64 = 4;
const EXEC: u64 = 8;
/// A leaf of 2 MiB.
const HUGE: u64 = 16;
/// Hardware has translated by it.
const ACCESSED: u64 = 32;
/// Hardware has written by it.
const DIRTY: u64 = 64;
const ADDRESS: u64 = !0xfff;

/// The format.
#[derive(Clone, Copy, Debug)]
pub struct Codec;

/// Whether a leaf is one of 2 MiB.
pub(super) fn is_huge(raw: u64) -> bool {
    raw & HUGE != 0
}

/// A leaf after hardware has used it, and written by it.
pub(super) fn used(raw: u64, written: bool) -> u64 {
    raw | ACCESSED | if written { DIRTY } else { 0 }
}

/// Whether hardware has written by it.
pub(super) fn is_dirty(raw: u64) -> bool {
    raw & DIRTY != 0
}

impl EntryCodec for Codec {
    fn table(child: PhysAddr) -> u64 {
        child.0 | TABLE | PRESENT
    }

    fn leaf(level: Level, page: PhysAddr, perm: Perm) -> u64 {
        debug_assert!(page.0.is_multiple_of(level.entry_size()), "{page} is not aligned for a leaf of {level:?}");
        let write = if perm.contains(Perm::WRITE) { WRITE } else { 0 };
        let exec = if perm.contains(Perm::EXEC) { EXEC } else { 0 };
        let huge = if level == Level::Pmd { HUGE } else { 0 };
        let set = if world::presets() { ACCESSED | DIRTY } else { 0 };
        page.0 | PRESENT | write | exec | huge | set
    }

    fn decode(_level: Level, raw: u64) -> Entry {
        if raw & PRESENT == 0 {
            return Entry::Absent;
        }
        if raw & TABLE != 0 {
            return Entry::Table(PhysAddr(raw & ADDRESS));
        }
        let mut perm = Perm::empty();
        perm.set(Perm::WRITE, raw & WRITE != 0);
        perm.set(Perm::EXEC, raw & EXEC != 0);
        Entry::Leaf { page: PhysAddr(raw & ADDRESS), perm }
    }
}
