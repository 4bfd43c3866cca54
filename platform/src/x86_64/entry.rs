//! The first instructions: from 32-bit mode without paging, where the firmware leaves the boot CPU (PVH), to Rust in
//! the high half.
//!
//! The tables built here map the first 4 GiB three times by 2 MiB pages: at their own addresses, for the code that
//! turns paging on; at the direct map's place; and the first of them at the image's. Everything in them may be written
//! and executed. The boot CPU leaves them for the kernel's own tables as soon as those are built; started CPUs pass
//! through them in the same way (`trampoline`).

use core::arch::global_asm;

use arch_x86_64::kernel_map::{DIRECT_MAP, IMAGE_BASE, Table};

/// The root of these tables; its physical address fits 32 bits.
#[unsafe(no_mangle)]
pub(super) static EARLY_ROOT: Table = Table::new();
/// Gibibytes from 0: for the identity map and the direct map.
#[unsafe(no_mangle)]
static EARLY_LOW: Table = Table::new();
/// Gibibytes of the last 512: the image's is the last but one.
#[unsafe(no_mangle)]
static EARLY_HIGH: Table = Table::new();
/// 2 MiB pages of the first 4 GiB.
#[unsafe(no_mangle)]
static EARLY_PAGES: [Table; 4] = [const { Table::new() }; 4];

/// Bytes of the stack that the boot CPU uses until the core gives it another.
const BOOT_STACK_BYTES: usize = 64 << 10;

/// That stack.
#[repr(C, align(16))]
struct BootStack(core::cell::UnsafeCell<[u8; BOOT_STACK_BYTES]>);

// SAFETY: Rust code never refers to the bytes; only the boot CPU uses them, as its stack.
unsafe impl Sync for BootStack {}

#[unsafe(no_mangle)]
static BOOT_STACK: BootStack = BootStack(core::cell::UnsafeCell::new([0; BOOT_STACK_BYTES]));

/// CR4: physical-address extension, global pages.
pub(super) const CR4: u32 = 1 << 5 | 1 << 7;
/// The model-specific register EFER, and what goes into it: long mode, no-execute.
pub(super) const EFER: u32 = 0xc000_0080;
/// See [`EFER`].
pub(super) const EFER_BITS: u32 = 1 << 8 | 1 << 11;
/// CR0: protection, coprocessor monitoring, extension type, numeric errors, write protection, paging.
pub(super) const CR0: u32 = 1 | 1 << 1 | 1 << 4 | 1 << 5 | 1 << 16 | 1 << 31;

// The note that makes the image bootable: its owner, its type, and the physical address of the 32-bit entry.
global_asm!(
    ".pushsection .note.pvh, \"a\", @note",
    ".balign 4",
    ".long 4, 8, 18",
    ".asciz \"Xen\"",
    ".quad pvh_entry - {base}",
    ".popsection",
    base = const IMAGE_BASE as i64,
    options(att_syntax)
);

// EBX holds the physical address of the boot information, and keeps it to the end.
global_asm!(
    ".pushsection .boot.text, \"ax\"",
    ".code32",
    ".global pvh_entry",
    "pvh_entry:",
    "cli",
    "cld",
    // 2048 pages: present, writable, large, accessed, dirty.
    "movl $(EARLY_PAGES - {base}), %edi",
    "movl $0xe3, %eax",
    "1:",
    "movl %eax, (%edi)",
    "movl $0, 4(%edi)",
    "addl $8, %edi",
    "addl $0x200000, %eax",
    // The 2048th addition wraps around to where it began.
    "cmpl $0xe3, %eax",
    "jne 1b",
    // The tables above: present, writable, accessed.
    "movl $(EARLY_PAGES - {base} + 0x23), %eax",
    "movl %eax, EARLY_LOW - {base}",
    "movl %eax, EARLY_HIGH - {base} + 8 * 510",
    "addl $0x1000, %eax",
    "movl %eax, EARLY_LOW - {base} + 8",
    "addl $0x1000, %eax",
    "movl %eax, EARLY_LOW - {base} + 16",
    "addl $0x1000, %eax",
    "movl %eax, EARLY_LOW - {base} + 24",
    "movl $(EARLY_LOW - {base} + 0x23), %eax",
    "movl %eax, EARLY_ROOT - {base}",
    "movl %eax, EARLY_ROOT - {base} + 8 * {direct}",
    "movl $(EARLY_HIGH - {base} + 0x23), %eax",
    "movl %eax, EARLY_ROOT - {base} + 8 * 511",
    // Paging.
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
    "lgdt boot_segments_pointer - {base}",
    "ljmpl $8, $(boot_64 - {base})",
    // 64-bit mode, still at the physical address.
    ".code64",
    "boot_64:",
    "movabsq $boot_high, %rax",
    "jmpq *%rax",
    "boot_high:",
    "xorl %eax, %eax",
    "movl %eax, %ds",
    "movl %eax, %es",
    "movl %eax, %fs",
    "movl %eax, %gs",
    "movl %eax, %ss",
    "leaq BOOT_STACK + {stack}(%rip), %rsp",
    "xorl %ebp, %ebp",
    "movl %ebx, %edi",
    "call {boot}",
    "ud2",
    ".balign 8",
    // Null, 64-bit code.
    "boot_segments:",
    ".quad 0",
    ".quad 0x00af9b000000ffff",
    "boot_segments_pointer:",
    ".word 15",
    ".quad boot_segments - {base}",
    ".popsection",
    base = const IMAGE_BASE as i64,
    direct = const (DIRECT_MAP >> 39) & 511,
    cr4 = const CR4,
    efer = const EFER,
    efer_bits = const EFER_BITS,
    cr0 = const CR0,
    stack = const BOOT_STACK_BYTES,
    boot = sym super::start::boot,
    options(att_syntax)
);
