//! Which mm a CPU has loaded, against flushes and against the strategy that asks, under loom, with the core's own code.
#![cfg(loom)]

use std::rc::Rc;

use kernel::addr::{Level, VirtAddr};
use kernel::arch::Arch;
use kernel::atomic::Ordering;
use kernel::mm::address_space::Mm;
use kernel::mm::table::Table;
use kernel::smp::mask::CpuMask;
use kernel::sync::coverage::Coverage as Strategy;
use kernel::sync::{Ask, Decision, MachineView, Party, Strategy as _};
use kernel::tlb::coverage::Coverage;
use kernel::tlb::invalidation::Invalidation;
use kernel::tlb::switch;
use kernel::tlb::transport::{self, TransportId};
use loom::cell::UnsafeCell;
use loom::sync::atomic::AtomicBool;
use tests::woven::{World, Woven, weakenings_show};

const AT: VirtAddr = VirtAddr(0x4000_0000);

/// An mm with one entry that is loom's, and CPU 1, which may be interrupted.
struct Scene {
    world: Rc<World>,
    mm: std::sync::Arc<Mm<Woven>>,
    pmd: Table<Woven>,
}

impl Scene {
    fn new() -> Rc<Scene> {
        let world = World::new(2);
        world.choose("none", TransportId::Ipi);
        world.listen(1);
        let mm = world.mm_with_tables(AT);
        let pmd = mm.table_at(Level::Pmd, AT).expect("it was made");
        world.watch_entry(pmd, Level::Pmd, AT);
        Rc::new(Scene { world, mm, pmd })
    }

    /// CPU 1 does this first, alone.
    fn before(self: &Rc<Scene>, what: impl FnOnce(&Scene) + 'static) {
        let own = self.clone();
        self.world.spawn(1, move || what(&own)).join().expect("it is done");
    }

    fn clear(&self) {
        Woven::store_entry(self.pmd.slot(AT.index(Level::Pmd)), 0);
    }

    fn flush(&self, tables: bool) -> Coverage {
        let what = Invalidation { start: AT, end: AT.add(4096), tables, all: false, ..Invalidation::ALL };
        transport::flush(self.world.cpu(0), &self.mm, what)
    }

    fn end(self: Rc<Scene>) {
        let Scene { world, mm, .. } = Rc::try_unwrap(self).ok().expect("nobody else has it");
        drop(mm);
        world.end();
    }
}

/// CPU 1 loads the mm and lets its hardware walk; the other changes an entry and flushes. Whoever has the old
/// translation was interrupted. CPU 1 may have another mm loaded, lazily, before: then a flush of pages must not take
/// it for lazy in this one.
fn join_and_flush(tables: bool, lazy_before: bool) {
    let scene = Scene::new();
    let other = scene.world.mm_with_tables(AT);
    if lazy_before {
        let other = other.clone();
        scene.before(move |own| {
            switch::load(own.world.cpu(1), &other);
            switch::become_lazy(own.world.cpu(1));
        });
    }
    let over = Rc::new(AtomicBool::new(false));
    let joiner = {
        let (own, over) = (scene.clone(), over.clone());
        scene.world.spawn(1, move || {
            switch::load(own.world.cpu(1), &own.mm);
            let translated = own.pmd.load(Level::Pmd, AT);
            own.world.take_interrupts_until(|| over.load(Ordering::Relaxed));
            own.world.take_interrupts();
            translated
        })
    };
    scene.clear();
    let coverage = scene.flush(tables);
    over.store(true, Ordering::Relaxed);
    let translated = joiner.join().expect("the joiner is done");
    let interrupted = coverage.acknowledged().contains(scene.world.cpu(1).id);
    assert!(translated == 0 || interrupted, "an old translation is left");
    drop(other);
    scene.end();
}

/// One CPU has an mm loaded, lazily, and uses it again; the other flushes pages, which skips lazy CPUs. Whoever was
/// skipped catches up.
fn lazy_and_flush() {
    let scene = Scene::new();
    let cpu = scene.world.cpu(1);
    scene.before(move |own| {
        switch::load(cpu, &own.mm);
        switch::become_lazy(cpu);
    });
    let caught_up = Rc::new(std::cell::Cell::new(false));
    let note = caught_up.clone();
    scene.world.on_invalidate(1, move || note.set(true));
    let over = Rc::new(AtomicBool::new(false));
    let user = {
        let (own, over) = (scene.clone(), over.clone());
        scene.world.spawn(1, move || {
            switch::load(cpu, &own.mm);
            own.world.take_interrupts_until(|| over.load(Ordering::Relaxed));
            own.world.take_interrupts();
        })
    };
    scene.clear();
    let _ = scene.flush(false);
    over.store(true, Ordering::Relaxed);
    user.join().expect("the user is done");
    assert!(caught_up.get(), "neither interrupted nor caught up");
    scene.end();
}

/// What CPU 1 does about the mm that it walks.
#[derive(Clone, Copy, PartialEq)]
enum Around {
    LoadsItBefore,
    LeavesItAfter,
    BecomesLazyAfter,
}

/// CPU 1 walks; the other clears the entry, asks `coverage`, and uses the table again unless it would have to
/// interrupt.
fn walk_and_ask(around: Around) {
    let scene = Scene::new();
    let contents = Rc::new(UnsafeCell::new(0u64));
    if around != Around::LoadsItBefore {
        scene.before(|own| switch::load(own.world.cpu(1), &own.mm));
    }
    let walker = {
        let (own, contents) = (scene.clone(), contents.clone());
        scene.world.spawn(1, move || {
            let cpu = own.world.cpu(1);
            if around == Around::LoadsItBefore {
                switch::load(cpu, &own.mm);
            }
            if own.pmd.load(Level::Pmd, AT) != 0 {
                // SAFETY: loom says so if anybody changes it now.
                assert_eq!(contents.with(|at| unsafe { *at }), 0, "the table was used again");
            }
            match around {
                Around::LoadsItBefore => {}
                Around::LeavesItAfter => switch::unload(cpu),
                Around::BecomesLazyAfter => switch::become_lazy(cpu),
            }
        })
    };
    scene.clear();
    let cpu = scene.world.cpu(0);
    let coverage = Coverage::claimed_by_a_model(CpuMask::only(cpu.id), 0);
    // Who enters the mask is seen after the fence of the flush, which this model leaves out; who leaves it is seen
    // here.
    let mask = match around {
        Around::LoadsItBefore => CpuMask::first(2),
        _ => scene.mm.mask.load(Ordering::Relaxed),
    };
    let party = Party { mm: scene.mm.id, mask, coverage };
    let none = CpuMask::EMPTY;
    let ask = Ask { party, left_behind: &none, left_before: false, generation: 0, gather_interrupted: false };
    if let Decision::Elide(_) = Strategy::decide(&MachineView { cpu }, &ask) {
        // SAFETY: loom says so if anybody looks at it now.
        contents.with_mut(|at| unsafe { *at = 1 });
    }
    walker.join().expect("the walker is done");
    scene.end();
}

#[test]
fn every_ordering_of_loading_is_needed() {
    let models: [fn(); 7] = [
        || join_and_flush(true, false),
        || join_and_flush(false, false),
        || join_and_flush(false, true),
        lazy_and_flush,
        || walk_and_ask(Around::LoadsItBefore),
        || walk_and_ask(Around::LeavesItAfter),
        || walk_and_ask(Around::BecomesLazyAfter),
    ];
    weakenings_show(2, &["tlb/switch.rs", "sync/mod.rs"], &[], &models);
}
