//! Addresses, frame numbers, table levels and CPU numbers: one newtype each, so that none is taken for another.

use core::fmt;

/// Bytes in a base page, on both architectures (4 KiB granule).
pub const PAGE_SIZE: u64 = 1 << PAGE_SHIFT;
/// log2 of [`PAGE_SIZE`].
pub const PAGE_SHIFT: u32 = 12;
/// Bytes that one PTE table maps, and the size of a PMD leaf: 2 MiB.
pub const PMD_SIZE: u64 = 1 << 21;
/// Bytes that one PMD table maps: 1 GiB.
pub const PUD_SIZE: u64 = 1 << 30;
/// Entries in one table, at every level.
pub const ENTRIES: usize = 512;
/// The most CPUs that any structure here has room for. Under loom, sets of CPUs are one word.
pub const MAX_CPUS: usize = if cfg!(loom) { 64 } else { 512 };

/// A physical byte address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[repr(transparent)]
pub struct PhysAddr(pub u64);

/// A virtual byte address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[repr(transparent)]
pub struct VirtAddr(pub u64);

/// A physical frame number: `PhysAddr >> 12`. 32 bits reach 16 TiB.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[repr(transparent)]
pub struct Pfn(pub u32);

/// A CPU's dense number: 0 is the boot CPU, and all numbers below the online count exist.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[repr(transparent)]
pub struct CpuId(pub u16);

/// The level of a table, named as the entries in it are: a `Pte` table maps 2 MiB, a `Pgd` table is a root.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum Level {
    /// Entries map 4 KiB pages.
    Pte = 0,
    /// Entries map 2 MiB pages or PTE tables.
    Pmd = 1,
    /// Entries point at PMD tables.
    Pud = 2,
    /// Entries point at PUD tables.
    Pgd = 3,
}

impl Level {
    /// log2 of the bytes that one entry at this level maps.
    #[inline(always)]
    pub const fn shift(self) -> u32 {
        PAGE_SHIFT + 9 * self as u32
    }

    /// Bytes that one entry at this level maps.
    #[inline(always)]
    pub const fn entry_size(self) -> u64 {
        1 << self.shift()
    }

    /// The level that entries of this one point at; none below a PTE table.
    pub const fn below(self) -> Option<Level> {
        match self {
            Level::Pte => None,
            Level::Pmd => Some(Level::Pte),
            Level::Pud => Some(Level::Pmd),
            Level::Pgd => Some(Level::Pud),
        }
    }

    /// The level whose number is `n` (0 is `Pte`).
    pub const fn from_number(n: u8) -> Option<Level> {
        match n {
            0 => Some(Level::Pte),
            1 => Some(Level::Pmd),
            2 => Some(Level::Pud),
            3 => Some(Level::Pgd),
            _ => None,
        }
    }
}

impl VirtAddr {
    /// The index of this address's entry in a table of `level`.
    #[inline(always)]
    pub const fn index(self, level: Level) -> usize {
        (self.0 >> level.shift()) as usize & (ENTRIES - 1)
    }

    /// This address rounded down to what one entry of `level` maps.
    #[inline(always)]
    pub const fn align_down(self, level: Level) -> VirtAddr {
        VirtAddr(self.0 & !(level.entry_size() - 1))
    }

    /// Whether one entry of `level` begins here.
    #[inline(always)]
    pub const fn is_aligned(self, level: Level) -> bool {
        self.0 & (level.entry_size() - 1) == 0
    }

    /// The address `bytes` further up.
    #[inline(always)]
    #[allow(clippy::should_implement_trait)]
    pub const fn add(self, bytes: u64) -> VirtAddr {
        VirtAddr(self.0 + bytes)
    }
}

impl PhysAddr {
    /// The frame that this address lies in.
    #[inline(always)]
    pub const fn pfn(self) -> Pfn {
        Pfn((self.0 >> PAGE_SHIFT) as u32)
    }
}

impl Pfn {
    /// The first byte of this frame.
    #[inline(always)]
    pub const fn addr(self) -> PhysAddr {
        PhysAddr((self.0 as u64) << PAGE_SHIFT)
    }
}

impl CpuId {
    /// This CPU's number as an index.
    #[inline(always)]
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

macro_rules! hex_debug {
    ($($t:ident),*) => {$(
        impl fmt::Debug for $t {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:#x}", self.0)
            }
        }
        impl fmt::Display for $t {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:#x}", self.0)
            }
        }
    )*};
}
hex_debug!(PhysAddr, VirtAddr, Pfn);

impl fmt::Debug for CpuId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cpu{}", self.0)
    }
}
impl fmt::Display for CpuId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cpu{}", self.0)
    }
}
