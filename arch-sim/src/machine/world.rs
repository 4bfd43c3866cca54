//! What one execution consists of: memory, CPUs, the choices of the seed, and what the machine itself found wrong.

use std::cell::{Cell, RefCell};
use std::sync::atomic::{AtomicU64, Ordering};

use corosensei::Yielder;
use kernel::addr::{Level, Pfn, PhysAddr, VirtAddr};
use kernel::boot::ExitCode;
use kernel::mm::entry::{Entry, EntryCodec, Perm};

use crate::explore::hub::Kind;

use super::codec::{self, Codec};
use super::direction::Direction;
use super::hardware::Hardware;
use super::mmu::Mmu;

/// First byte of RAM.
pub(super) const RAM: u64 = 1 << 30;
/// Bytes of RAM.
pub(super) const RAM_BYTES: usize = 96 << 20;

/// What stands for all cached translations: no address.
pub(super) const TRANSLATIONS: usize = usize::MAX / 2;
/// Translations of one CPU that may go one of several ways and for which that is chosen.
pub(super) const CHOSEN: u32 = 8;

/// One simulated CPU.
#[derive(Default)]
pub(super) struct Core {
    pub(super) area: Cell<usize>,
    pub(super) yielder: Cell<usize>,
    pub(super) masked: Cell<bool>,
    pub(super) in_nmi: Cell<bool>,
    pub(super) call: Cell<bool>,
    pub(super) nmi: Cell<bool>,
    pub(super) asleep: Cell<bool>,
    /// It waits for another: it does not want to be chosen again at once.
    pub(super) relaxed: Cell<bool>,
    /// It is to run a handler of this kind before it goes on.
    pub(super) handler: Cell<Option<Kind>>,
    /// The hypervisor lets it run again: it makes good what it owes.
    pub(super) resuming: Cell<bool>,
    /// It is about to read, or write, through its own translation of this address.
    pub(super) probing: Cell<Option<(VirtAddr, bool)>>,
    /// How many of its translations could go more than one way.
    pub(super) ambiguous: Cell<u32>,
    /// What its walks came to: the page that each got.
    pub(super) walked: RefCell<Vec<Option<Pfn>>>,
    pub(super) mmu: RefCell<Mmu>,
}

impl Core {
    /// Whether it can run.
    pub(super) fn awake(&self) -> bool {
        !self.asleep.get() || self.call.get() || self.nmi.get()
    }
}

/// What else is to be called, and with what.
type Also = (fn(*const ()), *const ());

/// The machine of one execution.
pub(super) struct World {
    pub(super) ram: *mut u8,
    pub(super) machine: Cell<usize>,
    pub(super) cores: Vec<Core>,
    pub(super) current: Cell<usize>,
    pub(super) started: RefCell<Vec<usize>>,
    pub(super) exit: Cell<Option<ExitCode>>,
    pub(super) steps: Cell<u64>,
    pub(super) trace: Cell<u64>,
    pub(super) seed: Cell<u64>,
    pub(super) findings: RefCell<Vec<String>>,
    /// Addresses that were used or invalidated lately: where speculation goes.
    pub(super) lately: RefCell<Vec<VirtAddr>>,
    pub(super) hardware: Hardware,
    /// Programs use translations: what changes them, and what uses them, depend on each other.
    pub(super) translates: Cell<bool>,
    /// Which way translations go that could go more than one: two bits for each, the first lowest.
    pub(super) ways: Cell<u64>,
    /// The most ways that one could go.
    pub(super) most_ways: Cell<usize>,
    /// Who decides what comes next, if it is not the seed.
    pub(super) direction: Option<Direction>,
    /// What NMIs do beside what the kernel does in them, and with what.
    pub(super) also_in_nmi: Cell<Option<Also>>,
}

thread_local! {
    static WORLD: Cell<*const World> = const { Cell::new(std::ptr::null()) };
}

