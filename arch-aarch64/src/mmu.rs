//! Translation control, and which mm the user half is.
//!
//! `TTBR0_EL1` holds the root of the current mm and, in its upper 16 bits, the ASID that tags what is cached from it
//! (`TCR_EL1.A1` is 0). Between mms it holds [`EMPTY`], a table without entries, with ASID 0: nothing is translated,
//! and nothing is cached, since the hardware caches no absent entry. `TTBR1_EL1` never changes.

use aarch64_cpu::asm::barrier;
use aarch64_cpu::registers::{TTBR0_EL1, Writeable};

use kernel::addr::PhysAddr;
use kernel::arch::Asid;

use crate::kernel_map::{self, Table};

/// `TCR_EL1` but for the physical address size, which the entry code takes from the CPU: 48-bit halves (`TxSZ` 16), 4
/// KiB granules, tables in inner shareable write-back memory, 16-bit ASIDs (36) from `TTBR0` (22 clear), top bytes not
/// ignored, hierarchical controls on, and hardware updates of the access flag and dirty state off (39, 40 clear).
pub const TCR: u64 = {
    const HALF: u64 = 16 | 1 << 8 | 1 << 10 | 3 << 12;
    HALF | HALF << 16 | 2 << 30 | 1 << 36
};

/// `SCTLR_EL1` with the MMU on: MMU, data cache and instruction cache (0, 2, 12), SP alignment check (3), and the bits
/// that read as one (11, 20, 22, 28, 29). `SPAN` (23) is 0: exceptions set `PSTATE.PAN`.
pub const SCTLR: u64 = 1 | 1 << 2 | 1 << 3 | 1 << 11 | 1 << 12 | 1 << 20 | 1 << 22 | 1 << 28 | 1 << 29;

/// The root of no mm.
pub static EMPTY: Table = Table::new();

/// Makes `root` the user half, tagged `asid`.
///
/// # Safety
/// `root` is a root table and stays one until another is loaded. Interrupts are masked.
#[inline(always)]
pub unsafe fn load(root: PhysAddr, asid: Asid) {
    // Entries stored before this are seen by walks after it; the barrier of `crate::tlbi` step 2 for a TLB that has no
    // entry yet.
    barrier::dsb(barrier::ISHST);
    TTBR0_EL1.set(root.0 | (asid.0 as u64) << 48);
    barrier::isb(barrier::SY);
}

/// Makes the user half empty.
#[inline(always)]
pub fn unload() {
    TTBR0_EL1.set(kernel_map::physical(&EMPTY).0);
    barrier::isb(barrier::SY);
}
