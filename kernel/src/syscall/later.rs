//! System calls that take long: each is left where others want the CPU, and gone on with when its thread runs next, also
//! if that was ended meanwhile.

use alloc::sync::Arc;
use core::cell::Cell;

use crate::abi::Status;
use crate::addr::VirtAddr;
use crate::arch::Arch;
use crate::ipc::exchange::Outcome;
use crate::ipc::wait::Unfinished;
use crate::object;
use crate::object::account::Price;
use crate::object::process::Process;
use crate::object::removal::Removal;
use crate::object::thread::Thread;
use crate::smp::cpu::Cpu;
use crate::task::sched;

/// Goes on with what was left for later.
pub fn go_on<A: Arch>(cpu: &'static Cpu<A>, thread: &Arc<Thread<A>>) -> Outcome {
    let unfinished = thread.state.lock().unfinished.take();
    match unfinished {
        Some(Unfinished::Removal(removal)) => remove(cpu, thread, removal),
        Some(Unfinished::Unmapping(process, at)) => match process.upgrade() {
            Some(process) => unmap_on(cpu, thread, process, at),
            None => Outcome::from(Status::Done),
        },
        Some(Unfinished::Ends(process)) => match process.upgrade() {
            Some(process) => when_down(cpu, thread, &process),
            None => Outcome::from(Status::Done),
        },
        None => Outcome::from(Status::Done),
    }
}

/// Whether others want the CPU, on which from now on something is done for `thread`.
pub(super) fn wanted<A: Arch>(cpu: &'static Cpu<A>, thread: &Thread<A>) -> impl Fn() -> bool {
    let since = sched::ticks(cpu);
    move || sched::is_wanted(cpu, thread.priority(), since)
}

/// Goes on with a mapping that `thread` undoes, until others want the CPU.
fn unmap_on<A: Arch>(cpu: &'static Cpu<A>, thread: &Arc<Thread<A>>, process: Arc<Process<A>>, at: VirtAddr) -> Outcome {
    let over = process.unmap_on(cpu, at, &mut wanted(cpu, thread));
    unmapped(thread, process, at, over)
}

/// What becomes of the call of `thread`, which undoes the mapping at `at`, when that is `over` or is left.
pub(super) fn unmapped<A: Arch>(
    thread: &Arc<Thread<A>>,
    process: Arc<Process<A>>,
    at: VirtAddr,
    over: bool,
) -> Outcome {
    if !over {
        thread.state.lock().unfinished = Some(Unfinished::Unmapping(Arc::downgrade(&process), at));
        return Outcome::Later;
    }
    Outcome::from(Status::Done)
}

/// Goes on with a removal that `thread` asked for, until others want the CPU.
pub(super) fn remove<A: Arch>(cpu: &'static Cpu<A>, thread: &Arc<Thread<A>>, mut removal: Removal<A>) -> Outcome {
    if !removal.advance(cpu, wanted(cpu, thread)) {
        thread.state.lock().unfinished = Some(Unfinished::Removal(removal));
        return Outcome::Later;
    }
    match removal.process() {
        Some(process) => when_down(cpu, thread, process),
        None => Outcome::from(Status::Done),
    }
}

/// Answers when `process`, which `thread` has ended, is taken down, and whatever that had made: whoever made it finds its
/// account whole. What others have ended is theirs, unless it is in the way.
pub(super) fn when_down<A: Arch>(cpu: &'static Cpu<A>, thread: &Thread<A>, process: &Arc<Process<A>>) -> Outcome {
    let (since, begun) = (sched::ticks(cpu), Cell::new(false));
    let over = || process.is_down() && process.account.used() == Price::NOTHING;
    // One step at least, whatever is wanted.
    let stops = |_| over() || (begun.replace(true) && sched::is_wanted(cpu, thread.priority(), since));
    if object::finish_some(cpu, stops) && !over() {
        thread.state.lock().unfinished = Some(Unfinished::Ends(Arc::downgrade(process)));
        return Outcome::Later;
    }
    Outcome::from(Status::Done)
}
