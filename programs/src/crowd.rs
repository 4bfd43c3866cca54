//! What the other CPUs run while the first one operates: threads that send each other messages out of the memory that
//! is operated on, or beside it, so that the kernel walks it for them; or that read, or wait, or are in another
//! process. As `kernel/src/workload/crowd.rs` does it without programs, mode by mode.
//!
//! A pair of threads on each CPU sends messages to and fro, and one of the two is always ready: the CPU never idles,
//! and keeps its mm.

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::abi::{Info, Rights, Status};
use crate::first::{PRIORITY, PROCESS};
use crate::image::Image;
use crate::kernel::{self, Begin, Limits};
use crate::random::Random;
use crate::{call, exit};

/// Numbers of modes, as the plan has them.
pub mod mode {
    /// Walks of the same mm, on other pages.
    pub const SAME: u64 = 0;
    /// Walks of the range that the operation changes.
    pub const CONTEND: u64 = 1;
    /// Walks of another mm.
    pub const OTHER: u64 = 2;
    /// Nothing.
    pub const IDLE: u64 = 3;
    /// Reads through the TLB.
    pub const SPIN: u64 = 4;
    /// The mm stays loaded, unused.
    pub const LAZY: u64 = 5;
    /// As [`SAME`], but the last CPU has nothing to do.
    pub const ISOLATED: u64 = 6;
}

/// Where the pages are that others walk, away from the operations.
pub const AWAY: u64 = 0x10_0000_0000;
const AWAY_PAGES: u64 = 8;
const PAGE: u64 = 4096;
/// Buffers and stacks, by CPU.
const BUFFERS: u64 = 0x31_0000_0000;
const STACKS: u64 = 0x32_0000_0000;
const STACK_BYTES: u64 = 16384;
const LAST: u64 = u64::MAX;
const ALL: Rights = Rights::READ.union(Rights::WRITE);

/// Slots of the first process, from here on: the other process; then for each CPU an endpoint or a notification, and
/// two threads.
const SLOTS: u64 = 32;
const OTHER: u64 = SLOTS;
const ENDPOINTS: u64 = SLOTS + 1;

const fn endpoint(cpu: u64) -> u64 {
    ENDPOINTS + 3 * (cpu - 1)
}

static STOP: AtomicBool = AtomicBool::new(false);
/// How many threads have begun, or are about to wait again.
static READY: AtomicU64 = AtomicU64::new(0);
static SEED: AtomicU64 = AtomicU64::new(0);
/// What is walked: where it begins and how much it is; and if operations are so far apart, at which of them the walk
/// begins.
static RANGE: [AtomicU64; 3] = [const { AtomicU64::new(0) }; 3];
static OP: AtomicU64 = AtomicU64::new(0);

/// The other CPUs.
pub struct Crowd {
    mode: u64,
    /// Each but the first, and in mode `isolated` but the last.
    cpus: core::ops::Range<u64>,
    rounds: u64,
}

impl Crowd {
    /// Sets them to work. In mode `contend` they walk `bytes` from `at` on, or, with a `step`, the pages that many
    /// bytes further for each operation.
    pub fn gather(plan: &kernel::Plan, image: &Image, [at, bytes, step]: [u64; 3]) -> Result<Crowd, Status> {
        kernel::map_anonymous(PROCESS, AWAY, AWAY_PAGES * PAGE, ALL)?;
        kernel::populate(PROCESS, AWAY, AWAY_PAGES * PAGE)?;
        let contends = plan.mode == mode::CONTEND;
        let range = if contends { [at, bytes, step] } else { [AWAY, AWAY_PAGES * PAGE, 0] };
        RANGE.iter().zip(range).for_each(|(to, from)| to.store(from, Ordering::Relaxed));
        SEED.store(plan.seed, Ordering::Relaxed);
        let end = plan.cpus.saturating_sub(if plan.mode == mode::ISOLATED { 1 } else { 0 });
        let cpus = if plan.mode == mode::IDLE { 1..1 } else { 1..end.max(1) };
        let crowd = Crowd { mode: plan.mode, cpus, rounds: 0 };
        let process = if plan.mode == mode::OTHER { OTHER } else { PROCESS };
        if process == OTHER {
            let limits =
                Limits { slots: endpoint(plan.cpus + 1), frames: 64 + 32 * plan.cpus, bytes: 1 << 20, spaces: 0 };
            image.process(OTHER, limits, PRIORITY)?;
            kernel::map_anonymous(OTHER, AWAY, AWAY_PAGES * PAGE, ALL)?;
        }
        crowd.cpus.clone().try_for_each(|cpu| crowd.join(process, cpu))?;
        let threads = crowd.threads();
        while process == PROCESS && READY.load(Ordering::Acquire) < threads {
            call::relax();
        }
        Ok(crowd)
    }

    /// How many threads there are.
    fn threads(&self) -> u64 {
        let each = if matches!(self.mode, mode::SPIN | mode::LAZY) { 1 } else { 2 };
        each * (self.cpus.end - self.cpus.start)
    }

