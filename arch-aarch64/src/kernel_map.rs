//! The kernel half: the direct map, the image in it, and the kernel's stacks.
//!
//! Physical address `pa` is reached at [`DIRECT_MAP`]` + pa`, for all RAM and for the devices; the image runs at its
//! place in the direct map. Because the low 48 bits of such an address *are* the physical address, the same root
//! translates physical addresses to themselves when `TTBR0_EL1` holds it: that is how the entry code turns the MMU on.
//!
//! The entry code (in the platform) fills in what it needs to reach Rust: the image in 2 MiB blocks, text executable
//! and not writable, constants neither, data writable and not executable; the devicetree; the devices below 1 GiB.
//! [`map_ram`] and [`map_device`] add the rest, on the boot CPU. Entries only ever go from invalid to valid, so nothing
//! is ever invalidated here.

use aarch64_cpu::asm::barrier;
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use kernel::addr::{ENTRIES, Level, PMD_SIZE, PUD_SIZE, PhysAddr, VirtAddr};
use kernel::mm::entry::{Entry, EntryCodec};

use crate::entry::{self, Codec};

/// Where physical address 0 is in the direct map.
pub const DIRECT_MAP: u64 = 0xffff_0000_0000_0000;
/// Where kernel stacks may be mapped.
pub const KERNEL_STACKS: u64 = 0xffff_8000_0000_0000;
/// Bytes that the direct map has room for: what one entry of the root maps.
pub const DIRECT_MAP_BYTES: u64 = 1 << 39;

/// A table of the kernel half.
#[repr(C, align(4096))]
pub struct Table([AtomicU64; ENTRIES]);

impl Table {
    /// All absent.
    pub const fn new() -> Table {
        Table([const { AtomicU64::new(0) }; ENTRIES])
    }
}

impl Default for Table {
    fn default() -> Self {
        Table::new()
    }
}

/// The root, in `TTBR1_EL1` on every CPU.
pub static ROOT: Table = Table::new();
/// What the root's first entry points at: 1 GiB for each entry of the direct map.
pub static DIRECT: Table = Table::new();
/// The gibibyte of the direct map that the image and the devicetree are in.
pub static IMAGE: Table = Table::new();
/// For gibibytes that are only partly RAM.
static SPARE: [Table; 16] = [const { Table::new() }; 16];
static SPARE_USED: AtomicUsize = AtomicUsize::new(0);

/// Why memory could not be added to the direct map.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum MapError {
    /// It ends above what the direct map has room for.
    #[error("physical address {0} is above the 512 GiB that the kernel maps")]
    TooHigh(PhysAddr),
    /// The memory map has more borders within a gibibyte than there are tables.
    #[error("too many memory regions that end within a gibibyte")]
    TooFragmented,
}

/// Where the kernel reaches `pa`.
#[inline(always)]
pub const fn direct_map(pa: PhysAddr) -> *mut u8 {
    (pa.0 + DIRECT_MAP) as *mut u8
}

/// The physical address of something in the image.
#[inline(always)]
pub fn physical<T>(of: &'static T) -> PhysAddr {
    PhysAddr(of as *const T as u64 - DIRECT_MAP)
}

/// Adds the 2 MiB blocks that lie wholly within `start..end` to the direct map, but for those that are there already.
pub fn map_ram(start: PhysAddr, end: PhysAddr) -> Result<(), MapError> {
    if end.0 > DIRECT_MAP_BYTES {
        return Err(MapError::TooHigh(end));
    }
    let mut at = start.0.next_multiple_of(PMD_SIZE);
    let end = end.0 & !(PMD_SIZE - 1);
    while at < end {
        let gib = &DIRECT.0[(at / PUD_SIZE) as usize];
        let present = gib.load(Ordering::Relaxed);
        if !entry::is_valid(present) && at % PUD_SIZE == 0 && end - at >= PUD_SIZE {
            gib.store(at | entry::KERNEL_DATA_BLOCK, Ordering::Relaxed);
            at += PUD_SIZE;
            continue;
        }
        let blocks = match Codec::decode(Level::Pud, present) {
            Entry::Table(blocks) => table_at(blocks),
            Entry::Absent => spare_table(gib)?,
            Entry::Leaf { .. } => {
                // The whole gibibyte is there already.
                at = (at + 1).next_multiple_of(PUD_SIZE);
                continue;
            }
        };
        let block = &blocks.0[VirtAddr(at).index(Level::Pmd)];
        if !entry::is_valid(block.load(Ordering::Relaxed)) {
            block.store(at | entry::KERNEL_DATA_BLOCK, Ordering::Relaxed);
        }
        at += PMD_SIZE;
    }
    publish();
    Ok(())
}

/// Adds the gibibyte around device register `pa` to the direct map, if nothing is there yet.
pub fn map_device(pa: PhysAddr) -> Result<(), MapError> {
    if pa.0 >= DIRECT_MAP_BYTES {
        return Err(MapError::TooHigh(pa));
    }
    let gib = &DIRECT.0[(pa.0 / PUD_SIZE) as usize];
    if !entry::is_valid(gib.load(Ordering::Relaxed)) {
        gib.store(pa.0 & !(PUD_SIZE - 1) | entry::KERNEL_DEVICE_BLOCK, Ordering::Relaxed);
    }
    publish();
    Ok(())
}

/// Maps one 4 KiB page, readable and writable, never executable, into an empty slot.
///
/// # Safety
/// `va` is in the kernel half and nothing refers to it; `page` is not otherwise in use. Only before other CPUs run.
pub unsafe fn map_page(va: VirtAddr, page: PhysAddr, new_table: &mut dyn FnMut() -> PhysAddr) {
    let mut table = &ROOT;
    for level in [Level::Pgd, Level::Pud, Level::Pmd] {
        let slot = &table.0[va.index(level)];
        let present = slot.load(Ordering::Relaxed);
        let next = if entry::is_valid(present) {
            entry::address(present)
        } else {
            let frame = new_table();
            slot.store(frame.0 | entry::KERNEL_TABLE, Ordering::Relaxed);
            frame
        };
        table = table_at(next);
    }
    table.0[va.index(Level::Pte)].store(page.0 | entry::KERNEL_DATA_PAGE, Ordering::Relaxed);
    publish();
}

/// Makes stored entries visible to this CPU's walker and to the instructions that follow.
fn publish() {
    barrier::dsb(barrier::ISHST);
    barrier::isb(barrier::SY);
}

/// The kernel table at `pa`, which a table descriptor of the kernel half pointed at.
fn table_at(pa: PhysAddr) -> &'static Table {
    // SAFETY: kernel tables are in the direct map, are never freed, and are only accessed as atomics.
    unsafe { &*(direct_map(pa) as *const Table) }
}

fn spare_table(parent: &AtomicU64) -> Result<&'static Table, MapError> {
    let index = SPARE_USED.fetch_add(1, Ordering::Relaxed);
    let table = SPARE.get(index).ok_or(MapError::TooFragmented)?;
    parent.store(physical(table).0 | entry::KERNEL_TABLE, Ordering::Relaxed);
    Ok(table)
}
