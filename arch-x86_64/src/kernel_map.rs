//! The kernel half: the direct map, the kernel's stacks, the image, and the APIC's registers.
//!
//! Physical address `pa` is reached at [`DIRECT_MAP`]` + pa`, for all RAM, by 1 GiB or 2 MiB pages. The image is linked
//! at [`IMAGE_BASE`] plus its physical address and mapped by 4 KiB pages: text executable and not writable, constants
//! neither, data writable and not executable. Nothing else in this half is executable. All leaves are global.
//!
//! One entry of this half differs from root to root: the one at [`SELF_MAP`], through which the root reads itself and
//! all tables below it.
//!
//! [`build`] fills in [`ROOT`] once, on the boot CPU, while the entry code's own tables are still loaded. The four
//! top-level entries exist from then on, so roots that were prepared before a stack was mapped see it too. Entries only
//! ever go from absent to present, so nothing here is ever invalidated.

use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use kernel::addr::{ENTRIES, Level, PAGE_SIZE, PMD_SIZE, PUD_SIZE, PhysAddr, VirtAddr};
use kernel::arch::Asid;
use x86_64::instructions::tlb::Pcid;
use x86_64::registers::control::{Cr3, Cr3Flags};
use x86_64::structures::paging::{PageTableFlags as Flags, PhysFrame};

use crate::features;
use crate::tlb::{self, SELF_MAP};

/// Where physical address 0 is in the direct map.
pub const DIRECT_MAP: u64 = 0xffff_8000_0000_0000;
/// Bytes that the direct map has room for: what one entry of the root maps.
pub const DIRECT_MAP_BYTES: u64 = 1 << 39;
/// Where kernel stacks may be mapped: 512 GiB.
pub const KERNEL_STACKS: VirtAddr = VirtAddr(0xffff_c000_0000_0000);
/// The image's addresses less its physical ones.
pub const IMAGE_BASE: u64 = 0xffff_ffff_8000_0000;
/// Bytes that the image may have.
pub const IMAGE_BYTES: u64 = 16 << 20;
/// Where the local APIC's registers are.
pub const APIC_WINDOW: u64 = 0xffff_ffff_c000_0000;

/// A table of the kernel half.
#[repr(C, align(4096))]
pub struct Table([AtomicU64; ENTRIES]);

impl Table {
    /// All absent.
    pub const fn new() -> Table {
        Table([const { AtomicU64::new(0) }; ENTRIES])
    }

    /// Where it is. Only for tables that are part of the image.
    pub fn physical(&'static self) -> PhysAddr {
        image_physical(self as *const Table as u64)
    }
}

impl Default for Table {
    fn default() -> Self {
        Table::new()
    }
}

/// The root: no user half, and the kernel half that all other roots share.
pub static ROOT: Table = Table::new();
static DIRECT: Table = Table::new();
static STACKS: Table = Table::new();
static TOP: Table = Table::new();
static IMAGE: Table = Table::new();
static IMAGE_PAGES: [Table; (IMAGE_BYTES / PMD_SIZE) as usize + 1] =
    [const { Table::new() }; (IMAGE_BYTES / PMD_SIZE) as usize + 1];
static APIC: Table = Table::new();
static APIC_PAGE: Table = Table::new();
/// For gibibytes that are only partly RAM, or all of them where there are no 1 GiB pages.
static SPARE: [Table; 32] = [const { Table::new() }; 32];
static SPARE_USED: AtomicUsize = AtomicUsize::new(0);

/// Present, accessed: what every entry of the kernel half has.
const PRESENT: Flags = Flags::PRESENT.union(Flags::ACCESSED);
const TABLE: Flags = PRESENT.union(Flags::WRITABLE);
const TEXT: Flags = PRESENT.union(Flags::GLOBAL);
const CONSTANTS: Flags = TEXT.union(Flags::NO_EXECUTE);
const DATA: Flags = CONSTANTS.union(Flags::WRITABLE).union(Flags::DIRTY);
const LARGE_DATA: Flags = DATA.union(Flags::HUGE_PAGE);
const REGISTERS: Flags = DATA.union(Flags::NO_CACHE).union(Flags::WRITE_THROUGH);

