//! Scenarios: which CPU goes on, and how far, step by step.
//!
//! A *pause point* is a named place in the core ([`Point`]). `pause!(cpu, AfterPmdRead)` is nothing in a build without
//! `checking`, and a note that it was crossed where no scenario is being played. A *scenario* is a script of steps over
//! a few actors ([`script`]); while one is played exactly one actor runs, and every other one waits at its point, with
//! interrupts masked or not as they are there: a walk that is held holds off interrupts as a real one does, and an NMI
//! reaches it as it would a real one ([`stage`]). What the actors do is in [`play`].

pub mod play;
pub mod script;
pub mod stage;

use core::sync::atomic::Ordering;

use crate::arch::Arch;
use crate::record::shared::Doing;
use crate::smp::cpu::Cpu;
use crate::suite::Named;

macro_rules! points {
    ($($point:ident = $name:literal: $text:literal;)*) => {
        /// A place where a scenario can hold a CPU.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        #[repr(u8)]
        pub enum Point { $(#[doc = $text] $point,)* }
        impl Point {
            /// All points with what each is, in the order of their numbers.
            pub const NAMES: &'static [Named] = &[$(($name, $text),)*];
            /// All points, in the order of their numbers.
            pub const ALL: &'static [Point] = &[$(Point::$point,)*];
        }
        // One bit each in a word.
        const _: () = assert!(Point::ALL.len() <= 64);
    };
}

points! {
    WalkBegin = "walk_begin": "walk: interrupts are masked, nothing is published or read yet";
    Published = "published": "walk: what the strategy publishes is published, nothing is read yet";
    AfterPgdRead = "after_pgd_read": "walk: holds the PUD table, has not read its entry";
    AfterPudRead = "after_pud_read": "walk: holds the PMD table, has not read its entry";
    AfterPmdRead = "after_pmd_read": "walk: holds the PTE table, has not read its entry";
    BetweenReads = "between_reads": "walk without ReadOnce: has checked the PMD entry and is about to read it again";
    AfterLowWord = "after_low_word": "two-word walk: has read an entry's low word, not its high word";
    AfterHighWord = "after_high_word": "two-word walk: has read an entry's high word, has not looked at the low word again";
    AfterPteRead = "after_pte_read": "walk: has read the PTE entry, has no reference yet";
    AfterHead = "after_head": "walk: knows the page's head, has no reference yet";
    AfterReference = "after_reference": "walk: has taken the reference";
    BeforeRecheck = "before_recheck": "walk: is about to read the entries again";
    WalkEnd = "walk_end": "walk: holds nothing any more, interrupts are still masked";
    HoldsPages = "holds_pages": "walk: has returned, interrupts are enabled again, its references are held";
    PinSequence = "pin_sequence": "pin: the pages are pinned, the fork sequence is not yet read again";
    FlushBegin = "flush_begin": "flush: entries are changed, nothing is invalidated";
    AfterGeneration = "after_generation": "flush: the flush generation is counted, the mask is not read yet";
    AfterTargets = "after_targets": "flush: the CPUs to interrupt are chosen, none is interrupted yet";
    FlushEnd = "flush_end": "flush: complete";
    Unlink = "unlink": "unlink: the parent is locked, its entry still there";
    AfterUnlink = "after_unlink": "unlink: the parent's entry is cleared, nothing is flushed";
    SyncBegin = "sync_begin": "sync: flushed, the strategy is not asked yet";
    SyncDecided = "sync_decided": "sync: the strategy has decided, nothing is done yet";
    SyncEnd = "sync_end": "sync: what the strategy asked for is done";
    BeforeReuse = "before_reuse": "reuse: the table is still as it was";
    AfterReuse = "after_reuse": "reuse: the table is empty and somebody else's";
    AfterFreeze = "after_freeze": "collapse: all pages are frozen, nothing is copied";
    AfterCopy = "after_copy": "collapse: copied, the huge page is not mapped yet";
    AfterLeave = "after_leave": "unshare: the PUD entry is cleared, nothing is flushed";
    AfterSettle = "after_settle": "unshare: the last sharer may use the table as its own";
    AfterZapLookup = "after_zap_lookup": "reclaim: has found the PTE table, has not locked it";
    AfterZap = "after_zap": "reclaim: the entries are cleared, the table's lock is dropped";
    BeforeRescan = "before_rescan": "reclaim: about to lock the parent and look at the table again";
    Switching = "switching": "context switch: says that it changes over, is not in the mask yet";
    AfterMaskInsert = "after_mask_insert": "context switch: in the mask, the root is not loaded yet";
    ShortLooked = "short_looked": "short call: the capability is alive, and nothing is done yet";
    RemovalStep = "removal_step": "removal of capabilities: one step is done, whoever is more urgent may run";
    UnmapPart = "unmap_part": "unmapping in parts: a part is cleared, and what was is not yet flushed";
    AfterRootLoad = "after_root_load": "context switch: the root is loaded, the mm is not named yet";
    AfterPmdLookup = "after_pmd_lookup": "fault: has found the PTE table, has not locked it";
    FaultHasPage = "fault_has_page": "fault: has got the page from its file, has not put it in";
    BeforeFree = "before_free": "free: the frame of a table is about to be freed";
    ForkBegin = "fork_begin": "fork: the sequence is odd, no page is looked at yet";
    ForkPinsRead = "fork_pins_read": "fork: has seen that a page is not pinned, has not protected it yet";
    ForkEnd = "fork_end": "fork: pages are shared and flushed, the sequence is still odd";
    AfterTouch = "after_touch": "user: has touched the page through its TLB once";
    Refused = "refused": "receive: has refused a message that does not fit, has not looked for another";
    DeadlineRead = "deadline_read": "a tick: has read when a wait is over, has not decided what becomes of it";
    Truncated = "truncated": "truncation: the file has given its pages up, who has mapped them has not";
}

impl Point {
    /// As in a scenario.
    pub fn name(self) -> &'static str {
        Point::NAMES[self as usize].0
    }

    /// The point of this name.
    pub fn named(name: &str) -> Option<Point> {
        Point::ALL.iter().copied().find(|p| p.name() == name)
    }

    /// The point with this number.
    pub fn from_number(n: u8) -> Option<Point> {
        Point::ALL.get(n as usize).copied()
    }
}

/// The CPU is at a pause point: if a scenario is being played, it may be held here.
#[macro_export]
macro_rules! pause {
    ($cpu:expr, $point:ident) => {
        if cfg!(feature = "checking") {
            $crate::scenario::reach($cpu, $crate::scenario::Point::$point);
        }
    };
}

/// What [`pause!`] calls.
#[inline(always)]
pub fn reach<A: Arch>(cpu: &Cpu<A>, point: Point) {
    if A::machine().stage.is_open() {
        stage::reach(cpu, point);
    } else {
        // Only this CPU writes it. An NMI between load and store may lose a bit that another crossing sets.
        let points = &cpu.status.points;
        points.store(points.load(Ordering::Relaxed) | 1 << point as u8, Ordering::Relaxed);
    }
}

/// One round of a wait for another CPU: if a scenario is being played, the step may end here as blocked. Nothing in a
/// build without `checking`.
#[inline(always)]
pub fn waits<A: Arch>(cpu: &Cpu<A>, doing: Doing) {
    if cfg!(feature = "checking") && A::machine().stage.is_open() {
        stage::waits(cpu, doing);
    }
}
