//! The whole boundary between the core and a machine: one trait.
//!
//! `arch-x86_64` and `arch-aarch64` implement it over hardware, `arch-sim` over a simulated machine. The core calls
//! nothing else that is privileged or that depends on an architecture, and every entry of every table goes through
//! [`Arch::load_entry`] and its siblings, so that a simulated machine sees each access.
//!
//! The calls in the other direction are in [`crate::upcall`].

use core::ptr::NonNull;
use core::sync::atomic::{AtomicU64, Ordering};

use crate::addr::{Level, PhysAddr, VirtAddr};
use crate::machine::Machine;
use crate::mm::entry::EntryCodec;
use crate::smp::cpu::Cpu;
use crate::task::user::{UserContext, UserEvent};
use crate::tlb::invalidation::Invalidation;

/// What an architecture flushes with when nobody chooses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NativeTransport {
    /// Other CPUs invalidate in an interrupt handler.
    Ipi,
    /// One instruction reaches every TLB.
    Broadcast,
}

/// Which interrupt to raise on another CPU.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Doorbell {
    /// An ordinary interrupt, held off while the target has interrupts masked: [`crate::upcall::call`].
    Call,
    /// An interrupt that also reaches code with interrupts masked (NMI; Group 0 FIQ): [`crate::upcall::nmi`].
    Nmi,
}

/// The address-space identifier that translations of one mm are tagged with. 0 is the kernel's; where the
/// hardware has no tags every mm has 0.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Asid(pub u16);

/// An access to a user address found no translation, or one that forbids it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct UserFault;

/// How table entries are read. Acquire: pairs with [`ENTRY_STORE`], before which what the entry points at was made
/// (tests/litmus/hand-over).
pub const ENTRY_LOAD: Ordering = Ordering::Acquire;
/// How table entries are written. Release: pairs with [`ENTRY_LOAD`] (tests/litmus/hand-over).
pub const ENTRY_STORE: Ordering = Ordering::Release;
/// How table entries are exchanged. AcqRel: with both halves an exchange is a full barrier on both architectures, which
/// `targeted-v4` rests on (tests/litmus/exchange-clear).
pub const ENTRY_SWAP: Ordering = Ordering::AcqRel;

