//! What each CPU of a directed execution runs, from the end of the set-up on.

use std::cell::Cell;
use std::sync::Arc;

use kernel::addr::{Pfn, VirtAddr};
use kernel::arch::Arch;
use kernel::mm::address_space::Mm;
use kernel::mm::{page, rcu_walk};
use kernel::smp::cpu::Cpu;
use kernel::smp::rcu;
use kernel::tlb::switch;
use kernel::workload::Scene;

use super::arch::Sim;
use super::direction::{self, Direction};
use super::scope::{Role, Scope};
use super::staging::{Act, MmNumber};
use super::world::world;
use crate::explore::hub::Access;

/// What all CPUs know.
pub(super) struct Plot<const TAGGED: bool> {
    /// The mms by their numbers, from 1 on: the one that the operation is about first.
    pub(super) mms: Vec<Arc<Mm<Sim<TAGGED>>>>,
    /// Where walks go.
    pub(super) va: VirtAddr,
    pub(super) scope: Scope,
    /// By CPU: how many walks its NMIs have begun.
    nmis: Vec<Cell<usize>>,
}

impl<const TAGGED: bool> Plot<TAGGED> {
    pub(super) fn new(scope: &Scope, mms: Vec<Arc<Mm<Sim<TAGGED>>>>, va: VirtAddr) -> Box<Plot<TAGGED>> {
        Box::new(Plot { mms, va, scope: scope.clone(), nmis: vec![Cell::new(0); scope.cpus()] })
    }

    pub(super) fn mm(&self, number: MmNumber) -> &Mm<Sim<TAGGED>> {
        &self.mms[usize::from(number) - 1]
    }
}

fn direction() -> &'static Direction {
    world().direction.as_ref().expect("the execution is directed")
}

/// CPU number `index`.
pub(super) fn act<const TAGGED: bool>(index: usize, scene: &mut dyn Scene<Sim<TAGGED>>, plot: &Plot<TAGGED>) {
    world().core().masked.set(false);
    let cpu = Sim::<TAGGED>::this_cpu();
    match (&plot.scope.staging, index.checked_sub(1)) {
        (_, None) => operate(cpu, scene),
        (None, Some(other)) => disturb(cpu, plot, plot.scope.roles[other]),
        (Some(staging), Some(_)) => {
            for act in &staging.acts[index] {
                direction().stop_before::<TAGGED>(Access::Pause);
                perform(cpu, plot, *act);
            }
            direction().stop_before::<TAGGED>(Access::Pause);
        }
    }
    rcu::enter_idle(cpu);
    loop {
        direction().stop_before::<TAGGED>(Access::Over);
    }
}

/// The first CPU: the operation, after which no cache may have what memory no longer says.
fn operate<const TAGGED: bool>(cpu: &'static Cpu<Sim<TAGGED>>, scene: &mut dyn Scene<Sim<TAGGED>>) {
    if let Err(error) = scene.operate(cpu, 0) {
        world().findings.borrow_mut().push(format!("the operation failed: {error}"));
    }
    let world = world();
    world.fill();
    direction().judge_conflicts::<TAGGED>();
    for (i, core) in world.cores.iter().enumerate() {
        let other = Sim::<TAGGED>::machine().cpus[i];
        // A frozen CPU invalidates before it runs; a lazy one before it uses a translation.
        if direction::uses_nothing_cached(i, other) {
            continue;
        }
        let lazy = direction::unseen(|| other.loaded.is_lazy());
        let stale = core.mmu.borrow().stale(!lazy, |pa| world.read_if_ram(pa));
        if let Some(what) = stale {
            world.findings.borrow_mut().push(format!("when the operation is over, cpu{i} still has cached {what}"));
        }
    }
}

/// Another CPU.
fn disturb<const TAGGED: bool>(cpu: &'static Cpu<Sim<TAGGED>>, plot: &Plot<TAGGED>, role: Role) {
    let acts: &[Act] = match role {
        Role::LoadAndWalk => &[Act::Load(1), Act::Walk(1), Act::Unload],
        Role::Load => &[Act::Load(1)],
        Role::Read => &[Act::Read(1)],
        Role::TwoWord => &[Act::WalkTwoWord(1)],
        Role::Walk | Role::Foreign => &[Act::Walk(1)],
        Role::Lazy | Role::Left | Role::Loaded => &[],
        Role::Write => &[Act::Write],
    };
    acts.iter().for_each(|act| perform(cpu, plot, *act));
}

fn perform<const TAGGED: bool>(cpu: &'static Cpu<Sim<TAGGED>>, plot: &Plot<TAGGED>, act: Act) {
    match act {
        Act::Load(mm) | Act::LeaveLazy(mm) => switch::load(cpu, plot.mm(mm)),
        Act::Unload => switch::unload(cpu),
        Act::BecomeLazy => switch::become_lazy(cpu),
        Act::Walk(mm) | Act::WalkTwoWord(mm) => {
            let got = walk(cpu, plot, mm, matches!(act, Act::WalkTwoWord(_)));
            got.into_iter().for_each(|page| page::put_walked(cpu, page));
        }
        Act::Read(mm) => _ = rcu_walk::count_leaves(cpu, plot.mm(mm), plot.va, 1),
        Act::Quiescent => rcu::quiescent(cpu),
        // A page that is gone is a fault, which nobody handles.
        Act::Write => _ = Sim::<TAGGED>::write_user(plot.va, 1),
    }
}

/// One walk; returns the page if it got it.
fn walk<const TAGGED: bool>(
    cpu: &'static Cpu<Sim<TAGGED>>,
    plot: &Plot<TAGGED>,
    mm: MmNumber,
    two_word: bool,
) -> Option<Pfn> {
    let mut pages = [Pfn(0)];
    let strategy = Sim::<TAGGED>::machine().policy.strategy();
    let walk = if two_word { strategy.get_user_pages_two_word } else { strategy.get_user_pages_fast };
    let got = (walk(cpu, plot.mm(mm), plot.va, false, &mut pages) == 1).then_some(pages[0]);
    world().core().walked.borrow_mut().push(got);
    got
}

/// In an NMI: the walk that the staging has for it, if any is left. The reference that it gets is not the last one to a
/// page that is mapped, so that dropping it frees nothing.
pub(super) fn walk_in_nmi<const TAGGED: bool>(plot: *const ()) {
    // SAFETY: `Directed::new` gave the plot of this execution, which keeps it until all CPUs have stopped.
    let plot = unsafe { &*plot.cast::<Plot<TAGGED>>() };
    let cpu = Sim::<TAGGED>::this_cpu();
    let begun = &plot.nmis[cpu.id.index()];
    let walks = plot.scope.staging.as_ref().map(|staging| &staging.nmis[cpu.id.index()]);
    if let Some(mm) = walks.and_then(|walks| walks.get(begun.replace(begun.get() + 1))) {
        walk(cpu, plot, *mm, false).into_iter().for_each(|page| page::put_walked(cpu, page));
    }
}
