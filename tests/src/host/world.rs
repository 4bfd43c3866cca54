//! Setting a machine up, running its CPUs, taking it down.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};

use kernel::addr::{CpuId, Level, PAGE_SIZE, Pfn, VirtAddr};
use kernel::arch::{Arch, UserFault};
use kernel::boot::BootInfo;
use kernel::ledger::events::EventRing;
use kernel::machine::Machine;
use kernel::mm::address_space::{MapError, Mm};
use kernel::mm::fault;
use kernel::mm::frame::{Frame, FrameState, FrameTable};
use kernel::mm::frame_alloc::FrameAllocator;
use kernel::mm::table::Table;
use kernel::record::event::{EVENT_BYTES, Event};
use kernel::record::ring::RingHeader;
use kernel::record::shared::{CpuStatus, Shared};
use kernel::scenario::script::Script;
use kernel::scenario::{self, Point};
use kernel::smp::cpu::Cpu;
use kernel::sync::{self, Setting};
use kernel::tlb::transport::TransportId;
use kernel::workload::walker::WalkerClass;

use super::cpus::{self, Board, CpuState, board};

/// The first frame of RAM; aligned, so that there are 2 MiB pages.
const FIRST: u32 = 512;
/// Events that each CPU keeps.
const EVENTS: usize = 64;

/// One CPU's events, where they lie.
type Ring = (RingHeader, [[AtomicU64; EVENT_BYTES / 8]; EVENTS]);

/// A machine of kind `A` on this host thread, until it is dropped.
pub struct World<A: Arch> {
    cpus: &'static [&'static Cpu<A>],
    machine: &'static Machine<A>,
    frames: &'static [Frame<A>],
    shared: &'static Shared,
    statuses: &'static [CpuStatus],
    rings: &'static [Ring],
    layout: Layout,
}

