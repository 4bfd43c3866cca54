//! Two threads on every CPU change one address space under each other's feet: they write, drop, map, protect and unmap
//! memory, and check everything that they read.
//!
//! Some pages belong to all of them. What is read there is 0 or was written to this very page by one of them; and what
//! a thread has dropped itself, it never reads again. Others belong to one thread: there everything must be exactly as
//! it left it. Its vector registers too.
#![cfg_attr(target_os = "none", no_std, no_main)]

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use runtime::abi::Rights;
use runtime::first::{FREE, METER, PRIORITY, PROCESS, Told};
use runtime::kernel::{self, Begin};
use runtime::random::Random;
use runtime::{call, check, exit, program, vectors};

program!(start);

const PAGE: u64 = 4096;
/// Where the pages are that belong to all.
const SHARED: u64 = 0x20_0000_0000;
const SHARED_PAGES: u64 = 32;
/// Where each thread has its own, and their distance.
const OWN: u64 = 0x20_4000_0000;
const OWN_STEP: u64 = 16 * PAGE;
const STACKS: u64 = 0x30_0000_0000;
const STACK_BYTES: u64 = 4 * PAGE;

const ALL: Rights = Rights::READ.union(Rights::WRITE);
const NOTIFICATION: u64 = FREE;
const THREADS: u64 = FREE + 1;
/// At most so many, one bit each.
const MOST: u64 = 64;

/// What each thread ended with, plus one.
static ENDED: [AtomicU64; MOST as usize] = [const { AtomicU64::new(0) }; MOST as usize];
static TOLD: AtomicU64 = AtomicU64::new(0);
/// All threads are made: none works before, so that two do at a time on every CPU.
static MADE: AtomicBool = AtomicBool::new(false);

fn start(argument: u64) -> u64 {
    let told = Told::by(argument);
    let threads = (2 * told.cpus).min(MOST);
    TOLD.store(argument, Ordering::Relaxed);
    check!(kernel::map_anonymous(PROCESS, SHARED, SHARED_PAGES * PAGE, ALL).is_ok());
    check!(kernel::make_notification(NOTIFICATION).is_ok());
    for n in 0..threads {
        let stack = STACKS + n * 2 * STACK_BYTES;
        check!(kernel::map_anonymous(PROCESS, stack, STACK_BYTES, ALL).is_ok());
        let entry = thread as extern "C" fn(u64) -> ! as usize as u64;
        let begin = Begin { entry, stack: stack + STACK_BYTES, argument: n, priority: PRIORITY, cpu: n % told.cpus };
        check!(kernel::make_thread(PROCESS, THREADS + n, begin).is_ok());
        check!(kernel::bind(THREADS + n, NOTIFICATION, 1 << n).is_ok());
    }
    MADE.store(true, Ordering::Relaxed);
    // A thread that ended before it was bound has told nobody: its status is looked at as well.
    let done = || (0..threads).all(|n| ENDED[n as usize].load(Ordering::Acquire) != 0);
    let mut seen = 0u64;
    while !done() && seen.count_ones() < threads as u32 {
        match kernel::wait_for_bits(NOTIFICATION) {
            Ok(bits) => seen |= bits,
            Err(_) => return exit::CHECK,
        }
    }
    let bad = (0..threads).find(|n| ENDED[*n as usize].load(Ordering::Acquire) != 1);
    bad.map_or(exit::DONE, |n| match ENDED[n as usize].load(Ordering::Acquire) {
        0 => exit::CHECK | n,
        status => status - 1,
    })
}

extern "C" fn thread(n: u64) -> ! {
    while !MADE.load(Ordering::Relaxed) {
        kernel::give_way();
    }
    let status = work(n);
    ENDED[n as usize].store(status + 1, Ordering::Release);
    let _ = kernel::signal(NOTIFICATION, 1 << n);
    call::exit(status)
}

fn read(at: u64) -> u64 {
    // SAFETY: mapped for as long as the program runs, or by the thread that reads; whatever is read is checked.
    unsafe { (at as *const u64).read_volatile() }
}

fn write(at: u64, value: u64) {
    // SAFETY: as above; nothing of the program itself lies there.
    unsafe { (at as *mut u64).write_volatile(value) }
}

/// What thread `n` writes to page `page` in its operation `op`.
fn mark(page: u64, n: u64, op: u64) -> u64 {
    0xa5 << 56 | page << 40 | n << 32 | (op + 1)
}

fn work(n: u64) -> u64 {
    let told = Told::by(TOLD.load(Ordering::Relaxed));
    let mut random = Random::new(told.seed, n);
    for op in 0..told.ops {
        let page = random.below(SHARED_PAGES);
        let at = SHARED + page * PAGE;
        write(at, mark(page, n, op));
        let seen = read(at);
        if seen != 0 && seen >> 40 != mark(page, 0, 0) >> 40 {
            return exit::CHECK | u64::from(line!());
        }
        if kernel::discard(PROCESS, at, PAGE).is_err() {
            return exit::CHECK | u64::from(line!());
        }
        if read(at) == mark(page, n, op) {
            return exit::CHECK | u64::from(line!());
        }
        if let Some(line) = own(n, op) {
            return exit::CHECK | u64::from(line);
        }
        if kernel::progress(METER, 0).is_err() || !vectors::hold(random.next()) {
            return exit::CHECK | u64::from(line!());
        }
    }
    exit::DONE
}

/// Maps, writes, protects and unmaps pages of this thread alone. The line of what was not as it must be.
fn own(n: u64, op: u64) -> Option<u32> {
    let base = OWN + n * OWN_STEP;
    let pages = 1 + op % 4;
    let as_left = |page: u64| read(base + page * PAGE + 8) == mark(page, n, op);
    if kernel::map_anonymous(PROCESS, base, pages * PAGE, ALL).is_err() {
        return Some(line!());
    }
    for page in 0..pages {
        if read(base + page * PAGE) != 0 {
            return Some(line!());
        }
        write(base + page * PAGE + 8, mark(page, n, op));
    }
    if kernel::protect(PROCESS, base, Rights::READ).is_err() || !(0..pages).all(as_left) {
        return Some(line!());
    }
    if kernel::protect(PROCESS, base, ALL).is_err() {
        return Some(line!());
    }
    write(base, 1);
    if !(0..pages).all(as_left) || kernel::unmap(PROCESS, base).is_err() {
        return Some(line!());
    }
    None
}
