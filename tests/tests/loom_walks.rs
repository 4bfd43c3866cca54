//! Walks against unlinks under loom, with the core's own code: what strategies publish and scan, acknowledged
//! generations, grace periods, references and rechecks.
#![cfg(loom)]

use std::rc::Rc;

use kernel::addr::{Level, VirtAddr};
use kernel::arch::Arch;
use kernel::mm::address_space::Mm;
use kernel::mm::entry::{Entry, EntryCodec};
use kernel::mm::table::Table;
use kernel::smp::call::acknowledge_generation;
use kernel::smp::mask::CpuMask;
use kernel::smp::rcu;
use kernel::sync::targeted::Targeted;
use kernel::sync::targeted_v4::TargetedV4;
use kernel::sync::targeted_xchg::TargetedXchg;
use kernel::sync::{Ask, Decision, MachineView, Party, Strategy, acked_generation};
use kernel::tlb::coverage::Coverage;
use kernel::tlb::transport::TransportId;
use loom::cell::UnsafeCell;
use tests::woven::{World, Woven, violated, weakenings_show};

const AT: VirtAddr = VirtAddr(0x4000_0000);

/// An mm, the PMD entry in question, and what its PTE table contains: 0 until it is used again.
struct Scene {
    world: Rc<World>,
    mm: std::sync::Arc<Mm<Woven>>,
    pmd: Table<Woven>,
    contents: Rc<UnsafeCell<u64>>,
}

impl Scene {
    fn new(cpus: usize) -> Rc<Scene> {
        let world = World::new(cpus);
        world.choose("targeted", TransportId::Broadcast);
        let mm = world.mm_with_tables(AT);
        let pmd = mm.table_at(Level::Pmd, AT).expect("it was made");
        world.watch_entry(pmd, Level::Pmd, AT);
        Rc::new(Scene { world, mm, pmd, contents: Rc::new(UnsafeCell::new(0)) })
    }

    /// The middle of a walk: the PMD entry, then the table below, if there is one.
    fn look(&self) {
        if let Entry::Table(_) = <Woven as Arch>::Codec::decode(Level::Pmd, self.pmd.load(Level::Pmd, AT)) {
            // SAFETY: loom says so if anybody changes it now.
            assert_eq!(self.contents.with(|at| unsafe { *at }), 0, "the table was used again");
        }
    }

    /// The table is used again.
    fn reuse(&self) {
        // SAFETY: loom says so if anybody looks at it now.
        self.contents.with_mut(|at| unsafe { *at = 1 });
    }

