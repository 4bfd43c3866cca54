//! A periodic thread with the highest priority has a CPU of its own, the last one, and a process of its own; the first
//! CPU collapses a huge page, leaves a shared table and reclaims an emptied one, over and over, in a process that runs
//! on all others. None of that is any business of the last CPU. What reaches it nevertheless is counted by the meter;
//! how long its thread takes to run when its time has come, it says itself.
#![cfg_attr(target_os = "none", no_std, no_main)]

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use runtime::abi::{Rights, Status};
use runtime::first::{FREE, METER, PRIORITY, PROCESS};
use runtime::image::Image;
use runtime::kernel::{self, Begin, Limits, Plan};
use runtime::{call, check, check_telling, exit, program};

program!(start);

const IMAGE: u64 = FREE;
const TABLE: u64 = FREE + 1;
const STAYER: u64 = FREE + 2;
const REPORT: u64 = FREE + 3;
const TELL: u64 = FREE + 4;
const STOP: u64 = FREE + 5;
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
/// Where both see what the periodic thread says: how often it ran, the longest that it took to run since that was last
/// looked at.
const SEEN: u64 = 0x50_0000_0000;

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
    while SPINS.load(Ordering::Acquire) != spinning || (stands_by && seen().0 == 0) {
        call::relax();
    }
    for op in 0..plan.ops {
        check!(prepare(op) == Ok(()));
        check!(operate(&plan) == Ok(()));
    }
    ENOUGH.store(true, Ordering::Release);
    for cpu in others {
        while kernel::ended(SPINNERS + cpu) == Ok(None) {
            call::relax();
        }
        check!(kernel::ended(SPINNERS + cpu) == Ok(Some(exit::DONE)));
    }
    if stands_by {
        check!(kernel::signal(STOP, 1).is_ok());
        check!(kernel::wait_for_bits(TELL).is_ok_and(|bits| runtime::failed(bits).is_none()));
        check!(kernel::ended(PERIODIC_THREAD) == Ok(Some(exit::DONE)));
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

fn operate(plan: &Plan) -> Result<(), Status> {
    kernel::begin(METER)?;
    kernel::collapse(PROCESS, COLLAPSED)?;
    kernel::unmap(PROCESS, SHARED)?;
    kernel::discard(PROCESS, RECLAIMED, HUGE)?;
    let latency = if plan.cpus > 1 { seen().1 } else { 0 };
    kernel::finish(METER, latency).map(|_| ())
}

/// Makes the periodic thread.
fn stand_by(cpu: u64) -> Result<(), Status> {
    let limits = Limits { slots: 8, frames: 64, bytes: 64 << 10, spaces: 0 };
    let image = Image::new(PROCESS, IMAGE)?;
    kernel::make_notification(TELL)?;
    kernel::make_notification(STOP)?;
    kernel::make_frames(REPORT, 1)?;
    kernel::map(PROCESS, REPORT, SEEN, 0, 4096, ALL)?;
    image.process(PERIODIC, limits, URGENT)?;
    kernel::map(PERIODIC, REPORT, SEEN, 0, 4096, ALL)?;
    kernel::grant(PERIODIC, CHILD_TELL, TELL, Rights::WRITE, 0)?;
    kernel::grant(PERIODIC, CHILD_STOP, STOP, Rights::READ, 0)?;
    image.start(PERIODIC, PERIODIC_THREAD, periodic, 0, URGENT, cpu)?;
    kernel::bind(PERIODIC_THREAD, TELL, 1)
}

/// Reads where other threads of this process are and no table changes.
extern "C" fn spin(cpu: u64) -> ! {
    SPINS.fetch_or(1 << (cpu % 64), Ordering::Release);
    while !ENOUGH.load(Ordering::Acquire) {
        // SAFETY: mapped as long as the program runs.
        unsafe { (AWAY as *const u64).read_volatile() };
        call::relax();
    }
    call::exit(exit::DONE)
}

const CHILD_TELL: u64 = 0;
const CHILD_STOP: u64 = 1;

/// The word `n` of what the periodic thread says.
fn said(n: u64) -> &'static AtomicU64 {
    // SAFETY: a page of frames is mapped there in both processes as long as they run, and is used as atomic words only.
    unsafe { &*((SEEN + 8 * n) as *const AtomicU64) }
}

/// How often the periodic thread ran, and the longest that it took to run.
fn seen() -> (u64, u64) {
    (said(0).load(Ordering::Acquire), said(1).load(Ordering::Relaxed))
}

/// Waits for the next tick of its CPU's timer, again and again. The CPU idles meanwhile, so how long it takes to run is
/// how long the kernel takes from there.
extern "C" fn periodic(_argument: u64) -> ! {
    check_telling!(CHILD_TELL, kernel::set_patience(1).is_ok());
    loop {
        match kernel::wait_for_bits(CHILD_STOP) {
            Err(Status::TimedOut) => {
                let clock = kernel::clock();
                if clock.others == 0 {
                    said(1).fetch_max(clock.now - clock.woke, Ordering::Relaxed);
                }
                said(0).fetch_add(1, Ordering::Release);
            }
            result => {
                check_telling!(CHILD_TELL, result.is_ok());
                call::exit(exit::DONE)
            }
        }
    }
}
