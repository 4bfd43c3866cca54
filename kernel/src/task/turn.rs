//! One turn of a CPU: it takes a thread from its queue, lets it run until it waits, ends, or makes room, and handles
//! what it does meanwhile.

use alloc::sync::Arc;
use core::sync::atomic::Ordering;

use super::user::{Access, UserContext, UserEvent};
use super::{deadline, sched};
use crate::abi::{self, Status, WORDS};
use crate::arch::Arch;
use crate::guard;
use crate::ipc::exchange::{self, Outcome};
use crate::ipc::wait;
use crate::mm::fault;
use crate::object::thread::Thread;
use crate::object::{self, ObjectError};
use crate::smp::cpu::Cpu;
use crate::smp::rcu;
use crate::syscall;
use crate::tlb::switch;

/// How a turn ended for its thread.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum End {
    /// It waits; somebody else has it.
    Waits,
    /// It goes on later.
    MakesRoom,
    /// It does not go on.
    Ends,
}

/// Lets the CPU take one turn. False: there was nothing to do, and it may idle ([`sched::idle`]). Called with
/// interrupts enabled.
pub fn turn<A: Arch>(cpu: &'static Cpu<A>) -> bool {
    // Between two turns a CPU reads no table: grace periods pass here, and while a program runs with its timer.
    rcu::quiescent(cpu);
    A::machine().objects.lines.deliver(cpu);
    deadline::end_waits(cpu);
    let left = finish_some(cpu);
    let Some(thread) = sched::next(cpu) else { return left };
    // One that ends in the middle of a removal goes on until that is over: nobody else does.
    if thread.is_ending() && thread.state.lock().unfinished.is_none() {
        leave(cpu, &thread);
        return true;
    }
    if thread.shall_move() {
        thread.moves();
        sched::wake(cpu, &thread);
        return true;
    }
    switch::load(cpu, &thread.process.mm);
    sched::arm(cpu);
    let since = sched::ticks(cpu);
    cpu.tasks.make_current(thread);
    let mut in_cpu = false;
    let end = run(cpu, since, &mut in_cpu);
    // Not always the one that it began with: see [`super::fast`].
    let thread = cpu.tasks.take_current();
    if in_cpu && guard!(VectorsParked) {
        // SAFETY: the thread has run here and does not any more; wherever it waits, only this CPU takes it from its
        // queue.
        unsafe { (*thread.registers.get().as_ptr()).park() };
    }
    match end {
        // Whoever ended it before it began to wait did not see that it waits.
        End::Waits if thread.is_ending() => wait::cancel(cpu, &thread, Status::Gone),
        End::Waits => {}
        End::MakesRoom => sched::put_back(cpu, &thread, since),
        End::Ends => leave(cpu, &thread),
    }
    true
}

