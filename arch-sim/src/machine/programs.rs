//! Programs in user mode on the simulated machine: when the suite has run, its CPUs take turns at them, with every step
//! of the kernel open to the scheduler.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, Ordering};

use kernel::arch::Arch;
use kernel::smp::cpu::Cpu;
use kernel::smp::{call, rcu};
use kernel::task::sched;
use kernel::task::turn::turn;
use kernel::tlb::switch;

use super::arch::Sim;
use super::hardware::Hardware;
use super::run::{Execution, RunError, run};

/// What the CPUs do when the suite has run: programs that take turns until they are done.
pub trait Programs<const TAGGED: bool> {
    /// On CPU 0: makes them.
    fn begin(&mut self, cpu: &'static Cpu<Sim<TAGGED>>);
    /// On CPU 0, between turns: true if nothing of them is left.
    fn is_done(&mut self, cpu: &'static Cpu<Sim<TAGGED>>) -> bool;
}

/// The programs of the execution on this thread. Kept by [`run_programs`], which outlives it.
type Slot<const TAGGED: bool> = *mut dyn Programs<TAGGED>;

/// Boots `cpus` CPUs, runs the suite of `command_line` (one short cell will do: it chooses the strategy and the
/// transport), then `programs`, scheduled by `seed`.
pub fn run_programs<const TAGGED: bool>(
    cpus: usize,
    command_line: &str,
    seed: u64,
    hardware: Hardware,
    programs: &mut dyn Programs<TAGGED>,
) -> Result<Execution, RunError> {
    // SAFETY: only the lifetime is changed; the pointer is taken back before this function returns.
    let programs: *mut (dyn Programs<TAGGED> + 'static) =
        unsafe { core::mem::transmute(programs as *mut dyn Programs<TAGGED>) };
    let mut slot: Slot<TAGGED> = programs;
    PROGRAMS.set(&raw mut slot as usize);
    let result = run::<TAGGED>(cpus, command_line, seed, hardware);
    PROGRAMS.set(0);
    result
}

thread_local! {
    static PROGRAMS: Cell<usize> = const { Cell::new(0) };
}

/// All other CPUs: turns, until CPU 0 says that there will be no more.
fn take_turns<const TAGGED: bool>(cpu: &'static Cpu<Sim<TAGGED>>, over: usize) {
    // SAFETY: the flag is on the stack of CPU 0, which waits for this job.
    let over = unsafe { &*(over as *const AtomicBool) };
    while !over.load(Ordering::Relaxed) {
        if !turn(cpu) {
            sched::idle(cpu);
        }
    }
    switch::unload(cpu);
}

fn let_run<const TAGGED: bool>(programs: &mut dyn Programs<TAGGED>) {
    let cpu = Sim::<TAGGED>::this_cpu();
    // The suite stops the crowd's schedule points; here there is nothing but programs.
    Sim::<TAGGED>::machine().policy.set_schedule_points(true);
    programs.begin(cpu);
    let over = AtomicBool::new(false);
    let others: Vec<_> = Sim::<TAGGED>::machine().online().filter(|other| other.id != cpu.id).collect();
    for other in &others {
        other.give_job(take_turns::<TAGGED>, &raw const over as usize);
        call::interrupt(cpu, other);
    }
    while !programs.is_done(cpu) {
        if !turn(cpu) {
            Sim::<TAGGED>::relax();
        }
    }
    over.store(true, Ordering::Relaxed);
    while others.iter().any(|other| other.has_job()) {
        others.iter().for_each(|other| call::interrupt(cpu, other));
        Sim::<TAGGED>::relax();
    }
    switch::unload(cpu);
    rcu::barrier(cpu);
}

/// The suite has run: on CPU 0, lets the programs run that [`run_programs`] was given, once.
pub(super) fn run_those_given<const TAGGED: bool>() {
    let slot = PROGRAMS.replace(0) as *mut Slot<TAGGED>;
    if !slot.is_null() {
        // SAFETY: `run_programs` keeps the slot and the programs in it while the execution lasts, and only CPU 0 comes
        // here, once.
        let_run::<TAGGED>(unsafe { &mut **slot });
    }
}
