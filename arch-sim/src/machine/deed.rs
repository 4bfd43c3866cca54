//! Operations of this machine's own, for what no workload of the kernel's does: each is done by the kernel's functions,
//! and prepared so that a few steps are all there is.

use std::sync::Arc;

use kernel::addr::{PAGE_SIZE, PMD_SIZE, VirtAddr};
use kernel::arch::Asid;
use kernel::mm::address_space::{Backing, Mm};
use kernel::mm::entry::Perm;
use kernel::mm::unmap::{dontneed, munmap};
use kernel::mm::{collapse, exit, fault};
use kernel::smp::cpu::Cpu;
use kernel::smp::rcu;
use kernel::tlb::switch;
use kernel::workload::{AWAY, HERE, OpError, Scene, Target};

use super::arch::Sim;
use super::direction;
use super::world::world;

/// An operation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Deed {
    /// An address space ends, and the next one gets its tag.
    ReuseTag,
    /// An address space is loaded that has no tag, and none is left: one is taken from another. That one's page is
    /// unmapped then.
    TakeTag,
    /// An address space that has no tag is loaded, and its page unmapped. Two others have had all tags there are.
    LoadUntagged,
    /// A 2 MiB page is dropped by `MADV_DONTNEED`, and a fault puts a PTE table in its place.
    DropHuge,
}

impl Deed {
    /// In words.
    pub fn name(self) -> &'static str {
        match self {
            Deed::ReuseTag => "reuse-tag",
            Deed::TakeTag => "take-tag",
            Deed::LoadUntagged => "load-untagged",
            Deed::DropHuge => "drop-huge",
        }
    }

    /// Sets it up.
    pub(super) fn scene<const TAGGED: bool>(
        self,
        cpu: &'static Cpu<Sim<TAGGED>>,
    ) -> Result<Box<dyn Scene<Sim<TAGGED>>>, OpError> {
        let bytes = if self == Deed::DropHuge { PMD_SIZE } else { PAGE_SIZE };
        let mut mm = with_pages(cpu, bytes)?;
        if self == Deed::DropHuge {
            switch::load(cpu, &mm);
            collapse::collapse_anon(cpu, &mm, HERE)?;
        }
        let mut others = Vec::new();
        if matches!(self, Deed::TakeTag | Deed::LoadUntagged) {
            others = vec![with_pages(cpu, bytes)?, with_pages(cpu, bytes)?];
            // This CPU has had both that have tags.
            for had in [&mm, &others[0]] {
                switch::load(cpu, had);
                world().note(HERE);
                world().fill();
            }
            switch::unload(cpu);
        }
        if self == Deed::LoadUntagged {
            std::mem::swap(&mut mm, &mut others[1]);
        }
        Ok(Box::new(Staged { deed: self, mm, bytes, others, next: None }))
    }
}

/// An address space with so many bytes of pages.
fn with_pages<const TAGGED: bool>(cpu: &'static Cpu<Sim<TAGGED>>, bytes: u64) -> Result<Arc<Mm<Sim<TAGGED>>>, OpError> {
    let mm = Mm::new(cpu, 0)?;
    mm.map(HERE..HERE.add(bytes), Perm::WRITE, Backing::Anon)?;
    fault::populate(cpu, &mm, HERE..HERE.add(bytes))?;
    Ok(mm)
}

struct Staged<const TAGGED: bool> {
    deed: Deed,
    mm: Arc<Mm<Sim<TAGGED>>>,
    bytes: u64,
    /// For [`Deed::TakeTag`]: one that has the other tag, and one that has none. For [`Deed::LoadUntagged`]: those that
    /// have tags.
    others: Vec<Arc<Mm<Sim<TAGGED>>>>,
    next: Option<Arc<Mm<Sim<TAGGED>>>>,
}

impl<const TAGGED: bool> Scene<Sim<TAGGED>> for Staged<TAGGED> {
    fn target(&self) -> Target<Sim<TAGGED>> {
        let range: std::ops::Range<VirtAddr> = HERE..HERE.add(self.bytes);
        Target { mm: self.mm.clone(), second: None, range, step: 0, anon: true, drops: false }
    }

    fn prepare(&mut self, _cpu: &'static Cpu<Sim<TAGGED>>, _op: u64) -> Result<(), OpError> {
        Ok(())
    }

    fn operate(&mut self, cpu: &'static Cpu<Sim<TAGGED>>, _op: u64) -> Result<(), OpError> {
        match self.deed {
            Deed::ReuseTag => {
                let tag = self.mm.asid();
                exit::exit(cpu, self.mm.clone());
                let next = with_pages(cpu, self.bytes)?;
                judge_tag(tag == next.asid(), &next);
                // What was retired, and is freed by whoever comes by after its grace period, the old root the last of
                // it, is used again.
                for _ in 0..3 {
                    rcu::synchronize(cpu);
                    rcu::poll(cpu);
                }
                exit::exit(cpu, with_pages(cpu, self.bytes)?);
                self.next = Some(next);
            }
            Deed::TakeTag => {
                let next = &self.others[1];
                let had_none = next.asid() == Asid(0);
                switch::load(cpu, next);
                judge_tag(had_none && next.asid() != Asid(0), next);
                munmap(cpu, &self.mm, HERE..HERE.add(self.bytes))?;
                // What it was is used again.
                next.map(AWAY..AWAY.add(2 * PAGE_SIZE), Perm::WRITE, Backing::Anon)?;
                fault::populate(cpu, next, AWAY..AWAY.add(2 * PAGE_SIZE))?;
            }
            Deed::LoadUntagged => {
                switch::load(cpu, &self.mm);
                munmap(cpu, &self.mm, HERE..HERE.add(self.bytes))?;
            }
            Deed::DropHuge => {
                dontneed(cpu, &self.mm, HERE..HERE.add(self.bytes))?;
                fault::handle(cpu, &self.mm, HERE, true)?;
            }
        }
        Ok(())
    }

    fn finish(self: Box<Self>, cpu: &'static Cpu<Sim<TAGGED>>) {
        let last = self.next.unwrap_or(self.mm);
        self.others.into_iter().chain([last]).for_each(|mm| exit::exit(cpu, mm));
    }
}

/// `next` has the tag of an address space that has ended, or that gave it up: no CPU may have anything cached under it,
/// whoever had that one loaded, since who loads `next` for the first time invalidates nothing.
fn judge_tag<const TAGGED: bool>(same: bool, next: &Mm<Sim<TAGGED>>) {
    let world = world();
    if !same {
        world.findings.borrow_mut().push("the tag was not used again: this run shows nothing".into());
    }
    let (tag, root) = (next.asid().0, next.root.addr());
    world.fill();
    for (i, core) in world.cores.iter().enumerate() {
        let frozen = direction::uses_nothing_cached(i, Sim::<TAGGED>::cpu_number(i));
        let cached = core.mmu.borrow().of_another(tag, root);
        if let Some(what) = cached.filter(|_| !frozen) {
            let finding = format!("a tag is used again while cpu{i} has cached under it {what}");
            world.findings.borrow_mut().push(finding);
        }
    }
}
