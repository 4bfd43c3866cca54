//! What is left of RAM when everything that lies in it is taken out.

use arrayvec::ArrayVec;
use kernel::addr::{PAGE_SIZE, PhysAddr};
use kernel::boot::MemoryRegion;

use crate::pvh::Range;

/// The most regions that are kept.
pub const MAX_REGIONS: usize = 64;

/// Usable RAM, ascending and page-aligned.
pub type Regions = ArrayVec<MemoryRegion, MAX_REGIONS>;

/// RAM is in more pieces than there is room for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("RAM is in more than {MAX_REGIONS} pieces")]
pub struct TooManyPieces;

/// `ram` without `holes`, in whole pages, ascending. Neither needs to be in order; where ranges of RAM overlap they
/// count once.
///
/// # Errors
/// When it is in too many pieces.
pub fn usable(ram: &[Range], holes: &[Range]) -> Result<Regions, TooManyPieces> {
    let mut regions = Regions::new();
    let mut at = 0;
    // Each round takes the lowest piece above `at`.
    loop {
        let inside = |r: &&Range| r.start <= at && at < r.end;
        let Some(current) = ram.iter().filter(inside).max_by_key(|r| r.end) else {
            match ram.iter().filter(|r| r.start > at && r.start < r.end).min_by_key(|r| r.start) {
                Some(next) => at = next.start,
                None => return Ok(regions),
            }
            continue;
        };
        if let Some(hole) = holes.iter().filter(inside).max_by_key(|h| h.end) {
            at = hole.end;
            continue;
        }
        let next_hole = holes.iter().filter(|h| h.start > at && h.start < h.end).map(|h| h.start).min();
        let end = current.end.min(next_hole.unwrap_or(u64::MAX));
        push(&mut regions, at, end)?;
        at = end;
    }
}

/// Adds the whole pages of a piece, to the last region where they adjoin.
fn push(regions: &mut Regions, start: u64, end: u64) -> Result<(), TooManyPieces> {
    let (Some(start), end) = (start.checked_next_multiple_of(PAGE_SIZE), end & !(PAGE_SIZE - 1)) else { return Ok(()) };
    if start >= end {
        return Ok(());
    }
    if let Some(last) = regions.last_mut()
        && last.end.0 == start
    {
        last.end = PhysAddr(end);
        return Ok(());
    }
    regions.try_push(MemoryRegion { start: PhysAddr(start), end: PhysAddr(end) }).map_err(|_| TooManyPieces)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    fn of(ram: &[(u64, u64)], holes: &[(u64, u64)]) -> Vec<(u64, u64)> {
        let ranges =
            |list: &[(u64, u64)]| -> Vec<Range> { list.iter().map(|&(start, end)| Range { start, end }).collect() };
        let regions = usable(&ranges(ram), &ranges(holes)).unwrap();
        regions.iter().map(|r| (r.start.0, r.end.0)).collect()
    }

    #[test]
    fn holes_split_and_trim() {
        assert_eq!(of(&[(0, 0x10000)], &[(0, 0x2000), (0x5000, 0x6000)]), [(0x2000, 0x5000), (0x6000, 0x10000)]);
        assert_eq!(of(&[(0, 0x10000)], &[(0xf000, 0x20000)]), [(0, 0xf000)]);
        assert_eq!(of(&[(0, 0x10000)], &[(0, 0x20000)]), []);
    }

    #[test]
    fn only_whole_pages_are_left() {
        assert_eq!(of(&[(0x10, 0x3ff0)], &[]), [(0x1000, 0x3000)]);
        assert_eq!(of(&[(0, 0x3000)], &[(0x1010, 0x1020)]), [(0, 0x1000), (0x2000, 0x3000)]);
        assert_eq!(of(&[(0x10, 0xff0)], &[]), []);
    }

    #[test]
    fn order_and_overlap_do_not_matter() {
        assert_eq!(of(&[(0x8000, 0xa000), (0, 0x4000), (0x2000, 0x6000)], &[]), [(0, 0x6000), (0x8000, 0xa000)]);
        assert_eq!(of(&[(0, 0x8000)], &[(0x4000, 0x5000), (0x1000, 0x6000)]), [(0, 0x1000), (0x6000, 0x8000)]);
        assert_eq!(of(&[], &[(0, 1)]), []);
        assert_eq!(of(&[(0x5000, 0x5000), (0x7000, 0x6000)], &[]), []);
    }

    #[test]
    fn too_many_pieces_are_refused() {
        let holes: Vec<Range> = (0..200).map(|i| Range { start: i * 0x2000, end: i * 0x2000 + 0x1000 }).collect();
        assert_eq!(usable(&[Range { start: 0, end: u64::MAX }], &holes), Err(TooManyPieces));
    }
}
