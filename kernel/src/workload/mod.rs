//! The workloads: the operations of the suite, each with what it needs before and after.
//!
//! A workload builds a [`Scene`] for a cell. For each operation the cell calls [`Scene::prepare`], which is not
//! counted, then [`Scene::operate`], which is: between the two snapshots of the ledger there is nothing but the
//! operation.

pub mod anon;
pub mod balance;
pub mod bench;
pub mod bystander;
pub mod cell;
pub(crate) mod counted;
pub mod crowd;
pub mod file;
pub mod fork;
pub mod predict;
mod profiling;
pub mod programs;
pub(crate) mod row;
pub mod shared;
pub mod store_buffer;
pub mod walker;

use alloc::boxed::Box;
use alloc::sync::Arc;
use core::ops::Range;

use crate::addr::{PAGE_SIZE, VirtAddr};
use crate::arch::Arch;
use crate::mm::address_space::{Backing, MapError, Mm};
use crate::mm::collapse::CollapseError;
use crate::mm::entry::Perm;
use crate::mm::fault;
use crate::smp::cpu::Cpu;
use crate::suite::Named;

/// All workloads, in the order of their numbers.
pub const NAMES: &[Named] = &[
    ("munmap_2m", "munmap of a populated 2 MiB range of 4 KiB pages; tables are freed"),
    ("munmap_4k", "munmap of one populated page that is alone in its PTE table"),
    ("dontneed_2m", "MADV_DONTNEED of 512 populated pages; the empty PTE table is reclaimed"),
    ("dontneed_4k", "MADV_DONTNEED of one page"),
    ("mprotect_2m", "mprotect of 512 populated pages"),
    ("mprotect_4k", "mprotect of one page"),
    ("collapse_anon", "collapse of 512 anonymous pages into one 2 MiB page; the PTE table is deposited"),
    ("collapse_shmem_ptemapped", "collapse where the huge page is in the page cache and only mapped by PTEs"),
    ("unshare_munmap_last", "munmap of 1 GiB whose PMD table has two sharers: it becomes exclusive"),
    ("unshare_munmap_3way", "the same with three sharers: the table stays shared"),
    ("unshare_mprotect_last", "mprotect that unshares a PMD table with two sharers"),
    ("unshare_exit", "exit of a process that shares a PMD table with one other"),
    ("unshare_chain", "three sharers; one whose CPUs walk leaves, then a second: the table becomes exclusive"),
    ("retract_truncate", "a file's PTE table is retracted, then its pages are truncated and used again"),
];

/// Workloads for scenarios only; their numbers go on after those of [`NAMES`].
pub const STAGED: &[Named] = &[
    ("fork", "fork of an mm with 512 anonymous pages"),
    ("munmap_many", "munmap of 64 anonymous pages and of 1 GiB behind them whose PMD table has two sharers"),
];

/// Workloads of programs in user mode, each named as its first program is; their numbers go on after those of
/// [`STAGED`]. Each runs once, whatever the modes.
pub const PROGRAMS: &[Named] = &[
    ("user_faults", "two threads on every CPU touch, drop, collapse, protect and unmap memory of one address space"),
    ("null_call", "a system call that does nothing"),
    ("call_reply", "a short message and its answer, between two threads on one CPU"),
    ("call_reply_far", "a short message and its answer, between two CPUs"),
    ("fork_exec", "processes get memory from a pager, fork, write, execute other programs and end, on every CPU"),
    ("db_exit", "two dozen processes use four shared tables and exit at once"),
    ("ipc_storm", "pairs of processes send long messages while servers collapse, unshare and drop their memory"),
    ("take_turns", "two threads on one CPU, each of which spins until the other has been there"),
    ("syscall_fuzz", "random system calls with random arguments, at least 1024 for each operation, on every CPU"),
    (
        "rt_bystander",
        "a periodic thread on a CPU of its own says what reaches it while others collapse, unshare and reclaim",
    ),
    ("message_4k", "a message of 4 KiB and its short answer, between two threads on one CPU"),
    ("message_64k", "the same with 64 KiB"),
    ("message_1m", "the same with 1 MiB"),
    ("call_reply_apart", "a short message and its answer, between two processes on one CPU"),
    ("break_in", "processes that try to read the kernel's memory, to leave user mode, or to have the kernel trip"),
    ("hand_over", "a process that shares a page with another hands it 64 KiB and a capability: the guide's example"),
];