/// Runs the current thread, whose mm is loaded, and those that it changes places with. `in_cpu`: the CPU has the
/// current thread's floating-point registers.
fn run<A: Arch>(cpu: &'static Cpu<A>, since: u64, in_cpu: &mut bool) -> End {
    let mut thread = cpu.tasks.share_current();
    if let Some(outcome) = settle(cpu, &thread) {
        match outcome {
            Outcome::Answer(words) => answer(&thread, words),
            Outcome::Waits => return End::Waits,
            Outcome::Later => return End::MakesRoom,
        }
    }
    loop {
        // Interrupts are masked from here on: whoever changes one of these now has the interrupt that tells of it stop
        // the thread at once.
        let enabled = A::irq_save();
        let ends = thread.is_ending();
        if ends || thread.shall_move() || sched::makes_room(cpu, thread.priority(), since) {
            A::irq_restore(enabled);
            return if ends { End::Ends } else { End::MakesRoom };
        }
        // A program holds no table: grace periods do not wait for it, however long it runs.
        rcu::enter_idle(cpu);
        // SAFETY: the registers are those of this CPU's current thread, and there is no reference to them.
        let event = unsafe { A::enter_user(thread.registers.get(), *in_cpu) };
        *in_cpu = true;
        rcu::leave_idle(cpu);
        A::irq_restore(enabled);
        if !core::ptr::eq(cpu.tasks.current(), &*thread) {
            thread = cpu.tasks.share_current();
        }
        match event {
            UserEvent::Call => {
                // The short way may have loaded another mm and then found that it is not to be taken.
                if cpu.loaded.mm() != thread.process.mm.id {
                    switch::load(cpu, &thread.process.mm);
                }
                thread.paged.store(0, Ordering::Relaxed);
                match syscall::handle(cpu, &thread, asked(&thread)) {
                    Outcome::Answer(words) => answer(&thread, words),
                    Outcome::Waits => return End::Waits,
                    Outcome::Later => return End::MakesRoom,
                }
            }
            UserEvent::Fault { at, access } => {
                if let Err(error) = fault::of_program(cpu, &thread.process.mm, at, access) {
                    if exchange::call_pager(cpu, &thread, at, number(access), false) {
                        return End::Waits;
                    }
                    log::debug!("thread {} ends: {error}", thread.id);
                    thread.end(cpu, ObjectError::Map(error).status() as u64);
                }
            }
            // What it brought is looked at when the next turn begins.
            UserEvent::Interrupt => return End::MakesRoom,
            UserEvent::Exception { kind, at } => {
                log::debug!("thread {} ends: {kind} at {at}", thread.id);
                thread.end(cpu, Status::BadArgument as u64);
            }
        }
    }
}

/// The words of the system call that has stopped `thread`, which is this CPU's current one.
fn asked<A: Arch>(thread: &Thread<A>) -> [u64; WORDS] {
    // SAFETY: this CPU has the thread, and it is in the kernel.
    unsafe { (*thread.registers.get().as_ptr()).call() }
}

/// Puts the answer to its system call into the registers of `thread`, which is this CPU's current one.
fn answer<A: Arch>(thread: &Thread<A>, words: [u64; WORDS]) {
    // SAFETY: as in `asked`.
    unsafe { (*thread.registers.get().as_ptr()).answer(words) }
}

/// What others have left for `thread`: the answer to its system call, if that is over now and not yet in its registers.
fn settle<A: Arch>(cpu: &'static Cpu<A>, thread: &Arc<Thread<A>>) -> Option<Outcome> {
    let mut state = thread.state.lock();
    let retry = core::mem::take(&mut state.retry);
    if state.unfinished.is_some() {
        drop(state);
        return Some(syscall::go_on(cpu, thread));
    }
    // Looked at before it is taken: what is not there is not moved.
    if state.delivery.is_some()
        && let Some(delivery) = state.delivery.take()
    {
        state.answer = None;
        drop(state);
        return Some(Outcome::Answer(exchange::receive(cpu, thread, delivery)));
    }
    if let Some(words) = &state.answer {
        answer(thread, *words);
        state.answer = None;
        return None;
    }
    drop(state);
    retry.then(|| syscall::handle(cpu, thread, asked(thread)))
}

fn number(access: Access) -> u64 {
    let access = match access {
        Access::Read => abi::Access::Read,
        Access::Write => abi::Access::Write,
        Access::Execute => abi::Access::Execute,
    };
    access as u64
}

/// `thread` does not run again.
fn leave<A: Arch>(cpu: &'static Cpu<A>, thread: &Arc<Thread<A>>) {
    thread.leave(cpu);
    finish_some(cpu);
}

/// Takes down processes that have ended, while nobody wants this CPU who is more urgent than their threads could be.
/// True: something is left.
fn finish_some<A: Arch>(cpu: &'static Cpu<A>) -> bool {
    let since = sched::ticks(cpu);
    object::finish_some(cpu, |highest| sched::is_wanted(cpu, highest, since))
}
