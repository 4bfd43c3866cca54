//! `memcpy` and `memset`, which the compiler calls to move values. Those that come with the core library for this
//! target take a word at a time, and every byte of a short tail; moving values is most of what a long message costs
//! beside its bytes.
//!
//! Words are loaded and stored where they are aligned only: before the MMU is on, memory takes nothing else.

use core::arch::global_asm;

global_asm!(
    r#"
.section .text.memory, "ax"
.global memcpy
memcpy:
    orr x3, x0, x1
    mov x4, x0
    tst x3, #7
    b.ne 7f
    subs x2, x2, #32
    b.lo 2f
1:  ldp x5, x6, [x1], #16
    ldp x7, x8, [x1], #16
    stp x5, x6, [x4], #16
    stp x7, x8, [x4], #16
    subs x2, x2, #32
    b.hs 1b
2:  // What is left, less 32: its lowest five bits are those of what is left.
    tbz x2, #4, 3f
    ldp x5, x6, [x1], #16
    stp x5, x6, [x4], #16
3:  tbz x2, #3, 4f
    ldr x5, [x1], #8
    str x5, [x4], #8
4:  tbz x2, #2, 5f
    ldr w5, [x1], #4
    str w5, [x4], #4
5:  tbz x2, #1, 6f
    ldrh w5, [x1], #2
    strh w5, [x4], #2
6:  tbz x2, #0, 8f
    ldrb w5, [x1]
    strb w5, [x4]
    ret
7:  cbz x2, 8f
    ldrb w5, [x1], #1
    strb w5, [x4], #1
    sub x2, x2, #1
    b 7b
8:  ret

.global memset
memset:
    mov x4, x0
    and x1, x1, #0xff
    tst x0, #7
    b.ne 6f
    mov x3, #0x0101010101010101
    mul x1, x1, x3
    subs x2, x2, #32
    b.lo 2f
1:  stp x1, x1, [x4], #16
    stp x1, x1, [x4], #16
    subs x2, x2, #32
    b.hs 1b
2:  tbz x2, #4, 3f
    stp x1, x1, [x4], #16
3:  tbz x2, #3, 4f
    str x1, [x4], #8
4:  tbz x2, #2, 5f
    str w1, [x4], #4
5:  and x2, x2, #3
6:  cbz x2, 7f
    strb w1, [x4], #1
    sub x2, x2, #1
    b 6b
7:  ret
"#
);
