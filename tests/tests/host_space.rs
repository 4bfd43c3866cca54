//! Random operations on address spaces, by several CPUs, over every transport, against a model that knows neither
//! tables nor TLBs. After each operation all tables and reference counts are looked at; at the end nothing may be left.

use std::sync::Arc;

use kernel::addr::{Level, PAGE_SHIFT, Pfn, VirtAddr};
use kernel::arch::Arch;
use kernel::injection::{Fault, Odds};
use kernel::mm::address_space::{Backing, MapError, Mm};
use kernel::mm::collapse::{CollapseError, collapse_anon};
use kernel::mm::entry::Perm;
use kernel::mm::protect::mprotect;
use kernel::mm::unmap::{dontneed, munmap};
use kernel::mm::{exit, fault, fork, page};
use kernel::tlb::switch;
use kernel::tlb::transport::TransportId;
use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use tests::audit::Audit;
use tests::host::{Tagged, Untagged, World};
use tests::space_model::{Refusal, Space};

/// The window begins 2 MiB below a GiB, so that it needs two PMD tables.
const BASE: u64 = 0x7fe0_0000 >> PAGE_SHIFT;
const CHUNK: u64 = 512;
const PAGES: u64 = 3 * CHUNK;
const CPUS: usize = 3;
const FRAMES: usize = 16384;
/// Where the pages of a test's own are in the page, behind the oracle's tag.
const WORD: u64 = 8;

#[derive(Clone, Copy, Debug)]
enum Op {
    Map(u64, u64, bool),
    Unmap(u64, u64),
    Protect(u64, u64, bool),
    DropContents(u64, u64),
    Populate(u64, u64),
    Write(u64, u64),
    Read(u64),
    Collapse(u64),
    Walk(u64, u64, bool),
    Fork,
    Exit,
    Lazy,
    Unload,
}

/// Each with the CPU and the mm that it concerns.
type Step = (usize, usize, Op);

/// Ranges are as often whole chunks as anything.
fn range() -> impl Strategy<Value = (u64, u64)> {
    prop_oneof![
        (0u64..3, 1u64..=3).prop_map(|(at, n)| (at * CHUNK, (at + n).min(3) * CHUNK)),
        (0..PAGES, 1u64..700).prop_map(|(at, n)| (at, (at + n).min(PAGES))),
        (0..PAGES, 1u64..6).prop_map(|(at, n)| (at, (at + n).min(PAGES))),
    ]
    .prop_map(|(start, end)| (BASE + start, BASE + end))
}

/// Pages at the edges of tables are as often chosen as all others.
fn page() -> impl Strategy<Value = u64> {
    let edges = prop::sample::select(vec![0, 1, 511, 512, 513, 1023, 1024, PAGES - 1]);
    prop_oneof![edges, 0..PAGES].prop_map(|page| BASE + page)
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => (range(), prop::bool::weighted(0.8)).prop_map(|((s, e), w)| Op::Map(s, e, w)),
        2 => range().prop_map(|(s, e)| Op::Unmap(s, e)),
        2 => (range(), any::<bool>()).prop_map(|((s, e), w)| Op::Protect(s, e, w)),
        3 => range().prop_map(|(s, e)| Op::DropContents(s, e)),
        3 => range().prop_map(|(s, e)| Op::Populate(s, e)),
        6 => (page(), 1..u64::MAX).prop_map(|(p, v)| Op::Write(p, v)),
        6 => page().prop_map(Op::Read),
        4 => (0u64..3).prop_map(|c| Op::Collapse(BASE + c * CHUNK)),
        3 => (page(), 1u64..600, any::<bool>()).prop_map(|(p, n, w)| Op::Walk(p, n, w)),
        1 => Just(Op::Fork),
        1 => Just(Op::Exit),
        2 => Just(Op::Lazy),
        1 => Just(Op::Unload),
    ]
}

fn va(page: u64) -> VirtAddr {
    VirtAddr(page << PAGE_SHIFT)
}

/// How the core says what the model says.
fn refusal(error: MapError) -> Refusal {
    match error {
        MapError::Overlaps(..) => Refusal::Overlaps,
        MapError::NotMapped(_) => Refusal::NotMapped,
        MapError::Forbidden(_) => Refusal::Forbidden,
        other => panic!("{other}"),
    }
}

fn perm(writable: bool) -> Perm {
    if writable { Perm::WRITE } else { Perm::empty() }
}

