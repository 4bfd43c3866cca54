//! Events of the ledger and of the walks: fixed-size records in one ring per CPU.

/// One event. 32 bytes, little endian, no padding.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(C)]
pub struct Event {
    /// [`crate::arch::Arch::instructions`] when it happened.
    pub time: u64,
    /// An [`EventKind`].
    pub kind: u16,
    /// The CPU that wrote it.
    pub cpu: u16,
    /// The mm concerned, or 0.
    pub mm: u32,
    /// First detail, see [`EventKind`].
    pub a: u64,
    /// Second detail, see [`EventKind`].
    pub b: u64,
}

/// A cause beside those of [`crate::ledger::Cause`]: an NMI plays a broadcast.
pub const BY_NMI: u64 = 5;
/// Stands for a CPU where the writer does not know which.
pub const UNNAMED: u64 = u64::MAX;

/// Bytes of one [`Event`].
pub const EVENT_BYTES: usize = core::mem::size_of::<Event>();

macro_rules! event_kinds {
    ($($(#[$doc:meta])* $name:ident = $n:literal, $text:literal;)*) => {
        /// What happened; the comment of each says what `a` and `b` are.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        #[repr(u16)]
        pub enum EventKind { $($(#[$doc])* $name = $n,)* }
        impl EventKind {
            /// The kind with this number.
            pub fn from_number(n: u16) -> Option<EventKind> {
                match n { $($n => Some(EventKind::$name),)* _ => None }
            }
            /// In words; `{a}` and `{b}` stand for the details.
            pub fn in_words(self) -> &'static str {
                match self { $(EventKind::$name => $text,)* }
            }
        }
    };
}

event_kinds! {
    /// A cell begins: `a` its index.
    CellStart = 1, "cell {a} begins";
    /// A cell ended: `a` its index, `b` violations.
    CellEnd = 2, "cell {a} ends with {b} violations";
    /// A walk begins: `a` its first address, `b` 1 if interrupts are masked, 0 if they are not.
    WalkBegin = 3, "walk begins at {a}";
    /// A walk took a pointer to a table: `a` the table's frame, `b` the address walked to.
    WalkHolds = 4, "walk to {b} holds table {a}";
    /// A walk ended: `a` its first address, `b` pages returned.
    WalkEnd = 5, "walk at {a} ends with {b} pages";
    /// A table was unlinked: `a` its frame, `b` the address whose entry was cleared.
    Unlink = 6, "table {a} unlinked from {b}";
    /// A flush begins: `a` first address, `b` other CPUs in the mm's mask, of which the transport interrupts those that
    /// it must.
    FlushBegin = 7, "flush from {a} begins, {b} other CPUs may have it";
    /// A flush ended: `a` first address, `b` CPUs interrupted, all of which have acknowledged.
    FlushEnd = 8, "flush from {a} ends, {b} interrupted";
    /// A sync begins: `a` the table's frame, `b` targets.
    SyncBegin = 9, "sync for table {a} begins, {b} targets";
    /// A sync ended: `a` the table's frame.
    SyncEnd = 10, "sync for table {a} ends";
    /// A sync was left out: `a` the table's frame, `b` the reason's number ([`crate::ledger::Elision`]).
    SyncElided = 11, "sync for table {a} elided (reason {b})";
    /// A table is reused: `a` its frame, `b` the address that it was unlinked from, or its offset in the file that
    /// shared it.
    Reuse = 12, "table {a} reused";
    /// A table waits for a grace period: `a` its frame.
    Retire = 13, "table {a} retired";
    /// A table was freed: `a` its frame.
    Free = 14, "frame {a} freed";
    /// An unlinked table was put back unchanged: `a` its frame, `b` the address.
    Relink = 15, "table {a} put back";
    /// An interrupt handler did what it was asked for: `a` the cause ([`crate::ledger::Cause`] or [`BY_NMI`]), `b` the
    /// initiator, or [`UNNAMED`].
    Acknowledge = 16, "acknowledged cause {a} to cpu {b}";
    /// The oracle found a violation: `a` the frame (0: it is of an address), `b` the CPU that held it.
    Violation = 17, "VIOLATION: frame {a} still held by cpu {b}";
    /// A scenario holds the CPU at a pause point: `a` its number.
    Pause = 18, "held at pause point {a}";
    /// The CPU loaded an mm.
    Switch = 19, "mm loaded";
    /// The window of an operation opens: `a` its number in the cell.
    OperationBegin = 20, "operation {a} begins";
    /// It closes: `a` its number in the cell.
    OperationEnd = 21, "operation {a} ends";
    /// Another CPU is asked to run a handler: `a` the cause as in [`EventKind::Acknowledge`], `b` the target.
    Interrupt = 22, "interrupts cpu {b}, cause {a}";
    /// An interrupt handler begins: `a` 0 for the call doorbell, 1 for the NMI.
    HandlerBegin = 23, "handler begins";
    /// It ends: `a` as at its beginning.
    HandlerEnd = 24, "handler ends";
    /// A wait whose condition did not hold at once: `a` for what, a [`crate::record::shared::Doing`].
    WaitBegin = 25, "waits";
    /// It ends: `a` as at its beginning.
    WaitEnd = 26, "waits no longer";
    /// Interrupts are masked, outside of walks and handlers.
    MaskBegin = 27, "interrupts off";
    /// They are as they were before.
    MaskEnd = 28, "interrupts on";
    /// A table was linked: `a` its frame, `b` the address of the entry.
    Link = 29, "table {a} linked at {b}";
    /// What the strategy asked for was done, the table may be used again: `a` its frame.
    Drained = 30, "table {a} drained";
    /// One mm left a shared table that others still link: `a` its frame, `b` how many.
    StillLinked = 31, "table {a} still linked by {b}";
    /// The hypervisor takes the CPU away.
    Freeze = 32, "frozen by the hypervisor";
    /// It gives the CPU back.
    Resume = 33, "resumed by the hypervisor";
}
