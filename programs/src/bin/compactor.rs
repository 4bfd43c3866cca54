//! The compactor: what khugepaged is. It runs on a CPU of its own, outside the masks of those whose memory it looks
//! after, and asks the kernel again and again to make huge pages of theirs. Which, and when, is decided here; the
//! kernel knows how.
#![cfg_attr(target_os = "none", no_std, no_main)]

use core::sync::atomic::{AtomicU64, Ordering};

use runtime::abi::{Info, Status};
use runtime::compactor::{REST, WATCH};
use runtime::server::{self, Answer, FREE, SLOTS};
use runtime::{kernel, program};

program!(start);

const HUGE: u64 = 2 << 20;
/// At most so many ranges.
const MOST: usize = (SLOTS - FREE - 1) as usize;

/// Address and bytes of each range; the process of range `n` is in slot `FREE + n`.
static RANGES: [[AtomicU64; 2]; MOST] = [const { [const { AtomicU64::new(0) }; 2] }; MOST];
static KNOWN: AtomicU64 = AtomicU64::new(0);
static RESTS: AtomicU64 = AtomicU64::new(0);
/// Collapses that succeeded, that gave up, that found pages missing.
static COUNTS: [AtomicU64; 3] = [const { AtomicU64::new(0) }; 3];

fn start(_argument: u64) -> u64 {
    if kernel::set_buffer(0, 0, FREE).is_err() {
        server::give_up(line!());
    }
    server::serve(1, answer, scan)
}

fn answer(message: &kernel::Received) -> Answer {
    let [request, at, bytes, ..] = message.words;
    match request {
        WATCH => watch(at, bytes, message.info).into(),
        REST => {
            RESTS.store(1, Ordering::Relaxed);
            let [done, gave_up, missing] = [0, 1, 2].map(|n: usize| COUNTS[n].load(Ordering::Relaxed));
            Answer::of([Status::Done as u64, done, gave_up, missing, 0, 0])
        }
        _ => Err(Status::BadNumber).into(),
    }
}

fn watch(at: u64, bytes: u64, info: Info) -> Result<(), Status> {
    let known = KNOWN.load(Ordering::Relaxed);
    if !info.contains(Info::CAPABILITY) || !at.is_multiple_of(HUGE) || known as usize == MOST {
        return Err(Status::BadArgument);
    }
    let [start, length] = &RANGES[known as usize];
    start.store(at, Ordering::Relaxed);
    length.store(bytes / HUGE * HUGE, Ordering::Relaxed);
    KNOWN.store(known + 1, Ordering::Relaxed);
    // The next capability goes behind this one.
    kernel::set_buffer(0, 0, FREE + known + 1)
}

/// Tries every huge page of every range once.
fn scan() {
    if RESTS.load(Ordering::Relaxed) != 0 {
        return;
    }
    for range in 0..KNOWN.load(Ordering::Relaxed) {
        let [at, bytes] = [0, 1].map(|n: usize| RANGES[range as usize][n].load(Ordering::Relaxed));
        for at in (at..at + bytes).step_by(HUGE as usize) {
            let count = match kernel::collapse(FREE + range, at) {
                Ok(()) => 0,
                // Pages that a message has pinned.
                Err(Status::Busy) => 1,
                Err(Status::NotPopulated | Status::NotMapped | Status::Gone | Status::OutOfMemory) => 2,
                Err(_) => server::give_up(line!()),
            };
            COUNTS[count].fetch_add(1, Ordering::Relaxed);
        }
    }
}