struct Pair<A: Arch> {
    mm: Arc<Mm<A>>,
    model: Space,
    /// It shares pages, or has shared some, with another: its collapse may be refused.
    forked: bool,
    /// By chunk, a collapse succeeded, and the chunk was not touched by anything that may split since.
    collapsed: [bool; 3],
}

struct Run<A: Arch> {
    world: World<A>,
    pairs: Vec<Pair<A>>,
}

impl<A: Arch> Run<A> {
    fn step(&mut self, (cpu, who, op): Step) {
        let world = &self.world;
        let area = world.cpu(cpu);
        let mms = self.pairs.len();
        let who = who % mms;
        let pair = &mut self.pairs[who];
        let mm = pair.mm.clone();
        let any_change = |pair: &mut Pair<A>| pair.collapsed = [false; 3];
        match op {
            Op::Map(start, end, w) => {
                let done = world.on(cpu, || mm.map(va(start)..va(end), perm(w), Backing::Anon)).map_err(refusal);
                assert_eq!(done, pair.model.map(start, end, w));
            }
            Op::Unmap(start, end) => {
                world.on(cpu, || munmap(area, &mm, va(start)..va(end))).expect("memory suffices");
                pair.model.unmap(start, end);
                any_change(pair);
            }
            Op::Protect(start, end, w) => {
                let done = world.on(cpu, || mprotect(area, &mm, va(start)..va(end), perm(w))).map_err(refusal);
                assert_eq!(done, pair.model.protect(start, end, w));
                any_change(pair);
            }
            Op::DropContents(start, end) => {
                let done = world.on(cpu, || dontneed(area, &mm, va(start)..va(end))).map_err(refusal);
                assert_eq!(done, pair.model.drop_contents(start, end));
                any_change(pair);
            }
            Op::Populate(start, end) => {
                let done = world.on(cpu, || fault::populate(area, &mm, va(start)..va(end))).map_err(refusal);
                let model = (start..end).try_for_each(|page| pair.model.read(page).map(|_| ()));
                assert_eq!(done, model);
            }
            Op::Write(page, value) => {
                world.on(cpu, || switch::load(area, &mm));
                let done = world.write(cpu, &mm, va(page).add(WORD), value).map_err(refusal);
                assert_eq!(done, pair.model.write(page, value), "write to page {page:#x}");
            }
            Op::Read(page) => {
                world.on(cpu, || switch::load(area, &mm));
                let done = world.read(cpu, &mm, va(page).add(WORD)).map_err(refusal);
                assert_eq!(done, pair.model.read(page), "read of page {page:#x}");
            }
            Op::Collapse(start) => self.collapse(cpu, who, start),
            Op::Walk(start, count, write) => self.walk(cpu, who, start, count, write),
            Op::Fork if mms < 3 => {
                let child = world.on(cpu, || fork::fork(area, &mm)).expect("memory suffices");
                any_change(pair);
                pair.forked = true;
                let model = pair.model.clone();
                self.pairs.push(Pair { mm: child, model, forked: true, collapsed: [false; 3] });
            }
            Op::Exit if mms > 1 => self.exit(cpu, who),
            Op::Fork | Op::Exit => {}
            Op::Lazy => switch::become_lazy(area),
            Op::Unload => world.on(cpu, || switch::unload(area)),
        }
    }

    fn collapse(&mut self, cpu: usize, who: usize, start: u64) {
        let pair = &mut self.pairs[who];
        let chunk = ((start - BASE) / CHUNK) as usize;
        let model = &pair.model;
        let ready = model.in_one_part(start, start + CHUNK) && model.all_touched(start, start + CHUNK);
        let done = self.world.on(cpu, || collapse_anon(self.world.cpu(cpu), &pair.mm, va(start)));
        match done {
            Ok(()) => {
                assert!(ready, "what was not all there was collapsed");
                pair.collapsed[chunk] = true;
            }
            Err(CollapseError::NotPopulated(_)) if pair.collapsed[chunk] => {}
            Err(CollapseError::Map(MapError::OutOfFrames(_))) => {}
            // Pages that were a 2 MiB page before, or are shared with another mm, are not collapsed.
            Err(CollapseError::InUse(_)) => {}
            Err(error) => assert!(!ready, "{error}"),
        }
    }

