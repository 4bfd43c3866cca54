//! Calls to other CPUs: run a function there in an interrupt handler, and wait until all have.
//!
//! Each CPU has one request that it may have under way ([`Request`]) and a set of CPUs whose requests it has not yet
//! served (`inbox`). The initiator fills its request, enters itself in each target's inbox, and raises an interrupt
//! only on a target that has none pending: so two calls to a busy CPU are two *wanted*, one *vector*, two
//! *acknowledged*, and the ledger counts all three.
//!
//! A call is the strongest statement that one CPU can obtain of another: when it returns, each target has since run
//! kernel code at interrupt level, and therefore has left every section that had interrupts masked when the call began.
//! A walk is such a section.

use core::sync::atomic::AtomicU64 as Count;

use crate::addr::CpuId;
use crate::arch::{Arch, Doorbell};
use crate::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use crate::injection::Fault;
use crate::ledger::Cause;
use crate::record::event::EventKind;
use crate::record::shared::Doing;
use crate::smp::cpu::Cpu;
use crate::smp::mask::{AtomicCpuMask, CpuMask};
use crate::smp::wait::Wait;

/// The longest that a queue is pretended to be full, in rounds of all CPUs.
const FULL: u64 = 64;

/// What a target runs: the target's area, and the initiator's argument.
pub type CallFn<A> = fn(&'static Cpu<A>, usize);

/// The one call that a CPU may have under way.
pub struct Request<A: Arch> {
    function: AtomicUsize,
    argument: AtomicUsize,
    cause: AtomicU32,
    /// Targets that have not acknowledged.
    remaining: AtomicU32,
    /// Set while a call is under way: a second one from the same CPU is a bug.
    busy: AtomicBool,
    _arch: core::marker::PhantomData<A>,
}

/// What others left here for this CPU.
#[derive(Default)]
pub struct Inbox {
    /// CPUs whose request waits for this one.
    from: AtomicCpuMask,
    /// An interrupt for `from` is on its way.
    raised: AtomicBool,
    /// The newest unlink generation that this CPU has acknowledged.
    generation: AtomicU64,
    /// Calls acknowledged by this CPU, ever: what a test of coverage reads.
    pub acknowledged: Count,
}

impl<A: Arch> Request<A> {
    /// No call under way.
    pub fn new() -> Request<A> {
        Request {
            function: AtomicUsize::new(0),
            argument: AtomicUsize::new(0),
            cause: AtomicU32::new(0),
            remaining: AtomicU32::new(0),
            busy: AtomicBool::new(false),
            _arch: core::marker::PhantomData,
        }
    }
}

impl<A: Arch> Default for Request<A> {
    fn default() -> Self {
        Request::new()
    }
}

impl Inbox {
    /// Whether an interrupt is on its way to this CPU.
    pub fn is_raised(&self) -> bool {
        self.raised.load(Ordering::Relaxed)
    }

    /// The newest unlink generation that this CPU has acknowledged. Acquire: pairs with [`acknowledge_generation`].
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }
}

/// At interrupt level: this CPU is in no walk that began before now. Acquire pairs with the increment of an unlink;
/// release with [`Inbox::generation`].
pub fn acknowledge_generation<A: Arch>(cpu: &Cpu<A>) {
    let generation = A::machine().unlink_generation.load(Ordering::Acquire);
    cpu.inbox.generation.store(generation, Ordering::Release);
}

