//! The first instructions of each CPU: at a physical address, with the MMU off, until Rust runs at its linked address.
//!
//! QEMU enters the image at its ELF entry point on the boot CPU, with nothing in the registers; the firmware enters
//! started CPUs at [`secondary_address`] with their area's address in `x0`. Both may be at EL2 (`virtualization=on`);
//! the kernel runs at EL1. EL3 is refused: there would be no firmware to start the other CPUs.
//!
//! Until the MMU is on, code must not depend on where it runs: addresses come from `adrp`, which is relative to the
//! program counter, and so are physical. The boot CPU fills in three tables (see [`arch_aarch64::kernel_map`]); since
//! the direct map has the physical address in its low bits, the same root in `TTBR0` keeps the program counter valid at
//! the moment the MMU comes on. Then one jump to the linked address, and `TTBR0` is emptied.

use arch_aarch64::cpu_area::STACK_TOP;
use arch_aarch64::entry::{
    KERNEL_DATA_BLOCK, KERNEL_DEVICE_BLOCK, KERNEL_RODATA_BLOCK, KERNEL_TABLE, KERNEL_TEXT_BLOCK, MAIR,
};
use arch_aarch64::kernel_map::{DIRECT, IMAGE, ROOT};
use arch_aarch64::mmu::{EMPTY, SCTLR, TCR};
use core::arch::global_asm;
use core::cell::UnsafeCell;

use kernel::addr::PhysAddr;
use kernel::boot::ExitCode;

use super::memory::RAM_START;

const BOOT_STACK_BYTES: usize = 64 * 1024;

/// The boot CPU's first stack; the kernel leaves it for a guarded one.
#[repr(C, align(4096))]
struct BootStack(UnsafeCell<[u8; BOOT_STACK_BYTES]>);

// SAFETY: Rust code never refers to the bytes; one CPU uses them as its stack.
unsafe impl Sync for BootStack {}

static BOOT_STACK: BootStack = BootStack(UnsafeCell::new([0; BOOT_STACK_BYTES]));

