//! Segments, and the stacks of interrupts that must not use the one they find.
//!
//! Three vectors switch stacks by the task-state segment: NMI, which interrupts anything; double fault, which is what a
//! fault with an unusable stack becomes; machine check. Page faults do *not*: they run on the stack they find, so that
//! a fault that is fixed up can nest (in an NMI that interrupted another fault's handler) and can return without IRET,
//! which would unmask NMIs (`stubs`). A fault on a stack that ran into its guard page cannot push its frame and arrives
//! as a double fault, with the address still in CR2.

use core::arch::asm;
use core::cell::UnsafeCell;

use spin::Once;
use x86_64::VirtAddr;
use x86_64::instructions::segmentation::{CS, DS, ES, SS, Segment};
use x86_64::instructions::tables::{load_tss, sgdt};
use x86_64::structures::gdt::{Descriptor, GlobalDescriptorTable, SegmentSelector};
use x86_64::structures::tss::TaskStateSegment;

/// Index of the double-fault stack in the interrupt stack table.
pub const DOUBLE_FAULT_STACK: u16 = 0;
/// Index of the NMI stack.
pub const NMI_STACK: u16 = 1;
/// Index of the machine-check stack.
pub const MACHINE_CHECK_STACK: u16 = 2;

/// Selector of the kernel's code segment. The order of the segments is what SYSCALL and SYSRET want.
pub(crate) const KERNEL_CODE: u16 = 1 << 3;
/// Selector of the kernel's data segment.
pub(crate) const KERNEL_DATA: u16 = 2 << 3;
/// Selector of the data segment of ring 3.
pub(crate) const USER_DATA: u16 = 3 << 3 | 3;
/// Selector of the code segment of ring 3.
pub(crate) const USER_CODE: u16 = 4 << 3 | 3;
/// Where a task-state segment has the stack pointer for traps from ring 3.
pub(crate) const PRIVILEGED_STACK: usize = 4;

/// Bytes of the two stacks that only ever lead to a panic.
const LAST_STACK_BYTES: usize = 8 << 10;
/// Bytes of the NMI stack: the core's walks run on it.
const NMI_STACK_BYTES: usize = 16 << 10;

/// The three stacks of one CPU. 32 KiB; all zeroes is a valid value.
#[repr(C, align(16))]
pub struct InterruptStacks {
    double_fault: UnsafeCell<[u8; LAST_STACK_BYTES]>,
    machine_check: UnsafeCell<[u8; LAST_STACK_BYTES]>,
    nmi: UnsafeCell<[u8; NMI_STACK_BYTES]>,
}

// SAFETY: Rust code never refers to the bytes; the interrupts of one CPU use them as stacks.
unsafe impl Sync for InterruptStacks {}
// SAFETY: as above; they belong to no CPU until one is given them.
unsafe impl Send for InterruptStacks {}

impl InterruptStacks {
    /// Unused ones.
    pub const fn new() -> InterruptStacks {
        InterruptStacks {
            double_fault: UnsafeCell::new([0; LAST_STACK_BYTES]),
            machine_check: UnsafeCell::new([0; LAST_STACK_BYTES]),
            nmi: UnsafeCell::new([0; NMI_STACK_BYTES]),
        }
    }
}

impl Default for InterruptStacks {
    fn default() -> Self {
        InterruptStacks::new()
    }
}

/// One CPU's segments and task-state segment. Filled in and loaded by [`CpuTables::load`].
#[derive(Default)]
pub struct CpuTables {
    task_state: Once<TaskState>,
    segments: Once<Segments>,
}

/// A task-state segment. The processor reads it, and the way to ring 3 writes to its stack pointer.
struct TaskState(UnsafeCell<TaskStateSegment>);

// SAFETY: after `CpuTables::load` only its CPU touches it, and by assembly only.
unsafe impl Sync for TaskState {}
// SAFETY: as above.
unsafe impl Send for TaskState {}

struct Segments {
    table: GlobalDescriptorTable,
    code: SegmentSelector,
    data: SegmentSelector,
    task_state: SegmentSelector,
}