/// The number of a workload in [`NAMES`], or in [`STAGED`] or [`PROGRAMS`] behind it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
#[allow(missing_docs)]
pub enum WorkloadId {
    Munmap2m = 0,
    Munmap4k = 1,
    Dontneed2m = 2,
    Dontneed4k = 3,
    Mprotect2m = 4,
    Mprotect4k = 5,
    CollapseAnon = 6,
    CollapseShmem = 7,
    UnshareMunmapLast = 8,
    UnshareMunmap3way = 9,
    UnshareMprotectLast = 10,
    UnshareExit = 11,
    UnshareChain = 12,
    RetractTruncate = 13,
    Fork = 14,
    MunmapMany = 15,
    UserFaults = 16,
    NullCall = 17,
    CallReply = 18,
    CallReplyFar = 19,
    ForkExec = 20,
    DbExit = 21,
    IpcStorm = 22,
    TakeTurns = 23,
    SyscallFuzz = 24,
    RtBystander = 25,
    Message4k = 26,
    Message64k = 27,
    Message1m = 28,
    CallReplyApart = 29,
    BreakIn = 30,
    HandOver = 31,
}

impl WorkloadId {
    /// All workloads, in the order of their numbers.
    pub const ALL: [WorkloadId; NAMES.len()] = [
        WorkloadId::Munmap2m,
        WorkloadId::Munmap4k,
        WorkloadId::Dontneed2m,
        WorkloadId::Dontneed4k,
        WorkloadId::Mprotect2m,
        WorkloadId::Mprotect4k,
        WorkloadId::CollapseAnon,
        WorkloadId::CollapseShmem,
        WorkloadId::UnshareMunmapLast,
        WorkloadId::UnshareMunmap3way,
        WorkloadId::UnshareMprotectLast,
        WorkloadId::UnshareExit,
        WorkloadId::UnshareChain,
        WorkloadId::RetractTruncate,
    ];

    /// The workloads for scenarios, in the order of their numbers.
    pub const STAGED: [WorkloadId; STAGED.len()] = [WorkloadId::Fork, WorkloadId::MunmapMany];

    /// The workloads of programs, in the order of their numbers.
    pub const PROGRAMS: [WorkloadId; PROGRAMS.len()] = [
        WorkloadId::UserFaults,
        WorkloadId::NullCall,
        WorkloadId::CallReply,
        WorkloadId::CallReplyFar,
        WorkloadId::ForkExec,
        WorkloadId::DbExit,
        WorkloadId::IpcStorm,
        WorkloadId::TakeTurns,
        WorkloadId::SyscallFuzz,
        WorkloadId::RtBystander,
        WorkloadId::Message4k,
        WorkloadId::Message64k,
        WorkloadId::Message1m,
        WorkloadId::CallReplyApart,
        WorkloadId::BreakIn,
        WorkloadId::HandOver,
    ];

    /// Whether it is one of programs.
    pub const fn runs_programs(self) -> bool {
        self as u8 >= WorkloadId::UserFaults as u8
    }

    /// Whether it is one of programs whose threads wait and move, so that which CPUs an mm is on is a matter of the
    /// schedule.
    pub const fn is_unscheduled(self) -> bool {
        self.runs_programs() && !self.has_bystander()
    }

    /// Whether programs can do its operations.
    pub const fn has_user_form(self) -> bool {
        !matches!(self, WorkloadId::Fork | WorkloadId::MunmapMany)
    }

    /// Whether programs send messages out of memory whose tables are used again in it, so that a walk may meet that.
    pub const fn walks_by_messages(self) -> bool {
        matches!(self, WorkloadId::IpcStorm) || self.reuses_a_walked_table()
    }

    /// Whether a CPU stands by in it, which mode `isolated` sees to elsewhere.
    pub const fn has_bystander(self) -> bool {
        matches!(self, WorkloadId::RtBystander)
    }

