//! One cell in mode `scripted`: the workload is set up as in every cell, then its operation is one actor of the script
//! and the other CPUs are the others.

use core::ops::Range;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use crate::addr::{PAGE_SIZE, Pfn, VirtAddr};
use crate::arch::Arch;
use crate::injection::Odds;
use crate::ledger::Cause;
use crate::mm::address_space::Mm;
use crate::mm::fault;
use crate::mm::page;
use crate::mm::rcu_walk;
use crate::mm::unmap::dontneed;
use crate::oracle::{self, ghost, value};
use crate::pause;
use crate::record::cell::{CellRow, ViolationKind};
use crate::record::event::EventKind;
use crate::record::shared::Doing;
use crate::scenario::script::{MAX_PAGES, Role, Script};
use crate::scenario::stage;
use crate::smp::call::call_many;
use crate::smp::cpu::Cpu;
use crate::smp::rcu;
use crate::smp::wait::Wait;
use crate::suite::Suite;
use crate::sync::{self, Setting};
use crate::tlb::switch;
use crate::workload::balance::Balance;
use crate::workload::cell::{self, Cell, CellError};
use crate::workload::counted::Counted;
use crate::workload::row;
use crate::workload::walker::WalkerClass;
use crate::workload::{Scene, Target, WorkloadId, scene};

/// What the other CPUs are told. Lives on the first CPU's stack for one cell.
struct Cast<'a, A: Arch> {
    script: &'a Script,
    mm: &'a Mm<A>,
    range: Range<VirtAddr>,
    /// How far apart operations are.
    step: u64,
    stop: AtomicBool,
    round: AtomicU64,
    ready: AtomicU32,
}

impl<A: Arch> Cast<'_, A> {
    /// Waits until every other CPU has the mm loaded (again, where the last flush made it unload).
    fn next_round(&self, cpu: &'static Cpu<A>) {
        self.ready.store(0, Ordering::Relaxed);
        // Release: pairs with the acquire in `member` (tests/litmus/hand-over).
        self.round.fetch_add(1, Ordering::Release);
        let others = A::machine().online_mask().count() - 1;
        let mut wait = Wait::new(cpu, Doing::WaitWorkload);
        // Acquire: pairs with the release in `member` (tests/litmus/hand-over).
        while self.ready.load(Ordering::Acquire) != others {
            wait.again(|| None);
        }
        wait.done();
    }

    /// Where an actor acts.
    fn at(&self) -> VirtAddr {
        let op = A::machine().operation.load(Ordering::Relaxed);
        let offset = op * self.step + self.script.page * PAGE_SIZE;
        self.range.start.add(offset % (self.range.end.0 - self.range.start.0))
    }
}

