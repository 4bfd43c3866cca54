//! A periodic thread with the highest priority has a CPU of its own, the last one, and a process of its own; the first
//! CPU leaves a shared table, collapses a huge page and reclaims an emptied one, over and over, in a process that runs
//! on all others. None of that is any business of the last CPU. What reaches it nevertheless is counted by the meter;
//! how long its thread takes to run when its time has come, it measures itself.
//!
//! It waits for the timer of its CPU, an interrupt line to which it has a capability, and each time says when that is
//! to fire next: a period after it was due now. What it measures is from the moment at which the timer was due to the
//! first thing that it does, which is to read the clock: the instructions of its CPU in between, whatever they are for.
//! An interrupt that comes while the CPU idles is gone before the timer fires, mostly; one that comes just then is in
//! between. So that this happens, each operation begins at another moment of the period, all in turn.
//!
//! Where CPUs take turns, others' instructions would be in it if the CPU has lost its turn in between. It loses it when
//! a timer fires, its own and the engine's included. So a time counts if the CPU woke after its timer was due, no other
//! CPU's timer has fired since (`Clock` in `kernel/src/abi/number.rs`), and no spinner has said that it ran since: they
//! all do before the CPU has its turn again.
#![cfg_attr(target_os = "none", no_std, no_main)]

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use runtime::abi::{Rights, Status};
use runtime::first::{FREE, METER, PRIORITY, PROCESS, TIMERS};
use runtime::image::Image;
use runtime::kernel::{self, Begin, Limits};
use runtime::{call, check, check_telling, exit, program};

program!(start);

const IMAGE: u64 = FREE;
const TABLE: u64 = FREE + 1;
const STAYER: u64 = FREE + 2;
const REPORT: u64 = FREE + 3;
const TELL: u64 = FREE + 4;
const EVENTS: u64 = FREE + 5;
const PERIODIC: u64 = FREE + 6;
const PERIODIC_THREAD: u64 = FREE + 7;
const SPINNERS: u64 = FREE + 8;
const ALL: Rights = Rights::READ.union(Rights::WRITE);

/// Higher than everything else here.
const URGENT: u8 = PRIORITY * 2 - 1;
/// The pages that the spinners read, and in the same GiB, under tables of their own, what is collapsed and what is
/// reclaimed.
const AWAY: u64 = 0x10_0000_0000;
const COLLAPSED: u64 = 0x10_0400_0000;
const RECLAIMED: u64 = 0x10_0600_0000;
const HUGE: u64 = 2 << 20;
/// The first of 512 GiB that hold nothing else.
const SHARED: u64 = 0x100_0000_0000;
const GIB: u64 = 1 << 30;
const STACKS: u64 = 0x30_0000_0000;
const STACK_BYTES: u64 = 16384;
/// Where both see what the periodic thread says: how often it ran, when it is to run next, and from [`MEASURED`] on
/// pairs of a latency and how often it was that, the shorter ones first.
const SEEN: u64 = 0x50_0000_0000;
const RAN: u64 = 0;
const NEXT: u64 = 1;
const MEASURED: u64 = 2;
/// When a spinner ran last.
const SPUN: u64 = MEASURED + 2 * MOST;
/// So many different latencies are told apart; what comes when all pairs are taken counts as the next longer one.
const MOST: u64 = 128;
/// Instructions from one run of the periodic thread to the next.
const PERIOD: u64 = 1 << 16;
/// How long the first of what an operation does takes, at most: the periodic thread is to run during that, in each
/// operation a little later.
const FIRST: u64 = 8192;
/// Instructions before an operation is to begin from which on it does.
const NEAR: u64 = 256;
/// What a spinner reads before it lets others run.
const READS: u64 = 64;
/// What the periodic thread is woken by.
const TICK: u64 = 1;
const STOP: u64 = 2;

static SPINS: AtomicU64 = AtomicU64::new(0);
static ENOUGH: AtomicBool = AtomicBool::new(false);

