//! Address spaces are made and torn down, over and over, on every CPU. Each operation has for each CPU, at most
//! fifteen:
//!
//! - a parent, with memory of its own and a copy of one template, which it gets from the pager (`pager.rs`) page by
//!   page as it touches it: what it reads is the template's, what it writes its own;
//! - a fork of it. Its own memory the kernel shares between the two until either writes, what came from the pager the
//!   pager does: both write meanwhile, and each sees what there was at the fork and what it has written itself;
//! - a process that executes another program of the module.
//!
//! How many pages the pager has copied, and for whom, is known in advance.
#![cfg_attr(target_os = "none", no_std, no_main)]

use runtime::abi::{Rights, Status};
use runtime::first::{FREE, METER, MODULE, PRIORITY, PROCESS, Told};
use runtime::image::Image;
use runtime::kernel::{self, Begin, Limits};
use runtime::pager::{FORGET, FORK, PAGES, SERVE, template};
use runtime::server::Server;
use runtime::{call, check, check_telling, exit, program};

program!(start);

const MOST: u64 = 15;
const IMAGE: u64 = FREE;
const TOLD: u64 = FREE + 1;
const PAGER: u64 = FREE + 2;
/// The pager's endpoint once for each process, with its number as the badge: first the parents, then the forks.
const FAULTS: u64 = PAGER + Server::STEP;
/// What each process waits at until it is told to go on, in the same order.
const GATES: u64 = FAULTS + 2 * MOST;
/// Of each CPU the parent, its fork, the program: each a process and its thread.
const CHILDREN: u64 = GATES + 2 * MOST;
const STEP: u64 = 6;
const FORKED: u64 = 2;
const EXECUTED: u64 = 4;
const LIMITS: Limits = Limits { slots: 8, frames: 64, bytes: 64 << 10, spaces: 0 };
const BOTH: Rights = Rights::READ.union(Rights::WRITE);

/// Where a child looks for the first process's notification, and for its own gate.
const TELL: u64 = 0;
const GATE: u64 = 1;
/// Pages that are its own from the beginning, and where.
const OWN_PAGES: u64 = 6;
const HEAP: u64 = 0x20_0000_0000;
/// Where its copy of the template is.
const COPY: u64 = 0x21_0000_0000;
/// The end of the stack of the program that is executed.
const STACK: u64 = 0x7000_0000_0000;
/// Who has written a word, beside the operation and the CPU.
const PARENT: u64 = 1 << 62;
const AFTER: u64 = 2 << 62;
const FORK_ITSELF: u64 = 3 << 62;

fn start(argument: u64) -> u64 {
    match run(Told::by(argument)) {
        Ok(()) => exit::DONE,
        // The status of the system call that was not done.
        Err(status) => status as u64,
    }
}

fn run(told: Told) -> Result<(), Status> {
    let children = told.cpus.min(MOST);
    let image = Image::new(PROCESS, IMAGE)?;
    kernel::make_notification(TOLD)?;
    let pager = Server::start("pager", MODULE, PAGER, TOLD, PRIORITY, told.cpus - 1, 0)?;
    for n in 0..2 * MOST {
        kernel::copy(pager.endpoint, FAULTS + n, Rights::WRITE, n as u32 + 1)?;
        kernel::make_notification(GATES + n)?;
    }
    for op in 0..told.ops {
        kernel::begin(METER)?;
        for n in 0..children {
            make(&image, &pager, n, op << 8 | n)?;
        }
        all_have_told(children);
        for n in 0..children {
            fork(&image, &pager, n, op << 8 | n)?;
            execute(n)?;
        }
        all_have_told(children);
        // The forks see nothing of what their parents have written since, or it is too late.
        (0..children).try_for_each(|n| ended(n, 0))?;
        for n in 0..children {
            kernel::signal(GATES + MOST + n, 1)?;
        }
        (0..children).try_for_each(|n| ended(n, FORKED).and_then(|()| ended(n, EXECUTED)))?;
        for n in 0..children {
            forget(&pager, n)?;
        }
        kernel::finish(METER)?;
    }
    check!(pager.stop() == Ok(exit::DONE));
    Ok(())
}

/// Waits until each of `children` has set its bit; ends if one has failed.
fn all_have_told(children: u64) {
    let mut seen = 0u64;
    while seen.count_ones() < children as u32 {
        match kernel::wait_for_bits(TOLD) {
            Ok(bits) => match runtime::failed(bits) {
                None => seen |= bits,
                Some(status) => call::exit(status),
            },
            Err(_) => call::exit(exit::CHECK | u64::from(line!())),
        }
    }
}

/// Makes the parent on CPU `n`.
fn make(image: &Image, pager: &Server, n: u64, argument: u64) -> Result<(), Status> {
    let process = CHILDREN + n * STEP;
    image.process(process, LIMITS, PRIORITY)?;
    kernel::map_anonymous(process, HEAP, OWN_PAGES * 4096, BOTH)?;
    pager.ask_with([SERVE, n + 1, COPY, 0, 0, 0], process, Rights::MANAGE)?;
    begin(image, process, n, n, parent, argument)
}

/// Makes a fork of it.
fn fork(image: &Image, pager: &Server, n: u64, argument: u64) -> Result<(), Status> {
    let parent = CHILDREN + n * STEP;
    image.fork(parent, parent + FORKED, LIMITS, PRIORITY)?;
    pager.ask_with([FORK, n + 1, MOST + n + 1, 0, 0, 0], parent + FORKED, Rights::MANAGE)?;
    // From here on the parent writes.
    kernel::signal(GATES + n, 1)?;
    begin(image, parent + FORKED, n, MOST + n, forked, argument)
}

