//! The machine: all state of one booted kernel. There is one on hardware, and as many as one likes in a simulation.

use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering};

use crate::addr::CpuId;
use crate::arch::Arch;
use crate::boot::BootInfo;
use crate::injection::Injection;
use crate::mm::frame::FrameTable;
use crate::mm::frame_alloc::FrameAllocator;
use crate::object::Objects;
use crate::record::cell::Violation;
use crate::record::shared::Shared;
use crate::scenario::stage::Stage;
use crate::smp::cpu::Cpu;
use crate::smp::lock::Mutex;
use crate::smp::mask::CpuMask;
use crate::smp::rcu::Rcu;
use crate::sync::{self, Setting};
use crate::tlb::tag::Tags;
use crate::tlb::transport::TransportId;
use crate::tlb::transport::nmi::Board;
use crate::workload::walker::WalkerClass;

/// All state of one booted kernel.
pub struct Machine<A: Arch> {
    /// The CPUs' areas, by number; all that shall come online.
    pub cpus: &'static [&'static Cpu<A>],
    /// How many of them are online; they come online in the order of their numbers.
    online: AtomicUsize,
    online_mask: CpuMask,
    /// One descriptor per frame.
    pub frames: FrameTable<A>,
    /// The frames that are free.
    pub allocator: FrameAllocator<A>,
    /// Table pages in use.
    pub tables: AtomicU64,
    /// The number of the next mm, or file that the kernel itself uses.
    pub next_mm: AtomicU32,
    /// The number of the next file of programs.
    pub next_file: AtomicU32,
    /// Who has which tag.
    pub asids: Mutex<A, Tags<A>>,
    /// Grace periods.
    pub rcu: Rcu,
    /// The broadcast that is played by NMIs.
    pub nmi_board: Board<A>,
    /// What is being run.
    pub policy: Policy<A>,
    /// The derivation tree, what ends, interrupt lines.
    pub objects: Objects<A>,
    /// The scenario that is being played.
    pub stage: Stage,
    /// Counts unlinked tables: see [`crate::sync::acked_generation`].
    pub unlink_generation: crate::atomic::AtomicU64,
    /// The operation under way, counted from the start of the cell.
    pub operation: AtomicU64,
    /// The first violation of the cell.
    pub first_violation: FirstViolation<A>,
    /// What the platform said, and can do.
    pub firmware: BootInfo<A>,
}

impl<A: Arch> Machine<A> {
    /// A machine with one CPU online.
    pub fn new(
        cpus: &'static [&'static Cpu<A>],
        frames: FrameTable<A>,
        allocator: FrameAllocator<A>,
        firmware: BootInfo<A>,
    ) -> Machine<A> {
        Machine {
            cpus,
            online: AtomicUsize::new(1),
            online_mask: CpuMask::first(cpus.len()),
            frames,
            allocator,
            tables: AtomicU64::new(0),
            next_mm: AtomicU32::new(1),
            next_file: AtomicU32::new(1),
            asids: Mutex::<A, _>::new(Tags::new(A::asids())),
            rcu: Rcu::default(),
            nmi_board: Board::default(),
            policy: Policy::new(),
            objects: Objects::default(),
            stage: Stage::default(),
            unlink_generation: crate::atomic::AtomicU64::new(0),
            operation: AtomicU64::new(0),
            first_violation: FirstViolation::default(),
            firmware,
        }
    }

    /// Memory that the runner reads.
    pub fn shared(&self) -> &'static Shared {
        self.firmware.shared
    }

    /// The area of `id`.
    #[inline(always)]
    pub fn cpu(&self, id: CpuId) -> &'static Cpu<A> {
        self.cpus[id.index()]
    }

    /// The CPUs that are online.
    pub fn online(&self) -> impl Iterator<Item = &'static Cpu<A>> + use<A> {
        // Acquire: pairs with the release in `came_online` (tests/litmus/hand-over).
        self.cpus[..self.online.load(Ordering::Acquire)].iter().copied()
    }

    /// One more CPU is online.
    pub fn came_online(&self) {
        // Release: what the CPU was set up with comes before (tests/litmus/hand-over).
        self.online.fetch_add(1, Ordering::Release);
    }

    /// All CPUs: cells are run when all are online.
    pub fn online_mask(&self) -> &CpuMask {
        &self.online_mask
    }

    /// Free frames, in the allocator and in all magazines. Exact while nothing is allocated.
    pub fn free_frames(&self) -> usize {
        self.allocator.free() + self.cpus.iter().map(|cpu| cpu.magazine.len()).sum::<usize>()
    }
}