static BOOT_STACKS: InterruptStacks = InterruptStacks::new();
static BOOT_TABLES: CpuTables = CpuTables::new();

/// Loads the boot CPU's tables, which need no heap.
///
/// # Safety
/// Called once, by the boot CPU.
pub unsafe fn load_boot() {
    // SAFETY: nobody else uses the boot CPU's stacks.
    unsafe { BOOT_TABLES.load(&BOOT_STACKS) };
}

impl CpuTables {
    /// Empty ones.
    pub const fn new() -> CpuTables {
        CpuTables { task_state: Once::new(), segments: Once::new() }
    }

    /// Makes the calling CPU use these tables, with `stacks` for the interrupts that switch stacks. The GS base stays
    /// as it is.
    ///
    /// # Safety
    /// These tables and these stacks are used by no other CPU, and were not loaded before.
    pub unsafe fn load(&'static self, stacks: &'static InterruptStacks) {
        let task_state = self.task_state.call_once(|| {
            let mut segment = TaskStateSegment::new();
            segment.interrupt_stack_table[DOUBLE_FAULT_STACK as usize] = end_of(&stacks.double_fault);
            segment.interrupt_stack_table[MACHINE_CHECK_STACK as usize] = end_of(&stacks.machine_check);
            segment.interrupt_stack_table[NMI_STACK as usize] = end_of(&stacks.nmi);
            TaskState(UnsafeCell::new(segment))
        });
        let segments = self.segments.call_once(|| {
            let mut table = GlobalDescriptorTable::new();
            let code = table.append(Descriptor::kernel_code_segment());
            let data = table.append(Descriptor::kernel_data_segment());
            for (selector, descriptor) in
                [(USER_DATA, Descriptor::user_data_segment()), (USER_CODE, Descriptor::user_code_segment())]
            {
                let got = table.append(descriptor);
                debug_assert_eq!(got.0, selector);
            }
            // SAFETY: the segment is in a static or leaked table and stays there.
            let task_state = table.append(unsafe { Descriptor::tss_segment_unchecked(task_state.0.get()) });
            debug_assert_eq!((code.0, data.0), (KERNEL_CODE, KERNEL_DATA));
            Segments { table, code, data, task_state }
        });
        segments.table.load();
        // SAFETY: the selectors are those of the table just loaded, and of the kind that each register wants. FS and GS
        // are left alone: loading GS would clear its base.
        unsafe {
            CS::set_reg(segments.code);
            SS::set_reg(segments.data);
            DS::set_reg(segments.data);
            ES::set_reg(segments.data);
            load_tss(segments.task_state);
        }
    }
}

/// Empties the segment registers that mean nothing to programs of 64 bits but that they can load, and read: whoever runs
/// in another address space finds nothing in them. Interrupts are masked.
#[inline]
pub(crate) fn forget_selectors() {
    // SAFETY: the kernel uses none of these but GS, whose base is away while its selector is loaded; an NMI in between
    // looks at the base itself.
    unsafe {
        asm!(
            "mov ds, {none:e}", "mov es, {none:e}", "mov fs, {none:e}", "swapgs", "mov gs, {none:e}", "swapgs",
            none = in(reg) 0, options(nomem, nostack, preserves_flags)
        )
    };
}

/// The address of the task-state segment that the calling CPU uses.
pub(crate) fn task_state_here() -> u64 {
    let table = sgdt().base.as_u64();
    let mut selector: u16;
    // SAFETY: reads the task register.
    unsafe { asm!("str {:x}", out(reg) selector, options(nomem, nostack, preserves_flags)) };
    let entry = (table + u64::from(selector)) as *const u64;
    // SAFETY: the table that is loaded has the segment's descriptor there, in two words.
    let (low, high) = unsafe { (entry.read_unaligned(), entry.add(1).read_unaligned()) };
    high << 32 | low >> 32 & 0xff00_0000 | low >> 16 & 0x00ff_ffff
}

fn end_of<const N: usize>(stack: &'static UnsafeCell<[u8; N]>) -> VirtAddr {
    VirtAddr::from_ptr(stack) + N as u64
}
