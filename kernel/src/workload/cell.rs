//! One cell: a strategy on a transport, under a workload, in a mode. Sets up, operates, counts, takes down, and checks
//! that nothing is left.

use core::sync::atomic::Ordering;

use super::balance::Balance;
use super::counted::Counted;
use super::crowd::Crowd;
use super::profiling::Profiling;
use super::programs;
use super::row::{row, row_of_nothing};
use super::walker::WalkerClass;
use super::{OpError, Scene, Target, WorkloadId, mm_with_pages_away, scene};
use crate::addr::VirtAddr;
use crate::arch::Arch;
use crate::injection::{Fault, Odds};
use crate::ledger::recorded::Notes;
use crate::ledger::{Snapshot, Taken};
use crate::mm::exit;
use crate::record::cell::{CellRow, Verdict};
use crate::record::event::EventKind;
use crate::record::profile::Profile;
use crate::scenario::play;
use crate::smp::cpu::{Chance, Cpu};
use crate::smp::rcu;
use crate::suite::{Mode, Suite};
use crate::sync::{self, Setting};
use crate::tlb::switch;
use crate::tlb::transport::TransportId;

/// Which cell.
#[derive(Clone, Copy, Debug)]
pub struct Cell {
    /// Index in [`sync::NAMES`].
    pub strategy: usize,
    /// The workload.
    pub workload: WorkloadId,
    /// What the other CPUs do.
    pub mode: Mode,
}

/// Something was left over, or could not be done: the kernel is wrong, or memory is short.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum CellError {
    /// An operation failed that cannot fail.
    #[error("operation {0} of the cell failed: {1}")]
    Operation(u64, OpError),
    /// The scene could not be set up.
    #[error("the cell could not be set up: {0}")]
    SetUp(OpError),
    /// A workload of programs could not be started.
    #[error("the cell's programs could not be started: {0}")]
    Programs(#[from] programs::StartError),
    /// Something is missing, or too much, after the cell.
    #[error("{0} were not given back")]
    Leak(Balance),
}

/// Runs one cell on the calling CPU and the others, and records `profile` of it.
pub fn run<A: Arch>(
    cpu: &'static Cpu<A>,
    suite: &Suite,
    cell: Cell,
    profile: Option<&'static Profile>,
) -> Result<CellRow, CellError> {
    with_seed(cpu, suite, cell, profile, suite.seed)
}

/// Runs one cell; if it is a control that did not fire, again with a seed derived from the last, up to [`Suite::tries`]
/// times in all.
///
/// A control has to show that a violation can be found, and one schedule that does is enough. A cell that shall be safe
/// is run once: that no violation was found in so many operations says less where a control beside it needed more of
/// them, which is why the row says how many seeds it took.
fn run_until_it_fires<A: Arch>(
    cpu: &'static Cpu<A>,
    suite: &Suite,
    cell: Cell,
    profile: Option<&'static Profile>,
) -> Result<CellRow, CellError> {
    let mut row = run(cpu, suite, cell, profile)?;
    let seeds = Chance::new(suite.seed);
    while row.verdict == Verdict::Void as u8 && row.seeds < suite.tries {
        let seeds_before = row.seeds;
        row = with_seed(cpu, suite, cell, profile, seeds.next())?;
        row.seeds = seeds_before + 1;
    }
    Ok(row)
}

