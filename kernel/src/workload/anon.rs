//! Workloads on anonymous memory: munmap, `MADV_DONTNEED`, mprotect, collapse.

use alloc::boxed::Box;
use alloc::sync::Arc;
use core::ops::Range;

use super::{HERE, OpError, Scene, Target, WorkloadId, mm_with_pages_away};
use crate::addr::{PAGE_SIZE, PMD_SIZE, VirtAddr};
use crate::arch::Arch;
use crate::mm::address_space::{Backing, Mm};
use crate::mm::collapse::{self, CollapseError};
use crate::mm::entry::Perm;
use crate::mm::exit;
use crate::mm::fault;
use crate::mm::protect::mprotect;
use crate::mm::unmap::{dontneed, munmap};
use crate::smp::cpu::Cpu;
use crate::tlb::switch;

/// How often a collapse is tried again when a walker had a reference to one of the pages.
const COLLAPSE_TRIES: usize = 16;

/// One mm, and one range in it that each operation changes.
pub struct Anon<A: Arch> {
    id: WorkloadId,
    mm: Arc<Mm<A>>,
    range: Range<VirtAddr>,
}

impl<A: Arch> Anon<A> {
    /// The mm, without the range.
    pub fn new(cpu: &'static Cpu<A>, id: WorkloadId) -> Result<Anon<A>, OpError> {
        use WorkloadId::*;
        let mm = mm_with_pages_away(cpu)?;
        switch::load(cpu, &mm);
        let bytes = if matches!(id, Munmap4k | Dontneed4k | Mprotect4k) { PAGE_SIZE } else { PMD_SIZE };
        let range = HERE..HERE.add(bytes);
        if !matches!(id, Munmap2m | Munmap4k | CollapseAnon) {
            mm.map(range.clone(), Perm::WRITE, Backing::Anon)?;
        }
        Ok(Anon { id, mm, range })
    }

    fn map_again(&self, cpu: &'static Cpu<A>, op: u64) -> Result<(), OpError> {
        if op > 0 && self.id == WorkloadId::CollapseAnon {
            munmap(cpu, &self.mm, self.range.clone())?;
        }
        Ok(self.mm.map(self.range.clone(), Perm::WRITE, Backing::Anon)?)
    }
}

impl<A: Arch> Scene<A> for Anon<A> {
    fn target(&self) -> Target<A> {
        let drops = matches!(self.id, WorkloadId::Dontneed2m | WorkloadId::Dontneed4k);
        Target { mm: self.mm.clone(), second: None, range: self.range.clone(), step: 0, anon: true, drops }
    }

    fn prepare(&mut self, cpu: &'static Cpu<A>, op: u64) -> Result<(), OpError> {
        use WorkloadId::*;
        match self.id {
            Munmap2m | Munmap4k | CollapseAnon => self.map_again(cpu, op)?,
            Mprotect2m | Mprotect4k => mprotect(cpu, &self.mm, self.range.clone(), Perm::WRITE)?,
            _ => {}
        }
        Ok(fault::populate(cpu, &self.mm, self.range.clone())?)
    }

    fn operate(&mut self, cpu: &'static Cpu<A>, _op: u64) -> Result<(), OpError> {
        use WorkloadId::*;
        let range = self.range.clone();
        match self.id {
            Munmap2m | Munmap4k => munmap(cpu, &self.mm, range)?,
            Mprotect2m | Mprotect4k => mprotect(cpu, &self.mm, range, Perm::empty())?,
            CollapseAnon => {
                for attempt in 1.. {
                    match collapse::collapse_anon(cpu, &self.mm, range.start) {
                        Err(CollapseError::InUse(_)) if attempt < COLLAPSE_TRIES => A::relax(),
                        // Given up with everything as it was: a walker was in the way every time.
                        Err(CollapseError::InUse(_)) => break,
                        result => {
                            result?;
                            break;
                        }
                    }
                }
            }
            _ => dontneed(cpu, &self.mm, range)?,
        }
        Ok(())
    }

    fn finish(self: Box<Self>, cpu: &'static Cpu<A>) {
        exit::exit(cpu, self.mm);
    }
}
