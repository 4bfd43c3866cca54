//! Address spaces: a root table, the regions that say what belongs where, the CPUs that may have it in their TLBs.

use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::ops::Range;

use crate::addr::{Level, Pfn, VirtAddr};
use crate::arch::{Arch, Asid};
use crate::atomic::{AtomicU32, AtomicU64, Ordering};
use crate::guard;
use crate::mm::entry::Perm;
use crate::mm::file::File;
use crate::mm::frame_alloc::OutOfFrames;
use crate::mm::table::{self, Table};
use crate::smp::cpu::Cpu;
use crate::smp::lock::RwLock;
use crate::smp::mask::AtomicCpuMask;
use crate::tlb::tag::Tag;
use crate::tlb::transport::mixed::Promotion;

/// What a region shows.
pub enum Backing<A: Arch> {
    /// Zeroed pages of its own.
    Anon,
    /// Pages of a file, 4 KiB each, from a byte offset on.
    File(Arc<File<A>>, u64),
    /// 2 MiB pages of a file, from a byte offset on that is as aligned as the region: whole PMD tables are shared
    /// between mms.
    Shared(Arc<File<A>>, u64),
}

impl<A: Arch> Clone for Backing<A> {
    fn clone(&self) -> Self {
        match self {
            Backing::Anon => Backing::Anon,
            Backing::File(file, offset) => Backing::File(file.clone(), *offset),
            Backing::Shared(file, offset) => Backing::Shared(file.clone(), *offset),
        }
    }
}

impl<A: Arch> Backing<A> {
    /// The same file, `bytes` further on.
    pub fn advanced(&self, bytes: u64) -> Backing<A> {
        match self {
            Backing::Anon => Backing::Anon,
            Backing::File(file, offset) => Backing::File(file.clone(), offset + bytes),
            Backing::Shared(file, offset) => Backing::Shared(file.clone(), offset + bytes),
        }
    }
}

/// A range of an address space in which everything is of one kind.
pub struct Region<A: Arch> {
    /// Where it is.
    pub range: Range<VirtAddr>,
    /// What its leaves allow.
    pub perm: Perm,
    /// What it shows.
    pub backing: Backing<A>,
    /// It is being unmapped, and up to here it is. Nothing is put into it any more, and nothing beside it in its place.
    pub(super) gone: Option<VirtAddr>,
}

impl<A: Arch> Clone for Region<A> {
    fn clone(&self) -> Self {
        Region { range: self.range.clone(), perm: self.perm, backing: self.backing.clone(), gone: self.gone }
    }
}

/// A request that an address space cannot grant.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum MapError {
    /// Empty, unaligned, or beyond the user half.
    #[error("{0}..{1} is not a range of whole user pages")]
    BadRange(VirtAddr, VirtAddr),
    /// Something else is there.
    #[error("{0}..{1} overlaps a region that is mapped already")]
    Overlaps(VirtAddr, VirtAddr),
    /// Nothing is there.
    #[error("nothing is mapped at {0}")]
    NotMapped(VirtAddr),
    /// The 2 MiB pages of a shared region are mapped whole or not at all.
    #[error("{0} lies inside a 2 MiB page of a shared region: move it to a multiple of 2 MiB")]
    CutsHugePage(VirtAddr),
    /// The region does not allow it.
    #[error("the region at {0} does not allow this access")]
    Forbidden(VirtAddr),
    /// Memory is short.
    #[error(transparent)]
    OutOfFrames(#[from] OutOfFrames),
    /// All numbers of address spaces were used, each once: what a CPU has loaded is told by its number.
    #[error("there have been {0} address spaces, and there is no number for another")]
    OutOfNumbers(u32),
}

/// In the id of an mm or file whose pages programs see: the oracle leaves no tags in them.
pub const PLAIN: u32 = 1 << 31;
/// In the id of a file of programs beside [`PLAIN`], and in no mm's.
pub(super) const FILE: u32 = 1 << 30;

