//! Doing what was asked, with the capabilities of the calling process.

use alloc::sync::Arc;

use super::decode::{Request, Slot};
use super::later;
use crate::abi::message::Info;
use crate::abi::{MESSAGE_WORDS, MOST_BYTES, Rights, Status, WORDS};
use crate::addr::{CpuId, Level};
use crate::arch::Arch;
use crate::ipc::exchange::{self, Outcome, Refused};
use crate::object::capability::{self, Node};
use crate::object::endpoint::Endpoint;
use crate::object::frames::Memory;
use crate::object::mapping::View;
use crate::object::meter::Meter;
use crate::object::module::Module;
use crate::object::notification::Notification;
use crate::object::payer::Payer;
use crate::object::process::Process;
use crate::object::removal::Removal;
use crate::object::thread::{Start, Thread};
use crate::object::{Object, ObjectError};
use crate::smp::cpu::Cpu;
use crate::task::sched;

/// A process, and the capability by which it may be managed.
type Managed<A> = (Arc<Node<A>>, Arc<Process<A>>);

/// What a call is made with.
struct Caller<'a, A: Arch> {
    cpu: &'static Cpu<A>,
    thread: &'a Arc<Thread<A>>,
    process: &'a Arc<Process<A>>,
}

impl<A: Arch> Caller<'_, A> {
    fn node(&self, slot: Slot) -> Result<Arc<Node<A>>, ObjectError> {
        self.process.table.get(slot)
    }

    /// The node in `slot`, which must allow `rights`.
    fn with(&self, slot: Slot, rights: Rights) -> Result<Arc<Node<A>>, ObjectError> {
        let node = self.node(slot)?;
        node.require(rights)?;
        Ok(node)
    }

    /// A process that may be managed, and the capability that allows it.
    fn managed_by(&self, slot: Slot) -> Result<Managed<A>, ObjectError> {
        let node = self.with(slot, Rights::MANAGE)?;
        match node.object() {
            Object::Process(process) => {
                let process = process.clone();
                Ok((node, process))
            }
            other => Err(ObjectError::WrongKind(other.kind())),
        }
    }

    /// A process that may be managed.
    fn managed(&self, slot: Slot) -> Result<Arc<Process<A>>, ObjectError> {
        self.managed_by(slot).map(|(_, process)| process)
    }

    /// A thread that may be managed.
    fn managed_thread(&self, slot: Slot) -> Result<Arc<Thread<A>>, ObjectError> {
        match self.with(slot, Rights::MANAGE)?.object() {
            Object::Thread(thread) => Ok(thread.clone()),
            other => Err(ObjectError::WrongKind(other.kind())),
        }
    }

    /// A notification that may be signalled.
    fn signalled(&self, slot: Slot) -> Result<Arc<Notification<A>>, ObjectError> {
        match self.with(slot, Rights::WRITE)?.object() {
            Object::Notification(notification) => Ok(notification.clone()),
            other => Err(ObjectError::WrongKind(other.kind())),
        }
    }

    /// The programs of a module.
    fn module(&self, slot: Slot) -> Result<Arc<Module>, ObjectError> {
        match self.with(slot, Rights::READ)?.object() {
            Object::Module(module) => Ok(module.clone()),
            other => Err(ObjectError::WrongKind(other.kind())),
        }
    }

    /// A meter that allows `rights`.
    fn meter(&self, slot: Slot, rights: Rights) -> Result<Arc<Meter<A>>, ObjectError> {
        match self.with(slot, rights)?.object() {
            Object::Meter(meter) => Ok(meter.clone()),
            other => Err(ObjectError::WrongKind(other.kind())),
        }
    }

    fn install(&self, slot: Slot, object: Object<A>) -> Result<(), ObjectError> {
        capability::install(self.cpu, &self.process.table, slot, object).map(|_| ())
    }
}

