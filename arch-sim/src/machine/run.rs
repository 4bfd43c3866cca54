//! One execution: boots the kernel on a simulated machine and runs a suite, by the choices of a seed.

use std::alloc::{Layout, alloc_zeroed};
use std::cell::Cell;
use std::sync::Mutex;
use std::sync::atomic::Ordering;

use corosensei::stack::DefaultStack;
use corosensei::{Coroutine, CoroutineResult};
use kernel::addr::PhysAddr;
use kernel::boot::{self, BootInfo, ExitCode, MemoryRegion, StartError};
use kernel::record::cell::CellRow;
use kernel::record::shared::Shared;
use kernel::smp::cpu::Cpu;

use super::arch::Sim;
use super::hardware::Hardware;
use super::programs;
use super::world::{RAM, RAM_BYTES, World, enter, leave, world};

/// Bytes of a coroutine's stack.
pub(super) const STACK: usize = 1 << 20;
/// Steps after which a run is taken for stuck.
const MOST_STEPS: u64 = 2_000_000_000;

/// What a run came to.
#[derive(Clone, Debug)]
pub struct Execution {
    /// The kernel's own verdicts and counts, cell by cell.
    pub rows: Vec<CellRow>,
    /// What the machine itself found wrong.
    pub findings: Vec<String>,
    /// Calls of the boundary.
    pub steps: u64,
    /// A hash of the whole interleaving: which CPU ran when.
    pub trace: u64,
}

/// A run that did not come to its end.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RunError {
    /// The kernel refused the suite.
    #[error("the kernel refused: {0}")]
    Refused(String),
    /// Every CPU sleeps, and no interrupt is pending.
    #[error("every CPU sleeps after {0} steps")]
    Asleep(u64),
    /// It takes too long.
    #[error("no end after {0} steps")]
    Stuck(u64),
}

/// Guards are taken away for the whole process, so one execution at a time.
pub(super) static ONE: Mutex<()> = Mutex::new(());

/// Boots `cpus` CPUs and runs the suite of `command_line`, scheduled by `seed`.
pub fn run<const TAGGED: bool>(
    cpus: usize,
    command_line: &str,
    seed: u64,
    hardware: Hardware,
) -> Result<Execution, RunError> {
    let _one = ONE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let shared: &'static Shared = Box::leak(Box::new(Shared::new()));
    let world = World::new(arena(), cpus, seed, hardware, !TAGGED, None);
    enter(&world);
    let result = schedule::<TAGGED>(&world, cpus, command_line, shared);
    leave();
    result?;
    if world.exit.get() != Some(ExitCode::Finished) {
        return Err(RunError::Refused(message(shared)));
    }
    let count = shared.cells_done.load(Ordering::Relaxed) as usize;
    let at = PhysAddr(shared.cells_at.load(Ordering::Relaxed));
    let first = world.host(at).cast::<CellRow>();
    // SAFETY: the kernel has written so many rows there, and has finished.
    let rows = unsafe { std::slice::from_raw_parts(first, count) }.to_vec();
    Ok(Execution { rows, findings: world.findings.into_inner(), steps: world.steps.get(), trace: world.trace.get() })
}

/// What the kernel said when it refused.
fn message(shared: &Shared) -> String {
    let length = shared.message_len.load(Ordering::Relaxed) as usize;
    let mut bytes: Vec<u8> =
        shared.message.iter().flat_map(|word| word.load(Ordering::Relaxed).to_le_bytes()).collect();
    bytes.truncate(length);
    String::from_utf8_lossy(&bytes).into_owned()
}

pub(super) type Strand = Coroutine<(), (), (), DefaultStack>;

/// A coroutine for one CPU, which runs `body`.
fn strand(index: usize, body: impl FnOnce() + 'static) -> Strand {
    strand_on(DefaultStack::new(STACK).expect("the host has memory for a stack"), index, body)
}

/// The same, on this stack.
pub(super) fn strand_on(stack: DefaultStack, index: usize, body: impl FnOnce() + 'static) -> Strand {
    Coroutine::with_stack(stack, move |yielder, ()| {
        let core = &world().cores[index];
        core.yielder.set(yielder as *const corosensei::Yielder<(), ()> as usize);
        core.masked.set(true);
        body();
    })
}

