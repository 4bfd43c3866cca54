//! Memory that is named by a capability: a file of the core, of 4 KiB pages, or of 2 MiB pages under a PMD table that
//! all who map the whole of it for writing share.

use alloc::sync::Arc;

use super::ObjectError;
use super::account::{Account, Paid, Price};
use super::mapping::bound_retired;
use crate::abi::Kind;
use crate::addr::{ENTRIES, Level, PAGE_SIZE, PMD_SIZE, PUD_SIZE, Pfn, VirtAddr};
use crate::arch::Arch;
use crate::guard;
use crate::mm::address_space::Backing;
use crate::mm::file::File;
use crate::mm::page::HUGE_ORDER;
use crate::mm::retract::retract_page_tables;
use crate::mm::share::{MOST_FORMER, SharedTable};
use crate::mm::truncate::truncate;
use crate::smp::cpu::Cpu;

/// The most pages of 4 KiB that one object has: 16 GiB.
pub const MOST_PAGES: u64 = 1 << 22;

/// Frames or a shared table.
pub struct Memory<A: Arch> {
    file: Arc<File<A>>,
    shared: bool,
    bytes: u64,
    _paid: Paid,
}

/// What an object of `pages` pages needs of the heap.
fn heap<A: Arch>(pages: u64) -> Price {
    Price::of::<Memory<A>>().and(Price::of::<File<A>>()).and(Price::tree::<u64, Pfn>(pages))
}

impl<A: Arch> Memory<A> {
    /// `pages` zeroed pages of 4 KiB. All are paid for now, and allocated when they are first used.
    pub fn frames(payer: &Arc<Account>, pages: u64) -> Result<Arc<Memory<A>>, ObjectError> {
        if pages == 0 || pages > MOST_PAGES {
            return Err(ObjectError::BadArgument(1));
        }
        let paid = payer.charge(heap::<A>(pages).and(Price::frames(pages)))?;
        let bytes = pages * PAGE_SIZE;
        Ok(Arc::new(Memory { file: File::for_programs(bytes), shared: false, bytes, _paid: paid }))
    }

    /// `pages` zeroed pages of 2 MiB, allocated now, since later there may be none in one piece; and the table.
    pub fn shared_table(payer: &Arc<Account>, pages: u64) -> Result<Arc<Memory<A>>, ObjectError> {
        Memory::in_huge_pages(payer, pages, true)
    }

    /// `pages` zeroed pages of 2 MiB, allocated now, that are mapped as 512 of 4 KiB each until somebody collapses
    /// them.
    pub fn huge(payer: &Arc<Account>, pages: u64) -> Result<Arc<Memory<A>>, ObjectError> {
        Memory::in_huge_pages(payer, pages, false)
    }

    fn in_huge_pages(payer: &Arc<Account>, pages: u64, shared: bool) -> Result<Arc<Memory<A>>, ObjectError> {
        if pages == 0 || pages > ENTRIES as u64 {
            return Err(ObjectError::BadArgument(1));
        }
        let frames = Price::frames((pages << HUGE_ORDER) + u64::from(shared));
        let table = Price::tree::<u64, SharedTable<A>>(shared.into()).and(Price::growing::<u32>(MOST_FORMER as u64));
        let paid = payer.charge(heap::<A>(pages).and(frames).and(if shared { table } else { Price::NOTHING }))?;
        let file = File::for_programs(pages * PMD_SIZE);
        let memory = Arc::new(Memory { file, shared, bytes: pages * PMD_SIZE, _paid: paid });
        let mut contents = memory.file.lock();
        for page in 0..pages {
            if let Err(error) = memory.file.huge_page(&mut contents, page * PMD_SIZE) {
                drop(contents);
                memory.file.destroy(A::this_cpu());
                return Err(error.into());
            }
        }
        drop(contents);
        Ok(memory)
    }

    /// Whether it is a shared table.
    pub fn is_shared(&self) -> bool {
        self.shared
    }

    /// How much there is.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// How much of an address space a mapping of it may take: a shared table's whole GiB.
    pub(super) fn span(&self) -> u64 {
        if self.shared { PUD_SIZE } else { self.bytes }
    }

    /// What a mapping from `offset` on shows.
    pub(super) fn backing(&self, offset: u64) -> Backing<A> {
        if self.shared { Backing::Shared(self.file.clone(), offset) } else { Backing::File(self.file.clone(), offset) }
    }

    /// Lets the `bytes` bytes from `offset` on be fetched as instructions, as they are now: what a program has written
    /// there.
    pub(super) fn publish_code(&self, offset: u64, bytes: u64) {
        // A shared table's span is longer than what there is.
        let end = (offset + bytes).min(self.bytes);
        for at in (offset..end).step_by(PAGE_SIZE as usize) {
            if let Some(page) = self.file.find(at) {
                A::publish_code(A::direct_map(page.addr()), PAGE_SIZE as usize);
            }
        }
    }

    /// Drops the `bytes` bytes from `offset` on, for all who have mapped them. Pages that are pinned live on until they
    /// are not; page tables that showed nothing else go.
    pub fn truncate(&self, cpu: &'static Cpu<A>, offset: u64, bytes: u64) -> Result<(), ObjectError> {
        if self.shared {
            // Leaves in tables that several address spaces link.
            return Err(ObjectError::WrongKind(Kind::SharedTable));
        }
        let end = offset.checked_add(bytes).filter(|end| bytes != 0 && *end <= self.bytes);
        let end = end.ok_or(ObjectError::BadArgument(3))?;
        if !VirtAddr(offset).is_aligned(Level::Pte) || !VirtAddr(end).is_aligned(Level::Pte) {
            return Err(ObjectError::BadArgument(2));
        }
        if guard!(TruncateUnmaps) {
            retract_page_tables(cpu, &self.file, offset..end);
        }
        truncate(cpu, &self.file, offset..end)?;
        bound_retired(cpu);
        Ok(())
    }

    /// No capability is left, so no mapping either: some of the pages go, but for those that are pinned. True: there
    /// are no more.
    pub(super) fn end_some(&self, cpu: &'static Cpu<A>) -> bool {
        self.file.destroy_some(cpu)
    }
}
