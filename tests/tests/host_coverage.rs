//! What a flush claims is what happened: every CPU in its coverage acknowledged at interrupt level while the flush was
//! under way, no other one did, and a CPU that had interrupts masked all the while, as in a walk, is not among them.
//! All transports, on machines with and without tags, with a broadcast instruction and with NMIs.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::{Mutex, PoisonError};

use kernel::addr::{CpuId, Level, PAGE_SIZE, PMD_SIZE, VirtAddr};
use kernel::arch::Arch;
use kernel::guard::{self, Guard};
use kernel::mm::address_space::{Backing, Mm};
use kernel::mm::entry::Perm;
use kernel::mm::self_map::Recursive;
use kernel::smp::mask::CpuMask;
use kernel::tlb::coverage::Coverage;
use kernel::tlb::invalidation::Invalidation;
use kernel::tlb::switch;
use kernel::tlb::transport::{self, TransportId};
use tests::host::{Host, Tagged, Untagged, World};

const AT: VirtAddr = VirtAddr(0x4000_0000);
const CPUS: usize = 8;

// Who is what. The initiator is CPU 0.
const USES_IT: usize = 1;
/// Uses the mm too, and has interrupts masked until somebody waits for it.
const WALKS: usize = 2;
const LAZY: usize = 3;
/// Uses the mm and, on `paravirt`, has been frozen by the hypervisor in the middle of a walk.
const FROZEN: usize = 4;
/// Had the mm, and now has another one.
const LEFT_IT: usize = 5;
/// The last CPU has none.
const USES_ANOTHER: usize = 6;

/// Tags and no broadcast; a broadcast and no tags: what the two architectures leave out.
type TaggedByInterrupt = Host<64, false>;
type UntaggedBroadcast = Host<1, true>;

/// Guards are taken away for the whole process.
static ALONE: Mutex<()> = Mutex::new(());

