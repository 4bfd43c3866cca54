//! Workloads of programs: a first process, which has everything that programs may have, and all that come from it, on
//! every CPU, until the first has ended.
//!
//! The first process begins with one thread, on the first CPU, with its own capability in slot [`FIRST_PROCESS`], the
//! thread's in [`FIRST_THREAD`], the module of programs in [`MODULE`], in [`METER`] what it is to do and where it says
//! when it does it, and from [`TIMERS`] on the interrupt lines. Its argument says how many operations it shall do, with which seed, on how many CPUs, for
//! programs that need no more. Every CPU takes turns ([`crate::task::turn`]) meanwhile. The strategy and transport of
//! the run are in force, the oracle watches, and what is left over when everything has ended is an error of the kernel,
//! as in every cell.

use core::sync::atomic::{AtomicBool, Ordering};

use super::WorkloadId;
use crate::abi::Rights;
use crate::addr::{CpuId, PAGE_SIZE, VirtAddr};
use crate::arch::Arch;
use crate::ledger::Cause;
use crate::object::account::{Account, Price};
use crate::object::interrupt::{Interrupt, LINES};
use crate::object::meter::{Meter, Metered, Plan};
use crate::object::module::Module;
use crate::object::payer::Payer;
use crate::object::process::{self, Process};
use crate::object::thread::{Start, Thread};
use crate::object::{self, Object, ObjectError, capability};
use crate::record::shared::Doing;
use crate::smp::call::call_many;
use crate::smp::cpu::Cpu;
use crate::smp::rcu;
use crate::smp::wait::Wait;
use crate::suite::{Mode, Suite};
use crate::task::module::{self, ModuleError};
use crate::task::program::{Program, ProgramError};
use crate::task::{load, sched, turn};
use crate::tlb::switch;

/// Where the first process finds itself.
pub const FIRST_PROCESS: u32 = 0;
/// Where it finds its first thread.
pub const FIRST_THREAD: u32 = 1;
/// Where it finds all other programs.
pub const MODULE: u32 = 2;
/// Where it finds its plan, and tells of its operations.
pub const METER: u32 = 3;
/// Where it finds interrupt lines, one behind the other, up to the end of its table: the timer of each CPU.
pub const TIMERS: u32 = SLOTS - LINES as u32;
/// Slots of its table.
const SLOTS: u32 = 1024;
/// The end of its stack.
const STACK: VirtAddr = VirtAddr(0x7000_0000_0000);
const STACK_BYTES: u64 = 16 * PAGE_SIZE;
/// What programs may use of the kernel's heap.
const HEAP: u64 = 6 << 20;
/// Address spaces at a time.
const SPACES: u64 = 128;
/// The first thread's priority: in the middle.
const PRIORITY: u8 = 16;
/// Turns that a CPU takes, at most, to come to rest when all processes have ended.
const REST: usize = 100_000;

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
    Object(#[from] ObjectError),
}

/// What came of a workload.
pub(super) struct Ran {
    /// The status that its first process ended with.
    pub(super) status: u64,
    /// The instructions that all took together.
    pub(super) instructions: u64,
    /// What the programs had counted.
    pub(super) metered: Metered,
}

/// The program that does the operations of the suite in user mode.
const SUITE: &str = "suite";

/// The program that workload `id` begins with: of the same name, if it is one of programs.
fn program<A: Arch>(id: WorkloadId) -> Result<Program<'static>, StartError> {
    let name = WorkloadId::name_of(id as u16).filter(|_| id.runs_programs()).unwrap_or(SUITE);
    Ok(Program::parse::<A>(module::find(A::machine().firmware.module, name)?)?)
}

/// Whether the programs that `suite` begins with are there: a run that lacks one is refused before it begins.
pub fn check<A: Arch>(suite: &Suite) -> Result<(), StartError> {
    suite.workloads.iter().filter(|id| suite.by_program(**id)).try_for_each(|id| program::<A>(*id).map(|_| ()))
}

