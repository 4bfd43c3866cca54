//! One turn of a CPU: it takes a thread from its queue, lets it run until it waits, ends, or makes room, and handles what it does meanwhile.

use alloc::sync::Arc;

use super::sched;
use super::user::{Access, UserContext, UserEvent};
use crate::abi::{self, Status};
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

/// Lets the CPU take one turn. False: there was nothing to do, and it may idle ([`sched::idle`]). Called with interrupts enabled.
pub fn turn<A: Arch>(cpu: &'static Cpu<A>) -> bool {
    // Between two turns a CPU reads no table: grace periods pass here, and while a program runs with its timer.
    rcu::quiescent(cpu);
    A::machine().objects.lines.deliver(cpu);
    sched::end_waits(cpu);
    object::finish(cpu);
    let Some(thread) = sched::next(cpu) else { return false };
    if thread.is_ending() {
        leave(cpu, &thread);
        return true;
    }
    if thread.shall_move() {
        release(cpu, &thread);
        thread.moves();
        sched::wake(cpu, &thread);
        return true;
    }
    hold(cpu, &thread);
    switch::load(cpu, &thread.process.mm);
    sched::arm(cpu);
    let since = sched::ticks(cpu);
    match run(cpu, &thread, since) {
        // Whoever ended it before it began to wait did not see that it waits.
        End::Waits if thread.is_ending() => wait::cancel(cpu, &thread, Status::Gone),
        End::Waits => {}
        End::MakesRoom => sched::put_back(cpu, &thread, since),
        End::Ends => leave(cpu, &thread),
    }
    true
}

/// Runs `thread`, whose mm is loaded.
fn run<A: Arch>(cpu: &'static Cpu<A>, thread: &Arc<Thread<A>>, since: u64) -> End {
    let mut context = thread.context.lock();
    if let Some(outcome) = settle(cpu, thread, &context) {
        match outcome {
            Outcome::Answer(words) => context.answer(words),
            Outcome::Waits => return End::Waits,
        }
    }
    loop {
        // Interrupts are masked from here on: whoever changes one of these now has the interrupt that tells of it stop the thread at once.
        let enabled = A::irq_save();
        let ends = thread.is_ending();
        if ends || thread.shall_move() || sched::makes_room(cpu, thread.priority(), since) {
            A::irq_restore(enabled);
            return if ends { End::Ends } else { End::MakesRoom };
        }
        // A program holds no table: grace periods do not wait for it, however long it runs.
        rcu::enter_idle(cpu);
        let event = A::enter_user(&mut context);
        rcu::leave_idle(cpu);
        A::irq_restore(enabled);
        match event {
            UserEvent::Call => match syscall::handle(cpu, thread, context.call()) {
                Outcome::Answer(words) => context.answer(words),
                Outcome::Waits => return End::Waits,
            },
            UserEvent::Fault { at, access } => {
                if let Err(error) = fault::of_program(cpu, &thread.process.mm, at, access) {
                    if exchange::call_pager(cpu, thread, at, number(access)) {
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

/// What others have left for `thread`: the answer to its system call, if that is over now.
fn settle<A: Arch>(cpu: &'static Cpu<A>, thread: &Arc<Thread<A>>, context: &A::UserContext) -> Option<Outcome> {
    let (delivery, answer, retry) = {
        let mut state = thread.state.lock();
        (state.delivery.take(), state.answer.take(), core::mem::take(&mut state.retry))
    };
    if let Some(delivery) = delivery {
        return Some(Outcome::Answer(exchange::receive(cpu, thread, delivery)));
    }
    if let Some(words) = answer {
        return Some(Outcome::Answer(words));
    }
    retry.then(|| syscall::handle(cpu, thread, context.call()))
}

fn number(access: Access) -> u64 {
    let access = match access {
        Access::Read => abi::Access::Read,
        Access::Write => abi::Access::Write,
        Access::Execute => abi::Access::Execute,
    };
    access as u64
}

/// This CPU is about to hold registers of `thread`, and so none of another.
fn hold<A: Arch>(cpu: &'static Cpu<A>, thread: &Arc<Thread<A>>) {
    let mut held = cpu.tasks.held.lock();
    if held.as_ref().is_some_and(|other| Arc::ptr_eq(other, thread)) {
        return;
    }
    if let Some(other) = held.replace(thread.clone()) {
        drop(held);
        if guard!(VectorsParked) {
            other.context.lock().park();
        }
    }
}

/// This CPU holds no registers of `thread` any more.
fn release<A: Arch>(cpu: &'static Cpu<A>, thread: &Arc<Thread<A>>) {
    let mut held = cpu.tasks.held.lock();
    if held.as_ref().is_some_and(|other| Arc::ptr_eq(other, thread)) {
        *held = None;
        drop(held);
        thread.context.lock().park();
    }
}

/// `thread` does not run again.
fn leave<A: Arch>(cpu: &'static Cpu<A>, thread: &Arc<Thread<A>>) {
    release(cpu, thread);
    thread.leave(cpu);
    object::finish(cpu);
}
