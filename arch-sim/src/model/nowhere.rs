//! A machine without a machine: the kernel's list of strategies is made ready for some architecture, and the model,
//! which calls nothing of them but their decision, has none.

use core::ptr::NonNull;
use kernel::addr::{Level, PhysAddr, VirtAddr};
use kernel::arch::{Arch, Asid, Doorbell, NativeTransport, UserFault};
use kernel::machine::Machine;
use kernel::mm::entry::{Entry, EntryCodec, Perm};
use kernel::smp::cpu::Cpu;
use kernel::task::user::{NoUserMode, UserEvent};
use kernel::tlb::invalidation::Invalidation;

/// A machine that exists in name only: whatever acts, panics.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Nowhere {}

/// Entries that mean nothing.
#[derive(Clone, Copy, Debug)]
pub(crate) enum NoCodec {}

const NOT_HERE: &str = "the model has no machine to act on";

impl EntryCodec for NoCodec {
    fn table(_child: PhysAddr) -> u64 {
        unreachable!("{NOT_HERE}")
    }
    fn leaf(_level: Level, _page: PhysAddr, _perm: Perm) -> u64 {
        unreachable!("{NOT_HERE}")
    }
    fn decode(_level: Level, _raw: u64) -> Entry {
        unreachable!("{NOT_HERE}")
    }
}

impl Arch for Nowhere {
    const NAME: &'static str = "model";
    const ELF_MACHINE: u16 = 0;
    type Codec = NoCodec;
    type CpuLocal = ();
    type UserContext = NoUserMode;
    const NATIVE_TRANSPORT: NativeTransport = NativeTransport::Broadcast;
    const INVALIDATION_CEILING: u64 = 1;
    const USER_END: VirtAddr = VirtAddr(0);
    const KERNEL_STACKS: VirtAddr = VirtAddr(0);

    fn asids() -> u32 {
        2
    }

    fn has_broadcast_invalidation() -> bool {
        true
    }

    fn machine() -> &'static Machine<Self> {
        unreachable!("{NOT_HERE}")
    }
    fn install_machine(_machine: Machine<Self>) -> &'static Machine<Self> {
        unreachable!("{NOT_HERE}")
    }
    fn this_cpu() -> &'static Cpu<Self> {
        unreachable!("{NOT_HERE}")
    }
    unsafe fn set_this_cpu(_cpu: &'static Cpu<Self>) {
        unreachable!("{NOT_HERE}")
    }
    fn direct_map(_pa: PhysAddr) -> *mut u8 {
        unreachable!("{NOT_HERE}")
    }
    fn irq_save() -> bool {
        unreachable!("{NOT_HERE}")
    }
    fn irq_restore(_were_enabled: bool) {
        unreachable!("{NOT_HERE}")
    }
    fn irqs_enabled() -> bool {
        unreachable!("{NOT_HERE}")
    }
    fn relax() {
        unreachable!("{NOT_HERE}")
    }
    fn wait_for_interrupt() {
        unreachable!("{NOT_HERE}")
    }
    fn ring(_target: &Cpu<Self>, _bell: Doorbell) {
        unreachable!("{NOT_HERE}")
    }
    fn set_timer(_ns: u64) {
        unreachable!("{NOT_HERE}")
    }
    fn stop_timer() {
        unreachable!("{NOT_HERE}")
    }
    fn instructions() -> u64 {
        unreachable!("{NOT_HERE}")
    }
    unsafe fn init_root(_root: PhysAddr) {
        unreachable!("{NOT_HERE}")
    }
    unsafe fn load_root(_root: PhysAddr, _asid: Asid) {
        unreachable!("{NOT_HERE}")
    }
    unsafe fn load_kernel_root() {
        unreachable!("{NOT_HERE}")
    }
    fn invalidate_local(_asid: Asid, _what: &Invalidation) -> u32 {
        unreachable!("{NOT_HERE}")
    }
    fn invalidate_broadcast(_asid: Asid, _what: &Invalidation) -> u32 {
        unreachable!("{NOT_HERE}")
    }
    fn read_user(_va: VirtAddr) -> Result<u64, UserFault> {
        unreachable!("{NOT_HERE}")
    }
    fn write_user(_va: VirtAddr, _value: u64) -> Result<(), UserFault> {
        unreachable!("{NOT_HERE}")
    }

    unsafe fn enter_user(_context: NonNull<NoUserMode>, _in_cpu: bool) -> UserEvent {
        NoUserMode::REFUSED
    }
    unsafe fn map_kernel_page(_va: VirtAddr, _page: PhysAddr, _new_table: &mut dyn FnMut() -> PhysAddr) {
        unreachable!("{NOT_HERE}")
    }
    unsafe fn switch_stack(_top: VirtAddr, _entry: extern "C" fn() -> !) -> ! {
        unreachable!("{NOT_HERE}")
    }
}
