//! Programs that do what they may not: one process for each way of reading or writing the kernel's memory, of leaving
//! user mode, or of leaving it with registers that the kernel would trip over. Each ends, with the status that says
//! that it was refused, or goes on where nothing is wrong with what it did; the kernel and the one who made them go on.
//! Each operation has all of them on one CPU. And whoever begins where another left its registers full finds all of
//! them empty.
#![cfg_attr(target_os = "none", no_std, no_main)]

use runtime::abi::Status;
use runtime::first::{FREE, METER, PRIORITY, PROCESS, Told};
use runtime::image::Image;
use runtime::kernel::{self, Limits};
use runtime::{call, check, exit, program, vectors};

program!(start);

const IMAGE: u64 = FREE;
const CHILD: u64 = FREE + 1;
const LIMITS: Limits = Limits { slots: 2, frames: 16, bytes: 32 << 10, spaces: 0 };
/// What a child ends with that was not stopped.
const WENT_ON: u64 = exit::CHECK | 0xffff;

/// What becomes of one who tries.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Becomes {
    /// Ended by the kernel.
    Refused,
    /// Nothing: it goes on.
    GoesOn,
}
use Becomes::{GoesOn, Refused};

type Attempt = (Becomes, fn());

/// Instructions that are tried; registers are the attempt's own.
macro_rules! tries {
    ($becomes:expr, $($line:literal),+) => {
        ($becomes, || {
            #[cfg(target_os = "none")]
            // SAFETY: whatever comes of it comes to this process alone, and is what is asked here. What is changed, and
            // goes on, is put back by the instructions themselves.
            unsafe {
                #[cfg(target_arch = "x86_64")]
                core::arch::asm!(
                    $($line,)+ out("rax") _, out("rcx") _, out("rdx") _, out("rdi") _, out("rsi") _, out("r8") _,
                    out("r9") _, out("r10") _, out("r11") _, out("r12") _, out("r13") _, out("r14") _, out("r15") _
                );
                #[cfg(target_arch = "aarch64")]
                core::arch::asm!(
                    $($line,)+ out("x0") _, out("x1") _, out("x2") _, out("x3") _, out("x4") _, out("x5") _,
                    out("x6") _, out("x7") _, out("x8") _, out("x9") _, out("x10") _, out("x11") _
                );
            }
        })
    };
}

