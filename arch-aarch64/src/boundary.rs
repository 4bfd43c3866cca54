//! [`Aarch64`] as the core sees it: each function is a line or two over the modules beside this one.

use core::ptr::NonNull;
use core::arch::asm;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use kernel::addr::{Level, PhysAddr, VirtAddr};
use kernel::arch::{Arch, Asid, Doorbell, NativeTransport, UserFault};
use kernel::machine::Machine;
use kernel::mm::entry::EntryCodec;
use kernel::smp::cpu::Cpu;
use kernel::task::user::UserEvent;
use kernel::tlb::invalidation::Invalidation;

use crate::tlbi::{self, Reach};
use crate::{Aarch64, counter, cpu_area, entry, features, fixup, gic, kernel_map, mmu, timer, user, user_mode};

static MACHINE: spin::Once<Machine<Aarch64>> = spin::Once::new();

/// The interrupt mask in `DAIF`.
const I: u64 = 1 << 7;

/// Whether the CPU has invalidations by range. Found once, when the machine is installed: a hypervisor may trap the
/// register that says so.
static RANGES: AtomicBool = AtomicBool::new(false);

#[inline(always)]
fn daif() -> u64 {
    let daif: u64;
    // SAFETY: reads the masks.
    unsafe { asm!("mrs {}, daif", out(reg) daif, options(nomem, nostack, preserves_flags)) };
    daif
}

impl Arch for Aarch64 {
    const NAME: &'static str = "aarch64";
    const ELF_MACHINE: u16 = 183;
    type Codec = entry::Codec;
    type CpuLocal = cpu_area::CpuLocal;
    type UserContext = user_mode::Context;
    const NATIVE_TRANSPORT: NativeTransport = NativeTransport::Broadcast;
    const INVALIDATION_CEILING: u64 = tlbi::CEILING;
    // The last entry of the root is the one that points at the root.
    const USER_END: VirtAddr = tlbi::SELF_MAP;
    const SELF_MAP: VirtAddr = tlbi::SELF_MAP;
    const KERNEL_STACKS: VirtAddr = VirtAddr(kernel_map::KERNEL_STACKS);

    #[inline(always)]
    fn asids() -> u32 {
        // `features::check` refuses a CPU that has fewer.
        1 << 16
    }

    #[inline(always)]
    fn has_broadcast_invalidation() -> bool {
        true
    }

    #[inline(always)]
    fn has_range_invalidation() -> bool {
        RANGES.load(Ordering::Relaxed)
    }

