//! Floating-point and SIMD registers: whether they hold over a system call, and over whatever else runs on the CPU
//! meanwhile.

/// Loads every vector register with a number of its own, made of `seed`; gives way; and says whether all of them hold
/// what they held.
pub fn hold(seed: u64) -> bool {
    #[cfg(all(target_os = "none", target_arch = "x86_64"))]
    {
        let difference: u64;
        macro_rules! load {
            ($($n:literal)*) => { concat!($("add {x}, 1\n", "movq xmm", $n, ", {x}\n",)*) };
        }
        macro_rules! compare {
            ($($n:literal)*) => {
                concat!($("add {x}, 1\n", "movq {y}, xmm", $n, "\n", "xor {y}, {x}\n", "or {d}, {y}\n",)*)
            };
        }
        // SAFETY: nothing of this program is in vector registers: it is built without them. The call is `Yield`.
        unsafe {
            core::arch::asm!(
                load!(0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15),
                "sub {x}, 16",
                "xor {d:e}, {d:e}",
                "mov eax, {call}",
                "syscall",
                compare!(0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15),
                x = inout(reg) seed => _,
                y = out(reg) _,
                d = out(reg) difference,
                call = const crate::abi::Number::Yield as u64,
                out("rax") _, out("rdi") _, out("rsi") _, out("rdx") _, out("r10") _, out("r8") _, out("r9") _,
                out("r12") _, out("rcx") _, out("r11") _,
                options(nostack)
            )
        };
        difference == 0
    }
    #[cfg(all(target_os = "none", target_arch = "aarch64"))]
    {
        let difference: u64;
        macro_rules! load {
            ($($n:literal)*) => { concat!($("add {x}, {x}, #1\n", "fmov d", $n, ", {x}\n",)*) };
        }
        macro_rules! compare {
            ($($n:literal)*) => {
                concat!($("add {x}, {x}, #1\n", "fmov {y}, d", $n, "\n", "eor {y}, {y}, {x}\n", "orr {d}, {d}, {y}\n",)*)
            };
        }
        // SAFETY: as above.
        unsafe {
            core::arch::asm!(
                ".arch_extension fp",
                ".arch_extension simd",
                load!(0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31),
                "sub {x}, {x}, #32",
                "mov {d}, #0",
                "mov x8, #{call}",
                "svc #0",
                compare!(0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31),
                x = inout(reg) seed => _,
                y = out(reg) _,
                d = out(reg) difference,
                call = const crate::abi::Number::Yield as u64,
                out("x0") _, out("x1") _, out("x2") _, out("x3") _, out("x4") _, out("x5") _, out("x6") _,
                out("x7") _, out("x8") _, out("x9") _, out("x10") _, out("x11") _, out("x12") _, out("x13") _,
                out("x14") _, out("x15") _, out("x16") _, out("x17") _,
                options(nostack)
            )
        };
        difference == 0
    }
    #[cfg(not(target_os = "none"))]
    {
        let _ = seed;
        unreachable!("there is no kernel below")
    }
}
