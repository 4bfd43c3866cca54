//! What the other CPUs do: walk their own page tables by `get_user_pages_fast`, or read memory.
//!
//! Two system calls reach `get_user_pages_fast` from any program, without a driver: a wake-up of a shared futex looks
//! up the page of its word, and vmsplice the pages that it puts into a pipe. A walker does both in turn.

use core::sync::atomic::{AtomicPtr, AtomicU32, Ordering::*};

use linux_init::options::Mode;

use crate::board::{Board, Seat};
use crate::sys::file::Drain;
use crate::sys::memory::{PAGE, anywhere};
use crate::sys::process::{self, Process};
use crate::sys::{Failure, relax};

/// Pages that one vmsplice looks up: fewer than a pipe has room for.
const PAGES: usize = 8;
/// Reads of one round in mode `spin`.
const READS: usize = 256;

/// The board of this process's threads.
static BOARD: AtomicPtr<Board> = AtomicPtr::new(core::ptr::null_mut());

/// Has all CPUs but the first do what the mode says. Processes that were started are put into `started`.
pub(crate) fn start(mode: Mode, board: &'static Board, cpus: u32, started: &mut [Option<Process>]) -> Result<(), Failure> {
    // Relaxed: threads that are started later see it.
    BOARD.store(core::ptr::from_ref(board).cast_mut(), Relaxed);
    for cpu in 1..cpus {
        match mode {
            Mode::Idle => {}
            Mode::Same => process::thread(walk_in_thread, cpu as usize)?,
            Mode::Spin => process::thread(spin_in_thread, cpu as usize)?,
            Mode::Other => {
                started[cpu as usize] = Some(process::fork(|| {
                    note(board.seat(cpu), walk(board, cpu));
                    0
                })?);
            }
        }
    }
    // A machine with nobody who walks has nobody to wait for.
    if mode == Mode::Idle { Ok(()) } else { board.settle(cpus) }
}

fn note(seat: &Seat, result: Result<(), Failure>) {
    if let Err(failure) = result {
        seat.wrong.store(failure.errno + 1, Relaxed);
    }
}

fn own_board() -> &'static Board {
    // SAFETY: it was set before the first thread was started, to a board that is never unmapped.
    unsafe { &*BOARD.load(Relaxed) }
}

extern "C" fn walk_in_thread(cpu: usize) -> ! {
    note(own_board().seat(cpu as u32), walk(own_board(), cpu as u32));
    rest()
}

extern "C" fn spin_in_thread(cpu: usize) -> ! {
    note(own_board().seat(cpu as u32), spin(own_board(), cpu as u32));
    rest()
}

/// Does nothing until the process ends.
fn rest() -> ! {
    let never = AtomicU32::new(0);
    loop {
        process::sleep_while(&never, 0);
    }
}

/// Walks until the cell is over.
fn walk(board: &Board, cpu: u32) -> Result<(), Failure> {
    process::pin(cpu)?;
    let drain = Drain::new()?;
    let pages: &[u8] = anywhere(PAGES * PAGE, false)?;
    // A page of its own: every walker of a process has another.
    let word = anywhere(PAGE, false)?;
    // SAFETY: the page is ours, aligned, zeroed and never unmapped.
    let word: &AtomicU32 = unsafe { &*word.as_ptr().cast() };
    let seat = board.seat(cpu);
    while !board.stop.load(Relaxed) {
        process::wake(word)?;
        drain.walk(pages)?;
        seat.walks.fetch_add(2, Relaxed);
        seat.rounds.fetch_add(1, Relaxed);
        relax();
    }
    Ok(())
}

/// Reads memory in user mode until the cell is over.
fn spin(board: &Board, cpu: u32) -> Result<(), Failure> {
    process::pin(cpu)?;
    let pages: &[u8] = anywhere(PAGES * PAGE, false)?;
    let seat = board.seat(cpu);
    while !board.stop.load(Relaxed) {
        for read in 0..READS {
            // SAFETY: inside the slice.
            unsafe { pages.as_ptr().add(read * PAGE % pages.len()).read_volatile() };
        }
        seat.rounds.fetch_add(1, Relaxed);
        relax();
    }
    Ok(())
}