    /// What a walk returns must be there; it need not return anything.
    fn walk(&mut self, cpu: usize, who: usize, start: u64, count: u64, write: bool) {
        let (world, pair) = (&self.world, &self.pairs[who]);
        let area = world.cpu(cpu);
        let count = count.min(BASE + PAGES - start);
        let mut pages = vec![Pfn(0); count as usize];
        world.on(cpu, || {
            switch::load(area, &pair.mm);
            let walk = world.machine().policy.strategy().get_user_pages_fast;
            let found = walk(area, &pair.mm, va(start), write, &mut pages);
            for (i, pfn) in pages[..found].iter().enumerate() {
                let page = start + i as u64;
                // SAFETY: the walk took a reference, so the page is there; contents are read atomically.
                let word =
                    unsafe { &*A::direct_map(pfn.addr()).add(WORD as usize).cast::<std::sync::atomic::AtomicU64>() };
                let contents = word.load(std::sync::atomic::Ordering::Relaxed);
                assert_eq!(Some(contents), pair.model.contents(page), "page {page:#x} that a walk returned");
                assert!(!write || pair.model.is_writable(page), "page {page:#x} was returned for writing");
                page::put_walked(area, *pfn);
            }
        });
    }

    fn exit(&mut self, cpu: usize, who: usize) {
        let pair = self.pairs.remove(who);
        for other in 0..CPUS {
            let area = self.world.cpu(other);
            if area.loaded.mm() == pair.mm.id && !area.loaded.is_lazy() {
                self.world.on(other, || switch::unload(area));
            }
        }
        self.world.on(cpu, || exit::exit(self.world.cpu(cpu), pair.mm));
    }

    fn audit(&self) {
        Audit::of(self.pairs.iter().map(|p| &*p.mm)).references::<A>();
        assert_eq!(self.world.violations(), 0, "{:?}", self.world.machine().first_violation.take());
    }
}

fn run<A: Arch>(transport: TransportId, inject: u32, steps: &[Step]) {
    let world = World::<A>::new(CPUS, FRAMES);
    world.choose("sync-all", transport);
    world.machine().policy.injection.set(Odds::NONE.with(Fault::Batch, inject).with(Fault::Trylock, inject));
    for cpu in 0..CPUS {
        world.cpu(cpu).chance.seed(7, cpu as u64);
    }
    let free = world.machine().free_frames();
    let mm = world.on(0, || Mm::new(world.cpu(0), 0)).expect("memory suffices");
    let first = Pair { mm, model: Space::default(), forked: false, collapsed: [false; 3] };
    let mut run = Run { world, pairs: vec![first] };
    for step in steps {
        run.step(*step);
        run.audit();
    }
    for who in 0..run.pairs.len() {
        for page in run.pairs[who].model.mapped(BASE, BASE + PAGES) {
            run.step((who % CPUS, who, Op::Read(page)));
        }
    }
    run.audit();
    while !run.pairs.is_empty() {
        run.exit(0, 0);
    }
    run.world.settle();
    run.audit();
    assert_eq!(run.world.machine().free_frames(), free, "frames were not given back");
    assert_eq!(run.world.machine().tables.load(std::sync::atomic::Ordering::Relaxed), 0, "tables were not given back");
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 48,
        rng_seed: RngSeed::Fixed(1),
        failure_persistence: None,
        max_shrink_iters: 300,
        ..ProptestConfig::default()
    })]

    #[test]
    fn untagged_machines_agree_with_the_model(
        transport in prop::sample::select(TransportId::ALL.to_vec()),
        inject in prop::sample::select(vec![0u32, 1, 3]),
        steps in prop::collection::vec((0..CPUS, 0usize..3, op()), 1..60),
    ) {
        run::<Untagged>(transport, inject, &steps);
    }

    #[test]
    fn tagged_machines_agree_with_the_model(
        transport in prop::sample::select(TransportId::ALL.to_vec()),
        inject in prop::sample::select(vec![0u32, 1, 3]),
        steps in prop::collection::vec((0..CPUS, 0usize..3, op()), 1..60),
    ) {
        run::<Tagged>(transport, inject, &steps);
    }
}

/// The window is what the head of the file says.
#[test]
fn the_window_needs_two_pmd_tables() {
    assert!(va(BASE).is_aligned(Level::Pmd));
    assert_ne!(va(BASE).align_down(Level::Pud), va(BASE + PAGES).align_down(Level::Pud));
}
