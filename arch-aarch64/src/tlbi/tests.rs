//! The emitted sequences, instruction by instruction.

use std::vec::Vec;

use kernel::addr::{Level, PAGE_SIZE, PMD_SIZE, PhysAddr, VirtAddr};
use kernel::arch::Asid;
use kernel::mm::entry::{Entry, EntryCodec, Perm};
use kernel::mm::self_map::{Recursive, entry_address};
use kernel::tlb::invalidation::Invalidation;

use super::Reach::{Broadcast, Local};
use super::Step::{DsbIsh, DsbIshst, DsbNsh, DsbNshst, Isb, Tlbi};
use super::TlbiOp::*;
use super::{CEILING, Page, Range, Reach, SELF_MAP, Space, Step, plan};
use crate::entry::Codec;

const ASID: Asid = Asid(0xabcd);
const START: u64 = 0x0000_7f12_3440_0000;

fn range(entries: u64, stride: Level, tables: bool) -> Invalidation {
    let end = START + entries * stride.entry_size();
    Invalidation {
        start: VirtAddr(START),
        end: VirtAddr(end),
        stride,
        tables,
        all: false,
        recursive: Recursive::Unused,
    }
}

fn steps_with(what: &Invalidation, reach: Reach, ranges: bool) -> Vec<Step> {
    let mut said = Vec::new();
    plan(ASID, what, reach, ranges, |step| said.push(step));
    said
}

fn steps(what: &Invalidation, reach: Reach) -> Vec<Step> {
    steps_with(what, reach, false)
}

/// The operand for the page `n` pages after [`START`].
fn page(n: u64) -> Page {
    Page(0xabcd_0007_f123_4400 + n)
}

#[test]
fn operands() {
    assert_eq!(Page::new(ASID, VirtAddr(START)), page(0));
    assert_eq!(Page::new(Asid(0), VirtAddr(0xffff_8000_0000_1000)), Page(0x0ff8_0000_0001));
    assert_eq!(Space::new(ASID), Space(0xabcd_0000_0000_0000));
}

#[test]
fn one_leaf_everywhere() {
    assert_eq!(steps(&range(1, Level::Pte, false), Broadcast), [DsbIshst, Tlbi(Vale1is(page(0))), DsbIsh, Isb]);
}

#[test]
fn leaves_share_the_barriers() {
    assert_eq!(
        steps(&range(3, Level::Pte, false), Broadcast),
        [DsbIshst, Tlbi(Vale1is(page(0))), Tlbi(Vale1is(page(1))), Tlbi(Vale1is(page(2))), DsbIsh, Isb]
    );
}

#[test]
fn unlinked_tables_take_all_levels() {
    assert_eq!(
        steps(&range(2, Level::Pte, true), Broadcast),
        [DsbIshst, Tlbi(Vae1is(page(0))), Tlbi(Vae1is(page(1))), DsbIsh, Isb]
    );
}

#[test]
fn blocks_take_one_operation_each() {
    assert_eq!(
        steps(&range(2, Level::Pmd, false), Broadcast),
        [DsbIshst, Tlbi(Vale1is(page(0))), Tlbi(Vale1is(page(512))), DsbIsh, Isb]
    );
}

#[test]
fn here_only() {
    assert_eq!(steps(&range(1, Level::Pte, false), Local), [DsbNshst, Tlbi(Vale1(page(0))), DsbNsh, Isb]);
    assert_eq!(steps(&range(1, Level::Pmd, true), Local), [DsbNshst, Tlbi(Vae1(page(0))), DsbNsh, Isb]);
}

#[test]
fn everything() {
    let space = Space::new(ASID);
    assert_eq!(steps(&Invalidation::ALL, Broadcast), [DsbIshst, Tlbi(Aside1is(space)), DsbIsh, Isb]);
    assert_eq!(steps(&Invalidation::ALL, Local), [DsbNshst, Tlbi(Aside1(space)), DsbNsh, Isb]);
}

#[test]
fn the_ceiling_is_the_last_count_that_goes_one_by_one() {
    for stride in [Level::Pte, Level::Pmd] {
        for tables in [false, true] {
            assert_eq!(steps(&range(CEILING, stride, tables), Broadcast).len() as u64, CEILING + 3);
            let over = steps(&range(CEILING + 1, stride, tables), Broadcast);
            assert_eq!(over, [DsbIshst, Tlbi(Aside1is(Space::new(ASID))), DsbIsh, Isb]);
        }
    }
}

#[test]
fn nothing_is_the_barriers_alone() {
    assert_eq!(steps(&range(0, Level::Pte, true), Broadcast), [DsbIshst, DsbIsh, Isb]);
    let mut backwards = range(0, Level::Pte, false);
    backwards.start = backwards.start.add(PAGE_SIZE);
    assert_eq!(steps(&backwards, Broadcast), [DsbIshst, DsbIsh, Isb]);
}

/// A range that begins or ends within an entry takes the whole entry.
#[test]
fn unaligned_ranges_take_the_entries_they_touch() {
    let what = Invalidation {
        start: VirtAddr(START + PAGE_SIZE),
        end: VirtAddr(START + PMD_SIZE + PAGE_SIZE),
        stride: Level::Pmd,
        tables: false,
        all: false,
        recursive: Recursive::Unused,
    };
    assert_eq!(steps(&what, Broadcast), [DsbIshst, Tlbi(Vale1is(page(0))), Tlbi(Vale1is(page(512))), DsbIsh, Isb]);
}

