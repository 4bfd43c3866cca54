//! The strategies: which sync follows a flush.
//!
//! A table that was unlinked and flushed may be used again only when no walk holds a pointer to it. A strategy is the
//! rule that decides what that takes: nothing, an interrupt to some CPUs, a grace period, another table. It consists of
//! two parts:
//!
//! - [`Strategy::walk_begin`] and [`Strategy::walk_end`], what a walk does so that it can be seen. They are compiled
//!   into the walk: a walk pays for its own strategy and no other.
//! - [`Strategy::decide`], a pure function from what can be read of the machine ([`View`]) and what the flush covered
//!   ([`Ask`]) to a [`Decision`]. It sends nothing itself; [`crate::mm::state`] carries the decision out. That the same
//!   function can be asked by a model is the point.
//!
//! A new strategy is one file with one type. In `strategies/`, at the top of the repository, the file is all that it
//! takes: the build finds it. One that is to stay is a module here, and a line in `list.rs`.

pub mod acked_generation;
pub mod coverage;
pub mod fresh_table;
pub mod gather_flag;
mod list;
pub mod mask_targeted;
pub mod none;
pub mod rcu;
pub mod self_map;
pub mod static_hook;
pub mod sync_all;
pub mod targeted;
pub mod targeted_v4;
pub mod targeted_xchg;

pub use list::{Entry, NAMES, OWN, all};

use crate::addr::CpuId;
use crate::arch::Arch;
use crate::atomic::{AtomicU64, Ordering, fence};
use crate::ledger::Elision;
use crate::mm::address_space::Mm;
use crate::record::cell::Verdict;
use crate::smp::cpu::Cpu;
use crate::smp::mask::CpuMask;
use crate::tlb::coverage::Coverage;
use crate::tlb::transport::TransportId;
use crate::workload::walker::WalkerClass;

/// What a strategy publishes of a CPU's walks; what it means is the strategy's own business.
#[derive(Default)]
#[repr(align(64))]
pub struct WalkSlot(pub AtomicU64);

/// What a CPU's MMU translates by, as others can see it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LoadedMm {
    /// No mm.
    None,
    /// This mm.
    Mm(u32),
    /// This mm, but the CPU is idle: its hardware may walk, no software of it does.
    Lazy(u32),
    /// Changing: it may be any.
    Unknown,
}

/// What a strategy may read of the machine while it decides.
pub trait View {
    /// The CPU that asks.
    fn initiator(&self) -> CpuId;
    /// All online CPUs.
    fn online(&self) -> CpuMask;
    /// What `cpu` has loaded.
    fn loaded(&self, cpu: CpuId) -> LoadedMm;
    /// What `cpu` has published in its [`WalkSlot`].
    fn slot(&self, cpu: CpuId) -> u64;
    /// The value of the static hook: whether, as was found at boot, flushes of tables interrupt.
    fn hook(&self) -> bool;
    /// How flushes travel in this run. For designs that fix a property at boot.
    fn transport(&self) -> TransportId;
    /// The newest unlink generation that `cpu` has acknowledged, by taking any interrupt since.
    fn acknowledged_generation(&self, cpu: CpuId) -> u64;
    /// A full barrier.
    fn fence(&self);
    /// A barrier between loads only.
    fn read_fence(&self);
}

/// The CPUs for which `yes` holds.
pub(crate) fn cpus_where(of: &CpuMask, yes: impl Fn(CpuId) -> bool) -> CpuMask {
    of.iter().filter(|cpu| yes(*cpu)).collect()
}

/// One mm that unlinked the table, and what is known of its CPUs.
#[derive(Clone, Copy, Debug)]
pub struct Party {
    /// The mm.
    pub mm: u32,
    /// Its mask after the flush: every CPU that has it loaded is in it.
    pub mask: CpuMask,
    /// What its own flush covered.
    pub coverage: Coverage,
}

