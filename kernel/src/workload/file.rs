//! Workloads on files: collapse of a 2 MiB page that is mapped by PTEs, and retracting a table before its pages are
//! truncated.

use alloc::boxed::Box;
use alloc::sync::Arc;
use core::ops::Range;

use super::{HERE, OpError, Scene, Target, WorkloadId, mm_with_pages_away};
use crate::addr::{PAGE_SIZE, PMD_SIZE, VirtAddr};
use crate::arch::Arch;
use crate::mm::address_space::{Backing, Mm};
use crate::mm::collapse::CollapseError;
use crate::mm::entry::Perm;
use crate::mm::exit;
use crate::mm::fault;
use crate::mm::file::File;
use crate::mm::retract::{collapse_pte_mapped, retract_page_tables};
use crate::mm::truncate::truncate;
use crate::mm::unmap::munmap;
use crate::smp::cpu::Cpu;
use crate::tlb::switch;

/// Pages that are truncated in one operation.
const TRUNCATED: u64 = 8;
/// Where the truncated pages' frames are used again at once.
const AGAIN: VirtAddr = VirtAddr(0x10_0600_0000);

/// One mm that maps 2 MiB of a file.
pub struct FileScene<A: Arch> {
    id: WorkloadId,
    mm: Arc<Mm<A>>,
    file: Arc<File<A>>,
    range: Range<VirtAddr>,
}

impl<A: Arch> FileScene<A> {
    /// The mm and the file, not mapped yet.
    pub fn new(cpu: &'static Cpu<A>, id: WorkloadId) -> Result<FileScene<A>, OpError> {
        let mm = mm_with_pages_away(cpu)?;
        switch::load(cpu, &mm);
        let file = File::new();
        if id == WorkloadId::CollapseShmem {
            let mut contents = file.lock();
            file.huge_page(&mut contents, 0).map_err(crate::mm::address_space::MapError::from)?;
        }
        Ok(FileScene { id, mm, file, range: HERE..HERE.add(PMD_SIZE) })
    }

    fn used(&self) -> Range<VirtAddr> {
        match self.id {
            WorkloadId::RetractTruncate => self.range.start..self.range.start.add(TRUNCATED * PAGE_SIZE),
            _ => self.range.clone(),
        }
    }
}

impl<A: Arch> Scene<A> for FileScene<A> {
    fn target(&self) -> Target<A> {
        Target { mm: self.mm.clone(), second: None, range: self.used(), step: 0, anon: false, drops: false }
    }

    fn prepare(&mut self, cpu: &'static Cpu<A>, op: u64) -> Result<(), OpError> {
        let again = AGAIN..AGAIN.add(TRUNCATED * PAGE_SIZE);
        if op > 0 {
            munmap(cpu, &self.mm, self.range.clone())?;
            if self.id == WorkloadId::RetractTruncate {
                munmap(cpu, &self.mm, again.clone())?;
            }
        }
        self.mm.map(self.range.clone(), Perm::WRITE, Backing::File(self.file.clone(), 0))?;
        fault::populate(cpu, &self.mm, self.used())?;
        if self.id == WorkloadId::RetractTruncate {
            self.mm.map(again.clone(), Perm::WRITE, Backing::Anon)?;
            // The table and one page, so that the operation allocates pages only.
            let last = again.end.0 - PAGE_SIZE;
            fault::handle(cpu, &self.mm, VirtAddr(last), true)?;
        }
        Ok(())
    }

    fn operate(&mut self, cpu: &'static Cpu<A>, _op: u64) -> Result<(), OpError> {
        if self.id == WorkloadId::CollapseShmem {
            return match collapse_pte_mapped(cpu, &self.mm, self.range.start) {
                // A walker's slow path was in the way.
                Err(CollapseError::NotPopulated(_) | CollapseError::InUse(_)) => Ok(()),
                result => Ok(result?),
            };
        }
        retract_page_tables(cpu, &self.file, 0..PMD_SIZE);
        truncate(cpu, &self.file, 0..PMD_SIZE)?;
        Ok(fault::populate(cpu, &self.mm, AGAIN..AGAIN.add(TRUNCATED * PAGE_SIZE))?)
    }

    fn finish(self: Box<Self>, cpu: &'static Cpu<A>) {
        exit::exit(cpu, self.mm);
        self.file.destroy(cpu);
    }
}
