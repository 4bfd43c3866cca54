//! Two threads of one priority on one CPU, each of which spins until the other has been there: only the timer takes the
//! CPU from either. In every second turn each fills its vector registers and gives way to the other, which does the
//! same: what comes back must be its own.
#![cfg_attr(target_os = "none", no_std, no_main)]

use core::hint::spin_loop;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use runtime::abi::Rights;
use runtime::first::{FREE, PRIORITY, PROCESS, Told};
use runtime::kernel::{self, Begin};
use runtime::{call, check, exit, program, vectors};

const STACK: u64 = 0x30_0000_0000;
const STACK_BYTES: u64 = 16384;

/// Even: the first thread's turn; odd: the other's.
static TURN: AtomicU64 = AtomicU64::new(0);

/// One of them found another's vector registers.
static LOST: AtomicBool = AtomicBool::new(false);

program!(start);

fn start(argument: u64) -> u64 {
    let turns = Told::by(argument).ops;
    check!(kernel::map_anonymous(PROCESS, STACK, STACK_BYTES, Rights::READ | Rights::WRITE).is_ok());
    let entry = other as extern "C" fn(u64) -> ! as usize as u64;
    let begin = Begin { entry, stack: STACK + STACK_BYTES, argument: turns, priority: PRIORITY, cpu: 0 };
    check!(kernel::make_thread(PROCESS, FREE, begin).is_ok());
    spin(0, turns);
    check!(TURN.load(Ordering::Relaxed) == 2 * turns);
    check!(!LOST.load(Ordering::Relaxed));
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
        if n % 2 == 0 && !vectors::hold(0x1000 * n + 0x100 * first) {
            LOST.store(true, Ordering::Relaxed);
        }
    }
    while first == 0 && TURN.load(Ordering::Relaxed) != 2 * turns {
        spin_loop();
    }
}
