//! One CPU's area: everything that belongs to it alone, or that others read of it.

use core::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use crate::addr::{CpuId, VirtAddr};
use crate::arch::Arch;
use crate::ledger::Ledger;
use crate::ledger::events::EventRing;
use crate::mm::frame::FrameTable;
use crate::mm::frame_alloc::Magazine;
use crate::oracle::ghost::Ghost;
use crate::record::shared::CpuStatus;
use crate::smp::call::{Inbox, Request};
use crate::smp::nmi::Nmi;
use crate::smp::rcu::RcuCpu;
use crate::sync::WalkSlot;
use crate::task::sched::Tasks;
use crate::tlb::switch::Loaded;
use crate::tlb::transport::paravirt::Vcpu;

/// What a CPU is asked to run outside interrupts: its area and an argument.
pub type Job<A> = fn(&'static Cpu<A>, usize);

/// The area of one CPU. Lives for ever; reached by [`Arch::this_cpu`] or through [`crate::machine::Machine::cpu`].
#[repr(C, align(128))]
pub struct Cpu<A: Arch> {
    /// Its dense number.
    pub id: CpuId,
    /// Its hardware number (APIC id, MPIDR affinity).
    pub hw_id: u64,
    /// End of its kernel stack, which has an unmapped page below its lowest byte.
    pub stack_top: VirtAddr,
    /// All frames: the machine's table once more, where a walk has it at hand.
    pub frames: FrameTable<A>,
    /// What a strategy publishes of this CPU's walks.
    pub walk_slot: WalkSlot,
    /// Which mm its MMU translates by.
    pub loaded: Loaded,
    /// Its part of grace periods.
    pub rcu: RcuCpu,
    /// Its counts.
    pub ledger: Ledger,
    /// Its events.
    pub events: EventRing,
    /// What the oracle knows of its walk.
    pub ghost: Ghost,
    /// Its call under way.
    pub request: Request<A>,
    /// Calls of others that it has to serve.
    pub inbox: Inbox,
    /// What its NMIs are asked for, and what they leave behind.
    pub nmi: Nmi,
    /// What the hypervisor has done with it.
    pub vcpu: Vcpu,
    /// Free frames that only it takes from and gives to.
    pub magazine: Magazine,
    /// Its threads.
    pub tasks: Tasks<A>,
    /// What it is doing, for the runner.
    pub status: &'static CpuStatus,
    /// Its seeded choices.
    pub chance: Chance,
    /// The job it shall run: a [`Job`], or 0.
    job: AtomicUsize,
    job_argument: AtomicUsize,
    /// It has answered a call: its interrupts work.
    pub online: AtomicBool,
    /// What the architecture keeps here.
    pub arch: A::CpuLocal,
}

impl<A: Arch> Cpu<A> {
    /// The area of CPU `id`, offline.
    pub fn new(
        id: CpuId,
        hw_id: u64,
        stack_top: VirtAddr,
        frames: FrameTable<A>,
        status: &'static CpuStatus,
        events: EventRing,
    ) -> Cpu<A> {
        Cpu {
            id,
            hw_id,
            stack_top,
            frames,
            walk_slot: WalkSlot::default(),
            loaded: Loaded::default(),
            rcu: RcuCpu::default(),
            ledger: Ledger::default(),
            events,
            ghost: Ghost::default(),
            request: Request::new(),
            inbox: Inbox::default(),
            nmi: Nmi::default(),
            vcpu: Vcpu::default(),
            magazine: Magazine::default(),
            tasks: Tasks::default(),
            status,
            chance: Chance::new(id.0 as u64),
            job: AtomicUsize::new(0),
            job_argument: AtomicUsize::new(0),
            online: AtomicBool::new(false),
            arch: A::CpuLocal::default(),
        }
    }

    /// Hands the CPU a job; it had none. The caller wakes it by a call.
    pub fn give_job(&self, job: Job<A>, argument: usize) {
        self.job_argument.store(argument, Ordering::Relaxed);
        // Release: publishes the argument, and what it points at, to `job` (tests/litmus/hand-over).
        self.job.store(job as usize, Ordering::Release);
    }

    /// Whether the CPU has finished what [`Cpu::give_job`] gave it. Acquire: pairs with [`Cpu::finish_job`]
    /// (tests/litmus/hand-back).
    pub fn has_job(&self) -> bool {
        self.job.load(Ordering::Acquire) != 0
    }

    /// The job to run, for this CPU's own loop.
    pub fn job(&self) -> Option<(Job<A>, usize)> {
        // Acquire: pairs with `give_job` (tests/litmus/hand-over).
        let job = self.job.load(Ordering::Acquire);
        if job == 0 {
            return None;
        }
        // SAFETY: only `give_job` writes a non-zero word, from a `Job<A>`.
        let job = unsafe { core::mem::transmute::<usize, Job<A>>(job) };
        Some((job, self.job_argument.load(Ordering::Relaxed)))
    }

    /// Marks the job as done. Release: pairs with [`Cpu::has_job`] (tests/litmus/hand-back).
    pub fn finish_job(&self) {
        self.job.store(0, Ordering::Release);
    }
}

/// Seeded choices of one CPU: when its next timer fires, whether a schedule point yields, which fault is injected.
#[derive(Default)]
pub struct Chance {
    state: AtomicU64,
}

impl Chance {
    /// A sequence of its own for each `stream`.
    pub const fn new(stream: u64) -> Chance {
        Chance { state: AtomicU64::new(stream) }
    }

    /// Starts the sequence of (`seed`, `stream`).
    pub fn seed(&self, seed: u64, stream: u64) {
        let mixed = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ stream.wrapping_mul(0xd1b5_4a32_d192_ed03);
        self.state.store(mixed, Ordering::Relaxed);
        self.next();
    }

    /// The next 64 bits: the SplitMix64 generator (Steele, Lea, Flood 2014). Plain loads and stores: it adds no
    /// barrier.
    #[inline]
    pub fn next(&self) -> u64 {
        let state = self.state.load(Ordering::Relaxed).wrapping_add(0x9e37_79b9_7f4a_7c15);
        self.state.store(state, Ordering::Relaxed);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// True once in `n` on average.
    #[inline]
    pub fn one_in(&self, n: u64) -> bool {
        self.next().is_multiple_of(n)
    }
}
