//! Guards: the places without which the kernel would be wrong, each of which can be taken away to see that something
//! notices.
//!
//! `guard!(Name)` is `true`. In a build with `checking` it is `false` when the run was asked to do without it; in other
//! builds it is a constant and costs nothing. `cargo xtask mutate` runs with one guard removed at a time and requires
//! that a check fails.

use core::sync::atomic::{AtomicU64, Ordering};

use crate::suite::Named;

macro_rules! guards {
    ($($name:ident: $text:literal, $by:ident;)*) => {
        /// A place that can be taken away.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        #[repr(u8)]
        pub enum Guard { $(#[doc = $text] $name,)* }
        impl Guard {
            /// All guards with what each is, in the order of their numbers.
            pub const NAMES: &'static [Named] = &[$((stringify!($name), $text),)*];
            /// Who must notice when it is missing, in the same order.
            pub const SHOWN_BY: &'static [ShownBy] = &[$(ShownBy::$by,)*];
        }
    };
}

/// Which engine must notice that a guard is missing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ShownBy {
    /// A run in QEMU.
    Qemu,
    /// A scenario in QEMU (`scenarios/`), which takes the guard away in the setting where it is needed.
    Scenario,
    /// Two CPUs of QEMU that run freely, in the isolated shape of [`crate::workload::store_buffer`]:
    /// `cargo xtask barriers`.
    Barriers,
    /// A workload of programs: `tests/tests/qemu_user.rs`.
    Programs,
    /// The checks on the host: QEMU lacks the hardware behaviour, or reorders nothing.
    Host,
}

guards! {
    FlushIpi: "the interrupt that makes other CPUs invalidate", Qemu;
    FlushBroadcast: "the broadcast invalidation", Qemu;
    FlushOnResume: "a frozen CPU that was acknowledged for flushes when it resumes", Qemu;
    WalkIrqOff: "the walk runs with interrupts masked", Qemu;
    PmdRecheck: "the walk looks at the PMD entry again after it took the reference", Qemu;
    PteRecheck: "the walk looks at the PTE entry again after it took the reference", Scenario;
    HeadRecheck: "the walk looks at a page's head again after it took the reference", Host;
    ReclaimRescan: "reclaim looks at all entries again when the lock was dropped", Qemu;
    FaultPmdSame: "a fault looks at the PMD entry again after it took the table's lock", Qemu;
    ZapPmdSame: "clearing looks at the PMD entry again after it took the table's lock", Host;
    CollapseFreeze: "collapse takes all references of a page before it copies it", Scenario;
    ForkRetry: "a pin is given back when the mm was forked meanwhile", Scenario;
    UnshareSync: "leaving a shared table syncs before the last sharer may use it", Qemu;
    FlushBeforeFree: "the gather flushes before it drops pages and retires tables", Qemu;
    NestedGather: "a gather that ends while another of its mm is under way flushes everything", Scenario;
    GraceBeforeFree: "a retired table waits for a grace period", Qemu;
    WalkPublish: "the walk publishes what its strategy asks for", Scenario;
    PublishFirst: "the walk publishes before it reads the first entry", Scenario;
    ReadOnce: "the walk takes the next table from the PMD value that it checked", Scenario;
    UnlinkFlush: "an unlinked table is flushed before it is used again", Scenario;
    SyncInterrupt: "the interrupts of a sync", Scenario;
    BatchlessFlush: "a gather without a batch page flushes before it drops a page", Scenario;
    LowAgain: "a walk that reads entries as two words reads the low word again after the high one", Scenario;
    TwoWordSync: "whoever gives up a table waits for walks that read entries as two words before the entry is filled again", Scenario;
    SelfMapFlush: "self-map: the flush of an unlinked table covers its recursive addresses", Qemu;
    SelfMapLeaf: "self-map, x86_64: a 2 MiB leaf's recursive address is flushed before a table takes its place", Host;
    SelfMapReuse: "self-map, x86_64: the walk sees that the table it found was used again meanwhile", Host;
    SelfMapExit: "self-map: the root of an mm that ends points at itself no more when it is flushed for the last time", Host;
    TagLook: "a tag is not taken from an mm that is loaded somewhere", Host;
    TagFlush: "a tag that is taken from an mm is flushed everywhere before another gets it", Host;
    TagOnce: "an mm that two CPUs load at once, and that has no tag, gets one", Host;
    ExitUnloads: "an mm that ends is unloaded where it is still loaded lazily", Host;
    GoingShut: "nothing is put into a region that is being unmapped", Host;
    RightsShrink: "a capability is derived with rights that the one it comes from has", Host;
    RevokeUnmaps: "revoking a capability undoes the mappings that were made with it", Host;
    IpcPin: "a long message is copied through pages that are pinned", Host;
    KillMeets: "deleting an endpoint's capability waits for a short call that goes through it just now", Host;
    ShortLoads: "the short way of messages loads the address space of who goes on", Host;
    VectorsParked: "a thread's floating-point registers are saved before another thread runs on its CPU", Programs;
    IpcPinAgain: "a long message's pages are walked again, when they are pinned and when it was received", Host;
    PublishFence: "targeted: a full barrier between publishing a walk and reading tables", Barriers;
    DecideFence: "targeted: a full barrier between clearing an entry and reading what is published", Barriers;
    TruncateUnmaps: "pages that a file gives up are taken from every mm that maps them", Host;
    TruncateWaits: "taking a truncated page out of an mm waits for faults that are under way there", Host;
    UnmapFirst: "a mapping is flushed before its file forgets it", Host;
    ForkProtects: "what a fork shares cannot be written until it is copied", Host;
}

static REMOVED: AtomicU64 = AtomicU64::new(0);

/// Takes away the guards whose bits are set. Set before the first cell; no effect without `checking`.
pub fn remove(mask: u64) {
    REMOVED.store(mask, Ordering::Relaxed);
}

/// Whether `guard` is there.
#[inline(always)]
pub fn present(guard: Guard) -> bool {
    !cfg!(feature = "checking") || REMOVED.load(Ordering::Relaxed) & (1 << guard as u8) == 0
}

/// `true`, unless the run takes this guard away.
#[macro_export]
macro_rules! guard {
    ($name:ident) => {
        $crate::guard::present($crate::guard::Guard::$name)
    };
}
