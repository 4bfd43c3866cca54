//! Calls between CPUs, frozen CPUs and the NMI board under loom, with the core's own code: each ordering in it is
//! needed.
#![cfg(loom)]

use std::rc::Rc;

use kernel::addr::{CpuId, Level, VirtAddr};
use kernel::arch::Arch;
use kernel::ledger::Cause;
use kernel::mm::table::Table;
use kernel::smp::call::call_many;
use kernel::smp::cpu::Cpu;
use kernel::smp::mask::CpuMask;
use kernel::tlb::invalidation::Invalidation;
use kernel::tlb::transport::paravirt::Owed;
use kernel::tlb::transport::{self, TransportId};
use loom::cell::UnsafeCell;
use tests::woven::{ALL, World, Woven, explore, weakenings_show};

const AT: VirtAddr = VirtAddr(0x4000_0000);

/// What a call carries: the initiator writes `order`, the handler reads it and writes `answer`, which the initiator
/// reads.
struct Parcel {
    order: UnsafeCell<u64>,
    answer: UnsafeCell<u64>,
}

fn deliver(_cpu: &'static Cpu<Woven>, parcel: usize) {
    // SAFETY: the initiator keeps the parcel until the call is over.
    let parcel = unsafe { &*(parcel as *const Parcel) };
    // SAFETY: loom says so if anybody else has it.
    let order = parcel.order.with(|order| unsafe { *order });
    // SAFETY: as above.
    parcel.answer.with_mut(|answer| unsafe { *answer = order + 1 });
}

/// Calls CPU `target` and sees that it was served before the call returned.
fn call(cpu: &'static Cpu<Woven>, target: u16, order: u64) {
    let parcel = Box::leak(Box::new(Parcel { order: UnsafeCell::new(0), answer: UnsafeCell::new(0) }));
    // SAFETY: loom says so if anybody else has it.
    parcel.order.with_mut(|at| unsafe { *at = order });
    let targets = CpuMask::only(CpuId(target));
    call_many(cpu, &targets, Cause::Sync, deliver, parcel as *const Parcel as usize);
    // SAFETY: as above.
    assert_eq!(parcel.answer.with(|at| unsafe { *at }), order + 1);
    // SAFETY: it was leaked above, and the call is over.
    drop(unsafe { Box::from_raw(parcel) });
}

/// Serves calls on CPU `index` until it has served `count`.
fn serve(world: &Rc<World>, index: usize, count: u64) -> loom::thread::JoinHandle<()> {
    let own = world.clone();
    world.listen(index);
    world.spawn(index, move || {
        let inbox = &own.cpu(index).inbox;
        own.take_interrupts_until(|| inbox.acknowledged.load(std::sync::atomic::Ordering::Relaxed) == count);
    })
}

/// One CPU calls another twice.
fn two_calls() {
    let world = World::new(2);
    let target = serve(&world, 1, 2);
    call(world.cpu(0), 1, 20);
    call(world.cpu(0), 1, 30);
    target.join().expect("the target is done");
    world.end();
}

/// Two CPUs call a third.
fn two_callers() {
    let world = World::new(3);
    let target = serve(&world, 2, 2);
    let second = world.cpu(1);
    let caller = world.spawn(1, move || call(second, 2, 10));
    call(world.cpu(0), 2, 20);
    caller.join().expect("the caller is done");
    target.join().expect("the target is done");
    world.end();
}

#[test]
fn one_cpu_calls_another_twice() {
    explore(3, two_calls);
}

#[test]
fn every_ordering_of_a_call_is_needed() {
    weakenings_show(
        ALL,
        &["smp/call.rs", "smp/mask.rs"],
        &[("unlink_generation.load(", GENERATION), ("inbox.generation.store(", GENERATION)],
        &[two_callers],
    );
}
const GENERATION: &str = "loom_walks.rs: it belongs to acked-generation";

