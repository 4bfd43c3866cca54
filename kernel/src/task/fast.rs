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
//!   its lock, or out of the reply. The capability is looked up while its table is locked, and that is held to the end,
//!   so a revocation comes before or after.
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
use crate::object::endpoint::Endpoint;
use crate::object::table::Reading;
use crate::object::thread::{Place, Thread};
use crate::smp::cpu::Cpu;
use crate::tlb::switch;

/// What to go on with: a thread's registers, and those whose message words ([`UserContext::call`], from the third on)
/// are its answer's too. Nothing if the first is null: nothing was done.
#[repr(C)]
pub struct Next<C> {
    /// The registers.
    pub context: *mut C,
    /// Where the words are. For who moves them with the rest to the CPU's registers; [`Next::with_words`] for others.
    pub words: *const C,
}

impl<C: UserContext> Next<C> {
    const NOTHING: Next<C> = Next { context: core::ptr::null_mut(), words: core::ptr::null() };

    /// The registers, complete.
    ///
    /// # Safety
    /// It is what [`system_call`] has just returned.
    pub unsafe fn with_words(self) -> Option<NonNull<C>> {
        let context = NonNull::new(self.context)?;
        if !core::ptr::eq(self.context, self.words) {
            // SAFETY: two threads of this CPU, whose registers nobody else refers to.
            unsafe { (*self.context).take_words(&*self.words) };
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
        return Next { context: context.as_ptr(), words: context.as_ptr() };
    } else {
        return Next::NOTHING;
    };
    match done {
        Ok(next) => Next { context: next.as_ptr(), words: context.as_ptr() },
        Err(Else::Usual) => less_plain::<A>(context),
        Err(Else::Long) => Next::NOTHING,
    }
}

/// What else can be done.
enum Else {
    /// The same, with `ANY`.
    Usual,
    /// The long way.
    Long,
}

/// Where the plainest case, which is compiled without any call and so into a few registers, has to do with another
/// priority, another caller than the last, or vector registers.
#[cold]
#[inline(never)]
fn less_plain<A: Arch>(context: NonNull<A::UserContext>) -> Next<A::UserContext> {
    // SAFETY: that of `system_call`, which has dropped its reference.
    let registers = unsafe { &mut *context.as_ptr() };
    let is_call = registers.word(0) == Number::Call as u64;
    match if is_call { call::<A, true>(registers) } else { reply_wait::<A, true>(registers) } {
        Ok(next) => Next { context: next.as_ptr(), words: context.as_ptr() },
        Err(_) => Next::NOTHING,
    }
}

/// The slot of a message without anything beside its words.
#[inline(always)]
fn plain_slot<A: Arch>(registers: &A::UserContext) -> Result<u32, Else> {
    let first = registers.word(1);
    if first >> 32 == 0 { Ok(first as u32) } else { Err(Else::Long) }
}

#[inline(always)]
fn call<A: Arch, const ANY: bool>(registers: &mut A::UserContext) -> Result<NonNull<A::UserContext>, Else> {
    let cpu = A::this_cpu();
    let slot = plain_slot::<A>(registers)?;
    // SAFETY: it runs here.
    let thread = unsafe { &*cpu.tasks.current() };
    let slots = thread.process.table.try_read().ok_or(Else::Long)?;
    let (endpoint, badge) = endpoint_in(&slots, slot, Rights::WRITE)?;
    let mut meeting = endpoint.meeting.try_lock().ok_or(Else::Long)?;
    let receiver = meeting.receivers.first().ok_or(Else::Long)?;
    let (place, theirs) = (cpu.tasks.place(), receiver.place());
    let mut state = receiver.state.try_lock().ok_or(Else::Long)?;
    let strange = !Arc::ptr_eq(&thread.process, &receiver.process);
    if !state.receives_short() || thread.gives_up() {
        return Err(Else::Long);
    }
    if !ANY {
        // SAFETY: it waits, and its home is this CPU, which runs another.
        let light = || registers.is_light() && unsafe { receiver.registers.get().as_ref() }.is_light();
        let plain = theirs == place && light() && state.caller.was(thread) && meeting.receivers.is_alone();
        if strange || !plain {
            return Err(Else::Usual);
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
    let receiver = if ANY { meeting.receivers.pop() } else { meeting.receivers.pop_alone() };
    // SAFETY: the queue has been locked since its first was looked at.
    let receiver = unsafe { receiver.unwrap_unchecked() };
    drop(meeting);
    drop(slots);
    Ok(go_on::<A, ANY>(cpu, registers, receiver, badge))
}

#[inline(always)]
fn reply_wait<A: Arch, const ANY: bool>(registers: &mut A::UserContext) -> Result<NonNull<A::UserContext>, Else> {
    let cpu = A::this_cpu();
    let slot = plain_slot::<A>(registers)?;
    // SAFETY: it runs here.
    let thread = unsafe { &*cpu.tasks.current() };
    let slots = thread.process.table.try_read().ok_or(Else::Long)?;
    let (endpoint, _) = endpoint_in(&slots, slot, Rights::READ)?;
    let mut meeting = endpoint.meeting.try_lock().ok_or(Else::Long)?;
    let mut state = thread.state.try_lock().ok_or(Else::Long)?;
    let others = meeting.receivers.first().is_some() || meeting.callers.first().is_some();
    if others || meeting.ended || state.replied.is_some() || thread.gives_up() || thread.is_ending() {
        return Err(Else::Long);
    }
    let place = cpu.tasks.place();
    let theirs = state.caller.place();
    if !ANY {
        let plain = theirs == place && state.is_at(endpoint) && registers.is_light();
        if !plain {
            return Err(Else::Usual);
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
        drop(slots);
        sched::goes_on(cpu, place);
        exchange::give_short(cpu, &client, core::array::from_fn(|i| registers.word(i + 2)));
        return Err(Else::Long);
    }
    if ANY {
        state.stay_at(endpoint);
    }
    state.receive_short();
    drop(state);
    // SAFETY: the CPU's own reference; it runs another thread below.
    meeting.receivers.push_first(unsafe { Arc::from_raw(thread) });
    drop(meeting);
    drop(slots);
    Ok(go_on::<A, ANY>(cpu, registers, client, 0))
}

/// Loads the address space of `thread`, of another process, if that needs no wait.
#[inline(never)]
fn loads<A: Arch>(cpu: &'static Cpu<A>, thread: &Thread<A>) -> bool {
    !guard!(ShortLoads) || switch::try_load(cpu, &thread.process.mm)
}

/// The endpoint that `slot` names, and the badge of its capability, which allows `rights`.
#[inline(always)]
fn endpoint_in<'t, A: Arch>(
    slots: &'t Reading<'_, A>,
    slot: u32,
    rights: Rights,
) -> Result<(&'t Arc<Endpoint<A>>, u32), Else> {
    let node = slots.get(slot).ok_or(Else::Long)?;
    let endpoint = node.endpoint(rights).ok_or(Else::Long)?;
    Ok((endpoint, node.badge()))
}

/// `to` goes on. It is this CPU's: so are its registers.
#[inline(always)]
fn go_on<A: Arch, const ANY: bool>(
    cpu: &'static Cpu<A>,
    registers: &mut A::UserContext,
    to: Arc<Thread<A>>,
    badge: u32,
) -> NonNull<A::UserContext> {
    let context = to.registers.get();
    // SAFETY: taken from where it waited, it is this CPU's, which its home is, and runs nowhere; it is not the one that
    // waits.
    let theirs = unsafe { &mut *context.as_ptr() };
    theirs.take_first(badge.into());
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