impl<A: Arch> World<A> {
    /// A machine with `cpus` CPUs, all online, and `frames` frames of RAM.
    pub fn new(cpus: usize, frames: usize) -> World<A> {
        let layout = Layout::from_size_align(frames * PAGE_SIZE as usize, 1 << 21).expect("a power of two");
        // SAFETY: the size is not zero.
        let ram = unsafe { alloc_zeroed(layout) };
        assert!(!ram.is_null());
        cpus::install(Some(Rc::new(Board {
            ram,
            first_byte: Pfn(FIRST).addr().0,
            machine: Cell::new(std::ptr::null()),
            areas: RefCell::new(Vec::new()),
            cpus: (0..cpus).map(|_| CpuState { interrupts: Cell::new(true), ..CpuState::default() }).collect(),
            current: Cell::new(0),
            time: Cell::new(1),
            rounds: Cell::new(0),
            hook: RefCell::new(None),
            wait_hook: RefCell::new(None),
        })));
        let statuses: &'static [CpuStatus] = Vec::leak((0..cpus).map(|_| CpuStatus::default()).collect());
        let ring = || (RingHeader::new(), std::array::from_fn(|_| std::array::from_fn(|_| AtomicU64::new(0))));
        let rings: &'static [Ring] = Vec::leak((0..cpus).map(|_| ring()).collect());
        let table: &'static [Frame<A>] = Vec::leak((0..frames).map(|_| Frame::new()).collect());
        let frame_table = FrameTable::new(Pfn(FIRST), table);
        let areas: Vec<&'static Cpu<A>> = (0..cpus)
            .map(|i| {
                let id = CpuId(i as u16);
                let events = EventRing::new::<A>(id, &rings[i].0, &rings[i].1);
                &*Box::leak(Box::new(Cpu::new(id, i as u64, VirtAddr(0), frame_table, &statuses[i], events)))
            })
            .collect();
        *board().areas.borrow_mut() = areas.iter().map(|c| (*c as *const Cpu<A>).cast()).collect();
        let areas: &'static [&'static Cpu<A>] = Vec::leak(areas);
        let allocator = FrameAllocator::new();
        allocator.add(Pfn(FIRST), Pfn(FIRST + frames as u32));
        let shared: &'static Shared = Box::leak(Box::default());
        let firmware = BootInfo {
            memory: &[],
            cpus: &[],
            command_line: "",
            module: &[],
            start_cpu: |_| Ok(()),
            init_boot_cpu: |_| (),
            grow_heap: |_, _| (),
            exit: |code| panic!("the machine is left with {code:?}"),
            shared,
        };
        let machine = A::install_machine(Machine::new(areas, frame_table, allocator, firmware));
        for pfn in 0..frames as u32 {
            machine.frames.get(Pfn(FIRST + pfn)).set_state(FrameState::Free);
        }
        for _ in 1..cpus {
            machine.came_online();
        }
        let world = World { cpus: areas, machine, frames: table, shared, statuses, rings, layout };
        for (i, cpu) in world.cpus.iter().enumerate() {
            world.on(i, || kernel::smp::rcu::leave_idle(*cpu));
        }
        world
    }

    /// The area of CPU `index`.
    pub fn cpu(&self, index: usize) -> &'static Cpu<A> {
        self.cpus[index]
    }

    /// All its state.
    pub fn machine(&self) -> &'static Machine<A> {
        self.machine
    }

    /// Runs `what` as CPU `index`.
    pub fn on<R>(&self, index: usize, what: impl FnOnce() -> R) -> R {
        let board = board();
        board.rounds.set(0);
        board.on(index, what)
    }

    /// What is run from now on.
    pub fn choose(&self, strategy: &str, transport: TransportId) {
        let number = sync::NAMES.iter().position(|(name, _)| *name == strategy).expect("a strategy of that name");
        let hook = transport.flush_implies_interrupt();
        let setting = Setting { transport, hook, chain: false, batch: false, walker: WalkerClass::Gup };
        self.machine.policy.set(&sync::all::<A>()[number], setting);
    }

    /// The next time that any CPU reads the entry for `va` in `table` of `level`, does `what` before that CPU goes on.
    pub fn after_load(&self, table: Table<A>, level: Level, va: VirtAddr, what: impl FnOnce() + 'static) {
        let slot = table.slot(va.index(level)) as *const _ as usize;
        *board().hook.borrow_mut() = Some((slot, Box::new(what)));
    }

    /// The next time that any CPU waits for another, does `what` before that CPU looks again.
    pub fn while_waiting(&self, what: impl FnOnce() + 'static) {
        while_waiting(what);
    }

    /// The next time that CPU 1 is at `point`, CPU 0 does `what` before CPU 1 goes on. Nothing else is going on.
    pub fn at_point(&self, point: Point, what: impl FnOnce() + 'static) {
        let script = Script::parse(&format!("U+W/W@{},U,W", point.name())).expect("a script");
        let stage = &self.machine.stage;
        stage.open(&script, 0);
        let updater = self.cpu(0);
        // CPU 1 waits for its turn.
        self.while_waiting(move || {
            board().on(0, || {
                what();
                scenario::stage::leave(updater);
            });
            A::machine().stage.close();
        });
    }

    /// Whether nothing that was asked for by [`World::after_load`], [`World::at_point`] or [`World::while_waiting`] is
    /// outstanding.
    pub fn hook_ran(&self) -> bool {
        board().hook.borrow().is_none() && board().wait_hook.borrow().is_none()
    }

    /// The events that CPU `index` has written last, oldest first.
    pub fn events(&self, index: usize) -> Vec<Event> {
        let (header, slots) = &self.rings[index];
        let written = (header.written.load(Ordering::Relaxed) as usize) / EVENT_BYTES;
        (written.saturating_sub(EVENTS)..written)
            .map(|n| {
                let [time, what, a, b] = std::array::from_fn(|i| slots[n % EVENTS][i].load(Ordering::Relaxed));
                Event { time, kind: what as u16, cpu: (what >> 16) as u16, mm: (what >> 32) as u32, a, b }
            })
            .collect()
    }

    /// Whether interrupts wait for CPU `index` to enable them.
    pub fn is_rung(&self, index: usize) -> bool {
        board().cpus[index].rung.get()
    }

    /// Reads as a user program on CPU `index` does: faults are handled.
    pub fn read(&self, index: usize, mm: &Mm<A>, va: VirtAddr) -> Result<u64, MapError> {
        self.access(index, mm, va, false, || A::read_user(va))
    }

    /// Writes as a user program on CPU `index` does.
    pub fn write(&self, index: usize, mm: &Mm<A>, va: VirtAddr, value: u64) -> Result<(), MapError> {
        self.access(index, mm, va, true, || A::write_user(va, value))
    }

    fn access<R>(
        &self,
        index: usize,
        mm: &Mm<A>,
        va: VirtAddr,
        write: bool,
        what: impl Fn() -> Result<R, UserFault>,
    ) -> Result<R, MapError> {
        self.on(index, || {
            for _ in 0..4 {
                match what() {
                    Ok(result) => return Ok(result),
                    Err(UserFault) => fault::handle(self.cpu(index), mm, va, write)?,
                }
            }
            panic!("a fault at {va} was handled and comes again and again")
        })
    }

    /// Violations that the oracle has found so far.
    pub fn violations(&self) -> u64 {
        let counts = self.cpus.iter().map(|cpu| cpu.ledger.snapshot());
        counts.map(|counts| counts.violations_ghost + counts.violations_value).sum()
    }

    /// Lets every grace period end: all CPUs pass a quiescent state, and free what they retired.
    pub fn settle(&self) {
        for _ in 0..3 {
            for cpu in self.cpus {
                self.on(cpu.id.index(), || {
                    kernel::smp::rcu::quiescent(*cpu);
                    kernel::smp::rcu::poll(*cpu);
                });
            }
        }
    }
}

/// [`World::while_waiting`], for what such a thing does itself.
pub fn while_waiting(what: impl FnOnce() + 'static) {
    *board().wait_hook.borrow_mut() = Some(Box::new(what));
}

/// Runs `what` as CPU `index` of this host thread's machine: for what [`World::after_load`] does.
pub fn run_on<R>(index: usize, what: impl FnOnce() -> R) -> R {
    board().on(index, what)
}

impl<A: Arch> Drop for World<A> {
    fn drop(&mut self) {
        let ram = board().ram;
        cpus::install(None);
        // SAFETY: all of these were made by `new`, which leaked them, and nothing on this thread reaches them any more:
        // the board is gone, and what the test took from this world it took to use it while the world lives.
        unsafe {
            drop(Box::from_raw((self.machine as *const Machine<A>).cast_mut()));
            drop(Box::from_raw((self.frames as *const [Frame<A>]).cast_mut()));
            for cpu in self.cpus {
                drop(Box::from_raw((*cpu as *const Cpu<A>).cast_mut()));
            }
            drop(Box::from_raw((self.cpus as *const [&'static Cpu<A>]).cast_mut()));
            drop(Box::from_raw((self.statuses as *const [CpuStatus]).cast_mut()));
            drop(Box::from_raw((self.rings as *const [Ring]).cast_mut()));
            drop(Box::from_raw((self.shared as *const Shared).cast_mut()));
            dealloc(ram, self.layout);
        }
    }
}