global_asm!(
    r#"
.section .text.entry, "ax"

// Puts the address of \symbol, which is page-aligned, into \register.
.macro page_of register, symbol
    adrp \register, \symbol
.endm

// Maps the 2 MiB blocks of the image from \first to \last with \attributes. x4 is the table; changes x5 to x8.
.macro map_blocks first, last, attributes
    adrp x5, \first
    adrp x6, \last
    ldr x7, =\attributes
1:  cmp x5, x6
    b.hs 2f
    ubfx x8, x5, #21, #9
    orr x9, x5, x7
    str x9, [x4, x8, lsl #3]
    add x5, x5, #0x200000
    b 1b
2:
.endm

// Nothing of the table in \register may linger in a cache: it is about to be written with caches off.
.macro invalidate_table register
    mov x5, \register
    add x6, \register, #4096
1:  dc ivac, x5
    add x5, x5, #16
    cmp x5, x6
    b.lo 1b
.endm

.global _start
_start:
    msr daifset, #15
    bl enter_el1
    page_of x1, {root}
    page_of x2, {direct}
    page_of x4, {image}
    invalidate_table x1
    invalidate_table x2
    invalidate_table x4
    dsb sy
    mov x7, #{table}
    orr x3, x2, x7
    str x3, [x1]
    orr x3, x4, x7
    str x3, [x2, #8]
    ldr x3, ={device}
    str x3, [x2]
    ldr x3, ={devicetree}
    str x3, [x4]
    map_blocks __text_start, __text_end, {text}
    map_blocks __rodata_start, __rodata_end, {rodata}
    map_blocks __data_start, __data_end, {data}
    dsb sy
    ldr x30, =boot_high
    b enable_mmu

boot_high:
    adrp x0, {stack}
    add x0, x0, :lo12:{stack}
    mov x1, #{stack_bytes}
    add sp, x0, x1
    msr tpidr_el1, xzr
    mov x29, #0
    mov x30, #0
    bl {start}
    brk #0

.global secondary_start
secondary_start:
    msr daifset, #15
    mov x19, x0
    bl enter_el1
    ldr x30, =secondary_high
    b enable_mmu

secondary_high:
    ldr x0, [x19, #{stack_top}]
    mov sp, x0
    msr tpidr_el1, x19
    mov x0, x19
    mov x29, #0
    mov x30, #0
    bl {secondary}
    brk #0

// Turns the MMU on and returns to x30, an address in the upper half. Changes x0 to x3.
enable_mmu:
    ldr x0, ={mair}
    msr mair_el1, x0
    // The physical address size, as the CPU has it but at most 48 bits.
    mrs x1, id_aa64mmfr0_el1
    and x1, x1, #7
    mov x2, #5
    cmp x1, x2
    csel x1, x1, x2, lo
    ldr x0, ={tcr}
    orr x0, x0, x1, lsl #32
    msr tcr_el1, x0
    page_of x1, {root}
    msr ttbr0_el1, x1
    msr ttbr1_el1, x1
    page_of x3, {empty}
    isb
    tlbi vmalle1
    ic iallu
    dsb nsh
    isb
    ldr x0, ={sctlr}
    msr sctlr_el1, x0
    isb
    adr x0, 1f
    // The same place in the direct map, whose base is all ones above 48 bits.
    orr x0, x0, #0xffff000000000000
    br x0
1:  msr ttbr0_el1, x3
    isb
    // The lower half was translated as global.
    tlbi vmalle1
    dsb nsh
    isb
    ret

// Continues at EL1 where x30 says, with the MMU off. Changes x0.
enter_el1:
    mrs x0, CurrentEL
    cmp x0, #8
    b.eq 1f
    b.hi refuse_el3
    ret
1:  mov x0, #(1 << 31)
    msr hcr_el2, x0
    mrs x0, cnthctl_el2
    orr x0, x0, #3
    msr cnthctl_el2, x0
    msr cntvoff_el2, xzr
    // System registers of the interrupt controller, for EL1 too.
    mrs x0, S3_4_C12_C9_5
    orr x0, x0, #1
    orr x0, x0, #8
    msr S3_4_C12_C9_5, x0
    isb
    msr S3_4_C12_C11_0, xzr
    ldr x0, =0x30d00800
    msr sctlr_el1, x0
    mov x0, #0x3c5
    msr spsr_el2, x0
    msr elr_el2, x30
    eret

// Secure firmware's place (secure=on): says so where the console of this machine always is, and leaves QEMU.
refuse_el3:
    adr x1, 3f
    mov x2, #{console}
1:  ldrb w3, [x1], #1
    cbz w3, 2f
    str w3, [x2]
    b 1b
2:  mov x0, #{exit}
    adr x1, 4f
    hlt #0xf000
    b 2b
3:  .asciz "[cpu0] error: started at EL3; this kernel is no firmware (use -M virt without secure=on)\n"
.balign 8
4:  .quad {exit_reason}, {refused}
.ltorg
"#,
    root = sym ROOT,
    direct = sym DIRECT,
    image = sym IMAGE,
    empty = sym EMPTY,
    stack = sym BOOT_STACK,
    stack_bytes = const BOOT_STACK_BYTES,
    stack_top = const STACK_TOP,
    table = const KERNEL_TABLE,
    device = const KERNEL_DEVICE_BLOCK,
    devicetree = const RAM_START | KERNEL_RODATA_BLOCK,
    text = const KERNEL_TEXT_BLOCK,
    rodata = const KERNEL_RODATA_BLOCK,
    data = const KERNEL_DATA_BLOCK,
    mair = const MAIR,
    tcr = const TCR,
    sctlr = const SCTLR,
    console = const super::console::FIXED,
    exit = const super::semihosting::EXIT,
    exit_reason = const super::semihosting::APPLICATION_EXIT,
    refused = const ExitCode::Refused as u64,
    start = sym super::boot::boot,
    secondary = sym super::boot::secondary,
);

unsafe extern "C" {
    static secondary_start: u8;
}

/// Where the firmware shall start a CPU.
pub(super) fn secondary_address() -> PhysAddr {
    // SAFETY: the symbol is the first byte of the code above; only its address is used.
    arch_aarch64::kernel_map::physical(unsafe { &secondary_start })
}