#[cfg(not(target_arch = "aarch64"))]
const ATTEMPTS: &[Attempt] = &[
    // The kernel's text, its view of all memory, the last page; what is no address.
    tries!(Refused, "mov rax, 0xffffffff80200000", "mov rax, [rax]"),
    tries!(Refused, "mov rax, 0xffff800000000000", "mov rax, [rax]"),
    tries!(Refused, "mov rax, 0xffffffff80200000", "mov [rax], rax"),
    tries!(Refused, "mov rax, -8", "mov rax, [rax]"),
    tries!(Refused, "mov rax, 0x8000000000000000", "mov rax, [rax]"),
    tries!(Refused, "mov rax, 0x00007ffffffff000", "mov rax, [rax]"),
    tries!(Refused, "mov rax, 0xffffffff80200000", "jmp rax"),
    tries!(Refused, "mov rax, 0x8000000000000000", "jmp rax"),
    tries!(Refused, "mov rax, 0x00007fffffffffff", "jmp rax"),
    // What only the kernel may.
    tries!(Refused, "hlt"),
    tries!(Refused, "cli"),
    tries!(Refused, "mov rax, cr3"),
    tries!(Refused, "xor eax, eax", "mov cr3, rax"),
    tries!(Refused, "xor eax, eax", "mov dr7, rax"),
    tries!(Refused, "mov ecx, 0xc0000080", "rdmsr"),
    tries!(Refused, "mov ecx, 0xc0000082", "xor eax, eax", "xor edx, edx", "wrmsr"),
    tries!(Refused, "in al, 0x21"),
    tries!(Refused, "mov al, 0", "out 0xf4, al"),
    tries!(Refused, "lidt [rsp]"),
    tries!(Refused, "lgdt [rsp]"),
    tries!(Refused, "mov eax, 0x28", "ltr ax"),
    tries!(Refused, "invlpg [rsp]"),
    tries!(Refused, "wbinvd"),
    tries!(Refused, "swapgs"),
    tries!(Refused, "sysretq"),
    tries!(Refused, "sysenter"),
    tries!(Refused, "stac"),
    tries!(Refused, "xor ecx, ecx", "xgetbv"),
    tries!(Refused, "xor eax, eax", "wrgsbase rax"),
    tries!(Refused, "mov eax, 0x10", "mov ds, ax"),
    // Gates that are for the processor.
    tries!(Refused, "int 2"),
    tries!(Refused, "int 8"),
    tries!(Refused, "int 14"),
    tries!(Refused, "int 0x20"),
    tries!(Refused, "int 0x80"),
    tries!(Refused, "int 0xf0"),
    tries!(Refused, "int3"),
    tries!(Refused, ".byte 0xf1"),
    tries!(Refused, "ud2"),
    // Back from an interrupt that never was: into ring 0, and to no address.
    tries!(Refused, "mov rcx, rsp", "push 0x10", "push rcx", "push 2", "push 0x8", "push 0x1000", "iretq"),
    tries!(
        Refused,
        "mov rcx, rsp",
        "mov rax, 0x8000000000000000",
        "push 0x1b",
        "push rcx",
        "push 2",
        "push 0x23",
        "push rax",
        "iretq"
    ),
    // Arithmetic that traps, flags that do.
    tries!(Refused, "xor ecx, ecx", "xor edx, edx", "mov eax, 1", "div ecx"),
    tries!(Refused, "push 0x1fff00", "mov dword ptr [rsp], 0x01001f80", "ldmxcsr [rsp]"),
    tries!(
        Refused,
        "push 0x0",
        "mov dword ptr [rsp], 0x1d80",
        "ldmxcsr [rsp]",
        "divss xmm0, xmm1",
        "xorps xmm0, xmm0",
        "divss xmm0, xmm0"
    ),
    tries!(
        Refused,
        "push 0x37b",
        "fldcw [rsp]",
        "fldz",
        "fld1",
        "fdivrp",
        "fwait",
        "fldz",
        "fld1",
        "fdiv st, st(1)",
        "fwait"
    ),
    tries!(Refused, "pushfq", "or dword ptr [rsp], 0x100", "popfq", "nop", "nop"),
    tries!(Refused, "pushfq", "or dword ptr [rsp], 0x100", "popfq", "mov eax, 0", "syscall", "nop"),
    tries!(Refused, "mov rsp, 0x8000000000000000", "push rax"),
    tries!(Refused, "mov rsp, 0xffffffff80200000", "int3"),
    tries!(Refused, "mov rsp, 0x8000000000000000", "ud2"),
    // System calls with a stack, flags or segments that are nothing for the kernel.
    tries!(GoesOn, "mov r14, rsp", "mov rsp, 0xffffffff80200000", "mov eax, 0", "syscall", "mov rsp, r14"),
    tries!(GoesOn, "mov r14, rsp", "mov rsp, 0x8000000000000000", "mov eax, 0", "syscall", "mov rsp, r14"),
    tries!(GoesOn, "mov r14, rsp", "xor esp, esp", "mov eax, 1", "syscall", "mov rsp, r14"),
    tries!(
        GoesOn,
        "pushfq",
        "pop r14",
        "mov r13, r14",
        "or r13, 0x247f00",
        "and r13, -0x101",
        "push r13",
        "popfq",
        "mov eax, 0",
        "syscall",
        "mov eax, 1",
        "syscall",
        "push r14",
        "popfq"
    ),
    tries!(GoesOn, "xor eax, eax", "mov ds, ax", "mov es, ax", "mov fs, ax", "mov gs, ax", "mov eax, 1", "syscall"),
    tries!(GoesOn, "mov eax, 0x1b", "mov gs, ax", "mov fs, ax", "mov eax, 1", "syscall"),
    tries!(GoesOn, "mov eax, ss", "mov ss, ax", "syscall"),
];

