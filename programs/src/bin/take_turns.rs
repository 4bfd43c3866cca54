//! Two threads of one priority on one CPU, each of which spins until the other has been there: only the timer takes the CPU from either.
#![cfg_attr(target_os = "none", no_std, no_main)]

use core::hint::spin_loop;
use core::sync::atomic::{AtomicU64, Ordering};

use runtime::abi::Rights;
use runtime::first::{FREE, PRIORITY, PROCESS, Told};
use runtime::kernel::{self, Begin};
use runtime::{call, check, exit, program};

const STACK: u64 = 0x30_0000_0000;
const STACK_BYTES: u64 = 16384;

/// Even: the first thread's turn; odd: the other's.
static TURN: AtomicU64 = AtomicU64::new(0);

program!(start);

fn start(argument: u64) -> u64 {
    let turns = Told::by(argument).ops;
    check!(kernel::map_anonymous(PROCESS, STACK, STACK_BYTES, Rights::READ | Rights::WRITE).is_ok());
    let entry = other as extern "C" fn(u64) -> ! as usize as u64;
    let begin = Begin { entry, stack: STACK + STACK_BYTES, argument: turns, priority: PRIORITY, cpu: 0 };
    check!(kernel::make_thread(PROCESS, FREE, begin).is_ok());
    spin(0, turns);
    check!(TURN.load(Ordering::Relaxed) == 2 * turns);
    exit::DONE
}

extern "C" fn other(turns: u64) -> ! {
    spin(1, turns);
    // The first thread ends the process, once it has seen the last turn.
    call::exit(exit::DONE)
}

/// Takes every second turn, from `first` on, and waits for the turns of the other.
fn spin(first: u64, turns: u64) {
    for n in 0..turns {
        while TURN.load(Ordering::Relaxed) != 2 * n + first {
            spin_loop();
        }
        TURN.fetch_add(1, Ordering::Relaxed);
    }
    while first == 0 && TURN.load(Ordering::Relaxed) != 2 * turns {
        spin_loop();
    }
}