    /// Its name.
    pub fn name_of(n: u16) -> Option<&'static str> {
        NAMES.iter().chain(STAGED).chain(PROGRAMS).nth(n.into()).map(|named| named.0)
    }

    /// Whether a table is used again in it while others may walk the mm that gave it up: only there can a missing sync
    /// be seen.
    pub const fn reuses_a_walked_table(self) -> bool {
        matches!(
            self,
            WorkloadId::CollapseAnon
                | WorkloadId::UnshareMunmapLast
                | WorkloadId::UnshareMprotectLast
                | WorkloadId::UnshareChain
        )
    }
}

/// Why an operation did not succeed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum OpError {
    /// An address space refused.
    #[error(transparent)]
    Map(#[from] MapError),
    /// The workload is one of programs ([`programs`]), for which no stage is set.
    #[error("a workload of programs has no scene")]
    NoScene,
    /// A collapse gave up; a walker may have been in the way.
    #[error(transparent)]
    Collapse(#[from] CollapseError),
}

/// Where the pages are that walkers of the same mm walk, away from the operation.
pub const AWAY: VirtAddr = VirtAddr(0x10_0000_0000);
/// Pages there.
pub const AWAY_PAGES: usize = 8;
/// Where the operations are: in the same GiB as [`AWAY`], in another PTE table.
pub const HERE: VirtAddr = VirtAddr(0x10_0400_0000);

/// What other CPUs walk.
pub struct Target<A: Arch> {
    /// The mm that they load.
    pub mm: Arc<Mm<A>>,
    /// In a chain, the mm that leaves second; in mode `contend` one of them loads it.
    pub second: Option<Arc<Mm<A>>>,
    /// What they walk in mode `contend`.
    pub range: Range<VirtAddr>,
    /// How far apart walks in that range begin; consecutive operations are as far apart.
    pub step: u64,
    /// Its pages are anonymous, so that what a TLB shows can be judged.
    pub anon: bool,
    /// In mode `contend` the other CPUs drop pages of it as well.
    pub drops: bool,
}

/// A workload set up for one cell.
pub trait Scene<A: Arch> {
    /// What other CPUs shall do.
    fn target(&self) -> Target<A>;
    /// Makes everything ready for operation number `op`. Not counted. Other CPUs pause.
    fn prepare(&mut self, cpu: &'static Cpu<A>, op: u64) -> Result<(), OpError>;
    /// Does operation number `op`.
    fn operate(&mut self, cpu: &'static Cpu<A>, op: u64) -> Result<(), OpError>;
    /// Takes everything down. No other CPU has any of its mms loaded.
    fn finish(self: Box<Self>, cpu: &'static Cpu<A>);
}

/// Sets up a workload.
pub fn scene<A: Arch>(id: WorkloadId, cpu: &'static Cpu<A>) -> Result<Box<dyn Scene<A>>, OpError> {
    use WorkloadId::*;
    Ok(match id {
        Munmap2m | Munmap4k | Dontneed2m | Dontneed4k | Mprotect2m | Mprotect4k | CollapseAnon => {
            Box::new(anon::Anon::new(cpu, id)?)
        }
        CollapseShmem | RetractTruncate => Box::new(file::FileScene::new(cpu, id)?),
        Fork => Box::new(fork::ForkScene::new(cpu)?),
        UnshareMunmapLast | UnshareMunmap3way | UnshareMprotectLast | UnshareExit | UnshareChain | MunmapMany => {
            Box::new(shared::Shared::new(cpu, id)?)
        }
        _ => return Err(OpError::NoScene),
    })
}

/// An mm with the pages at [`AWAY`] populated.
fn mm_with_pages_away<A: Arch>(cpu: &'static Cpu<A>) -> Result<Arc<Mm<A>>, MapError> {
    let mm = Mm::new(cpu, 0)?;
    let range = AWAY..AWAY.add(AWAY_PAGES as u64 * PAGE_SIZE);
    mm.map(range.clone(), Perm::WRITE, Backing::Anon)?;
    fault::populate(cpu, &mm, range)?;
    Ok(mm)
}
