//! Processes are made, run and end, over and over, on every CPU. Each has a copy of one template, which it gets from
//! the pager (`pager.rs`) page by page as it touches it: what it reads is the template's, what it writes its own. And
//! each ends as it must.
#![cfg_attr(target_os = "none", no_std, no_main)]

use runtime::abi::Rights;
use runtime::first::{FREE, METER, MODULE, PRIORITY, PROCESS, Told};
use runtime::image::Image;
use runtime::kernel::{self, Limits};
use runtime::pager::{FORGET, PAGES, SERVE, template};
use runtime::server::Server;
use runtime::{call, check, check_telling, exit, program};

program!(start);

const IMAGE: u64 = FREE;
const ENDED: u64 = FREE + 1;
const PAGER: u64 = FREE + 2;
/// The pager's endpoint once for each child, with the child's number as its badge.
const FAULTS: u64 = PAGER + Server::STEP;
const CHILDREN: u64 = FAULTS + MOST;
/// Slots of each child's in the parent's table: its process, its thread.
const STEP: u64 = 2;
const MOST: u64 = 31;
const LIMITS: Limits = Limits { slots: 8, frames: 64, bytes: 64 << 10, spaces: 0 };
/// Where a child looks for its parent's notification.
const TELL: u64 = 0;
/// Pages that are its own from the beginning, and where.
const OWN_PAGES: u64 = 6;
const HEAP: u64 = 0x20_0000_0000;
/// Where its copy of the template is.
const COPY: u64 = 0x21_0000_0000;

fn start(argument: u64) -> u64 {
    let told = Told::by(argument);
    let children = told.cpus.min(MOST);
    let Ok(image) = Image::new(PROCESS, IMAGE) else { return exit::CHECK | u64::from(line!()) };
    check!(kernel::make_notification(ENDED).is_ok());
    let Ok(pager) = Server::start("pager", MODULE, PAGER, ENDED, PRIORITY, told.cpus - 1, 0) else {
        return exit::CHECK | u64::from(line!());
    };
    for n in 0..children {
        check!(kernel::copy(pager.endpoint, FAULTS + n, Rights::WRITE, n as u32 + 1).is_ok());
    }
    for op in 0..told.ops {
        check!(kernel::begin(METER).is_ok());
        for n in 0..children {
            let (process, thread) = (CHILDREN + n * STEP, CHILDREN + n * STEP + 1);
            check!(image.process(process, LIMITS, PRIORITY) == Ok(()));
            check!(kernel::map_anonymous(process, HEAP, OWN_PAGES * 4096, Rights::READ | Rights::WRITE).is_ok());
            check!(pager.ask_with([SERVE, n + 1, COPY, 0, 0, 0], process, Rights::MANAGE).is_ok());
            check!(kernel::set_pager(process, FAULTS + n).is_ok());
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
            check!(kernel::wait_for_end(CHILDREN + n * STEP + 1) == Ok(exit::DONE));
            check!(kernel::delete(CHILDREN + n * STEP + 1).is_ok());
            check!(kernel::delete(CHILDREN + n * STEP).is_ok());
            // It has read all pages and then written every other one.
            let counts = pager.ask([FORGET, n + 1, 0, 0, 0, 0]);
            check!(counts.is_ok_and(|[_, read, written, ..]| (read, written) == (PAGES, PAGES / 2)));
        }
        check!(kernel::finish(METER, 0).is_ok());
    }
    check!(pager.stop() == Ok(exit::DONE));
    exit::DONE
}

/// A child says that all is well by its own bit.
extern "C" fn child(argument: u64) -> ! {
    let (op, n) = (argument >> 8, argument & 0xff);
    for page in 0..OWN_PAGES {
        let at = (HEAP + page * 4096) as *mut u64;
        // SAFETY: the parent mapped it for this process alone.
        unsafe {
            check_telling!(TELL, at.read_volatile() == 0);
            at.write_volatile(op ^ page);
            check_telling!(TELL, at.read_volatile() == op ^ page);
        }
    }
    // What others have written to their copies is not in this one.
    let word = |page: u64, word: u64| (COPY + page * 4096 + word * 8) as *mut u64;
    let some = |page: u64| [page, 100 + argument % 300, 511];
    for page in 0..PAGES {
        for w in some(page) {
            // SAFETY: the pager maps it.
            check_telling!(TELL, unsafe { word(page, w).read_volatile() } == template(page, w));
        }
    }
    for page in (0..PAGES).step_by(2) {
        // SAFETY: as above.
        unsafe { word(page, 7).write_volatile(argument) };
    }
    for page in 0..PAGES {
        let expected = if page % 2 == 0 { argument } else { template(page, 7) };
        // SAFETY: as above.
        check_telling!(TELL, unsafe { word(page, 7).read_volatile() } == expected);
        for w in some(page).into_iter().filter(|w| *w != 7) {
            // SAFETY: as above.
            check_telling!(TELL, unsafe { word(page, w).read_volatile() } == template(page, w));
        }
    }
    check_telling!(TELL, kernel::signal(TELL, 1 << n).is_ok());
    call::exit(exit::DONE)
}