#[cfg(target_arch = "aarch64")]
const ATTEMPTS: &[Attempt] = &[
    // The kernel's text, what is no address.
    tries!(Refused, "movz x0, #0xffff, lsl #48", "movk x0, #0x4020, lsl #16", "ldr x0, [x0]"),
    tries!(Refused, "movz x0, #0xffff, lsl #48", "movk x0, #0x4020, lsl #16", "str x0, [x0]"),
    tries!(Refused, "mov x0, #-8", "ldr x0, [x0]"),
    tries!(Refused, "movz x0, #0x0001, lsl #48", "ldr x0, [x0]"),
    tries!(Refused, "movz x0, #0x8000, lsl #48", "ldr x0, [x0]"),
    tries!(Refused, "movz x0, #0xffff, lsl #48", "movk x0, #0x4020, lsl #16", "br x0"),
    tries!(Refused, "movz x0, #0x8000, lsl #48", "br x0"),
    tries!(Refused, "mov x0, #0x1001", "br x0"),
    // What only the kernel may.
    tries!(Refused, "msr daifset, #15"),
    tries!(Refused, "mrs x0, sctlr_el1"),
    tries!(Refused, "msr ttbr0_el1, xzr"),
    tries!(Refused, "msr tpidr_el1, xzr"),
    tries!(Refused, "msr sp_el0, xzr"),
    tries!(Refused, "msr spsel, #1"),
    tries!(Refused, "mrs x0, elr_el1"),
    tries!(Refused, "mrs x0, cntpct_el0"),
    tries!(Refused, "msr cntp_ctl_el0, xzr"),
    tries!(Refused, "mrs x0, pmccntr_el0"),
    tries!(Refused, "msr tpidrro_el0, xzr"),
    tries!(Refused, "msr mdscr_el1, xzr"),
    tries!(Refused, "tlbi vmalle1"),
    tries!(Refused, "at s1e1r, x0"),
    tries!(Refused, "ic iallu"),
    tries!(Refused, "mov x0, sp", "dc ivac, x0"),
    tries!(Refused, "eret"),
    tries!(Refused, "hvc #0"),
    tries!(Refused, "smc #0"),
    tries!(Refused, "brk #0"),
    tries!(Refused, "wfi"),
    tries!(Refused, "mrs x0, ctr_el0"),
    tries!(Refused, "mrs x0, cntvct_el0"),
    tries!(Refused, "mrs x0, cntv_ctl_el0"),
    tries!(Refused, "mrs x0, pmcr_el0"),
    tries!(Refused, "mrs x0, midr_el1"),
    tries!(Refused, "mrs x0, dbgdtr_el0"),
    tries!(Refused, "msr dbgdtr_el0, x0"),
    // TPIDR2_EL0, SCXTNUM_EL0.
    tries!(Refused, "mrs x0, s3_3_c13_c0_5"),
    tries!(Refused, "mrs x0, s3_3_c13_c0_7"),
    tries!(Refused, "mov x0, sp", "ic ivau, x0"),
    tries!(Refused, "mov x0, sp", "dc cvau, x0"),
    tries!(Refused, "mov x0, sp", "dc zva, x0"),
    tries!(Refused, ".inst 0"),
    // The host's door to this QEMU: not from here.
    tries!(Refused, "mov x0, #0x18", "mov x1, #0", "hlt #0xf000"),
    tries!(Refused, "mov x9, sp", "add x9, x9, #4", "mov sp, x9", "ldr x0, [sp]"),
    tries!(Refused, "mov x0, sp", "add x0, x0, #1", "ldxr x1, [x0]"),
    // SVE and SME.
    tries!(Refused, ".inst 0x04bf5020"),
    tries!(Refused, ".inst 0xd503477f"),
    // System calls with a stack that is nothing for the kernel, and with a number of their own.
    tries!(
        GoesOn,
        "mov x9, sp",
        "movz x0, #0xffff, lsl #48",
        "mov sp, x0",
        "mov x8, #0",
        "svc #0",
        "mov x8, #1",
        "svc #0",
        "mov sp, x9"
    ),
    tries!(GoesOn, "mov x9, sp", "add x0, x9, #1", "mov sp, x0", "mov x8, #1", "svc #0xffff", "mov sp, x9"),
];

fn start(argument: u64) -> u64 {
    let told = Told::by(argument);
    let Ok(image) = Image::new(PROCESS, IMAGE) else { return exit::CHECK | u64::from(line!()) };
    for op in 0..told.ops {
        let cpu = op % told.cpus;
        for (n, (becomes, _)) in ATTEMPTS.iter().enumerate() {
            let ended = run(&image, attempt, n as u64, cpu);
            let refused = [Status::NotMapped, Status::Forbidden, Status::BadArgument].map(|s| Ok(s as u64));
            let as_expected = match becomes {
                Refused => refused.contains(&ended),
                GoesOn => ended == Ok(WENT_ON),
            };
            if !as_expected {
                // Which one.
                return exit::CHECK | (n as u64 + 1) << 16 | u64::from(line!());
            }
        }
        check!(run(&image, fill, op, cpu) == Ok(exit::DONE));
        check!(run(&image, empty, 0, cpu) == Ok(exit::DONE));
        check!(kernel::progress(METER, 0).is_ok());
    }
    exit::DONE
}

