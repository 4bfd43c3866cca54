//! What each CPU of a scope does once everything is set up.

use kernel::addr::{Pfn, VirtAddr};
use kernel::arch::Arch;
use kernel::mm::address_space::Mm;
use kernel::mm::{page, rcu_walk};
use kernel::smp::cpu::Cpu;
use kernel::smp::rcu;
use kernel::tlb::switch;
use kernel::workload::Scene;

use super::arch::Sim;
use super::directed::Plot;
use super::direction::{self, Direction};
use super::scope::Role;
use super::world::world;
use crate::explore::hub::Access;

fn direction() -> &'static Direction {
    world().direction.as_ref().expect("the execution is directed")
}

/// A CPU, from the end of the set-up on.
pub(super) fn act<const TAGGED: bool>(role: Option<Role>, scene: &mut dyn Scene<Sim<TAGGED>>, plot: &Plot<TAGGED>) {
    world().core().masked.set(false);
    let cpu = Sim::<TAGGED>::this_cpu();
    match role {
        None => operate(cpu, scene),
        Some(role) => disturb(cpu, &plot.target.mm, plot.va, role),
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
        let (frozen, lazy) = direction::unseen(|| (other.vcpu.owes_a_flush(), other.loaded.is_lazy()));
        if frozen {
            continue;
        }
        let stale = core.mmu.borrow().stale(!lazy, |pa| world.read_if_ram(pa));
        if let Some(what) = stale {
            world.findings.borrow_mut().push(format!("when the operation is over, cpu{i} still has cached {what}"));
        }
    }
}

/// Another CPU.
fn disturb<const TAGGED: bool>(cpu: &'static Cpu<Sim<TAGGED>>, mm: &Mm<Sim<TAGGED>>, va: VirtAddr, role: Role) {
    if matches!(role, Role::LoadAndWalk | Role::Load) {
        switch::load(cpu, mm);
    }
    if matches!(role, Role::Lazy | Role::Left | Role::Load) {
        return;
    }
    if role == Role::Write {
        // A page that is gone is a fault, which nobody handles.
        let _ = Sim::<TAGGED>::write_user(va, 1);
    } else if role == Role::Read {
        rcu_walk::count_leaves(cpu, mm, va, 1);
    } else {
        let mut pages = [Pfn(0)];
        let strategy = Sim::<TAGGED>::machine().policy.strategy();
        let walk = if role == Role::TwoWord { strategy.get_user_pages_two_word } else { strategy.get_user_pages_fast };
        let got = walk(cpu, mm, va, false, &mut pages);
        pages[..got].iter().for_each(|page| page::put_walked(cpu, *page));
    }
    if role == Role::LoadAndWalk {
        switch::unload(cpu);
    }
}