/// Begins the thread of `process`, which is number `number` for the pager and for its gate.
fn begin(
    image: &Image,
    process: u64,
    cpu: u64,
    number: u64,
    entry: extern "C" fn(u64) -> !,
    argument: u64,
) -> Result<(), Status> {
    kernel::set_pager(process, FAULTS + number)?;
    kernel::grant(process, TELL, TOLD, Rights::WRITE, 0)?;
    kernel::grant(process, GATE, GATES + number, Rights::READ, 0)?;
    image.start(process, process + 1, entry, argument, PRIORITY, cpu)
}

/// Has another program of the module run in a process of its own.
fn execute(n: u64) -> Result<(), Status> {
    let process = CHILDREN + n * STEP + EXECUTED;
    kernel::make_process(process, LIMITS, PRIORITY)?;
    let entry = kernel::load(process, MODULE, "null_call")?;
    kernel::map_anonymous(process, STACK - 8192, 8192, BOTH)?;
    // It makes one system call.
    kernel::make_thread(process, process + 1, Begin { entry, stack: STACK, argument: 1, priority: PRIORITY, cpu: n })
}

/// Waits for the end of a child, which must be a good one, and forgets it.
fn ended(n: u64, which: u64) -> Result<(), Status> {
    let process = CHILDREN + n * STEP + which;
    let status = kernel::wait_for_end(process)?;
    if status != exit::DONE {
        call::exit(status);
    }
    kernel::delete(process + 1)?;
    kernel::delete(process)
}

/// The pager says how many pages of the template each has read, how many were its own, and how many of those were
/// copied from its parent.
fn forget(pager: &Server, n: u64) -> Result<(), Status> {
    let counts =
        |number: u64| pager.ask([FORGET, number, 0, 0, 0, 0]).map(|[_, read, own, copied, ..]| (read, own, copied));
    // A fork gets one page when its parent writes and one when it writes itself; of the others, all of which it reads,
    // it writes one.
    check!(counts(MOST + n + 1)? == (PAGES / 2, 3, 2));
    // Its parent has read all and then written every other one, and one of these again after the fork.
    check!(counts(n + 1)? == (PAGES, PAGES / 2, 0));
    Ok(())
}

fn heap(page: u64) -> *mut u64 {
    (HEAP + page * 4096 + 8) as *mut u64
}

fn copied(page: u64, word: u64) -> *mut u64 {
    (COPY + page * 4096 + word * 8) as *mut u64
}

/// What was written by whom must be there, else the thread tells so and ends.
fn holds(at: *mut u64, expected: u64) {
    // SAFETY: mapped by the first process, or by the pager when it is touched; nobody else writes to this copy.
    check_telling!(TELL, unsafe { at.read_volatile() } == expected);
}

fn write(at: *mut u64, value: u64) {
    // SAFETY: as above; nothing of the program itself lies there.
    unsafe { at.write_volatile(value) };
}

extern "C" fn parent(argument: u64) -> ! {
    for page in 0..OWN_PAGES {
        holds(heap(page), 0);
        write(heap(page), PARENT | argument << 8 | page);
        holds(heap(page), PARENT | argument << 8 | page);
    }
    // What others have written to their copies is not in this one.
    let some = |page: u64| [page, 100 + argument % 300, 511];
    for page in 0..PAGES {
        some(page).into_iter().for_each(|word| holds(copied(page, word), template(page, word)));
    }
    for page in (0..PAGES).step_by(2) {
        write(copied(page, 7), PARENT | argument);
    }
    tell(argument);
    check_telling!(TELL, kernel::wait_for_bits(GATE).is_ok());
    // There is a fork.
    for page in 0..OWN_PAGES / 2 {
        write(heap(page), AFTER | page);
    }
    write(copied(0, 7), AFTER);
    for page in 0..OWN_PAGES {
        holds(heap(page), if page < OWN_PAGES / 2 { AFTER | page } else { PARENT | argument << 8 | page });
    }
    for page in 0..PAGES {
        let written = if page == 0 { AFTER } else { PARENT | argument };
        holds(copied(page, 7), if page % 2 == 0 { written } else { template(page, 7) });
        some(page).into_iter().filter(|w| *w != 7).for_each(|word| holds(copied(page, word), template(page, word)));
    }
    call::exit(exit::DONE)
}

extern "C" fn forked(argument: u64) -> ! {
    let as_forked = || {
        for page in 1..OWN_PAGES {
            holds(heap(page), PARENT | argument << 8 | page);
        }
        for page in [0, 3, 4, 5, 6, 7] {
            holds(copied(page, 7), if page % 2 == 0 { PARENT | argument } else { template(page, 7) });
        }
    };
    holds(heap(0), PARENT | argument << 8);
    holds(copied(1, 7), template(1, 7));
    holds(copied(2, 7), PARENT | argument);
    as_forked();
    write(heap(0), FORK_ITSELF);
    write(copied(1, 7), FORK_ITSELF | 1);
    write(copied(2, 7), FORK_ITSELF | 2);
    tell(argument);
    // The parent ends meanwhile.
    check_telling!(TELL, kernel::wait_for_bits(GATE).is_ok());
    as_forked();
    holds(heap(0), FORK_ITSELF);
    holds(copied(1, 7), FORK_ITSELF | 1);
    holds(copied(2, 7), FORK_ITSELF | 2);
    call::exit(exit::DONE)
}

/// A child says that all is well by its own bit.
fn tell(argument: u64) {
    check_telling!(TELL, kernel::signal(TELL, 1 << (argument & 0xff)).is_ok());
}
