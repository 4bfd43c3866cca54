//! The heap: [`EARLY_BYTES`] in the image from the first instruction on, and what the core adds by [`grow`].
//!
//! The blocks are [`Heap`]'s; the lock is our own ([`crate::lock`]), since the crate's spins in a way that livelocks
//! under `-icount` on one of the machines, and leaves interrupts on. Code that interrupted an allocation on the same
//! CPU (an NMI, an exception) gets nothing; it should not allocate.

use core::alloc::{GlobalAlloc, Layout};
use core::cell::UnsafeCell;
use core::ptr::{NonNull, null_mut};

use buddy_system_allocator::Heap;
use kernel::addr::VirtAddr;

use crate::lock::Lock;

/// Bytes of heap that need no memory map.
pub(crate) const EARLY_BYTES: usize = 1 << 20;
/// Blocks of up to 1 GiB.
const ORDERS: usize = 31;

#[global_allocator]
static HEAP: KernelHeap =
    KernelHeap { lock: Lock::new(), state: UnsafeCell::new(State { blocks: Heap::new(), early_added: false }) };
static EARLY: EarlyRegion = EarlyRegion(UnsafeCell::new([0; EARLY_BYTES]));

struct State {
    blocks: Heap<ORDERS>,
    early_added: bool,
}

struct KernelHeap {
    lock: Lock,
    state: UnsafeCell<State>,
}

// SAFETY: `state` is only reached by whoever holds `lock` (and not by a nested entry).
unsafe impl Sync for KernelHeap {}

#[repr(align(4096))]
struct EarlyRegion(UnsafeCell<[u8; EARLY_BYTES]>);

// SAFETY: the bytes are given to the heap, once, and then belong to whoever allocates them.
unsafe impl Sync for EarlyRegion {}

impl KernelHeap {
    /// Runs `f` on the blocks, unless this CPU was interrupted within another such call.
    fn with<R>(&self, f: impl FnOnce(&mut Heap<ORDERS>) -> R) -> Option<R> {
        let entry = self.lock.enter();
        let result = (!entry.nested).then(|| {
            // SAFETY: the lock is held and the entry is not nested, so there is no other reference.
            let state = unsafe { &mut *self.state.get() };
            if !state.early_added {
                state.early_added = true;
                let start = EARLY.0.get() as usize;
                // SAFETY: the region is given away here, once, and nothing else refers to it.
                unsafe { state.blocks.add_to_heap(start, start + EARLY_BYTES) };
            }
            f(&mut state.blocks)
        });
        self.lock.leave(entry);
        result
    }
}

// SAFETY: blocks come from `Heap`, which hands out each one once, aligned and large enough for the layout.
unsafe impl GlobalAlloc for KernelHeap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let block = self.with(|blocks| blocks.alloc(layout));
        block.and_then(Result::ok).map_or(null_mut(), NonNull::as_ptr)
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        let Some(block) = NonNull::new(block) else { return };
        // A nested free leaks the block: better than a second reference to the free lists.
        // SAFETY: the caller gives back what `alloc` returned for this layout.
        self.with(|blocks| unsafe { blocks.dealloc(block, layout) });
    }
}

/// Gives the heap more room. The bytes are mapped and belong to nobody else.
pub(crate) fn grow(start: VirtAddr, bytes: usize) {
    let start = start.0 as usize;
    // SAFETY: the caller (the core, once its frames are known) gives the range away; it is mapped memory.
    HEAP.with(|blocks| unsafe { blocks.add_to_heap(start, start + bytes) });
}
