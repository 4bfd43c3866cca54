//! Pairs of processes send long messages to each other while all that can happen to memory happens to the senders': the
//! compactor (`compactor.rs`) makes huge pages of it, the first process drops pages, and half of the messages lie in a
//! shared table, which the share server (`share.rs`) has handed out and which the sender leaves in the middle of the
//! call. What arrives is whole and of one message, or the sender is told.
//!
//! How often a table was about to be used again they know: the compactor counts its collapses, and each sender the
//! tables that it left.
#![cfg_attr(target_os = "none", no_std, no_main)]

use core::sync::atomic::{AtomicU64, Ordering};

use runtime::abi::{Info, Rights, Status};
use runtime::first::{FREE, METER, MODULE, PRIORITY, PROCESS, Told};
use runtime::image::Image;
use runtime::kernel::{self, Begin, Limits};
use runtime::random::Random;
use runtime::server::Server;
use runtime::{call, check, check_telling, compactor, exit, program, share};

program!(start);

const IMAGE: u64 = FREE;
const DONE: u64 = FREE + 1;
const TABLE_OF: u64 = FREE + 2;
const SERVERS: u64 = TABLE_OF + MOST;
const PAIRS: u64 = SERVERS + 2 * Server::STEP;
/// Slots of each pair's in the parent's table: an endpoint, two processes with a thread each, and the sender's other
/// thread.
const STEP: u64 = 6;
const RECEIVER: u64 = 1;
const SENDER: u64 = 3;
const LEAVER: u64 = 5;
const MOST: u64 = 16;
const LIMITS: Limits = Limits { slots: 10, frames: 4096, bytes: 512 << 10, spaces: 0 };
/// In a child's table: its parent's notification, the endpoint, itself, the shared table, the meter.
const TELL: u64 = 0;
const ENDPOINT: u64 = 1;
const OWN: u64 = 2;
const TABLE: u64 = 3;
const COUNTER: u64 = 4;
/// Where the sender has its message, in a range that can be collapsed, and the receiver its buffer.
const BUFFER: u64 = 0x20_0000_0000;
const HUGE: u64 = 2 << 20;
/// Where both map the shared table.
const SHARED: u64 = 0x40_0000_0000;
/// The stack of the sender's other thread.
const STACK: u64 = 0x30_0000_0000;
const STACK_BYTES: u64 = 16384;
const MOST_BYTES: u64 = 64 << 10;
const LAST: u64 = u64::MAX;
const ALL: Rights = Rights::READ.union(Rights::WRITE);

fn start(argument: u64) -> u64 {
    let told = Told::by(argument);
    let pairs = (told.cpus / 2).clamp(1, MOST);
    // The last CPU is for the servers, if there are others.
    let (servers, workers) = (told.cpus - 1, (told.cpus - 1).max(1));
    let Ok(image) = Image::new(PROCESS, IMAGE) else { return exit::CHECK | u64::from(line!()) };
    check!(kernel::make_notification(DONE).is_ok());
    let serve = |name, at| Server::start(name, MODULE, at, DONE, PRIORITY, servers, 0);
    let (Ok(compactor), Ok(tables)) = (serve("compactor", SERVERS), serve("share", SERVERS + Server::STEP)) else {
        return exit::CHECK | u64::from(line!());
    };
    for pair in 0..pairs {
        check!(make_pair(&image, told, pair, workers, &compactor, &tables) == Ok(()));
    }
    if let Some(status) = drop_pages(told, pairs) {
        return status;
    }
    for pair in 0..pairs {
        for thread in [RECEIVER + 1, SENDER + 1, LEAVER] {
            check!(kernel::wait_for_end(PAIRS + pair * STEP + thread) == Ok(exit::DONE));
        }
        check!(tables.ask([share::DROP, pair, 0, 0, 0, 0]).is_ok());
    }
    let Ok([_, done, gave_up, ..]) = compactor.ask([compactor::REST, 0, 0, 0, 0, 0]) else {
        return exit::CHECK | u64::from(line!());
    };
    check!(kernel::progress(METER, done + gave_up).is_ok());
    check!(compactor.stop() == Ok(exit::DONE));
    check!(tables.stop() == Ok(exit::DONE));
    exit::DONE
}

/// Two processes, of which one sends to the other.
fn make_pair(
    image: &Image,
    told: Told,
    pair: u64,
    workers: u64,
    compactor: &Server,
    tables: &Server,
) -> Result<(), Status> {
    let slot = PAIRS + pair * STEP;
    kernel::make_endpoint(slot)?;
    kernel::set_buffer(0, 0, TABLE_OF + pair)?;
    tables.ask([share::GET, pair, 0, 0, 0, 0])?;
    let words = told.seed << 40 | told.ops << 8 | pair;
    for (side, entry) in [(RECEIVER, receiver as extern "C" fn(u64) -> !), (SENDER, sender)] {
        let process = slot + side;
        image.process(process, LIMITS, PRIORITY)?;
        kernel::map_anonymous(process, BUFFER, HUGE, ALL)?;
        kernel::grant(process, TELL, DONE, Rights::WRITE, 0)?;
        kernel::grant(process, ENDPOINT, slot, ALL, 0)?;
        kernel::grant(process, OWN, process, Rights::MANAGE, 0)?;
        kernel::grant(process, COUNTER, METER, Rights::WRITE, 0)?;
        if side == RECEIVER {
            // It stays with the table, so the sender is always the first of two to leave.
            kernel::map(process, TABLE_OF + pair, SHARED, 0, share::SPAN, ALL)?;
            kernel::populate(process, SHARED, HUGE)?;
        } else {
            kernel::grant(process, TABLE, TABLE_OF + pair, ALL, 0)?;
            compactor.ask_with([compactor::WATCH, BUFFER, HUGE, 0, 0, 0], process, Rights::MANAGE)?;
            kernel::map_anonymous(process, STACK, STACK_BYTES, ALL)?;
            let (entry, stack) = (leaver as extern "C" fn(u64) -> ! as usize as u64, STACK + STACK_BYTES);
            let begin = Begin { entry, stack, argument: words, priority: PRIORITY, cpu: 2 * pair % workers };
            kernel::make_thread(process, slot + LEAVER, begin)?;
        }
        let cpu = (2 * pair + u64::from(side == SENDER)) % workers;
        image.start(process, process + 1, entry, words, PRIORITY, cpu)?;
    }
    Ok(())
}

