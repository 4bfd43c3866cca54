//! Pages of 2 MiB in mappings: making them, and dropping parts of mappings that may have some.
//!
//! A collapsed page of anonymous memory stays whole until all of it is dropped. Who drops a part and touches that again
//! has the rest of the old page beside the new ones: so that is paid for, before it is dropped, by whoever pays for the
//! mapping; once, for all pages of 2 MiB that there can be in it.

use alloc::sync::Arc;
use core::ops::Range;

use super::ObjectError;
use super::account::{Account, Paid, Price};
use super::mapping::{Mapped, bound_retired};
use super::process::Process;
use crate::addr::{ENTRIES, Level, PMD_SIZE, VirtAddr};
use crate::arch::Arch;
use crate::mm::address_space::{Backing, region_at};
use crate::mm::unmap::dontneed;
use crate::mm::{collapse, retract};
use crate::smp::cpu::Cpu;

/// What of an anonymous mapping may be pages of 2 MiB. Such a page stays whole until all of it is dropped: who drops a
/// part has the rest of it beside the pages that come instead, and pays for that.
pub(super) enum Huge {
    /// Nothing: so many could be, and nobody has asked for that.
    None(u64),
    /// So many, any of which somebody has asked for.
    Some(u64),
    /// The same, and that parts of them are dropped is paid for.
    Cut { _paid: Paid },
}

impl Huge {
    pub(super) fn new<A: Arch>(backing: &Backing<A>, range: &Range<VirtAddr>) -> Huge {
        let whole = (range.end.0 / PMD_SIZE).saturating_sub(range.start.0.div_ceil(PMD_SIZE));
        Huge::None(if matches!(backing, Backing::Anon) { whole } else { 0 })
    }
}

impl<A: Arch> Mapped<A> {
    /// Whether `at` lies in it, where nobody has asked for a page of 2 MiB yet.
    fn is_flat_at(&self, at: VirtAddr) -> bool {
        self.range.contains(&at) && matches!(self.huge, Huge::None(1..))
    }

    /// How many pages of 2 MiB it may have of which dropping `range`, which begins in it, may cut one, and which are
    /// not paid for.
    fn cut_by(&self, range: &Range<VirtAddr>) -> Option<u64> {
        let cuts = |at: VirtAddr| {
            let page = at.align_down(Level::Pmd);
            page != at && self.range.start <= page && page.add(PMD_SIZE) <= self.range.end
        };
        match self.huge {
            Huge::Some(many) if self.range.contains(&range.start) && (cuts(range.start) || cuts(range.end)) => {
                Some(many)
            }
            _ => None,
        }
    }
}

impl<A: Arch> Process<A> {
    /// Drops the contents of pages, and gives back tables that this empties; they stay mapped.
    pub fn discard(&self, cpu: &'static Cpu<A>, at: VirtAddr, bytes: u64) -> Result<(), ObjectError> {
        let range = self.range(at, bytes)?;
        loop {
            let mappings = self.mappings.read();
            if mappings.ended {
                return Err(ObjectError::Gone);
            }
            if mappings.list.iter().all(|mapped| mapped.cut_by(&range).is_none()) {
                dontneed(cpu, &self.mm, range)?;
                break;
            }
            drop(mappings);
            self.pay_for_cuts(&range)?;
        }
        bound_retired(cpu);
        Ok(())
    }

    fn pay_for_cuts(&self, range: &Range<VirtAddr>) -> Result<(), ObjectError> {
        for mapped in &mut self.mappings.write().list {
            if let Some(many) = mapped.cut_by(range) {
                mapped.huge = Huge::Cut { _paid: mapped.paid.more(Price::frames(many * (ENTRIES as u64 - 1)))? };
            }
        }
        Ok(())
    }

    /// From here on who drops a part of the mapping at `at` pays for pages of 2 MiB there; who is at it now is done.
    fn expect_huge(&self, at: VirtAddr) {
        if self.mappings.read().list.iter().any(|mapped| mapped.is_flat_at(at)) {
            for mapped in &mut self.mappings.write().list {
                if let Huge::None(many) = mapped.huge
                    && mapped.is_flat_at(at)
                {
                    mapped.huge = Huge::Some(many);
                }
            }
        }
    }

    /// Makes 512 anonymous pages one of 2 MiB; `payer` pays for it while both are there. Of memory that consists of
    /// such a page, which is mapped 4 KiB at a time, it is mapped whole.
    pub fn collapse(&self, cpu: &'static Cpu<A>, payer: &Arc<Account>, at: VirtAddr) -> Result<(), ObjectError> {
        let _both = payer.charge(Price::frames(ENTRIES as u64))?;
        self.expect_huge(at);
        {
            let mappings = self.mappings.read();
            if mappings.ended {
                return Err(ObjectError::Gone);
            }
            if at >= A::USER_END {
                return Err(ObjectError::BadArgument(1));
            }
            let file = region_at(&self.mm.map.read(), at).is_some_and(|r| matches!(r.backing, Backing::File(..)));
            if file {
                retract::collapse_pte_mapped(cpu, &self.mm, at)?;
            } else {
                collapse::collapse_anon(cpu, &self.mm, at)?;
            }
        }
        bound_retired(cpu);
        Ok(())
    }
}
