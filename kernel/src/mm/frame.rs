//! The frame table: one descriptor per frame of RAM, which says what the frame is, who owns it and who refers to it.
//!
//! A page is freed by whoever drops its last reference; a reference can be taken without a lock while there is at least
//! one ([`Frame::try_get`]), and [`Frame::freeze`] takes the last ones away against that: both are read-modify-writes
//! of the same word, so one of them is first and the other sees it. That is the whole protocol between a lockless walk
//! and whoever wants a page for himself: *get, then recheck the entry* against *clear the entry, then freeze*. If the
//! get is first, the freeze fails; if the freeze is first, a get fails until [`Frame::thaw`], and reads what that
//! released from then on, so the recheck sees the cleared entry.

use core::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering};

use crate::addr::{Level, Pfn};
use crate::arch::Arch;
use crate::atomic;
use crate::smp::lock::Mutex;

/// What a frame is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum FrameState {
    /// The kernel's: its image, stacks, rings, the frame table.
    Kernel = 0,
    /// In the allocator, or in a CPU's magazine.
    Free = 1,
    /// A page table that is linked, or about to be.
    Table = 2,
    /// A page table that no entry points at any more, and that a walk may still hold.
    UnlinkedTable = 3,
    /// A page of an mm, not shared through a file.
    Anon = 4,
    /// A page of a file.
    File = 5,
    /// A page of the gather: pointers to what it shall free.
    Batch = 6,
    /// Inside a 2 MiB page: the head, which is aligned to 512 frames, has the references.
    Tail = 7,
}

/// One frame's descriptor; 64 bytes.
#[repr(C, align(64))]
pub struct Frame<A: Arch> {
    /// References: one per mapping entry, one per walk that returned it, one of its file. 0 is not in use.
    refs: atomic::AtomicU32,
    /// References of them that are pins.
    pins: atomic::AtomicU32,
    /// The mm (tables, anonymous pages) or file that it belongs to.
    owner: AtomicU32,
    /// How often the frame was allocated.
    generation: atomic::AtomicU32,
    /// First address it maps (tables), its address (anonymous pages), its offset (files).
    address: AtomicU64,
    /// The next frame of whatever list it is in.
    next: AtomicU32,
    /// Tables: entries that are not empty. Changed under the table's lock.
    population: AtomicU16,
    /// PMD tables of files: mms that link it. Changed under the file's lock.
    sharers: AtomicU16,
    state: AtomicU8,
    /// Tables: their level.
    level: AtomicU8,
    /// Pages: log2 of how many frames from this one on are one page.
    order: AtomicU8,
    /// Tables: taken for every change of an entry.
    pub(super) lock: Mutex<A, ()>,
    /// Tables: the first of the tables deposited with it.
    deposited: AtomicU32,
    /// When a table was unlinked, on the instruction counter: for reports only.
    unlinked_at: AtomicU64,
}

/// The end of a list of frames.
pub const NO_FRAME: u32 = u32::MAX;

impl<A: Arch> Frame<A> {
    /// A frame that the allocator has not got yet.
    pub fn new() -> Frame<A> {
        Frame {
            refs: atomic::AtomicU32::new(0),
            pins: atomic::AtomicU32::new(0),
            owner: AtomicU32::new(0),
            generation: atomic::AtomicU32::new(0),
            address: AtomicU64::new(0),
            next: AtomicU32::new(NO_FRAME),
            population: AtomicU16::new(0),
            sharers: AtomicU16::new(0),
            state: AtomicU8::new(FrameState::Kernel as u8),
            level: AtomicU8::new(0),
            order: AtomicU8::new(0),
            lock: Mutex::<A, ()>::new(()),
            deposited: AtomicU32::new(NO_FRAME),
            unlinked_at: AtomicU64::new(0),
        }
    }

    /// What the frame is.
    pub fn state(&self) -> FrameState {
        use FrameState::*;
        match self.state.load(Ordering::Relaxed) {
            0 => Kernel,
            1 => Free,
            2 => Table,
            3 => UnlinkedTable,
            4 => Anon,
            5 => File,
            6 => Batch,
            _ => Tail,
        }
    }

    /// Says what the frame is. Whoever does owns it.
    pub fn set_state(&self, state: FrameState) {
        self.state.store(state as u8, Ordering::Relaxed);
    }

    /// The mm or file it belongs to.
    pub fn owner(&self) -> u32 {
        self.owner.load(Ordering::Relaxed)
    }

