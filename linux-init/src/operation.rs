//! The operations: what each needs before it, the one system call (or exit) that is counted, and what it leaves.
//!
//! Each of a batch has a place of its own, so that a batch can be prepared before the counters are read. The places are
//! 2 GiB apart in one entry of the PGD, where nothing else is: no two share a PTE or a PMD table, and the last of a
//! batch frees the PUD table.

use core::sync::atomic::Ordering::*;

use linux_init::options::{BATCH, Workload};

use crate::board::Board;
use crate::sys::file::{File, memory_file};
use crate::sys::memory::{PAGE, PMD, PUD, Range, What};
use crate::sys::process::{self, Ending, Process};
use crate::sys::{Failure, failure};

/// Where places begin.
const PLACES: usize = 1 << 40;
/// From one place to the next.
const STRIDE: usize = 2 * PUD;
/// Where processes that share tables have the whole file.
const SHARERS: usize = 2 << 40;
const N: usize = BATCH as usize;

/// What is there for all operations of a cell.
pub(crate) struct Stage {
    workload: Workload,
    board: &'static Board,
    /// Of huge pages: 1 GiB for each place.
    shared: Option<File>,
    sharers: [Option<Process>; 2],
    /// One for each place, with one huge page in the page cache.
    cached: [Option<File>; N],
}

/// One operation, prepared.
#[derive(Clone, Copy)]
pub(crate) struct Prepared {
    place: usize,
    range: Range,
    process: Option<Process>,
}

impl Stage {
    /// Sets the stage.
    pub(crate) fn set(workload: Workload, board: &'static Board) -> Result<Stage, Failure> {
        let mut stage = Stage { workload, board, shared: None, sharers: [None; 2], cached: [None; N] };
        let sharers = match workload {
            Workload::UnshareMunmapLast | Workload::UnshareMprotectLast | Workload::UnshareExit => 1,
            Workload::UnshareMunmap3way => 2,
            _ => 0,
        };
        if sharers > 0 {
            let file = memory_file(true, N * PUD)?;
            stage.shared = Some(file);
            for sharer in &mut stage.sharers[..sharers] {
                *sharer = Some(process::fork(|| share(board, file))?);
            }
            board.wait_for_ready(sharers as u32)?;
            board.ready.store(0, Relaxed);
        }
        if workload == Workload::CollapseShmem {
            for (place, cached) in stage.cached.iter_mut().enumerate() {
                let file = memory_file(false, PMD)?;
                let range = Range::map(at(place), PMD, What::Shared(file, 0))?;
                range.touch(PAGE);
                range.collapse()?;
                range.unmap()?;
                *cached = Some(file);
            }
        }
        Ok(stage)
    }

    /// Prepares the operation of one place.
    pub(crate) fn prepare(&self, place: usize) -> Result<Prepared, Failure> {
        let mut process = None;
        let range = match self.workload {
            Workload::Munmap2m | Workload::Dontneed2m | Workload::Mprotect2m | Workload::CollapseAnon => {
                let range = Range::map(at(place), PMD, What::Anonymous)?;
                range.touch(PAGE);
                range
            }
            Workload::Munmap4k | Workload::Dontneed4k | Workload::Mprotect4k => {
                let range = Range::map(at(place), PAGE, What::Anonymous)?;
                range.touch_first();
                range
            }
            Workload::CollapseShmem => self.map_by_small_entries(place)?,
            Workload::MunmapPrivate => {
                let range = Range::map(at(place), PMD, What::AnonymousHuge)?;
                range.touch_first();
                range
            }
            Workload::UnshareMunmapLast | Workload::UnshareMunmap3way | Workload::UnshareMprotectLast => {
                map_shared(self.shared, place)?
            }
            Workload::UnshareExit => {
                let (board, file) = (self.board, self.shared);
                process = Some(process::fork(|| leave(board, file, place))?);
                board.wait_for_ready(place as u32 + 1)?;
                Range::nothing()
            }
        };
        Ok(Prepared { place, range, process })
    }

