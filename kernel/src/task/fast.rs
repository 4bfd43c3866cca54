//! The short way through the kernel: what the entry of system calls tries first.
//!
//! A null call, a short call whose receiver waits on this CPU, and the short answer to one: no more than these, and
//! only if nothing else is to be done about them. Then the CPU goes from one thread to the other as it is, with
//! interrupts masked and without its queue. In every other case nothing has changed, and the call takes the long way
//! ([`crate::syscall`]), which does the same and all the rest.
//!
//! - **It reads no table**, so grace periods see the CPU in user mode all the while, and it never waits: where a lock
//!   is held it takes the long way. Nor does it allocate; at most it frees the reply of a thread that has ended.
//! - **Who receives and who answers are taken as everywhere** ([`crate::ipc::wait`]): out of the endpoint's queue under
//!   its lock, or out of the reply.
//! - **The capability** is mostly the one that the thread has called by last, which it keeps
//!   (`Near` in `object/thread.rs`); else it is looked up in the table. Whether it is alive and allows the call is
//!   looked at with the endpoint's lock, which is held till the call is done; and who deletes or revokes it takes that
//!   lock when it is dead (guard `KillMeets`). So a revocation comes before or after.
//! - **The thread that is left** has no place in a queue: its reference goes with it, into its reply when it calls,
//!   into the endpoint's queue when it waits. Whoever ends it meanwhile either finds it there, or it sees that it ends,
//!   since both look under the lock of its state.
//! - **Who may change places**: threads of one home that shall not move, of one priority. Of different ones only if the
//!   CPU's queue has none that is more urgent than the one that goes on, which is looked at again after what runs was
//!   said, as in [`super::sched`]. What is asked of a thread meanwhile (to move, to end) comes with an interrupt or
//!   waits for the next tick.
//! - **Between processes** the CPU loads the other's address space (guard `ShortLoads`), the way that never waits
//!   (`switch::try_load`). Before a call nothing has changed if that cannot be. An answer finds out too late for that,
//!   since only who has taken the caller may look at it: then it is left in the caller's state, as on the long way,
//!   which does the wait that is left.
//! - **Time**: the one that goes on does so in the time of the one that is left.

use alloc::sync::Arc;
use core::ptr::NonNull;

use super::sched;
use super::user::UserContext;
use crate::abi::{Number, Rights, Status, WORDS};
use crate::arch::Arch;
use crate::guard;
use crate::ipc::exchange;
use crate::object::capability::Node;
use crate::object::endpoint::Endpoint;
use crate::object::thread::Thread;
use crate::pause;
use crate::smp::cpu::Cpu;
use crate::task::place::Place;
use crate::tlb::switch;

/// What to go on with: a thread's registers, and its answer, which is not in them: done, then `first`, then those words
/// of another's registers that are a message's ([`UserContext::call`], from the third on). Nothing if `context` is
/// null: nothing was done.
#[repr(C)]
pub struct Next<C> {
    /// The registers.
    pub context: *mut C,
    /// Where the words are. For who moves them with the rest to the CPU's registers; [`Next::with_words`] for others.
    pub words: *const C,
    /// The answer's second word.
    pub first: u64,
}

impl<C: UserContext> Next<C> {
    const NOTHING: Next<C> = Next { context: core::ptr::null_mut(), words: core::ptr::null(), first: 0 };

    /// The registers, with the answer in them.
    ///
    /// # Safety
    /// It is what [`system_call`] has just returned.
    pub unsafe fn with_words(self) -> Option<NonNull<C>> {
        let context = NonNull::new(self.context)?;
        // SAFETY: threads of this CPU, whose registers nobody else refers to.
        unsafe {
            (*self.context).take_first(self.first);
            if !core::ptr::eq(self.context, self.words) {
                (*self.context).take_words(&*self.words);
            }
        }
        Some(context)
    }
}

/// Does the system call of the thread that runs on this CPU, whose registers are `context`, if that can be done on the
/// short way.
///
/// # Safety
/// Interrupts are masked; `context` are the registers of this CPU's current thread ([`crate::arch::Arch::enter_user`]),
/// all of them saved but for floating point, and nobody else refers to them.
#[inline(always)]
pub unsafe fn system_call<A: Arch>(context: NonNull<A::UserContext>) -> Next<A::UserContext> {
    // SAFETY: the caller's promise.
    let registers = unsafe { &mut *context.as_ptr() };
    let number = registers.word(0);
    let done = if number == Number::Call as u64 {
        call::<A, false>(registers)
    } else if number == Number::ReplyWait as u64 {
        reply_wait::<A, false>(registers)
    } else if number == Number::Null as u64 {
        registers.answer([0; WORDS]);
        return Next { context: context.as_ptr(), words: context.as_ptr(), first: 0 };
    } else {
        return Next::NOTHING;
    };
    let (next, first) = match done {
        Ok((next, first)) => (next.as_ptr(), first),
        Err(Else::Usual) => less_plain::<A>(context),
        Err(Else::Long) => return Next::NOTHING,
    };
    Next { context: next, words: context.as_ptr(), first }
}

