//! Undoing mappings: by their address, because their capability goes, or because their process does.

use core::sync::atomic::Ordering;

use super::ObjectError;
use super::capability::{NOWHERE, Node, Tie};
use super::mapping::{Mapped, bound_retired};
use super::process::Process;
use crate::addr::VirtAddr;
use crate::arch::Arch;
use crate::mm::address_space::MapError;
use crate::mm::exit;
use crate::mm::unmap::munmap;
use crate::smp::cpu::Cpu;

/// Mappings that end with their address space, all at once; of more than these one after the other is undone before.
const AT_EXIT: usize = 256;

impl<A: Arch> Process<A> {
    /// Undoes the mapping that begins at `at`.
    pub fn unmap(&self, cpu: &'static Cpu<A>, at: VirtAddr) -> Result<(), ObjectError> {
        let which = |list: &[Mapped<A>]| list.iter().position(|mapped| mapped.range.start == at);
        self.remove(cpu, which).unwrap_or(Err(MapError::NotMapped(at).into()))
    }

    /// The capability of a mapping was revoked or deleted.
    pub(super) fn unmap_use(&self, cpu: &'static Cpu<A>, node: &Node<A>, tie: &Tie) {
        let which =
            |_: &[Mapped<A>]| Some(tie.mapped.load(Ordering::Relaxed) as usize).filter(|at| *at != NOWHERE as usize);
        if let Some(Err(error)) = self.remove(cpu, which) {
            log::error!("a revoked mapping of process {} was not undone: {error}", self.id);
        }
        node.forget_use(tie);
    }

    fn remove(
        &self,
        cpu: &'static Cpu<A>,
        which: impl FnOnce(&[Mapped<A>]) -> Option<usize>,
    ) -> Option<Result<(), ObjectError>> {
        let result = {
            let mut mappings = self.mappings.write();
            let at = which(&mappings.list)?;
            let mapped = mappings.take(at);
            // Whole mappings only, so no huge page has to be split, which could fail.
            let result = munmap(cpu, &self.mm, mapped.range.clone()).map_err(ObjectError::from);
            mapped.forget();
            result
        };
        bound_retired(cpu);
        Some(result)
    }

    /// The process ends: nothing more is mapped. If there are many mappings the last one is undone; false: there are
    /// no more than [`AT_EXIT`].
    pub(super) fn unmap_of_many(&self, cpu: &'static Cpu<A>) -> bool {
        {
            let mut mappings = self.mappings.write();
            mappings.ended = true;
            if mappings.list.len() <= AT_EXIT {
                return false;
            }
        }
        self.remove(cpu, |list| list.len().checked_sub(1)).is_some()
    }

    /// Then: nothing is mapped any more.
    pub(super) fn unmap_everything(&self, cpu: &'static Cpu<A>) {
        let mut mappings = self.mappings.write();
        exit::exit(cpu, self.mm.clone());
        for mapped in core::mem::take(&mut mappings.list) {
            mapped.forget();
        }
        drop(mappings);
        bound_retired(cpu);
    }
}
