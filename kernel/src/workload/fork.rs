//! The workload `fork`, for scenarios: an mm with 512 anonymous pages is forked; the child ends before the next
//! operation.

use alloc::boxed::Box;
use alloc::sync::Arc;

use super::{HERE, OpError, Scene, Target};
use crate::addr::PMD_SIZE;
use crate::arch::Arch;
use crate::mm::address_space::{Backing, Mm};
use crate::mm::entry::Perm;
use crate::mm::exit;
use crate::mm::fault;
use crate::mm::fork::fork;
use crate::smp::cpu::Cpu;
use crate::tlb::switch;

/// The parent, and the child of the last operation.
pub struct ForkScene<A: Arch> {
    mm: Arc<Mm<A>>,
    child: Option<Arc<Mm<A>>>,
}

impl<A: Arch> ForkScene<A> {
    /// The parent, with all pages.
    pub fn new(cpu: &'static Cpu<A>) -> Result<ForkScene<A>, OpError> {
        let mm = Mm::new(cpu, 0)?;
        switch::load(cpu, &mm);
        mm.map(HERE..HERE.add(PMD_SIZE), Perm::WRITE, Backing::Anon)?;
        Ok(ForkScene { mm, child: None })
    }
}

impl<A: Arch> Scene<A> for ForkScene<A> {
    fn target(&self) -> Target<A> {
        Target { mm: self.mm.clone(), second: None, range: HERE..HERE.add(PMD_SIZE), step: 0, anon: true, drops: false }
    }

    fn prepare(&mut self, cpu: &'static Cpu<A>, _op: u64) -> Result<(), OpError> {
        if let Some(child) = self.child.take() {
            exit::exit(cpu, child);
        }
        Ok(fault::populate(cpu, &self.mm, HERE..HERE.add(PMD_SIZE))?)
    }

    fn operate(&mut self, cpu: &'static Cpu<A>, _op: u64) -> Result<(), OpError> {
        self.child = Some(fork(cpu, &self.mm)?);
        Ok(())
    }

    fn finish(self: Box<Self>, cpu: &'static Cpu<A>) {
        if let Some(child) = self.child {
            exit::exit(cpu, child);
        }
        exit::exit(cpu, self.mm);
    }
}
