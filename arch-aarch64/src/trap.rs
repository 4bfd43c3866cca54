//! What the exception vectors call: interrupts to the core, permitted faults to their fix-up, everything else to a
//! panic.

use aarch64_cpu::registers::{ESR_EL1, FAR_EL1, Readable};

use kernel::upcall;

use crate::vectors::TrapFrame;
use crate::{Aarch64, fixup, gic, sgi, timer};

/// Interrupt numbers from here on mean that there is none.
const NO_INTERRUPT: u32 = 1020;
/// `ESR_EL1.EC` of a data abort taken from EL1.
const DATA_ABORT: u64 = 0x25;

/// An IRQ: acknowledged and ended before the core hears of it, so that no handler holds others up in the controller.
pub(crate) extern "C" fn irq() {
    match gic::acknowledge() {
        sgi::CALL => {
            gic::end(sgi::CALL);
            upcall::call::<Aarch64>();
        }
        sgi::TIMER => {
            timer::stop();
            gic::end(sgi::TIMER);
            upcall::timer::<Aarch64>();
        }
        NO_INTERRUPT.. => {}
        other => {
            gic::end(other);
            panic!("interrupt {other}, which nothing enabled");
        }
    }
}

/// An FIQ: the NMI doorbell, and nothing else is in Group 0.
pub(crate) extern "C" fn fiq() {
    match gic::acknowledge_nmi() {
        sgi::NMI => {
            gic::end_nmi(sgi::NMI);
            upcall::nmi::<Aarch64>();
        }
        NO_INTERRUPT.. => {}
        other => {
            gic::end_nmi(other);
            panic!("fast interrupt {other}, which nothing enabled");
        }
    }
}

/// A synchronous exception from the kernel, on a good stack.
pub(crate) extern "C" fn synchronous(frame: &mut TrapFrame) {
    let syndrome = ESR_EL1.get();
    if class(syndrome) == DATA_ABORT
        && let Some(resume) = fixup::resume_address(frame.elr)
    {
        frame.elr = resume;
        return;
    }
    die("exception in the kernel", frame, syndrome);
}

/// A synchronous exception whose frame did not fit on the stack; this runs on the emergency stack.
pub(crate) extern "C" fn bad_stack(frame: &mut TrapFrame) -> ! {
    die("kernel stack overflow: the stack pointer is not in mapped memory", frame, ESR_EL1.get());
}

/// Any other vector: `which` is its number in the table.
pub(crate) extern "C" fn unexpected(frame: &mut TrapFrame, which: u64) -> ! {
    let what = match which {
        0..4 => "exception on the user stack pointer",
        7 | 11 => "system error",
        _ => "exception from 32-bit code",
    };
    die(what, frame, ESR_EL1.get());
}

const fn class(syndrome: u64) -> u64 {
    syndrome >> 26 & 0x3f
}

fn in_words(syndrome: u64) -> &'static str {
    match class(syndrome) {
        0x00 => "undefined instruction",
        0x0e => "illegal execution state",
        0x18 => "trapped system register",
        0x21 => "instruction abort",
        0x22 => "misaligned program counter",
        DATA_ABORT => match syndrome & 0x3c {
            0x04 => "data abort (translation fault)",
            0x08 => "data abort (access flag fault)",
            0x0c => "data abort (permission fault)",
            _ => "data abort",
        },
        0x26 => "misaligned stack pointer",
        0x3c => "breakpoint instruction",
        _ => "exception",
    }
}

#[cold]
fn die(what: &str, frame: &TrapFrame, syndrome: u64) -> ! {
    panic!(
        "{what}: {} at {:#x} (esr {syndrome:#x}, far {:#x}, sp {:#x}, lr {:#x}, spsr {:#x})",
        in_words(syndrome),
        frame.elr,
        FAR_EL1.get(),
        frame.sp,
        frame.x[30],
        frame.spsr,
    )
}
