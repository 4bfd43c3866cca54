//! The [`Arch`] of this architecture: each function in terms of the modules next to this one.

use core::ptr::NonNull;
use core::arch::{asm, naked_asm};

use kernel::addr::{PhysAddr, VirtAddr};
use kernel::arch::{Arch, Asid, Doorbell, NativeTransport, UserFault};
use kernel::machine::Machine;
use kernel::smp::cpu::Cpu;
use kernel::task::user::UserEvent;
use kernel::tlb::invalidation::Invalidation;
use kernel::tlb::switch::KERNEL_ASID;
use spin::Once;
use x86_64::instructions::interrupts;

use crate::cpu_area::CpuLocal;
use crate::entry::Codec;
use crate::invlpgb::{self, Target};
use crate::tlb::{self, Plan};
use crate::user_mode::X86Context;
use crate::{X86, apic, cpu_area, descriptors, features, fixup, kernel_map, user};

static MACHINE: Once<Machine<X86>> = Once::new();

impl Arch for X86 {
    const NAME: &'static str = "x86_64";
    const ELF_MACHINE: u16 = 62;
    type Codec = Codec;
    type CpuLocal = CpuLocal;
    type UserContext = X86Context;
    const NATIVE_TRANSPORT: NativeTransport = NativeTransport::Ipi;
    const INVALIDATION_CEILING: u64 = tlb::CEILING;
    const USER_END: VirtAddr = user::USER_END;
    const SELF_MAP: VirtAddr = tlb::SELF_MAP;
    const LEAF_READS_AS_TABLE: bool = true;
    const KERNEL_STACKS: VirtAddr = kernel_map::KERNEL_STACKS;

    #[inline(always)]
    fn asids() -> u32 {
        if features::tags() { features::PCIDS } else { 1 }
    }

    #[inline(always)]
    fn tagged() -> bool {
        features::tags()
    }

    #[inline(always)]
    fn has_broadcast_invalidation() -> bool {
        features::broadcast_pages() != 0
    }

    #[inline(always)]
    fn machine() -> &'static Machine<X86> {
        MACHINE.get().expect("the machine was not installed")
    }

    fn install_machine(machine: Machine<X86>) -> &'static Machine<X86> {
        MACHINE.call_once(|| machine)
    }

    #[inline(always)]
    fn this_cpu() -> &'static Cpu<X86> {
        cpu_area::this()
    }

    unsafe fn set_this_cpu(cpu: &'static Cpu<X86>) {
        // SAFETY: the caller says that it is the calling CPU's.
        unsafe { cpu_area::set(cpu) }
    }

    #[inline(always)]
    fn direct_map(pa: PhysAddr) -> *mut u8 {
        kernel_map::direct(pa)
    }

    #[inline]
    unsafe fn zero_frame(at: *mut u8) {
        // Plain stores, not `REP STOS`: an interrupt may come between any two, and an emulator runs them faster.
        // SAFETY: the caller owns the 4 KiB at `at`; each round clears 64 bytes of it.
        unsafe {
            asm!(
                "2:",
                "mov [{at}], {zero}",
                "mov [{at} + 8], {zero}",
                "mov [{at} + 16], {zero}",
                "mov [{at} + 24], {zero}",
                "mov [{at} + 32], {zero}",
                "mov [{at} + 40], {zero}",
                "mov [{at} + 48], {zero}",
                "mov [{at} + 56], {zero}",
                "add {at}, 64",
                "cmp {at}, {end}",
                "jb 2b",
                at = inout(reg) at => _,
                end = in(reg) at.wrapping_add(4096),
                zero = in(reg) 0u64,
                options(nostack)
            );
        }
    }

    #[inline(always)]
    fn irq_save() -> bool {
        let were_enabled = interrupts::are_enabled();
        interrupts::disable();
        were_enabled
    }

    #[inline(always)]
    fn irq_restore(were_enabled: bool) {
        if were_enabled {
            interrupts::enable();
        }
    }

    #[inline(always)]
    fn irqs_enabled() -> bool {
        interrupts::are_enabled()
    }

    #[inline(always)]
    fn relax() {
        core::hint::spin_loop();
    }

    fn wait_for_interrupt() {
        // STI takes effect after the next instruction, so an interrupt that is pending ends the HLT instead of coming
        // before it.
        interrupts::enable_and_hlt();
        interrupts::disable();
    }

    #[inline]
    fn ring(target: &Cpu<X86>, bell: Doorbell) {
        apic::ring(target.hw_id, bell);
    }

    #[inline]
    fn set_timer(ns: u64) {
        apic::set_timer(ns);
    }

    #[inline]
    fn stop_timer() {
        apic::stop_timer();
    }

    #[inline(always)]
    fn instructions() -> u64 {
        // SAFETY: every CPU of this architecture has the counter, and the kernel may read it.
        unsafe { core::arch::x86_64::_rdtsc() }
    }

    unsafe fn init_root(root: PhysAddr) {
        // SAFETY: passed on.
        unsafe { kernel_map::init_root(root) }
    }

    #[inline]
    unsafe fn load_root(root: PhysAddr, asid: Asid) {
        // SAFETY: the caller's root has the kernel half, by `init_root`. A write of CR3 is serialising, so earlier
        // stores are done.
        unsafe { kernel_map::load(root, asid) }
        descriptors::forget_selectors();
    }

    #[inline]
    unsafe fn load_kernel_root() {
        // SAFETY: the kernel's root stays one for ever.
        unsafe { kernel_map::load(kernel_map::ROOT.physical(), KERNEL_ASID) }
    }

    #[inline]
    fn invalidate_local(asid: Asid, what: &Invalidation) -> u32 {
        let plan = Plan::of(what);
        tlb::execute(plan, asid);
        plan.instructions()
    }

    fn invalidate_broadcast(asid: Asid, what: &Invalidation) -> u32 {
        let pages = features::broadcast_pages();
        assert!(pages != 0, "this CPU has no INVLPGB; the transport must send NMIs");
        invlpgb::run(&Target { pcid: features::tags().then_some(asid), pages }, what)
    }

    #[inline]
    fn read_user(va: VirtAddr) -> Result<u64, UserFault> {
        user::read(va)
    }

    #[inline]
    fn write_user(va: VirtAddr, value: u64) -> Result<(), UserFault> {
        user::write(va, value)
    }

    #[inline]
    unsafe fn enter_user(context: NonNull<X86Context>, in_cpu: bool) -> UserEvent {
        // SAFETY: passed on.
        unsafe { X86Context::enter(context, in_cpu) }
    }

    #[inline(always)]
    fn probe_entry(at: VirtAddr) -> u64 {
        fixup::load_or_zero(at)
    }

    unsafe fn map_kernel_page(va: VirtAddr, page: PhysAddr, new_table: &mut dyn FnMut() -> PhysAddr) {
        // SAFETY: passed on.
        unsafe { kernel_map::map_page(va, page, new_table) }
    }

    unsafe fn switch_stack(top: VirtAddr, entry: extern "C" fn() -> !) -> ! {
        // SAFETY: the caller vouches for the stack, and nothing on the present one is needed again.
        unsafe { continue_on(top, entry) }
    }
}

/// Continues in `entry` on the stack that ends at `top`; its frame is the last one.
#[unsafe(naked)]
unsafe extern "C" fn continue_on(top: VirtAddr, entry: extern "C" fn() -> !) -> ! {
    naked_asm!("mov rsp, rdi", "xor ebp, ebp", "call rsi", "ud2")
}
