//! Is a full barrier missing? `bench=barriers` on the kernel's command line: two CPUs that run freely, and nothing
//! between them but what the strategy has.
//!
//! A strategy that looks at what walks publish rests on a Dekker shape: the walker publishes, then reads an entry; the
//! updater clears the entry, then reads what is published. Each store may wait in a store buffer while the load behind
//! it is done, unless a full barrier is between. Then both miss each other: no sync, and a walk that holds the table.
//!
//! In the whole kernel this hardly ever shows: the entry is cleared by an exchange, and a flush lies between, each of
//! which is a barrier. So here is the shape alone: the clear is a plain store, nothing is flushed, and the strategy's
//! own [`Strategy::walk_begin`] and [`Strategy::look_barrier`] are all that stands between. (The rest of a `decide` is
//! longer than a store buffer.) Two things make the loads early and the stores late. Both CPUs have just read both
//! lines, so a load finds its line at hand, while a store must first take it from the other. And before its store each
//! CPU writes to some lines that the other one has just written: its store buffer is then full of what takes long.
//! Nothing that watches lies inside: what each saw is compared after both have met.
//!
//! One [`CellRow`] for each strategy: `ops` is how many tries were made, up to the first in which both missed each
//! other; `violations_value` is 1 if there was one.

use core::sync::atomic::{AtomicU64, Ordering};

use super::OpError;
use super::cell::CellError;
use super::walker::WalkerClass;
use crate::addr::{Level, VirtAddr};
use crate::arch::Arch;
use crate::ledger::Cause;
use crate::mm::address_space::Mm;
use crate::mm::exit;
use crate::mm::table::{self, Table};
use crate::record::cell::{CellRow, Verdict};
use crate::record::shared::Doing;
use crate::smp::call::call_many;
use crate::smp::cpu::Cpu;
use crate::smp::mask::CpuMask;
use crate::smp::wait::Wait;
use crate::suite::{Mode, Suite};
use crate::sync::{self, Setting, Strategy, WalkSlot};

/// Lines that fill a store buffer: most have some fifty entries.
const LINES: usize = 48;
/// Looks at the other's arrival between two that let the host run somebody else.
const LOOKS: u32 = 4096;
/// What the entry says while it is there.
const THERE: u64 = 0x1000;
/// Meetings in a try: before both read both lines, before both go, after both have looked.
const MEETINGS: u64 = 3;
/// Tries after which the runner sees that it goes on.
const STEP: u64 = 1024;

/// One cache line.
#[repr(align(128))]
#[derive(Default)]
struct Line(AtomicU64);

/// What the two CPUs share. Lives on the first one's stack.
struct Board<'a, A: Arch> {
    strategy: &'static sync::Entry<A>,
    mm: &'a Mm<A>,
    table: Table<A>,
    tries: u64,
    /// How often either has come to a meeting: [`MEETINGS`] times in each try.
    arrived: Line,
    /// What the walker read in the entry.
    seen: Line,
    /// The try in which they missed each other; no try is made after it.
    last: Line,
    updater: [Line; LINES],
    walker: [Line; LINES],
}

/// A walk under way.
struct InWalk {
    /// What its end must be given.
    outer: u64,
    /// What it read in the entry.
    read: u64,
}

/// The two sides, compiled for one strategy.
pub struct Halves<A: Arch> {
    /// Publishes a walk and reads the entry.
    publish_and_read: fn(&Cpu<A>, &Mm<A>, &AtomicU64) -> InWalk,
    /// The walk is over.
    end: fn(&Cpu<A>, u64),
    /// Clears the entry and looks at what is published; nothing of the kind in a strategy that does not look.
    clear_and_look: fn(&AtomicU64, &WalkSlot) -> u64,
}

impl<A: Arch> Halves<A> {
    /// Those of `S`.
    pub(crate) const fn of<S: Strategy>() -> Halves<A> {
        Halves {
            publish_and_read: |cpu, mm, entry| {
                let outer = S::walk_begin(cpu, mm);
                InWalk { outer, read: A::load_entry(entry) }
            },
            end: S::walk_end::<A>,
            clear_and_look: |entry, slot| {
                entry.store(0, Ordering::Relaxed);
                if let Some(barrier) = S::look_barrier() {
                    barrier.here::<A>();
                }
                // Acquire, as in every look.
                slot.0.load(Ordering::Acquire)
            },
        }
    }
}

impl<A: Arch> Board<'_, A> {
    /// Waits until both have come to meeting `which`, of [`MEETINGS`], in try `number`, from 1.
    fn meet(&self, cpu: &'static Cpu<A>, number: u64, which: u64) {
        let meeting = (number - 1) * MEETINGS + which;
        // AcqRel, and acquire below: what either did before the meeting is visible to the other after it.
        self.arrived.0.fetch_add(1, Ordering::AcqRel);
        let mut wait = Wait::new(cpu, Doing::WaitWorkload);
        let mut looks = 0;
        while self.arrived.0.load(Ordering::Acquire) < 2 * meeting {
            looks += 1;
            if looks == LOOKS {
                looks = 0;
                wait.again(|| None);
            }
        }
        wait.done();
    }

    /// Where the two CPUs are apart by some instructions, other ones each time.
    fn stagger(cpu: &Cpu<A>) {
        for _ in 0..cpu.chance.next() % 32 {
            core::hint::black_box(());
        }
    }

    /// Has both lines that matter at hand, as the other CPU has then: a load finds its line, and a store waits for it.
    fn read_both(entry: &AtomicU64, slot: &WalkSlot) {
        core::hint::black_box((entry.load(Ordering::Relaxed), slot.0.load(Ordering::Relaxed)));
    }

    /// Takes all lines over from the other CPU.
    fn take(lines: &[Line; LINES], value: u64) {
        lines.iter().for_each(|line| line.0.store(value, Ordering::Relaxed));
    }

    /// Writes to some of the lines that the other CPU has taken over, or to all: as many other ones each time, since
    /// the store buffers of both must be full for times that fit.
    fn fill(cpu: &Cpu<A>, lines: &[Line; LINES], value: u64) {
        let count = cpu.chance.next() as usize % (LINES + 1);
        lines[..count].iter().for_each(|line| line.0.store(value, Ordering::Relaxed));
    }
}