/// What is being run: changed between cells only.
pub struct Policy<A: Arch> {
    strategy: AtomicPtr<sync::Entry<A>>,
    transport: AtomicU8,
    hook: AtomicBool,
    schedule_points: AtomicBool,
    chain: AtomicBool,
    walker: AtomicU8,
    /// Faults that are injected.
    pub injection: Injection,
    /// One in this many walks of the crowd pins what it finds; 0 for none.
    pub(crate) pins: AtomicU32,
    /// Mean time between timer interrupts of a CPU, in ns; 0 for none.
    pub(crate) tick_ns: AtomicU64,
}

impl<A: Arch> Policy<A> {
    fn new() -> Policy<A> {
        let first: *const sync::Entry<A> = &sync::all::<A>()[0];
        Policy {
            strategy: AtomicPtr::new(first.cast_mut()),
            transport: AtomicU8::new(TransportId::native::<A>() as u8),
            hook: AtomicBool::new(false),
            schedule_points: AtomicBool::new(false),
            chain: AtomicBool::new(false),
            walker: AtomicU8::new(WalkerClass::Gup as u8),
            injection: Injection::default(),
            pins: AtomicU32::new(0),
            tick_ns: AtomicU64::new(0),
        }
    }

    /// The strategy of the run.
    #[inline]
    pub fn strategy(&self) -> &'static sync::Entry<A> {
        // SAFETY: only `set` writes it, from a `&'static Entry<A>`. Relaxed: it is set before other CPUs are woken for
        // the cell.
        unsafe { &*self.strategy.load(Ordering::Relaxed) }
    }

    /// The transport of the run.
    #[inline]
    pub fn transport(&self) -> TransportId {
        TransportId::from_number(self.transport.load(Ordering::Relaxed)).unwrap_or(TransportId::Ipi)
    }

    /// The static hook of the run.
    #[inline]
    pub fn hook(&self) -> bool {
        self.hook.load(Ordering::Relaxed)
    }

    /// Whether schedule points are on.
    #[inline(always)]
    pub fn schedule_points(&self) -> bool {
        self.schedule_points.load(Ordering::Relaxed)
    }

    /// Whether the walkers of the run read entries as two words: [`crate::mm::two_word`].
    #[inline]
    pub(crate) fn reads_two_words(&self) -> bool {
        self.walker.load(Ordering::Relaxed) == WalkerClass::TwoWord as u8
    }

    /// What was chosen to run, beside the strategy.
    pub(crate) fn setting(&self) -> Setting {
        let walker = self.walker.load(Ordering::Relaxed);
        Setting {
            transport: self.transport(),
            hook: self.hook(),
            chain: self.chain.load(Ordering::Relaxed),
            batch: false,
            walker: WalkerClass::ALL.into_iter().find(|class| *class as u8 == walker).unwrap_or(WalkerClass::Gup),
        }
    }

    /// Chooses what to run. No CPU but the caller is in a walk or an operation.
    pub fn set(&self, strategy: &'static sync::Entry<A>, setting: Setting) {
        self.strategy.store((strategy as *const sync::Entry<A>).cast_mut(), Ordering::Relaxed);
        self.transport.store(setting.transport as u8, Ordering::Relaxed);
        self.hook.store(setting.hook, Ordering::Relaxed);
        self.chain.store(setting.chain, Ordering::Relaxed);
        self.walker.store(setting.walker as u8, Ordering::Relaxed);
    }

    /// Turns schedule points on or off.
    pub fn set_schedule_points(&self, on: bool) {
        self.schedule_points.store(on, Ordering::Relaxed);
    }
}

/// The first violation of a cell.
pub struct FirstViolation<A: Arch> {
    taken: AtomicBool,
    what: Mutex<A, Violation>,
}

impl<A: Arch> Default for FirstViolation<A> {
    fn default() -> Self {
        FirstViolation { taken: AtomicBool::new(false), what: Mutex::<A, _>::new(Violation::default()) }
    }
}

impl<A: Arch> FirstViolation<A> {
    /// Keeps `violation` if it is the first. May be called with interrupts masked: nobody waits for the lock.
    pub fn note(&self, violation: Violation) {
        if !self.taken.swap(true, Ordering::Relaxed)
            && let Some(mut what) = self.what.try_lock()
        {
            *what = violation;
        }
    }

    /// Takes it, for the cell's row.
    pub fn take(&self) -> Violation {
        let what = core::mem::take(&mut *self.what.lock());
        self.taken.store(false, Ordering::Relaxed);
        what
    }
}
