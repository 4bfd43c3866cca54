//! Workloads of programs: the first program of one runs on every CPU, in one address space, until all of them have ended.

use alloc::boxed::Box;
use alloc::sync::Arc;
use core::sync::atomic::{AtomicU64, Ordering};

use super::WorkloadId;
use crate::abi::{Number, Rights, Status};
use crate::addr::{PAGE_SIZE, VirtAddr};
use crate::arch::Arch;
use crate::ledger::Cause;
use crate::mm::address_space::{Backing, MapError, Mm};
use crate::mm::entry::Perm;
use crate::mm::exit;
use crate::mm::fault;
use crate::mm::protect::mprotect;
use crate::mm::unmap::{dontneed, munmap};
use crate::record::shared::Doing;
use crate::smp::call::call_many;
use crate::smp::cpu::Cpu;
use crate::smp::rcu;
use crate::smp::wait::Wait;
use crate::suite::Suite;
use crate::task::load;
use crate::task::module::{self, ModuleError};
use crate::task::program::{Program, ProgramError};
use crate::task::user::{UserContext, UserEvent};
use crate::tlb::switch;

/// Where the stacks are: one below the other, with a page between that is never mapped.
const STACKS: VirtAddr = VirtAddr(0x7000_0000_0000);
const STACK_BYTES: u64 = 16 * PAGE_SIZE;
const STACK_STEP: u64 = STACK_BYTES + PAGE_SIZE;

/// Why the programs of a workload could not be started.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum StartError {
    /// The module does not have it.
    #[error(transparent)]
    Module(#[from] ModuleError),
    /// It is no program.
    #[error(transparent)]
    Program(#[from] ProgramError),
    /// Memory is short.
    #[error(transparent)]
    Map(#[from] MapError),
}

struct Crew<A: Arch> {
    mm: Arc<Mm<A>>,
    entry: VirtAddr,
    argument: u64,
    status: AtomicU64,
}

/// Runs the workload. Returns the first status that was not 0, or 0, and the instructions that it took.
pub(super) fn run<A: Arch>(cpu: &'static Cpu<A>, suite: &Suite, id: WorkloadId) -> Result<(u64, u64), StartError> {
    let machine = A::machine();
    let name = WorkloadId::name_of(id as u16).unwrap_or_default();
    let program = Program::parse::<A>(module::find(machine.firmware.module, name)?)?;
    let mm = Mm::for_programs(cpu)?;
    let crew = Crew { mm: mm.clone(), entry: program.entry, argument: suite.ops, status: AtomicU64::new(0) };
    load::load(cpu, &mm, &program)?;
    for n in 0..machine.cpus.len() as u64 {
        let top = STACKS.0 - n * STACK_STEP;
        mm.map(VirtAddr(top - STACK_BYTES)..VirtAddr(top), Perm::WRITE, Backing::Anon)?;
    }
    let began = A::instructions();
    let mut others = *machine.online_mask();
    others.remove(cpu.id);
    for other in others.iter() {
        machine.cpu(other).give_job(member::<A>, &raw const crew as usize);
    }
    call_many(cpu, &others, Cause::Wake, |_, _| {}, 0);
    crate::upcall::start_ticks(cpu);
    member(cpu, &raw const crew as usize);
    let mut wait = Wait::new(cpu, Doing::WaitWorkload);
    for other in others.iter() {
        while machine.cpu(other).has_job() {
            wait.again(|| Some(other));
        }
    }
    wait.done();
    let took = A::instructions() - began;
    exit::exit(cpu, mm);
    Ok((crew.status.into_inner(), took))
}

fn member<A: Arch>(cpu: &'static Cpu<A>, crew: usize) {
    // SAFETY: the first CPU keeps it until this job has ended.
    let crew = unsafe { &*(crew as *const Crew<A>) };
    switch::load(cpu, &crew.mm);
    let stack = VirtAddr(STACKS.0 - u64::from(cpu.id.0) * STACK_STEP);
    let argument = crew.argument | u64::from(cpu.id.0) << 32;
    let mut context = Box::new(A::UserContext::start(crew.entry, stack, argument));
    let status = loop {
        A::irq_save();
        rcu::enter_idle(cpu);
        let event = A::enter_user(&mut context);
        rcu::leave_idle(cpu);
        A::irq_restore(true);
        match event {
            UserEvent::Call => match call(cpu, &crew.mm, context.call()) {
                Some(status) => break status,
                None => context.answer([0; 8]),
            },
            UserEvent::Fault { at, access } => {
                if let Err(error) = fault::of_program(cpu, &crew.mm, at, access) {
                    log::error!("cpu {}: {access:?}: {error}", cpu.id.0);
                    break at.0 | 1 << 63;
                }
            }
            UserEvent::Interrupt => {}
            UserEvent::Exception { kind, at } => {
                log::error!("cpu {}: {kind} at {at}", cpu.id.0);
                break at.0 | 1 << 62;
            }
        }
    };
    context.park();
    if status != 0 {
        let _ = crew.status.compare_exchange(0, status, Ordering::Relaxed, Ordering::Relaxed);
    }
    switch::unload(cpu);
    rcu::barrier(cpu);
}

fn call<A: Arch>(cpu: &'static Cpu<A>, mm: &Arc<Mm<A>>, words: [u64; 8]) -> Option<u64> {
    let [number, a, b, c, d, ..] = words;
    let perm = |rights: u64| {
        let rights = Rights::from_bits_truncate(rights as u32);
        let mut perm = Perm::empty();
        perm.set(Perm::WRITE, rights.contains(Rights::WRITE));
        perm.set(Perm::EXEC, rights.contains(Rights::EXECUTE));
        perm
    };
    let range = |at: u64, bytes: u64| VirtAddr(at)..VirtAddr(at + bytes);
    let result = match Number::from_word(number) {
        Some(Number::Null) => Ok(()),
        Some(Number::Exit) => return Some(a),
        Some(Number::MapAnonymous) => mm.map(range(b, c), perm(d), Backing::Anon),
        Some(Number::Unmap) => munmap(cpu, mm, range(b, PAGE_SIZE)),
        Some(Number::Protect) => mprotect(cpu, mm, range(b, PAGE_SIZE), perm(c)),
        Some(Number::Discard) => dontneed(cpu, mm, range(b, c)),
        _ => return Some(Status::BadNumber as u64),
    };
    if let Err(error) = result {
        log::error!("call {number}: {error}");
        return Some(Status::BadArgument as u64);
    }
    None
}
