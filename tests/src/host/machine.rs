//! [`Host`] as the core sees it.

use core::ptr::NonNull;
use std::sync::atomic::AtomicU64;

use kernel::addr::{Level, PhysAddr, VirtAddr};
use kernel::arch::{Arch, Asid, Doorbell, ENTRY_LOAD, NativeTransport, UserFault};
use kernel::machine::Machine;
use kernel::mm::entry::{Entry, EntryCodec, Perm};
use kernel::smp::cpu::Cpu;
use kernel::task::fast;
use kernel::task::user::UserEvent;
use kernel::tlb::invalidation::Invalidation;
use kernel::upcall;

use scripted::Scripted;

use super::cpus::board;

/// Rounds of waiting, since a test last told a CPU to do something, that are no deadlock.
const PATIENCE: u64 = 10_000;

/// A machine on the host: `TAGS` address-space identifiers, and broadcast invalidation or none.
#[derive(Clone, Copy)]
pub struct Host<const TAGS: u32, const BROADCAST: bool>;

/// An entry format of this machine's own: bit 0 present, bit 1 leaf, bit 2 writable, bit 3 executable, the address from
/// bit 12 on.
pub struct Codec;

impl EntryCodec for Codec {
    fn table(child: PhysAddr) -> u64 {
        child.0 | 1
    }

    fn leaf(_level: Level, page: PhysAddr, perm: Perm) -> u64 {
        page.0 | 3 | (perm.bits() as u64) << 2
    }

    fn decode(_level: Level, raw: u64) -> Entry {
        let address = PhysAddr(raw & !0xfff & 0x000f_ffff_ffff_ffff);
        match raw & 3 {
            1 => Entry::Table(address),
            3 => Entry::Leaf { page: address, perm: Perm::from_bits_truncate((raw >> 2) as u8 & 3) },
            _ => Entry::Absent,
        }
    }
}

impl<const TAGS: u32, const BROADCAST: bool> Arch for Host<TAGS, BROADCAST> {
    const NAME: &'static str = "host";
    const ELF_MACHINE: u16 = 62;
    type Codec = Codec;
    type CpuLocal = ();
    type UserContext = Scripted;
    const NATIVE_TRANSPORT: NativeTransport = if BROADCAST { NativeTransport::Broadcast } else { NativeTransport::Ipi };
    const INVALIDATION_CEILING: u64 = 33;
    const USER_END: VirtAddr = VirtAddr(1 << 47);
    const KERNEL_STACKS: VirtAddr = VirtAddr(1 << 63);

    fn asids() -> u32 {
        TAGS
    }

    fn has_broadcast_invalidation() -> bool {
        BROADCAST
    }

