//! One row of results: a strategy on a transport under a workload in a mode.

use crate::scenario::script::MAX_STEPS;

/// What came out of one cell, and what was expected of it. Little endian, no padding.
///
/// Counts are sums over all operations of the cell. Names are indices into the lists that the runner shares with the
/// kernel ([`crate::suite`]).
#[derive(Clone, Copy, Debug, Default)]
#[repr(C, align(64))]
pub struct CellRow {
    /// Index in [`crate::sync::NAMES`].
    pub strategy: u16,
    /// Index in [`crate::workload::NAMES`].
    pub workload: u16,
    /// Index in [`crate::suite::Mode::NAMES`].
    pub mode: u16,
    /// Index in [`crate::tlb::transport::NAMES`].
    pub transport: u16,
    /// The static hook's value: 0 or 1.
    pub hook: u8,
    /// A [`Verdict`].
    pub expected: u8,
    /// A [`Verdict`].
    pub verdict: u8,
    /// 1 when the counts were predicted for this cell and differ.
    pub miscounted: u8,
    /// Online CPUs.
    pub cpus: u32,
    /// Index in [`crate::workload::walker::WalkerClass::NAMES`].
    pub walker: u64,
    /// Operations done.
    pub ops: u64,
    /// Flush interrupts, in targets.
    pub flush_ipis: u64,
    /// Sync interrupts, in targets.
    pub sync_ipis: u64,
    /// Sync rounds that the strategy left out.
    pub syncs_elided: u64,
    /// Sync interrupts whose target held nothing that the sync was for.
    pub redundant_sync_ipis: u64,
    /// Tables reused or freed while a walk held them.
    pub missing_syncs: u64,
    /// Invalidation instructions, local and broadcast.
    pub tlbi: u64,
    /// Interrupt vectors raised, flush and sync together.
    pub vectors: u64,
    /// Instructions, over all operations; 0 where not measured.
    pub instructions: u64,
    /// Walks made by all CPUs.
    pub walks: u64,
    /// Pages that walks returned.
    pub pages: u64,
    /// Of these, the ones that it pinned.
    pub pins: u64,
    /// Faults that were injected.
    pub injected: u64,
    /// More in use than before the cell: frames, tables, references, pins; the last two where the run asked for them.
    pub left: [i64; 4],
    /// Violations that the ghost oracle found ("unsafe by state").
    pub violations_ghost: u64,
    /// Violations that the value oracle found ("observed").
    pub violations_value: u64,
    /// What the closed form says of `flush_ipis`, or `u64::MAX` where it says nothing.
    pub predicted_flush: u64,
    /// What the closed form says of `sync_ipis`.
    pub predicted_sync: u64,
    /// What the closed form says of `syncs_elided`.
    pub predicted_elided: u64,
    /// What the closed form says of `tlbi`.
    pub predicted_tlbi: u64,
    /// Flush interrupts that the bystander of mode `isolated` served.
    pub bystander_flush: u64,
    /// Sync interrupts that it served.
    pub bystander_sync: u64,
    /// NMIs that it took.
    pub bystander_nmi: u64,
    /// The longest that it was kept from its loop, in its own instructions, its loop's included, or that its periodic
    /// thread took to run; 0 where there is none, or where it had no turn in an operation.
    pub bystander_gap: u64,
    /// Of a periodic thread: how often it has measured how long it took to run, the least, the median. The longest is
    /// the gap.
    pub latencies: [u64; 3],
    /// What the closed form says of `bystander_sync`; of the other two it says 0.
    pub predicted_bystander: u64,
    /// CPUs in a walk that held a table when the strategy had decided about it, and that it did not wait for.
    pub uncovered: u64,
    /// The exit status of a workload's first program, or the first other one that ended otherwise than well; 0 where
    /// all is well or there was none.
    pub program_status: u64,
    /// Seeds that were tried until a control fired, this row's the last of them; 1 where the first one did, or there is
    /// no control.
    pub seeds: u64,
    /// 1 where programs in user mode do the operations.
    pub user: u64,
    /// What the strategy promises on the transport, a [`Verdict`], whatever the workload can show of it.
    pub promised: u64,
    /// What became of each step of the scenario ([`crate::record::step::StepRecord`]); zero in other modes.
    pub steps: [u64; MAX_STEPS],
    /// The first violation, if any.
    pub first: Violation,
}