/// What a strategy is asked: may this table be used again, and if not yet, what does it take?
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    /// The mm whose flush has just completed.
    pub party: Party,
    /// CPUs that could walk the table for mms that unlinked it earlier and were not acknowledged then. Empty unless the
    /// table was shared.
    pub left_behind: &'a CpuMask,
    /// Whether any other mm has left the table since it was last private.
    pub left_before: bool,
    /// The machine's unlink generation just after the unlink.
    pub generation: u64,
    /// Whether any flush of the gather that the operation uses has interrupted another CPU, since the gather was
    /// opened.
    pub gather_interrupted: bool,
}

/// What is to be done before a table is used again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Decision {
    /// Nothing.
    Elide(Elision),
    /// Interrupt these CPUs (the initiator is left out) and wait for them.
    Interrupt(CpuMask),
    /// Wait for a grace period.
    Grace,
    /// Do not use it again: take another table, and retire this one.
    Fresh,
}

/// Where a strategy is to run, for what it promises and refuses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Setting {
    /// How flushes travel.
    pub transport: TransportId,
    /// The static hook.
    pub hook: bool,
    /// The table was left by another mm, whose CPUs walk it, before the one that asks. Either may be loaded anywhere.
    pub chain: bool,
    /// The gather of the operation has flushed before, with the mm on other CPUs than now. No workload of the kernel
    /// does that; the model's do.
    pub batch: bool,
    /// Who walks.
    pub walker: WalkerClass,
}

impl Setting {
    /// Whether the strategy is asked about a table that walks of an mm may still hold that left it earlier. Where
    /// entries are read as two words each mm that leaves waits for all walks ([`crate::mm::two_word`]).
    pub const fn has_earlier_walks(&self) -> bool {
        self.chain && !matches!(self.walker, WalkerClass::TwoWord)
    }
}

/// One round of sync as a closed form sees it: how many CPUs there are of each kind when the strategy is asked, in a
/// mode whose walkers are where the mode says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Round {
    /// Where.
    pub setting: Setting,
    /// Online CPUs but the initiator: N - 1.
    pub others: u64,
    /// Of these, the ones in the mm's mask after the flush: |M \ {s}|.
    pub in_mask: u64,
    /// Of these, the ones that use the mm: not lazy.
    pub in_use: u64,
    /// CPUs that the flush interrupted; all of them acknowledged.
    pub interrupted: u64,
    /// CPUs that use an mm which left the table earlier, and that its flush did not interrupt.
    pub left_behind: u64,
}

/// What a strategy does in one round of sync.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Predicted {
    /// It interrupts so many CPUs.
    Interrupts(u64),
    /// It leaves the sync out.
    Elided,
    /// It interrupts some of the CPUs that use the mm, or an mm that left the table before: which of them, depends on
    /// the schedule.
    SomeUsers,
    /// It waits, or takes another table.
    Waits,
}

impl Predicted {
    /// `count` interrupts, or, if that is none, an elision.
    pub const fn interrupts_or_elided(count: u64) -> Predicted {
        if count == 0 { Predicted::Elided } else { Predicted::Interrupts(count) }
    }
}

/// How walks show themselves in their CPU's [`WalkSlot`], for models, on whose CPUs [`Strategy::walk_begin`] does not
/// run: what it does there, in a word. The slot says the number of the mm that is walked, or `u64::MAX` where a CPU
/// walks more than one; 0 is no walk.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Publication {
    /// Not at all.
    None,
    /// By a store that nothing orders before the first read.
    Store,
    /// By a store and a full barrier.
    StoreFence,
    /// By an exchange, which is a full barrier.
    Exchange,
}

