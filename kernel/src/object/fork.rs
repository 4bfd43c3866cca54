//! Forks: a process whose anonymous memory is a copy of another one's.
//!
//! Pages are shared until either writes ([`crate::mm::fork`]); but what the copy may need is paid for at once, by
//! whoever makes it, as if nothing were shared, so that no later write finds the account empty. No region of the parent
//! comes, goes or changes while it is copied: its mappings are locked. Its threads go on, and what they write until the
//! copy is made may or may not be in it, page by page.
//!
//! What the parent has mapped of frames and tables the child does not get: a mapping belongs to a capability, and it is
//! for who has one to decide whether the child sees the same memory, a copy, or nothing. Nor does it get capabilities
//! or threads.

use alloc::sync::Arc;
use core::ops::Range;

use super::ObjectError;
use super::account::{Account, Price};
use super::payer::Payer;
use super::process::Process;
use crate::abi::Rights;
use crate::arch::Arch;
use crate::mm::address_space::{Backing, Mm, region_at};
use crate::mm::entry::Perm;
use crate::mm::fork;
use crate::smp::cpu::Cpu;

impl<A: Arch> Process<A> {
    /// Makes a process with a copy of this one's anonymous memory. `maker`, out of whose account it is made and into
    /// whose `slot` its original capability goes, is its parent; it ends when that does.
    pub fn fork(
        self: &Arc<Process<A>>,
        cpu: &'static Cpu<A>,
        maker: &Arc<Process<A>>,
        slot: u32,
        slots: u32,
        limit: Price,
        highest: u8,
    ) -> Result<Arc<Process<A>>, ObjectError> {
        maker.check_child(slot, highest)?;
        // It knows the numbers of all that it descends from.
        let numbers = Price::array::<u32>(self.mm.ancestors.len() as u64 + 1);
        let mm = || Mm::child_of(cpu, &self.mm);
        let child = Process::with(&maker.account, slots, limit, highest, numbers, mm)?;
        if let Err(error) = self.copy_to(cpu, &maker.account, &child) {
            // What it has so far goes with it, in `finish`.
            child.end(cpu, error.status() as u64);
            return Err(error);
        }
        maker.adopt(cpu, slot, child)
    }

    /// Makes the anonymous memory of `child`, which has none and which nobody else knows yet, a copy of this one's.
    fn copy_to(
        self: &Arc<Process<A>>,
        cpu: &'static Cpu<A>,
        payer: &Arc<Account>,
        child: &Arc<Process<A>>,
    ) -> Result<(), ObjectError> {
        let mappings = self.mappings.write();
        if mappings.ended {
            return Err(ObjectError::Gone);
        }
        let mut theirs = child.mappings.write();
        for mapped in &mappings.list {
            let region = region_at(&self.mm.map.read(), mapped.range.start).cloned();
            let Some(region) = region.filter(|region| matches!(region.backing, Backing::Anon)) else { continue };
            let Range { start, end } = mapped.range;
            let wanted = child.anonymous(Payer::own(payer), start, end.0 - start.0, rights(region.perm))?;
            child.add_to(&mut theirs, wanted)?;
        }
        Ok(fork::copy(cpu, &self.mm, &child.mm)?)
    }
}

/// What a mapping allows whose leaves allow `perm`.
fn rights(perm: Perm) -> Rights {
    let mut rights = Rights::READ;
    rights.set(Rights::WRITE, perm.contains(Perm::WRITE));
    rights.set(Rights::EXECUTE, perm.contains(Perm::EXEC));
    rights
}