/// Does `request` for `thread`.
pub(super) fn perform<A: Arch>(
    cpu: &'static Cpu<A>,
    thread: &Arc<Thread<A>>,
    request: Request,
) -> Result<Outcome, Status> {
    let caller = Caller { cpu, thread, process: &thread.process };
    match request {
        Request::Yield => {
            sched::give_way(cpu);
            Ok(Status::Done.into())
        }
        Request::Exit { status } => {
            thread.end(cpu, status);
            Ok(Status::Done.into())
        }
        Request::Call { endpoint, info, words } => or_paged(call(&caller, endpoint, info, words)),
        Request::ReplyWait { endpoint, info, words } => or_paged(reply_wait(&caller, endpoint, info, words)),
        Request::Wait { at, info } => or_paged(wait(&caller, at, info)),
        Request::Delete { slot } => {
            let removal = caller.node(slot).and_then(|node| Removal::delete(&node)).map_err(ObjectError::status)?;
            Ok(removal.map_or(Outcome::from(Status::Done), |removal| later::remove(cpu, thread, removal)))
        }
        Request::Revoke { slot } => {
            let removal = caller.node(slot).and_then(|node| Removal::revoke(&node)).map_err(ObjectError::status)?;
            Ok(later::remove(cpu, thread, removal))
        }
        Request::Unmap { process, at } => {
            let theirs = caller.managed(process).map_err(ObjectError::status)?;
            let over = theirs.unmap(cpu, at, &mut later::wanted(cpu, thread)).map_err(ObjectError::status)?;
            Ok(later::unmapped(thread, theirs, at, over))
        }
        Request::End { what, status } => {
            let ended = end(&caller, what, status).map_err(ObjectError::status)?;
            Ok(ended.map_or(Outcome::from(Status::Done), |process| later::when_down(cpu, thread, &process)))
        }
        other => Ok(Outcome::Answer(at_once(&caller, other).map_err(ObjectError::status)?)),
    }
}

/// Ends a thread, or a process: which.
fn end<A: Arch>(caller: &Caller<'_, A>, what: Slot, status: u64) -> Result<Option<Arc<Process<A>>>, ObjectError> {
    match caller.with(what, Rights::MANAGE)?.object() {
        Object::Process(process) => {
            process.end(caller.cpu, status);
            Ok(Some(process.clone()))
        }
        Object::Thread(thread) => {
            thread.end(caller.cpu, status);
            Ok(None)
        }
        other => Err(ObjectError::WrongKind(other.kind())),
    }
}

/// A thread that waits for its pager waits.
fn or_paged(result: Result<Outcome, Refused>) -> Result<Outcome, Status> {
    match result {
        Ok(outcome) => Ok(outcome),
        Err(Refused::Paged) => Ok(Outcome::Waits),
        Err(Refused::Again) => Ok(Outcome::Later),
        Err(Refused::With(status)) => Err(status),
    }
}

fn call<A: Arch>(
    caller: &Caller<'_, A>,
    slot: Slot,
    info: Info,
    words: [u64; MESSAGE_WORDS],
) -> Result<Outcome, Refused> {
    let node = caller.node(slot).map_err(ObjectError::status)?;
    let endpoint = endpoint_of(&node, Rights::WRITE)?;
    let outgoing = exchange::prepare(caller.cpu, caller.thread, info, words, node.badge())?;
    let incoming = exchange::expect(caller.cpu, caller.thread, info)?;
    exchange::call(caller.cpu, caller.thread, &endpoint, outgoing, incoming)?;
    Ok(Outcome::Waits)
}

fn reply_wait<A: Arch>(
    caller: &Caller<'_, A>,
    slot: Slot,
    info: Info,
    words: [u64; MESSAGE_WORDS],
) -> Result<Outcome, Refused> {
    let (cpu, thread) = (caller.cpu, caller.thread);
    let replied = thread.state.lock().replied.take();
    match replied {
        None => {
            // Looked at before anything is sent: an answer is not given twice.
            endpoint_of(&caller.node(slot).map_err(ObjectError::status)?, Rights::READ)?;
            let outgoing = exchange::prepare(cpu, thread, info, words, 0)?;
            if exchange::reply(cpu, thread, outgoing, !info.contains(Info::UNCONFIRMED))? {
                return Ok(Outcome::Waits);
            }
        }
        Some(Status::Done) => {}
        Some(status) => return Err(status.into()),
    }
    // What is done again, if its pager is called or its CPU is wanted, is the wait alone.
    thread.state.lock().replied = Some(Status::Done);
    let waited = wait(caller, slot, info & Info::EXPECT_LONG);
    if !matches!(waited, Err(Refused::Paged | Refused::Again)) {
        thread.state.lock().replied = None;
    }
    waited
}