/// Bits 51 to 12 of an entry.
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// The parts of the image, by their addresses in it; each begins on a page.
#[derive(Clone, Copy, Debug)]
pub struct ImageLayout {
    /// First byte of the code.
    pub text: u64,
    /// First byte of the constants, after the code.
    pub constants: u64,
    /// First byte of the data, after the constants.
    pub data: u64,
    /// First byte after the data.
    pub end: u64,
}

/// Why the kernel half could not be built.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum MapError {
    /// RAM ends above what the direct map has room for.
    #[error("RAM ends at {0}, above the 512 GiB that the kernel maps")]
    TooHigh(PhysAddr),
    /// More gibibytes need a table of their own than there are.
    #[error("RAM has more borders within a gibibyte than the kernel has tables for")]
    TooManyBorders,
    /// The image has more bytes than tables were set aside for.
    #[error("the image is larger than {IMAGE_BYTES} bytes")]
    ImageTooLarge,
}

/// Where something in the image lies, by its address there.
pub const fn image_physical(address: u64) -> PhysAddr {
    PhysAddr(address - IMAGE_BASE)
}

fn set(table: &Table, index: usize, to: PhysAddr, flags: Flags) {
    // Relaxed: other CPUs load the root after this, by way of locks and interrupts that order it.
    table.0[index].store(to.0 | flags.bits(), Ordering::Relaxed);
}

/// Fills in [`ROOT`]: all of `ram` (ranges of physical addresses), the image, and the page at `apic`.
///
/// # Errors
/// When something does not fit; [`ROOT`] must not be used then.
pub fn build(
    ram: impl Iterator<Item = (PhysAddr, PhysAddr)> + Clone,
    image: &ImageLayout,
    apic: PhysAddr,
    gigabyte_pages: bool,
) -> Result<(), MapError> {
    set(&ROOT, VirtAddr(DIRECT_MAP).index(Level::Pgd), DIRECT.physical(), TABLE);
    set(&ROOT, KERNEL_STACKS.index(Level::Pgd), STACKS.physical(), TABLE);
    set(&ROOT, VirtAddr(IMAGE_BASE).index(Level::Pgd), TOP.physical(), TABLE);
    map_ram(ram, gigabyte_pages)?;
    map_image(image)?;

    let window = VirtAddr(APIC_WINDOW);
    set(&TOP, window.index(Level::Pud), APIC.physical(), TABLE);
    set(&APIC, window.index(Level::Pmd), APIC_PAGE.physical(), TABLE);
    set(&APIC_PAGE, window.index(Level::Pte), apic, REGISTERS);
    Ok(())
}

fn map_ram(
    ram: impl Iterator<Item = (PhysAddr, PhysAddr)> + Clone,
    gigabyte_pages: bool,
) -> Result<(), MapError> {
    let end = ram.clone().map(|(_, end)| end.0).max().unwrap_or(0);
    if end > DIRECT_MAP_BYTES {
        return Err(MapError::TooHigh(PhysAddr(end)));
    }
    for gigabyte in 0..end.div_ceil(PUD_SIZE) {
        let start = gigabyte * PUD_SIZE;
        let overlaps = |from: u64, bytes: u64| ram.clone().any(|(s, e)| s.0 < from + bytes && from < e.0);
        if !overlaps(start, PUD_SIZE) {
            continue;
        }
        let whole = ram.clone().any(|(s, e)| s.0 <= start && start + PUD_SIZE <= e.0);
        if whole && gigabyte_pages {
            set(&DIRECT, gigabyte as usize, PhysAddr(start), LARGE_DATA);
            continue;
        }
        let table = SPARE.get(SPARE_USED.fetch_add(1, Ordering::Relaxed)).ok_or(MapError::TooManyBorders)?;
        set(&DIRECT, gigabyte as usize, table.physical(), TABLE);
        for index in 0..ENTRIES {
            let page = start + index as u64 * PMD_SIZE;
            if overlaps(page, PMD_SIZE) {
                set(table, index, PhysAddr(page), LARGE_DATA);
            }
        }
    }
    Ok(())
}