/// Has a process of its own begin at `entry`; what it ended with.
fn run(image: &Image, entry: extern "C" fn(u64) -> !, argument: u64, cpu: u64) -> Result<u64, Status> {
    image.process(CHILD, LIMITS, PRIORITY)?;
    image.start(CHILD, CHILD + 1, entry, argument, PRIORITY, cpu)?;
    let status = kernel::wait_for_end(CHILD + 1)?;
    kernel::delete(CHILD + 1)?;
    kernel::delete(CHILD)?;
    Ok(status)
}

extern "C" fn attempt(n: u64) -> ! {
    (ATTEMPTS[n as usize].1)();
    call::exit(WENT_ON)
}

/// Leaves its registers full.
extern "C" fn fill(seed: u64) -> ! {
    #[cfg(all(target_os = "none", target_arch = "x86_64"))]
    // SAFETY: the user's data segment, which is no other than none at all to programs of 64 bits.
    unsafe {
        core::arch::asm!("mov ds, {0:e}", "mov es, {0:e}", "mov fs, {0:e}", "mov gs, {0:e}", in(reg) 0x1bu32)
    };
    call::exit(if vectors::hold(!seed) { exit::DONE } else { exit::CHECK | u64::from(line!()) })
}

/// Looks at what its registers were when it began.
#[cfg(target_os = "none")]
#[unsafe(naked)]
extern "C" fn empty(_argument: u64) -> ! {
    #[cfg(target_arch = "x86_64")]
    macro_rules! all {
        ($($n:literal)*) => { concat!($("movq rcx, xmm", $n, "\nor rax, rcx\npsrldq xmm", $n, ", 8\nmovq rcx, xmm", $n, "\nor rax, rcx\n",)*) };
    }
    #[cfg(target_arch = "x86_64")]
    core::arch::naked_asm!(
        "or rax, rbx\nor rax, rcx\nor rax, rdx\nor rax, rsi\nor rax, rbp\nor rax, r8\nor rax, r9\nor rax, r10",
        "or rax, r11\nor rax, r12\nor rax, r13\nor rax, r14\nor rax, r15",
        "mov ecx, ds\nor rax, rcx\nmov ecx, es\nor rax, rcx\nmov ecx, fs\nor rax, rcx\nmov ecx, gs\nor rax, rcx",
        all!(0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15),
        "mov rdi, rax",
        "and rsp, -16",
        "call {told}",
        told = sym told,
    );
    #[cfg(target_arch = "aarch64")]
    macro_rules! all {
        ($($n:literal)*) => { concat!($("fmov x1, d", $n, "\norr x0, x0, x1\nfmov x1, v", $n, ".d[1]\norr x0, x0, x1\n",)*) };
    }
    #[cfg(target_arch = "aarch64")]
    core::arch::naked_asm!(
        ".arch_extension fp\n.arch_extension simd",
        "orr x0, x0, x1\norr x0, x0, x2\norr x0, x0, x3\norr x0, x0, x4\norr x0, x0, x5\norr x0, x0, x6\norr x0, x0, x7",
        "orr x0, x0, x8\norr x0, x0, x9\norr x0, x0, x10\norr x0, x0, x11\norr x0, x0, x12\norr x0, x0, x13",
        "orr x0, x0, x14\norr x0, x0, x15\norr x0, x0, x16\norr x0, x0, x17\norr x0, x0, x18\norr x0, x0, x19",
        "orr x0, x0, x20\norr x0, x0, x21\norr x0, x0, x22\norr x0, x0, x23\norr x0, x0, x24\norr x0, x0, x25",
        "orr x0, x0, x26\norr x0, x0, x27\norr x0, x0, x28\norr x0, x0, x29\norr x0, x0, x30",
        "mrs x1, tpidr_el0\norr x0, x0, x1\nmrs x1, tpidrro_el0\norr x0, x0, x1",
        all!(0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31),
        "mrs x1, fpcr\norr x0, x0, x1",
        "bl {told}",
        told = sym told,
    );
}

#[cfg(not(target_os = "none"))]
extern "C" fn empty(_argument: u64) -> ! {
    told(0)
}

extern "C" fn told(left: u64) -> ! {
    call::exit(if left == 0 { exit::DONE } else { exit::CHECK | u64::from(line!()) })
}