/// Plays the scenario of `suite` once.
pub fn run<A: Arch>(cpu: &'static Cpu<A>, suite: &Suite, cell: Cell, script: &Script) -> Result<CellRow, CellError> {
    let machine = A::machine();
    let chain = cell.workload == WorkloadId::UnshareChain;
    let plays = |role| script.actors.iter().any(|actor| actor.role == role);
    let walker = match (plays(Role::Reader), plays(Role::Foreign)) {
        (true, _) => WalkerClass::Rcu,
        (false, true) => WalkerClass::Foreign,
        (false, false) if plays(Role::TwoWord) => WalkerClass::TwoWord,
        (false, false) => WalkerClass::Gup,
    };
    let setting = Setting { transport: suite.transport, hook: suite.hook, chain, batch: false, walker };
    let strategy = &sync::all::<A>()[cell.strategy];
    if let Some(verdict) = cell::not_run::<A>(strategy, setting) {
        return Ok(row::row_of_nothing::<A>(cell, setting, verdict));
    }
    rcu::barrier(cpu);
    let before = Balance::now::<A>(suite);
    machine.policy.set(strategy, setting);
    cell::seed_all::<A>(suite.seed, &cell);
    let start = cell::totals::<A>();

    let mut scene = scene(cell.workload, cpu).map_err(CellError::SetUp)?;
    let target: Target<A> = scene.target();
    let cast = Cast {
        script,
        mm: &target.mm,
        range: target.range.clone(),
        step: target.step,
        stop: AtomicBool::new(false),
        round: AtomicU64::new(0),
        ready: AtomicU32::new(0),
    };
    let mut others = *machine.online_mask();
    others.remove(cpu.id);
    for id in others.iter() {
        machine.cpu(id).give_job(member::<A>, &cast as *const Cast<'_, A> as usize);
    }
    call_many(cpu, &others, Cause::Wake, |_, _| {}, 0);
    let played = play(cpu, suite, scene.as_mut(), &cast);
    // Release: pairs with the acquire in `member` (tests/litmus/hand-over).
    cast.stop.store(true, Ordering::Release);
    let mut wait = Wait::new(cpu, Doing::WaitWorkload);
    for id in others.iter() {
        while machine.cpu(id).has_job() {
            wait.again(|| Some(id));
        }
    }
    wait.done();
    switch::unload(cpu);
    drop(target);
    scene.finish(cpu);
    rcu::barrier(cpu);
    played?;

    let left = Balance::now::<A>(suite).since(&before);
    let total = cell::totals::<A>().since(&start);
    // A violation may have taken references to pages that were not there: only a run that was right must balance.
    if total.violations_ghost + total.violations_value == 0 && left != Balance::default() {
        return Err(CellError::Leak(left));
    }
    let counted = Counted { counts: total, ops: suite.ops, ..Counted::default() };
    let mut row = row::row(suite, cell, strategy, setting, &counted, &total);
    row.steps = machine.stage.records();
    Ok(row)
}

/// The operations: first those that nobody disturbs, then the one that is an actor.
fn play<A: Arch>(
    cpu: &'static Cpu<A>,
    suite: &Suite,
    scene: &mut dyn Scene<A>,
    cast: &Cast<'_, A>,
) -> Result<(), CellError> {
    let machine = A::machine();
    for op in 0..=cast.script.before {
        let failed = |error| CellError::Operation(op, error);
        machine.operation.store(op, Ordering::Relaxed);
        scene.prepare(cpu, op).map_err(failed)?;
        cast.next_round(cpu);
        machine.policy.injection.set(suite.inject);
        let scripted = op == cast.script.before;
        if scripted {
            machine.stage.open(cast.script, A::instructions());
            stage::enter(cpu);
        }
        cpu.events.write(EventKind::OperationBegin, 0, op, 0);
        let result = scene.operate(cpu, op);
        cpu.events.write(EventKind::OperationEnd, 0, op, 0);
        if scripted {
            stage::leave(cpu);
            let mut wait = Wait::new(cpu, Doing::WaitWorkload);
            while !machine.stage.all_over(cast.script.actors.len()) {
                wait.again(|| None);
            }
            wait.done();
            machine.stage.close();
        }
        machine.policy.injection.set(Odds::NONE);
        result.map_err(failed)?;
        machine.shared().progress.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

/// What each of the other CPUs runs.
fn member<A: Arch>(cpu: &'static Cpu<A>, argument: usize) {
    // SAFETY: the first CPU keeps the cast until it has seen this job end.
    let cast = unsafe { &*(argument as *const Cast<'_, A>) };
    let role = cast.script.actors.get(cpu.id.index()).map(|actor| actor.role);
    let (mut round, mut acted) = (0, false);
    // Acquire, of both: pairs with the releases of the first CPU (tests/litmus/hand-over).
    while !cast.stop.load(Ordering::Acquire) {
        let now = cast.round.load(Ordering::Acquire);
        if now != round {
            round = now;
            if !matches!(role, Some(Role::Foreign | Role::Loader)) {
                switch::load(cpu, cast.mm);
            }
            // Release: pairs with the acquire in `next_round` (tests/litmus/hand-over).
            cast.ready.fetch_add(1, Ordering::Release);
        }
        if let Some(role) = role
            && !acted
            && A::machine().stage.is_open()
        {
            acted = true;
            stage::enter(cpu);
            act(cpu, cast, role);
            stage::leave(cpu);
        }
        rcu::quiescent(cpu);
        A::relax();
    }
    switch::unload(cpu);
    // What this CPU retired is freed before the cell's balance is drawn.
    rcu::barrier(cpu);
}

/// What an actor does.
fn act<A: Arch>(cpu: &'static Cpu<A>, cast: &Cast<'_, A>, role: Role) {
    let va = cast.at();
    match role {
        Role::Updater => {}
        Role::Loader => {
            switch::load(cpu, cast.mm);
            act(cpu, cast, Role::Walker);
        }
        Role::Sync => {
            let mut others = *A::machine().online_mask();
            others.remove(cpu.id);
            call_many(cpu, &others, Cause::Sync, |_, _| {}, 0);
        }
        Role::Reader => {
            rcu_walk::count_leaves(cpu, cast.mm, va, cast.script.pages as usize);
        }
        Role::Pin => {
            let mut pages = [Pfn(0)];
            if (A::machine().policy.strategy().pin_user_pages_fast)(cpu, cast.mm, va, true, &mut pages) > 0 {
                value::judge_pin(cpu, cast.mm, va, pages[0]);
                page::unpin_walked(cpu, pages[0]);
            }
        }
        Role::Walker | Role::TwoWord | Role::Foreign => {
            let mut pages = [Pfn(0); MAX_PAGES as usize];
            let pages = &mut pages[..cast.script.pages as usize];
            let strategy = A::machine().policy.strategy();
            let walk =
                if role == Role::TwoWord { strategy.get_user_pages_two_word } else { strategy.get_user_pages_fast };
            let got = walk(cpu, cast.mm, va, false, pages);
            pause!(cpu, HoldsPages);
            oracle::on_put(cpu, cast.mm, va, &pages[..got]);
            for pfn in &pages[..got] {
                page::put_walked(cpu, *pfn);
            }
        }
        Role::Fault => {
            let mut pages = [Pfn(0)];
            // Nothing may be mapped there any more.
            if fault::get_user_pages(cpu, cast.mm, va, false, &mut pages).is_ok() {
                page::put_walked(cpu, pages[0]);
            }
        }
        Role::Exchange => {
            let both = va..va.add(2 * PAGE_SIZE);
            // Frames that are freed last are used first. Short of memory a page stays away, and the verdict says that
            // nothing was seen.
            let _ = dontneed(cpu, cast.mm, both.clone());
            let _ = fault::populate(cpu, cast.mm, both);
        }
        Role::Touch => {
            look(cpu, cast.mm, va);
            pause!(cpu, AfterTouch);
            look(cpu, cast.mm, va);
        }
        Role::Drop => {
            // Nobody else writes this word; the first one is the tag.
            let (word, mark) = (va.add(8), 0x0dd0_0000_0000_0001 | u64::from(cpu.id.0) << 8);
            let written = A::write_user(word, mark).is_ok();
            pause!(cpu, AfterTouch);
            let dropped = dontneed(cpu, cast.mm, va..va.add(PAGE_SIZE)).is_ok();
            if oracle::is_on() && written && dropped && A::read_user(word).is_ok_and(|seen| seen == mark) {
                let stale = ghost::describe(cpu, cpu, Pfn(0), ViolationKind::StaleTranslation, va);
                oracle::report(cpu, stale);
            }
        }
    }
}

/// Reads a page's tag at its user address; nothing may be mapped there.
fn look<A: Arch>(cpu: &'static Cpu<A>, mm: &Mm<A>, va: VirtAddr) {
    if let Ok(observed) = A::read_user(va) {
        oracle::on_user_read(cpu, mm, va, observed);
    }
}
