//! What hostile programs could do by memory alone: faults that an attack on the kernel found, each as one test.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;

use kernel::abi::{Number, Rights, Status};
use kernel::addr::{PAGE_SIZE, PMD_SIZE, VirtAddr};
use kernel::object::account::Price;
use kernel::object::thread::Thread;
use kernel::scenario::Point;
use kernel::syscall;
use kernel::tlb::switch;
use tests::host::{Untagged, run_on, while_waiting};
use tests::kernel_of::{FREE, Kernel};

const AT: u64 = 0x4000_0000;
const FRAMES: usize = 8192;
const LIMIT: Price = Price { frames: 1600, bytes: 1 << 16, spaces: 0 };

type Machine = Kernel<Untagged>;

/// Two truncations of one memory: the second may cut a page of 2 MiB that the first has taken from the file only when
/// it is taken from everybody who has it mapped whole.
#[test]
fn a_truncation_waits_for_the_one_before() {
    let kernel = Machine::pair(FRAMES);
    let child = kernel.child(FREE, 8, LIMIT);
    kernel.give(&child, 0, FREE, Rights::all(), 0);
    let thread = kernel.speaker(FREE + 1, &child);
    let ask = |number, arguments: &[u64]| kernel.status(1, &thread, number, arguments);
    assert_eq!(ask(Number::MakeHuge, &[1, 1]), Status::Done);
    assert_eq!(ask(Number::Map, &[0, 1, AT, 0, PMD_SIZE, 3]), Status::Done);
    assert_eq!(ask(Number::Populate, &[0, AT, PMD_SIZE]), Status::Done);
    assert_eq!(ask(Number::Collapse, &[0, AT]), Status::Done);
    let other = thread.clone();
    let cpu = kernel.world.cpu(0);
    kernel.world.at_point(Point::Truncated, move || {
        // One that waits would do so for ever, since the first is below it on this thread's stack: it is torn away.
        while_waiting(|| resume_unwind(Box::new("it waits")));
        let words = [Number::Truncate as u64, 1, 0, PAGE_SIZE, 0, 0, 0, 0];
        let torn = catch_unwind(AssertUnwindSafe(|| run_on(0, || syscall::handle(cpu, &other, words))));
        assert!(torn.is_err(), "{torn:?}");
    });
    assert_eq!(ask(Number::Truncate, &[1, 0, PMD_SIZE]), Status::Done);
    assert!(kernel.world.hook_ran());
    assert_eq!(ask(Number::Truncate, &[1, 0, PAGE_SIZE]), Status::Done);
    drop((child, thread));
    kernel.finish(FRAMES);
}

/// Who has memory mapped into another process for reading does not let that write there, whatever its own capability
/// allows.
#[test]
fn nobody_protects_up_what_another_has_mapped() {
    let kernel = Machine::pair(FRAMES);
    let (giver, taker) = (kernel.child(FREE, 8, LIMIT), kernel.child(FREE + 1, 8, LIMIT));
    kernel.give(&giver, 0, FREE + 1, Rights::all(), 0);
    kernel.give(&giver, 1, FREE, Rights::all(), 0);
    kernel.give(&taker, 0, FREE + 1, Rights::all(), 0);
    let (one, two) = (kernel.speaker(FREE + 2, &giver), kernel.speaker(FREE + 3, &taker));
    let (read, write) = (1, 3);
    assert_eq!(kernel.status(0, &one, Number::MakeFrames, &[2, 1]), Status::Done);
    for process in [0, 1] {
        assert_eq!(kernel.status(0, &one, Number::Map, &[process, 2, AT, 0, PAGE_SIZE, read]), Status::Done);
    }
    assert_eq!(kernel.status(0, &two, Number::Protect, &[0, AT, write]), Status::Forbidden);
    assert_eq!(kernel.status(0, &one, Number::Protect, &[1, AT, write]), Status::Done, "its own");
    drop((giver, taker, one, two));
    kernel.finish(FRAMES);
}

/// Frames that are free when all are back that wait for a grace period.
fn free(kernel: &Machine) -> u64 {
    kernel.world.settle();
    kernel.world.machine().free_frames() as u64
}

/// Has `thread` map 2 MiB and make them one page; it finds its own process in slot 0.
fn make_collapsed(kernel: &Machine, thread: &Arc<Thread<Untagged>>) {
    let ask = |number, arguments: &[u64]| kernel.status(1, thread, number, arguments);
    assert_eq!(ask(Number::MapAnonymous, &[0, AT, PMD_SIZE, 3]), Status::Done);
    assert_eq!(ask(Number::Populate, &[0, AT, PMD_SIZE]), Status::Done);
    assert_eq!(ask(Number::Collapse, &[0, AT]), Status::Done);
}

/// Who drops a part of what was collapsed, and touches it again, has no more frames than it has paid for.
#[test]
fn nobody_has_more_frames_than_it_paid() {
    let kernel = Machine::pair(FRAMES);
    let child = kernel.child(FREE, 8, LIMIT);
    kernel.give(&child, 0, FREE, Rights::all(), 0);
    let thread = kernel.speaker(FREE + 1, &child);
    let ask = |number, arguments: &[u64]| kernel.status(1, &thread, number, arguments);
    let before = free(&kernel);
    make_collapsed(&kernel, &thread);
    assert_eq!(ask(Number::Discard, &[0, AT, PMD_SIZE - PAGE_SIZE]), Status::Done);
    assert_eq!(ask(Number::Populate, &[0, AT, PMD_SIZE]), Status::Done);
    let (used, paid) = (before - free(&kernel), child.account.used().frames);
    assert!(used <= paid, "{used} frames are used, and {paid} paid");
    drop((child, thread));
    kernel.finish(FRAMES);
}

/// Of a collapsed page that a fork has mapped in parts no part is copied, since it is nobody else's.
#[test]
fn a_page_of_one_process_is_not_copied() {
    let kernel = Machine::pair(FRAMES);
    let child = kernel.child(FREE, 8, LIMIT);
    kernel.give(&child, 0, FREE, Rights::all(), 0);
    let thread = kernel.speaker(FREE + 1, &child);
    let ask = |number, arguments: &[u64]| kernel.status(1, &thread, number, arguments);
    let before = free(&kernel);
    make_collapsed(&kernel, &thread);
    let first = kernel.thread(&kernel.first, FREE + 2, &kernel.first, VirtAddr(0x1000), 1, 1, 0);
    assert_eq!(kernel.status(1, &first, Number::Fork, &[FREE, FREE + 3, 1, 0, 0, 0, 1]), Status::Done);
    assert_eq!(kernel.status(1, &first, Number::Delete, &[FREE + 3]), Status::Done);
    for rights in [1, 3] {
        assert_eq!(ask(Number::Protect, &[0, AT, rights]), Status::Done);
    }
    kernel.world.on(1, || switch::load(kernel.world.cpu(1), &child.mm));
    for page in 0..4 {
        assert_eq!(kernel.world.write(1, &child.mm, VirtAddr(AT + page * PAGE_SIZE), 7), Ok(()));
    }
    let (used, paid) = (before - free(&kernel), child.account.used().frames);
    assert!(used <= paid, "{used} frames are used, and {paid} paid");
    drop((child, thread, first));
    kernel.finish(FRAMES);
}
