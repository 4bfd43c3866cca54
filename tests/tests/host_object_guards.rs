//! What `host_objects.rs` relies on is what the guards do: without one, what must not happen happens. Guards are taken
//! away for the whole process, so this file has one test.

use kernel::abi::{Number, Rights, Status};
use kernel::addr::VirtAddr;
use kernel::guard::{self, Guard};
use kernel::mm::address_space::MapError;
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

#[test]
fn a_removed_guard_of_objects_is_found() {
    assert_eq!(seen(), (false, false));
    guard::remove(1 << Guard::RightsShrink as u64);
    assert_eq!(seen(), (true, false));
    guard::remove(1 << Guard::RevokeUnmaps as u64);
    assert_eq!(seen(), (false, true));
}
