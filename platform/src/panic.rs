//! Panics: the message and a backtrace go to shared memory and to the serial line, and the machine is left.
//!
//! The first CPU that panics reports; others stop. A panic within the report (a broken stack, say) ends it where it
//! stands, with what had been written. Nothing here allocates, and nothing waits without a bound.

use core::panic::PanicInfo;
use core::sync::atomic::{AtomicU32, Ordering};

use kernel::arch::Arch;
use kernel::boot::ExitCode;
use kernel::record::shared::{BACKTRACE_DEPTH, RunState};

use crate::console::Line;
use crate::machine::{self, Native};
use crate::start::publish;
use crate::{SHARED, console};

/// One more than the number of the CPU that panicked first; 0 while none has.
static REPORTER: AtomicU32 = AtomicU32::new(0);

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    Native::irq_save();
    let cpu = u32::from(machine::cpu_number().unwrap_or(0));
    // Relaxed: the number is all that is passed on.
    match REPORTER.compare_exchange(0, cpu + 1, Ordering::Relaxed, Ordering::Relaxed) {
        Ok(_) => report(info, cpu),
        Err(first) if first == cpu + 1 => machine::exit(ExitCode::Panicked),
        Err(_) => loop {
            Native::relax();
        },
    }
}

fn report(info: &PanicInfo<'_>, cpu: u32) -> ! {
    let text = match info.location() {
        Some(at) => Line::new(format_args!("{} ({}:{})", info.message(), at.file(), at.line())),
        None => Line::new(format_args!("{}", info.message())),
    };
    SHARED.panic_cpu.store(cpu, Ordering::Relaxed);
    SHARED.set_message(text.as_str());
    SHARED.set_state(RunState::Panicked);
    publish();
    console::write_in_panic(format_args!("panic: {}", text.as_str()));
    backtrace(machine::frame_pointer());
    machine::exit(ExitCode::Panicked)
}

/// Follows the chain of frames as far as it makes sense: frames lie ever higher, return addresses lie in code.
fn backtrace(first: usize) {
    let mut frame = first;
    for (depth, slot) in SHARED.backtrace.iter().enumerate().take(BACKTRACE_DEPTH) {
        let word = size_of::<usize>();
        if frame == 0 || !frame.is_multiple_of(word) {
            return;
        }
        let (Some(caller), Some(return_address)) = (machine::probe(frame), machine::probe(frame.wrapping_add(word)))
        else {
            return;
        };
        if !machine::in_code(return_address) {
            return;
        }
        slot.store(return_address as u64, Ordering::Relaxed);
        // Release: pairs with the runner's read of the length before the addresses (tests/litmus/hand-over).
        SHARED.backtrace_len.store(depth as u32 + 1, Ordering::Release);
        console::write_in_panic(format_args!("  at {return_address:#x}"));
        // An exception may have changed to another stack, which lies anywhere; a frame that is its own caller is the
        // end.
        if caller == frame {
            return;
        }
        frame = caller;
    }
}
