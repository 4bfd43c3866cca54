//! The machine of one run of a model.

use std::alloc::{Layout, alloc_zeroed};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;

use kernel::addr::{CpuId, Level, PAGE_SIZE, Pfn, VirtAddr};
use kernel::arch::Arch;
use kernel::atomic::AtomicU64;
use kernel::boot::BootInfo;
use kernel::ledger::events::EventRing;
use kernel::machine::Machine;
use kernel::mm::address_space::Mm;
use kernel::mm::frame::{Frame, FrameState, FrameTable};
use kernel::mm::frame_alloc::FrameAllocator;
use kernel::mm::table::Table;
use kernel::record::shared::{CpuStatus, Shared};
use kernel::smp::cpu::Cpu;
use kernel::sync::{self, Setting};
use kernel::tlb::transport::TransportId;
use kernel::workload::walker::WalkerClass;
use loom::sync::atomic::AtomicU8;

use super::machine::{BOARD, Board, CURRENT, Woven, board};

const FIRST: u32 = 512;
const FRAMES: usize = 24;

thread_local! {
    /// RAM, which all runs of this host thread's models use one after the other.
    static RAM: *mut u8 = {
        let layout = Layout::from_size_align(FRAMES * PAGE_SIZE as usize, PAGE_SIZE as usize).expect("whole pages");
        // SAFETY: the size is not zero. It is never given back.
        unsafe { alloc_zeroed(layout) }
    };
}

/// See the head of this module.
pub struct World {
    cpus: &'static [&'static Cpu<Woven>],
    machine: &'static Machine<Woven>,
    frames: &'static [Frame<Woven>],
    statuses: &'static [CpuStatus],
}

