//! Flush in a virtual machine: CPUs that the hypervisor has frozen are not interrupted. They are acknowledged for, and
//! flush when they resume (Linux: `kvm_flush_tlb_multi`).
//!
//! A CPU can be frozen anywhere, in the middle of a walk too. Its TLB is then dealt with, and its walk is not: it goes
//! on, in tables that may be somebody else's by now, as soon as the CPU runs again. So the coverage names only CPUs
//! that were really interrupted.
//!
//! The kernel plays the hypervisor: at schedule points a CPU freezes itself, by chance, and resumes when an interrupt
//! is raised on it (which is what kicks a CPU in a virtual machine) or after a while. `Running -> Frozen -> Running`,
//! or, when a flush came meanwhile, `Frozen -> Owes -> Running` with everything invalidated in between. The flush moves
//! `Frozen` to `Owes` by one compare-and-exchange, the CPU leaves by one exchange: one of them is first.

use core::sync::atomic::AtomicU64;

use crate::arch::Arch;
use crate::atomic::{AtomicU8, Ordering};
use crate::guard;
use crate::injection::Fault;
use crate::mm::address_space::Mm;
use crate::pause;
use crate::record::event::EventKind;
use crate::smp::cpu::Cpu;
use crate::smp::irq;
use crate::tlb::coverage::Coverage;
use crate::tlb::invalidation::Invalidation;
use crate::tlb::switch;
use crate::tlb::transport::{Flush, TransportId, ipi};

const RUNNING: u8 = 0;
const FROZEN: u8 = 1;
const OWES: u8 = 2;

/// A frozen CPU resumes by itself after at most so many rounds of the others.
const ROUNDS: u64 = 256;

/// Whether a CPU makes a flush when it resumes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Owed {
    /// It is not frozen: it is to be interrupted.
    Nothing,
    /// It owes this flush, and owed none before.
    Now,
    /// It owes this flush as well.
    Already,
}

/// What the hypervisor has done with this CPU.
#[derive(Default)]
pub struct Vcpu {
    state: AtomicU8,
    /// How often it was frozen.
    pub freezes: AtomicU64,
}

impl Vcpu {
    /// The hypervisor takes the CPU away.
    pub fn freeze(&self) {
        // Release: what the CPU read through translations that a flush leaves to it, it read before. Pairs with `owe`.
        self.state.store(FROZEN, Ordering::Release);
    }

    /// The hypervisor lets the CPU run again. Whether a flush was acknowledged for it, which it must make now.
    pub fn resume(&self) -> bool {
        // Acquire: pairs with the exchanges in `owe`, before which the entries were changed (tests/litmus/freeze-owe).
        self.state.swap(RUNNING, Ordering::Acquire) == OWES
    }

    /// For a flush: whether the CPU is frozen, and owes it from now on.
    pub fn owe(&self) -> Owed {
        // Release: the entries were changed before; pairs with the exchange in `resume`, after which they are looked
        // at. Acquire: pairs with `freeze`.
        match self.state.compare_exchange(FROZEN, OWES, Ordering::AcqRel, Ordering::Relaxed) {
            Ok(_) => Owed::Now,
            // It owes one already: once more, so that the exchange that ends it sees what this flush has changed.
            Err(OWES) => match self.state.compare_exchange(OWES, OWES, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => Owed::Already,
                Err(_) => Owed::Nothing,
            },
            Err(_) => Owed::Nothing,
        }
    }

    /// The address of the word in which flushes look whether it is frozen.
    pub fn flag(&self) -> usize {
        core::ptr::from_ref(&self.state) as usize
    }

    /// Whether the hypervisor runs it.
    pub fn runs(&self) -> bool {
        self.state.load(Ordering::Relaxed) == RUNNING
    }

    /// Whether the hypervisor does not run it, and it has nothing to make good.
    pub fn owes_nothing_frozen(&self) -> bool {
        self.state.load(Ordering::Relaxed) == FROZEN
    }

    /// Whether the hypervisor does not run it, and it has a flush to make good before it runs again.
    pub fn owes_a_flush(&self) -> bool {
        self.state.load(Ordering::Relaxed) == OWES
    }
}

/// See [`super::flush`].
pub fn flush<A: Arch>(cpu: &'static Cpu<A>, mm: &Mm<A>, what: Invalidation) -> Coverage {
    let flush = Flush { what, generation: switch::begin_flush(mm) };
    let targets = ipi::targets(cpu, mm, &what);
    cpu.ledger.recorded.told::<A>(targets.count(), &what);
    let (mut interrupted, mut newly) = (targets, 0);
    for id in targets.iter() {
        match leave_to_resume(mm, id) {
            Owed::Nothing => continue,
            Owed::Now => newly += 1,
            Owed::Already => {}
        }
        interrupted.remove(id);
    }
    cpu.ledger.recorded.owed::<A>(targets.count() - interrupted.count(), newly, &what);
    pause!(cpu, AfterTargets);
    ipi::deliver(cpu, mm, flush, interrupted)
}

/// Whether the CPU is frozen, and now owes a flush.
fn leave_to_resume<A: Arch>(mm: &Mm<A>, id: crate::addr::CpuId) -> Owed {
    let (vcpu, loaded) = (&A::machine().cpu(id).vcpu, &A::machine().cpu(id).loaded);
    // What a CPU flushes on resume is what it has loaded; tagged translations of another mm would be left.
    if A::tagged() && loaded.mm() != mm.id {
        return Owed::Nothing;
    }
    let owed = vcpu.owe();
    if A::tagged() && loaded.mm() != mm.id { Owed::Nothing } else { owed }
}

/// A schedule point: the CPU may be frozen here, under `paravirt`, and elsewhere where that fault is injected.
pub(crate) fn freeze_by_chance<A: Arch>(cpu: &Cpu<A>) {
    let policy = &A::machine().policy;
    let unasked = policy.transport() == TransportId::Paravirt && cpu.chance.one_in(12);
    if !unasked && !policy.injection.strikes(cpu, Fault::Freeze) {
        return;
    }
    let enabled = irq::mask(cpu);
    freeze(cpu);
    let mut left = cpu.chance.next() % ROUNDS;
    while left > 0 && !cpu.inbox.is_raised() && !cpu.vcpu.runs() {
        A::relax();
        left -= 1;
    }
    resume_if_frozen(cpu);
    irq::unmask(cpu, enabled);
}

/// The hypervisor takes the CPU away. Interrupts are masked until [`resume`].
pub fn freeze<A: Arch>(cpu: &Cpu<A>) {
    let vcpu = &cpu.vcpu;
    cpu.events.write(EventKind::Freeze, 0, 0, 0);
    vcpu.freezes.store(vcpu.freezes.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    vcpu.freeze();
}

/// A CPU that is frozen takes no NMI: the hypervisor lets it run first. Else it could be frozen once more in a walk
/// that the NMI makes, and what it owed from before would be forgotten.
pub(crate) fn resume_if_frozen<A: Arch>(cpu: &Cpu<A>) {
    if !cpu.vcpu.runs() {
        resume(cpu);
    }
}

/// The CPU runs again, and first invalidates what it owes.
pub fn resume<A: Arch>(cpu: &Cpu<A>) {
    if cpu.vcpu.resume() && guard!(FlushOnResume) {
        switch::flush_on_resume(cpu);
    }
    cpu.events.write(EventKind::Resume, 0, 0, 0);
}
