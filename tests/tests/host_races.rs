//! Interleavings of two CPUs that once were wrong, made by hand on the machine of the host.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use kernel::addr::{PAGE_SIZE, VirtAddr};
use kernel::arch::Arch;
use kernel::mm::address_space::{Backing, Mm};
use kernel::mm::entry::Perm;
use kernel::mm::exit::exit;
use kernel::mm::frame::FrameState;
use kernel::mm::page;
use kernel::mm::unmap::dontneed;
use kernel::smp::lock::RwLock;
use kernel::tlb::switch;
use kernel::tlb::transport::TransportId;
use tests::host::{Tagged, World, run_on, while_waiting};

const AT: VirtAddr = VirtAddr(0x4000_0000);
const WORD: u64 = 8;

/// Tagged translations outlive a switch. A CPU that was skipped by a flush because it was lazy must not come back to
/// them.
#[test]
fn a_lazy_cpu_that_was_skipped_catches_up() {
    for elsewhere in [false, true] {
        let world = World::<Tagged>::new(2, 8192);
        world.choose("sync-all", TransportId::Ipi);
        let (one, two) = (world.cpu(0), world.cpu(1));
        let mm = Mm::<Tagged>::new(one, 0).expect("memory suffices");
        let other = Mm::<Tagged>::new(one, 0).expect("memory suffices");
        mm.map(AT..AT.add(2 * PAGE_SIZE), Perm::WRITE, Backing::Anon).expect("nothing is there");
        world.on(0, || switch::load(one, &mm));
        world.on(1, || switch::load(two, &mm));
        world.write(0, &mm, AT.add(PAGE_SIZE), 1).expect("it is writable");
        world.write(0, &mm, AT.add(WORD), 17).expect("it is writable");
        assert_eq!(world.read(1, &mm, AT.add(WORD)), Ok(17));
        switch::become_lazy(two);
        world.on(0, || dontneed(one, &mm, AT..AT.add(PAGE_SIZE))).expect("it is mapped");
        // The next page is not in the frame that was just freed.
        page::alloc(one, FrameState::Anon, 0, 0).expect("memory suffices");
        world.write(0, &mm, AT.add(WORD), 18).expect("it is writable");
        if elsewhere {
            world.on(1, || switch::load(two, &other));
        }
        world.on(1, || switch::load(two, &mm));
        assert_eq!(world.read(1, &mm, AT.add(WORD)), Ok(18), "by way of another mm: {elsewhere}");
    }
}

/// Who waits to write is not passed by those who come to read later: a program that touches its pages without a pause
/// keeps nobody from unmapping them.
#[test]
fn a_writer_that_waits_is_passed_by_no_reader() {
    let world = World::<Tagged>::new(2, 8192);
    // What is done while the writer waits refers to it for longer than this test can promise.
    let lock: &'static RwLock<Tagged, ()> = Box::leak(Box::new(RwLock::new(())));
    let first = lock.read();
    assert!(lock.try_read().is_some(), "two read at once");
    world.while_waiting(move || {
        assert!(run_on(1, || lock.try_read().is_none()), "a reader that does not wait came before the writer");
        // One that waits would do so for ever, since the writer is below it on this thread's stack: it is torn away
        // where it begins to.
        while_waiting(|| resume_unwind(Box::new("it waits")));
        let torn = run_on(1, || catch_unwind(AssertUnwindSafe(|| drop(lock.read()))));
        assert!(torn.is_err(), "a reader that waits came before the writer");
        drop(first);
    });
    drop(world.on(0, || lock.write()));
    assert!(world.hook_ran(), "the writer did not wait");
}

/// An address space ends while a CPU has it loaded, lazily. Before that CPU comes to hear of it, it has loaded another,
/// which it goes on to use.
#[test]
fn a_cpu_that_uses_another_address_space_keeps_it() {
    let world = World::<Tagged>::new(2, 8192);
    world.choose("sync-all", TransportId::Broadcast);
    let (one, two) = (world.cpu(0), world.cpu(1));
    let ends = Mm::<Tagged>::new(one, 0).expect("memory suffices");
    let used = Mm::<Tagged>::new(one, 0).expect("memory suffices");
    world.on(1, || switch::load(two, &ends));
    switch::become_lazy(two);
    world.on(1, Tagged::irq_save);
    let (loads, id) = (used.clone(), used.id);
    world.while_waiting(move || {
        run_on(1, || {
            switch::load(two, &loads);
            Tagged::irq_restore(true);
        });
    });
    world.on(0, || exit(one, ends));
    assert!(world.hook_ran());
    assert_eq!(two.loaded.mm(), id, "it was unloaded from under whoever uses it");
    world.on(0, || exit(one, used));
    assert_eq!(two.loaded.mm(), switch::NO_MM);
}