fn start(_argument: u64) -> u64 {
    let Ok(plan) = kernel::plan(METER) else { return exit::CHECK | u64::from(line!()) };
    check!(kernel::map_anonymous(PROCESS, AWAY, 4096, ALL).is_ok());
    check!(kernel::populate(PROCESS, AWAY, 4096).is_ok());
    // The one that stays with the shared table. It needs no thread for that.
    let nothing = Limits { slots: 1, frames: 0, bytes: 0, spaces: 0 };
    check!(kernel::make_shared(TABLE, 1).is_ok());
    check!(kernel::make_process(STAYER, nothing, 0).is_ok());
    check!(kernel::map(STAYER, TABLE, SHARED, 0, GIB, ALL).is_ok());
    check!(kernel::populate(STAYER, SHARED, 4096).is_ok());
    check!(kernel::map_anonymous(PROCESS, RECLAIMED, HUGE, ALL).is_ok());
    let stands_by = plan.cpus > 1;
    if stands_by {
        check!(stand_by(plan.cpus - 1) == Ok(()));
    }
    let others = 1..plan.cpus.saturating_sub(1).max(1);
    for cpu in others.clone() {
        let stack = STACKS + cpu * 2 * STACK_BYTES;
        check!(kernel::map_anonymous(PROCESS, stack, STACK_BYTES, ALL).is_ok());
        let entry = spin as extern "C" fn(u64) -> ! as usize as u64;
        let begin = Begin { entry, stack: stack + STACK_BYTES, argument: cpu, priority: PRIORITY, cpu };
        check!(kernel::make_thread(PROCESS, SPINNERS + cpu, begin).is_ok());
    }
    // From here on every CPU but the last has this process, all the time.
    let spinning = others.clone().fold(0, |all, cpu| all | 1 << (cpu % 64));
    while SPINS.load(Ordering::Acquire) != spinning || (stands_by && said(RAN).load(Ordering::Acquire) == 0) {
        call::relax();
    }
    for op in 0..plan.ops {
        check!(prepare(op) == Ok(()));
        if stands_by {
            aim(op * FIRST / plan.ops);
        }
        check!(operate() == Ok(()));
    }
    ENOUGH.store(true, Ordering::Release);
    for cpu in others {
        while kernel::ended(SPINNERS + cpu) == Ok(None) {
            call::relax();
        }
        check!(kernel::ended(SPINNERS + cpu) == Ok(Some(exit::DONE)));
    }
    if stands_by {
        check!(kernel::signal(EVENTS, STOP).is_ok());
        check!(kernel::wait_for_bits(TELL).is_ok_and(|bits| runtime::failed(bits).is_none()));
        check!(kernel::ended(PERIODIC_THREAD) == Ok(Some(exit::DONE)));
        check!(tell() == Ok(()));
    }
    exit::DONE
}

/// Everything that the next operation takes away.
fn prepare(op: u64) -> Result<(), Status> {
    if op > 0 {
        kernel::unmap(PROCESS, COLLAPSED)?;
    }
    kernel::map_anonymous(PROCESS, COLLAPSED, HUGE, ALL)?;
    kernel::populate(PROCESS, COLLAPSED, HUGE)?;
    kernel::populate(PROCESS, RECLAIMED, HUGE)?;
    kernel::map(PROCESS, TABLE, SHARED, 0, GIB, ALL)?;
    kernel::populate(PROCESS, SHARED, 4096)
}

fn operate() -> Result<(), Status> {
    kernel::begin(METER)?;
    kernel::unmap(PROCESS, SHARED)?;
    kernel::collapse(PROCESS, COLLAPSED)?;
    kernel::discard(PROCESS, RECLAIMED, HUGE)?;
    kernel::finish(METER).map(|_| ())
}

/// Waits until the periodic thread is to run in `ahead` instructions, or in any number of periods more.
fn aim(ahead: u64) {
    // Some rounds are enough where ticks are periods. This CPU does not give way: it loses its turn to the thread.
    for _ in 0..PERIOD / 64 {
        let moment = said(NEXT).load(Ordering::Relaxed).wrapping_sub(ahead);
        if moment.wrapping_sub(kernel::clock().now) % PERIOD < NEAR {
            return;
        }
    }
}

/// Tells the meter what the periodic thread has measured.
fn tell() -> Result<(), Status> {
    let measured = || (0..MOST).map(|n| pair(n).map(|word| word.load(Ordering::Relaxed))).filter(|pair| pair[1] > 0);
    let all: u64 = measured().map(|[_, times]| times).sum();
    let mut so_far = 0;
    let median = measured().find(|[_, times]| {
        so_far += times;
        2 * so_far >= all
    });
    let [least, median, longest] =
        [measured().next(), median, measured().next_back()].map(|pair| pair.map_or(0, |it| it[0]));
    kernel::tell(METER, all, least, median, longest)
}

