//! The boundary of the kernel core, over the simulated machine.

use core::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering, fence};

use kernel::addr::{Level, PAGE_SIZE, PhysAddr, VirtAddr};
use kernel::arch::{Arch, Asid, Doorbell, NativeTransport, UserFault};
use kernel::atomic::Word;
use kernel::machine::Machine;
use kernel::mm::entry::EntryCodec;
use kernel::smp::cpu::Cpu;
use kernel::task::fast;
use kernel::task::user::UserEvent;
use kernel::tlb::invalidation::Invalidation;
use kernel::upcall;
use scripted::Scripted;

use super::codec::Codec;
use super::direction;
use super::mmu;
use super::world::{RAM, world};
use crate::explore::hub::{Access, Kind};

/// A simulated machine; `TAGGED` like aarch64, else like x86_64.
#[derive(Clone, Copy, Debug)]
pub struct Sim<const TAGGED: bool>;

impl<const TAGGED: bool> Sim<TAGGED> {
    /// The area of a CPU.
    pub(super) fn cpu_number(number: usize) -> &'static Cpu<Self> {
        Self::machine().cpus[number]
    }

    /// A place where anything may happen: the hardware acts, another CPU runs, an interrupt is taken.
    pub(super) fn point(next: Access) {
        let world = world();
        if let Some(direction) = &world.direction {
            return direction.stop_before::<TAGGED>(next);
        }
        world.steps.set(world.steps.get() + 1);
        world.hardware_acts();
        if world.choose(16) == 0 {
            world.suspend();
        }
        Self::take_interrupts();
    }

    /// The MMU is about to be told something. Where interleavings are directed its caches hold all that they may by
    /// now, and no program notices what it is told.
    pub(super) fn hardware_point() {
        match world().direction.is_some() {
            true => world().fill(),
            false => Self::point(Access::Pause),
        }
    }

    /// Takes what is pending and not masked.
    fn take_interrupts() {
        let core = world().core();
        loop {
            if core.nmi.get() && !core.in_nmi.get() {
                core.nmi.set(false);
                core.in_nmi.set(true);
                let masked = core.masked.replace(true);
                upcall::nmi::<Self>();
                core.masked.set(masked);
                core.in_nmi.set(false);
            } else if core.call.get() && !core.masked.get() && !core.in_nmi.get() {
                core.call.set(false);
                core.masked.set(true);
                upcall::call::<Self>();
                core.masked.set(false);
            } else {
                return;
            }
        }
    }

    fn word(pa: PhysAddr) -> &'static AtomicU64 {
        // SAFETY: inside the arena, which outlives the execution, and aligned, since user addresses of words are.
        unsafe { &*world().host(pa).cast::<AtomicU64>() }
    }
}

impl<const TAGGED: bool> Arch for Sim<TAGGED> {
    const NAME: &'static str = if TAGGED { "sim-tagged" } else { "sim-untagged" };
    const ELF_MACHINE: u16 = 0;
    type Codec = Codec;
    type CpuLocal = ();
    type UserContext = Scripted;
    const NATIVE_TRANSPORT: NativeTransport = if TAGGED { NativeTransport::Broadcast } else { NativeTransport::Ipi };
    const INVALIDATION_CEILING: u64 = 33;
    const USER_END: VirtAddr = VirtAddr(1 << 47);
    const SELF_MAP: VirtAddr = mmu::SELF_MAP;
    const LEAF_READS_AS_TABLE: bool = !TAGGED;
    const KERNEL_STACKS: VirtAddr = VirtAddr(0xffff_8000_0000_0000);

    fn asids() -> u32 {
        world().hardware.asids.unwrap_or(if TAGGED { 256 } else { 1 })
    }

    fn has_broadcast_invalidation() -> bool {
        world().hardware.broadcast.unwrap_or(TAGGED)
    }

