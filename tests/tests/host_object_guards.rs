//! What `host_objects.rs` relies on is what the guards do: without one, what must not happen happens. Guards are taken
//! away for the whole process, so this file has one test.

use kernel::abi::{Number, Rights, Status};
use kernel::addr::VirtAddr;
use kernel::guard::{self, Guard};
use kernel::mm::address_space::MapError;
use kernel::object::Object;
use kernel::object::account::Price;
use kernel::tlb::switch;
use tests::host::Untagged;
use tests::kernel_of::{FREE, Kernel};

const AT: u64 = 0x4000_0000;

/// Whether a read-only copy can be made writable again, and whether a page can be read after its capability was
/// revoked.
fn seen() -> (bool, bool) {
    let kernel = Kernel::<Untagged>::new(1, 4096, 16);
    let child = kernel.child(FREE, 8, Price { frames: 32, bytes: 1 << 16, spaces: 0 });
    kernel.give(&child, 0, FREE, Rights::all(), 0);
    let thread = kernel.thread(&kernel.first, FREE + 1, &child, VirtAddr(0x1000), 1, 0, 0);
    kernel.world.on(0, || switch::load(kernel.world.cpu(0), &child.mm));
    let status = |number, arguments: &[u64]| kernel.status(0, &thread, number, arguments);
    assert_eq!(status(Number::MakeFrames, &[1, 4]), Status::Done);
    assert_eq!(status(Number::Copy, &[1, 2, 1, 0]), Status::Done);
    let grew = status(Number::Copy, &[2, 3, 3, 0]) == Status::Done;
    assert_eq!(status(Number::Map, &[0, 1, AT, 0, 4096, 3]), Status::Done);
    assert_eq!(kernel.world.read(0, &child.mm, VirtAddr(AT + 8)), Ok(0));
    assert_eq!(status(Number::Revoke, &[1]), Status::Done);
    let read = kernel.world.read(0, &child.mm, VirtAddr(AT + 8));
    assert!(matches!(read, Ok(0) | Err(MapError::NotMapped(_))), "{read:?}");
    (grew, read.is_ok())
}

/// Whether a page is still what it was after it was truncated, and whether a fork sees what its parent writes later.
fn kept() -> (bool, bool) {
    let kernel = Kernel::<Untagged>::new(2, 4096, 16);
    let child = kernel.child(FREE, 8, Price { frames: 64, bytes: 1 << 17, spaces: 1 });
    kernel.give(&child, 0, FREE, Rights::all(), 0);
    let thread = kernel.thread(&kernel.first, FREE + 1, &child, VirtAddr(0x1000), 1, 0, 0);
    kernel.world.on(0, || switch::load(kernel.world.cpu(0), &child.mm));
    let status = |number, arguments: &[u64]| kernel.status(0, &thread, number, arguments);
    let (frames, own) = (VirtAddr(AT + 8), VirtAddr(AT + (1 << 21) + 8));
    assert_eq!(status(Number::MakeFrames, &[1, 4]), Status::Done);
    assert_eq!(status(Number::Map, &[0, 1, AT, 0, 4096, 3]), Status::Done);
    assert_eq!(status(Number::MapAnonymous, &[0, AT + (1 << 21), 4096, 3]), Status::Done);
    assert_eq!(kernel.world.write(0, &child.mm, frames, 1), Ok(()));
    assert_eq!(status(Number::Truncate, &[1, 0, 4096]), Status::Done);
    let truncated = kernel.world.read(0, &child.mm, frames);
    assert_eq!(kernel.world.write(0, &child.mm, own, 2), Ok(()));
    assert_eq!(status(Number::Fork, &[0, 2, 0, 0, 0, 0, 1]), Status::Done);
    assert_eq!(kernel.world.write(0, &child.mm, own, 3), Ok(()));
    let node = child.table.get(2).expect("it was made");
    let Object::Process(fork) = node.object() else { panic!("no process was made") };
    kernel.world.on(1, || switch::load(kernel.world.cpu(1), &fork.mm));
    let seen = kernel.world.read(1, &fork.mm, own);
    kernel.world.on(1, || switch::unload(kernel.world.cpu(1)));
    (truncated != Ok(0), seen != Ok(2))
}

#[test]
fn a_removed_guard_of_objects_is_found() {
    assert_eq!(kept(), (false, false));
    assert_eq!(seen(), (false, false));
    guard::remove(1 << Guard::RightsShrink as u64);
    assert_eq!(seen(), (true, false));
    guard::remove(1 << Guard::RevokeUnmaps as u64);
    assert_eq!(seen(), (false, true));
    guard::remove(1 << Guard::TruncateUnmaps as u64);
    assert_eq!(kept(), (true, false));
    guard::remove(1 << Guard::ForkProtects as u64);
    assert_eq!(kept(), (false, true));
}
