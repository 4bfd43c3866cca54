//! The operations of the suite, done by a program through system calls, while threads of it are what the other CPUs
//! run. The kernel's own workloads (`kernel/src/workload`) do the same without a user mode; the counts must be the
//! same.
#![cfg_attr(target_os = "none", no_std, no_main)]

use runtime::abi::{Rights, Status};
use runtime::crowd::Crowd;
use runtime::first::{FREE, METER, PRIORITY, PROCESS};
use runtime::image::Image;
use runtime::kernel::{self, Limits, Plan};
use runtime::{call, check_telling, exit, program};

program!(start);

const IMAGE: u64 = FREE;
const FILE: u64 = FREE + 1;
/// Processes that stay with the shared tables, one that leaves second, one that exits.
const STAYERS: [u64; 2] = [FREE + 2, FREE + 3];
const SECOND: u64 = FREE + 4;
const LEAVER: u64 = FREE + 5;
const LEAVER_THREAD: u64 = FREE + 6;
const TELL: u64 = FREE + 7;
/// What the process that exits waits for.
const NEVER: u64 = FREE + 8;
/// The tables, one for each GiB.
const TABLES: u64 = FREE + 9;
const ALL: Rights = Rights::READ.union(Rights::WRITE);
const PAGE: u64 = 4096;
const HUGE: u64 = 2 << 20;
const GIB: u64 = 1 << 30;
/// In the same GiB as what others walk, in another PTE table.
const HERE: u64 = runtime::crowd::AWAY + 0x400_0000;
/// The first of 512 GiB that hold nothing else.
const GIBS: u64 = 0x100_0000_0000;
/// Tables under one PUD table.
const BATCH: u64 = 8;
/// Pages that are truncated in one operation, and where their frames are used again at once.
const TRUNCATED: u64 = 8;
const AGAIN: u64 = runtime::crowd::AWAY + 0x600_0000;
/// How often a collapse is tried again when a message had a page pinned.
const TRIES: usize = 16;

/// What an operation is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Operation {
    Unmap(u64),
    Discard(u64),
    Protect(u64),
    Collapse,
    CollapseFile,
    Leave { stayers: usize },
    LeaveByProtect,
    LeaveByExit,
    LeaveInTurn,
    Truncate,
}

impl Operation {
    fn of(workload: &str) -> Option<Operation> {
        use Operation::*;
        Some(match workload {
            "munmap_2m" => Unmap(HUGE),
            "munmap_4k" => Unmap(PAGE),
            "dontneed_2m" => Discard(HUGE),
            "dontneed_4k" => Discard(PAGE),
            "mprotect_2m" => Protect(HUGE),
            "mprotect_4k" => Protect(PAGE),
            "collapse_anon" => Collapse,
            "collapse_shmem_ptemapped" => CollapseFile,
            "unshare_munmap_last" => Leave { stayers: 1 },
            "unshare_munmap_3way" => Leave { stayers: 2 },
            "unshare_mprotect_last" => LeaveByProtect,
            "unshare_exit" => LeaveByExit,
            "unshare_chain" => LeaveInTurn,
            "retract_truncate" => Truncate,
            _ => return None,
        })
    }

    /// How many tables are shared, and by how many others.
    fn shares(self) -> (u64, usize) {
        match self {
            Operation::Leave { stayers } => (BATCH, stayers),
            Operation::LeaveByProtect | Operation::LeaveByExit | Operation::LeaveInTurn => (1, 1),
            _ => (0, 0),
        }
    }

    /// What others walk where they contend: an address, bytes, and how far apart operations are.
    fn range(self) -> [u64; 3] {
        match self {
            Operation::Unmap(bytes) | Operation::Discard(bytes) | Operation::Protect(bytes) => [HERE, bytes, 0],
            Operation::Collapse | Operation::CollapseFile => [HERE, HUGE, 0],
            Operation::Truncate => [HERE, TRUNCATED * PAGE, 0],
            // Of the stayer nothing is mapped here: they walk beside it.
            Operation::LeaveByExit => [runtime::crowd::AWAY, HUGE, 0],
            _ => [GIBS, self.shares().0 * GIB, GIB],
        }
    }
}

