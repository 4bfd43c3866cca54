//! Truncation, by who has a capability to memory and where several processes have mapped it.

use kernel::abi::{Number, Rights, Status};
use kernel::addr::{PAGE_SIZE, PMD_SIZE, VirtAddr};
use kernel::object::account::Price;
use kernel::object::thread::Thread;
use kernel::tlb::switch;
use kernel::tlb::transport::TransportId;
use std::sync::Arc;
use tests::host::Tagged;
use tests::kernel_of::{FREE, Kernel};

const AT: u64 = 0x4000_0000;
const LIMIT: Price = Price { frames: 2048, bytes: 1 << 18, spaces: 0 };

type Machine = Kernel<Tagged>;

/// A process with memory of 2 MiB in slot 1, made by `make`, mapped at [`AT`], and its thread on CPU 0.
fn machine(make: Number, amount: u64) -> (Machine, Arc<Thread<Tagged>>) {
    let kernel = Machine::new(2, 8192, 16);
    kernel.world.choose("none", TransportId::Broadcast);
    let child = kernel.child(FREE, 8, LIMIT);
    kernel.give(&child, 0, FREE, Rights::all(), 0);
    let thread = kernel.thread(&kernel.first, FREE + 1, &child, VirtAddr(0x1000), 1, 0, 0);
    for cpu in 0..2 {
        kernel.world.on(cpu, || switch::load(kernel.world.cpu(cpu), &child.mm));
    }
    assert_eq!(kernel.status(0, &thread, make, &[1, amount]), Status::Done);
    assert_eq!(kernel.status(0, &thread, Number::Map, &[0, 1, AT, 0, PMD_SIZE, 3]), Status::Done);
    (kernel, thread)
}

/// A page of 2 MiB goes whole or not at all, however it is mapped.
#[test]
fn a_huge_page_is_not_cut() {
    for collapsed in [false, true] {
        let (kernel, thread) = machine(Number::MakeHuge, 1);
        let mm = thread.process.mm.clone();
        let ask = |number, arguments: &[u64]| kernel.status(0, &thread, number, arguments);
        let va = |page: u64| VirtAddr(AT + page * PAGE_SIZE + 8);
        assert_eq!(ask(Number::Populate, &[0, AT, PMD_SIZE]), Status::Done);
        assert_eq!(kernel.world.write(0, &mm, va(3), 7), Ok(()));
        if collapsed {
            assert_eq!(ask(Number::Collapse, &[0, AT]), Status::Done);
        }
        assert_eq!(ask(Number::Truncate, &[1, 0, PAGE_SIZE]), Status::BadArgument);
        assert_eq!(ask(Number::Truncate, &[1, PAGE_SIZE, PMD_SIZE - PAGE_SIZE]), Status::BadArgument);
        assert_eq!(kernel.world.read(1, &mm, va(3)), Ok(7));
        assert_eq!(ask(Number::Truncate, &[1, 0, PMD_SIZE]), Status::Done);
        for cpu in 0..2 {
            assert_eq!(kernel.world.read(cpu, &mm, va(3)), Ok(0));
        }
        drop((mm, thread));
        kernel.finish(8192);
    }
}

/// Tables that several processes link cannot lose leaves for one of them.
#[test]
fn a_shared_table_is_not_truncated() {
    let kernel = Machine::new(1, 8192, 16);
    let thread = kernel.thread(&kernel.first, FREE, &kernel.first, VirtAddr(0x1000), 1, 0, 0);
    assert_eq!(kernel.status(0, &thread, Number::MakeShared, &[FREE + 1, 1]), Status::Done);
    assert_eq!(kernel.status(0, &thread, Number::Truncate, &[FREE + 1, 0, PMD_SIZE]), Status::WrongKind);
    drop(thread);
    kernel.finish(8192);
}

/// A page that is pinned lives on for who has pinned it, and is nobody else's: those who map it get another.
#[test]
fn a_pinned_page_outlives_its_truncation() {
    let (kernel, thread) = machine(Number::MakeFrames, PMD_SIZE / PAGE_SIZE);
    let mm = thread.process.mm.clone();
    assert_eq!(kernel.world.write(0, &mm, VirtAddr(AT + 8), 7), Ok(()));
    let mut pinned = [kernel::addr::Pfn(0)];
    let cpu = kernel.world.cpu(1);
    let pin = kernel.world.machine().policy.strategy().pin_user_pages_fast;
    assert_eq!(kernel.world.on(1, || pin(cpu, &mm, VirtAddr(AT), true, &mut pinned)), 1);
    assert_eq!(kernel.status(0, &thread, Number::Truncate, &[1, 0, PMD_SIZE]), Status::Done);
    assert_eq!(kernel.world.read(0, &mm, VirtAddr(AT + 8)), Ok(0));
    let frame = kernel.world.machine().frames.get(pinned[0]);
    assert_eq!((frame.refs(), frame.pins()), (1, 1));
    kernel.world.on(1, || kernel::mm::page::unpin_walked(cpu, pinned[0]));
    drop((mm, thread));
    kernel.finish(8192);
}
