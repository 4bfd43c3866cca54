//! Mappings: what an address space of a process consists of.
//!
//! Each is made, changed and undone as a whole by whoever has a capability to the process with the right to manage it.
//! The maker of a mapping pays for the tables that it can need at most, and for anonymous pages, when it is made: no
//! fault can find the account empty. What a mapping of frames allows was allowed by the capability that it was made
//! with, and never becomes more; where a process has it from another, never more than that has asked for. What a
//! stranger maps of its own account (anonymous memory, programs) belongs to the
//! capability by which it manages the process: it goes with that, at the latest with the stranger, whose account is
//! then whole again.
//!
//! Lock order: mappings, then a capability's uses, then the mm.

use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::ops::Range;
use core::sync::atomic::Ordering;

use super::account::{Account, Paid, Price, trim};
use super::capability::{self, NOWHERE, Node, Tie};
use super::huge::Huge;
use super::payer::Payer;
use super::process::Process;
use super::{Object, ObjectError};
use crate::abi::Rights;
use crate::addr::{Level, PAGE_SIZE, PMD_SIZE, Pfn, VirtAddr};
use crate::arch::Arch;
use crate::mm::address_space::{Backing, MapError, Mm, Region};
use crate::mm::entry::Perm;
use crate::mm::file::Mapping;
use crate::mm::protect::mprotect;
use crate::mm::unmap::munmap;
use crate::mm::{fault, page};
use crate::smp::cpu::Cpu;
use crate::smp::rcu;
use crate::task::program::Segment;

/// Retired tables of one CPU above which a change of an address space waits for a grace period: nobody pays for tables
/// that wait to be freed.
const MOST_RETIRED: u32 = 256;

/// One mapping.
pub(super) struct Mapped<A: Arch> {
    /// Where it is.
    pub(super) range: Range<VirtAddr>,
    /// What it may ever allow.
    most: Rights,
    /// It is being undone: see [`super::unmapping`].
    pub(super) goes: bool,
    /// The capability that it was made with, if it ends with one.
    node: Option<(Weak<Node<A>>, Arc<Tie>)>,
    /// What of it may become pages of 2 MiB.
    pub(super) huge: Huge,
    pub(super) paid: Paid,
}

impl<A: Arch> Mapped<A> {
    /// It is undone: the capability that it was made with, if there is one, does not undo it any more.
    pub(super) fn forget(&self) {
        if let Some((node, tie)) = &self.node {
            tie.mapped.store(NOWHERE, Ordering::Relaxed);
            if let Some(node) = node.upgrade() {
                node.forget_use(tie);
            }
        }
    }
}

/// What of a piece of memory is to be mapped, and where.
#[derive(Clone, Copy, Debug)]
pub struct View {
    /// The first address.
    pub at: VirtAddr,
    /// What of the memory is there: its byte at this offset.
    pub offset: u64,
    /// How much.
    pub bytes: u64,
    /// What is allowed.
    pub rights: Rights,
}

/// A mapping that is to be made.
pub(super) struct Wanted<'a, A: Arch> {
    payer: &'a Arc<Account>,
    price: Price,
    range: Range<VirtAddr>,
    rights: Rights,
    most: Rights,
    node: Option<&'a Arc<Node<A>>>,
    backing: Backing<A>,
}

/// All mappings of a process.
pub(super) struct Mappings<A: Arch> {
    pub(super) list: Vec<Mapped<A>>,
    /// Nothing is mapped any more.
    pub(super) ended: bool,
}

impl<A: Arch> Default for Mappings<A> {
    fn default() -> Self {
        Mappings { list: Vec::new(), ended: false }
    }
}

impl<A: Arch> Mappings<A> {
    /// Takes the one at index `at` out of the list; the last one gets its place.
    pub(super) fn take(&mut self, at: usize) -> Mapped<A> {
        let mapped = self.list.swap_remove(at);
        if let Some((_, tie)) = self.list.get(at).and_then(|moved| moved.node.as_ref()) {
            tie.mapped.store(at as u32, Ordering::Relaxed);
        }
        trim(&mut self.list);
        mapped
    }
}

/// The tables that `range` can need: each level's that it touches, and for a shared mapping none for 4 KiB pages.
fn tables(range: &Range<VirtAddr>, shared: bool) -> u64 {
    let touched = |level: Level| (range.end.0 - 1) / level.entry_size() - range.start.0 / level.entry_size() + 1;
    touched(Level::Pud) + touched(Level::Pgd) + if shared { 0 } else { touched(Level::Pmd) }
}

