//! The format of entries of the simulated machine: the address, and a few low bits.

use kernel::addr::{Level, PhysAddr};
use kernel::mm::entry::{Entry, EntryCodec, Perm};

const PRESENT: u64 = 1;
const TABLE: u64 = 2;
const WRITE: u64 = 4;
const EXEC: u64 = 8;
const ADDRESS: u64 = !0xfff;

/// The format.
#[derive(Clone, Copy, Debug)]
pub struct Codec;

impl EntryCodec for Codec {
    fn table(child: PhysAddr) -> u64 {
        child.0 | TABLE | PRESENT
    }

    fn leaf(level: Level, page: PhysAddr, perm: Perm) -> u64 {
        debug_assert!(page.0.is_multiple_of(level.entry_size()), "{page} is not aligned for a leaf of {level:?}");
        let write = if perm.contains(Perm::WRITE) { WRITE } else { 0 };
        let exec = if perm.contains(Perm::EXEC) { EXEC } else { 0 };
        page.0 | PRESENT | write | exec
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