/// An address space.
pub struct Mm<A: Arch> {
    /// Its number; never used again.
    pub id: u32,
    /// The frame of its root table.
    pub root: Pfn,
    /// What its translations are tagged with: see [`crate::tlb::tag`].
    pub(crate) tag: Tag,
    /// Whoever has this mm's tag knows it.
    pub(crate) itself: Weak<Mm<A>>,
    /// The CPUs that may hold translations of it: see [`crate::tlb::switch`].
    pub mask: AtomicCpuMask,
    flush_generation: AtomicU64,
    /// How it flushes on transport `mixed`.
    pub promotion: Promotion,
    /// Gathers under way: a second one must flush what the first has cleared, see [`crate::mm::gather`].
    pub(super) gathers: AtomicU32,
    /// Regions in ascending order; the lock is the mm's map lock. Operations that remove tables others rely on hold it
    /// for writing.
    pub map: RwLock<A, Vec<Region<A>>>,
    /// Odd while a fork write-protects: see [`crate::mm::fork`].
    pub(super) write_protect_seq: AtomicU32,
    /// The mms that it descends from by fork: its pages may still be any of theirs.
    pub ancestors: Vec<u32>,
}

impl<A: Arch> Mm<A> {
    /// An empty address space; a child of mm number `parent`, unless that is 0.
    pub fn new(cpu: &Cpu<A>, parent: u32) -> Result<Arc<Mm<A>>, MapError> {
        Mm::with_ancestors(cpu, if parent == 0 { Vec::new() } else { alloc::vec![parent] }, 0)
    }

    /// An empty address space for programs: its pages begin zeroed and hold what programs write.
    pub fn for_programs(cpu: &Cpu<A>) -> Result<Arc<Mm<A>>, MapError> {
        Mm::with_ancestors(cpu, Vec::new(), PLAIN)
    }

    /// An empty address space that descends from `parent` and from all that `parent` descends from.
    pub(crate) fn child_of(cpu: &Cpu<A>, parent: &Mm<A>) -> Result<Arc<Mm<A>>, MapError> {
        let mut ancestors = Vec::with_capacity(parent.ancestors.len() + 1);
        ancestors.extend_from_slice(&parent.ancestors);
        ancestors.push(parent.id);
        Mm::with_ancestors(cpu, ancestors, parent.id & PLAIN)
    }

    fn with_ancestors(cpu: &Cpu<A>, ancestors: Vec<u32>, plain: u32) -> Result<Arc<Mm<A>>, MapError> {
        let machine = A::machine();
        // Never used again: a CPU that shows a number has that mm loaded and no other.
        let next = |id: u32| (id < FILE).then_some(id + 1);
        let id = machine.next_mm.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
        let id = id.map_err(MapError::OutOfNumbers)? | plain;
        let root = table::alloc(cpu, id, Level::Pgd, VirtAddr(0))?;
        // SAFETY: the frame is zeroed and nobody else knows it.
        unsafe { A::init_root(root.pfn().addr()) };
        let mm = Arc::new_cyclic(|itself| Mm {
            id,
            root: root.pfn(),
            tag: Tag::default(),
            itself: itself.clone(),
            mask: AtomicCpuMask::new(),
            flush_generation: AtomicU64::new(1),
            promotion: Promotion::default(),
            gathers: AtomicU32::new(0),
            map: RwLock::<A, _>::new(Vec::new()),
            write_protect_seq: AtomicU32::new(0),
            ancestors,
        });
        machine.asids.lock().give(&mm);
        Ok(mm)
    }

    /// Whether a page that mm number `owner` got first may be this one's: its own, or inherited.
    pub fn descends_from(&self, owner: u32) -> bool {
        owner == self.id || self.ancestors.contains(&owner)
    }

    /// The root table.
    #[inline(always)]
    pub fn root(&self) -> Table<A> {
        Table::at(self.root)
    }

    /// What its translations are tagged with.
    #[inline(always)]
    pub fn asid(&self) -> Asid {
        self.tag.asid()
    }

    /// How many flushes it has seen. Acquire: pairs with `next_flush_generation`; what is looked at behind it has what
    /// those flushes are about (tests/litmus/hand-over).
    #[inline]
    pub fn flush_generation(&self) -> u64 {
        self.flush_generation.load(Ordering::Acquire)
    }