fn start(_argument: u64) -> u64 {
    let Ok(plan) = kernel::plan(METER) else { return exit::CHECK | u64::from(line!()) };
    let Some(operation) = Operation::of(plan.workload.as_str()) else { return exit::CHECK | u64::from(line!()) };
    match run(&plan, operation) {
        Ok(()) => exit::DONE,
        // The status of the system call that was not done.
        Err(status) => status as u64,
    }
}

fn run(plan: &Plan, operation: Operation) -> Result<(), Status> {
    let image = Image::new(PROCESS, IMAGE)?;
    set_up(operation)?;
    let mut crowd = Crowd::gather(plan, &image, operation.range())?;
    for op in 0..plan.ops {
        prepare(&image, operation, op)?;
        crowd.next_round(op)?;
        kernel::begin(METER)?;
        operate(operation, op)?;
        kernel::finish(METER)?;
    }
    crowd.disperse()
}

/// What there is before the first operation and after the last.
fn set_up(operation: Operation) -> Result<(), Status> {
    let (tables, stayers) = operation.shares();
    let nothing = Limits { slots: 4, frames: 0, bytes: 0, spaces: 0 };
    for table in 0..tables {
        kernel::make_shared(TABLES + table, 1)?;
    }
    for stayer in &STAYERS[..stayers] {
        kernel::make_process(*stayer, nothing, 0)?;
        (0..tables).try_for_each(|table| share(*stayer, table))?;
    }
    match operation {
        Operation::LeaveInTurn => kernel::make_process(SECOND, nothing, 0),
        Operation::LeaveByExit => {
            kernel::make_notification(TELL)?;
            kernel::make_notification(NEVER)
        }
        Operation::CollapseFile => kernel::make_huge(FILE, 1),
        Operation::Truncate => kernel::make_frames(FILE, HUGE / PAGE),
        Operation::Discard(bytes) | Operation::Protect(bytes) => kernel::map_anonymous(PROCESS, HERE, bytes, ALL),
        _ => Ok(()),
    }
}

/// Maps one of the tables, and joins it.
fn share(process: u64, table: u64) -> Result<(), Status> {
    kernel::map(process, TABLES + table, GIBS + table * GIB, 0, GIB, ALL)?;
    kernel::populate(process, GIBS + table * GIB, PAGE)
}