/// What else can be done.
enum Else {
    /// The same, with `ANY`.
    Usual,
    /// The long way.
    Long,
}

/// Where the plainest case, which is compiled without any call and so into a few registers, has to do with another
/// priority, another caller or another capability than the last, or vector registers. As in [`Next`].
#[cold]
#[inline(never)]
fn less_plain<A: Arch>(context: NonNull<A::UserContext>) -> (*mut A::UserContext, u64) {
    // SAFETY: that of `system_call`, which has dropped its reference.
    let registers = unsafe { &mut *context.as_ptr() };
    let is_call = registers.word(0) == Number::Call as u64;
    match if is_call { call::<A, true>(registers) } else { reply_wait::<A, true>(registers) } {
        Ok((next, first)) => (next.as_ptr(), first),
        Err(_) => (core::ptr::null_mut(), 0),
    }
}

/// The registers to go on with, and the second word of its answer.
type Done<C> = Result<(NonNull<C>, u64), Else>;

#[inline(always)]
fn call<A: Arch, const ANY: bool>(registers: &mut A::UserContext) -> Done<A::UserContext> {
    let cpu = A::this_cpu();
    // SAFETY: it runs here.
    let thread = unsafe { &*cpu.tasks.current() };
    let node = near::<A, ANY>(thread, registers.word(1), Rights::WRITE)?;
    // SAFETY: who is near is an endpoint's.
    let endpoint: &Endpoint<A> = unsafe { node.endpoint() };
    let mut meeting = endpoint.meeting.try_lock().ok_or(Else::Long)?;
    if !node.is_endpoint(Rights::WRITE) {
        return Err(Else::Usual);
    }
    let badge = node.badge();
    pause!(cpu, ShortLooked);
    let first = Arc::as_ptr(meeting.receivers.first().ok_or(Else::Long)?);
    // SAFETY: it is in the queue, which is locked.
    let receiver = unsafe { &*first };
    let (place, theirs) = (cpu.tasks.place(), receiver.place());
    let mut state = receiver.state.try_lock().ok_or(Else::Long)?;
    let strange = !Arc::ptr_eq(&thread.process, &receiver.process);
    if !state.receives_short() {
        return Err(Else::Long);
    }
    if !ANY {
        // SAFETY: it waits, and its home is this CPU, which runs another.
        let light = || registers.is_light() && unsafe { receiver.registers.get().as_ref() }.is_light();
        let plain = theirs == place && light() && state.caller.was(thread) && meeting.receivers.is_alone();
        if strange || !plain {
            // One of another CPU is for the long way in any case.
            return Err(if theirs.is_at(cpu.id) { Else::Usual } else { Else::Long });
        }
    }
    if ANY && theirs != place && !may_follow(cpu, theirs) {
        return Err(Else::Long);
    }
    if ANY && strange && !loads(cpu, receiver) {
        sched::goes_on(cpu, place.plain());
        return Err(Else::Long);
    }
    let place = if registers.is_light() { place } else { place.heavy() };
    let place = if ANY && strange { place.strange() } else { place };
    // SAFETY: the receiver's state is locked, and it goes on with this. The reference that the CPU has to the thread is
    // in its reply from here on: it runs another one below.
    if !unsafe { state.caller.set_running::<ANY>(thread, place) } {
        // It ends, maybe with another mm loaded: see `super::turn`.
        if ANY {
            sched::goes_on(cpu, place.plain());
        }
        return Err(Else::Long);
    }
    state.received_short();
    drop(state);
    core::mem::forget(if ANY { meeting.receivers.pop() } else { meeting.receivers.pop_alone() });
    // SAFETY: the reference that was in the queue, which has been locked since its first was looked at.
    let receiver = unsafe { Arc::from_raw(first) };
    drop(meeting);
    Ok((go_on::<A, ANY>(cpu, registers, receiver), badge.into()))
}