    /// Makes the threads of `cpu`.
    fn join(&self, process: u64, cpu: u64) -> Result<(), Status> {
        let slot = endpoint(cpu);
        let entries: &[extern "C" fn(u64) -> !] = match self.mode {
            mode::SPIN => &[spin],
            mode::LAZY => &[doze],
            _ => &[receive, send],
        };
        if self.mode == mode::LAZY {
            kernel::make_notification(slot)?
        } else {
            kernel::make_endpoint(slot)?
        }
        if process != PROCESS {
            kernel::grant(process, slot, slot, ALL, 0)?;
        }
        kernel::map_anonymous(process, BUFFERS + cpu * 2 * AWAY_PAGES * PAGE, AWAY_PAGES * PAGE, ALL)?;
        for (n, entry) in entries.iter().enumerate() {
            let stack = STACKS + (2 * cpu + n as u64) * 2 * STACK_BYTES;
            kernel::map_anonymous(process, stack, STACK_BYTES, ALL)?;
            let entry = *entry as usize as u64;
            let begin = Begin { entry, stack: stack + STACK_BYTES, argument: cpu, priority: PRIORITY, cpu };
            kernel::make_thread(process, slot + 1 + n as u64, begin)?;
        }
        Ok(())
    }

    /// Operation `op` is about to begin.
    pub fn next_round(&mut self, op: u64) -> Result<(), Status> {
        OP.store(op, Ordering::Relaxed);
        if self.mode == mode::LAZY {
            self.rounds += 1;
            for cpu in self.cpus.clone() {
                kernel::signal(endpoint(cpu), 1)?;
            }
            while READY.load(Ordering::Acquire) < self.threads() * (1 + self.rounds) {
                call::relax();
            }
            // Each has said that it is about to wait. Until it does, it takes a system call.
            for _ in 0..64 {
                call::relax();
            }
        }
        Ok(())
    }

    /// Sends them home, and sees how they end.
    pub fn disperse(self) -> Result<(), Status> {
        if self.mode == mode::OTHER {
            return kernel::end(OTHER, exit::DONE);
        }
        STOP.store(true, Ordering::Release);
        let each = self.threads() / (self.cpus.end - self.cpus.start).max(1);
        for cpu in self.cpus {
            if self.mode == mode::LAZY {
                kernel::signal(endpoint(cpu), 1)?;
            }
            for thread in 0..each {
                if kernel::wait_for_end(endpoint(cpu) + 1 + thread)? != exit::DONE {
                    return Err(Status::BadArgument);
                }
            }
        }
        Ok(())
    }
}

/// Where the next message lies.
fn somewhere(random: &mut Random) -> (u64, u64) {
    let [at, bytes, step] = [0, 1, 2].map(|n: usize| RANGE[n].load(Ordering::Relaxed));
    // In a process that was made of this program all variables begin with 0.
    let (at, bytes) = if bytes == 0 { (AWAY, AWAY_PAGES * PAGE) } else { (at, bytes) };
    let pages = 1 + random.below(AWAY_PAGES);
    if step != 0 {
        return (at + OP.load(Ordering::Relaxed) * step % bytes, (pages - 1) * PAGE + 8);
    }
    let first = random.below(bytes / PAGE);
    (at + first * PAGE, (pages.min(bytes / PAGE - first) - 1) * PAGE + 8)
}

/// Sends messages out of the range. What is not mapped just now cannot be sent.
extern "C" fn send(cpu: u64) -> ! {
    let mut random = Random::new(SEED.load(Ordering::Relaxed), cpu);
    READY.fetch_add(1, Ordering::Release);
    while !STOP.load(Ordering::Acquire) {
        let (at, bytes) = somewhere(&mut random);
        match kernel::call(endpoint(cpu), Info::LONG, [0, 0, 0, 0, at, bytes]) {
            Ok(_) | Err(Status::BufferGone | Status::Busy | Status::Undelivered | Status::OutOfMemory) => {}
            Err(_) => call::exit(exit::CHECK | u64::from(line!())),
        }
        call::relax();
    }
    let last = kernel::call(endpoint(cpu), Info::empty(), [LAST, 0, 0, 0, 0, 0]);
    let well = last.is_err_and(|status| status == Status::Unanswered);
    call::exit(if well { exit::DONE } else { exit::CHECK | u64::from(line!()) })
}

/// Receives them.
extern "C" fn receive(cpu: u64) -> ! {
    let buffer = BUFFERS + cpu * 2 * AWAY_PAGES * PAGE;
    if kernel::set_buffer(buffer, AWAY_PAGES * PAGE, u64::MAX).is_err() {
        call::exit(exit::CHECK | u64::from(line!()));
    }
    READY.fetch_add(1, Ordering::Release);
    let mut received = kernel::wait(endpoint(cpu), Info::EXPECT_LONG);
    loop {
        received = match received {
            Ok(message) if message.words[0] == LAST => call::exit(exit::DONE),
            Ok(_) => kernel::reply_wait(endpoint(cpu), Info::EXPECT_LONG, [0; 6]),
            Err(Status::BufferGone | Status::Busy) => kernel::wait(endpoint(cpu), Info::EXPECT_LONG),
            Err(_) => call::exit(exit::CHECK | u64::from(line!())),
        };
    }
}

/// Reads what no operation changes.
extern "C" fn spin(_cpu: u64) -> ! {
    READY.fetch_add(1, Ordering::Release);
    while !STOP.load(Ordering::Acquire) {
        // SAFETY: mapped as long as the program runs.
        unsafe { (AWAY as *const u64).read_volatile() };
        call::relax();
    }
    call::exit(exit::DONE)
}

/// Waits to be woken, and waits again.
extern "C" fn doze(cpu: u64) -> ! {
    loop {
        READY.fetch_add(1, Ordering::Release);
        if kernel::wait_for_bits(endpoint(cpu)).is_err() {
            call::exit(exit::CHECK | u64::from(line!()));
        }
        if STOP.load(Ordering::Acquire) {
            call::exit(exit::DONE)
        }
    }
}