fn with_seed<A: Arch>(
    cpu: &'static Cpu<A>,
    suite: &Suite,
    cell: Cell,
    profile: Option<&'static Profile>,
    seed: u64,
) -> Result<CellRow, CellError> {
    let machine = A::machine();
    let chain = cell.workload == WorkloadId::UnshareChain;
    let setting = Setting {
        transport: suite.transport,
        hook: suite.hook,
        chain,
        batch: false,
        // Elsewhere everybody walks as GUP-fast does.
        walker: if cell.mode == Mode::Contend { suite.walker } else { WalkerClass::Gup },
    };
    let strategy = &sync::all::<A>()[cell.strategy];
    if let Some(verdict) = not_run::<A>(strategy, setting) {
        return Ok(row_of_nothing::<A>(cell, setting, verdict));
    }
    rcu::barrier(cpu);
    let before = Balance::now::<A>(suite);
    machine.policy.set(strategy, setting);
    seed_all::<A>(seed, &cell);
    let contends = cell.mode == Mode::Contend;
    machine.policy.set_schedule_points(contends);
    // Elsewhere the counts are those of a closed form, which knows of no lock that is taken.
    machine.policy.injection.set(if contends { suite.inject } else { suite.inject.with(Fault::Trylock, 0) });
    machine.policy.pins.store(if contends { suite.pins } else { 0 }, Ordering::Relaxed);
    machine.policy.tick_ns.store(if contends { suite.tick_ns() } else { 0 }, Ordering::Relaxed);
    let (start, noted) = (totals::<A>(), notes::<A>());

    let (counted, program_status) = if suite.by_program(cell.workload) {
        let ran = programs::run(cpu, suite, cell.workload, cell.mode)?;
        let asked = ran.metered.syncs;
        let counts = totals::<A>().since(&start);
        let whole = Counted { counts, instructions: ran.instructions, ops: suite.ops, asked, ..Counted::default() };
        // Programs that say when their operations are have those counted, and nothing else.
        let operates = ran.metered.ops != 0 || !cell.workload.runs_programs();
        let mut counted = if operates { Counted::from(ran.metered) } else { whole };
        if cell.mode != Mode::Isolated && !cell.workload.has_bystander() {
            // The last CPU is one of the others.
            counted.bystander = Taken::default();
        }
        // Nothing is noted elsewhere.
        counted.whole = cfg!(feature = "checking").then(|| (counts, notes::<A>().since(&noted)));
        (Ok(counted), ran.status)
    } else {
        (staged(cpu, suite, cell, setting, profile)?, 0)
    };
    machine.policy.tick_ns.store(0, Ordering::Relaxed);
    machine.policy.set_schedule_points(false);
    machine.policy.injection.set(Odds::NONE);
    rcu::barrier(cpu);
    debug_assert!(nothing_is_pending::<A>(), "another CPU went home before what it retired was free");
    let counted = counted?;

    let left = Balance::now::<A>(suite).since(&before);
    let violated = totals::<A>().since(&start);
    let violations = violated.violations_ghost + violated.violations_value;
    // A violation may have taken references to pages that were not there: only a run that was right must balance.
    if violations == 0 && left != Balance::default() {
        return Err(CellError::Leak(left));
    }
    let mut row = row(suite, cell, strategy, setting, &counted, &violated);
    row.left = left.numbers();
    if program_status != 0 {
        (row.program_status, row.verdict) = (program_status, Verdict::Failed as u8);
    }
    Ok(row)
}

/// Sets the stage of a cell, operates on it, and takes it down: what was counted, if no operation failed.
fn staged<A: Arch>(
    cpu: &'static Cpu<A>,
    suite: &Suite,
    cell: Cell,
    setting: Setting,
    profile: Option<&'static Profile>,
) -> Result<Result<Counted, CellError>, CellError> {
    let machine = A::machine();
    let contends = cell.mode == Mode::Contend;
    let mut scene = scene(cell.workload, cpu).map_err(CellError::SetUp)?;
    let loads_another =
        cell.mode == Mode::Other || matches!(setting.walker, WalkerClass::NmiOther | WalkerClass::Foreign);
    let other = match loads_another {
        true => Some(mm_with_pages_away(cpu).map_err(|e| CellError::SetUp(e.into()))?),
        false => None,
    };
    let target: Target<A> = scene.target();
    let mut profiling = Profiling::new(suite, profile);
    let (counted, gap) = {
        let crowd = Crowd::new(cell.mode, setting.walker, &target, other.as_deref());
        crowd.gather(cpu);
        if contends {
            crate::upcall::start_ticks(cpu);
        }
        let counted = operate(cpu, suite, scene.as_mut(), &crowd, &mut profiling);
        machine.policy.tick_ns.store(0, Ordering::Relaxed);
        crowd.disperse(cpu);
        profiling.end();
        (counted, crowd.longest_gap())
    };
    switch::unload(cpu);
    drop(target);
    scene.finish(cpu);
    if let Some(mm) = other {
        exit::exit(cpu, mm);
    }
    Ok(counted.map(|mut counted| {
        counted.gap.longest = gap;
        counted
    }))
}

/// The verdict of a cell that is not run: the strategy refuses the walkers, or the machine cannot show it.
pub(crate) fn not_run<A: Arch>(strategy: &sync::Entry<A>, setting: Setting) -> Option<Verdict> {
    let by_nmi =
        matches!(setting.transport, TransportId::Broadcast | TransportId::Mixed) && !A::has_broadcast_invalidation();
    if by_nmi && setting.walker.nests() {
        // The NMI that plays the broadcast waits for walks in NMIs: a real broadcast does not.
        return Some(Verdict::NotApplicable);
    }
    if strategy.self_map && A::SELF_MAP == VirtAddr(0) {
        // Without the mapping every walk gives up, and nothing that it did not do is wrong.
        return Some(Verdict::NotApplicable);
    }
    Some((strategy.promises)(setting)).filter(|promised| *promised == Verdict::Refused)
}

