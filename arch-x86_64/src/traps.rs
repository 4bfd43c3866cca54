//! The interrupt descriptor table, and what follows each vector.
//!
//! Two interrupts and the NMI go to the core. Page faults and general-protection faults first look whether the
//! instruction was allowed to fault ([`crate::fixup`]). Exceptions of ring 3 do not come here: [`crate::user_mode`].
//! Everything else is a panic that names vector, place and, for page faults, the address.

use core::arch::asm;
use core::fmt;

use kernel::upcall;
use spin::Once;
use x86_64::registers::control::Cr2;
use x86_64::{PrivilegeLevel, VirtAddr};
use x86_64::structures::idt::{InterruptDescriptorTable, PageFaultErrorCode};

use crate::descriptors::{DOUBLE_FAULT_STACK, MACHINE_CHECK_STACK, NMI_STACK};
use crate::kernel_map::KERNEL_STACKS;
use crate::{X86, apic, fixup, stubs};

/// The vector of [`kernel::arch::Doorbell::Call`].
pub const CALL_VECTOR: u8 = 0x40;
/// The timer's vector.
pub const TIMER_VECTOR: u8 = 0x41;
/// The vector of interrupts that were withdrawn.
pub const SPURIOUS_VECTOR: u8 = 0xff;

const DOUBLE_FAULT: u64 = 8;
const GENERAL_PROTECTION: u64 = 13;
pub(crate) const PAGE_FAULT: u64 = 14;

static TABLE: Once<InterruptDescriptorTable> = Once::new();

/// What an exception interrupted; the registers of a thread in ring 3.
#[derive(Debug, Default)]
#[repr(C)]
pub struct TrapFrame {
    pub(crate) r15: u64,
    pub(crate) r14: u64,
    pub(crate) r13: u64,
    pub(crate) r12: u64,
    r11: u64,
    pub(crate) r10: u64,
    pub(crate) r9: u64,
    pub(crate) r8: u64,
    pub(crate) rbp: u64,
    pub(crate) rdi: u64,
    pub(crate) rsi: u64,
    pub(crate) rdx: u64,
    rcx: u64,
    pub(crate) rbx: u64,
    pub(crate) rax: u64,
    pub(crate) vector: u64,
    pub(crate) code: u64,
    /// Of the interrupted instruction.
    pub rip: u64,
    pub(crate) cs: u64,
    /// Flags of the interrupted code.
    pub rflags: u64,
    /// Stack pointer of the interrupted code.
    pub rsp: u64,
    pub(crate) ss: u64,
}

/// Makes the calling CPU use the table, which the first caller fills in. The segments of [`crate::descriptors`] are
/// loaded.
pub fn load() {
    TABLE.call_once(build).load();
}

fn build() -> InterruptDescriptorTable {
    let mut table = InterruptDescriptorTable::new();
    let exception = |vector: u8| VirtAddr::new_truncate(stubs::exception_entry(vector));
    let address = |stub: extern "C" fn()| VirtAddr::from_ptr(stub as *const ());
    // SAFETY: each address is the entry that saves and restores what its kind of vector needs; the stacks by index are
    // those that `descriptors` puts there.
    unsafe {
        table.divide_error.set_handler_addr(exception(0));
        table.debug.set_handler_addr(exception(1));
        table.non_maskable_interrupt.set_handler_addr(address(stubs::nmi)).set_stack_index(NMI_STACK);
        table.breakpoint.set_handler_addr(exception(3)).set_privilege_level(PrivilegeLevel::Ring3);
        table.overflow.set_handler_addr(exception(4));
        table.bound_range_exceeded.set_handler_addr(exception(5));
        table.invalid_opcode.set_handler_addr(exception(6));
        table.device_not_available.set_handler_addr(exception(7));
        table.double_fault.set_handler_addr(exception(8)).set_stack_index(DOUBLE_FAULT_STACK);
        table.invalid_tss.set_handler_addr(exception(10));
        table.segment_not_present.set_handler_addr(exception(11));
        table.stack_segment_fault.set_handler_addr(exception(12));
        table.general_protection_fault.set_handler_addr(exception(13));
        table.page_fault.set_handler_addr(exception(14));
        table.x87_floating_point.set_handler_addr(exception(16));
        table.alignment_check.set_handler_addr(exception(17));
        table.machine_check.set_handler_addr(exception(18)).set_stack_index(MACHINE_CHECK_STACK);
        table.simd_floating_point.set_handler_addr(exception(19));
        table.virtualization.set_handler_addr(exception(20));
        table.cp_protection_exception.set_handler_addr(exception(21));
        for vector in 32..=255 {
            let entry = match vector {
                CALL_VECTOR => address(stubs::call),
                TIMER_VECTOR => address(stubs::timer),
                SPURIOUS_VECTOR => address(stubs::spurious),
                _ => exception(vector),
            };
            table[vector].set_handler_addr(entry);
        }
    }
    table
}