#[inline(always)]
fn reply_wait<A: Arch, const ANY: bool>(registers: &mut A::UserContext) -> Done<A::UserContext> {
    let cpu = A::this_cpu();
    // SAFETY: it runs here.
    let thread = unsafe { &*cpu.tasks.current() };
    let node = near::<A, ANY>(thread, registers.word(1), Rights::READ)?;
    // SAFETY: who is near is an endpoint's.
    let shared = unsafe { node.endpoint() };
    let endpoint: &Endpoint<A> = shared;
    let mut meeting = endpoint.meeting.try_lock().ok_or(Else::Long)?;
    if !node.is_endpoint(Rights::READ) {
        return Err(Else::Usual);
    }
    let mut state = thread.state.try_lock().ok_or(Else::Long)?;
    let others = meeting.receivers.first().is_some() || meeting.callers.first().is_some();
    if others || meeting.ended || state.replied.is_some() || thread.is_told_to_end() {
        return Err(Else::Long);
    }
    let place = cpu.tasks.place();
    let theirs = state.caller.place();
    if !ANY {
        let plain = theirs == place && state.is_at(endpoint) && registers.is_light();
        if !plain {
            return Err(if theirs.plain().is_at(cpu.id) { Else::Usual } else { Else::Long });
        }
    }
    if ANY && theirs.plain() != place && !may_follow(cpu, theirs.plain()) {
        return Err(Else::Long);
    }
    let Some(client) = state.caller.take_running() else {
        if ANY {
            sched::goes_on(cpu, place);
        }
        return Err(Else::Long);
    };
    if ANY && !Arc::ptr_eq(&thread.process, &client.process) && !loads(cpu, &client) {
        // The wait alone is left.
        state.replied = Some(Status::Done);
        drop(state);
        drop(meeting);
        sched::goes_on(cpu, place);
        exchange::give_short(cpu, &client, core::array::from_fn(|i| registers.word(i + 2)));
        return Err(Else::Long);
    }
    if ANY {
        state.stay_at(shared);
    }
    state.receive_short();
    drop(state);
    // SAFETY: the CPU's own reference; it runs another thread below.
    meeting.receivers.push_first(unsafe { Arc::from_raw(thread) });
    drop(meeting);
    Ok((go_on::<A, ANY>(cpu, registers, client), 0))
}

/// Loads the address space of `thread`, of another process, if that needs no wait.
#[inline(never)]
fn loads<A: Arch>(cpu: &'static Cpu<A>, thread: &Thread<A>) -> bool {
    !guard!(ShortLoads) || switch::try_load(cpu, &thread.process.mm)
}

/// The capability to an endpoint that `thread`, which runs here, means by `word`: a slot, and above it what the message
/// has beside its words, which is nothing on the short way: such a word names no slot.
#[inline(always)]
fn near<A: Arch, const ANY: bool>(thread: &Thread<A>, word: u64, rights: Rights) -> Result<&Node<A>, Else> {
    // SAFETY: it runs on this CPU.
    match unsafe { thread.near.at(word) } {
        Some(node) if !ANY || node.is_endpoint(rights) => Ok(node),
        _ if ANY => find(thread, word, rights).ok_or(Else::Long),
        _ if word >> 32 == 0 => Err(Else::Usual),
        _ => Err(Else::Long),
    }
}

/// The same out of the table. It is near from now on.
#[cold]
#[inline(never)]
fn find<A: Arch>(thread: &Thread<A>, word: u64, rights: Rights) -> Option<&Node<A>> {
    let slot = u32::try_from(word).ok()?;
    let node = thread.process.table.try_get(slot)?;
    // What is near is near to threads that wait for ever: no other's wait begins here.
    if !node.is_endpoint(rights) || thread.gives_up() {
        return None;
    }
    // SAFETY: it runs on this CPU; what was near before is not looked at any more.
    unsafe {
        thread.near.set(slot, node);
        thread.near.at(word)
    }
}

/// `to` goes on. It is this CPU's: so are its registers.
#[inline(always)]
fn go_on<A: Arch, const ANY: bool>(
    cpu: &'static Cpu<A>,
    registers: &mut A::UserContext,
    to: Arc<Thread<A>>,
) -> NonNull<A::UserContext> {
    let context = to.registers.get();
    // SAFETY: taken from where it waited, it is this CPU's, which its home is, and runs nowhere; it is not the one that
    // waits.
    let theirs = unsafe { &mut *context.as_ptr() };
    // In the plainest case both are.
    if !ANY {
        A::UserContext::go_over_lightly(registers, theirs);
    } else {
        go_over::<A>(registers, theirs);
    }
    // The one that is left keeps its reference where it waits.
    cpu.tasks.make_current(to);
    context
}

#[cold]
#[inline(never)]
fn go_over<A: Arch>(from: &mut A::UserContext, to: &mut A::UserContext) {
    A::UserContext::change_over(from, to);
}

/// Whether a thread that runs at `theirs`, which is not where the present one runs, may go on instead of it. If so,
/// that priority is said to run.
#[cold]
#[inline(never)]
fn may_follow<A: Arch>(cpu: &'static Cpu<A>, theirs: Place) -> bool {
    theirs.is_at(cpu.id) && sched::takes_over(cpu, theirs.priority())
}
