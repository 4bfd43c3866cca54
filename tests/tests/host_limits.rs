//! What no capability allows, whatever its rights: more urgency than a process was given, addresses and pages that are
//! not there to be mapped, CPUs that do not exist, more than an account has.

use std::sync::Arc;

use kernel::abi::{Info, MOST_BYTES, Number, Rights, Status, message};
use kernel::addr::VirtAddr;
use kernel::arch::Arch;
use kernel::object::account::Price;
use kernel::object::mapping::View;
use kernel::object::process::Process;
use kernel::object::removal::Removal;
use kernel::object::thread::Thread;
use kernel::object::{ObjectError, capability};
use kernel::tlb::switch;
use scripted::load;
use tests::host::Untagged;
use tests::kernel_of::{FREE, Kernel};

const FRAMES: usize = 4096;
const PAGE: u64 = 4096;
const AT: u64 = 0x4000_0000;
const OWN: u64 = 0;
const THREAD: u64 = 1;
const MEMORY: u64 = 2;
const EMPTY: u64 = 5;
/// Of 31.
const HIGHEST: u64 = 5;
const LIMIT: Price = Price { frames: 256, bytes: 1 << 16, spaces: 2 };

/// A process whose threads may have priority [`HIGHEST`], with a capability to itself and to its thread.
fn caller<A: Arch>(kernel: &Kernel<A>) -> (Arc<Process<A>>, Arc<Thread<A>>) {
    let cpu = kernel.world.cpu(0);
    let made = || kernel.first.make_child(cpu, FREE as u32, 16, LIMIT, HIGHEST as u8);
    let process = kernel.world.on(0, made).expect("there is enough");
    let entry = load(|user| {
        user.ask(Number::MakeNotification, &[10]);
        user.ask(Number::Wait, &[10]);
    });
    let thread = kernel.thread(&kernel.first, FREE + 1, &process, entry, 1, 0, 0);
    kernel.run_in_turn();
    kernel.give(&process, OWN, FREE, Rights::all(), 0);
    kernel.give(&process, THREAD, FREE + 1, Rights::all(), 0);
    assert_eq!(kernel.status(0, &thread, Number::MakeFrames, &[MEMORY, 4]), Status::Done);
    (process, thread)
}

#[test]
fn nobody_is_more_urgent_than_the_process_may_be() {
    let kernel = Kernel::<Untagged>::new(2, FRAMES, 16);
    let (process, thread) = caller(&kernel);
    let ask = |number, arguments: &[u64]| kernel.status(0, &thread, number, arguments);
    let make = |priority| ask(Number::MakeThread, &[OWN, EMPTY, PAGE, 0, 0, priority]);
    assert_eq!(make(HIGHEST + 1), Status::BadArgument);
    assert_eq!(ask(Number::SetPriority, &[THREAD, HIGHEST + 1]), Status::BadArgument);
    assert_eq!(ask(Number::SetPriority, &[THREAD, HIGHEST]), Status::Done);
    assert_eq!(ask(Number::MakeProcess, &[EMPTY, 0, 0, 0, 0, HIGHEST + 1]), Status::Forbidden);
    assert_eq!(ask(Number::Fork, &[OWN, EMPTY, 0, 0, 0, 0, HIGHEST + 1]), Status::Forbidden);
    assert_eq!(ask(Number::MakeProcess, &[EMPTY, 0, 0, 0, 0, HIGHEST]), Status::Done);
    assert_eq!(ask(Number::Delete, &[EMPTY]), Status::Done);
    assert_eq!(make(HIGHEST), Status::Done);
    drop((process, thread));
    kernel.finish(FRAMES);
}

