//! Two threads on every CPU change one address space under each other's feet: they touch, drop, collapse, map, protect
//! and unmap memory, in an order that the seed chooses, and check everything that they read.
//!
//! Some pages belong to all of them. What is read there is 0 or was written to this very page by one of them; and what
//! a thread has dropped itself, it never reads again. Others belong to one thread: there everything must be exactly as
//! it left it, also where they lie among those that others drop and collapse. Its vector registers too. And some are
//! mapped by a pager, a process of its own that the kernel calls whenever they are touched, and unmapped by anybody.
//!
//! Which operations were under way when another began on the same memory is noted. Where the schedule is a seeded one
//! and there are many operations, every pair of them must have been.
#![cfg_attr(target_os = "none", no_std, no_main)]

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use runtime::abi::{FAULT, FAULT_HANDLED, Info, Rights, Status};
use runtime::crowd::mode;
use runtime::first::{FREE, METER, PRIORITY, PROCESS, Told};
use runtime::image::Image;
use runtime::kernel::{self, Begin, Limits};
use runtime::random::Random;
use runtime::{call, check, exit, program, vectors};

program!(start);

const PAGE: u64 = 4096;
const HUGE: u64 = 2 << 20;
/// Where the pages are that belong to all: the first of each of two ranges of 2 MiB that are collapsed. Of the one,
/// pages are dropped one by one, the other as a whole, so that it can be collapsed again.
const SHARED: u64 = 0x20_0000_0000;
const SHARED_PAGES: u64 = 32;
/// In the first range, behind them, one page of each thread.
const AMONG: u64 = SHARED + 64 * PAGE;
/// Where the pager maps pages of frames, each by itself.
const PAGED: u64 = 0x21_0000_0000;
const PAGED_PAGES: u64 = 4;
/// Where each thread has its own, and their distance.
const OWN: u64 = 0x20_4000_0000;
const OWN_STEP: u64 = 16 * PAGE;
const STACKS: u64 = 0x30_0000_0000;
const STACK_BYTES: u64 = 4 * PAGE;

const ALL: Rights = Rights::READ.union(Rights::WRITE);
const NOTIFICATION: u64 = FREE;
const FRAMES: u64 = FREE + 1;
const ENDPOINT: u64 = FREE + 2;
const IMAGE: u64 = FREE + 3;
const PAGER: u64 = FREE + 4;
const THREADS: u64 = FREE + 6;
/// In the pager's table: the process whose pages it brings, their frames, where it is called.
const THEIRS: u64 = 0;
const THEIR_FRAMES: u64 = 1;
const CALLED: u64 = 2;
const LIMITS: Limits = Limits { slots: 4, frames: 64, bytes: 64 << 10, spaces: 0 };
/// At most so many, one bit each.
const MOST: u64 = 64;

/// What each thread ended with, plus one.
static ENDED: [AtomicU64; MOST as usize] = [const { AtomicU64::new(0) }; MOST as usize];
static TOLD: AtomicU64 = AtomicU64::new(0);
/// All threads are made: none works before, so that two do at a time on every CPU.
static MADE: AtomicBool = AtomicBool::new(false);

/// What is done to memory that belongs to all; the last two to that of the pager.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Touch,
    Drop,
    Collapse,
    TouchPaged,
    Unmap,
}

const KINDS: [Kind; 5] = [Kind::Touch, Kind::Drop, Kind::Collapse, Kind::TouchPaged, Kind::Unmap];

/// Whether both are done to the same memory.
fn meet(one: Kind, other: Kind) -> bool {
    let paged = |kind| matches!(kind, Kind::TouchPaged | Kind::Unmap);
    paged(one) == paged(other)
}

/// How many of each kind are under way; and one bit for each pair of which the one began during the other.
static UNDER_WAY: [AtomicU64; KINDS.len()] = [const { AtomicU64::new(0) }; KINDS.len()];
static MET: AtomicU64 = AtomicU64::new(0);

