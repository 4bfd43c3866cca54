//! One cell: a workload in a mode, in a process of its own, so that each begins with an empty address space.

use core::sync::atomic::Ordering::*;

use linux_init::interrupts::{self, Totals};
use linux_init::options::{BATCH, Mode, Workload};
use linux_init::record::Record;

use crate::board::{Board, MOST_CPUS};
use crate::console::say;
use crate::operation::{Prepared, Stage};
use crate::sys::file::File;
use crate::sys::memory::anywhere;
use crate::sys::process::{self, Process};
use crate::sys::{Failure, failure, ticks, ticks_per_second};
use crate::walker;

/// As in `errno.h`: the kernel asks for another try.
const TRY_AGAIN: u32 = linux_raw_sys::errno::EAGAIN;
/// Batches of a cell that may be done again.
const MOST_REPEATED: u64 = 16;
/// Room for the text of `/proc/interrupts`: a line for each interrupt, 11 characters for each CPU.
const TEXT: usize = 1 << 20;

struct Counted {
    totals: Totals,
    ticks: u64,
    repeated: u64,
    walks: u64,
}

/// Measures a cell and says what came out. Called in a process of its own.
pub(crate) fn run(workload: Workload, mode: Mode, ops: u64, cpus: u32) -> u8 {
    let (name, mode_name) = (workload.name(), mode.name());
    let record = match measure(workload, mode, ops, cpus) {
        Ok(counted) => Record::Counts {
            workload: name,
            mode: mode_name,
            ops,
            flush: counted.totals.flush,
            other_calls: counted.totals.other_calls(),
            reschedule: counted.totals.reschedule,
            walks: counted.walks,
            repeated: counted.repeated,
            ticks: counted.ticks,
            ticks_per_second: ticks_per_second(),
        },
        Err(Failure { step, errno }) => Record::Failed { workload: name, mode: mode_name, step, errno },
    };
    say(&record);
    0
}

fn measure(workload: Workload, mode: Mode, ops: u64, cpus: u32) -> Result<Counted, Failure> {
    process::pin(0)?;
    let board = Board::new()?;
    let mut counters = Counters { file: File::open(c"/proc/interrupts")?, text: anywhere(TEXT, false)? };
    let mut walkers = [None; MOST_CPUS];
    let stage = Stage::set(workload, board)?;
    let result = walker::start(mode, board, cpus, &mut walkers).and_then(|()| {
        let settle = || if mode == Mode::Idle { Ok(()) } else { board.settle(cpus) };
        batches(&stage, ops, &mut counters, &settle)
    });
    board.stop.store(true, Relaxed);
    end(&walkers, result.is_err());
    match result {
        Ok(counted) => {
            stage.strike()?;
            Ok(Counted { walks: board.walks(), ..counted })
        }
        Err(failure) => Err(failure),
    }
}

/// Ends the processes on other CPUs.
fn end(walkers: &[Option<Process>], by_force: bool) {
    for walker in walkers.iter().flatten() {
        if by_force {
            walker.kill();
        }
        let _ = walker.wait();
    }
}

fn batches(
    stage: &Stage,
    ops: u64,
    counters: &mut Counters,
    settle: &dyn Fn() -> Result<(), Failure>,
) -> Result<Counted, Failure> {
    let mut counted = Counted { totals: Totals::default(), ticks: u64::MAX, repeated: 0, walks: 0 };
    let mut left = ops / BATCH;
    while left > 0 {
        let mut prepared = [None; BATCH as usize];
        for (place, slot) in prepared.iter_mut().enumerate() {
            *slot = Some(stage.prepare(place)?);
        }
        settle()?;
        // The first reading is to have the buffer's pages: after a fork they are copied when they are written to, and
        // that flushes.
        counters.read()?;
        let before = counters.read()?;
        let begin = ticks();
        let (done, result) = operate(stage, &prepared);
        let took = ticks().wrapping_sub(begin);
        let after = counters.read()?;
        for (place, prepared) in prepared.iter().flatten().enumerate() {
            stage.clean(prepared, place < done)?;
        }
        match result {
            Ok(()) => {
                counted.totals = counted.totals.and(after.since(before));
                counted.ticks = counted.ticks.min(took);
                left -= 1;
            }
            Err(Failure { errno: TRY_AGAIN, .. }) if counted.repeated < MOST_REPEATED => counted.repeated += 1,
            Err(failure) => return Err(failure),
        }
    }
    Ok(counted)
}

/// Does the operations of a batch: how many were done, and why not all were.
fn operate(stage: &Stage, prepared: &[Option<Prepared>]) -> (usize, Result<(), Failure>) {
    for (done, prepared) in prepared.iter().flatten().enumerate() {
        if let Err(failure) = stage.operate(prepared) {
            return (done, Err(failure));
        }
    }
    (prepared.len(), Ok(()))
}

/// `/proc/interrupts`, and room for its text.
struct Counters {
    file: File,
    text: &'static mut [u8],
}

impl Counters {
    fn read(&mut self) -> Result<Totals, Failure> {
        let text = self.file.read_all(self.text)?;
        let text = core::str::from_utf8(text).map_err(|_| failure("read /proc/interrupts as text"))?;
        interrupts::totals(text).ok_or(failure("find the lines of /proc/interrupts"))
    }
}