/// What a capability to an endpoint names, if it allows `rights`.
fn endpoint_of<A: Arch>(node: &Arc<Node<A>>, rights: Rights) -> Result<Arc<Endpoint<A>>, Status> {
    let Object::Endpoint(endpoint) = node.object() else { return Err(Status::WrongKind) };
    node.require(rights).map_err(|error| error.status())?;
    Ok(endpoint.clone())
}

fn wait<A: Arch>(caller: &Caller<'_, A>, slot: Slot, info: Info) -> Result<Outcome, Refused> {
    let node = caller.with(slot, Rights::READ).map_err(ObjectError::status)?;
    match node.object() {
        Object::Endpoint(endpoint) => exchange::wait_for_call(caller.cpu, caller.thread, endpoint, info),
        Object::Notification(notification) => Ok(exchange::wait_for_bits(caller.cpu, caller.thread, notification)?),
        _ => Err(Status::WrongKind.into()),
    }
}

/// The answer with up to seven results.
fn done(results: &[u64]) -> [u64; WORDS] {
    let mut words = [0; WORDS];
    words[1..=results.len()].copy_from_slice(results);
    words
}

/// Calls that neither wait nor end the thread, nor take long.
fn at_once<A: Arch>(caller: &Caller<'_, A>, request: Request) -> Result<[u64; WORDS], ObjectError> {
    let (cpu, process) = (caller.cpu, caller.process);
    let account = &process.account;
    match request {
        Request::Signal { notification, bits } => caller.signalled(notification)?.signal(cpu, bits),
        Request::SetBuffer { at, bytes, slot } => {
            if !at.is_aligned(Level::Pte) || bytes > MOST_BYTES {
                return Err(ObjectError::BadArgument(1));
            }
            let mut state = caller.thread.state.lock();
            state.buffer = (bytes != 0).then_some((at, bytes));
            state.slot = slot;
        }
        Request::SetPatience { ticks } => caller.thread.set_patience(ticks),
        Request::Copy { from, to, rights, badge } => {
            capability::derive(&caller.node(from)?, &process.table, to, rights, badge)?;
        }
        Request::Grant { process, to, from, rights, badge } => {
            let theirs = caller.managed(process)?;
            capability::derive(&caller.with(from, Rights::GRANT)?, &theirs.table, to, rights, badge)?;
        }
        Request::MakeEndpoint { slot } => {
            process.table.check_free(slot)?;
            caller.install(slot, Object::Endpoint(Endpoint::new(account)?))?;
        }
        Request::MakeNotification { slot } => {
            process.table.check_free(slot)?;
            caller.install(slot, Object::Notification(Notification::new(account)?))?;
        }
        Request::MakeFrames { slot, pages } => {
            process.table.check_free(slot)?;
            caller.install(slot, Object::Memory(Memory::frames(account, pages)?))?;
        }
        Request::MakeHuge { slot, pages } => {
            process.table.check_free(slot)?;
            caller.install(slot, Object::Memory(Memory::huge(account, pages)?))?;
        }
        Request::MakeShared { slot, pages } => {
            process.table.check_free(slot)?;
            caller.install(slot, Object::Memory(Memory::shared_table(account, pages)?))?;
        }
        Request::MakeProcess { slot, slots, limit, highest } => {
            process.make_child(cpu, slot, slots, limit, highest)?;
        }
        Request::Fork { process: of, slot, slots, limit, highest } => {
            caller.managed(of)?.fork(cpu, process, slot, slots, limit, highest)?;
        }
        Request::MakeThread { process: of, slot, entry, stack, argument, priority, cpu: on } => {
            let start = Start { entry, stack, argument, priority, cpu: CpuId(on) };
            Thread::make(cpu, process, slot, &caller.managed(of)?, start)?;
        }
        Request::Map { process: of, memory, at, offset, bytes, rights } => {
            let theirs = caller.managed(of)?;
            theirs.map(account, &caller.node(memory)?, View { at, offset, bytes, rights })?;
        }
        Request::Truncate { memory, offset, bytes } => match caller.with(memory, Rights::WRITE)?.object() {
            Object::Memory(memory) => memory.truncate(cpu, offset, bytes)?,
            other => return Err(ObjectError::WrongKind(other.kind())),
        },
        Request::MapAnonymous { process, at, bytes, rights } => {
            let (node, theirs) = caller.managed_by(process)?;
            theirs.map_anonymous(Payer::by(account, &node, &theirs), at, bytes, rights)?;
        }
        Request::Protect { process, at, rights } => caller.managed(process)?.protect(cpu, at, rights)?,
        Request::Discard { process, at, bytes } => caller.managed(process)?.discard(cpu, at, bytes)?,
        Request::Collapse { process, at } => caller.managed(process)?.collapse(cpu, account, at)?,
        Request::Migrate { thread, cpu } => caller.managed_thread(thread)?.migrate(cpu)?,
        Request::SetPriority { thread, priority } => caller.managed_thread(thread)?.set_priority(cpu, priority)?,
        Request::SetPager { process, endpoint } => {
            let theirs = caller.managed(process)?;
            let node = caller.with(endpoint, Rights::WRITE)?;
            let Object::Endpoint(_) = node.object() else {
                return Err(ObjectError::WrongKind(node.object().kind()));
            };
            theirs.set_pager(&node);
        }
        Request::Bind { what, notification, bits } => {
            let node = caller.with(notification, Rights::WRITE)?;
            let Object::Notification(_) = node.object() else {
                return Err(ObjectError::WrongKind(node.object().kind()));
            };
            let by = caller.with(what, Rights::MANAGE)?;
            match by.object() {
                Object::Interrupt(interrupt) => interrupt.bind(cpu, &by, &node, bits)?,
                Object::Thread(thread) => thread.bind(&node, bits),
                other => return Err(ObjectError::WrongKind(other.kind())),
            }
        }
        Request::Acknowledge { interrupt, when } => match caller.with(interrupt, Rights::MANAGE)?.object() {
            Object::Interrupt(interrupt) => interrupt.acknowledge(cpu, when),
            other => return Err(ObjectError::WrongKind(other.kind())),
        },
        Request::Identify { slot } => {
            let node = caller.node(slot)?;
            return Ok(done(&[node.object().kind() as u64, node.rights().bits().into(), node.badge().into()]));
        }
        Request::Balance => {
            let (used, left) = (account.used(), account.left());
            return Ok(done(&[used.frames, used.bytes, used.spaces, left.frames, left.bytes, left.spaces]));
        }
        Request::Load { process, module, name } => {
            let (node, theirs) = caller.managed_by(process)?;
            let entry = caller.module(module)?.load(cpu, Payer::by(account, &node, &theirs), &theirs, name)?;
            return Ok(done(&[entry.0]));
        }
        Request::Populate { process, at, bytes } => caller.managed(process)?.populate(cpu, at, bytes)?,
        Request::Ended { what } => {
            let (ended, status) = match caller.with(what, Rights::MANAGE)?.object() {
                Object::Process(process) => (process.is_down(), process.status()),
                Object::Thread(thread) => (thread.is_ending(), thread.status()),
                other => return Err(ObjectError::WrongKind(other.kind())),
            };
            return Ok(done(&[ended.into(), if ended { status } else { 0 }]));
        }
        Request::Clock => {
            let now = A::instructions();
            let (woke, others) = sched::woke(cpu);
            let (due, next) = sched::due(cpu);
            return Ok(done(&[now, woke, others, due, next]));
        }
        Request::Plan { meter } => return Ok(done(&caller.meter(meter, Rights::READ)?.plan.words())),
        Request::Begin { meter } => caller.meter(meter, Rights::WRITE)?.begin(cpu),
        Request::Progress { meter, syncs } => caller.meter(meter, Rights::WRITE)?.progress(syncs),
        Request::Finish { meter } => return Ok(done(&[caller.meter(meter, Rights::WRITE)?.finish(cpu)?])),
        Request::Tell { meter, latencies } => caller.meter(meter, Rights::WRITE)?.tell(latencies),
        Request::Null
        | Request::Yield
        | Request::Exit { .. }
        | Request::End { .. }
        | Request::Call { .. }
        | Request::ReplyWait { .. }
        | Request::Delete { .. }
        | Request::Revoke { .. }
        | Request::Unmap { .. }
        | Request::Wait { .. } => {}
    }
    Ok(done(&[]))
}