/// Drops pages of the senders' memory until all have sent everything. The status to end with if one of them has failed.
fn drop_pages(told: Told, pairs: u64) -> Option<u64> {
    let mut random = Random::new(told.seed, 99);
    let mut seen = 0u64;
    if kernel::set_patience(1).is_err() {
        return Some(exit::CHECK | u64::from(line!()));
    }
    while seen.count_ones() < 2 * pairs as u32 {
        let victim = PAIRS + random.below(pairs) * STEP + SENDER;
        // May be refused: pages are pinned.
        let _ = kernel::discard(victim, BUFFER + random.below(16) * 4096, 4096);
        match kernel::wait_for_bits(DONE) {
            Ok(bits) if runtime::failed(bits).is_some() => return runtime::failed(bits),
            Ok(bits) => seen |= bits,
            Err(Status::TimedOut) => {}
            Err(_) => return Some(exit::CHECK | u64::from(line!())),
        }
    }
    kernel::set_patience(0).err().map(|_| exit::CHECK | u64::from(line!()))
}

fn at(word: u64) -> *mut u64 {
    (BUFFER + word * 8) as *mut u64
}

/// The operation in whose call the table is to be left, plus one; and the last in which it was.
static LEAVE: AtomicU64 = AtomicU64::new(0);
static LEFT: AtomicU64 = AtomicU64::new(0);

extern "C" fn sender(argument: u64) -> ! {
    let (ops, pair) = (argument >> 8 & 0xffff_ffff, argument & 0xff);
    let mut random = Random::new(argument >> 40, pair);
    for op in 0..ops {
        let bytes = (1 + random.below(MOST_BYTES / 8)) * 8;
        let shared = op % 2 == 1;
        let from = if shared { SHARED } else { BUFFER };
        if shared {
            check_telling!(TELL, kernel::map(OWN, TABLE, SHARED, 0, share::SPAN, ALL).is_ok());
        } else {
            // All 512 pages, so that a collapse finds them.
            for page in 0..HUGE / 4096 {
                // SAFETY: the parent mapped it for this process alone.
                unsafe { at(page * 512).write_volatile(op + 1) };
            }
        }
        for word in 0..bytes / 8 {
            // SAFETY: as above, or just mapped; the receiver reads no shared page.
            unsafe { ((from + word * 8) as *mut u64).write_volatile(op + 1) };
        }
        if shared {
            LEAVE.store(op + 1, Ordering::Release);
        }
        let sent = kernel::call(ENDPOINT, Info::LONG, [op + 1, bytes, 0, 0, from, bytes]);
        // What others do to the buffer may be noticed, and nothing else: what arrived was this message.
        match sent {
            Ok(answer) => check_telling!(TELL, answer.words[0] == 0),
            Err(Status::Undelivered | Status::BufferGone | Status::Busy) => {}
            Err(status) => {
                let _ = kernel::signal(TELL, (1000 + status as u64) << 40);
                call::exit(exit::CHECK | u64::from(line!()))
            }
        }
        while shared && LEFT.load(Ordering::Acquire) != op + 1 {
            kernel::give_way();
            call::relax();
        }
        check_telling!(TELL, kernel::progress(COUNTER, shared.into()).is_ok());
    }
    // The receiver ends instead of answering.
    let last = kernel::call(ENDPOINT, Info::empty(), [LAST, 0, 0, 0, 0, 0]);
    check_telling!(TELL, last.is_err_and(|status| status == Status::Unanswered));
    LEAVE.store(LAST, Ordering::Release);
    check_telling!(TELL, kernel::signal(TELL, 1 << (2 * pair)).is_ok());
    call::exit(exit::DONE)
}

/// Leaves the shared table while the other thread sends from it.
extern "C" fn leaver(argument: u64) -> ! {
    let mut random = Random::new(argument >> 40, 1000 + (argument & 0xff));
    loop {
        let leave = LEAVE.load(Ordering::Acquire);
        if leave == LAST {
            call::exit(exit::DONE)
        }
        if leave == LEFT.load(Ordering::Relaxed) {
            kernel::give_way();
            call::relax();
            continue;
        }
        for _ in 0..random.below(8) {
            call::relax();
        }
        check_telling!(TELL, kernel::unmap(OWN, SHARED).is_ok());
        LEFT.store(leave, Ordering::Release);
    }
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

/// Whether `count` words from `first` on, all of one page, are `expected`, but for those at its start that were dropped
/// while the sender still wrote: they are 0.
fn uniform(first: u64, count: u64, expected: u64) -> bool {
    let mut written = false;
    (0..count).all(|n| {
        // SAFETY: the buffer is mapped for as long as the process lives, and the message has arrived.
        let word = unsafe { at(first + n).read_volatile() };
        written |= word == expected;
        word == expected || word == 0 && !written
    })
}