fn schedule<const TAGGED: bool>(
    world: &World,
    cpus: usize,
    command_line: &str,
    shared: &'static Shared,
) -> Result<(), RunError> {
    let memory = vec![MemoryRegion { start: PhysAddr(RAM), end: PhysAddr(RAM + RAM_BYTES as u64) }];
    let info = BootInfo::<Sim<TAGGED>> {
        memory: Vec::leak(memory),
        cpus: Vec::leak((0..cpus as u64).collect()),
        command_line: String::leak(command_line.to_owned()),
        module: &[],
        start_cpu: start_cpu::<TAGGED>,
        init_boot_cpu: |_| {},
        grow_heap: |_, _| {},
        exit: exit::<TAGGED>,
        shared,
    };
    let mut strands: Vec<Option<Strand>> = (0..cpus).map(|_| None).collect();
    strands[0] = Some(strand(0, move || boot::run(info)));
    let outcome = loop {
        if world.exit.get().is_some() {
            break Ok(());
        }
        if world.steps.get() > MOST_STEPS {
            break Err(RunError::Stuck(world.steps.get()));
        }
        let started = world.started.borrow().clone();
        let awake: Vec<usize> = started.into_iter().filter(|i| world.cores[*i].awake()).collect();
        let eager: Vec<usize> = awake.iter().copied().filter(|i| !world.cores[*i].relaxed.get()).collect();
        if eager.is_empty() {
            awake.iter().for_each(|i| world.cores[*i].relaxed.set(false));
        }
        let among = if eager.is_empty() { &awake } else { &eager };
        if among.is_empty() {
            break Err(RunError::Asleep(world.steps.get()));
        }
        let next = among[world.choose(among.len() as u64) as usize];
        world.current.set(next);
        world.trace.set((world.trace.get() ^ (next as u64 + 1)).wrapping_mul(0x0100_0000_01b3));
        let strand = strands[next].get_or_insert_with(|| secondary::<TAGGED>(next));
        match strand.resume(()) {
            CoroutineResult::Yield(()) => {}
            CoroutineResult::Return(()) => unreachable!("a CPU never returns"),
        }
    };
    for strand in strands.iter_mut().flatten() {
        // SAFETY: nothing on the coroutine's stack is needed again, and nothing refers to it: all of them stop here.
        unsafe { strand.force_reset() };
    }
    outcome
}

/// The coroutine of a CPU that the boot CPU has started; its area was left in its core.
fn secondary<const TAGGED: bool>(index: usize) -> Strand {
    strand(index, move || {
        let area = world().cores[index].area.get() as *const Cpu<Sim<TAGGED>>;
        // SAFETY: `start_cpu` stored it from a `&'static Cpu`.
        boot::secondary(unsafe { &*area })
    })
}

fn start_cpu<const TAGGED: bool>(cpu: &'static Cpu<Sim<TAGGED>>) -> Result<(), StartError> {
    let world = world();
    let index = cpu.id.index();
    world.cores[index].area.set(cpu as *const Cpu<Sim<TAGGED>> as usize);
    world.started.borrow_mut().push(index);
    Ok(())
}

fn exit<const TAGGED: bool>(code: ExitCode) -> ! {
    if code == ExitCode::Finished {
        programs::run_those_given::<TAGGED>();
    }
    world().exit.set(Some(code));
    loop {
        world().suspend();
    }
}

/// Host memory for RAM: allocated once per thread, since one execution has ended before the next begins.
pub(super) fn arena() -> *mut u8 {
    thread_local! {
        static ARENA: Cell<*mut u8> = const { Cell::new(std::ptr::null_mut()) };
    }
    if ARENA.get().is_null() {
        let layout = Layout::from_size_align(RAM_BYTES, 2 << 20).expect("a power of two");
        // SAFETY: the layout is not empty.
        let at = unsafe { alloc_zeroed(layout) };
        assert!(!at.is_null(), "the host has memory for the simulated RAM");
        ARENA.set(at);
    }
    ARENA.get()
}
