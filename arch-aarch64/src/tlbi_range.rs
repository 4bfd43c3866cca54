//! Invalidation of ranges by one instruction (`FEAT_TLBIRANGE`): how a number of pages is cut into the sizes that
//! exist.
//!
//! One operation covers `(NUM + 1) << (5 × SCALE + 1)` pages, with `NUM` of five bits and `SCALE` of two. So every even
//! number of pages below 2^21 is a sum with at most one operation for each scale, as a number is the sum of its digits;
//! an odd one needs a single page first.
//!
//! Used where the CPU has the feature (`ID_AA64ISAR0_EL1.TLB`, asked once when the machine is installed):
//! [`crate::tlbi::plan`] takes it as a flag, so that both plans are tested on any host. More than [`MAX_PAGES`] have no
//! operand: a digit too many would run into the granule's field and invalidate something else.

use kernel::addr::{PAGE_SHIFT, VirtAddr};
use kernel::arch::Asid;

use crate::tlbi::{Page, Range};

/// The most pages that one cut can cover: all digits at their largest.
pub const MAX_PAGES: u64 = (1 << 21) - 1;

/// The operand for `(num + 1) << (5 * scale + 1)` pages from `va`: ASID in 63:48, granule 4 KiB in 47:46, `SCALE` in
/// 45:44, `NUM` in 43:39, no level hint in 38:37, the page number in 36:0.
pub const fn operand(asid: Asid, va: VirtAddr, scale: u32, num: u64) -> Range {
    let page = va.0 >> PAGE_SHIFT & ((1 << 37) - 1);
    Range((asid.0 as u64) << 48 | 1 << 46 | (scale as u64) << 44 | num << 39 | page)
}

/// Cuts a range into pieces: `Err` is a single page, which has no range form.
#[derive(Clone, Debug)]
pub struct Ranges {
    asid: Asid,
    next: VirtAddr,
    pages: u64,
    scale: u32,
}

impl Ranges {
    /// The pieces of `pages` pages from `start`. `pages` is at most [`MAX_PAGES`].
    pub const fn new(asid: Asid, start: VirtAddr, pages: u64) -> Ranges {
        debug_assert!(pages <= MAX_PAGES);
        Ranges { asid, next: start, pages, scale: 0 }
    }
}

impl Iterator for Ranges {
    type Item = Result<Range, Page>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let va = self.next;
        if self.pages & 1 != 0 {
            self.pages -= 1;
            self.next = va.add(1 << PAGE_SHIFT);
            return Some(Err(Page::new(self.asid, va)));
        }
        while self.pages != 0 {
            let scale = self.scale;
            let weight = 5 * scale + 1;
            self.scale += 1;
            let digit = self.pages >> weight & 31;
            if digit != 0 {
                self.pages -= digit << weight;
                self.next = va.add(digit << (weight + PAGE_SHIFT));
                return Some(Ok(operand(self.asid, va, scale, digit - 1)));
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    const ASID: Asid = Asid(0x1234);

    /// First page and number of pages that an operand covers, by the architecture's formula.
    fn covers(piece: Result<Range, Page>) -> (u64, u64) {
        match piece {
            Err(Page(raw)) => {
                assert_eq!(raw >> 48, 0x1234);
                (raw & ((1 << 44) - 1), 1)
            }
            Ok(Range(raw)) => {
                assert_eq!((raw >> 48, raw >> 46 & 3, raw >> 37 & 3), (0x1234, 1, 0));
                (raw & ((1 << 37) - 1), ((raw >> 39 & 31) + 1) << (5 * (raw >> 44 & 3) + 1))
            }
        }
    }

    #[test]
    fn known_operand() {
        let operand = operand(Asid(0xffff), VirtAddr(0x7000), 2, 31);
        assert_eq!(operand.0, 0xffff_0000_0000_0000 | 1 << 46 | 2 << 44 | 31 << 39 | 7);
    }

    #[test]
    fn pieces_cover_exactly_the_range() {
        let counts = (0..3000).chain([4095, 4096, 0x1_0000, 512 * 512, 0x15_5555, MAX_PAGES]);
        for pages in counts {
            let start = 0x7_1234_5000;
            let pieces = Ranges::new(ASID, VirtAddr(start), pages).collect::<Vec<_>>();
            assert!(pieces.len() <= 5);
            let mut at = start >> PAGE_SHIFT;
            for piece in pieces {
                let (first, count) = covers(piece);
                assert_eq!(first, at, "a gap or an overlap in {pages} pages");
                at += count;
            }
            assert_eq!(at, (start >> PAGE_SHIFT) + pages);
        }
    }
}