/// Everything that the next operation takes away.
fn prepare(image: &Image, operation: Operation, op: u64) -> Result<(), Status> {
    match operation {
        Operation::Unmap(bytes) => {
            kernel::map_anonymous(PROCESS, HERE, bytes, ALL)?;
            kernel::populate(PROCESS, HERE, bytes)
        }
        Operation::Discard(bytes) => kernel::populate(PROCESS, HERE, bytes),
        Operation::Protect(bytes) => {
            kernel::protect(PROCESS, HERE, ALL)?;
            kernel::populate(PROCESS, HERE, bytes)
        }
        Operation::Collapse | Operation::CollapseFile => {
            if op > 0 {
                kernel::unmap(PROCESS, HERE)?;
            }
            match operation {
                Operation::Collapse => kernel::map_anonymous(PROCESS, HERE, HUGE, ALL)?,
                _ => kernel::map(PROCESS, FILE, HERE, 0, HUGE, ALL)?,
            }
            kernel::populate(PROCESS, HERE, HUGE)
        }
        Operation::Truncate => {
            if op > 0 {
                kernel::unmap(PROCESS, HERE)?;
                kernel::unmap(PROCESS, AGAIN)?;
            }
            kernel::map(PROCESS, FILE, HERE, 0, HUGE, ALL)?;
            kernel::populate(PROCESS, HERE, TRUNCATED * PAGE)?;
            kernel::map_anonymous(PROCESS, AGAIN, TRUNCATED * PAGE, ALL)?;
            // The table and one page, so that the operation allocates pages only.
            kernel::populate(PROCESS, AGAIN + (TRUNCATED - 1) * PAGE, PAGE)
        }
        Operation::Leave { .. } if op.is_multiple_of(BATCH) => (0..BATCH).try_for_each(|n| share(PROCESS, n)),
        Operation::Leave { .. } => Ok(()),
        Operation::LeaveByProtect => {
            if op > 0 {
                kernel::unmap(PROCESS, GIBS)?;
            }
            share(PROCESS, 0)
        }
        Operation::LeaveInTurn => {
            share(PROCESS, 0)?;
            share(SECOND, 0)
        }
        Operation::LeaveByExit => {
            let limits = Limits { slots: 4, frames: 16, bytes: 16 << 10, spaces: 0 };
            image.process(LEAVER, limits, PRIORITY)?;
            kernel::map(LEAVER, TABLES, GIBS, 0, GIB, ALL)?;
            kernel::grant(LEAVER, 0, TELL, ALL, 0)?;
            kernel::grant(LEAVER, 1, NEVER, ALL, 0)?;
            image.start(LEAVER, LEAVER_THREAD, touch_and_wait, 0, PRIORITY, 0)?;
            kernel::bind(LEAVER_THREAD, TELL, ENDED)?;
            // It has touched the table, and runs on no other CPU.
            wait_for(READY)
        }
    }
}

fn operate(operation: Operation, op: u64) -> Result<(), Status> {
    match operation {
        Operation::Unmap(_) => kernel::unmap(PROCESS, HERE),
        Operation::Discard(bytes) => kernel::discard(PROCESS, HERE, bytes),
        Operation::Protect(_) => kernel::protect(PROCESS, HERE, Rights::READ),
        Operation::Collapse | Operation::CollapseFile => collapse(),
        Operation::Truncate => {
            kernel::truncate(FILE, 0, HUGE)?;
            kernel::populate(PROCESS, AGAIN, TRUNCATED * PAGE)
        }
        Operation::Leave { .. } => kernel::unmap(PROCESS, GIBS + op % BATCH * GIB),
        Operation::LeaveByProtect => kernel::protect(PROCESS, GIBS, Rights::READ),
        Operation::LeaveInTurn => {
            kernel::unmap(PROCESS, GIBS)?;
            kernel::unmap(SECOND, GIBS)
        }
        Operation::LeaveByExit => {
            kernel::delete(LEAVER)?;
            wait_for(ENDED)?;
            kernel::delete(LEAVER_THREAD)
        }
    }
}

fn collapse() -> Result<(), Status> {
    for _ in 0..TRIES {
        match kernel::collapse(PROCESS, HERE) {
            // A message had a page pinned. When it is given up, everything is as it was.
            Err(Status::Busy) => call::relax(),
            Err(Status::NotPopulated) => return Ok(()),
            result => return result,
        }
    }
    Ok(())
}

const READY: u64 = 1;
const ENDED: u64 = 2;

fn wait_for(bit: u64) -> Result<(), Status> {
    let bits = kernel::wait_for_bits(TELL)?;
    if bits == bit { Ok(()) } else { Err(Status::BadArgument) }
}

/// The process that exits: it uses the table, and waits for its end.
extern "C" fn touch_and_wait(_argument: u64) -> ! {
    // SAFETY: the parent mapped the table here.
    unsafe { (GIBS as *const u64).read_volatile() };
    check_telling!(0, kernel::signal(0, READY).is_ok());
    // Nobody sets a bit of this one.
    let _ = kernel::wait_for_bits(1);
    call::exit(exit::CHECK | u64::from(line!()))
}