/// Tries all strategies of `suite`, leaving each row where the runner finds it. The machine has two CPUs.
pub fn run_all<A: Arch>(
    cpu: &'static Cpu<A>,
    suite: &Suite,
    mut done: impl FnMut(usize, CellRow),
) -> Result<(), CellError> {
    let set_up = |error| CellError::SetUp(OpError::Map(error));
    let mm = Mm::new(cpu, 0).map_err(set_up)?;
    let table = table::alloc(cpu, mm.id, Level::Pte, VirtAddr(0)).map_err(|e| set_up(e.into()))?;
    // Not by interrupt: the property of the strategy that was posted would be true there, and nothing be tried.
    let setting = Setting {
        transport: crate::tlb::transport::TransportId::Broadcast,
        hook: false,
        chain: false,
        batch: false,
        walker: WalkerClass::Gup,
    };
    for (index, number) in suite.strategies.iter().enumerate() {
        let strategy = &sync::all::<A>()[*number];
        A::machine().policy.set(strategy, setting);
        let board = Board {
            strategy,
            mm: &mm,
            table,
            tries: suite.ops,
            arrived: Line::default(),
            seen: Line::default(),
            last: Line(AtomicU64::new(u64::MAX)),
            updater: core::array::from_fn(|_| Line::default()),
            walker: core::array::from_fn(|_| Line::default()),
        };
        let (tries, missed) = update(cpu, &board);
        done(
            index,
            CellRow {
                strategy: *number as u16,
                transport: setting.transport as u16,
                mode: Mode::Idle as u16,
                expected: Verdict::Safe as u8,
                verdict: if missed { Verdict::Unsafe } else { Verdict::Safe } as u8,
                cpus: A::machine().online_mask().count(),
                ops: tries,
                violations_value: missed.into(),
                ..CellRow::default()
            },
        );
    }
    table::free(cpu, table.pfn());
    exit::exit(cpu, mm);
    Ok(())
}

/// The updater: until both have missed each other once, or for all tries. How many there were, and whether they did.
fn update<A: Arch>(cpu: &'static Cpu<A>, board: &Board<'_, A>) -> (u64, bool) {
    let mut others = *A::machine().online_mask();
    others.remove(cpu.id);
    let Some(walker) = others.iter().next() else { return (0, false) };
    let walker = A::machine().cpu(walker);
    walker.give_job(walk::<A>, board as *const Board<'_, A> as usize);
    call_many(cpu, &CpuMask::only(walker.id), Cause::Wake, |_, _| {}, 0);
    let entry = board.table.slot(0);
    let (mut number, mut missed) = (0, false);
    while !missed && number < board.tries {
        number += 1;
        entry.store(THERE, Ordering::Relaxed);
        Board::<A>::take(&board.walker, number);
        board.meet(cpu, number, 1);
        Board::<A>::read_both(entry, &walker.walk_slot);
        board.meet(cpu, number, 2);
        Board::<A>::stagger(cpu);
        Board::<A>::fill(cpu, &board.updater, number);
        let nobody = (board.strategy.halves.clear_and_look)(entry, &walker.walk_slot) == 0;
        board.meet(cpu, number, 3);
        missed = nobody && board.seen.0.load(Ordering::Relaxed) == THERE;
        if missed && number < board.tries {
            // The walker comes to one more meeting, after which it learns that it is over.
            board.last.0.store(number, Ordering::Relaxed);
            board.meet(cpu, number + 1, 1);
        }
        if number.is_multiple_of(STEP) {
            A::machine().shared().progress.fetch_add(1, Ordering::Relaxed);
        }
    }
    let mut wait = Wait::new(cpu, Doing::WaitWorkload);
    while walker.has_job() {
        wait.again(|| Some(walker.id));
    }
    wait.done();
    (number, missed)
}

/// The walker.
fn walk<A: Arch>(cpu: &'static Cpu<A>, argument: usize) {
    // SAFETY: the first CPU keeps the board until it has seen this job end.
    let board = unsafe { &*(argument as *const Board<'_, A>) };
    let entry = board.table.slot(0);
    let mut number = 0;
    loop {
        number += 1;
        Board::<A>::take(&board.updater, number);
        board.meet(cpu, number, 1);
        if board.last.0.load(Ordering::Relaxed) < number {
            return;
        }
        Board::<A>::read_both(entry, &cpu.walk_slot);
        board.meet(cpu, number, 2);
        Board::<A>::stagger(cpu);
        Board::<A>::fill(cpu, &board.walker, number);
        let walk = (board.strategy.halves.publish_and_read)(cpu, board.mm, entry);
        board.seen.0.store(walk.read, Ordering::Relaxed);
        // Under way until the updater has looked.
        board.meet(cpu, number, 3);
        (board.strategy.halves.end)(cpu, walk.outer);
        if number == board.tries {
            return;
        }
    }
}