    /// Where it belongs there.
    pub fn address(&self) -> u64 {
        self.address.load(Ordering::Relaxed)
    }

    /// How often the frame was allocated.
    pub fn generation(&self) -> u32 {
        self.generation.load(Ordering::Relaxed)
    }

    /// How often the frame was allocated or used again, read before whatever is read next. A table is given a new
    /// number before anything else takes its place in its parent. Acquire: pairs with the flush before that number
    /// (tests/litmus/hand-over).
    #[inline(always)]
    pub fn generation_now(&self) -> u32 {
        self.generation.load(Ordering::Acquire)
    }

    /// Tables: their level.
    pub fn level(&self) -> Level {
        Level::from_number(self.level.load(Ordering::Relaxed)).unwrap_or(Level::Pte)
    }

    /// Tables: entries that are not empty.
    pub fn population(&self) -> u16 {
        self.population.load(Ordering::Relaxed)
    }

    /// Adds to the population. Under the table's lock, so load and store are enough.
    pub(super) fn add_population(&self, by: i16) {
        let now = self.population.load(Ordering::Relaxed);
        self.population.store(now.wrapping_add_signed(by), Ordering::Relaxed);
    }

    /// PMD tables of files: mms that link it.
    pub fn sharers(&self) -> u16 {
        self.sharers.load(Ordering::Relaxed)
    }

    /// Changes the sharers. Under the file's lock.
    pub(super) fn set_sharers(&self, sharers: u16) {
        self.sharers.store(sharers, Ordering::Relaxed);
    }

    /// The next frame of its list.
    pub(crate) fn next(&self) -> u32 {
        self.next.load(Ordering::Relaxed)
    }

    pub(crate) fn set_next(&self, next: u32) {
        self.next.store(next, Ordering::Relaxed);
    }

    /// The first table deposited with this PMD table. Under this table's lock.
    pub(super) fn deposited(&self) -> u32 {
        self.deposited.load(Ordering::Relaxed)
    }

    pub(super) fn set_deposited(&self, first: u32) {
        self.deposited.store(first, Ordering::Relaxed);
    }

    /// When it was unlinked.
    pub fn unlinked_at(&self) -> u64 {
        self.unlinked_at.load(Ordering::Relaxed)
    }

    pub(super) fn set_unlinked_at(&self, time: u64) {
        self.unlinked_at.store(time, Ordering::Relaxed);
    }

    /// Makes a free frame a table.
    pub(super) fn become_table(&self, owner: u32, level: Level, address: u64) {
        self.owner.store(owner, Ordering::Relaxed);
        self.level.store(level as u8, Ordering::Relaxed);
        self.address.store(address, Ordering::Relaxed);
        self.population.store(0, Ordering::Relaxed);
        self.sharers.store(0, Ordering::Relaxed);
        self.deposited.store(NO_FRAME, Ordering::Relaxed);
        self.generation.store(self.generation() + 1, Ordering::Relaxed);
        self.set_state(FrameState::Table);
    }

    /// Makes a free frame the head of a page of `1 << order` frames, with one reference.
    pub(super) fn become_page(&self, state: FrameState, owner: u32, address: u64, order: u8) {
        self.owner.store(owner, Ordering::Relaxed);
        self.address.store(address, Ordering::Relaxed);
        self.order.store(order, Ordering::Relaxed);
        self.pins.store(0, Ordering::Relaxed);
        self.generation.store(self.generation() + 1, Ordering::Relaxed);
        self.set_state(state);
        // Release: whoever gets a reference (acquire) sees what the page is (tests/litmus/hand-over).
        self.refs.store(1, Ordering::Release);
    }

    /// Whether it is inside a 2 MiB page whose head has the references.
    #[inline(always)]
    pub fn is_tail(&self) -> bool {
        self.state.load(Ordering::Relaxed) == FrameState::Tail as u8
    }

    /// The head of a 2 MiB page goes back to the allocator: it is the head of nothing.
    pub(super) fn become_free(&self) {
        self.order.store(0, Ordering::Relaxed);
        self.set_state(FrameState::Free);
    }

    /// Pages: log2 of how many frames are one page.
    pub fn order(&self) -> u8 {
        self.order.load(Ordering::Relaxed)
    }

    /// References, now.
    pub fn refs(&self) -> u32 {
        self.refs.load(Ordering::Relaxed)
    }