    fn machine() -> &'static Machine<Self> {
        // SAFETY: `World` keeps the machine, which is of this type, while it is installed.
        unsafe { &*board().machine.get().cast() }
    }

    fn install_machine(machine: Machine<Self>) -> &'static Machine<Self> {
        let machine: &'static Machine<Self> = Box::leak(Box::new(machine));
        board().machine.set((machine as *const Machine<Self>).cast());
        machine
    }

    fn this_cpu() -> &'static Cpu<Self> {
        let board = board();
        let area = board.areas.borrow()[board.current.get()];
        // SAFETY: `World` keeps the areas, which are of this type, while it is installed.
        unsafe { &*area.cast() }
    }

    unsafe fn set_this_cpu(_cpu: &'static Cpu<Self>) {}

    fn direct_map(pa: PhysAddr) -> *mut u8 {
        let board = board();
        board.ram.wrapping_add((pa.0 - board.first_byte) as usize)
    }

    fn load_entry(slot: &AtomicU64) -> u64 {
        let raw = slot.load(ENTRY_LOAD);
        let board = board();
        let at = slot as *const AtomicU64 as usize;
        let hook = board.hook.borrow_mut().take_if(|(hooked, _)| *hooked == at);
        if let Some((_, hook)) = hook {
            hook();
        }
        raw
    }

    fn irq_save() -> bool {
        board().cpu().interrupts.replace(false)
    }

    fn irq_restore(were_enabled: bool) {
        let board = board();
        let cpu = board.cpu();
        cpu.interrupts.set(were_enabled);
        if were_enabled && cpu.rung.replace(false) {
            board.interrupt(board.current.get(), upcall::call::<Self>);
        }
    }

    fn irqs_enabled() -> bool {
        board().cpu().interrupts.get()
    }

    fn relax() {
        // The others' timers fire: whoever has interrupts enabled is in no walk.
        let board = board();
        let rounds = board.rounds.replace(board.rounds.get() + 1);
        let hook = board.wait_hook.borrow_mut().take();
        if let Some(hook) = hook {
            hook();
        }
        assert!(rounds < PATIENCE, "CPU {} waits for something that nobody will do", board.current.get());
        for index in (0..board.cpus.len()).filter(|i| *i != board.current.get()) {
            if board.cpus[index].interrupts.get() {
                board.interrupt(index, upcall::timer::<Self>);
            }
        }
    }

    fn wait_for_interrupt() {
        unreachable!("CPUs of this machine run when a test says so")
    }

    fn ring(target: &Cpu<Self>, bell: Doorbell) {
        let board = board();
        let index = target.id.index();
        match bell {
            Doorbell::Nmi => board.interrupt(index, upcall::nmi::<Self>),
            Doorbell::Call if board.cpus[index].interrupts.get() => board.interrupt(index, upcall::call::<Self>),
            Doorbell::Call => board.cpus[index].rung.set(true),
        }
    }

    fn set_timer(_ns: u64) {}

    fn stop_timer() {}

    fn instructions() -> u64 {
        let board = board();
        board.time.replace(board.time.get() + 1)
    }

    unsafe fn init_root(_root: PhysAddr) {}

    unsafe fn load_root(root: PhysAddr, asid: Asid) {
        board().cpu().mmu.load(Some((root, asid)), TAGS > 1);
    }

    unsafe fn load_kernel_root() {
        board().cpu().mmu.load(None, TAGS > 1);
    }

    fn invalidate_local(asid: Asid, what: &Invalidation) -> u32 {
        board().cpu().mmu.invalidate(asid, what, Self::INVALIDATION_CEILING)
    }

    fn invalidate_broadcast(asid: Asid, what: &Invalidation) -> u32 {
        assert!(BROADCAST, "there is no such instruction");
        let board = board();
        let instructions = board.cpus.iter().map(|c| c.mmu.invalidate(asid, what, Self::INVALIDATION_CEILING));
        instructions.max().unwrap_or(0)
    }

    fn read_user(va: VirtAddr) -> Result<u64, UserFault> {
        let pa = board().cpu().mmu.translate::<Self>(va, false)?;
        // SAFETY: translations lead into RAM, which the direct map covers; eight bytes do not cross a page here.
        Ok(unsafe { &*Self::direct_map(pa).cast::<AtomicU64>() }.load(std::sync::atomic::Ordering::Relaxed))
    }

    fn write_user(va: VirtAddr, value: u64) -> Result<(), UserFault> {
        let pa = board().cpu().mmu.translate::<Self>(va, true)?;
        // SAFETY: as above.
        unsafe { &*Self::direct_map(pa).cast::<AtomicU64>() }.store(value, std::sync::atomic::Ordering::Relaxed);
        Ok(())
    }

    unsafe fn enter_user(context: NonNull<Scripted>, _in_cpu: bool) -> UserEvent {
        let mut context = context;
        loop {
            let pending = board().cpu().rung.get();
            Self::irq_restore(true);
            // SAFETY: the caller's promise, and then that of the short way.
            let event = if pending { UserEvent::Interrupt } else { unsafe { context.as_mut() }.enter::<Self>() };
            Self::irq_save();
            if event != UserEvent::Call {
                return event;
            }
            // SAFETY: the registers of the current thread, which has just called.
            let Some(next) = (unsafe { fast::system_call::<Self>(context).with_words() }) else { return event };
            context = next;
        }
    }

    unsafe fn map_kernel_page(_va: VirtAddr, _page: PhysAddr, _new_table: &mut dyn FnMut() -> PhysAddr) {
        unreachable!("this machine maps no kernel pages")
    }

    unsafe fn switch_stack(_top: VirtAddr, _entry: extern "C" fn() -> !) -> ! {
        unreachable!("CPUs of this machine run on the test's stack")
    }
}