/// Makes the periodic thread.
fn stand_by(cpu: u64) -> Result<(), Status> {
    let limits = Limits { slots: 8, frames: 64, bytes: 64 << 10, spaces: 0 };
    let image = Image::new(PROCESS, IMAGE)?;
    kernel::make_notification(TELL)?;
    kernel::make_notification(EVENTS)?;
    kernel::make_frames(REPORT, 1)?;
    kernel::map(PROCESS, REPORT, SEEN, 0, 4096, ALL)?;
    image.process(PERIODIC, limits, URGENT)?;
    kernel::map(PERIODIC, REPORT, SEEN, 0, 4096, ALL)?;
    kernel::grant(PERIODIC, CHILD_TELL, TELL, Rights::WRITE, 0)?;
    kernel::grant(PERIODIC, CHILD_EVENTS, EVENTS, ALL, 0)?;
    // Of a CPU beyond those whose timers are lines it waits for the tick as such.
    let has_line = kernel::grant(PERIODIC, CHILD_TIMER, TIMERS + cpu, Rights::MANAGE, 0).is_ok();
    image.start(PERIODIC, PERIODIC_THREAD, periodic, has_line.into(), URGENT, cpu)?;
    kernel::bind(PERIODIC_THREAD, TELL, 1)
}

/// Reads where other threads of this process are and no table changes.
extern "C" fn spin(cpu: u64) -> ! {
    SPINS.fetch_or(1 << (cpu % 64), Ordering::Release);
    while !ENOUGH.load(Ordering::Acquire) {
        // So many that where it is interrupted is not always where it lets others run.
        for _ in 0..READS {
            // SAFETY: mapped as long as the program runs.
            unsafe { (AWAY as *const u64).read_volatile() };
        }
        said(SPUN).fetch_max(kernel::clock().now, Ordering::Relaxed);
        call::relax();
    }
    call::exit(exit::DONE)
}

const CHILD_TELL: u64 = 0;
const CHILD_EVENTS: u64 = 1;
const CHILD_TIMER: u64 = 2;

/// The word `n` of what the periodic thread says.
fn said(n: u64) -> &'static AtomicU64 {
    // SAFETY: a page of frames is mapped there in both processes as long as they run, and is used as atomic words only.
    unsafe { &*((SEEN + 8 * n) as *const AtomicU64) }
}

/// The `n`th pair of a latency and how often it was measured.
fn pair(n: u64) -> [&'static AtomicU64; 2] {
    [said(MEASURED + 2 * n), said(MEASURED + 2 * n + 1)]
}

/// Counts a latency where it belongs.
fn count(latency: u64) {
    let [mut latency, mut times] = [latency, 1];
    for n in 0..MOST {
        let [known, counted] = pair(n);
        let taken = counted.load(Ordering::Relaxed) > 0;
        if !taken || known.load(Ordering::Relaxed) == latency || n == MOST - 1 {
            known.fetch_max(latency, Ordering::Relaxed);
            counted.fetch_add(times, Ordering::Relaxed);
            return;
        }
        if known.load(Ordering::Relaxed) > latency {
            // Here it belongs, and what is longer one further.
            latency = known.swap(latency, Ordering::Relaxed);
            times = counted.swap(times, Ordering::Relaxed);
        }
    }
}

/// Waits for its CPU's timer, again and again. The CPU idles meanwhile.
extern "C" fn periodic(has_line: u64) -> ! {
    let has_line = has_line != 0;
    if has_line {
        check_telling!(CHILD_TELL, kernel::bind(CHILD_TIMER, CHILD_EVENTS, TICK).is_ok());
    } else {
        check_telling!(CHILD_TELL, kernel::set_patience(1).is_ok());
    }
    loop {
        let woken = kernel::wait_for_bits(CHILD_EVENTS);
        let clock = kernel::clock();
        match woken {
            Ok(TICK) | Err(Status::TimedOut) => {
                let alone = clock.others == 0 && said(SPUN).load(Ordering::Relaxed) < clock.woke;
                if alone && clock.due <= clock.woke {
                    count(clock.now - clock.woke);
                }
                if has_line {
                    check_telling!(CHILD_TELL, kernel::acknowledge(CHILD_TIMER, clock.due + PERIOD).is_ok());
                }
                said(NEXT).store(kernel::clock().next, Ordering::Relaxed);
                said(RAN).fetch_add(1, Ordering::Release);
            }
            result => {
                check_telling!(CHILD_TELL, result.is_ok_and(|bits| bits & STOP != 0));
                call::exit(exit::DONE)
            }
        }
    }
}