#[test]
fn what_is_not_there_is_not_mapped_nor_run_on() {
    let kernel = Kernel::<Untagged>::new(2, FRAMES, 16);
    let (process, thread) = caller(&kernel);
    let ask = |number, arguments: &[u64]| kernel.status(0, &thread, number, arguments);
    let end = Untagged::USER_END.0;
    let map = |at, offset, bytes| ask(Number::Map, &[OWN, MEMORY, at, offset, bytes, 3]);
    let anonymous = |at, bytes| ask(Number::MapAnonymous, &[OWN, at, bytes, 3]);
    // Four pages are there.
    assert_eq!(map(AT, 0, 5 * PAGE), Status::BadArgument);
    assert_eq!(map(AT, 4 * PAGE, PAGE), Status::BadArgument);
    assert_eq!(map(AT, u64::MAX - PAGE + 1, PAGE), Status::BadArgument);
    assert_eq!(map(AT, 3 * PAGE, PAGE), Status::Done);
    // Neither the first page nor the last of the user half, nor beyond.
    assert_eq!(anonymous(0, PAGE), Status::BadArgument);
    assert_eq!(anonymous(end - PAGE, PAGE), Status::BadArgument);
    assert_eq!(anonymous(end - 2 * PAGE, 2 * PAGE), Status::BadArgument);
    assert_eq!(anonymous(end, PAGE), Status::BadArgument);
    assert_eq!(anonymous(u64::MAX - PAGE + 1, PAGE), Status::BadArgument);
    assert_eq!(anonymous(PAGE, PAGE), Status::Done);
    assert_eq!(anonymous(end - 2 * PAGE, PAGE), Status::Done);
    // Nothing is both written and executed.
    assert_eq!(ask(Number::Map, &[OWN, MEMORY, 2 * AT, 0, PAGE, 7]), Status::BadArgument);
    assert_eq!(ask(Number::MapAnonymous, &[OWN, 2 * AT, PAGE, 7]), Status::BadArgument);
    assert_eq!(ask(Number::Protect, &[OWN, AT, 7]), Status::BadArgument);
    // Not more at once than others can wait for.
    assert_eq!(anonymous(3 * AT, 600 * PAGE), Status::Quota);
    assert_eq!(ask(Number::Populate, &[OWN, AT, (2 << 20) + PAGE]), Status::BadArgument);
    assert_eq!(ask(Number::SetBuffer, &[AT + 8, PAGE, u64::MAX]), Status::BadArgument);
    assert_eq!(ask(Number::SetBuffer, &[AT, MOST_BYTES + 1, u64::MAX]), Status::BadArgument);
    // Two CPUs are there.
    assert_eq!(ask(Number::Migrate, &[THREAD, 2]), Status::BadArgument);
    assert_eq!(ask(Number::Migrate, &[THREAD, u64::MAX]), Status::BadArgument);
    assert_eq!(ask(Number::MakeThread, &[OWN, EMPTY, PAGE, 0, 0, 1 | 2 << 32]), Status::BadArgument);
    assert_eq!(ask(Number::Migrate, &[THREAD, 1]), Status::Done);
    drop((process, thread));
    kernel.finish(FRAMES);
}

#[test]
fn what_is_refused_is_not_paid_for_and_a_share_is() {
    let kernel = Kernel::<Untagged>::new(2, FRAMES, 16);
    let (process, thread) = caller(&kernel);
    let ask = |number, arguments: &[u64]| kernel.status(0, &thread, number, arguments);
    let account = &process.account;
    let before = account.used();
    // Enough of some kinds, and not of others: nothing is kept of the former.
    assert_eq!(ask(Number::MakeProcess, &[EMPTY, 0, 8, 1 << 30, 0, 1]), Status::Quota);
    assert_eq!(ask(Number::MakeProcess, &[EMPTY, 0, 8, 64, 9, 1]), Status::Quota);
    assert_eq!(ask(Number::MakeProcess, &[EMPTY, 0, 1 << 30, 64, 0, 1]), Status::Quota);
    assert_eq!(ask(Number::MakeProcess, &[EMPTY, u64::from(u32::MAX), 0, 0, 0, 1]), Status::BadArgument);
    assert_eq!(account.used(), before);
    // What another is to have is gone from here, used or not, until that ends.
    assert_eq!(ask(Number::MakeProcess, &[EMPTY, 0, 100, 4096, 0, 1]), Status::Done);
    let shared = account.used();
    assert!(shared.frames >= before.frames + 100 && shared.bytes >= before.bytes + 4096, "{shared:?}");
    assert_eq!(ask(Number::Delete, &[EMPTY]), Status::Done);
    assert_eq!(account.used(), before);
    drop((process, thread));
    kernel.finish(FRAMES);
}