    /// Pins, now.
    pub fn pins(&self) -> u32 {
        // Acquire: pairs with `drop_pins` (tests/litmus/hand-over).
        self.pins.load(Ordering::Acquire)
    }

    /// Takes `n` references unless there is none: for walks, which hold no lock.
    ///
    /// Acquire: pairs with [`Frame::thaw`], so that a get that follows one sees the cleared entry. It releases nothing:
    /// what a holder did before it got the reference is its own, and of a get and a [`Frame::freeze`], both exchanges
    /// of one word, one comes first.
    #[inline]
    pub fn try_get(&self, n: u32) -> bool {
        let mut now = self.refs.load(Ordering::Relaxed);
        while now != 0 {
            match self.refs.compare_exchange_weak(now, now + n, Ordering::Acquire, Ordering::Relaxed) {
                Ok(_) => return true,
                Err(seen) => now = seen,
            }
        }
        false
    }

    /// Takes a reference as [`Frame::try_get`] does, but tries once: false also where somebody else changed the count
    /// meanwhile.
    #[inline(always)]
    pub(super) fn try_get_once(&self) -> bool {
        let now = self.refs.load(Ordering::Relaxed);
        // Acquire: as in `try_get` (tests/litmus/get-recheck-thaw).
        now != 0 && self.refs.compare_exchange(now, now + 1, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    /// Takes a reference for an entry or a caller that already has one, or holds the lock of a table that maps it.
    #[inline]
    pub fn get(&self) {
        self.refs.fetch_add(1, Ordering::Relaxed);
    }

    /// Drops `n` references; true if they were the last, and the caller must free the page.
    ///
    /// AcqRel: what every former owner did has happened before the free.
    #[inline]
    #[must_use]
    pub fn put(&self, n: u32) -> bool {
        self.refs.fetch_sub(n, Ordering::AcqRel) == n
    }

    /// Marks `n` references as pins. Relaxed is enough for who reads them under the write-protect sequence, see
    /// [`crate::mm::fork`].
    #[inline]
    pub fn add_pins(&self, n: u32) {
        self.pins.fetch_add(n, Ordering::Relaxed);
    }

    /// Unmarks `n` pins.
    #[inline]
    pub fn drop_pins(&self, n: u32) {
        // Release: what was written through them comes before. Pairs with `pins` (tests/litmus/hand-over).
        self.pins.fetch_sub(n, Ordering::Release);
    }

    /// Takes all references away if there are exactly `expected`; from then on no walk gets one.
    ///
    /// Acquire: pairs with `put`. What was done before is published by `thaw`; a get that fails looks at nothing.
    #[must_use]
    pub fn freeze(&self, expected: u32) -> bool {
        self.refs.compare_exchange(expected, 0, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    /// Gives `refs` references back after [`Frame::freeze`]. Release: pairs with `try_get`.
    pub fn thaw(&self, refs: u32) {
        self.refs.store(refs, Ordering::Release);
    }
}

impl<A: Arch> Default for Frame<A> {
    fn default() -> Self {
        Frame::new()
    }
}

/// The descriptors of all frames of RAM.
pub struct FrameTable<A: Arch> {
    frames: &'static [Frame<A>],
    first: Pfn,
}

impl<A: Arch> Clone for FrameTable<A> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<A: Arch> Copy for FrameTable<A> {}

impl<A: Arch> FrameTable<A> {
    /// A table for the frames from `first` on.
    pub const fn new(first: Pfn, frames: &'static [Frame<A>]) -> FrameTable<A> {
        FrameTable { frames, first }
    }

    /// The descriptor of `pfn`.
    ///
    /// # Panics
    /// If `pfn` is not RAM: an entry that says so is corrupt.
    #[inline]
    pub fn get(&self, pfn: Pfn) -> &'static Frame<A> {
        &self.frames[pfn.0.wrapping_sub(self.first.0) as usize]
    }

    /// The descriptor of `pfn`, unless it is not RAM.
    #[inline(always)]
    pub fn lookup(&self, pfn: Pfn) -> Option<&'static Frame<A>> {
        // A frame before the first one wraps to a number beyond the last.
        self.frames.get(pfn.0.wrapping_sub(self.first.0) as usize)
    }

    /// All frames with their numbers.
    pub fn iter(&self) -> impl Iterator<Item = (Pfn, &'static Frame<A>)> {
        let first = self.first.0;
        self.frames.iter().enumerate().map(move |(i, f)| (Pfn(first + i as u32), f))
    }
}
