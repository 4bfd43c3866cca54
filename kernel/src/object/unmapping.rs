//! Undoing mappings: by their address, because their capability goes, or because their process does.
//!
//! A mapping goes in parts, each of at most a table or two's worth of entries ([`crate::mm::pace`]); between any two it
//! can be left, so that what is large keeps nobody from its CPU who is more urgent. Where nobody wants the CPU no part
//! is left, and there is one gather, with as many flushes as its size makes it: what is at most 2 MiB always is one.
//!
//! Whoever leaves a part leaves everything flushed that is unmapped so far. In between the mapping is in its process's
//! list and in that of its capability, paid for, and its region in the address space, marked as going; so
//!
//! - whoever else undoes it (by its address, by a revocation, with the process) finds it and goes on where it was left,
//!   and nobody says that it is gone before all of it is;
//! - nothing is mapped in its place, and nothing is put into it: a fault there is one where nothing is mapped, and so
//!   are protecting, discarding, populating and collapsing. A fork does not copy it;
//! - a truncation finds what it still shows, and takes it out.
//!
//! What is left of it can still be touched, as before the first part.

use core::sync::atomic::Ordering;

use super::ObjectError;
use super::capability::{NOWHERE, Node, Tie};
use super::mapping::{Mapped, bound_retired};
use super::process::Process;
use crate::addr::VirtAddr;
use crate::arch::Arch;
use crate::mm::address_space::MapError;
use crate::mm::exit;
use crate::mm::pace::Pace;
use crate::mm::unmap::unmap_some;
use crate::smp::cpu::Cpu;

/// Mappings of a process that is taken down that are struck off its list in one step.
const AT_ONCE: usize = 64;

impl<A: Arch> Process<A> {
    /// Undoes the mapping that begins at `at` until that is over, which is `true`, or `stops` says so; the rest is for
    /// [`Process::unmap_on`].
    pub fn unmap(
        &self,
        cpu: &'static Cpu<A>,
        at: VirtAddr,
        stops: &mut dyn FnMut() -> bool,
    ) -> Result<bool, ObjectError> {
        let which = |list: &[Mapped<A>]| list.iter().position(|mapped| mapped.range.start == at);
        self.undo(cpu, which, stops).ok_or(MapError::NotMapped(at).into())
    }

    /// Goes on with the mapping that began at `at`; also over if somebody else has ended it since.
    pub fn unmap_on(&self, cpu: &'static Cpu<A>, at: VirtAddr, stops: &mut dyn FnMut() -> bool) -> bool {
        let which = |list: &[Mapped<A>]| list.iter().position(|mapped| mapped.range.start == at && mapped.goes);
        self.undo(cpu, which, stops).unwrap_or(true)
    }

    /// The capability of a mapping was revoked or deleted: some of the mapping goes.
    pub(super) fn unmap_use(&self, cpu: &'static Cpu<A>, node: &Node<A>, tie: &Tie, stops: &mut dyn FnMut() -> bool) {
        let which =
            |_: &[Mapped<A>]| Some(tie.mapped.load(Ordering::Relaxed) as usize).filter(|at| *at != NOWHERE as usize);
        if self.undo(cpu, which, stops).unwrap_or(true) {
            node.forget_use(tie);
        }
    }

    /// Some of a mapping goes, until all of it has, which is `true`, or `stops` says so.
    fn undo(
        &self,
        cpu: &'static Cpu<A>,
        which: impl FnOnce(&[Mapped<A>]) -> Option<usize>,
        stops: &mut dyn FnMut() -> bool,
    ) -> Option<bool> {
        let over = {
            let mut mappings = self.mappings.write();
            let at = which(&mappings.list)?;
            let mapped = &mut mappings.list[at];
            mapped.goes = true;
            let over = unmap_some(cpu, &self.mm, mapped.range.start, &mut Pace::new(stops));
            if over {
                mappings.take(at).forget();
            }
            over
        };
        bound_retired(cpu);
        Some(over)
    }

    /// The process ends: nothing more is mapped, and what is goes, until that is over, which is `true`, or `stops` says
    /// so.
    pub(super) fn unmap_everything(&self, cpu: &'static Cpu<A>, stops: &mut dyn FnMut() -> bool) -> bool {
        let over = {
            let mut mappings = self.mappings.write();
            mappings.ended = true;
            exit::exit_some(cpu, &self.mm, stops)
        };
        bound_retired(cpu);
        over
    }

    /// Then: some of what was mapped is struck off. False: there is more.
    pub(super) fn forget_some(&self) -> bool {
        let mut mappings = self.mappings.write();
        for _ in 0..AT_ONCE {
            let Some(last) = mappings.list.len().checked_sub(1) else { return true };
            mappings.take(last).forget();
        }
        false
    }
}