fn alone() -> impl Drop {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What one flush said, and what was seen.
struct Seen {
    coverage: Coverage,
    /// CPUs that ran a call's handler meanwhile.
    acknowledged: CpuMask,
    /// CPUs that took an NMI meanwhile.
    by_nmi: CpuMask,
    /// The walk was waited for.
    walk_is_over: bool,
}

struct Stage<A: Arch> {
    world: World<A>,
    mm: Arc<Mm<A>>,
    _another: Arc<Mm<A>>,
    transport: TransportId,
}

impl<A: Arch> Stage<A> {
    fn new(transport: TransportId) -> Stage<A> {
        let world = World::<A>::new(CPUS, 4096);
        world.choose("coverage", transport);
        let make = || world.on(0, || Mm::<A>::new(world.cpu(0), 0)).expect("memory suffices");
        let (mm, another) = (make(), make());
        mm.map(AT..AT.add(PMD_SIZE), Perm::WRITE, Backing::Anon).expect("nothing is there");
        let stage = Stage { world, mm, _another: another.clone(), transport };
        for cpu in [0, USES_IT, WALKS, LAZY, FROZEN, LEFT_IT] {
            stage.load(cpu, &stage.mm);
        }
        for cpu in [LEFT_IT, USES_ANOTHER] {
            stage.load(cpu, &another);
        }
        stage
    }

    fn load(&self, cpu: usize, mm: &Mm<A>) {
        self.world.on(cpu, || switch::load(self.world.cpu(cpu), mm));
    }

    /// Flushes from CPU 0, of tables or of one page, and watches all others.
    fn flush(&self, tables: bool) -> Seen {
        let world = &self.world;
        self.load(LAZY, &self.mm);
        switch::become_lazy(world.cpu(LAZY));
        let frozen = self.transport == TransportId::Paravirt;
        if frozen {
            world.cpu(FROZEN).vcpu.freeze();
        }
        for cpu in [WALKS, FROZEN] {
            world.on(cpu, A::irq_save);
        }
        // Whoever is waited for ends its walk; a frozen CPU does not run.
        let over = Rc::new(Cell::new(false));
        let end_of_walk = over.clone();
        world.while_waiting(move || {
            end_of_walk.set(true);
            tests::host::run_on(WALKS, || A::irq_restore(true));
            if !frozen {
                tests::host::run_on(FROZEN, || A::irq_restore(true));
            }
        });
        let counts = |cpu: usize| {
            let area = world.cpu(cpu);
            (area.inbox.acknowledged.load(std::sync::atomic::Ordering::Relaxed), area.ledger.taken().nmi)
        };
        let before: Vec<_> = (0..CPUS).map(counts).collect();
        let (end, recursive) = (AT.add(if tables { PMD_SIZE } else { PAGE_SIZE }), Recursive::Unused);
        let stride = Level::Pte;
        let what = Invalidation { start: AT, end, stride, tables, all: false, recursive };
        let coverage = world.on(0, || transport::flush(world.cpu(0), &self.mm, what));
        let after: Vec<_> = (0..CPUS).map(counts).collect();
        let moved = |of: fn(&(u64, u64)) -> u64| -> CpuMask {
            (0..CPUS).filter(|i| of(&after[*i]) > of(&before[*i])).map(|i| CpuId(i as u16)).collect()
        };
        let walk_is_over = over.get();
        let seen = Seen { coverage, acknowledged: moved(|c| c.0), by_nmi: moved(|c| c.1), walk_is_over };
        // As it was, for the next one.
        world.on(0, A::relax);
        if frozen {
            let owes = world.cpu(FROZEN).vcpu.resume();
            assert!(owes || seen.coverage.acknowledged().contains(CpuId(FROZEN as u16)), "nobody flushed for it");
            world.on(FROZEN, || A::irq_restore(true));
        }
        seen
    }
}

/// CPUs by number.
fn mask(of: &[usize]) -> CpuMask {
    of.iter().map(|i| CpuId(*i as u16)).collect()
}

/// Whether what the flush claims is what happened.
fn is_true(seen: &Seen) -> bool {
    let mut claimed = *seen.coverage.acknowledged();
    claimed.remove(CpuId(0));
    let walker = CpuId(WALKS as u16);
    claimed == seen.acknowledged
        && seen.coverage.interrupts() == seen.acknowledged.count()
        && (!claimed.contains(walker) || seen.walk_is_over)
        && seen.coverage.acknowledged().contains(CpuId(0))
}

#[track_caller]
fn claims(seen: &Seen, acknowledged: &[usize], what: &str) {
    assert!(is_true(seen), "{what}: claimed {:?}, seen {:?}", seen.coverage, seen.acknowledged);
    assert_eq!(seen.acknowledged, mask(acknowledged), "{what}");
    assert_eq!(seen.walk_is_over, acknowledged.contains(&WALKS), "{what}");
}

/// Who a flush by interrupt reaches. A flush of tables: all of the mask. A flush of pages: not the lazy CPU, nor, where
/// translations are not tagged, one that has another mm now.
fn by_interrupt<A: Arch>(tables: bool, frozen: bool) -> Vec<usize> {
    let mut reached = vec![USES_IT, WALKS];
    if !frozen {
        reached.push(FROZEN);
    }
    if tables {
        reached.push(LAZY);
    }
    if A::tagged() {
        reached.push(LEFT_IT);
    }
    reached
}

fn each_transport_says_the_truth<A: Arch>() {
    let _alone = alone();
    let by_nmi = !A::has_broadcast_invalidation();
    for tables in [false, true] {
        let what =
            |transport: TransportId| format!("{} of {}", transport.name(), if tables { "tables" } else { "pages" });
        let flush = |transport| Stage::<A>::new(transport).flush(tables);
        let seen = flush(TransportId::Ipi);
        claims(&seen, &by_interrupt::<A>(tables, false), &what(TransportId::Ipi));
        assert_eq!(seen.by_nmi, CpuMask::EMPTY);

        let seen = flush(TransportId::Paravirt);
        claims(&seen, &by_interrupt::<A>(tables, true), &what(TransportId::Paravirt));

        // Every TLB was reached, by NMI too, and nobody acknowledged anything: the CPU in its walk is in it still.
        let seen = flush(TransportId::Broadcast);
        claims(&seen, &[], &what(TransportId::Broadcast));
        assert_eq!(!seen.by_nmi.is_empty(), by_nmi);
        assert_eq!(seen.by_nmi.contains(CpuId(WALKS as u16)), by_nmi);

        // The mm is on many CPUs: first by interrupt, then both, then by broadcast alone.
        let stage = Stage::<A>::new(TransportId::Mixed);
        let first = stage.flush(tables);
        claims(&first, &by_interrupt::<A>(tables, false), "mixed, at first");
        assert_eq!(first.by_nmi, CpuMask::EMPTY);
        let second = stage.flush(tables);
        assert!(is_true(&second) && second.walk_is_over, "mixed, in transition: {:?}", second.coverage);
        assert_eq!(!second.by_nmi.is_empty(), by_nmi);
        let third = stage.flush(tables);
        claims(&third, &[], "mixed, promoted");
    }
}

#[test]
fn where_translations_are_not_tagged_and_nothing_broadcasts() {
    each_transport_says_the_truth::<Untagged>();
}

#[test]
fn where_translations_are_tagged_and_there_is_a_broadcast() {
    each_transport_says_the_truth::<Tagged>();
}

#[test]
fn where_translations_are_tagged_and_nothing_broadcasts() {
    each_transport_says_the_truth::<TaggedByInterrupt>();
}

#[test]
fn where_translations_are_not_tagged_and_there_is_a_broadcast() {
    each_transport_says_the_truth::<UntaggedBroadcast>();
}

/// An mm that has run on one CPU, flushed there: nobody is told, by whatever transport.
#[test]
fn a_local_flush_reaches_nobody() {
    fn of<A: Arch>() {
        let _alone = alone();
        for transport in TransportId::ALL {
            let stage = Stage::<A>::new(transport);
            let world = &stage.world;
            let alone = world.on(0, || Mm::<A>::new(world.cpu(0), 0)).expect("memory suffices");
            let here = Stage { mm: alone, ..stage };
            here.load(0, &here.mm);
            let taken = |cpu: usize| here.world.cpu(cpu).ledger.taken();
            let before: Vec<_> = (1..CPUS).map(taken).collect();
            let what = Invalidation { start: AT, end: AT.add(PMD_SIZE), ..Invalidation::ALL };
            let coverage = here.world.on(0, || transport::flush(here.world.cpu(0), &here.mm, what));
            assert_eq!((coverage.acknowledged(), coverage.interrupts()), (&mask(&[0]), 0), "{}", transport.name());
            assert_eq!((1..CPUS).map(taken).collect::<Vec<_>>(), before, "{}", transport.name());
        }
    }
    of::<Untagged>();
    of::<Tagged>();
}

/// The check can fail: a flush that claims its targets and interrupts none of them is found out, wherever flushes
/// interrupt.
#[test]
fn a_flush_that_claims_too_much_is_found_out() {
    let _alone = alone();
    for transport in [TransportId::Ipi, TransportId::Paravirt, TransportId::Mixed] {
        guard::remove(1 << Guard::FlushIpi as u64);
        let seen = Stage::<Untagged>::new(transport).flush(true);
        guard::remove(0);
        assert!(!is_true(&seen), "{}: {:?}", transport.name(), seen.coverage);
    }
}