    fn ask<R>(&self, generation: u64, what: impl FnOnce(&MachineView<Woven>, &Ask<'_>) -> R) -> R {
        let coverage = Coverage::claimed_by_a_model(CpuMask::only(self.world.cpu(0).id), 0);
        let party = Party { mm: self.mm.id, mask: CpuMask::first(2), coverage };
        let ask =
            Ask { party, left_behind: &CpuMask::EMPTY, left_before: false, generation, gather_interrupted: false };
        what(&MachineView { cpu: self.world.cpu(0) }, &ask)
    }

    fn end(self: Rc<Scene>) {
        let scene = Rc::try_unwrap(self).ok().expect("nobody else has it");
        let Scene { world, mm, contents, .. } = scene;
        drop((mm, contents));
        world.end();
    }
}

/// One CPU walks, twice; the other clears the entry by a plain store, asks the strategy, and uses the table again
/// unless it would have to interrupt. No flush comes between.
fn publish_and_scan<S: Strategy>() {
    let scene = Scene::new(2);
    let walker = {
        let own = scene.clone();
        scene.world.spawn(1, move || {
            for _ in 0..2 {
                let outer = S::walk_begin(own.world.cpu(1), &own.mm);
                own.look();
                S::walk_end(own.world.cpu(1), outer);
            }
        })
    };
    Woven::store_entry(scene.pmd.slot(AT.index(Level::Pmd)), 0);
    if let Decision::Elide(_) = scene.ask(0, |view, ask| S::decide(view, ask)) {
        scene.reuse();
    }
    walker.join().expect("the walker is done");
    scene.end();
}

#[test]
fn every_ordering_of_targeted_is_needed() {
    weakenings_show(3, &["sync/targeted.rs", "sync/mod.rs"], &[], &[publish_and_scan::<Targeted>]);
}

/// The read barrier of v4 orders nothing.
#[test]
fn targeted_v4_is_wrong() {
    assert!(violated(3, publish_and_scan::<TargetedV4>));
}

/// The language does not promise that an exchange stays before later loads; both architectures do:
/// `tests/litmus/exchange-scan.*`. If loom ever stops to find this, it promises more than the language.
#[test]
fn targeted_xchg_rests_on_the_architectures() {
    assert!(violated(3, publish_and_scan::<TargetedXchg>));
}

/// A walk, an interrupt, a walk; the other CPU unlinks and uses the table again if the first has acknowledged the
/// unlink.
fn acknowledged() {
    let scene = Scene::new(2);
    let walker = {
        let own = scene.clone();
        scene.world.spawn(1, move || {
            own.look();
            acknowledge_generation(own.world.cpu(1));
            own.look();
        })
    };
    // As `TableGuard::unlink` does, which wants a table to be brought to an end.
    scene.pmd.lock().clear(Level::Pmd, AT);
    let generation = scene.world.machine().unlink_generation.fetch_add(1, kernel::atomic::Ordering::Release) + 1;
    let decision = scene.ask(generation, |view, ask| acked_generation::AckedGeneration::decide(view, ask));
    if let Decision::Elide(_) = decision {
        scene.reuse();
    }
    walker.join().expect("the walker is done");
    scene.end();
}

#[test]
fn every_ordering_of_acknowledged_generations_is_needed() {
    weakenings_show(3, &["smp/call.rs"], &[], &[acknowledged]);
}

/// Reads in and out of idleness against unlink, grace period, reuse.
fn grace_period(times_idle: usize) {
    let scene = Scene::new(2);
    let reader = {
        let own = scene.clone();
        scene.world.spawn(1, move || {
            let cpu = own.world.cpu(1);
            for _ in 0..times_idle {
                rcu::leave_idle(cpu);
                let section = rcu::read(cpu);
                own.look();
                drop(section);
                if times_idle == 1 {
                    rcu::quiescent(cpu);
                    own.look();
                }
                rcu::enter_idle(cpu);
            }
        })
    };
    scene.pmd.lock().clear(Level::Pmd, AT);
    rcu::synchronize(scene.world.cpu(0));
    scene.reuse();
    reader.join().expect("the reader is done");
    scene.end();
}

#[test]
fn every_ordering_of_a_grace_period_is_needed() {
    weakenings_show(2, &["smp/rcu.rs"], &[], &[|| grace_period(1), || grace_period(2)]);
}

/// A walk gets a reference and looks at the entry again; the other CPU clears the entry and takes the last reference
/// away, then gives the page to somebody else.
fn references() {
    let scene = Scene::new(2);
    let slot = scene.pmd.slot(AT.index(Level::Pmd));
    // The frame of the PMD table plays the page: only its reference count matters.
    let page = scene.pmd.frame();
    page.thaw(1);
    let walker = {
        let own = scene.clone();
        scene.world.spawn(1, move || {
            let raw = Woven::load_entry(slot);
            if raw == 0 || !page.try_get(1) {
                return;
            }
            if Woven::load_entry(slot) == raw {
                // SAFETY: loom says so if anybody changes it now.
                assert_eq!(own.contents.with(|at| unsafe { *at }), 0, "the page is somebody else's");
            }
            let _ = page.put(1);
        })
    };
    Woven::swap_entry(slot, 0);
    if page.freeze(1) {
        scene.reuse();
        page.thaw(1);
    }
    walker.join().expect("the walker is done");
    scene.end();
}

/// The same, but both have a reference, and whoever drops the last one gives the page to somebody else.
fn last_reference() {
    let scene = Scene::new(2);
    let page = scene.pmd.frame();
    page.thaw(2);
    let user = |scene: &Scene| {
        // SAFETY: loom says so if anybody changes it now.
        assert_eq!(scene.contents.with(|at| unsafe { *at }), 0);
        if page.put(1) {
            scene.reuse();
        }
    };
    let other = {
        let own = scene.clone();
        scene.world.spawn(1, move || user(&own))
    };
    user(&scene);
    other.join().expect("the other is done");
    scene.end();
}

#[test]
fn every_ordering_of_references_is_needed() {
    weakenings_show(3, &["mm/frame.rs"], &[], &[references, last_reference]);
}

/// A table is filled, then linked; a walk that finds it finds it filled.
fn new_table() {
    let scene = Scene::new(2);
    let at = AT.add(1 << 21);
    scene.world.watch_entry(scene.pmd, Level::Pmd, at);
    let walker = {
        let own = scene.clone();
        scene.world.spawn(1, move || {
            if own.pmd.load(Level::Pmd, at) != 0 {
                // SAFETY: loom says so if anybody changes it now.
                assert_eq!(own.contents.with(|at| unsafe { *at }), 1, "the table is not filled yet");
            }
        })
    };
    scene.reuse();
    let table = <Woven as Arch>::Codec::table(scene.pmd.pfn().addr());
    scene.pmd.lock().set(Level::Pmd, at, table);
    walker.join().expect("the walker is done");
    scene.end();
}

#[test]
fn every_ordering_of_a_new_table_is_needed() {
    weakenings_show(3, &["mm/table.rs"], &[], &[new_table]);
}