/// The call doorbell.
pub(crate) extern "C" fn on_call() {
    apic::end_of_interrupt();
    upcall::call::<X86>();
}

/// The timer.
pub(crate) extern "C" fn on_timer() {
    apic::end_of_interrupt();
    upcall::timer::<X86>();
}

/// An NMI. It is not acknowledged; others are held off until it returns, and then at most one is left of them. It may
/// have come between a page fault of ring 3 and the look at its address: a fault of its own, fixed up, must not be seen
/// there.
pub(crate) extern "C" fn on_nmi() {
    let address = Cr2::read_raw();
    upcall::nmi::<X86>();
    if Cr2::read_raw() != address {
        // SAFETY: the register has no effect but on who reads it.
        unsafe { asm!("mov cr2, {}", in(reg) address, options(nomem, nostack, preserves_flags)) };
    }
}

/// An interrupt that stopped user mode.
pub(crate) fn on_interrupt(vector: u8) {
    match vector {
        CALL_VECTOR => on_call(),
        TIMER_VECTOR => on_timer(),
        SPURIOUS_VECTOR => {}
        other => panic!("interrupt {other}, which nothing enabled"),
    }
}

/// An exception: returns only after a fix-up.
pub(crate) extern "C" fn on_exception(frame: &mut TrapFrame) {
    if matches!(frame.vector, PAGE_FAULT | GENERAL_PROTECTION)
        && let Some(resume) = fixup::resume_address(frame.rip)
    {
        frame.rip = resume;
        return;
    }
    panic!("{}", Fatal(frame));
}

/// A trap that cannot be survived, in words.
struct Fatal<'a>(&'a TrapFrame);

impl fmt::Display for Fatal<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let frame = self.0;
        let cr2 = Cr2::read_raw();
        match frame.vector {
            PAGE_FAULT => {
                write!(f, "page fault at {cr2:#x} ({})", Access(PageFaultErrorCode::from_bits_retain(frame.code)))?
            }
            DOUBLE_FAULT if cr2.abs_diff(frame.rsp) < 0x2000 && cr2 >= KERNEL_STACKS.0 => {
                write!(f, "kernel stack overflow: nothing is mapped at {cr2:#x}")?
            }
            DOUBLE_FAULT => write!(f, "double fault (last page fault at {cr2:#x})")?,
            vector => write!(f, "{} (vector {vector}, code {:#x})", name(vector), frame.code)?,
        }
        write!(f, ", rip {:#x}, rsp {:#x}, flags {:#x}", frame.rip, frame.rsp, frame.rflags)
    }
}

/// What a faulting access was, in words.
struct Access(PageFaultErrorCode);

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let has = |flag| self.0.contains(flag);
        let kind = if has(PageFaultErrorCode::INSTRUCTION_FETCH) {
            "fetch"
        } else if has(PageFaultErrorCode::CAUSED_BY_WRITE) {
            "write"
        } else {
            "read"
        };
        let why = if has(PageFaultErrorCode::MALFORMED_TABLE) {
            "a reserved bit is set"
        } else if has(PageFaultErrorCode::PROTECTION_VIOLATION) {
            "forbidden"
        } else {
            "not mapped"
        };
        write!(f, "{kind}, {why}")
    }
}

fn name(vector: u64) -> &'static str {
    match vector {
        0 => "division error",
        1 => "debug trap",
        3 => "breakpoint",
        4 => "overflow",
        5 => "bound exceeded",
        6 => "invalid instruction",
        7 => "floating point while off",
        10 => "bad task-state segment",
        11 => "missing segment",
        12 => "stack segment fault",
        GENERAL_PROTECTION => "general protection fault",
        16 | 19 => "floating-point error",
        17 => "misaligned access",
        18 => "machine check",
        21 => "control protection fault",
        32.. => "unexpected interrupt",
        _ => "exception",
    }
}
