//! The frame allocator: a buddy allocator behind a lock, and a magazine of single frames per CPU before it.
//!
//! Magazines are last in, first out: a frame that was just freed is the next to be used. That is the worst case for
//! whoever still refers to it, and so the best for finding out.

use core::sync::atomic::{AtomicU32, Ordering};

use buddy_system_allocator::FrameAllocator as Buddy;

use crate::addr::Pfn;
use crate::arch::Arch;
use crate::mm::frame::FrameState;
use crate::smp::cpu::Cpu;
use crate::smp::lock::Mutex;

/// Frames that a magazine holds at most: the pages of 2 MiB, twice, so that an operation on one huge page's worth stays
/// in it.
const MAGAZINE: usize = 1024;
/// Frames taken from the buddy allocator at once, when the magazine is empty.
const REFILL: usize = 64;
/// Frames given back to it at once, when the magazine is full.
const SPILL: usize = MAGAZINE / 2;
/// Orders that the buddy allocator manages: up to 2^26 frames.
const ORDERS: usize = 27;

/// There is no frame left, or none was to be given (an injected fault).
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("no {0} contiguous free frames are left")]
pub struct OutOfFrames(pub usize);

/// One CPU's free frames. Only its CPU touches them, outside interrupts.
pub struct Magazine {
    frames: [AtomicU32; MAGAZINE],
    len: AtomicU32,
}

impl Default for Magazine {
    fn default() -> Magazine {
        Magazine { frames: [const { AtomicU32::new(0) }; MAGAZINE], len: AtomicU32::new(0) }
    }
}

impl Magazine {
    /// Frames in it.
    #[inline]
    pub fn len(&self) -> usize {
        self.len.load(Ordering::Relaxed) as usize
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    #[inline]
    fn pop(&self) -> Option<Pfn> {
        let len = self.len().checked_sub(1)?;
        self.len.store(len as u32, Ordering::Relaxed);
        Some(Pfn(self.frames[len].load(Ordering::Relaxed)))
    }

    #[inline]
    fn push(&self, pfn: Pfn) -> bool {
        let len = self.len();
        if len == MAGAZINE {
            return false;
        }
        self.frames[len].store(pfn.0, Ordering::Relaxed);
        self.len.store(len as u32 + 1, Ordering::Relaxed);
        true
    }
}

/// All free frames that are in no magazine.
pub struct FrameAllocator<A: Arch> {
    buddy: Mutex<A, Inner>,
}

struct Inner {
    buddy: Buddy<ORDERS>,
    free: usize,
}

impl<A: Arch> FrameAllocator<A> {
    /// An allocator without frames.
    pub const fn new() -> FrameAllocator<A> {
        FrameAllocator { buddy: Mutex::<A, Inner>::new(Inner { buddy: Buddy::new(), free: 0 }) }
    }

    /// Adds the frames from `first` up to but not including `end`.
    pub fn add(&self, first: Pfn, end: Pfn) {
        let mut inner = self.buddy.lock();
        inner.buddy.add_frame(first.0 as usize, end.0 as usize);
        inner.free += (end.0 - first.0) as usize;
    }

    /// Takes `count` contiguous frames (a power of two, and aligned to it). Their descriptors still say free.
    pub fn take(&self, count: usize) -> Result<Pfn, OutOfFrames> {
        let mut inner = self.buddy.lock();
        let first = inner.buddy.alloc(count).ok_or(OutOfFrames(count))?;
        inner.free -= count;
        Ok(Pfn(first as u32))
    }

    /// Gives frames back.
    pub fn give(&self, first: Pfn, count: usize) {
        let mut inner = self.buddy.lock();
        inner.buddy.dealloc(first.0 as usize, count);
        inner.free += count;
    }

    /// Frames in it.
    pub fn free(&self) -> usize {
        self.buddy.lock().free
    }
}

impl<A: Arch> Default for FrameAllocator<A> {
    fn default() -> Self {
        FrameAllocator::new()
    }
}

/// Takes one frame. Its contents are whatever they were.
#[inline]
pub fn alloc<A: Arch>(cpu: &Cpu<A>) -> Result<Pfn, OutOfFrames> {
    cpu.magazine.pop().map_or_else(|| refill(cpu), Ok)
}

/// Takes one frame when the magazine is empty, and fills it up.
#[cold]
fn refill<A: Arch>(cpu: &Cpu<A>) -> Result<Pfn, OutOfFrames> {
    let allocator = &A::machine().allocator;
    let mut inner = allocator.buddy.lock();
    for _ in 0..REFILL {
        let Some(frame) = inner.buddy.alloc(1) else { break };
        inner.free -= 1;
        cpu.magazine.push(Pfn(frame as u32));
    }
    drop(inner);
    cpu.magazine.pop().ok_or(OutOfFrames(1))
}

/// Gives one frame back. Nothing refers to it.
#[inline]
pub(super) fn free<A: Arch>(cpu: &Cpu<A>, pfn: Pfn) {
    A::machine().frames.get(pfn).set_state(FrameState::Free);
    if !cpu.magazine.push(pfn) {
        spill(cpu, pfn);
    }
}

/// Gives one frame back when the magazine is full, and makes room in it.
#[cold]
fn spill<A: Arch>(cpu: &Cpu<A>, pfn: Pfn) {
    let mut inner = A::machine().allocator.buddy.lock();
    for _ in 0..SPILL {
        let Some(frame) = cpu.magazine.pop() else { break };
        inner.buddy.dealloc(frame.0 as usize, 1);
        inner.free += 1;
    }
    drop(inner);
    cpu.magazine.push(pfn);
}

/// Fills frames with zeroes.
pub fn zero<A: Arch>(first: Pfn, frames: usize) {
    for i in 0..frames as u32 {
        // SAFETY: the caller owns the frames; the direct map covers all RAM, and a frame is 4 KiB long and aligned.
        unsafe { A::zero_frame(A::direct_map(Pfn(first.0 + i).addr())) }
    }
}
