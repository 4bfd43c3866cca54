//! Files in memory: their pages, who maps them, and the PMD tables that mms share for them.
//!
//! One lock per file plays the part of Linux's `i_mmap` lock and of its page-cache lock: it is held while a shared
//! table is found, joined or left, until the flush and the sync for those that left are done. That sync may be a grace
//! period, so nobody takes this lock inside a read section of [`crate::smp::rcu`], nor under a table's lock that a
//! reader in such a section may want: see [`crate::smp::lock`]. [`File::lock`] refuses.

use alloc::collections::BTreeMap;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::ops::Range;
use core::sync::atomic::Ordering;

use crate::addr::{ENTRIES, Level, PMD_SIZE, Pfn, VirtAddr};
use crate::arch::Arch;
use crate::mm::address_space::{FILE, Mm, PLAIN};
use crate::mm::frame::FrameState;
use crate::mm::frame_alloc::OutOfFrames;
use crate::mm::page::{self, HUGE_ORDER};
use crate::mm::share::SharedTable;
use crate::object::account::trim;
use crate::smp::cpu::Cpu;
use crate::smp::lock::{Mutex, MutexGuard};
use crate::smp::rcu;

/// Where a file is mapped.
pub struct Mapping<A: Arch> {
    /// The address space.
    pub mm: Weak<Mm<A>>,
    /// Where in it.
    pub range: Range<VirtAddr>,
    /// The file's byte that is at the start.
    pub offset: u64,
    /// The last visit ([`Visits::visit`]) that has been here, or was under way when it was made.
    visited: u64,
}

/// What the file's lock protects.
pub struct Contents<A: Arch> {
    /// Pages by byte offset: 4 KiB ones, and 2 MiB ones at their first byte.
    pub pages: BTreeMap<u64, Pfn>,
    /// Mappings, in no order.
    pub mappings: Vec<Mapping<A>>,
    /// PMD tables that show this file, by the byte offset of their first entry.
    pub tables: BTreeMap<u64, SharedTable<A>>,
    /// How many visits there have been.
    visits: u64,
}

/// A file in memory.
pub struct File<A: Arch> {
    /// Its number: no mm's.
    pub id: u32,
    /// Its length in bytes: nothing belongs behind it.
    pub bytes: u64,
    contents: Mutex<A, Contents<A>>,
    /// Held during a visit: there is one at a time. Comes before map locks, which come before the file's own.
    visiting: Mutex<A, ()>,
}

/// The right to visit who has mapped a file.
pub(super) struct Visits<'f, A: Arch> {
    file: &'f File<A>,
    _alone: MutexGuard<'f, A, ()>,
}

impl<A: Arch> Visits<'_, A> {
    /// Calls `each` for every mapping that shows a byte of `range`, with its mm, where it is there and the byte at its
    /// start, and with no lock of the file held. A mapping that is made meanwhile is left out. Takes no memory, however
    /// many there are.
    pub(super) fn visit(&self, range: &Range<u64>, each: impl FnMut(&Arc<Mm<A>>, Range<VirtAddr>, u64)) {
        self.file.visit(range, each);
    }
}

impl<A: Arch> File<A> {
    /// An empty file of any length.
    pub fn new() -> Arc<File<A>> {
        File::of_bytes(u64::MAX)
    }

    /// An empty file of `bytes` bytes.
    pub fn of_bytes(bytes: u64) -> Arc<File<A>> {
        File::numbered(A::machine().next_mm.fetch_add(1, Ordering::Relaxed), bytes)
    }

    /// An empty file of `bytes` bytes whose pages programs see: they begin zeroed and hold what programs write.
    pub fn for_programs(bytes: u64) -> Arc<File<A>> {
        // Numbers of their own, which may come again: programs shall not use up those of address spaces by making
        // files.
        let id = A::machine().next_file.fetch_add(1, Ordering::Relaxed);
        File::numbered((id % FILE) | FILE | PLAIN, bytes)
    }

    fn numbered(id: u32, bytes: u64) -> Arc<File<A>> {
        let contents = Contents { pages: BTreeMap::new(), mappings: Vec::new(), tables: BTreeMap::new(), visits: 0 };
        Arc::new(File { id, bytes, contents: Mutex::<A, _>::new(contents), visiting: Mutex::<A, _>::new(()) })
    }

