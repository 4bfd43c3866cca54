//! What one exploration is about: how many CPUs, which operation, how its flush travels, who walks, and which guards
//! are taken away.

use kernel::guard::Guard;
pub use kernel::sync::Publication;
use kernel::sync::{Ask, Decision, Setting, View};
use kernel::tlb::transport::TransportId;
use kernel::workload::walker::WalkerClass;

/// Number of an mm in the model, from 1 on.
pub type MmNumber = u8;

/// The most CPUs that a state has room for.
pub const MAX_CPUS: usize = 4;
/// In a slot: more than one mm.
pub(crate) const ANY: u8 = 3;

/// What is done to the one table.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Operation {
    /// One mm unlinks it and uses it again itself.
    Collapse,
    /// The same after another flush in the same gather, of pages.
    CollapseInBatch,
    /// Two mms share it: one leaves, the other uses it again.
    UnshareLast,
    /// Three mms share it: one leaves, then another, the third uses it again.
    UnshareThree,
    /// One mm unlinks it and frees it after a grace period. No strategy is asked.
    Free,
    /// One mm clears a leaf and frees the page behind it. No table changes hands and no strategy is asked.
    Pages,
}

impl Operation {
    /// As in tables.
    pub const fn name(self) -> &'static str {
        match self {
            Operation::Collapse => "collapse",
            Operation::CollapseInBatch => "collapse-in-batch",
            Operation::UnshareLast => "unshare-last",
            Operation::UnshareThree => "unshare-three",
            Operation::Free => "free",
            Operation::Pages => "pages",
        }
    }

    /// An mm takes the table out and puts a page of 2 MiB in its place, or the table again.
    pub const fn collapses(self) -> bool {
        matches!(self, Operation::Collapse | Operation::CollapseInBatch)
    }

    /// The mms that unlink, in this order, are 1 to this.
    pub const fn leavers(self) -> MmNumber {
        match self {
            Operation::UnshareThree => 2,
            _ => 1,
        }
    }

    /// Whether a mm left before the one that asks.
    pub const fn is_chain(self) -> bool {
        self.leavers() > 1
    }

    /// The mms that link the table and that walkers load are 1 to this; an exclusive survivor is not among them where
    /// two leave.
    pub const fn sharers(self) -> MmNumber {
        match self {
            Operation::UnshareLast | Operation::UnshareThree => 2,
            _ => 1,
        }
    }
}

/// What is taken away, or built wrong.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum Removal {
    /// A flush of tables skips lazy CPUs, as one of pages does.
    LazyReached,
    /// The invalidation takes leaves only, and leaves paging-structure caches as they are.
    AllLevels,
    /// Nothing waits for a broadcast to complete.
    Completion,
    /// The invalidation is not ordered after the store of the entry (and the entry is changed by a plain store).
    StoreBeforeFlush,
    /// Only the initiator's own TLB is invalidated.
    Shareable,
    /// A CPU that loads an mm loads the root before it reads the flush generation.
    GenerationBeforeRoot,
    /// A CPU that loads an mm enters its mask after it loaded the root.
    MaskBeforeRoot,
    /// A lazy CPU that uses its mm again does not catch up with the flushes that skipped it.
    CatchUp,
    /// The new entry is written over the old one, with no invalid entry and no flush between.
    BreakBeforeMake,
    /// A table is freed without a grace period.
    GraceBeforeFree,
    /// The entry is cleared by a plain store instead of an exchange.
    ExchangeToUnlink,
    /// The last sharer does not sync.
    UnshareSync,
    /// Where translations are tagged, a CPU that catches up invalidates; loading the root again drops nothing there.
    CatchUpInvalidates,
    /// Where translations are tagged, a CPU that loads an mm again, and never left its mask, invalidates what it still
    /// has of it.
    TagsOutliveSwitch,
    /// No flush precedes the decision, as where it was deferred or found needless. Caches are not judged then.
    FlushFirst,
    /// A frozen CPU that owes a flush makes it good for the mm that it has loaded alone.
    ResumeFlushesAll,
    /// A reader of two words does not look at the low one again.
    LowAgain,
    /// Whoever gives up a table, or puts one back for which nobody was waited, does not wait for readers of two words
    /// before the entry is filled again.
    TwoWordSync,
}

/// A set of [`Removal`]s.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Removed(u32);

impl Removed {
    /// Everything is there.
    pub const NOTHING: Removed = Removed(0);

    /// These are not.
    pub fn these(list: &[Removal]) -> Removed {
        Removed(list.iter().fold(0, |bits, one| bits | 1 << *one as u8))
    }

    /// Those of them that are guards of the kernel, as bits of [`mod@kernel::guard`].
    pub fn guards(self) -> u64 {
        let known = [
            (Removal::GraceBeforeFree, Guard::GraceBeforeFree),
            (Removal::UnshareSync, Guard::UnshareSync),
            (Removal::LowAgain, Guard::LowAgain),
            (Removal::TwoWordSync, Guard::TwoWordSync),
        ];
        known.iter().filter(|(one, _)| self.has(*one)).fold(0, |bits, (_, guard)| bits | 1 << *guard as u64)
    }

    /// Whether `one` is taken away.
    #[inline(always)]
    pub const fn has(self, one: Removal) -> bool {
        self.0 & (1 << one as u8) != 0
    }
}

/// One exploration.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    /// How many CPUs; the first does the operation, the others walk.
    pub cpus: u8,
    /// They load and unload mms and idle in between; else each keeps what it has loaded in the beginning, which is any
    /// of the mms or none.
    pub moves: bool,
    /// What is done.
    pub operation: Operation,
    /// How flushes travel.
    pub transport: TransportId,
    /// Who walks.
    pub walker: WalkerClass,
    /// Translations are tagged, and survive a switch.
    pub tagged: bool,
    /// The value of the static hook.
    pub hook: bool,
    /// How walks show themselves.
    pub publication: Publication,
    /// A walk from an NMI, when it ends, shows again what the walk that it interrupted has shown.
    pub nested_restores: bool,
    /// What a slot says where the model says 1, 2 (an mm), 3 (more than one).
    pub published: [u64; 3],
    /// The strategy's own code.
    pub decide: fn(&dyn View, &Ask<'_>) -> Decision,
    /// What is taken away.
    pub removed: Removed,
    /// TLBs and paging-structure caches are filled at once whenever they could be, which is the worst case; else at any
    /// moment.
    pub eager_fills: bool,
    /// CPUs that walk are interchangeable: one state stands for all that differ in which is which.
    pub symmetric: bool,
}

impl Scenario {
    /// Walks read each entry as two words.
    pub fn two_words(&self) -> bool {
        self.walker == WalkerClass::TwoWord
    }

    /// Where the strategy runs, for what it promises.
    pub fn setting(&self) -> Setting {
        Setting {
            transport: self.transport,
            hook: self.hook,
            chain: self.operation.is_chain(),
            batch: self.operation == Operation::CollapseInBatch,
            walker: self.walker,
        }
    }

    /// The mms that CPUs may load are 1 to this: those that link the table, and another one where a walk of an mm that
    /// is not loaded shall interrupt one of an mm that is.
    pub const fn mms(&self) -> MmNumber {
        let sharers = self.operation.sharers();
        if matches!(self.walker, WalkerClass::NmiOther) && sharers < 2 { 2 } else { sharers }
    }
}

/// The name of a class of walkers.
pub const fn walker_name(walker: WalkerClass) -> &'static str {
    WalkerClass::NAMES[walker as usize].0
}