/// Whatever is asked: exactly one barrier of the right domain on each side, and no operation of the wrong reach.
#[test]
fn barriers_and_reach_always_match() {
    for reach in [Broadcast, Local] {
        for ranges in [false, true] {
            for entries in [0, 1, 2, 33, 511, 512, 513, 70_000] {
                for stride in [Level::Pte, Level::Pmd] {
                    for tables in [false, true] {
                        let all = steps_with(&range(entries, stride, tables), reach, ranges);
                        let (before, after) = if reach == Broadcast { (DsbIshst, DsbIsh) } else { (DsbNshst, DsbNsh) };
                        assert_eq!(all[0], before);
                        assert_eq!(all[all.len() - 2..], [after, Isb]);
                        for step in &all[1..all.len() - 2] {
                            let (everywhere, all_levels) = match step {
                                Tlbi(Vae1is(_) | Rvae1is(_) | Aside1is(_)) => (true, true),
                                Tlbi(Vale1is(_) | Rvale1is(_)) => (true, false),
                                Tlbi(Vae1(_) | Rvae1(_) | Aside1(_)) => (false, true),
                                Tlbi(Vale1(_) | Rvale1(_)) => (false, false),
                                other => panic!("{other:?} among the invalidations"),
                            };
                            assert_eq!(everywhere, reach == Broadcast);
                            assert!(all_levels || !tables, "{step:?} after tables were unlinked");
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn ranges_where_allowed() {
    // 512 pages are (7 + 1) << 6: NUM 7 at SCALE 1.
    let operand = 0xabcd << 48 | 1 << 46 | 1 << 44 | 7 << 39 | (START >> 12);
    let all = steps_with(&range(512, Level::Pte, true), Broadcast, true);
    assert_eq!(all, [DsbIshst, Tlbi(Rvae1is(Range(operand))), DsbIsh, Isb]);
    let one = steps_with(&range(1, Level::Pte, false), Local, true);
    assert_eq!(one, [DsbNshst, Tlbi(Vale1(page(0))), DsbNsh, Isb]);
}

/// A PTE table that was unlinked takes one operation more, at the address at which it was read, before the others and
/// between the same barriers.
#[test]
fn a_removed_table_takes_one_more() {
    let mut what = range(512, Level::Pte, true);
    what.recursive = Recursive::Removed(Level::Pte);
    let all = steps(&what, Broadcast);
    let window = entry_address(SELF_MAP, Level::Pte, VirtAddr(START));
    assert_eq!(all[..2], [DsbIshst, Tlbi(Vae1is(Page::new(ASID, window)))]);
    assert_eq!(all[2..], steps(&range(512, Level::Pte, true), Broadcast)[1..]);
    // The same with ranges: a single page has no range form.
    assert!(steps_with(&what, Local, true).contains(&Tlbi(Vae1(Page::new(ASID, window)))));
    // A removed PMD table: 513 pages, so everything goes.
    let mut what = range(1, Level::Pud, true);
    what.recursive = Recursive::Removed(Level::Pmd);
    assert_eq!(steps(&what, Broadcast), [DsbIshst, Tlbi(Aside1is(Space::new(ASID))), DsbIsh, Isb]);
}

#[test]
fn what_is_left_out_is_left_out() {
    let mut what = range(512, Level::Pte, true);
    what.recursive = Recursive::LeftOut;
    assert_eq!(steps(&what, Broadcast), steps(&range(512, Level::Pte, true), Broadcast));
    assert_eq!(steps_with(&what, Broadcast, true), steps(&what, Broadcast));
}

/// What the last lookup of a recursive walk makes of descriptors: a table is a page, a block is nothing.
#[test]
fn a_table_reads_as_a_page_and_a_block_does_not() {
    let table = PhysAddr(0x4567_8000);
    assert_eq!(
        Codec::decode(Level::Pte, Codec::table(table)),
        Entry::Leaf { page: table, perm: Perm::empty() },
        "a page that is read-only and not executable"
    );
    let block = Codec::leaf(Level::Pmd, PhysAddr(0x4560_0000), Perm::WRITE);
    assert_eq!(Codec::decode(Level::Pte, block), Entry::Absent);
}

/// A table of gigabytes is removed: 2^27 pages, for which there is no operand. Each entry by itself without ranges, the
/// address space with them.
#[test]
fn what_no_range_can_say_takes_the_address_space() {
    let what = Invalidation { start: VirtAddr(0), end: VirtAddr(1 << 39), ..range(512, Level::Pud, true) };
    assert_eq!(steps_with(&what, Broadcast, true), [DsbIshst, Tlbi(Aside1is(Space::new(ASID))), DsbIsh, Isb]);
    assert_eq!(steps_with(&what, Broadcast, false).len(), 512 + 3);
    // The largest that it can say: a GiB of 2 MiB entries, 4 << 16 pages.
    let Tlbi(Rvae1is(Range(raw))) = steps_with(&range(512, Level::Pmd, true), Broadcast, true)[1] else {
        panic!("no range")
    };
    assert_eq!((raw >> 44 & 3, raw >> 39 & 31), (3, 3));
}