    #[inline(always)]
    fn machine() -> &'static Machine<Self> {
        MACHINE.get().expect("the machine was installed before anything asked for it")
    }

    fn install_machine(machine: Machine<Self>) -> &'static Machine<Self> {
        // Relaxed: other CPUs are started after this, which orders it.
        RANGES.store(features::tlbi_range(), Ordering::Relaxed);
        MACHINE.call_once(|| machine)
    }

    #[inline(always)]
    fn this_cpu() -> &'static Cpu<Self> {
        cpu_area::this()
    }

    unsafe fn set_this_cpu(cpu: &'static Cpu<Self>) {
        // SAFETY: the caller's promise is the same.
        unsafe { cpu_area::set(cpu) }
    }

    #[inline(always)]
    fn direct_map(pa: PhysAddr) -> *mut u8 {
        kernel_map::direct_map(pa)
    }

    #[inline]
    unsafe fn zero_frame(at: *mut u8) {
        let end = at.wrapping_add(4096);
        // SAFETY: the caller owns the 4 KiB; `DC ZVA` zeroes one block of the size that `DCZID_EL0` says (at most 2
        // KiB, so the loop ends exactly at `end`) of Normal memory.
        unsafe {
            asm!(
                "mrs {size}, dczid_el0",
                "and {size}, {size}, #15",
                "mov {step}, #4",
                "lsl {step}, {step}, {size}",
                "2: dc zva, {at}",
                "add {at}, {at}, {step}",
                "cmp {at}, {end}",
                "b.lo 2b",
                size = out(reg) _,
                step = out(reg) _,
                at = inout(reg) at => _,
                end = in(reg) end,
                options(nostack)
            );
        }
    }

    #[inline]
    unsafe fn copy_frame(from: *const u8, to: *mut u8) {
        let end = from.wrapping_add(4096);
        // SAFETY: the caller owns both frames, which are 4 KiB long; each round moves 128 bytes through four pairs of
        // registers, used twice.
        unsafe {
            asm!(
                "2:",
                ".rept 2",
                "ldp {a}, {b}, [{from}], #16",
                "ldp {c}, {d}, [{from}], #16",
                "ldp {e}, {f}, [{from}], #16",
                "ldp {g}, {h}, [{from}], #16",
                "stp {a}, {b}, [{to}], #16",
                "stp {c}, {d}, [{to}], #16",
                "stp {e}, {f}, [{to}], #16",
                "stp {g}, {h}, [{to}], #16",
                ".endr",
                "cmp {from}, {end}",
                "b.lo 2b",
                a = out(reg) _, b = out(reg) _, c = out(reg) _, d = out(reg) _,
                e = out(reg) _, f = out(reg) _, g = out(reg) _, h = out(reg) _,
                from = inout(reg) from => _,
                to = inout(reg) to => _,
                end = in(reg) end,
                options(nostack)
            );
        }
    }

    fn publish_code(at: *const u8, bytes: usize) {
        // The smallest line that any of this architecture has; cleaning a line twice is harmless.
        const LINE: usize = 16;
        let first = at as usize & !(LINE - 1);
        let end = at as usize + bytes;
        // SAFETY: the addresses are of the direct map; cleaning to the point of unification and invalidating
        // instruction caches changes no memory.
        unsafe {
            (first..end)
                .step_by(LINE)
                .for_each(|line| asm!("dc cvau, {}", in(reg) line, options(nostack, preserves_flags)));
            asm!("dsb ish", "ic ialluis", "dsb ish", "isb", options(nostack, preserves_flags));
        }
    }

    #[inline(always)]
    fn irq_save() -> bool {
        let were_enabled = daif() & I == 0;
        // SAFETY: masks interrupts. Not `nomem`: what follows stays behind it.
        unsafe { asm!("msr daifset, #2", options(nostack, preserves_flags)) };
        were_enabled
    }

    #[inline(always)]
    fn irq_restore(were_enabled: bool) {
        if were_enabled {
            // SAFETY: they were enabled before, so their handlers may run. Not `nomem`: what precedes stays before it.
            unsafe { asm!("msr daifclr, #2", options(nostack, preserves_flags)) };
        }
    }

    #[inline(always)]
    fn irqs_enabled() -> bool {
        daif() & I == 0
    }

    #[inline(always)]
    fn relax() {
        // SAFETY: a hint. Not `nomem`: a loop around it reads its condition again.
        unsafe { asm!("yield", options(nostack, preserves_flags)) };
    }

    #[inline(always)]
    fn wait_for_interrupt() {
        // SAFETY: sleeps until an interrupt is pending, which it also is while masked; then opens a window for its
        // handler.
        unsafe {
            asm!("dsb ish", "wfi", "msr daifclr, #2", "isb", "msr daifset, #2", options(nostack, preserves_flags));
        }
    }

    #[inline(always)]
    fn ring(target: &Cpu<Self>, bell: Doorbell) {
        gic::ring(target.hw_id, bell);
    }

    fn set_timer(ns: u64) {
        timer::set(ns);
    }

    fn stop_timer() {
        timer::stop();
    }

    #[inline(always)]
    fn instructions() -> u64 {
        counter::now()
    }

    unsafe fn init_root(root: PhysAddr) {
        // The kernel half has its own root; of this one, only the entry that points at itself is filled in. A table
        // descriptor is also a page descriptor that EL1 may read and nobody may write ([`entry`]).
        let slot = tlbi::SELF_MAP.index(Level::Pgd);
        // SAFETY: the caller gives a frame of 512 words, in RAM, to be a table; the slot is one of them. Table entries
        // are only accessed as atomics.
        let slot = unsafe { &*Self::direct_map(root).cast::<AtomicU64>().add(slot) };
        Self::store_entry(slot, <entry::Codec as EntryCodec>::table(root));
    }

    #[inline(always)]
    unsafe fn load_root(root: PhysAddr, asid: Asid) {
        // SAFETY: the caller's promise is the same.
        unsafe { mmu::load(root, asid) }
    }

    #[inline(always)]
    unsafe fn load_kernel_root() {
        mmu::unload();
    }

    #[inline]
    fn invalidate_local(asid: Asid, what: &Invalidation) -> u32 {
        tlbi::run(asid, what, Reach::Local, RANGES.load(Ordering::Relaxed))
    }

    #[inline]
    fn invalidate_broadcast(asid: Asid, what: &Invalidation) -> u32 {
        tlbi::run(asid, what, Reach::Broadcast, RANGES.load(Ordering::Relaxed))
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
    unsafe fn enter_user(context: NonNull<user_mode::Context>, in_cpu: bool) -> UserEvent {
        // SAFETY: passed on.
        unsafe { user_mode::Context::enter(context, in_cpu) }
    }

    #[inline(always)]
    fn probe_entry(at: VirtAddr) -> u64 {
        fixup::load_or_zero(at)
    }

    unsafe fn map_kernel_page(va: VirtAddr, page: PhysAddr, new_table: &mut dyn FnMut() -> PhysAddr) {
        // SAFETY: the caller's promise is the same.
        unsafe { kernel_map::map_page(va, page, new_table) }
    }

    unsafe fn switch_stack(top: VirtAddr, entry: extern "C" fn() -> !) -> ! {
        // SAFETY: the caller vouches for the stack; x29 and x30 are cleared, so that backtraces end here.
        unsafe {
            asm!(
                "mov sp, {top}", "mov x29, #0", "mov x30, #0", "br {entry}",
                top = in(reg) top.0, entry = in(reg) entry, options(noreturn)
            )
        }
    }
}