fn perm(rights: Rights) -> Perm {
    let mut perm = Perm::empty();
    perm.set(Perm::WRITE, rights.contains(Rights::WRITE));
    perm.set(Perm::EXEC, rights.contains(Rights::EXECUTE));
    perm
}

/// Rights of a mapping: readable at least, and not both written and executed.
fn check_rights(rights: Rights) -> Result<(), ObjectError> {
    let code = Rights::READ | Rights::EXECUTE;
    let data = Rights::READ | Rights::WRITE;
    let good = rights.contains(Rights::READ) && (code.contains(rights) || data.contains(rights));
    if good { Ok(()) } else { Err(ObjectError::BadArgument(5)) }
}

impl<A: Arch> Process<A> {
    /// Maps memory, which `node` names; `payer` pays.
    pub fn map(
        self: &Arc<Process<A>>,
        payer: &Arc<Account>,
        node: &Arc<Node<A>>,
        view: View,
    ) -> Result<(), ObjectError> {
        let View { at, offset, bytes, rights } = view;
        let Object::Memory(memory) = node.object() else {
            return Err(ObjectError::WrongKind(node.object().kind()));
        };
        check_rights(rights)?;
        node.require(rights)?;
        let unit = if memory.is_shared() { Level::Pmd } else { Level::Pte };
        let aligned = at.is_aligned(unit) && VirtAddr(offset).is_aligned(unit) && VirtAddr(bytes).is_aligned(unit);
        let end = offset.checked_add(bytes).filter(|end| *end <= memory.span());
        if !aligned || bytes == 0 || end.is_none() {
            return Err(ObjectError::BadArgument(4));
        }
        let range = self.range(at, bytes)?;
        if rights.contains(Rights::EXECUTE) {
            memory.publish_code(offset, bytes);
        }
        let price = Price::frames(tables(&range, memory.is_shared())).and(Price::growing::<Mapping<A>>(1));
        // Whoever has memory mapped into another process decides what that may do with it.
        let most = if Arc::ptr_eq(payer, &self.account) { node.rights() } else { rights };
        let backing = memory.backing(offset);
        self.add(Wanted { payer, price, range, rights, most, node: Some(node), backing })
    }

    /// Maps zeroed pages of its own; `payer` pays for all of them.
    pub fn map_anonymous(
        self: &Arc<Process<A>>,
        payer: Payer<'_, A>,
        at: VirtAddr,
        bytes: u64,
        rights: Rights,
    ) -> Result<(), ObjectError> {
        self.add(self.anonymous(payer, at, bytes, rights)?)
    }

