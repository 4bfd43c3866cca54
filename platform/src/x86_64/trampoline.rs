//! Starting the other CPUs: from real mode in a page below 1 MiB to Rust in the high half.
//!
//! The code is copied to [`PAGE`] once and never written again: a CPU finds its area by its own APIC number in
//! [`AREAS`], so any number of CPUs may be on their way at once.

use core::arch::global_asm;
use core::ptr::{copy_nonoverlapping, null_mut};
use core::sync::atomic::{AtomicPtr, Ordering};

use alloc::boxed::Box;

use arch_x86_64::descriptors::InterruptStacks;
use arch_x86_64::kernel_map::{self, IMAGE_BASE};
use arch_x86_64::{X86, apic, control, cpu_area, traps, user_mode};
use kernel::addr::PhysAddr;
use kernel::arch::Arch;
use kernel::boot::StartError;
use kernel::smp::cpu::Cpu;

use super::entry::{CR0, CR4, EFER, EFER_BITS};

/// Where the code runs; the first MiB is never given to the core.
const PAGE: u64 = 0x8000;

/// The areas of the CPUs that were told to start, by APIC number.
#[unsafe(no_mangle)]
static AREAS: [AtomicPtr<Cpu<X86>>; 256] = [const { AtomicPtr::new(null_mut()) }; 256];

// Addresses in the copy are offsets into it plus PAGE.
global_asm!(
    ".pushsection .rodata.trampoline, \"a\"",
    ".balign 16",
    ".global trampoline_start",
    ".global trampoline_end",
    ".global started_high",
    "trampoline_start:",
    ".code16",
    "cli",
    "cld",
    "xorw %ax, %ax",
    "movw %ax, %ds",
    "lgdtl {page} + trampoline_segments_pointer - trampoline_start",
    "movl %cr0, %eax",
    "orl $1, %eax",
    "movl %eax, %cr0",
    "ljmpl $8, $({page} + trampoline_32 - trampoline_start)",
    ".code32",
    "trampoline_32:",
    "movw $16, %ax",
    "movw %ax, %ds",
    "movl ${cr4}, %eax",
    "movl %eax, %cr4",
    "movl $(EARLY_ROOT - {base}), %eax",
    "movl %eax, %cr3",
    "movl ${efer}, %ecx",
    "rdmsr",
    "orl ${efer_bits}, %eax",
    "wrmsr",
    "movl ${cr0}, %eax",
    "movl %eax, %cr0",
    "ljmpl $24, $({page} + trampoline_64 - trampoline_start)",
    ".code64",
    "trampoline_64:",
    "movabsq $started_high, %rax",
    "jmpq *%rax",
    ".balign 8",
    // Null, 32-bit code, data, 64-bit code.
    "trampoline_segments:",
    ".quad 0",
    ".quad 0x00cf9b000000ffff",
    ".quad 0x00cf93000000ffff",
    ".quad 0x00af9b000000ffff",
    "trampoline_segments_pointer:",
    ".word 31",
    ".long {page} + trampoline_segments - trampoline_start",
    "trampoline_end:",
    ".popsection",
    page = const PAGE,
    base = const IMAGE_BASE as i64,
    cr4 = const CR4,
    efer = const EFER,
    efer_bits = const EFER_BITS,
    cr0 = const CR0,
    options(att_syntax)
);

// In the image. The kernel's own root comes first: the CPU's stack is mapped only there. Then the area, by the number
// that CPUID leaf 1 has in EBX, bits 31 to 24.
global_asm!(
    "started_high:",
    "movq ${root} - {base}, %rax",
    "movq %rax, %cr3",
    "xorl %eax, %eax",
    "movl %eax, %ds",
    "movl %eax, %es",
    "movl %eax, %fs",
    "movl %eax, %gs",
    "movl %eax, %ss",
    "movl $1, %eax",
    "cpuid",
    "shrl $24, %ebx",
    "leaq {areas}(%rip), %rax",
    "movq (%rax, %rbx, 8), %rdi",
    "movq {stack_top}(%rdi), %rsp",
    "xorl %ebp, %ebp",
    "call {started}",
    "ud2",
    root = sym kernel_map::ROOT,
    base = const IMAGE_BASE as i64,
    areas = sym AREAS,
    stack_top = const cpu_area::STACK_TOP,
    started = sym started,
    options(att_syntax)
);

unsafe extern "C" {
    static trampoline_start: u8;
    static trampoline_end: u8;
}

/// Puts the code where started CPUs begin. The direct map is loaded.
pub(super) fn install() {
    let start = &raw const trampoline_start;
    // SAFETY: both symbols bracket the code in the image; the page is RAM that the core is never given, and no CPU runs
    // there yet.
    unsafe {
        let bytes = (&raw const trampoline_end).offset_from(start) as usize;
        copy_nonoverlapping(start, kernel_map::direct(PhysAddr(PAGE)), bytes);
    }
}

/// Starts `cpu`: [`kernel::boot::BootInfo::start_cpu`].
pub(super) fn start_cpu(cpu: &'static Cpu<X86>) -> Result<(), StartError> {
    if cpu.hw_id > apic::LAST_ID {
        return Err(StartError::Unaddressable(cpu.hw_id));
    }
    cpu.arch.stacks.call_once(|| {
        // SAFETY: all zeroes is a valid value of the stacks. Made in place, since they are larger than a stack has room
        // for.
        Box::leak(unsafe { Box::<InterruptStacks>::new_zeroed().assume_init() })
    });
    // Release: pairs with the started CPU's load, which its reset and start order after this (tests/litmus/hand-over).
    AREAS[cpu.hw_id as usize].store((cpu as *const Cpu<X86>).cast_mut(), Ordering::Release);
    apic::start(cpu.hw_id, (PAGE >> 12) as u8)
}

/// A started CPU, on its own stack, with the kernel's page tables.
extern "C" fn started(cpu: &'static Cpu<X86>) -> ! {
    let stacks = cpu.arch.stacks.get().expect("start_cpu gave it stacks");
    // SAFETY: the entry code found this CPU's own area, by its number, and only it does; its tables and stacks are
    // nobody else's.
    unsafe {
        X86::set_this_cpu(cpu);
        cpu.arch.tables.load(stacks);
    }
    traps::load();
    control::init_cpu();
    user_mode::init_cpu();
    apic::init_cpu();
    kernel::boot::secondary(cpu)
}