/// A machine, as the core sees it. All functions act on the CPU that calls them.
pub trait Arch: Copy + Send + Sync + Sized + 'static {
    /// Name as on the command line: `x86_64`, `aarch64`.
    const NAME: &'static str;
    /// `e_machine` of ELF files with programs for it.
    const ELF_MACHINE: u16;
    /// The format of table entries.
    type Codec: EntryCodec;
    /// What the architecture keeps per CPU (descriptor tables, interrupt stacks); inside [`Cpu`].
    type CpuLocal: Default + Sync + Send;
    /// The registers of a thread in user mode; [`crate::task::user::NoUserMode`] where there is no user mode.
    type UserContext: UserContext;
    /// The transport of this architecture's usual kernels.
    const NATIVE_TRANSPORT: NativeTransport;
    /// Above this many entries an invalidation takes the whole address space instead
    /// (Linux: 33 on x86, 512 on arm64).
    const INVALIDATION_CEILING: u64;
    /// First address above the user half.
    const USER_END: VirtAddr;
    /// First of the 512 GiB through which the tables of the mm that is loaded can be read, since its root points at
    /// itself there ([`Arch::init_root`]); 0 where there is no such mapping. Read-only, never executable, closed to
    /// user mode, tagged like the mm, above every address that a region may have. See [`crate::mm::self_map`].
    const SELF_MAP: VirtAddr = VirtAddr(0);
    /// Whether the hardware takes a 2 MiB leaf for a valid 4 KiB one where a walk of four levels ends on it, so that
    /// through [`Arch::SELF_MAP`] the page's *contents* can be read as if they were entries. x86_64: yes (PS and PAT
    /// are the same bit). aarch64: no (a block is no page).
    const LEAF_READS_AS_TABLE: bool = false;
    /// Where per-CPU kernel stacks may be mapped: at least 512 × 128 KiB from here are free in the kernel half.
    const KERNEL_STACKS: VirtAddr;

    /// How many distinct tags an mm can have on this machine; 1 where translations are not tagged. Found out by asking
    /// the boot CPU, before [`Arch::install_machine`]; the same ever after, on all CPUs.
    fn asids() -> u32;
    /// Whether translations are tagged, and so outlive a switch to another mm.
    #[inline(always)]
    fn tagged() -> bool {
        Self::asids() > 1
    }
    /// Whether this machine has instructions that invalidate on all CPUs without interrupting them:
    /// [`Arch::invalidate_broadcast`]. Found out as [`Arch::asids`] is. Where it has none,
    /// [`crate::tlb::transport::nmi`] plays them.
    fn has_broadcast_invalidation() -> bool;
    /// Whether one instruction invalidates a run of pages, here and everywhere, on this machine: asked when its closed
    /// forms are.
    fn has_range_invalidation() -> bool {
        false
    }

    /// The machine that was given to [`Arch::install_machine`].
    fn machine() -> &'static Machine<Self>;
    /// Makes `machine` the one that [`Arch::machine`] returns. Called once, by the boot CPU, before any other CPU runs.
    fn install_machine(machine: Machine<Self>) -> &'static Machine<Self>;

    /// The calling CPU's area.
    fn this_cpu() -> &'static Cpu<Self>;
    /// Makes `cpu` the area that [`Arch::this_cpu`] returns on this CPU.
    ///
    /// # Safety
    /// `cpu` describes the calling CPU; no other CPU was given it.
    unsafe fn set_this_cpu(cpu: &'static Cpu<Self>);

    /// Where the kernel reaches physical address `pa`; valid for all RAM of the memory map.
    fn direct_map(pa: PhysAddr) -> *mut u8;

    /// Reads a table entry. Acquire: pairs with the release of the store that published what the entry points at.
    #[inline(always)]
    fn load_entry(slot: &AtomicU64) -> u64 {
        slot.load(ENTRY_LOAD)
    }
    /// Writes a table entry. Release: pairs with [`Arch::load_entry`].
    #[inline(always)]
    fn store_entry(slot: &AtomicU64, raw: u64) {
        slot.store(raw, ENTRY_STORE)
    }
    /// Writes a table entry and returns the one before. A full barrier: AcqRel read-modify-writes on both architectures
    /// are (`XCHG`; `SWPAL`), and [`Arch::fence`] is used where the proof needs one.
    #[inline(always)]
    fn swap_entry(slot: &AtomicU64, raw: u64) -> u64 {
        slot.swap(raw, ENTRY_SWAP)
    }
    /// Replaces `old` by `new`, or returns what was there.
    #[inline(always)]
    fn replace_entry(slot: &AtomicU64, old: u64, new: u64) -> Result<u64, u64> {
        slot.compare_exchange(old, new, ENTRY_SWAP, ENTRY_LOAD)
    }
    /// A full barrier (`MFENCE` or a locked instruction; `DMB ISH`).
    #[inline(always)]
    #[cfg_attr(any(loom, feature = "observed"), track_caller)]
    fn fence() {
        crate::atomic::fence(Ordering::SeqCst)
    }

    /// Fills the 4 KiB at `at` with zeroes, in the machine's best way.
    ///
    /// # Safety
    /// `at` is page-aligned, mapped for writing, and nothing refers to it.
    #[inline]
    unsafe fn zero_frame(at: *mut u8) {
        // SAFETY: the caller's.
        unsafe { core::ptr::write_bytes(at.cast::<u64>(), 0, 512) }
    }

    /// Copies the 4 KiB at `from` to `to`, in the machine's best way.
    ///
    /// # Safety
    /// Both are page-aligned, mapped, and different; nobody else writes either.
    #[inline]
    unsafe fn copy_frame(from: *const u8, to: *mut u8) {
        // SAFETY: the caller's.
        unsafe { core::ptr::copy_nonoverlapping(from.cast::<u64>(), to.cast::<u64>(), 512) }
    }

    /// Makes instructions that were written to the `bytes` at `at`, an address of the direct map, fetchable. Nothing to
    /// do where fetches see stores.
    fn publish_code(at: *const u8, bytes: usize) {
        let _ = (at, bytes);
    }

    /// Masks interrupts and says whether they had been enabled. The NMI doorbell is not masked.
    fn irq_save() -> bool;
    /// Puts back what [`Arch::irq_save`] returned.
    fn irq_restore(were_enabled: bool);
    /// Whether interrupts are enabled.
    fn irqs_enabled() -> bool;
    /// To be called in every wait loop: `PAUSE`, `YIELD`. Under `-icount` this is what lets another CPU run.
    fn relax();
    /// Called with interrupts masked: sleeps until one is pending, takes it, returns with interrupts masked again.
    fn wait_for_interrupt();
    /// Raises an interrupt on `target`, which is not the calling CPU. Stores before this call are visible to its
    /// handler.
    fn ring(target: &Cpu<Self>, bell: Doorbell);
    /// Arms this CPU's one-shot timer, `ns` nanoseconds of the machine's time from now: [`crate::upcall::timer`].
    fn set_timer(ns: u64);
    /// Disarms this CPU's timer.
    fn stop_timer();
    /// Instructions executed so far; under `-icount` by all CPUs together, exactly. Elsewhere a cycle or tick counter.
    fn instructions() -> u64;

    /// Prepares a zeroed frame as the root of an mm (where user and kernel half share one root: copies the kernel's
    /// entries).
    ///
    /// # Safety
    /// `root` is a zeroed frame that nothing else uses.
    unsafe fn init_root(root: PhysAddr);
    /// Makes the CPU translate the user half by `root`, tagged `asid`. Where translations are not tagged this drops all
    /// non-global translations and paging-structure caches of the CPU. Orders earlier entry stores before later walks.
    ///
    /// # Safety
    /// `root` was prepared by [`Arch::init_root`] and stays a root until another is loaded. Interrupts are masked.
    unsafe fn load_root(root: PhysAddr, asid: Asid);
    /// Makes the CPU translate nothing in the user half.
    ///
    /// # Safety
    /// Interrupts are masked.
    unsafe fn load_kernel_root();
    /// Invalidates on this CPU only, including its paging-structure caches where `what.tables`. Returns how many
    /// invalidation instructions that took.
    fn invalidate_local(asid: Asid, what: &Invalidation) -> u32;
    /// Invalidates on all CPUs without interrupting them, and waits for completion. Only where
    /// [`Arch::has_broadcast_invalidation`]. Returns how many broadcast instructions that took.
    fn invalidate_broadcast(asid: Asid, what: &Invalidation) -> u32;

    /// Reads eight bytes at a user address through this CPU's translation.
    fn read_user(va: VirtAddr) -> Result<u64, UserFault>;
    /// Writes eight bytes at a user address through this CPU's translation.
    fn write_user(va: VirtAddr, value: u64) -> Result<(), UserFault>;

    /// Runs `context` in user mode, on the mm that is loaded, until something stops it. Called with interrupts masked,
    /// and returns with interrupts masked; in between they are not. An interrupt that stopped it was taken: its upcall
    /// has run. An NMI does not stop it.
    ///
    /// A system call is first shown to [`crate::task::fast::system_call`], and what comes of that is gone on with,
    /// which may be another context. So what stopped may be another one than what began: this CPU's current thread says
    /// which.
    ///
    /// # Safety
    /// They are the registers of this CPU's current thread, and nobody else refers to them. With `in_cpu` it is the one
    /// that was stopped here last, and was not parked ([`UserContext::park`]).
    unsafe fn enter_user(context: NonNull<Self::UserContext>, in_cpu: bool) -> UserEvent;

    /// Reads the table entry at `at`, an address in [`Arch::SELF_MAP`], through this CPU's own translation. 0, which is
    /// what an absent entry reads, where there is no translation: the exception table continues behind the load, no
    /// general fault path is entered. One instruction when it succeeds.
    ///
    /// Acquire, and not before an earlier release or read-modify-write either: a reference that was taken before is
    /// visible before this load is done.
    #[inline(always)]
    fn probe_entry(at: VirtAddr) -> u64 {
        let _ = at;
        0
    }

    /// Maps one 4 KiB kernel page, readable and writable, never executable, taking zeroed table frames from
    /// `new_table`. The slot was empty.
    ///
    /// # Safety
    /// `va` is in the kernel half and nothing refers to it; `page` is not otherwise in use. Only before other CPUs run.
    unsafe fn map_kernel_page(va: VirtAddr, page: PhysAddr, new_table: &mut dyn FnMut() -> PhysAddr);
    /// Continues in `entry` on an empty stack that ends at `top` (16-byte aligned), and forgets the present one.
    ///
    /// # Safety
    /// `top` ends a mapped stack that nothing else uses; nothing on the present stack is needed again.
    unsafe fn switch_stack(top: VirtAddr, entry: extern "C" fn() -> !) -> !;

    /// Which levels may hold leaves that the core uses: 4 KiB and 2 MiB.
    fn leaf_allowed(level: Level) -> bool {
        matches!(level, Level::Pte | Level::Pmd)
    }
}