/// The world of the execution that runs on this thread.
pub(super) fn world() -> &'static World {
    let pointer = WORLD.get();
    assert!(!pointer.is_null(), "no simulated machine runs on this thread");
    // SAFETY: `enter` set it to a world that lives until `leave`, and everything that calls this runs in between, on
    // this thread.
    unsafe { &*pointer }
}

/// Whether leaves are made accessed and dirty.
pub(super) fn presets() -> bool {
    let pointer = WORLD.get();
    // SAFETY: as in `world`.
    pointer.is_null() || unsafe { &*pointer }.hardware.preset
}

/// Makes `world` the one of this thread, until [`leave`].
pub(super) fn enter(world: &World) {
    assert!(WORLD.get().is_null(), "a simulated machine runs on this thread already");
    WORLD.set(world);
}

/// No world any more.
pub(super) fn leave() {
    WORLD.set(std::ptr::null());
}

impl World {
    /// A machine of `cpus` CPUs before anything has run. `leaf_reads`: see [`kernel::arch::Arch::LEAF_READS_AS_TABLE`].
    pub(super) fn new(
        ram: *mut u8,
        cpus: usize,
        seed: u64,
        hardware: Hardware,
        leaf_reads: bool,
        direction: Option<Direction>,
    ) -> World {
        let core = |_| {
            let core = Core::default();
            core.mmu.borrow_mut().leaf_reads = leaf_reads;
            core.mmu.borrow_mut().global = !hardware.not_global && hardware.parts.global;
            core.mmu.borrow_mut().parts = hardware.parts;
            core
        };
        World {
            ram,
            machine: Cell::new(0),
            cores: (0..cpus).map(core).collect(),
            current: Cell::new(0),
            started: RefCell::new(vec![0]),
            exit: Cell::new(None),
            steps: Cell::new(0),
            trace: Cell::new(0xcbf2_9ce4_8422_2325),
            seed: Cell::new(seed),
            findings: RefCell::new(Vec::new()),
            lately: RefCell::new(Vec::new()),
            hardware,
            translates: Cell::new(false),
            ways: Cell::new(0),
            most_ways: Cell::new(1),
            direction,
            also_in_nmi: Cell::new(None),
        }
    }

    /// The next choice, below `n`: SplitMix64 (Steele, Lea, Flood 2014).
    pub(super) fn choose(&self, n: u64) -> u64 {
        let state = self.seed.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        self.seed.set(state);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n
    }

    /// The CPU that runs.
    pub(super) fn core(&self) -> &Core {
        &self.cores[self.current.get()]
    }

    /// Where physical address `pa` is on the host.
    pub(super) fn host(&self, pa: PhysAddr) -> *mut u8 {
        assert!(self.is_ram(pa), "{pa} is not RAM");
        // SAFETY: the arena has as many bytes as RAM, and the address was just checked.
        unsafe { self.ram.add((pa.0 - RAM) as usize) }
    }

    /// Eight bytes at `pa`, as hardware reads them.
    pub(super) fn read(&self, pa: PhysAddr) -> u64 {
        // SAFETY: inside the arena and aligned; whoever shares it accesses it atomically or not at the same time: there
        // is one thread.
        unsafe { self.host(pa).cast::<u64>().read() }
    }

    /// Gives the host thread back to the scheduler.
    pub(super) fn suspend(&self) {
        let yielder = self.core().yielder.get() as *const Yielder<(), ()>;
        // SAFETY: the coroutine of the CPU that runs stored it when it began, and it is valid for as long as the
        // coroutine runs.
        unsafe { &*yielder }.suspend(());
    }

    /// What the hardware does on its own: an invalidation arrives somewhere; an entry is cached ahead of its use.
    pub(super) fn hardware_acts(&self) {
        let chance = self.choose(32);
        if chance > 8 {
            return;
        }
        let core = &self.cores[self.choose(self.cores.len() as u64) as usize];
        let mut mmu = core.mmu.borrow_mut();
        if chance < 4 {
            if !mmu.arriving.is_empty() {
                let (asid, what) = mmu.arriving.remove(0);
                mmu.invalidate(asid, &what, &self.hardware);
            }
            return;
        }
        let lately = self.lately.borrow();
        if !lately.is_empty() && self.hardware.parts.speculation {
            let va = lately[self.choose(lately.len() as u64) as usize];
            let from_cache = self.choose(2) == 0;
            if let Some(leaf) = mmu.walk(va, from_cache, |pa| self.read_if_ram(pa)) {
                self.mark_used(leaf.slot, false);
            }
        }
    }

