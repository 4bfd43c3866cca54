//! Two dozen processes map shared tables, as those of a database do, touch their pages, and when all have, exit at
//! once, on every CPU; over and over. The first process stays with the tables, so in each round one of the others is
//! the last to leave each of them.
#![cfg_attr(target_os = "none", no_std, no_main)]

use core::sync::atomic::{AtomicU64, Ordering};

use runtime::abi::Rights;
use runtime::first::{FREE, METER, PRIORITY, PROCESS, Told};
use runtime::image::Image;
use runtime::kernel::{self, Limits};
use runtime::{call, check, check_telling, exit, program};

program!(start);

const IMAGE: u64 = FREE;
const READY: u64 = FREE + 1;
const ENDED: u64 = FREE + 2;
const TABLE: u64 = FREE + 3;
const CHILDREN: u64 = TABLE + TABLES;
/// Slots of each child's in the parent's table: its process, its thread.
const STEP: u64 = 2;
/// As `kernel/src/workload/predict/programs.rs` has them.
const MANY: u64 = 24;
const TABLES: u64 = 4;
const LIMITS: Limits = Limits { slots: 8, frames: 64, bytes: 64 << 10, spaces: 0 };
/// Where a child looks for its parent's notification.
const TELL: u64 = 0;
/// Where all map the tables, one for each GiB, of one page each.
const SHARED: u64 = 0x40_0000_0000;
const HUGE: u64 = 2 << 20;
/// Only who maps the whole of a table shares it.
const GIB: u64 = 1 << 30;

fn start(argument: u64) -> u64 {
    let told = Told::by(argument);
    let Ok(image) = Image::new(PROCESS, IMAGE) else { return exit::CHECK | u64::from(line!()) };
    let all = Rights::READ | Rights::WRITE;
    check!(kernel::make_notification(READY).is_ok());
    check!(kernel::make_notification(ENDED).is_ok());
    for table in 0..TABLES {
        check!(kernel::make_shared(TABLE + table, 1).is_ok());
        check!(kernel::map(PROCESS, TABLE + table, SHARED + table * GIB, 0, GIB, all).is_ok());
        check!(kernel::populate(PROCESS, SHARED + table * GIB, HUGE).is_ok());
    }
    for op in 0..told.ops {
        check!(kernel::begin(METER).is_ok());
        for n in 0..MANY {
            let (process, thread) = (CHILDREN + n * STEP, CHILDREN + n * STEP + 1);
            check!(image.process(process, LIMITS, PRIORITY) == Ok(()));
            for table in 0..TABLES {
                check!(kernel::map(process, TABLE + table, SHARED + table * GIB, 0, GIB, all).is_ok());
            }
            check!(kernel::grant(process, TELL, READY, Rights::WRITE, 0).is_ok());
            check!(image.start(process, thread, child, op << 8 | n, PRIORITY, n % told.cpus).is_ok());
            // It ends only when it is told to, below.
            check!(kernel::bind(thread, ENDED, 1 << n).is_ok());
        }
        if let Some(status) = all_of(READY) {
            return status;
        }
        last().store(op + 1, Ordering::Release);
        if let Some(status) = all_of(ENDED) {
            return status;
        }
        for n in 0..MANY {
            check!(kernel::ended(CHILDREN + n * STEP + 1) == Ok(Some(exit::DONE)));
            // What it does to the tables is counted with the round.
            check!(kernel::wait_for_end(CHILDREN + n * STEP) == Ok(exit::DONE));
            for table in 0..TABLES {
                // SAFETY: mapped above; the child that wrote it has said that it did.
                check!(unsafe { (word(table, n) as *const u64).read_volatile() } == op << 8 | n | 1 << 63);
            }
            check!(kernel::delete(CHILDREN + n * STEP + 1).is_ok());
            check!(kernel::delete(CHILDREN + n * STEP).is_ok());
        }
        check!(kernel::finish(METER).is_ok());
    }
    exit::DONE
}

/// Waits until each child has set its bit; the status to end with if one has failed.
fn all_of(notification: u64) -> Option<u64> {
    let mut seen = 0u64;
    while seen.count_ones() < MANY as u32 {
        match kernel::wait_for_bits(notification) {
            Ok(bits) => match runtime::failed(bits) {
                None => seen |= bits,
                failed => return failed,
            },
            Err(_) => return Some(exit::CHECK | u64::from(line!())),
        }
    }
    None
}

/// In the first table: the last round whose processes shall exit, plus one.
fn last() -> &'static AtomicU64 {
    // SAFETY: that table is mapped there in every process that calls this, as long as it runs; the word is used as an
    // atomic only.
    unsafe { &*((SHARED + HUGE / 2) as *const AtomicU64) }
}

/// Where child `n` leaves its word in `table`.
fn word(table: u64, n: u64) -> u64 {
    SHARED + table * GIB + n * 64
}

extern "C" fn child(argument: u64) -> ! {
    for table in 0..TABLES {
        // SAFETY: the parent mapped the table here; no other process writes this word.
        unsafe { (word(table, argument & 0xff) as *mut u64).write_volatile(argument | 1 << 63) };
    }
    check_telling!(TELL, kernel::signal(TELL, 1 << (argument & 0xff)).is_ok());
    while last().load(Ordering::Acquire) <= argument >> 8 {
        kernel::give_way();
        call::relax();
    }
    call::exit(exit::DONE)
}