impl World {
    /// A machine with `cpus` CPUs; the calling thread is CPU 0.
    pub fn new(cpus: usize) -> Rc<World> {
        BOARD.set(Some(Rc::new(Board {
            ram: RAM.with(|ram| *ram),
            first_byte: Pfn(FIRST).addr().0,
            machine: Cell::new(std::ptr::null()),
            areas: RefCell::new(Vec::new()),
            interrupts: (0..cpus).map(|_| Cell::new(true)).collect(),
            bells: (0..cpus).map(|_| AtomicU8::new(0)).collect(),
            listens: (0..cpus).map(|_| Cell::new(false)).collect(),
            entries: RefCell::new(HashMap::new()),
            invalidated: RefCell::new(vec![None; cpus]),
        })));
        let statuses: &'static [CpuStatus] = Vec::leak((0..cpus).map(|_| CpuStatus::default()).collect());
        let frames: &'static [Frame<Woven>] = Vec::leak((0..FRAMES).map(|_| Frame::new()).collect());
        let table = FrameTable::new(Pfn(FIRST), frames);
        let areas: Vec<&'static Cpu<Woven>> = (0..cpus)
            .map(|i| {
                let id = CpuId(i as u16);
                &*Box::leak(Box::new(Cpu::new(id, i as u64, VirtAddr(0), table, &statuses[i], EventRing::off(id))))
            })
            .collect();
        *board().areas.borrow_mut() = areas.clone();
        let areas: &'static [&'static Cpu<Woven>] = Vec::leak(areas);
        frames.iter().for_each(|frame| frame.set_state(FrameState::Free));
        let allocator = FrameAllocator::new();
        allocator.add(Pfn(FIRST), Pfn(FIRST + FRAMES as u32));
        static SHARED: Shared = Shared::new();
        let firmware = BootInfo {
            memory: &[],
            cpus: &[],
            command_line: "",
            module: &[],
            start_cpu: |_| Ok(()),
            init_boot_cpu: |_| (),
            grow_heap: |_, _| (),
            exit: |code| panic!("the machine is left with {code:?}"),
            shared: &SHARED,
        };
        let machine = Woven::install_machine(Machine::new(areas, table, allocator, firmware));
        for _ in 1..cpus {
            machine.came_online();
        }
        Rc::new(World { cpus: areas, machine, frames, statuses })
    }

    /// The area of CPU `index`.
    pub fn cpu(&self, index: usize) -> &'static Cpu<Woven> {
        self.cpus[index]
    }

    /// All its state.
    pub fn machine(&self) -> &'static Machine<Woven> {
        self.machine
    }

    /// How flushes travel, and which strategy decides.
    pub fn choose(&self, strategy: &str, transport: TransportId) {
        let number = sync::NAMES.iter().position(|(name, _)| *name == strategy).expect("a strategy of that name");
        let hook = transport.flush_implies_interrupt();
        let setting = Setting { transport, hook, chain: false, batch: false, walker: WalkerClass::Gup };
        self.machine.policy.set(&sync::all::<Woven>()[number], setting);
    }

    /// Starts CPU `index`.
    pub fn spawn<R: 'static>(&self, index: usize, what: impl FnOnce() -> R + 'static) -> loom::thread::JoinHandle<R> {
        loom::thread::spawn(move || {
            CURRENT.with(|current| current.set(index));
            what()
        })
    }

    /// From now on the entry for `va` in `table` is loom's. Before other CPUs are started.
    pub fn watch_entry(&self, table: Table<Woven>, level: Level, va: VirtAddr) {
        let slot = table.slot(va.index(level));
        let entry = Rc::new(AtomicU64::new(slot.load(std::sync::atomic::Ordering::Relaxed)));
        board().entries.borrow_mut().insert(slot as *const _ as usize, entry);
    }

    /// What CPU `index` does whenever it invalidates.
    pub fn on_invalidate(&self, index: usize, what: impl Fn() + 'static) {
        board().invalidated.borrow_mut()[index] = Some(Rc::new(what));
    }

    /// CPU `index` may be interrupted. Before other CPUs are started.
    pub fn listen(&self, index: usize) {
        board().listens[index].set(true);
    }

    /// The calling CPU takes the interrupts that wait for it; says whether there were any.
    pub fn take_interrupts(&self) -> bool {
        board().take_interrupts()
    }

    /// The calling CPU takes interrupts until `enough`.
    pub fn take_interrupts_until(&self, enough: impl Fn() -> bool) {
        while !enough() {
            Woven::relax();
        }
    }

    /// Ends the run: gives back what it was made of. All other CPUs have been joined, and whatever the model made is
    /// gone.
    pub fn end(self: Rc<World>) {
        BOARD.set(None);
        // SAFETY: `new` leaked all of these, and nothing reaches them any more: the board is gone, other threads have
        // ended, and what the model took from this world it took to use it while the world lives.
        unsafe {
            drop(Box::from_raw((self.machine as *const Machine<Woven>).cast_mut()));
            drop(Box::from_raw((self.frames as *const [Frame<Woven>]).cast_mut()));
            for cpu in self.cpus {
                drop(Box::from_raw((*cpu as *const Cpu<Woven>).cast_mut()));
            }
            drop(Box::from_raw((self.cpus as *const [&'static Cpu<Woven>]).cast_mut()));
            drop(Box::from_raw((self.statuses as *const [CpuStatus]).cast_mut()));
        }
    }

    /// An mm with one table of each level on the way to `va`.
    pub fn mm_with_tables(&self, va: VirtAddr) -> std::sync::Arc<Mm<Woven>> {
        use kernel::mm::entry::EntryCodec;
        let cpu = self.cpu(0);
        let mm = Mm::new(cpu, 0).expect("memory suffices");
        let mut table = mm.root();
        for (level, below) in [(Level::Pgd, Level::Pud), (Level::Pud, Level::Pmd), (Level::Pmd, Level::Pte)] {
            let new = kernel::mm::table::alloc(cpu, mm.id, below, va).expect("memory suffices");
            table.lock().set(level, va, <Woven as Arch>::Codec::table(new.pfn().addr()));
            table = new;
        }
        mm
    }
}