    /// Hardware notes in the entry at `slot` that it has translated, or written, by it: an atomic update, made only if
    /// the entry still allows that. Says whether it does.
    pub(super) fn mark_used(&self, slot: PhysAddr, written: bool) -> bool {
        let raw = self.read_if_ram(slot);
        let notes = self.hardware.parts.dirty;
        let allowed = match Codec::decode(Level::Pte, raw) {
            Entry::Leaf { perm, .. } => perm.contains(Perm::WRITE) || !written,
            _ => false,
        };
        if notes && allowed && codec::used(raw, written) != raw {
            // SAFETY: inside RAM, since what was read there is an entry; aligned; there is one thread.
            unsafe { self.host(slot).cast::<u64>().write(codec::used(raw, written)) };
        }
        allowed
    }

    /// A plain store of `value` over an entry that `known` was read from: what hardware has noted in it since is lost.
    pub(super) fn judge_plain_store(&self, word: &AtomicU64, known: u64, value: u64) {
        let now = word.load(Ordering::SeqCst);
        let leaf = matches!(Codec::decode(Level::Pte, now), Entry::Leaf { .. });
        if leaf && codec::is_dirty(now) && !codec::is_dirty(known) && !codec::is_dirty(value) {
            let finding = format!(
                "a dirty bit is lost: a plain store of {value:#x} replaces {now:#x}, of which {known:#x} is known"
            );
            self.findings.borrow_mut().push(finding);
        }
    }

    /// Two translations of an address that matters are cached on `cpu` and do not agree.
    pub(super) fn conflict(&self, cpu: usize) -> Option<(VirtAddr, PhysAddr, PhysAddr)> {
        let mmu = self.cores[cpu].mmu.borrow();
        let lately = self.lately.borrow();
        lately.iter().find_map(|va| mmu.conflict(*va).map(|(one, other)| (*va, one, other)))
    }

    /// Every CPU caches all that it could have cached by now of the addresses that matter: the worst case, since what
    /// is cached hinders nobody.
    pub(super) fn fill(&self) {
        if !self.hardware.parts.speculation {
            return;
        }
        for core in &self.cores {
            let mut mmu = core.mmu.borrow_mut();
            for va in self.lately.borrow().iter() {
                mmu.fill(*va, |pa| self.read_if_ram(pa));
            }
        }
    }

    /// Eight bytes at `pa`; 0, an absent entry, where there is no RAM: a cached entry may lead to a table that is none
    /// any more.
    pub(super) fn read_if_ram(&self, pa: PhysAddr) -> u64 {
        if self.is_ram(pa) { self.read(pa) } else { 0 }
    }

    /// Whether there is RAM at `pa`.
    pub(super) fn is_ram(&self, pa: PhysAddr) -> bool {
        (RAM..RAM + RAM_BYTES as u64).contains(&pa.0)
    }

    /// Which of `count` ways the next translation of the CPU that runs goes.
    pub(super) fn way(&self, count: usize) -> usize {
        if count == 1 {
            return 0;
        }
        let core = self.core();
        let number = core.ambiguous.replace(core.ambiguous.get() + 1);
        self.most_ways.set(self.most_ways.get().max(count));
        let digit = self.current.get() as u32 * CHOSEN + number.min(CHOSEN - 1);
        (self.ways.get() >> (2 * digit) & 3) as usize % count
    }

    /// Remembers an address for speculation.
    pub(super) fn note(&self, va: VirtAddr) {
        let mut lately = self.lately.borrow_mut();
        if !lately.contains(&va) {
            if lately.len() == 12 {
                lately.remove(0);
            }
            lately.push(va);
        }
    }
}
