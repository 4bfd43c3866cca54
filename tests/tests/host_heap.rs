//! What objects cost in heap: an allocator that counts blocks as the kernel's own hands them out (of a power of two)
//! says what a process really made the kernel keep; its account has to have paid that.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use kernel::abi::{Number, Rights, Status};
use kernel::addr::{PAGE_SIZE, VirtAddr};
use kernel::object::account::Price;
use kernel::task::turn;
use kernel::tlb::transport::TransportId;
use tests::host::Untagged;
use tests::kernel_of::{FREE, Kernel};

thread_local! {
    /// Bytes of blocks that this thread has and did not give back.
    static LIVE: Cell<i64> = const { Cell::new(0) };
}

/// The block that the kernel's heap gives for `layout`.
fn block(layout: Layout) -> i64 {
    layout.size().next_power_of_two().max(layout.align()).max(8) as i64
}

struct Counting;

// SAFETY: all is left to the system's allocator; what is counted is a number of this thread, which needs no memory of
// its own.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LIVE.set(LIVE.get() + block(layout));
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        LIVE.set(LIVE.get() - block(layout));
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static HEAP: Counting = Counting;

/// One more than a power of two: arrays that grow have just grown.
const MANY: u64 = 129;
const AT: u64 = 0x4000_0000;

/// What is made, how often, and the calls for one of them, which is the `n`th, in slot `n`.
type Make = fn(n: u64) -> Vec<(Number, Vec<u64>)>;

fn page(n: u64) -> u64 {
    // Two pages from each other, so that no two regions are one.
    AT + n * 2 * PAGE_SIZE
}

const MAKES: [(&str, u64, Make); 13] = [
    ("capability", MANY, |n| vec![(Number::Copy, vec![0, n, 1, 0])]),
    ("endpoint", MANY, |n| vec![(Number::MakeEndpoint, vec![n])]),
    ("notification", MANY, |n| vec![(Number::MakeNotification, vec![n])]),
    ("frames", MANY, |n| vec![(Number::MakeFrames, vec![n, 1])]),
    ("thread", MANY, |n| vec![(Number::MakeThread, vec![0, n, 0x1000, 0x2000, 0, 1 | 1 << 32])]),
    ("process", MANY, |n| vec![(Number::MakeProcess, vec![n, 0, 0, 0, 0, 1])]),
    ("process with one slot", MANY, |n| vec![(Number::MakeProcess, vec![n, 1, 0, 0, 0, 1])]),
    ("anonymous mapping", MANY, |n| vec![(Number::MapAnonymous, vec![0, page(n), PAGE_SIZE, 3])]),
    ("mapping of frames, touched", MANY, |n| {
        let make = (Number::MakeFrames, vec![n, 3]);
        let map = |i: u64| (Number::Map, vec![0, n, page(3 * n + i), i * PAGE_SIZE, PAGE_SIZE, 3]);
        let touch = |i: u64| (Number::Populate, vec![0, page(3 * n + i), PAGE_SIZE]);
        vec![make, map(0), touch(0), map(1), touch(1), map(2), touch(2)]
    }),
    ("mapping that is gone, but for one", MANY, |n| {
        let mut calls = vec![(Number::MapAnonymous, vec![0, page(n), PAGE_SIZE, 3])];
        if n == 7 + MANY {
            calls.extend((9..n).map(|gone| (Number::Unmap, vec![0, page(gone)])));
        }
        calls
    }),
    ("thread that is gone, but for one", MANY, |n| {
        let mut calls = vec![(Number::MakeThread, vec![0, n, 0x1000, 0x2000, 0, 1 | 1 << 32])];
        if n == 7 + MANY {
            calls.extend((9..n).map(|gone| (Number::Delete, vec![gone])));
        }
        calls
    }),
    ("process that is gone, but for one", MANY, |n| {
        let mut calls = vec![(Number::MakeProcess, vec![n, 0, 0, 0, 0, 1])];
        if n == 7 + MANY {
            calls.extend((9..n).map(|gone| (Number::Delete, vec![gone])));
        }
        calls
    }),
    ("process that has left a shared table", 1, |n| {
        // Two that stay, and many that come and go.
        let join = |slot| {
            let make = (Number::MakeProcess, vec![slot, 0, 0, 0, 0, 1]);
            let map = (Number::Map, vec![slot, 6, 1 << 30, 0, 1 << 30, 3]);
            [make, map, (Number::Populate, vec![slot, 1 << 30, PAGE_SIZE])]
        };
        let mut calls = Vec::new();
        calls.push((Number::MakeShared, vec![6, 1]));
        calls.extend(join(4).into_iter().chain(join(5)));
        for _ in 0..20 * MANY {
            calls.extend(join(n));
            calls.push((Number::Delete, vec![n]));
        }
        calls
    }),
];

#[test]
fn nobody_has_more_heap_than_was_paid() {
    for (name, times, make) in MAKES {
        let kernel = Kernel::<Untagged>::with(2, 16_384, 32, Price { frames: 12_000, bytes: 4 << 20, spaces: 256 });
        kernel.world.choose("sync-all", TransportId::Ipi);
        let first = kernel.first.clone();
        let (used, live) = (first.account.used().bytes, LIVE.get());
        let limit = Price { frames: 10_000, bytes: 2 << 20, spaces: 200 };
        let child = kernel.child(FREE, 8 + times as u32, limit);
        kernel.give(&child, 0, FREE, Rights::all(), 0);
        let speaker = kernel.thread(&first, FREE + 1, &child, VirtAddr(0x1000), 1, 0, 0);
        for n in 0..times {
            for (number, arguments) in make(8 + n) {
                let status = kernel.status(0, &speaker, number, &arguments);
                assert_eq!(status, Status::Done, "{} for {name} {n}", number.name());
            }
        }
        // Those that were ended leave; the one that speaks never runs.
        kernel.world.on(1, || while turn::turn(kernel.world.cpu(1)) {});
        kernel.world.settle();
        let paid = first.account.used().bytes - used - limit.bytes + child.account.used().bytes;
        let kept = (LIVE.get() - live) as u64;
        assert!(kept <= paid, "{times} times {name}: {paid} bytes paid, and {kept} in use");
        drop((speaker, child, first));
        kernel.finish(16_384);
    }
}