    /// Takes the file's lock: see the head of this module.
    ///
    /// # Panics
    /// In a build with `checking`, in a read section: who has the lock may wait for a grace period, which the section
    /// holds up.
    pub fn lock(&self) -> MutexGuard<'_, A, Contents<A>> {
        if cfg!(feature = "checking") {
            rcu::assert_outside(A::this_cpu(), "takes a file's lock");
        }
        self.contents.lock()
    }

    pub(super) fn add_mapping(&self, mm: &Arc<Mm<A>>, range: &Range<VirtAddr>, offset: u64) {
        let mut contents = self.lock();
        let visited = contents.visits;
        contents.mappings.push(Mapping { mm: Arc::downgrade(mm), range: range.clone(), offset, visited });
    }

    /// Waits until nobody else visits: nobody does before this is dropped.
    pub(super) fn begin_visits(&self) -> Visits<'_, A> {
        Visits { file: self, _alone: self.visiting.lock() }
    }

    fn visit(&self, range: &Range<u64>, mut each: impl FnMut(&Arc<Mm<A>>, Range<VirtAddr>, u64)) {
        let visit = {
            let mut contents = self.lock();
            contents.visits += 1;
            contents.visits
        };
        let due = |mapping: &Mapping<A>| {
            let end = mapping.offset + (mapping.range.end.0 - mapping.range.start.0);
            mapping.visited < visit && mapping.offset < range.end && range.start < end
        };
        let mut from = 0;
        loop {
            let mut contents = self.lock();
            let list = &mut contents.mappings;
            let ahead = list.iter().skip(from).position(due).map(|n| from + n);
            // Others that went meanwhile may have moved one to a place that was passed.
            let Some(at) = ahead.or_else(|| list.iter().position(due)) else { return };
            from = at + 1;
            let mapping = &mut list[at];
            mapping.visited = visit;
            let (mm, range, offset) = (mapping.mm.upgrade(), mapping.range.clone(), mapping.offset);
            drop(contents);
            if let Some(mm) = mm {
                each(&mm, range, offset);
            }
        }
    }

    /// Forgets the part `range` of a mapping of `mm`.
    pub(super) fn remove_mapping(&self, mm: &Mm<A>, range: &Range<VirtAddr>) {
        let mut contents = self.lock();
        let ours = |mapping: &Mapping<A>| core::ptr::eq(mapping.mm.as_ptr(), mm);
        if let Some(whole) = contents.mappings.iter().rposition(|m| ours(m) && m.range == *range) {
            contents.mappings.swap_remove(whole);
            trim(&mut contents.mappings);
            return;
        }
        let mut kept = Vec::new();
        for mapping in contents.mappings.drain(..) {
            if !ours(&mapping) || mapping.range.end <= range.start || range.end <= mapping.range.start {
                kept.push(mapping);
                continue;
            }
            if mapping.range.start < range.start {
                let lower = mapping.range.start..range.start;
                kept.push(Mapping { mm: mapping.mm.clone(), range: lower, ..mapping });
            }
            if range.end < mapping.range.end {
                let offset = mapping.offset + (range.end.0 - mapping.range.start.0);
                kept.push(Mapping { range: range.end..mapping.range.end, offset, ..mapping });
            }
        }
        contents.mappings = kept;
    }

    /// The page that holds byte `offset`: with its head, and the frame itself.
    pub fn find(&self, offset: u64) -> Option<Pfn> {
        let contents = self.lock();
        find(&contents, offset)
    }

    /// The 4 KiB page at `offset`, allocated if it is not there, with a reference for the caller.
    pub fn page(&self, cpu: &Cpu<A>, offset: u64) -> Result<Pfn, OutOfFrames> {
        let mut contents = self.lock();
        if let Some(pfn) = find(&contents, offset) {
            A::machine().frames.get(page::head::<A>(pfn)).get();
            return Ok(pfn);
        }
        let pfn = page::alloc(cpu, FrameState::File, self.id, offset)?;
        A::machine().frames.get(pfn).get();
        contents.pages.insert(offset, pfn);
        Ok(pfn)
    }

    /// The 2 MiB page at `offset`, allocated and zeroed if it is not there, without a reference for the caller.
    pub fn huge_page(&self, contents: &mut Contents<A>, offset: u64) -> Result<Pfn, OutOfFrames> {
        debug_assert!(offset.is_multiple_of(PMD_SIZE));
        if let Some(pfn) = contents.pages.get(&offset) {
            return Ok(*pfn);
        }
        let pfn = page::alloc_huge::<A>(FrameState::File, self.id, offset)?;
        crate::mm::frame_alloc::zero::<A>(pfn, 1 << HUGE_ORDER);
        for i in 0..1 << HUGE_ORDER {
            page::tag::<A>(Pfn(pfn.0 + i), self.id, offset + ((i as u64) << 12));
        }
        contents.pages.insert(offset, pfn);
        Ok(pfn)
    }

    /// Drops the pages of `range` (byte offsets), which cuts none of them, from the file; those that are referred to
    /// elsewhere live on there. [`crate::mm::truncate`] sees to it that no mm does.
    pub(super) fn drop_pages(&self, cpu: &Cpu<A>, range: Range<u64>) {
        let mut contents = self.lock();
        while drop_one(cpu, &mut contents, range.clone()) {}
    }

    /// Drops everything. No mm maps it any more.
    pub fn destroy(&self, cpu: &Cpu<A>) {
        while !self.destroy_some(cpu) {}
    }

    /// Drops as many pages as one table has entries. True: there are no more. No mm maps the file any more.
    pub(crate) fn destroy_some(&self, cpu: &Cpu<A>) -> bool {
        let mut contents = self.lock();
        debug_assert!(contents.tables.is_empty());
        !(0..ENTRIES).all(|_| drop_one(cpu, &mut contents, 0..u64::MAX))
    }
}

/// Drops the first page of `range`. False: there is none.
fn drop_one<A: Arch>(cpu: &Cpu<A>, contents: &mut Contents<A>, range: Range<u64>) -> bool {
    let Some(offset) = contents.pages.range(range).next().map(|(offset, _)| *offset) else { return false };
    if let Some(pfn) = contents.pages.remove(&offset) {
        page::put(cpu, pfn, 1);
    }
    true
}

fn find<A: Arch>(contents: &Contents<A>, offset: u64) -> Option<Pfn> {
    if let Some(pfn) = contents.pages.get(&offset) {
        return Some(*pfn);
    }
    let base = VirtAddr(offset).align_down(Level::Pmd).0;
    let pfn = contents.pages.get(&base)?;
    (A::machine().frames.get(*pfn).order() == HUGE_ORDER).then_some(Pfn(pfn.0 + ((offset - base) >> 12) as u32))
}