    /// What [`Process::map_anonymous`] is to make.
    pub(super) fn anonymous<'a>(
        &self,
        payer: Payer<'a, A>,
        at: VirtAddr,
        bytes: u64,
        rights: Rights,
    ) -> Result<Wanted<'a, A>, ObjectError> {
        check_rights(rights)?;
        let range = self.range(at, bytes)?;
        let price = Price::frames((bytes / PAGE_SIZE).saturating_add(tables(&range, false)));
        let Payer { account: payer, by: node } = payer;
        Ok(Wanted { payer, price, range, rights, most: Rights::all(), node, backing: Backing::Anon })
    }

    /// Maps `segment` as [`Process::map_anonymous`] does, and writes its bytes there. Nobody changes or undoes the
    /// mapping before they are there.
    pub fn map_filled(
        self: &Arc<Process<A>>,
        cpu: &'static Cpu<A>,
        payer: Payer<'_, A>,
        segment: &Segment<'_>,
        rights: Rights,
    ) -> Result<(), ObjectError> {
        let range = segment.range.clone();
        let wanted = self.anonymous(payer, range.start, range.end.0 - range.start.0, rights)?;
        let mut mappings = self.mappings.write();
        self.add_to(&mut mappings, wanted)?;
        let filled = fill(cpu, &self.mm, segment.start, segment.bytes, rights.contains(Rights::EXECUTE));
        if filled.is_err()
            && let Some(mapped) = mappings.list.pop()
        {
            let undone = munmap(cpu, &self.mm, range);
            mapped.forget();
            undone?;
        }
        filled
    }

    /// Makes the pages of a range present, as touching them would. At most 512, so that nobody waits for long.
    pub fn populate(&self, cpu: &'static Cpu<A>, at: VirtAddr, bytes: u64) -> Result<(), ObjectError> {
        let range = self.range(at, bytes)?;
        if bytes > PMD_SIZE {
            return Err(ObjectError::BadArgument(2));
        }
        let mappings = self.mappings.read();
        if mappings.ended {
            return Err(ObjectError::Gone);
        }
        Ok(fault::populate(cpu, &self.mm, range)?)
    }

    pub(super) fn range(&self, at: VirtAddr, bytes: u64) -> Result<Range<VirtAddr>, ObjectError> {
        // The first page stays empty, so that a null pointer faults; the last, so that no instruction ends where the
        // user half does.
        let end = at.0.checked_add(bytes).filter(|end| bytes != 0 && *end <= A::USER_END.0 - PAGE_SIZE);
        let range = at..VirtAddr(end.ok_or(ObjectError::BadArgument(2))?);
        if range.start.0 < PAGE_SIZE || !at.is_aligned(Level::Pte) || !range.end.is_aligned(Level::Pte) {
            return Err(ObjectError::BadArgument(2));
        }
        Ok(range)
    }

    fn add(self: &Arc<Process<A>>, wanted: Wanted<'_, A>) -> Result<(), ObjectError> {
        self.add_to(&mut self.mappings.write(), wanted)
    }

    /// Makes a mapping, and has it paid for.
    pub(super) fn add_to(
        self: &Arc<Process<A>>,
        mappings: &mut Mappings<A>,
        wanted: Wanted<'_, A>,
    ) -> Result<(), ObjectError> {
        let Wanted { payer, price, range, rights, most, node, backing } = wanted;
        let heap = Price::growing::<Region<A>>(1).and(Price::growing::<Mapped<A>>(1));
        let ties = Price::growing::<capability::Use<A>>(1).and(Price::of::<Tie>());
        let paid = payer.charge(price.and(heap).and(ties))?;
        if mappings.ended {
            return Err(ObjectError::Gone);
        }
        let huge = Huge::new(&backing, &range);
        let map = || Ok(self.mm.map(range.clone(), perm(rights), backing)?);
        let node = match node {
            Some(node) => {
                let tie = Tie::new();
                node.use_for((Arc::downgrade(self), tie.clone()), map)?;
                tie.mapped.store(mappings.list.len() as u32, Ordering::Relaxed);
                Some((Arc::downgrade(node), tie))
            }
            None => {
                map()?;
                None
            }
        };
        mappings.list.push(Mapped { range, most, goes: false, node, huge, paid });
        Ok(())
    }

    /// Changes what the mapping that begins at `at` allows.
    pub fn protect(&self, cpu: &'static Cpu<A>, at: VirtAddr, rights: Rights) -> Result<(), ObjectError> {
        check_rights(rights)?;
        let mappings = self.mappings.write();
        if mappings.ended {
            return Err(ObjectError::Gone);
        }
        let mapped = mappings.list.iter().find(|m| m.range.start == at && !m.goes).ok_or(MapError::NotMapped(at))?;
        let missing = rights - mapped.most;
        if !missing.is_empty() {
            return Err(ObjectError::Forbidden(missing));
        }
        Ok(mprotect(cpu, &self.mm, mapped.range.clone(), perm(rights))?)
    }
}

/// Writes `bytes` to anonymous pages of `mm`, which nobody takes away meanwhile, from `start` on.
fn fill<A: Arch>(
    cpu: &'static Cpu<A>,
    mm: &Mm<A>,
    start: VirtAddr,
    bytes: &[u8],
    code: bool,
) -> Result<(), ObjectError> {
    let (mut at, mut left) = (start, bytes);
    while !left.is_empty() {
        let offset = at.0 % PAGE_SIZE;
        let (now, later) = left.split_at(left.len().min((PAGE_SIZE - offset) as usize));
        let mut page = [Pfn(0)];
        // A reference keeps the page, whatever threads of the process do.
        fault::get_user_pages(cpu, mm, VirtAddr(at.0 - offset), false, &mut page)?;
        let to = A::direct_map(page[0].addr()).wrapping_add(offset as usize);
        // SAFETY: the direct map covers the page, which is this mm's own and which the reference keeps; `now` ends
        // within it.
        unsafe { core::ptr::copy_nonoverlapping(now.as_ptr(), to, now.len()) };
        if code {
            A::publish_code(to, now.len());
        }
        page::put_walked(cpu, page[0]);
        at = at.add(now.len() as u64);
        left = later;
    }
    Ok(())
}

/// Waits for a grace period if too many tables of this CPU wait for one.
pub(super) fn bound_retired<A: Arch>(cpu: &'static Cpu<A>) {
    if cpu.rcu.pending() > MOST_RETIRED {
        rcu::barrier(cpu);
    }
}
