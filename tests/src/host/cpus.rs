//! The state of all CPUs of the machine that runs on this host thread.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use super::mmu::Mmu;

/// One CPU.
#[derive(Default)]
pub(super) struct CpuState {
    pub(super) interrupts: Cell<bool>,
    /// The call doorbell rang while interrupts were masked.
    pub(super) rung: Cell<bool>,
    pub(super) mmu: Mmu,
}

/// What a test does at a load.
type Hook = Box<dyn FnOnce()>;

/// The machine of this host thread. The pointers are to a `Machine` and to `Cpu`s of whatever architecture
/// [`super::World`] was made for.
pub(super) struct Board {
    pub(super) ram: *mut u8,
    pub(super) first_byte: u64,
    pub(super) machine: Cell<*const ()>,
    pub(super) areas: RefCell<Vec<*const ()>>,
    pub(super) cpus: Vec<CpuState>,
    pub(super) current: Cell<usize>,
    pub(super) time: Cell<u64>,
    /// Rounds of waiting since a test last told a CPU to do something.
    pub(super) rounds: Cell<u64>,
    /// The slot whose next load is hooked, and what then happens.
    pub(super) hook: RefCell<Option<(usize, Hook)>>,
    /// What happens when a CPU next waits.
    pub(super) wait_hook: RefCell<Option<Hook>>,
}

thread_local! {
    static BOARD: RefCell<Option<Rc<Board>>> = const { RefCell::new(None) };
}

/// The machine of this host thread.
pub(super) fn board() -> Rc<Board> {
    BOARD.with_borrow(|board| board.clone()).expect("a World is alive on this thread")
}

pub(super) fn install(board: Option<Rc<Board>>) {
    BOARD.set(board);
}

impl Board {
    pub(super) fn cpu(&self) -> &CpuState {
        &self.cpus[self.current.get()]
    }

    /// Runs `what` as CPU `index`.
    pub(super) fn on<R>(&self, index: usize, what: impl FnOnce() -> R) -> R {
        let before = self.current.replace(index);
        let result = what();
        self.current.set(before);
        result
    }

    /// Runs an interrupt handler on CPU `index`.
    pub(super) fn interrupt(&self, index: usize, handler: fn()) {
        let enabled = self.cpus[index].interrupts.replace(false);
        self.on(index, handler);
        self.cpus[index].interrupts.set(enabled);
    }
}