/// Runs `function` on every CPU of `targets` and waits for all of them. The caller is not among them, has interrupts
/// enabled (else two such callers wait for each other for ever) and has no other call under way.
pub fn call_many<A: Arch>(cpu: &'static Cpu<A>, targets: &CpuMask, cause: Cause, function: CallFn<A>, argument: usize) {
    debug_assert!(!targets.contains(cpu.id));
    let count = targets.count();
    if count == 0 {
        return;
    }
    assert!(A::irqs_enabled(), "{} calls other CPUs with interrupts masked", cpu.id);
    let request = &cpu.request;
    assert!(!request.busy.swap(true, Ordering::Relaxed), "{} calls other CPUs within a call", cpu.id);
    request.function.store(function as usize, Ordering::Relaxed);
    request.argument.store(argument, Ordering::Relaxed);
    request.cause.store(cause as u32, Ordering::Relaxed);
    request.remaining.store(count, Ordering::Relaxed);
    let machine = A::machine();
    for id in targets.iter() {
        let target = machine.cpu(id);
        cpu.ledger.wanted(cause, 1);
        cpu.events.write(EventKind::Interrupt, 0, cause as u64, id.0.into());
        if machine.policy.injection.strikes(cpu, Fault::Queue) {
            wait_for_room(cpu);
        }
        // Release: publishes the request, and everything before the call, to the handler's `take_each` (acquire).
        target.inbox.from.insert(cpu.id, Ordering::Release);
        // Release, and acquire in `serve`, on the one word that both sides exchange: either this sees the handler's
        // `false` and rings, or the handler, which exchanges before it takes, sees the entry above
        // (tests/litmus/call-ring).
        if !target.inbox.raised.swap(true, Ordering::Release) {
            cpu.ledger.vector(cause, 1);
            A::ring(target, Doorbell::Call);
        }
    }
    let doing = match cause {
        Cause::Sync => Doing::WaitSync,
        Cause::Online => Doing::WaitOnline,
        _ => Doing::WaitFlush,
    };
    let mut wait = Wait::new(cpu, doing);
    // Acquire: pairs with the release of each acknowledgement, so that what targets did before it is visible here.
    while request.remaining.load(Ordering::Acquire) != 0 {
        wait.again(|| first_waiting::<A>(cpu.id, targets));
    }
    wait.done();
    request.busy.store(false, Ordering::Relaxed);
}

/// An inbox has room for everybody, always. Where that is pretended not to be so, the caller stands in the middle of
/// its call for a while, interrupts enabled: some targets have been interrupted, and others have not heard of it.
#[cold]
fn wait_for_room<A: Arch>(cpu: &'static Cpu<A>) {
    for _ in 0..1 + cpu.chance.next() % FULL {
        A::relax();
    }
}

/// Interrupts `target`, if no interrupt is on its way there, and does not wait: it shall look at something that was
/// changed before.
pub fn interrupt<A: Arch>(cpu: &'static Cpu<A>, target: &'static Cpu<A>) {
    cpu.ledger.wanted(Cause::Wake, 1);
    // Release: as in `call_many`. If it is `true`, `serve` has not begun, and what was changed before is visible to the
    // target after it (tests/litmus/call-ring).
    if !target.inbox.raised.swap(true, Ordering::Release) {
        cpu.ledger.vector(Cause::Wake, 1);
        A::ring(target, Doorbell::Call);
    }
}

/// A target of `initiator` that has not taken its request, for the report of a wait that takes too long.
fn first_waiting<A: Arch>(initiator: CpuId, targets: &CpuMask) -> Option<CpuId> {
    targets.iter().find(|id| A::machine().cpu(*id).inbox.from.contains(initiator))
}

/// Serves all requests that wait for this CPU. Called from the call interrupt, with interrupts masked.
pub fn serve<A: Arch>(cpu: &'static Cpu<A>) {
    cpu.events.write(EventKind::HandlerBegin, 0, 0, 0);
    // Acquire: see `call_many`; whoever enters itself after this exchange rings again (tests/litmus/call-ring).
    cpu.inbox.raised.swap(false, Ordering::Acquire);
    acknowledge_generation(cpu);
    let cpus = A::machine().cpus.len();
    cpu.inbox.from.take_each(cpus, |id| {
        let request = &A::machine().cpu(id).request;
        let function = request.function.load(Ordering::Relaxed);
        #[cfg(loom)]
        assert!(function != 0, "a request was taken before it was there");
        // SAFETY: the word was written by `call_many` from a `CallFn<A>`, and the acquire of `take_each` made it visible.
        let function = unsafe { core::mem::transmute::<usize, CallFn<A>>(function) };
        function(cpu, request.argument.load(Ordering::Relaxed));
        let cause = request.cause.load(Ordering::Relaxed);
        cpu.ledger.handled(cause);
        cpu.events.write(EventKind::Acknowledge, 0, cause as u64, id.0 as u64);
        cpu.inbox.acknowledged.store(cpu.inbox.acknowledged.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        // Release: pairs with the initiator's acquire of zero. After it the request is no longer ours.
        request.remaining.fetch_sub(1, Ordering::Release);
    });
    cpu.events.write(EventKind::HandlerEnd, 0, 0, 0);
}