    fn machine() -> &'static Machine<Self> {
        let machine = world().machine.get() as *const Machine<Self>;
        assert!(!machine.is_null(), "no kernel is booted");
        // SAFETY: `install_machine` stored it, for the same machine type: a world belongs to one execution. It is
        // leaked.
        unsafe { &*machine }
    }

    fn install_machine(machine: Machine<Self>) -> &'static Machine<Self> {
        let machine: &'static Machine<Self> = Box::leak(Box::new(machine));
        world().machine.set(machine as *const Machine<Self> as usize);
        machine
    }

    fn this_cpu() -> &'static Cpu<Self> {
        let area = world().core().area.get() as *const Cpu<Self>;
        assert!(!area.is_null(), "this CPU has no area yet");
        // SAFETY: `set_this_cpu` stored it from a `&'static Cpu<Self>`.
        unsafe { &*area }
    }

    unsafe fn set_this_cpu(cpu: &'static Cpu<Self>) {
        world().core().area.set(cpu as *const Cpu<Self> as usize);
    }

    fn direct_map(pa: PhysAddr) -> *mut u8 {
        world().host(pa)
    }

    fn load_entry(slot: &AtomicU64) -> u64 {
        if world().direction.is_some() {
            return direction::load::<TAGGED>(Word::U64(slot));
        }
        Self::point(Access::Pause);
        slot.load(Ordering::Acquire)
    }

    fn store_entry(slot: &AtomicU64, raw: u64) {
        if world().direction.is_some() {
            return direction::store::<TAGGED>(Word::U64(slot), raw);
        }
        Self::point(Access::Pause);
        if !world().hardware.preset {
            world().judge_plain_store(slot, 0, raw);
        }
        slot.store(raw, Ordering::Release);
    }

    fn swap_entry(slot: &AtomicU64, raw: u64) -> u64 {
        if !world().hardware.exchange {
            return Self::replace_plainly(slot, raw);
        }
        if world().direction.is_some() {
            return direction::update::<TAGGED>(Word::U64(slot), &mut |_| Some(raw));
        }
        Self::point(Access::Pause);
        slot.swap(raw, Ordering::AcqRel)
    }

    fn replace_entry(slot: &AtomicU64, old: u64, new: u64) -> Result<u64, u64> {
        if world().direction.is_some() {
            let was = direction::update::<TAGGED>(Word::U64(slot), &mut |now| (now == old).then_some(new));
            return if was == old { Ok(was) } else { Err(was) };
        }
        Self::point(Access::Pause);
        slot.compare_exchange(old, new, Ordering::AcqRel, Ordering::Acquire)
    }

    fn fence() {
        Self::point(Access::Fence);
        fence(Ordering::SeqCst);
    }

    unsafe fn zero_frame(at: *mut u8) {
        let world = world();
        let frame = PhysAddr(at as u64 - world.ram as u64 + RAM);
        if world.direction.is_some() {
            world.fill();
        }
        for (i, core) in world.cores.iter().enumerate() {
            let (leaf, above) = core.mmu.borrow().leads_to(frame);
            if core.mmu.borrow().root.is_some_and(|(root, _)| root == frame) {
                world
                    .findings
                    .borrow_mut()
                    .push(format!("frame {frame} is used again while cpu{i} translates by it as its root"));
            }
            // A CPU that is lazy was skipped by flushes of pages, and catches up before it uses the mm; a frozen one
            // does before it runs.
            let cpu = (world.machine.get() != 0).then(|| Self::machine().cpus[i]);
            let lazy = direction::unseen(|| cpu.is_some_and(|cpu| cpu.loaded.is_lazy()));
            let frozen = cpu.is_some_and(|cpu| direction::uses_nothing_cached(i, cpu));
            if (above && !frozen) || (leaf && !lazy && !frozen) {
                let what = if above { "a paging-structure cache" } else { "a TLB" };
                world
                    .findings
                    .borrow_mut()
                    .push(format!("frame {frame} is used again while {what} of cpu{i} leads to it"));
            }
        }
        // SAFETY: the caller's.
        unsafe { std::ptr::write_bytes(at, 0, PAGE_SIZE as usize) };
    }

    fn irq_save() -> bool {
        let enabled = Self::irqs_enabled();
        if enabled {
            if world().direction.is_some() {
                Self::point(Access::Mask);
            }
            world().core().masked.set(true);
        }
        enabled
    }

    fn irq_restore(were_enabled: bool) {
        if were_enabled {
            if world().direction.is_some() {
                Self::point(Access::Unmask);
            }
            world().core().masked.set(false);
            if world().direction.is_none() {
                Self::point(Access::Pause);
            }
        }
    }

    fn irqs_enabled() -> bool {
        !world().core().masked.get()
    }

    fn relax() {
        let world = world();
        if world.direction.is_some() {
            return Self::point(Access::Wait);
        }
        world.steps.set(world.steps.get() + 1);
        world.hardware_acts();
        world.core().relaxed.set(true);
        world.suspend();
        Self::take_interrupts();
    }

    fn wait_for_interrupt() {
        let world = world();
        let core = world.core();
        core.asleep.set(true);
        while !core.call.get() && !core.nmi.get() {
            world.suspend();
        }
        core.asleep.set(false);
        core.masked.set(false);
        Self::take_interrupts();
        core.masked.set(true);
    }

    fn ring(target: &Cpu<Self>, bell: Doorbell) {
        let kind = if bell == Doorbell::Call { Kind::Interrupt } else { Kind::Nmi };
        Self::point(Access::Ring(target.id.index(), kind));
        if world().direction.is_some() {
            return;
        }
        let core = &world().cores[target.id.index()];
        match bell {
            Doorbell::Call => core.call.set(true),
            Doorbell::Nmi => core.nmi.set(true),
        }
    }

    fn set_timer(_ns: u64) {}

    fn stop_timer() {}

    fn instructions() -> u64 {
        world().steps.get()
    }

    unsafe fn init_root(root: PhysAddr) {
        let slot = PhysAddr(root.0 + 8 * Self::SELF_MAP.index(Level::Pgd) as u64);
        Self::word(slot).store(Codec::table(root), Ordering::Relaxed);
    }

    unsafe fn load_root(root: PhysAddr, asid: Asid) {
        Self::hardware_point();
        let world = world();
        let mut mmu = world.core().mmu.borrow_mut();
        mmu.load(Some((root, asid.0)), Self::tagged());
        if let Some(what) = mmu.of_another(asid.0, root) {
            let finding = format!(
                "cpu{} loads the address space of root {root}, and has cached under its tag {what} of another",
                world.current.get()
            );
            world.findings.borrow_mut().push(finding);
        }
    }

    unsafe fn load_kernel_root() {
        Self::hardware_point();
        world().core().mmu.borrow_mut().load(None, Self::tagged());
    }

    fn invalidate_local(asid: Asid, what: &Invalidation) -> u32 {
        Self::hardware_point();
        let world = world();
        world.note(what.start);
        world.core().mmu.borrow_mut().invalidate(asid.0, what, &world.hardware);
        1
    }

    fn invalidate_broadcast(asid: Asid, what: &Invalidation) -> u32 {
        let hardware = world().hardware;
        Self::broadcast(asid, what, hardware.completion && hardware.in_time);
        if hardware.repeated {
            // The second wait is for both, and does not end early.
            Self::broadcast(asid, what, hardware.completion);
        }
        1
    }

    fn read_user(va: VirtAddr) -> Result<u64, UserFault> {
        Self::translation_point(va, false);
        let pa = Self::translate(va, false)?;
        Ok(Self::word(pa).load(Ordering::Relaxed))
    }

    fn write_user(va: VirtAddr, value: u64) -> Result<(), UserFault> {
        Self::translation_point(va, true);
        let pa = Self::translate(va, true)?;
        Self::word(pa).store(value, Ordering::Relaxed);
        Ok(())
    }

    unsafe fn enter_user(context: NonNull<Scripted>, _in_cpu: bool) -> UserEvent {
        let mut context = context;
        loop {
            let pending = world().core().call.get();
            Self::irq_restore(true);
            // SAFETY: the caller's promise, and then that of the short way.
            let event = if pending { UserEvent::Interrupt } else { unsafe { context.as_mut() }.enter::<Self>() };
            if event == UserEvent::Interrupt {
                // A program that pauses waits for another: let that come first.
                Self::relax();
            }
            Self::irq_save();
            if event != UserEvent::Call {
                return event;
            }
            // SAFETY: the registers of the current thread, which has just called.
            let Some(next) = (unsafe { fast::system_call::<Self>(context).with_words() }) else { return event };
            context = next;
        }
    }

    fn probe_entry(at: VirtAddr) -> u64 {
        Self::translation_point(at, false);
        // The exception table: where there is no translation an absent entry is read.
        Self::translate(at, false).map_or(0, |pa| Self::word(pa).load(Ordering::Acquire))
    }

    unsafe fn map_kernel_page(_va: VirtAddr, _page: PhysAddr, _new_table: &mut dyn FnMut() -> PhysAddr) {}

    unsafe fn switch_stack(_top: VirtAddr, entry: extern "C" fn() -> !) -> ! {
        // The coroutine's own stack is as good.
        entry()
    }
}