    /// Maps the huge page of a file by 512 small entries: while the mapping is cut in three, no part can hold a huge
    /// one.
    fn map_by_small_entries(&self, place: usize) -> Result<Range, Failure> {
        let file = self.cached[place].ok_or(failure("find the file of a place"))?;
        let range = Range::map(at(place), PMD, What::Shared(file, 0))?;
        let middle = range.part(PMD / 2, PAGE);
        middle.protect(false)?;
        range.look();
        middle.protect(true)?;
        Ok(range)
    }

    /// Does it: this is what is counted.
    pub(crate) fn operate(&self, prepared: &Prepared) -> Result<(), Failure> {
        let range = &prepared.range;
        match self.workload {
            Workload::Munmap2m
            | Workload::Munmap4k
            | Workload::MunmapPrivate
            | Workload::UnshareMunmapLast
            | Workload::UnshareMunmap3way => range.unmap(),
            Workload::Dontneed2m | Workload::Dontneed4k => range.drop_pages(),
            Workload::Mprotect2m | Workload::Mprotect4k | Workload::UnshareMprotectLast => range.protect(false),
            Workload::CollapseAnon | Workload::CollapseShmem => range.collapse(),
            Workload::UnshareExit => {
                let word = &self.board.release[prepared.place];
                // Release: pairs with the Acquire of whoever waits for it; nothing else is handed over.
                word.store(1, Release);
                process::wake(word)?;
                end(prepared.process)
            }
        }
    }

    /// Takes away what the operation, done or not, left.
    pub(crate) fn clean(&self, prepared: &Prepared, done: bool) -> Result<(), Failure> {
        match self.workload {
            Workload::Munmap2m
            | Workload::Munmap4k
            | Workload::MunmapPrivate
            | Workload::UnshareMunmapLast
            | Workload::UnshareMunmap3way
                if done =>
            {
                Ok(())
            }
            Workload::UnshareExit => {
                if !done {
                    self.operate(prepared)?;
                }
                self.board.release[prepared.place].store(0, Relaxed);
                self.board.ready.store(0, Relaxed);
                Ok(())
            }
            _ => prepared.range.unmap(),
        }
    }

    /// Ends the processes of the stage.
    pub(crate) fn strike(&self) -> Result<(), Failure> {
        self.board.over.store(1, Release);
        process::wake(&self.board.over)?;
        self.sharers.iter().flatten().try_for_each(|sharer| end(Some(*sharer)))
    }
}

fn at(place: usize) -> usize {
    PLACES + place * STRIDE
}

/// The gibibyte of one place, with a page of it touched: the PMD table of the sharers is linked.
fn map_shared(file: Option<File>, place: usize) -> Result<Range, Failure> {
    let file = file.ok_or(failure("find the shared file"))?;
    let range = Range::map(at(place), PUD, What::Shared(file, place * PUD))?;
    range.touch_first();
    Ok(range)
}

/// A process that has all PMD tables of the file and stays.
fn share(board: &Board, file: File) -> u8 {
    let Ok(range) = Range::map(SHARERS, N * PUD, What::Shared(file, 0)) else { return 1 };
    range.touch(PUD);
    // Release: pairs with the Acquire in `wait_for_ready`.
    board.ready.fetch_add(1, Release);
    while board.over.load(Acquire) == 0 {
        process::sleep_while(&board.over, 0);
    }
    0
}

/// A process with one thread that shares one PMD table, and leaves when it is told to.
fn leave(board: &Board, file: Option<File>, place: usize) -> u8 {
    if map_shared(file, place).is_err() {
        return 1;
    }
    // Release: pairs with the Acquire in `wait_for_ready`.
    board.ready.fetch_add(1, Release);
    while board.release[place].load(Acquire) == 0 {
        process::sleep_while(&board.release[place], 0);
    }
    0
}

fn end(process: Option<Process>) -> Result<(), Failure> {
    match process.ok_or(failure("find a process"))?.wait()? {
        Ending::Status(0) => Ok(()),
        _ => Err(failure("share a table with another process")),
    }
}
