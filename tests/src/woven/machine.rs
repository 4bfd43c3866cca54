//! [`Woven`] as the core sees it.

use core::ptr::NonNull;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::atomic::AtomicU64 as Plain;

use kernel::addr::{PhysAddr, VirtAddr};
use kernel::arch::{Arch, Asid, Doorbell, ENTRY_LOAD, ENTRY_STORE, ENTRY_SWAP, NativeTransport, UserFault};
use kernel::atomic::AtomicU64;
use kernel::machine::Machine;
use kernel::smp::cpu::Cpu;
use kernel::task::user::{NoUserMode, UserEvent};
use kernel::tlb::invalidation::Invalidation;
use kernel::upcall;
use loom::sync::atomic::{AtomicU8, Ordering};

use crate::host::Codec;

/// A machine under loom, whose flushes interrupt and whose translations are not tagged.
#[derive(Clone, Copy)]
pub struct Woven;

const CALL: u8 = 1;
const NMI: u8 = 2;

/// What a model wants done.
type Action = Rc<dyn Fn()>;

/// The machine of the model that runs on this host thread.
pub(super) struct Board {
    pub(super) ram: *mut u8,
    pub(super) first_byte: u64,
    pub(super) machine: Cell<*const Machine<Woven>>,
    pub(super) areas: RefCell<Vec<&'static Cpu<Woven>>>,
    pub(super) interrupts: Vec<Cell<bool>>,
    /// By CPU, which of [`CALL`] and [`NMI`] rang.
    pub(super) bells: Vec<AtomicU8>,
    /// Whether anybody rings the CPU in this model: else it need not look.
    pub(super) listens: Vec<Cell<bool>>,
    /// Entries that are loom's, by the address of their slot.
    pub(super) entries: RefCell<HashMap<usize, Rc<AtomicU64>>>,
    /// What each CPU does when it invalidates.
    pub(super) invalidated: RefCell<Vec<Option<Action>>>,
}

thread_local! {
    pub(super) static BOARD: RefCell<Option<Rc<Board>>> = const { RefCell::new(None) };
}

loom::thread_local! {
    pub(super) static CURRENT: Cell<usize> = Cell::new(0);
}

pub(super) fn board() -> Rc<Board> {
    BOARD.with_borrow(|board| board.clone()).expect("a model is running")
}

pub(super) fn current() -> usize {
    CURRENT.with(Cell::get)
}

/// The loom atomic that stands for `slot`, if it has one.
fn entry(slot: &Plain) -> Option<Rc<AtomicU64>> {
    board().entries.borrow().get(&(slot as *const Plain as usize)).cloned()
}

impl Board {
    /// Takes what rang for the current CPU, which has interrupts enabled. Says whether anything did.
    pub(super) fn take_interrupts(&self) -> bool {
        let cpu = current();
        if !self.listens[cpu].get() {
            return false;
        }
        // Acquire: what was stored before the ring is visible to the handler.
        let rang = self.bells[cpu].swap(0, Ordering::Acquire);
        if rang & NMI != 0 {
            upcall::nmi::<Woven>();
        }
        if rang & CALL != 0 {
            let enabled = self.interrupts[cpu].replace(false);
            assert!(enabled, "a model looks for interrupts while they are masked");
            upcall::call::<Woven>();
            self.interrupts[cpu].set(true);
        }
        rang != 0
    }
}

impl Arch for Woven {
    const NAME: &'static str = "woven";
    const ELF_MACHINE: u16 = 0;
    type Codec = Codec;
    type CpuLocal = ();
    type UserContext = NoUserMode;
    const NATIVE_TRANSPORT: NativeTransport = NativeTransport::Ipi;
    const INVALIDATION_CEILING: u64 = 33;
    const USER_END: VirtAddr = VirtAddr(1 << 47);
    const KERNEL_STACKS: VirtAddr = VirtAddr(1 << 63);

    fn asids() -> u32 {
        1
    }