    /// Counts one more flush. Release: the entries were changed before (tests/litmus/hand-over). [`crate::tlb::switch`]
    /// puts a full fence behind.
    pub(crate) fn next_flush_generation(&self) -> u64 {
        self.flush_generation.fetch_add(1, Ordering::Release) + 1
    }

    /// Adds a region. Nothing may be both written and executed.
    pub fn map(self: &Arc<Mm<A>>, range: Range<VirtAddr>, perm: Perm, backing: Backing<A>) -> Result<(), MapError> {
        check_range::<A>(&range)?;
        check_perm(&range, perm)?;
        if let Backing::Shared(_, offset) = &backing {
            for at in [range.start, range.end, VirtAddr(*offset)] {
                if !at.is_aligned(Level::Pmd) {
                    return Err(MapError::CutsHugePage(at));
                }
            }
        }
        let mut map = self.map.write();
        let at = map.partition_point(|r| r.range.end <= range.start);
        if map.get(at).is_some_and(|r| r.range.start < range.end) {
            return Err(MapError::Overlaps(range.start, range.end));
        }
        if let Backing::File(file, offset) | Backing::Shared(file, offset) = &backing {
            file.add_mapping(self, &range, *offset);
        }
        map.insert(at, Region { range, perm, backing, gone: None });
        Ok(())
    }

    /// The table of `level` on the way to `va`, if there is one. For whoever holds a lock that keeps it there.
    pub fn table_at(&self, level: Level, va: VirtAddr) -> Option<Table<A>> {
        let mut table = self.root();
        let mut at = Level::Pgd;
        while at > level {
            table = table.below(at, va)?;
            at = at.below()?;
        }
        Some(table)
    }

    /// Gives the tag back. The address space is empty and flushed everywhere.
    pub(super) fn release_asid(&self) {
        A::machine().asids.lock().give_back(self);
    }
}

/// Whether `range` is of whole pages of the user half.
pub(super) fn check_range<A: Arch>(range: &Range<VirtAddr>) -> Result<(), MapError> {
    let aligned = range.start.is_aligned(Level::Pte) && range.end.is_aligned(Level::Pte);
    if aligned && range.start < range.end && range.end <= A::USER_END {
        Ok(())
    } else {
        Err(MapError::BadRange(range.start, range.end))
    }
}

/// Whether leaves of `range` may have `perm`: not to be both written and executed.
pub(super) fn check_perm(range: &Range<VirtAddr>, perm: Perm) -> Result<(), MapError> {
    if perm == Perm::all() { Err(MapError::Forbidden(range.start)) } else { Ok(()) }
}

/// Whether no end of `range` lies inside a page of a region, all of whose pages are whole 4 KiB, or whole 2 MiB where
/// it is shared.
pub(super) fn check_cuts<A: Arch>(map: &[Region<A>], range: &Range<VirtAddr>) -> Result<(), MapError> {
    for cut in [range.start, range.end] {
        let shared =
            region_at(map, cut).is_some_and(|r| matches!(r.backing, Backing::Shared(..)) && r.range.start < cut);
        if shared && !cut.is_aligned(Level::Pmd) {
            return Err(MapError::CutsHugePage(cut));
        }
    }
    Ok(())
}

/// The region that `va` lies in, but for one that is being unmapped.
pub(crate) fn region_at<A: Arch>(map: &[Region<A>], va: VirtAddr) -> Option<&Region<A>> {
    let at = map.partition_point(|r| r.range.end <= va);
    map.get(at).filter(|r| r.range.start <= va && (r.gone.is_none() || !guard!(GoingShut)))
}

/// Cuts the regions at the ends of `range`, so that those inside it are whole.
pub(super) fn split_at<A: Arch>(map: &mut Vec<Region<A>>, range: &Range<VirtAddr>) {
    for cut in [range.start, range.end] {
        let at = map.partition_point(|r| r.range.end <= cut);
        if map.get(at).is_none_or(|r| cut <= r.range.start) {
            continue;
        }
        let mut upper = map[at].clone();
        upper.backing = upper.backing.advanced(cut.0 - upper.range.start.0);
        upper.range.start = cut;
        map[at].range.end = cut;
        map.insert(at + 1, upper);
    }
}