/// A violation, enough of it to say who held what and in which order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Violation {
    /// A [`ViolationKind`]; 0 for none.
    pub kind: u16,
    /// The CPU that walked.
    pub walker: u16,
    /// The CPU that reused or freed, or [`Violation::NOBODY`].
    pub updater: u16,
    /// Level of the table, 0 for PTE.
    pub level: u16,
    /// The mm of the walk.
    pub mm: u32,
    /// The frame.
    pub pfn: u32,
    /// The address walked to.
    pub address: u64,
    /// Which walk of that CPU it was, counted from the start of the cell.
    pub walk: u64,
    /// Which operation it was, counted from the start of the cell.
    pub op: u64,
    /// When the walk began, the table was unlinked, the flush completed, and the table was reused or freed, on the
    /// machine's instruction counter.
    pub times: [u64; 4],
}

impl Violation {
    /// In place of the updater: the walker found it out itself, after the fact, and who had changed the tables is not
    /// noted.
    pub const NOBODY: u16 = u16::MAX;
}

/// What went wrong; the value of [`Violation::kind`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u16)]
pub enum ViolationKind {
    /// A table was reused while a walk that began before its unlink held it.
    ReusedWhileHeld = 1,
    /// A table was freed while a walk held it.
    FreedWhileHeld = 2,
    /// A walk returned a page that its address did not map.
    WrongPage = 3,
    /// A walk read an entry of a table that had been freed.
    ReadPoison = 4,
    /// A CPU's translation led to a page that no longer belonged there.
    StaleTranslation = 5,
    /// A table was unlinked although it still mapped something.
    LostMapping = 6,
    /// A walk took the frame of a page for a table.
    PageForTable = 7,
    /// A page that a walk had pinned was shared with a forked mm.
    PinnedAndShared = 8,
    /// A recursive address led to a table that was no longer there, though its flush was complete.
    StaleRecursion = 9,
    /// A table was given up whose population was not what a scan of it says.
    Miscounted = 10,
    /// A walk that reads entries as two words used a low word and a high word that were never one entry.
    TornEntry = 11,
}

impl ViolationKind {
    /// The kind with this number.
    pub fn from_number(n: u16) -> Option<ViolationKind> {
        use ViolationKind::*;
        [
            ReusedWhileHeld,
            FreedWhileHeld,
            WrongPage,
            ReadPoison,
            StaleTranslation,
            LostMapping,
            PageForTable,
            PinnedAndShared,
            StaleRecursion,
            Miscounted,
            TornEntry,
        ]
        .into_iter()
        .find(|k| *k as u16 == n)
    }

    /// Whether the ghost oracle found it (else the value oracle did).
    pub fn by_state(self) -> bool {
        matches!(
            self,
            ViolationKind::ReusedWhileHeld
                | ViolationKind::FreedWhileHeld
                | ViolationKind::StaleRecursion
                | ViolationKind::TornEntry
        )
    }

    /// In words.
    pub fn in_words(self) -> &'static str {
        match self {
            ViolationKind::ReusedWhileHeld => "a table was reused while a walk that began before its unlink held it",
            ViolationKind::FreedWhileHeld => "a table was freed while a walk held it",
            ViolationKind::WrongPage => "a walk returned a page that its address did not map",
            ViolationKind::ReadPoison => "a walk read an entry of a freed table",
            ViolationKind::StaleTranslation => "a translation led to a page that no longer belonged there",
            ViolationKind::LostMapping => "a table was unlinked although it still mapped something",
            ViolationKind::PageForTable => "a walk took a page for a table",
            ViolationKind::PinnedAndShared => "a page that a walk had pinned was shared by fork",
            ViolationKind::StaleRecursion => "a recursive address led to a table that its flush should have taken away",
            ViolationKind::TornEntry => "a walk used the two words of an entry that had never been one",
            ViolationKind::Miscounted => "a table was given up with another number of entries than it was said to have",
        }
    }
}

/// A verdict, expected or given. The names are those of the JSON output.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Verdict {
    /// No violation.
    Safe = 0,
    /// At least one violation.
    Unsafe = 1,
    /// The strategy refused the combination, with a typed error.
    Refused = 2,
    /// This engine cannot show it.
    NotApplicable = 3,
    /// The control that should have fired did not: the run says nothing.
    Void = 4,
    /// A program ended with an error: [`CellRow::program_status`].
    Failed = 5,
}

impl Verdict {
    /// The verdict with this number.
    pub fn from_number(n: u8) -> Option<Verdict> {
        use Verdict::*;
        [Safe, Unsafe, Refused, NotApplicable, Void, Failed].into_iter().find(|v| *v as u8 == n)
    }

    /// As in the JSON output.
    pub const fn name(self) -> &'static str {
        match self {
            Verdict::Safe => "safe",
            Verdict::Unsafe => "unsafe",
            Verdict::Refused => "refused",
            Verdict::NotApplicable => "na",
            Verdict::Void => "void",
            Verdict::Failed => "failed",
        }
    }
}
