//! Random system calls with random arguments, on every CPU: whatever they are, the kernel goes on, and gives everything
//! back in the end.
//!
//! Each CPU has a child process whose threads do nothing else; what a child has is little, and it may destroy all of
//! it, itself included. The parent waits for nobody: it makes the next child when it has ended the last.
#![cfg_attr(target_os = "none", no_std, no_main)]

use core::sync::atomic::{AtomicU64, Ordering};

use runtime::abi::{Number, Rights, Status, name_words};
use runtime::first::{FREE, METER, MODULE, PRIORITY, PROCESS, Told};
use runtime::image::Image;
use runtime::kernel::{self, Limits};
use runtime::random::Random;
use runtime::{call, check, exit, program};

program!(start);

const IMAGE: u64 = FREE;
const COUNTS: u64 = FREE + 1;
/// A notification that nobody signals, to wait at for a tick.
const PAUSE: u64 = FREE + 2;
const CHILDREN: u64 = FREE + 3;
const STEP: u64 = 2;
const MOST: u64 = 32;
const SLOTS: u64 = 16;
const LIMITS: Limits = Limits { slots: SLOTS, frames: 2048, bytes: 256 << 10, spaces: 2 };
/// Calls of each child, at most; and of all, for each operation.
const CALLS: u64 = 1024;
/// In each child's table: itself, the module of programs, the meter.
const SELF: u64 = 0;
const THEIR_MODULE: u64 = 1;
const THEIR_METER: u64 = 2;
/// Where children count their calls, each in a word of its own of a page that they share; they have no capability to
/// it, and no argument is likely to name it.
const COUNTED: u64 = 0x7100_0000_0000;
const PAGE: u64 = 4096;
/// How often the parent gives way to children that make no call before it takes them for stuck.
const IDLE: u64 = 1024;

fn start(argument: u64) -> u64 {
    let told = Told::by(argument);
    let children = told.cpus.min(MOST);
    let Ok(image) = Image::new(PROCESS, IMAGE) else { return exit::CHECK | u64::from(line!()) };
    let all = Rights::READ | Rights::WRITE;
    check!(kernel::make_frames(COUNTS, 1).is_ok());
    check!(kernel::map(PROCESS, COUNTS, COUNTED, 0, PAGE, all).is_ok());
    check!(kernel::make_notification(PAUSE).is_ok());
    check!(kernel::set_patience(1).is_ok());
    let mut calls = 0;
    let mut round = 0;
    while calls < told.ops * CALLS {
        for n in 0..children {
            let (process, thread) = (CHILDREN + n * STEP, CHILDREN + n * STEP + 1);
            count(n).store(0, Ordering::Relaxed);
            // What the children before had comes back when their CPUs have left them; one that has made itself less
            // urgent than this thread is left when that waits.
            let mut made = image.process(process, LIMITS, PRIORITY);
            for _ in 0..IDLE {
                if made != Err(Status::Quota) {
                    break;
                }
                let _ = kernel::wait_for_bits(PAUSE);
                made = image.process(process, LIMITS, PRIORITY);
            }
            check!(made.is_ok());
            check!(kernel::map(process, COUNTS, COUNTED, 0, PAGE, all).is_ok());
            check!(kernel::grant(process, SELF, process, Rights::all(), 0).is_ok());
            check!(kernel::grant(process, THEIR_MODULE, MODULE, Rights::all(), 0).is_ok());
            check!(kernel::grant(process, THEIR_METER, METER, Rights::READ, 0).is_ok());
            check!(image.start(process, thread, child, told.seed << 32 | round << 8 | n, PRIORITY, n).is_ok());
        }
        // They may wait for ever, for each other or for nobody, or have ended: some time is theirs, then they end.
        let made = || (0..children).map(|n| count(n).load(Ordering::Relaxed)).sum::<u64>();
        let (mut before, mut idle) = (0, 0);
        while idle < IDLE && before < children * CALLS {
            kernel::give_way();
            let now = made();
            idle = if now == before { idle + 1 } else { 0 };
            before = now;
        }
        for n in 0..children {
            check!(kernel::delete(CHILDREN + n * STEP + 1).is_ok());
            check!(kernel::delete(CHILDREN + n * STEP).is_ok());
        }
        // A round in which nobody does anything is a kernel that does not go on.
        check!(made() > 0);
        calls += made();
        round += 1;
        check!(kernel::progress(METER, 0).is_ok());
    }
    exit::DONE
}

/// How many calls child `n` has made.
fn count(n: u64) -> &'static AtomicU64 {
    // SAFETY: mapped in the parent before it is asked, and by it in every child; words of this type and of no other.
    unsafe { &*((COUNTED + n * 8) as *const AtomicU64) }
}

/// A word that the kernel may take for something: small numbers, slots, addresses that are mapped or nearly, extremes,
/// anything.
fn word(random: &mut Random) -> u64 {
    match random.below(8) {
        0..=2 => random.below(SLOTS + 2),
        3 => random.below(32) << 32 | random.below(SLOTS),
        4 => (1 + random.below(64)) * 4096,
        5 => 0x40_0000_0000 + random.below(1 << 12) * 4096,
        6 => [0, 1, u64::MAX, 1 << 63, 0x7fff_ffff_f000, 0x8000_0000_0000, 0xffff_8000_0000_0000, 0xfff]
            [random.below(8) as usize],
        _ => random.next(),
    }
}

extern "C" fn child(argument: u64) -> ! {
    let mut random = Random::new(argument >> 32, argument);
    for _ in 0..CALLS {
        let number = match random.below(16) {
            0 => random.next(),
            1..=3 => Number::MapAnonymous as u64,
            _ => random.below(Number::ALL.len() as u64),
        };
        // Neither for ever, nor the end: those come at the end of all.
        if number == Number::Exit as u64 {
            continue;
        }
        // Some patience, so that a wait for nobody ends.
        let _ = kernel::set_patience(1 + random.below(2));
        let mut arguments = [0; 7];
        arguments.iter_mut().for_each(|argument| *argument = word(&mut random));
        count(argument & 0xff).fetch_add(1, Ordering::Relaxed);
        if number == Number::Load as u64 && random.below(2) == 0 {
            // A name that is one; mostly there is room for it once.
            arguments[1] = THEIR_MODULE;
            arguments[2..5].copy_from_slice(&name_words("null_call"));
        }
        call::raw(number, arguments);
    }
    call::exit(exit::DONE)
}
