//! Pairs of processes send long messages to each other while the parent collapses and drops the senders' memory. What arrives is whole and of one message, or the sender is told.
#![cfg_attr(target_os = "none", no_std, no_main)]

use runtime::abi::{Info, Rights, Status};
use runtime::first::{FREE, PRIORITY, PROCESS, Told};
use runtime::image::Image;
use runtime::kernel::{self, Limits};
use runtime::random::Random;
use runtime::{call, check, check_telling, exit, program};

program!(start);

const IMAGE: u64 = FREE;
const DONE: u64 = FREE + 1;
const PAIRS: u64 = FREE + 2;
/// Slots of each pair's in the parent's table: an endpoint, and two processes with a thread each.
const STEP: u64 = 5;
const MOST: u64 = 16;
const LIMITS: Limits = Limits { slots: 8, frames: 4096, bytes: 512 << 10, spaces: 0 };
/// In a child's table: its parent's notification, and the endpoint.
const TELL: u64 = 0;
const ENDPOINT: u64 = 1;
/// Where the sender has its message, in a range that can be collapsed, and the receiver its buffer.
const BUFFER: u64 = 0x20_0000_0000;
const HUGE: u64 = 2 << 20;
const MOST_BYTES: u64 = 64 << 10;
const LAST: u64 = u64::MAX;

fn start(argument: u64) -> u64 {
    let told = Told::by(argument);
    let pairs = (told.cpus / 2).clamp(1, MOST);
    let Ok(image) = Image::new(PROCESS, IMAGE) else { return exit::CHECK | u64::from(line!()) };
    let all = Rights::READ | Rights::WRITE;
    check!(kernel::make_notification(DONE).is_ok());
    for pair in 0..pairs {
        let slot = PAIRS + pair * STEP;
        check!(kernel::make_endpoint(slot).is_ok());
        for (side, entry) in [receiver as extern "C" fn(u64) -> !, sender].into_iter().enumerate() {
            let process = slot + 1 + 2 * side as u64;
            check!(image.process(process, LIMITS, PRIORITY) == Ok(()));
            check!(kernel::map_anonymous(process, BUFFER, HUGE, all).is_ok());
            check!(kernel::grant(process, TELL, DONE, Rights::WRITE, 0).is_ok());
            check!(kernel::grant(process, ENDPOINT, slot, all, 0).is_ok());
            let cpu = (2 * pair + side as u64) % told.cpus;
            let words = told.seed << 40 | told.ops << 8 | pair;
            check!(image.start(process, process + 1, entry, words, PRIORITY, cpu).is_ok());
        }
    }
    disturb(told, pairs)
}

/// Collapses and drops the senders' memory until all have sent everything.
fn disturb(told: Told, pairs: u64) -> u64 {
    let mut random = Random::new(told.seed, 99);
    let mut seen = 0u64;
    check!(kernel::set_patience(1).is_ok());
    while seen.count_ones() < 2 * pairs as u32 {
        let victim = PAIRS + random.below(pairs) * STEP + 3;
        // Each may be refused: pages are pinned, or not all there.
        let _ = match random.below(4) {
            0 => kernel::discard(victim, BUFFER + random.below(16) * 4096, 4096),
            _ => kernel::collapse(victim, BUFFER),
        };
        match kernel::wait_for_bits(DONE) {
            Ok(bits) if runtime::failed(bits).is_some() => return runtime::failed(bits).unwrap_or_default(),
            Ok(bits) => seen |= bits,
            Err(Status::TimedOut) => {}
            Err(_) => return exit::CHECK | u64::from(line!()),
        }
    }
    exit::DONE
}

fn at(word: u64) -> *mut u64 {
    (BUFFER + word * 8) as *mut u64
}

extern "C" fn sender(argument: u64) -> ! {
    let (ops, pair) = (argument >> 8 & 0xffff_ffff, argument & 0xff);
    let mut random = Random::new(argument >> 40, pair);
    for op in 0..ops {
        let bytes = (1 + random.below(MOST_BYTES / 8)) * 8;
        // All 512 pages, so that a collapse finds them.
        for page in 0..HUGE / 4096 {
            // SAFETY: the parent mapped it for this process alone.
            unsafe { at(page * 512).write_volatile(op + 1) };
        }
        for word in 0..bytes / 8 {
            // SAFETY: as above.
            unsafe { at(word).write_volatile(op + 1) };
        }
        let sent = kernel::call(ENDPOINT, Info::LONG, [op + 1, bytes, 0, 0, BUFFER, bytes]);
        // What the parent does to the buffer may be noticed, and nothing else: what arrived was this message.
        match sent {
            Ok(answer) => check_telling!(TELL, answer.words[0] == 0),
            Err(Status::Undelivered | Status::BufferGone | Status::Busy) => {}
            Err(status) => {
                let _ = kernel::signal(TELL, (1000 + status as u64) << 40);
                call::exit(exit::CHECK | u64::from(line!()))
            }
        }
    }
    check_telling!(TELL, kernel::call(ENDPOINT, Info::empty(), [LAST, 0, 0, 0, 0, 0]).is_ok());
    check_telling!(TELL, kernel::signal(TELL, 1 << (2 * pair)).is_ok());
    call::exit(exit::DONE)
}

extern "C" fn receiver(argument: u64) -> ! {
    let pair = argument & 0xff;
    check_telling!(TELL, kernel::set_buffer(BUFFER, MOST_BYTES, 7).is_ok());
    let mut received = kernel::wait(ENDPOINT, Info::EXPECT_LONG);
    loop {
        let Ok(message) = received else {
            received = kernel::wait(ENDPOINT, Info::EXPECT_LONG);
            continue;
        };
        if message.words[0] == LAST {
            check_telling!(TELL, kernel::signal(TELL, 2 << (2 * pair)).is_ok());
            // The answer goes with a wait that the parent's end ends.
            let _ = kernel::reply_wait(ENDPOINT, Info::empty(), [0; 6]);
            call::exit(exit::DONE)
        }
        let (expected, bytes) = (message.words[0], message.words[1]);
        // Nothing of another message may be among the words.
        let whole = (0..bytes / 512 / 8).all(|page| uniform(page * 512, 512, expected));
        let rest = uniform(bytes / 4096 * 512, bytes / 8 % 512, expected);
        let answer = if whole && rest { 0 } else { 1 };
        received = kernel::reply_wait(ENDPOINT, Info::EXPECT_LONG, [answer, 0, 0, 0, 0, 0]);
    }
}

/// Whether `count` words from `first` on, all of one page, are `expected`, but for those at its start that were dropped while the sender still wrote: they are 0.
fn uniform(first: u64, count: u64, expected: u64) -> bool {
    let mut written = false;
    (0..count).all(|n| {
        // SAFETY: the buffer is mapped for as long as the process lives, and the message has arrived.
        let word = unsafe { at(first + n).read_volatile() };
        written |= word == expected;
        word == expected || word == 0 && !written
    })
}
