//! Makes processes of this program, lets them run on every CPU, and sees how each ends; over and over.
#![cfg_attr(target_os = "none", no_std, no_main)]

use runtime::abi::Rights;
use runtime::first::{FREE, PRIORITY, PROCESS, Told};
use runtime::image::Image;
use runtime::kernel::{self, Limits};
use runtime::{call, check, check_telling, exit, program};

program!(start);

const IMAGE: u64 = FREE;
const ENDED: u64 = FREE + 1;
const CHILDREN: u64 = FREE + 2;
/// Slots of each child's in the parent's table: its process, its thread.
const STEP: u64 = 2;
const MOST: u64 = 32;
const LIMITS: Limits = Limits { slots: 8, frames: 64, bytes: 64 << 10, spaces: 0 };
/// Where a child looks for its parent's notification.
const TELL: u64 = 0;
/// Pages that each child maps and writes.
const PAGES: u64 = 6;
const HEAP: u64 = 0x20_0000_0000;

fn start(argument: u64) -> u64 {
    let told = Told::by(argument);
    let children = told.cpus.min(MOST);
    let Ok(image) = Image::new(PROCESS, IMAGE) else { return exit::CHECK | u64::from(line!()) };
    check!(kernel::make_notification(ENDED).is_ok());
    for op in 0..told.ops {
        for n in 0..children {
            let (process, thread) = (CHILDREN + n * STEP, CHILDREN + n * STEP + 1);
            check!(image.process(process, LIMITS, PRIORITY) == Ok(()));
            check!(kernel::map_anonymous(process, HEAP, PAGES * 4096, Rights::READ | Rights::WRITE).is_ok());
            check!(kernel::grant(process, TELL, ENDED, Rights::WRITE, 0).is_ok());
            check!(image.start(process, thread, child, op << 8 | n, PRIORITY, n).is_ok());
        }
        let mut seen = 0u64;
        while seen.count_ones() < children as u32 {
            match kernel::wait_for_bits(ENDED) {
                Ok(bits) if runtime::failed(bits).is_some() => return runtime::failed(bits).unwrap_or_default(),
                Ok(bits) => seen |= bits,
                Err(_) => return exit::CHECK | u64::from(line!()),
            }
        }
        for n in 0..children {
            check!(kernel::delete(CHILDREN + n * STEP + 1).is_ok());
            check!(kernel::delete(CHILDREN + n * STEP).is_ok());
        }
    }
    exit::DONE
}

/// A child says that all is well by its own bit.
extern "C" fn child(argument: u64) -> ! {
    let (op, n) = (argument >> 8, argument & 0xff);
    for page in 0..PAGES {
        let at = (HEAP + page * 4096) as *mut u64;
        // SAFETY: the parent mapped it for this process alone.
        unsafe {
            check_telling!(TELL, at.read_volatile() == 0);
            at.write_volatile(op ^ page);
            check_telling!(TELL, at.read_volatile() == op ^ page);
        }
    }
    check_telling!(TELL, kernel::signal(TELL, 1 << n).is_ok());
    call::exit(exit::DONE)
}
