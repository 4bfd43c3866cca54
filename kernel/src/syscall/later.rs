//! System calls that take long: each is left where others want the CPU, and gone on with when its thread runs next, also
//! if that was ended meanwhile.

use alloc::sync::Arc;
use core::cell::Cell;

use crate::abi::{Status, WORDS};
use crate::addr::VirtAddr;
use crate::arch::Arch;
use crate::ipc::exchange::Outcome;
use crate::ipc::wait::{Unfinished, just};
use crate::object;
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
        Some(Unfinished::Ends(words)) => when_finished(cpu, thread, words),
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
    when_finished(cpu, thread, just(Status::Done))
}

/// Answers with `words` when what `thread` has ended is taken down: it finds its account whole. What others end counts
/// too, wherever it is not being taken down.
pub(super) fn when_finished<A: Arch>(cpu: &'static Cpu<A>, thread: &Thread<A>, words: [u64; WORDS]) -> Outcome {
    let (since, begun) = (sched::ticks(cpu), Cell::new(false));
    // One step at least, whatever is wanted.
    let stops = |_| begun.replace(true) && sched::is_wanted(cpu, thread.priority(), since);
    if object::finish_some(cpu, stops) {
        thread.state.lock().unfinished = Some(Unfinished::Ends(words));
        return Outcome::Later;
    }
    Outcome::Answer(words)
}