/// Two flushes find a CPU frozen; each that was told that the CPU owes it is seen when it resumes.
fn frozen() {
    let world = World::new(3);
    let slots: Rc<Vec<Table<Woven>>> = Rc::new((0..2).map(|_| table(&world)).collect());
    let flush = |cpu: usize, at: usize| {
        let (own, slots) = (world.clone(), slots.clone());
        world.spawn(cpu, move || {
            Woven::store_entry(slots[at].slot(0), 0);
            own.cpu(0).vcpu.owe() != Owed::Nothing
        })
    };
    let vcpu = &world.cpu(0).vcpu;
    vcpu.freeze();
    let flushes = [flush(1, 0), flush(2, 1)];
    let flushed = vcpu.resume();
    let seen: Vec<u64> = slots.iter().map(|t| Woven::load_entry(t.slot(0))).collect();
    for (flush, seen) in flushes.into_iter().zip(seen) {
        let left = flush.join().expect("the flush is over");
        assert!(!left || (flushed && seen == 0), "a flush that was acknowledged for the CPU was not seen by it");
    }
    world.end();
}

/// A table with one watched entry that is not empty.
fn table(world: &World) -> Table<Woven> {
    let table = kernel::mm::table::alloc(world.cpu(0), 1, Level::Pte, VirtAddr(0)).expect("memory suffices");
    Woven::store_entry(table.slot(0), 3);
    world.watch_entry(table, Level::Pte, VirtAddr(0));
    table
}

/// A CPU reads and is frozen; a flush that was told that the CPU owes it lets what was read be used again.
fn frozen_after_reading() {
    let world = World::new(3);
    let page = Rc::new(UnsafeCell::new(0u64));
    let vcpu = &world.cpu(0).vcpu;
    let flush = |cpu: usize| {
        let (own, page) = (world.clone(), page.clone());
        world.spawn(cpu, move || {
            let owed = own.cpu(0).vcpu.owe() != Owed::Nothing;
            if owed && cpu == 2 {
                // SAFETY: loom says so if anybody looks at it now.
                page.with_mut(|at| unsafe { *at = 1 });
            }
        })
    };
    let flushes = [flush(1), flush(2)];
    // SAFETY: loom says so if anybody changes it now.
    assert_eq!(page.with(|at| unsafe { *at }), 0);
    vcpu.freeze();
    for flush in flushes {
        flush.join().expect("the flush is over");
    }
    world.end();
}

#[test]
fn every_ordering_of_freeze_and_owe_is_needed() {
    weakenings_show(3, &["tlb/transport/paravirt.rs"], &[], &[frozen, frozen_after_reading]);
}

/// A broadcast that NMIs play: when it is over, the other CPU has invalidated by the order that was on the board.
fn broadcast() {
    let world = World::new(2);
    world.choose("none", TransportId::Broadcast);
    let mm = world.mm_with_tables(AT);
    let cell = Rc::new(UnsafeCell::new(0u64));
    mm.mask.insert(CpuId(1), kernel::atomic::Ordering::Relaxed);
    let invalidated = cell.clone();
    // SAFETY: loom says so if anybody else has it.
    world.on_invalidate(1, move || invalidated.with_mut(|at| unsafe { *at += 1 }));
    world.listen(1);
    let target = {
        let own = world.clone();
        world.spawn(1, move || {
            while !own.take_interrupts() {
                loom::thread::yield_now();
            }
        })
    };
    let what = Invalidation { start: AT, end: AT.add(4096), tables: false, all: false, ..Invalidation::ALL };
    let _ = transport::flush(world.cpu(0), &mm, what);
    // SAFETY: as above.
    assert_eq!(cell.with(|at| unsafe { *at }), 1);
    target.join().expect("the target is done");
    drop(mm);
    world.end();
}

#[test]
fn every_ordering_of_the_board_is_needed() {
    weakenings_show(3, &["tlb/transport/nmi.rs"], &[], &[broadcast]);
}