/// Gives every CPU the choices of this cell: they depend on the seed and on the cell, not on the cells before.
pub(crate) fn seed_all<A: Arch>(seed: u64, cell: &Cell) {
    let number = (cell.strategy as u64) << 16 | (cell.workload as u64) << 8 | cell.mode as u64;
    for cpu in A::machine().online() {
        cpu.chance.seed(seed.wrapping_add(number.wrapping_mul(0x2545_f491_4f6c_dd1d)), cpu.id.0.into());
        cpu.ghost.reset();
        cpu.nmi.reset();
    }
}

/// Does the operations; returns what the windows counted.
fn operate<A: Arch>(
    cpu: &'static Cpu<A>,
    suite: &Suite,
    scene: &mut dyn Scene<A>,
    crowd: &Crowd<'_, A>,
    profiling: &mut Profiling<A>,
) -> Result<Counted, CellError> {
    let machine = A::machine();
    let mut counted = Counted::default();
    let bystander = crowd.bystander(cpu);
    let taken = || bystander.map(|cpu| cpu.ledger.taken()).unwrap_or_default();
    for op in 0..suite.ops {
        let failed = |error| CellError::Operation(op, error);
        machine.operation.store(op, Ordering::Relaxed);
        scene.prepare(cpu, op).map_err(failed)?;
        if op == suite.ops / 2 {
            crowd.spread();
        }
        crowd.next_round(cpu);
        profiling.open(op);
        let nobody_flushes = (invalidations::<A>(), notes_of_all::<A>());
        crowd.open();
        if machine.policy.schedule_points() {
            // Under `-icount` the others only see the open window when this CPU lets them run: so long that they may be
            // anywhere in a walk.
            for _ in 0..1 + cpu.chance.next() % 16 {
                A::relax();
            }
        }
        cpu.events.write(EventKind::OperationBegin, 0, op, 0);
        let before = (cpu.ledger.snapshot(), taken(), cpu.ledger.recorded.notes());
        let began = A::instructions();
        let result = scene.operate(cpu, op);
        counted.instructions += A::instructions() - began;
        let notes = cpu.ledger.recorded.notes().since(&before.2);
        let mut delta = cpu.ledger.snapshot().since(&before.0);
        cpu.events.write(EventKind::OperationEnd, 0, op, 0);
        profiling.close(op);
        crowd.close();
        result.map_err(failed)?;
        if crowd.invalidates_by_itself(suite.transport) {
            // What others have begun to flush, or owe, belongs to this operation.
            crowd.next_round(cpu);
        }
        delta.tlbi = invalidations::<A>() - nobody_flushes.0;
        counted.by_all = counted.by_all.plus(&notes_of_all::<A>().since(&nobody_flushes.1));
        counted.counts = counted.counts.plus(&delta);
        counted.notes = counted.notes.plus(&notes);
        taken().add_since(&before.1, &mut counted.bystander);
        counted.ops += 1;
        machine.shared().progress.fetch_add(1, Ordering::Relaxed);
    }
    Ok(counted)
}

fn invalidations<A: Arch>() -> u64 {
    A::machine().online().map(|cpu| cpu.ledger.invalidations.get()).sum()
}

fn notes_of_all<A: Arch>() -> Notes {
    A::machine().online().fold(Notes::default(), |sum, cpu| sum.plus(&cpu.ledger.recorded.notes()))
}

/// The counts of all CPUs together.
pub(crate) fn totals<A: Arch>() -> Snapshot {
    A::machine().online().fold(Snapshot::default(), |sum, cpu| sum.plus(&cpu.ledger.snapshot()))
}

/// The notes of all CPUs together.
fn notes<A: Arch>() -> Notes {
    A::machine().online().fold(Notes::default(), |sum, cpu| sum.plus(&cpu.ledger.recorded.notes()))
}

/// Whether no CPU waits to free a table. Each of the crowd has ended its own before it went home.
fn nothing_is_pending<A: Arch>() -> bool {
    A::machine().online().all(|cpu| cpu.rcu.pending() == 0)
}

/// Runs all cells of `suite`, each with the one of `profiles` that has its number, leaving each row where the runner
/// finds it as soon as it is complete.
pub fn run_all<A: Arch>(
    cpu: &'static Cpu<A>,
    suite: &Suite,
    profiles: &'static [Profile],
    mut done: impl FnMut(usize, CellRow),
) -> Result<(), CellError> {
    for (index, cell) in suite.cells().enumerate() {
        cpu.events.write(EventKind::CellStart, 0, index as u64, 0);
        log::debug!("cell {index}: {:?}", cell);
        let row = match &suite.script {
            Some(script) => play::run(cpu, suite, cell, script)?,
            None => run_until_it_fires(cpu, suite, cell, profiles.get(index))?,
        };
        cpu.events.write(EventKind::CellEnd, 0, index as u64, row.violations_ghost + row.violations_value);
        done(index, row);
    }
    Ok(())
}
