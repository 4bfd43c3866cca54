//! What is noted at the moment of a flush and of a decision, for closed forms of schedules that nobody can foresee:
//! [`crate::workload::predict::recorded`].
//!
//! Notes are made before anything is sent, from the masks and from what CPUs have loaded, and never from what was
//! counted. Only checking builds make them.

use super::Counter;
use crate::arch::Arch;
use crate::mm::address_space::Mm;
use crate::mm::table::Table;
use crate::oracle::ghost;
use crate::smp::cpu::Cpu;
use crate::smp::mask::CpuMask;
use crate::sync::coverage::can_hold;
use crate::sync::{Ask, Decision, MachineView, Predicted, Round};
use crate::tlb::invalidation::Invalidation;
use crate::workload::predict::invalidations::{self, Hardware};

/// How one flush travels.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(usize)]
pub enum Way {
    /// By interrupts.
    Interrupts = 0,
    /// By interrupts and then by broadcast: an mm is promoted.
    Both = 1,
    /// By broadcast.
    Broadcast = 2,
}

macro_rules! notes {
    ($($(#[$doc:meta])* $field:ident $([$n:literal])?),* $(,)?) => {
        /// One CPU's notes.
        #[derive(Default)]
        pub struct Recorded { $($field: notes!(@counter $($n)?),)* }

        /// Notes at one moment, or between two.
        #[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
        pub struct Notes { $($(#[$doc])* pub $field: notes!(@number $($n)?),)* }

        impl Recorded {
            /// What was noted so far.
            pub fn notes(&self) -> Notes {
                Notes { $($field: notes!(@get self.$field, $($n)?),)* }
            }
        }

        impl Notes {
            /// What was noted since `before`.
            pub fn since(&self, before: &Notes) -> Notes {
                Notes { $($field: notes!(@both self.$field, before.$field, -, $($n)?),)* }
            }
            /// Both together.
            pub fn plus(&self, other: &Notes) -> Notes {
                Notes { $($field: notes!(@both self.$field, other.$field, +, $($n)?),)* }
            }
        }
    };
    (@counter) => { Counter };
    (@counter $n:literal) => { [Counter; $n] };
    (@number) => { u64 };
    (@number $n:literal) => { [u64; $n] };
    (@get $field:expr,) => { $field.get() };
    (@get $field:expr, $n:literal) => { core::array::from_fn(|i| $field[i].get()) };
    (@both $a:expr, $b:expr, $op:tt,) => { $a $op $b };
    (@both $a:expr, $b:expr, $op:tt, $n:literal) => { core::array::from_fn(|i| $a[i] $op $b[i]) };
}

notes! {
    /// Flushes, by their [`Way`].
    flushes[3],
    /// Of these, flushes of an mm whose mask has the CPU itself in it.
    here[3],
    /// Other CPUs that they concern, summed.
    others[3],
    /// Of these, CPUs that were frozen and owe the flush.
    owed,
    /// What the flushes cost one CPU, in invalidations by their form (`invalidations::of`), summed; by their [`Way`].
    cost[3],
    /// The same, of flushes of an mm whose mask has the CPU itself in it.
    cost_here[3],
    /// The same, times the other CPUs to which it goes by NMI, where that plays a broadcast.
    cost_by_nmi,
    /// The same, times the CPUs that a flush was decided to interrupt, or to leave to their resumption (`told`).
    cost_told,
    /// The same, of flushes that frozen CPUs owe.
    cost_owed,
    /// Frozen CPUs that came to owe a flush, however many more they owed until they resumed: each then invalidates
    /// once.
    indebted,
    /// The cost of flushes that a CPU need not make as they are: it has caught up with them, or has more to make good,
    /// or does not have the mm loaded.
    cost_left_out,
    /// Invalidations of one instruction that a CPU decides on for itself: of all that it has of an mm, where it has
    /// more than a range to make good; of one leaf that now allows more; of a tag that is taken away.
    alone,
    /// CPUs that flushes were decided to interrupt, or to leave to their resumption: of those in the mask, the ones
    /// that may use what is flushed.
    told,
    /// CPUs that decisions interrupt.
    decided,
    /// Decisions that leave the sync out.
    left_out,
    /// CPUs that decisions interrupt, by the strategy's form for a round; by the decision itself where the form leaves
    /// it to the schedule.
    targets,
    /// Decisions that leave the sync out, in the same way.
    elided,
    /// Rounds in which readers of two-word entries are waited for ([`crate::mm::two_word`]).
    waits_for_readers,
    /// CPUs in a walk that held the table when the strategy had decided, and that it interrupted none of.
    uncovered,
}

impl Recorded {
    /// A flush of `what` goes to `count` other CPUs.
    #[inline]
    pub(crate) fn told<A: Arch>(&self, count: u32, what: &Invalidation) {
        if cfg!(feature = "checking") {
            self.told.add(count.into());
            self.cost_told.add(u64::from(count) * invalidations::of(&Hardware::of::<A>(), what));
        }
    }

    /// A flush of `what` goes to `count` other CPUs by NMI.
    #[inline]
    pub(crate) fn by_nmi<A: Arch>(&self, count: u32, what: &Invalidation) {
        if cfg!(feature = "checking") {
            self.cost_by_nmi.add(u64::from(count) * invalidations::of(&Hardware::of::<A>(), what));
        }
    }

    /// `count` frozen CPUs owe a flush of `what`; `newly` of them owed nothing before.
    #[inline]
    pub(crate) fn owed<A: Arch>(&self, count: u32, newly: u32, what: &Invalidation) {
        if cfg!(feature = "checking") {
            self.owed.add(count.into());
            self.indebted.add(newly.into());
            self.cost_owed.add(u64::from(count) * invalidations::of(&Hardware::of::<A>(), what));
        }
    }

    /// A flush of `what` is not made on this CPU as it is.
    #[inline]
    pub(crate) fn not_made<A: Arch>(&self, what: &Invalidation) {
        if cfg!(feature = "checking") {
            self.cost_left_out.add(invalidations::of(&Hardware::of::<A>(), what));
        }
    }

    /// Readers of two-word entries are about to be waited for.
    #[inline]
    pub(crate) fn waits_for_readers(&self) {
        if cfg!(feature = "checking") {
            self.waits_for_readers.add(1);
        }
    }

    /// This CPU is about to invalidate by one instruction what no flush asks it to.
    #[inline]
    pub(crate) fn alone(&self) {
        if cfg!(feature = "checking") {
            self.alone.add(1);
        }
    }
}

/// The strategy of the run has come to `decision` on `ask`, for `table`, which the mms in `unlinkers` have unlinked.
pub(crate) fn decision<A: Arch>(
    cpu: &'static Cpu<A>,
    table: Table<A>,
    ask: &Ask<'_>,
    decision: &Decision,
    unlinkers: &[u32],
) {
    if !cfg!(feature = "checking") {
        return;
    }
    let policy = &A::machine().policy;
    let setting = policy.setting();
    let without_me = |mask: &CpuMask| {
        let mut others = *mask;
        others.remove(cpu.id);
        u64::from(others.count())
    };
    let round = Round {
        setting,
        others: without_me(A::machine().online_mask()),
        in_mask: without_me(&ask.party.mask),
        in_use: without_me(&can_hold(&MachineView { cpu }, ask.party.mm, &ask.party.mask)),
        interrupted: ask.party.coverage.interrupts().into(),
        left_behind: without_me(ask.left_behind),
    };
    let decided = match decision {
        Decision::Elide(_) | Decision::Fresh => Predicted::Elided,
        Decision::Interrupt(targets) => Predicted::Interrupts(without_me(targets)),
        Decision::Grace => Predicted::Waits,
    };
    // Of walks that no mask knows the forms say nothing.
    let form = (policy.strategy().predicts)(&round).filter(|_| setting.walker.walks_loaded_mm_only());
    let recorded = &cpu.ledger.recorded;
    match decided {
        Predicted::Interrupts(count) => recorded.decided.add(count),
        Predicted::Elided => recorded.left_out.add(1),
        Predicted::Waits | Predicted::SomeUsers => {}
    }
    match form.filter(|form| *form != Predicted::SomeUsers).unwrap_or(decided) {
        Predicted::Interrupts(count) => recorded.targets.add(count),
        Predicted::Elided => recorded.elided.add(1),
        Predicted::Waits | Predicted::SomeUsers => {}
    }
    let waited_for = match decision {
        Decision::Elide(_) => CpuMask::EMPTY,
        Decision::Interrupt(targets) => *targets,
        // Whoever holds the table is waited for, or may go on.
        Decision::Grace | Decision::Fresh => return,
    };
    if policy.strategy().self_map {
        return;
    }
    // A walk of before can only have left the table since: the entry is cleared.
    let holds = |other: &&Cpu<A>| ghost::holds(other, table.pfn(), |mm| unlinkers.contains(&mm));
    let uncovered = A::machine()
        .online()
        .filter(|other| other.id != cpu.id && !waited_for.contains(other.id))
        .filter(holds)
        .count();
    recorded.uncovered.add(uncovered as u64);
}

/// A flush of `what` of `mm` by this CPU begins.
#[inline]
pub(crate) fn flush<A: Arch>(cpu: &Cpu<A>, mm: &Mm<A>, what: &Invalidation, way: Way) {
    if cfg!(feature = "checking") {
        let mask = mm.mask.load(core::sync::atomic::Ordering::Relaxed);
        let here = u64::from(mask.contains(cpu.id));
        let others = u64::from(mask.count()) - here;
        let cost = invalidations::of(&Hardware::of::<A>(), what);
        let (recorded, way) = (&cpu.ledger.recorded, way as usize);
        recorded.flushes[way].add(1);
        recorded.here[way].add(here);
        recorded.others[way].add(others);
        recorded.cost[way].add(cost);
        recorded.cost_here[way].add(here * cost);
    }
}
