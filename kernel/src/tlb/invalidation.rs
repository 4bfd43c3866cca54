//! What a flush must invalidate: the range, the size of the leaves in it, and whether tables were removed too.

use crate::addr::{Level, VirtAddr};
use crate::mm::self_map::Recursive;

/// The scope of one invalidation in one mm.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Invalidation {
    /// First address.
    pub start: VirtAddr,
    /// First address after the range.
    pub end: VirtAddr,
    /// The smallest leaf that was changed: one instruction per `stride.entry_size()` bytes.
    pub stride: Level,
    /// Tables were unlinked (freed or unshared): paging-structure caches must go too, at all levels.
    pub tables: bool,
    /// Everything of the mm, whatever the range says.
    pub all: bool,
    /// Which translations of the recursive mapping go too. Nothing but what [`crate::mm::self_map`] asks for.
    pub recursive: Recursive,
}

impl Invalidation {
    /// Everything of the mm, tables included.
    pub const ALL: Invalidation = Invalidation {
        start: VirtAddr(0),
        end: VirtAddr(0),
        stride: Level::Pte,
        tables: true,
        all: true,
        recursive: Recursive::Unused,
    };

    /// One 4 KiB page.
    pub const fn page(va: VirtAddr) -> Invalidation {
        let end = VirtAddr(va.0 + Level::Pte.entry_size());
        let stride = Level::Pte;
        Invalidation { start: va, end, stride, tables: false, all: false, recursive: Recursive::Unused }
    }

    /// How many entries of the stride's size the range has.
    pub const fn entries(&self) -> u64 {
        (self.end.0 - self.start.0).div_ceil(self.stride.entry_size())
    }
}