fn map_image(image: &ImageLayout) -> Result<(), MapError> {
    let first = VirtAddr(image.text).align_down(Level::Pmd).0;
    if image.end - first > IMAGE_PAGES.len() as u64 * PMD_SIZE {
        return Err(MapError::ImageTooLarge);
    }
    set(&TOP, VirtAddr(IMAGE_BASE).index(Level::Pud), IMAGE.physical(), TABLE);
    for address in (image.text..image.end).step_by(PAGE_SIZE as usize) {
        let flags = match address {
            a if a < image.constants => TEXT,
            a if a < image.data => CONSTANTS,
            _ => DATA,
        };
        let pages = &IMAGE_PAGES[((address - first) / PMD_SIZE) as usize];
        let at = VirtAddr(address);
        set(&IMAGE, at.index(Level::Pmd), pages.physical(), TABLE);
        set(pages, at.index(Level::Pte), image_physical(address), flags);
    }
    Ok(())
}

/// Where the kernel reaches `pa`.
#[inline(always)]
pub fn direct(pa: PhysAddr) -> *mut u8 {
    (DIRECT_MAP + pa.0) as *mut u8
}

/// The slots of the table at `table`.
///
/// # Safety
/// A table of entries is at `table`, in RAM, for as long as the kernel runs.
unsafe fn slots(table: PhysAddr) -> &'static [AtomicU64; ENTRIES] {
    // SAFETY: the caller says that it is a table; the direct map reaches all RAM.
    unsafe { &*direct(table).cast() }
}

/// Maps one page of data in the kernel half, with tables from `new_table`.
///
/// # Safety
/// As for [`kernel::arch::Arch::map_kernel_page`].
pub unsafe fn map_page(va: VirtAddr, page: PhysAddr, new_table: &mut dyn FnMut() -> PhysAddr) {
    let mut table = ROOT.physical();
    for level in [Level::Pgd, Level::Pud, Level::Pmd] {
        // SAFETY: the walk starts at the root and follows entries that point at tables, which live for ever.
        let slot = unsafe { &slots(table)[va.index(level)] };
        // Relaxed: only the boot CPU writes here, before others run.
        let mut raw = slot.load(Ordering::Relaxed);
        if raw & Flags::PRESENT.bits() == 0 {
            raw = new_table().0 | TABLE.bits();
            slot.store(raw, Ordering::Relaxed);
        }
        assert!(raw & Flags::HUGE_PAGE.bits() == 0, "{va} is already mapped by a large page");
        table = PhysAddr(raw & ADDRESS);
    }
    // SAFETY: as above.
    let slot = unsafe { &slots(table)[va.index(Level::Pte)] };
    assert!(slot.load(Ordering::Relaxed) == 0, "{va} is already mapped");
    slot.store(page.0 | DATA.bits(), Ordering::Relaxed);
}

/// Gives a new root the kernel half, and the entry that points at itself.
///
/// # Safety
/// `root` is a zeroed frame that nothing else uses.
pub unsafe fn init_root(root: PhysAddr) {
    // SAFETY: the caller gives a frame, which is in RAM, to be a table.
    let new = unsafe { slots(root) };
    for (to, from) in new.iter().zip(&ROOT.0).skip(ENTRIES / 2) {
        to.store(from.load(Ordering::Relaxed), Ordering::Relaxed);
    }
    new[SELF_MAP.index(Level::Pgd)].store(root.0 | tlb::SELF_ENTRY, Ordering::Relaxed);
}

/// Makes the CPU translate by `root`. Where translations are tagged it drops none and tags new ones with `asid`; else
/// it drops everything that is not global.
///
/// # Safety
/// `root` has the kernel half, and stays a root until another is loaded.
#[inline]
pub unsafe fn load(root: PhysAddr, asid: Asid) {
    let frame = PhysFrame::containing_address(x86_64::PhysAddr::new_truncate(root.0));
    if features::tags() {
        let pcid = Pcid::new(asid.0).expect("the kernel hands out no tag above 4095");
        // SAFETY: the caller says that it maps the kernel; CR4.PCIDE is set where there are tags.
        unsafe { Cr3::write_pcid_no_flush(frame, pcid) };
    } else {
        // SAFETY: the caller says that it maps the kernel.
        unsafe { Cr3::write(frame, Cr3Flags::empty()) };
    }
}
