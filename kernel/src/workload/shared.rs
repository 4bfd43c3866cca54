//! Workloads on shared PMD tables: one mm leaves by munmap, mprotect or exit; others stay.
//!
//! munmap is laid out as the reference measurement was: eight mappings of 1 GiB under one PUD table, unmapped one by
//! one, so that every eighth operation frees the PUD table as well, which costs one more flush.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Range;

use super::{OpError, Scene, Target, WorkloadId, mm_with_pages_away};
use crate::addr::{PAGE_SIZE, PUD_SIZE, VirtAddr};
use crate::arch::Arch;
use crate::mm::address_space::{Backing, Mm};
use crate::mm::entry::Perm;
use crate::mm::exit;
use crate::mm::fault;
use crate::mm::file::File;
use crate::mm::protect::mprotect;
use crate::mm::unmap::munmap;
use crate::smp::cpu::Cpu;
use crate::tlb::switch;

/// Mappings under one PUD table.
pub const BATCH: u64 = 8;
/// Anonymous pages before them, in [`WorkloadId::MunmapMany`].
const PAGES_BEFORE: u64 = 64;
/// Where they are: the first of 512 GiB that hold nothing else.
const GIBS: VirtAddr = VirtAddr(0x100_0000_0000);

/// One mm that leaves, one or two that stay, and a file of as many GiB as are shared.
pub struct Shared<A: Arch> {
    id: WorkloadId,
    leaver: Option<Arc<Mm<A>>>,
    /// Leaves second, in a chain; it is loaded nowhere, but by one of the crowd in mode `contend`.
    second: Option<Arc<Mm<A>>>,
    stayers: Vec<Arc<Mm<A>>>,
    file: Arc<File<A>>,
}

impl<A: Arch> Shared<A> {
    /// The mms that stay have the tables; the one that leaves has none yet.
    pub fn new(cpu: &'static Cpu<A>, id: WorkloadId) -> Result<Shared<A>, OpError> {
        let file = File::new();
        let mut scene = Shared { id, leaver: None, second: None, stayers: Vec::new(), file };
        for _ in 0..if id == WorkloadId::UnshareMunmap3way { 2 } else { 1 } {
            let mm = mm_with_pages_away(cpu)?;
            for gib in 0..scene.gibs() {
                scene.share(cpu, &mm, gib)?;
            }
            scene.stayers.push(mm);
        }
        if id != WorkloadId::UnshareExit {
            let mm = mm_with_pages_away(cpu)?;
            switch::load(cpu, &mm);
            scene.leaver = Some(mm);
        }
        if id == WorkloadId::UnshareChain {
            scene.second = Some(Mm::new(cpu, 0)?);
        }
        Ok(scene)
    }

    fn gibs(&self) -> u64 {
        if matches!(self.id, WorkloadId::UnshareMunmapLast | WorkloadId::UnshareMunmap3way) { BATCH } else { 1 }
    }

    /// Maps one GiB of the file in `mm`, and joins its table.
    fn share(&self, cpu: &'static Cpu<A>, mm: &Arc<Mm<A>>, gib: u64) -> Result<(), OpError> {
        let range = self.gib(gib);
        mm.map(range.clone(), Perm::WRITE, Backing::Shared(self.file.clone(), gib * PUD_SIZE))?;
        Ok(fault::handle(cpu, mm, range.start, false)?)
    }

    fn gib(&self, gib: u64) -> Range<VirtAddr> {
        let start = GIBS.add(gib * PUD_SIZE);
        start..start.add(PUD_SIZE)
    }
}

/// The anonymous pages that go together with the shared ones.
fn before_gibs() -> Range<VirtAddr> {
    VirtAddr(GIBS.0 - PAGES_BEFORE * PAGE_SIZE)..GIBS
}

impl<A: Arch> Scene<A> for Shared<A> {
    fn target(&self) -> Target<A> {
        let mm = self.leaver.as_ref().unwrap_or(&self.stayers[0]).clone();
        let range = GIBS..GIBS.add(self.gibs() * PUD_SIZE);
        Target { mm, second: self.second.clone(), range, step: PUD_SIZE, anon: false, drops: false }
    }

    fn prepare(&mut self, cpu: &'static Cpu<A>, op: u64) -> Result<(), OpError> {
        match self.id {
            WorkloadId::UnshareExit => {
                // The mm that exits has run on this CPU and no other.
                let mm = Mm::new(cpu, 0)?;
                self.share(cpu, &mm, 0)?;
                switch::load(cpu, &mm);
                self.leaver = Some(mm);
                Ok(())
            }
            WorkloadId::UnshareChain => {
                let both = [&self.leaver, &self.second];
                both.into_iter().flatten().try_for_each(|mm| self.share(cpu, mm, 0))
            }
            WorkloadId::MunmapMany => {
                let Some(mm) = self.leaver.clone() else { return Ok(()) };
                mm.map(before_gibs(), Perm::WRITE, Backing::Anon)?;
                fault::populate(cpu, &mm, before_gibs())?;
                self.share(cpu, &mm, 0)
            }
            WorkloadId::UnshareMprotectLast => {
                let Some(mm) = self.leaver.clone() else { return Ok(()) };
                if op > 0 {
                    munmap(cpu, &mm, self.gib(0))?;
                }
                self.share(cpu, &mm, 0)
            }
            _ if op.is_multiple_of(BATCH) => {
                let Some(mm) = self.leaver.clone() else { return Ok(()) };
                (0..BATCH).try_for_each(|gib| self.share(cpu, &mm, gib))
            }
            _ => Ok(()),
        }
    }

    fn operate(&mut self, cpu: &'static Cpu<A>, op: u64) -> Result<(), OpError> {
        match self.id {
            WorkloadId::UnshareExit => {
                if let Some(mm) = self.leaver.take() {
                    exit::exit(cpu, mm);
                }
            }
            WorkloadId::UnshareChain => {
                for mm in [&self.leaver, &self.second].into_iter().flatten() {
                    munmap(cpu, mm, self.gib(0))?;
                }
            }
            WorkloadId::UnshareMprotectLast => {
                if let Some(mm) = &self.leaver {
                    mprotect(cpu, mm, self.gib(0), Perm::empty())?;
                }
            }
            WorkloadId::MunmapMany => {
                if let Some(mm) = &self.leaver {
                    munmap(cpu, mm, before_gibs().start..self.gib(0).end)?;
                }
            }
            _ => {
                if let Some(mm) = &self.leaver {
                    munmap(cpu, mm, self.gib(op % BATCH))?;
                }
            }
        }
        Ok(())
    }

    fn finish(mut self: Box<Self>, cpu: &'static Cpu<A>) {
        for mm in self.leaver.take().into_iter().chain(self.second.take()).chain(core::mem::take(&mut self.stayers)) {
            exit::exit(cpu, mm);
        }
        self.file.destroy(cpu);
    }
}