#[test]
fn what_one_has_never_becomes_more() {
    let kernel = Kernel::<Untagged>::new(2, FRAMES, 16);
    let (process, thread) = caller(&kernel);
    let ask = |number, arguments: &[u64]| kernel.status(0, &thread, number, arguments);
    // What is mapped by a capability that only reads is not made writable.
    assert_eq!(ask(Number::Copy, &[MEMORY, EMPTY, Rights::READ.bits().into(), 0]), Status::Done);
    assert_eq!(ask(Number::Map, &[OWN, EMPTY, AT, 0, PAGE, 1]), Status::Done);
    assert_eq!(ask(Number::Protect, &[OWN, AT, 3]), Status::Forbidden);
    // A badge stays what it is.
    assert_eq!(ask(Number::MakeEndpoint, &[6]), Status::Done);
    assert_eq!(ask(Number::Copy, &[6, 7, Rights::all().bits().into(), 77]), Status::Done);
    assert_eq!(ask(Number::Copy, &[7, 8, Rights::all().bits().into(), 78]), Status::Forbidden);
    assert_eq!(ask(Number::Copy, &[7, 8, Rights::all().bits().into(), 0]), Status::Done);
    assert_eq!(kernel.ask(0, &thread, Number::Identify, &[8])[3], 77);
    // Bits are taken by whoever waits, once.
    assert_eq!(ask(Number::MakeNotification, &[9]), Status::Done);
    for bit in [1, 2] {
        assert_eq!(ask(Number::Signal, &[9, bit]), Status::Done);
        assert_eq!(kernel.ask(0, &thread, Number::Wait, &[9])[1], bit);
    }
    // What is gone is not derived from, nor mapped with, whoever still holds it; nor is what is being revoked.
    let node = process.table.get(EMPTY as u32).expect("it is there");
    let (table, view) = (&process.table, View { at: VirtAddr(2 * AT), offset: 0, bytes: PAGE, rights: Rights::READ });
    let mut revoking = Removal::revoke(&node).expect("nobody deletes it");
    let derived = capability::derive(&node, table, 11, Rights::READ, 0).err();
    assert_eq!(derived, Some(ObjectError::Revoked));
    assert!(kernel.world.on(0, || revoking.advance(kernel.world.cpu(0), || false)));
    drop(revoking);
    assert_eq!(ask(Number::Delete, &[EMPTY]), Status::Done);
    assert_eq!(capability::derive(&node, table, 11, Rights::READ, 0).err(), Some(ObjectError::Gone));
    assert_eq!(process.map(&process.account, &node, view).err(), Some(ObjectError::Gone));
    drop((node, process, thread));
    kernel.finish(FRAMES);
}

#[test]
fn pages_that_are_pinned_or_twice_there_are_paid_for() {
    let kernel = Kernel::<Untagged>::new(2, FRAMES, 16);
    let (process, thread) = caller(&kernel);
    let ask = |number, arguments: &[u64]| kernel.status(0, &thread, number, arguments);
    assert_eq!(ask(Number::MakeEndpoint, &[6]), Status::Done);
    assert_eq!(ask(Number::MapAnonymous, &[OWN, AT, 8 * PAGE, 3]), Status::Done);
    kernel.world.on(0, || switch::load(kernel.world.cpu(0), &process.mm));
    // A collapse needs a page of 2 MiB beside the 512, of which this account has none.
    assert_eq!(ask(Number::Collapse, &[OWN, AT]), Status::Quota);
    // All but seven frames are spent: eight pages cannot be pinned.
    let left = process.account.left().frames;
    assert_eq!(ask(Number::MakeFrames, &[7, left - 7]), Status::Done);
    let call = [message::pack(6, Info::LONG), 0, 0, 0, 0, AT, 8 * PAGE];
    assert_eq!(ask(Number::Call, &call), Status::Quota);
    assert_eq!(process.account.left().frames, 7, "nothing is kept of it");
    drop((process, thread));
    kernel.finish(FRAMES);
}
