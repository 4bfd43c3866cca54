//! Which RAM the kernel gets.
//!
//! RAM begins with the devicetree; the image follows in the third mebibyte. Both stay as they are: everything below the
//! image's end is kept back. What does not fill a 2 MiB block of the direct map at the end of a region is left out.

use arch_aarch64::kernel_map::{self, MapError};
use arrayvec::ArrayVec;
use kernel::addr::{PMD_SIZE, PhysAddr};
use kernel::boot::MemoryRegion;

use firmware::devicetree::MAX_REGIONS;

/// Where RAM begins on this machine, and with it the devicetree. The image is linked for it.
pub(super) const RAM_START: u64 = 0x4000_0000;
/// Bytes from [`RAM_START`] that the entry code maps for the devicetree.
pub(super) const TREE_ROOM: usize = 2 << 20;

unsafe extern "C" {
    static __data_end: u8;
}

/// The end of the image, a multiple of 2 MiB.
fn image_end() -> PhysAddr {
    // SAFETY: the linker script defines it; only its address is used.
    kernel_map::physical(unsafe { &__data_end })
}

/// Maps all RAM and returns what is free of it; `module`, in whole blocks, is not.
pub(super) fn take(
    ram: &[MemoryRegion],
    module: Option<MemoryRegion>,
) -> Result<ArrayVec<MemoryRegion, { 2 * MAX_REGIONS }>, MapError> {
    let mut free = ArrayVec::new();
    let block = |region: MemoryRegion| (region.start.0 & !(PMD_SIZE - 1), region.end.0.next_multiple_of(PMD_SIZE));
    let (hole_start, hole_end) = module.map_or((0, 0), block);
    for region in ram {
        kernel_map::map_ram(region.start, region.end)?;
        let start = PhysAddr(region.start.0.next_multiple_of(PMD_SIZE)).max(image_end());
        let end = PhysAddr(region.end.0 & !(PMD_SIZE - 1));
        // What is below the hole, and what is above: the whole region once, where there is no hole in it.
        let below = MemoryRegion { start, end: end.min(PhysAddr(hole_start)) };
        let above = MemoryRegion { start: start.max(PhysAddr(hole_end)), end };
        free.extend([below, above].into_iter().filter(|piece| piece.start < piece.end));
    }
    Ok(free)
}
