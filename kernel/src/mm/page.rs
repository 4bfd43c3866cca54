//! Pages: taking and dropping them, and the tag in each that says what it is.
//!
//! In a build with `checking` the first word of every user page that no program sees holds a tag made of its owner and
//! address. A CPU that reads a user address through its TLB and finds another page's tag, or that of a free frame, has
//! a stale translation.

use core::sync::atomic::{AtomicU64, Ordering};

use crate::addr::{PMD_SIZE, Pfn, VirtAddr};
use crate::arch::Arch;
use crate::mm::address_space::PLAIN;
use crate::mm::frame::FrameState;
use crate::mm::frame_alloc::{self, OutOfFrames};
use crate::oracle;
use crate::smp::cpu::Cpu;

/// log2 of the frames in a 2 MiB page.
pub const HUGE_ORDER: u8 = 9;

/// The first word of a page.
pub(crate) fn first_word<A: Arch>(pfn: Pfn) -> &'static AtomicU64 {
    // SAFETY: the direct map covers all RAM for ever; page contents are only ever accessed atomically or by their owner
    // alone.
    unsafe { &*A::direct_map(pfn.addr()).cast::<AtomicU64>() }
}

/// Reads the first word of a page through the direct map.
pub fn peek<A: Arch>(pfn: Pfn) -> u64 {
    first_word::<A>(pfn).load(Ordering::Relaxed)
}

/// A zeroed page with one reference, tagged.
pub fn alloc<A: Arch>(cpu: &Cpu<A>, state: FrameState, owner: u32, address: u64) -> Result<Pfn, OutOfFrames> {
    let pfn = frame_alloc::alloc(cpu)?;
    frame_alloc::zero::<A>(pfn, 1);
    tag::<A>(pfn, owner, address);
    A::machine().frames.get(pfn).become_page(state, owner, address, 0);
    Ok(pfn)
}

/// A 2 MiB page with one reference; its contents are whatever they were.
pub fn alloc_huge<A: Arch>(state: FrameState, owner: u32, address: u64) -> Result<Pfn, OutOfFrames> {
    let pfn = A::machine().allocator.take(1 << HUGE_ORDER)?;
    for i in 1..1 << HUGE_ORDER {
        A::machine().frames.get(Pfn(pfn.0 + i)).set_state(FrameState::Tail);
    }
    A::machine().frames.get(pfn).become_page(state, owner, address, HUGE_ORDER);
    Ok(pfn)
}

/// Writes the tag of (`owner`, `address`), unless what the owner has in its pages is a program's business.
pub fn tag<A: Arch>(pfn: Pfn, owner: u32, address: u64) {
    if oracle::is_on() && owner & PLAIN == 0 {
        first_word::<A>(pfn).store(oracle::value::tag(owner, address), Ordering::Relaxed);
    }
}

/// The head of the page that `pfn` lies in: itself, unless it is inside a 2 MiB page.
#[inline]
pub fn head<A: Arch>(pfn: Pfn) -> Pfn {
    head_of(pfn, A::machine().frames.get(pfn).is_tail())
}

/// The same of a frame that is known to be `inside` a 2 MiB page, or not to be.
#[inline(always)]
pub(super) const fn head_of(pfn: Pfn, inside: bool) -> Pfn {
    if inside { Pfn(pfn.0 & !((1 << HUGE_ORDER) - 1)) } else { pfn }
}

/// Drops `n` references of the page with head `pfn`, and frees it if they were the last.
#[inline]
pub fn put<A: Arch>(cpu: &Cpu<A>, pfn: Pfn, n: u32) {
    if A::machine().frames.get(pfn).put(n) {
        free(cpu, pfn);
    }
}

/// The same from inside a walk. In an NMI nothing can be freed (the interrupted code may be in the allocator), so the
/// references are dropped later.
pub(crate) fn put_from_walk<A: Arch>(cpu: &Cpu<A>, pfn: Pfn, n: u32) {
    if cpu.nmi.is_inside() {
        (0..n).for_each(|_| cpu.nmi.defer(pfn));
    } else {
        put(cpu, pfn, n);
    }
}

/// Frees a page without references (dropped, or frozen).
#[inline(always)]
pub fn free<A: Arch>(cpu: &Cpu<A>, pfn: Pfn) {
    let frame = A::machine().frames.get(pfn);
    debug_assert_eq!(frame.refs(), 0);
    if frame.order() == 0 {
        oracle::poison::<A>(pfn, 8);
        frame_alloc::free(cpu, pfn);
    } else {
        free_huge::<A>(pfn);
    }
}

/// The same of a 2 MiB page.
fn free_huge<A: Arch>(pfn: Pfn) {
    for i in 0..1 << HUGE_ORDER {
        let part = Pfn(pfn.0 + i);
        oracle::poison::<A>(part, 8);
        A::machine().frames.get(part).set_state(FrameState::Free);
    }
    A::machine().frames.get(pfn).become_free();
    A::machine().allocator.give(pfn, 1 << HUGE_ORDER);
}

/// Copies 4 KiB page `from` over 4 KiB frame `to`.
pub fn copy<A: Arch>(from: Pfn, to: Pfn) {
    // SAFETY: the caller owns both frames (frozen, or newly allocated) and they differ; the direct map covers them.
    unsafe { A::copy_frame(A::direct_map(from.addr()), A::direct_map(to.addr())) }
}

/// Drops a reference that a walk returned: of the 2 MiB page that `pfn` lies in, or of `pfn` itself.
#[inline]
pub fn put_walked<A: Arch>(cpu: &Cpu<A>, pfn: Pfn) {
    let frames = &A::machine().frames;
    let head = head_of(pfn, frames.get(pfn).is_tail());
    if frames.get(head).put(1) {
        free_walked(cpu, head);
    }
}

/// A walk had the last reference: who has mapped the page has unmapped it since.
#[cold]
#[inline(never)]
fn free_walked<A: Arch>(cpu: &Cpu<A>, head: Pfn) {
    free(cpu, head);
}

/// Drops a pin that a walk returned.
#[inline]
pub fn unpin_walked<A: Arch>(cpu: &Cpu<A>, pfn: Pfn) {
    let frames = &A::machine().frames;
    let head = head_of(pfn, frames.get(pfn).is_tail());
    frames.get(head).drop_pins(1);
    if frames.get(head).put(1) {
        free_walked(cpu, head);
    }
}

/// Whether `va` and a page are aligned for a 2 MiB leaf.
pub fn huge_aligned(va: VirtAddr) -> bool {
    va.0.is_multiple_of(PMD_SIZE)
}