fn bit(one: Kind, other: Kind) -> u64 {
    1 << (one as usize * KINDS.len() + other as usize)
}

/// Does `what`, and notes what it met.
fn doing<R>(kind: Kind, what: impl FnOnce() -> R) -> R {
    for other in KINDS.into_iter().filter(|other| meet(kind, *other)) {
        if UNDER_WAY[other as usize].load(Ordering::Relaxed) != 0 {
            MET.fetch_or(bit(kind, other), Ordering::Relaxed);
        }
    }
    UNDER_WAY[kind as usize].fetch_add(1, Ordering::Relaxed);
    let result = what();
    UNDER_WAY[kind as usize].fetch_sub(1, Ordering::Relaxed);
    result
}

/// So many operations, of all threads together, meet in all ways.
const MANY: u64 = 512;

/// Whether each kind met each that is done to the same memory.
fn all_met() -> bool {
    let pairs = KINDS.into_iter().flat_map(|one| KINDS.into_iter().map(move |other| (one, other)));
    let met = MET.load(Ordering::Relaxed);
    pairs.filter(|(one, other)| meet(*one, *other)).all(|(one, other)| met & bit(one, other) != 0)
}

fn start(argument: u64) -> u64 {
    let told = Told::by(argument);
    let threads = (2 * told.cpus).min(MOST);
    TOLD.store(argument, Ordering::Relaxed);
    check!(kernel::map_anonymous(PROCESS, SHARED, 2 * HUGE, ALL).is_ok());
    check!(kernel::make_notification(NOTIFICATION).is_ok());
    check!(kernel::make_frames(FRAMES, PAGED_PAGES).is_ok());
    check!(kernel::make_endpoint(ENDPOINT).is_ok());
    check!(begin_pager(told.cpus - 1) == Ok(()));
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
    let seeded = kernel::plan(METER).is_ok_and(|plan| plan.mode == mode::CONTEND);
    check!(!seeded || told.cpus == 1 || threads * told.ops < MANY || all_met());
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

/// Makes the pager, on CPU `cpu`.
fn begin_pager(cpu: u64) -> Result<(), Status> {
    let image = Image::new(PROCESS, IMAGE)?;
    image.process(PAGER, LIMITS, PRIORITY)?;
    kernel::grant(PAGER, THEIRS, PROCESS, Rights::MANAGE, 0)?;
    kernel::grant(PAGER, THEIR_FRAMES, FRAMES, ALL, 0)?;
    kernel::grant(PAGER, CALLED, ENDPOINT, Rights::READ, 0)?;
    kernel::set_pager(PROCESS, ENDPOINT)?;
    image.start(PAGER, PAGER + 1, pager, 0, PRIORITY, cpu)
}

/// Maps whatever is touched of its range and is not mapped. Ends with the program.
extern "C" fn pager(_argument: u64) -> ! {
    let mut received = kernel::wait(CALLED, Info::empty());
    loop {
        let Ok(message) = received else { call::exit(exit::CHECK | u64::from(line!())) };
        let [request, at, ..] = message.words;
        let offset = at.wrapping_sub(PAGED) / PAGE * PAGE;
        let mapped = if request == FAULT && offset < PAGED_PAGES * PAGE {
            kernel::map(THEIRS, THEIR_FRAMES, PAGED + offset, offset, PAGE, ALL)
        } else {
            Err(Status::NotMapped)
        };
        // Another thread that touched it was first.
        let handled = matches!(mapped, Ok(()) | Err(Status::Overlaps));
        let answer = if handled { FAULT_HANDLED } else { FAULT_HANDLED + 1 };
        received = kernel::reply_wait(CALLED, Info::empty(), [answer, 0, 0, 0, 0, 0]);
    }
}

/// Whether `seen` is what some thread may have left in `page`.
fn is_of(page: u64, seen: u64) -> bool {
    seen == 0 || seen >> 40 == mark(page, 0, 0) >> 40
}

fn work(n: u64) -> u64 {
    let told = Told::by(TOLD.load(Ordering::Relaxed));
    let mut random = Random::new(told.seed, n);
    let mut among = 0;
    for op in 0..told.ops {
        let done = match KINDS[random.below(KINDS.len() as u64) as usize] {
            Kind::Touch => touch(SHARED, page_of_all(&mut random), n, op, Kind::Touch),
            Kind::Drop => drop_contents(page_of_all(&mut random), n, op),
            Kind::Collapse => collapse(SHARED + random.below(2) * HUGE),
            Kind::TouchPaged => touch(PAGED, random.below(PAGED_PAGES), n, op, Kind::TouchPaged),
            Kind::Unmap => unmap_paged(random.below(PAGED_PAGES)),
        };
        // Among those of others, and its own all the same.
        let at = AMONG + n * PAGE;
        if let Err(line) = done.and_then(|()| if read(at) == among { Ok(()) } else { Err(line!()) }) {
            return exit::CHECK | u64::from(line);
        }
        among = mark(64 + n, n, op);
        write(at, among);
        if let Some(line) = own(n, op) {
            return exit::CHECK | u64::from(line);
        }
        if kernel::progress(METER, 0).is_err() || !vectors::hold(random.next()) {
            return exit::CHECK | u64::from(line!());
        }
    }
    exit::DONE
}

/// One of the pages that belong to all.
fn page_of_all(random: &mut Random) -> u64 {
    random.below(2) * HUGE / PAGE + random.below(SHARED_PAGES)
}

/// Writes to a page that belongs to all, and reads it. The line of what was not as it must be.
fn touch(base: u64, page: u64, n: u64, op: u64, kind: Kind) -> Result<(), u32> {
    let at = base + page * PAGE;
    let seen = doing(kind, || {
        write(at, mark(page, n, op));
        read(at)
    });
    if is_of(page, seen) { Ok(()) } else { Err(line!()) }
}

/// Writes to a page that belongs to all, and drops it; in the second range, everything with it.
fn drop_contents(page: u64, n: u64, op: u64) -> Result<(), u32> {
    let at = SHARED + page * PAGE;
    write(at, mark(page, n, op));
    let (from, bytes) = if at < SHARED + HUGE { (at, PAGE) } else { (SHARED + HUGE, HUGE) };
    if !is_of(page, read(at)) || doing(Kind::Drop, || kernel::discard(PROCESS, from, bytes)).is_err() {
        return Err(line!());
    }
    let seen = read(at);
    if is_of(page, seen) && seen != mark(page, n, op) { Ok(()) } else { Err(line!()) }
}

/// Makes one page of the 2 MiB at `range`. Others may drop pages meanwhile, or collapse them themselves.
fn collapse(range: u64) -> Result<(), u32> {
    if kernel::populate(PROCESS, range, HUGE).is_err() {
        return Err(line!());
    }
    let result = doing(Kind::Collapse, || kernel::collapse(PROCESS, range));
    // One that gives up for a page that somebody uses has found all pages, and was about to use the table again.
    let asked = matches!(result, Ok(()) | Err(Status::Busy));
    match result {
        Ok(()) | Err(Status::Busy | Status::NotPopulated | Status::NotMapped | Status::OutOfMemory) => {
            kernel::progress(METER, asked.into()).map_err(|_| line!())
        }
        Err(_) => Err(line!()),
    }
}

/// Undoes a mapping of the pager's, if it is there.
fn unmap_paged(page: u64) -> Result<(), u32> {
    match doing(Kind::Unmap, || kernel::unmap(PROCESS, PAGED + page * PAGE)) {
        Ok(()) | Err(Status::NotMapped) => Ok(()),
        Err(_) => Err(line!()),
    }
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