/// A rule: see the head of this module.
pub trait Strategy: 'static {
    /// As on the command line.
    const NAME: &'static str;
    /// In one line.
    const ABOUT: &'static str;

    /// Its walks read through the recursive mapping ([`crate::mm::self_walk`]), and flushes cover that
    /// ([`crate::mm::self_map`]).
    const SELF_MAP: bool = false;

    /// What [`Strategy::walk_begin`] does, in a word.
    const PUBLISHES: Publication = Publication::None;

    /// A walk that is begun inside another, by an NMI, shows both, and [`Strategy::walk_end`] puts back what was shown
    /// before.
    const RESTORES: bool = false;

    /// What it promises in `setting`, if walkers contend: safe, unsafe (a posted design that is wrong there) or
    /// refused.
    fn promises(setting: Setting) -> Verdict;

    /// What it does in one round, as a closed form; `None` where that depends on the schedule.
    fn predicts(round: &Round) -> Option<Predicted> {
        let _ = round;
        None
    }

    /// A walk of `mm` begins on `cpu`; interrupts are masked. An NMI may have interrupted another walk. What it returns
    /// is given to [`Strategy::walk_end`].
    #[inline(always)]
    fn walk_begin<A: Arch>(cpu: &Cpu<A>, mm: &Mm<A>) -> u64 {
        let _ = (cpu, mm);
        0
    }

    /// The walk has used its last pointer.
    #[inline(always)]
    fn walk_end<A: Arch>(cpu: &Cpu<A>, outer: u64) {
        let _ = (cpu, outer);
    }

    /// Whether it lets a table that was flushed, and for which there is no batch, be freed without a grace period: as
    /// v10 does where the hook is true.
    fn frees_without_grace(hook: bool) -> bool {
        let _ = hook;
        false
    }

    /// The barrier that its `decide` has between the clear of an entry and its look at what walks publish; `None` if it
    /// does not look.
    fn look_barrier() -> Option<LookBarrier> {
        None
    }

    /// What it takes to use the table again. Entries were cleared and flushed before.
    fn decide(view: &dyn View, ask: &Ask<'_>) -> Decision;
}

/// What orders a store before a look at what others have stored.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LookBarrier {
    /// A full barrier: it does.
    Full,
    /// A read barrier: it does not.
    Reads,
}

impl LookBarrier {
    /// The barrier, on whatever machine is seen through `view`.
    fn of_view(self, view: &dyn View) {
        match self {
            LookBarrier::Full => view.fence(),
            LookBarrier::Reads => view.read_fence(),
        }
    }

    /// The barrier on a real machine.
    #[inline(always)]
    pub(crate) fn here<A: Arch>(self) {
        match self {
            // Full: cleared, then look. Pairs with the fence of `walk_begin` (tests/litmus/publish-scan).
            LookBarrier::Full => A::fence(),
            // As posted: enough for nothing (tests/litmus/publish-scan-read-barrier).
            LookBarrier::Reads => fence(Ordering::Acquire),
        }
    }
}

/// The real machine, seen by a strategy.
pub struct MachineView<A: Arch> {
    /// The CPU that asks.
    pub cpu: &'static Cpu<A>,
}

impl<A: Arch> View for MachineView<A> {
    fn initiator(&self) -> CpuId {
        self.cpu.id
    }
    fn online(&self) -> CpuMask {
        *A::machine().online_mask()
    }
    fn loaded(&self, cpu: CpuId) -> LoadedMm {
        match A::machine().cpu(cpu).loaded.mm() {
            crate::tlb::switch::NO_MM => LoadedMm::None,
            crate::tlb::switch::SWITCHING => LoadedMm::Unknown,
            mm if A::machine().cpu(cpu).loaded.is_lazy() => LoadedMm::Lazy(mm),
            mm => LoadedMm::Mm(mm),
        }
    }
    fn slot(&self, cpu: CpuId) -> u64 {
        // Acquire: pairs with the release of `walk_end`, so that a walk seen to be over has read its last entry.
        A::machine().cpu(cpu).walk_slot.0.load(Ordering::Acquire)
    }
    fn hook(&self) -> bool {
        A::machine().policy.hook()
    }
    fn transport(&self) -> TransportId {
        A::machine().policy.transport()
    }
    fn acknowledged_generation(&self, cpu: CpuId) -> u64 {
        A::machine().cpu(cpu).inbox.generation()
    }
    fn fence(&self) {
        A::fence();
    }
    fn read_fence(&self) {
        // Acquire: orders loads before it against loads after it, and no store against any load
        // (tests/litmus/publish-scan-read-barrier).
        fence(Ordering::Acquire);
    }
}