    fn has_broadcast_invalidation() -> bool {
        false
    }

    fn machine() -> &'static Machine<Self> {
        // SAFETY: `World` keeps the machine while the model runs.
        unsafe { &*board().machine.get() }
    }

    fn install_machine(machine: Machine<Self>) -> &'static Machine<Self> {
        let machine: &'static Machine<Self> = Box::leak(Box::new(machine));
        board().machine.set(machine);
        machine
    }

    fn this_cpu() -> &'static Cpu<Self> {
        board().areas.borrow()[current()]
    }

    unsafe fn set_this_cpu(_cpu: &'static Cpu<Self>) {}

    fn direct_map(pa: PhysAddr) -> *mut u8 {
        let board = board();
        board.ram.wrapping_add((pa.0 - board.first_byte) as usize)
    }

    #[track_caller]
    fn load_entry(slot: &Plain) -> u64 {
        match entry(slot) {
            Some(entry) => entry.load(ENTRY_LOAD),
            None => slot.load(ENTRY_LOAD),
        }
    }

    #[track_caller]
    fn store_entry(slot: &Plain, raw: u64) {
        match entry(slot) {
            Some(entry) => entry.store(raw, ENTRY_STORE),
            None => slot.store(raw, ENTRY_STORE),
        }
    }

    #[track_caller]
    fn swap_entry(slot: &Plain, raw: u64) -> u64 {
        match entry(slot) {
            Some(entry) => entry.swap(raw, ENTRY_SWAP),
            None => slot.swap(raw, ENTRY_SWAP),
        }
    }

    fn irq_save() -> bool {
        board().interrupts[current()].replace(false)
    }

    fn irq_restore(were_enabled: bool) {
        board().interrupts[current()].set(were_enabled);
    }

    fn irqs_enabled() -> bool {
        board().interrupts[current()].get()
    }

    fn relax() {
        if !board().take_interrupts() {
            loom::thread::yield_now();
        }
    }

    fn wait_for_interrupt() {
        unreachable!("models do not sleep")
    }

    fn ring(target: &Cpu<Self>, bell: Doorbell) {
        let board = board();
        let bit = if bell == Doorbell::Nmi { NMI } else { CALL };
        // Release: see `take_interrupts`.
        board.bells[target.id.index()].fetch_or(bit, Ordering::Release);
    }

    fn set_timer(_ns: u64) {}

    fn stop_timer() {}

    fn instructions() -> u64 {
        0
    }

    unsafe fn init_root(_root: PhysAddr) {}

    unsafe fn load_root(_root: PhysAddr, _asid: Asid) {
        Self::invalidate_local(Asid(0), &Invalidation::ALL);
    }

    unsafe fn load_kernel_root() {
        Self::invalidate_local(Asid(0), &Invalidation::ALL);
    }

    fn invalidate_local(_asid: Asid, _what: &Invalidation) -> u32 {
        let what = board().invalidated.borrow()[current()].clone();
        if let Some(what) = what {
            what();
        }
        1
    }

    fn invalidate_broadcast(_asid: Asid, _what: &Invalidation) -> u32 {
        unreachable!("there is no such instruction")
    }

    fn read_user(_va: VirtAddr) -> Result<u64, UserFault> {
        Err(UserFault)
    }

    fn write_user(_va: VirtAddr, _value: u64) -> Result<(), UserFault> {
        Err(UserFault)
    }

    unsafe fn enter_user(_context: NonNull<NoUserMode>, _in_cpu: bool) -> UserEvent {
        NoUserMode::REFUSED
    }

    unsafe fn map_kernel_page(_va: VirtAddr, _page: PhysAddr, _new_table: &mut dyn FnMut() -> PhysAddr) {
        unreachable!("this machine maps no kernel pages")
    }

    unsafe fn switch_stack(_top: VirtAddr, _entry: extern "C" fn() -> !) -> ! {
        unreachable!("CPUs of this machine are threads")
    }
}