/// Runs workload `id`.
pub(super) fn run<A: Arch>(cpu: &'static Cpu<A>, suite: &Suite, id: WorkloadId, mode: Mode) -> Result<Ran, StartError> {
    let machine = A::machine();
    let program = program::<A>(id)?;
    // Half of memory: tables, magazines and what waits for a grace period are nobody's.
    let limit = Price { frames: machine.free_frames() as u64 / 2, bytes: HEAP, spaces: SPACES };
    let account = Account::first(limit.and(process::price::<A>(SLOTS)));
    let first = Process::new(cpu, &account, SLOTS, limit, PRIORITY * 2 - 1)?;
    capability::install(cpu, &first.table, FIRST_PROCESS, Object::Process(first.clone()))?;
    let cpus = machine.cpus.len() as u64;
    let workload = WorkloadId::name_of(id as u16).unwrap_or_default();
    let plan = Plan { ops: suite.ops, seed: suite.seed, cpus, mode: mode as u64, workload };
    let meter = Meter::new(&first.account, plan)?;
    capability::install(
        cpu,
        &first.table,
        MODULE,
        Object::Module(Module::new(&first.account, machine.firmware.module)?),
    )?;
    capability::install(cpu, &first.table, METER, Object::Meter(meter.clone()))?;
    for line in machine.online().map(|cpu| cpu.id.index()).filter(|line| *line < LINES) {
        let interrupt = Interrupt::new(&first.account, line)?;
        capability::install(cpu, &first.table, TIMERS + line as u32, Object::Interrupt(interrupt))?;
    }
    load::load(cpu, Payer::own(&first.account), &first, &program)?;
    let stack = VirtAddr(STACK.0 - STACK_BYTES);
    first.map_anonymous(Payer::own(&first.account), stack, STACK_BYTES, Rights::READ | Rights::WRITE)?;
    let argument = suite.ops & 0xffff_ffff | (suite.seed & 0xffff) << 32 | cpus << 48;
    let start = Start { entry: program.entry, stack: STACK, argument, priority: PRIORITY, cpu: CpuId(0) };
    let began = A::instructions();
    Thread::make(cpu, &first, FIRST_THREAD, &first, start)?;

    let over = AtomicBool::new(false);
    let mut others = *machine.online_mask();
    others.remove(cpu.id);
    for other in others.iter() {
        machine.cpu(other).give_job(member::<A>, &raw const over as usize);
    }
    call_many(cpu, &others, Cause::Wake, |_, _| {}, 0);
    crate::upcall::start_ticks(cpu);
    let does = cpu.status.doing.swap(Doing::Programs as u32, Ordering::Relaxed);
    while !first.has_ended() {
        if !turn::turn(cpu) {
            rcu::quiescent(cpu);
            A::relax();
        }
    }
    let took = A::instructions() - began;
    cpu.status.doing.store(does, Ordering::Relaxed);
    if let Ok(original) = first.table.get(FIRST_PROCESS) {
        // All its threads are gone, so nobody is about to revoke it.
        let _ = capability::delete(cpu, &original);
    }
    object::finish(cpu);
    // Release: pairs with the acquire in `member` (tests/litmus/hand-over).
    over.store(true, Ordering::Release);
    call_many(cpu, &others, Cause::Wake, |_, _| {}, 0);
    rest(cpu);
    let mut wait = Wait::new(cpu, Doing::WaitWorkload);
    for other in others.iter() {
        while machine.cpu(other).has_job() {
            wait.again(|| Some(other));
        }
    }
    wait.done();
    let status = first.status();
    let metered = meter.metered();
    drop((first, meter));
    assert!(account.used() == Price::NOTHING, "{:?} of the programs' account was not given back", account.used());
    Ok(Ran { status, instructions: took, metered })
}

/// What every other CPU does.
fn member<A: Arch>(cpu: &'static Cpu<A>, over: usize) {
    // SAFETY: the first CPU keeps it until this job has ended.
    let over = unsafe { &*(over as *const AtomicBool) };
    cpu.status.doing.store(Doing::Programs as u32, Ordering::Relaxed);
    // Acquire: pairs with the release in `run` (tests/litmus/hand-over).
    let is_over = || over.load(Ordering::Acquire);
    while !is_over() {
        if !turn::turn(cpu) {
            sched::idle_unless(cpu, is_over);
        }
    }
    rest(cpu);
}

/// All processes have ended: the CPU does what is left, and forgets them.
fn rest<A: Arch>(cpu: &'static Cpu<A>) {
    let turns = (0..REST).take_while(|_| turn::turn(cpu)).count();
    assert!(turns < REST, "{} does not come to rest after all programs have ended", cpu.id);
    sched::forget(cpu);
    switch::unload(cpu);
    rcu::barrier(cpu);
}
