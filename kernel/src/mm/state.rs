//! The life of a table after its last entry in a parent is gone, as types.
//!
//! ```text
//! Unlinked --flush--> Flushed --drain--> Drained --> reuse
//!                        |  \---retire----> (grace period) --> free
//!                        \---relink (same slot, unchanged)
//! ```
//!
//! Only these transitions exist. A table that is [`Unlinked`] may still be cached by the TLBs and paging-structure
//! caches of other CPUs, and be held by walks. A [`Flushed`] one is cached nowhere, and carries the [`Coverage`] of its
//! own flush; walks may still hold it. A [`Drained`] one is held by nobody. Every function takes its argument by value,
//! so a table cannot be used early, nor twice; a value that is dropped instead of being brought to an end panics, since
//! nobody else knows of the table.
//!
//! Many tables that are freed at once go through [`crate::mm::gather`], which keeps the same rule for all of them.
//!
//! # What does not compile
//!
//! Each wrong line stands beside the right one, so that nothing else is why it fails. Right:
//!
//! ```
//! # use kernel::{arch::Arch, mm::address_space::Mm, mm::frame_alloc::OutOfFrames, mm::state::*, mm::table::*, smp::cpu::Cpu};
//! fn reuse<A: Arch>(cpu: &'static Cpu<A>, unlinked: Unlinked<'_, A>) -> Table<A> {
//!     let flushed = unlinked.flush(cpu);
//!     let drained = flushed.drain(cpu);
//!     drained.reuse(cpu).unwrap_or_else(|_| panic!("no frame"))
//! }
//! fn free<A: Arch>(cpu: &'static Cpu<A>, unlinked: Unlinked<'_, A>) {
//!     unlinked.flush(cpu).retire(cpu);
//! }
//! ```
//!
//! Used again without a drain:
//!
//! ```compile_fail,E0599
//! # use kernel::{arch::Arch, mm::address_space::Mm, mm::frame_alloc::OutOfFrames, mm::state::*, mm::table::*, smp::cpu::Cpu};
//! fn reuse<A: Arch>(cpu: &'static Cpu<A>, unlinked: Unlinked<'_, A>) -> Table<A> {
//!     let flushed = unlinked.flush(cpu);
//!     flushed.reuse(cpu).unwrap_or_else(|_| panic!("no frame"))
//! }
//! ```
//!
//! Drained, that is, a sync claimed, without a flush:
//!
//! ```compile_fail,E0599
//! # use kernel::{arch::Arch, mm::address_space::Mm, mm::frame_alloc::OutOfFrames, mm::state::*, mm::table::*, smp::cpu::Cpu};
//! fn reuse<A: Arch>(cpu: &'static Cpu<A>, unlinked: Unlinked<'_, A>) -> Table<A> {
//!     let drained = unlinked.drain(cpu);
//!     drained.reuse(cpu).unwrap_or_else(|_| panic!("no frame"))
//! }
//! ```
//!
//! Retired without a flush:
//!
//! ```compile_fail,E0599
//! # use kernel::{arch::Arch, mm::address_space::Mm, mm::frame_alloc::OutOfFrames, mm::state::*, mm::table::*, smp::cpu::Cpu};
//! fn free<A: Arch>(cpu: &'static Cpu<A>, unlinked: Unlinked<'_, A>) {
//!     unlinked.retire(cpu);
//! }
//! ```
//!
//! Freed without a grace period, whatever was done before:
//!
//! ```compile_fail,E0603
//! # use kernel::{arch::Arch, mm::address_space::Mm, mm::frame_alloc::OutOfFrames, mm::state::*, mm::table::*, smp::cpu::Cpu};
//! fn free<A: Arch>(cpu: &'static Cpu<A>, unlinked: Unlinked<'_, A>) {
//!     let pfn = unlinked.table().pfn();
//!     unlinked.flush(cpu).retire(cpu);
//!     kernel::mm::table::free(cpu, pfn);
//! }
//! ```
//!
//! Used twice:
//!
//! ```compile_fail,E0382
//! # use kernel::{arch::Arch, mm::address_space::Mm, mm::frame_alloc::OutOfFrames, mm::state::*, mm::table::*, smp::cpu::Cpu};
//! fn free<A: Arch>(cpu: &'static Cpu<A>, unlinked: Unlinked<'_, A>) {
//!     let flushed = unlinked.flush(cpu);
//!     flushed.retire(cpu);
//!     flushed.retire(cpu);
//! }
//! ```
//!
//! Copied:
//!
//! ```compile_fail,E0599
//! # use kernel::{arch::Arch, mm::address_space::Mm, mm::frame_alloc::OutOfFrames, mm::state::*, mm::table::*, smp::cpu::Cpu};
//! fn free<A: Arch>(cpu: &'static Cpu<A>, unlinked: Unlinked<'_, A>) {
//!     unlinked.clone().flush(cpu).retire(cpu);
//!     unlinked.flush(cpu).retire(cpu);
//! }
//! ```
//!
//! What a flush covered is read from the flush:
//!
//! ```
//! # use kernel::{arch::Arch, mm::address_space::Mm, mm::frame_alloc::OutOfFrames, mm::state::*, mm::table::*, smp::cpu::Cpu};
//! fn covered<A: Arch>(flushed: &Flushed<'_, A>) -> u32 {
//!     flushed.coverage().interrupts()
//! }
//! ```
//!
//! It cannot be made up:
//!
//! ```compile_fail,E0624
//! # use kernel::{arch::Arch, mm::address_space::Mm, mm::frame_alloc::OutOfFrames, mm::state::*, mm::table::*, smp::cpu::Cpu};
//! fn covered() -> u32 {
//!     kernel::tlb::coverage::Coverage::new(kernel::smp::mask::CpuMask::EMPTY, 0).interrupts()
//! }
//! ```
//!
//! An unlinked table keeps its mm, whose TLB entries are still to be flushed. Right:
//!
//! ```
//! # use kernel::{arch::Arch, mm::address_space::Mm, mm::frame_alloc::OutOfFrames, mm::state::*, mm::table::*, smp::cpu::Cpu};
//! fn end<A: Arch>(cpu: &'static Cpu<A>, mm: std::sync::Arc<Mm<A>>, take: for<'m> fn(&'m Mm<A>) -> Unlinked<'m, A>) {
//!     let unlinked = take(&mm);
//!     unlinked.flush(cpu).retire(cpu);
//!     kernel::mm::exit::exit(cpu, mm);
//! }
//! ```
//!
//! The mm ends first:
//!
//! ```compile_fail,E0505
//! # use kernel::{arch::Arch, mm::address_space::Mm, mm::frame_alloc::OutOfFrames, mm::state::*, mm::table::*, smp::cpu::Cpu};
//! fn end<A: Arch>(cpu: &'static Cpu<A>, mm: std::sync::Arc<Mm<A>>, take: for<'m> fn(&'m Mm<A>) -> Unlinked<'m, A>) {
//!     let unlinked = take(&mm);
//!     kernel::mm::exit::exit(cpu, mm);
//!     unlinked.flush(cpu).retire(cpu);
//! }
//! ```
//!
//! A value that is let go of is a warning when it is compiled (here an error), and a panic when it runs:
//!
//! ```compile_fail
//! # use kernel::{arch::Arch, mm::address_space::Mm, mm::frame_alloc::OutOfFrames, mm::state::*, mm::table::*, smp::cpu::Cpu};
//! #![deny(unused_must_use)]
//! fn forget<A: Arch>(cpu: &'static Cpu<A>, unlinked: Unlinked<'_, A>) {
//!     unlinked.flush(cpu);
//! }
//! ```

use crate::addr::{Level, VirtAddr};
use crate::arch::Arch;
use crate::guard;
use crate::mm::address_space::Mm;
use crate::mm::frame::FrameState;
use crate::mm::frame_alloc::OutOfFrames;
use crate::mm::self_map;
use crate::mm::settle::settle;
use crate::mm::table::{self, Table, TableGuard};
use crate::mm::two_word;
use crate::oracle;
use crate::pause;
use crate::record::event::EventKind;
use crate::smp::cpu::Cpu;
use crate::smp::mask::CpuMask;
use crate::smp::rcu;
use crate::sync::{Ask, Party};
use crate::tlb::coverage::Coverage;
use crate::tlb::invalidation::Invalidation;
use crate::tlb::transport;

/// Where a table was linked, and by whom.
struct Place<'m, A: Arch> {
    mm: &'m Mm<A>,
    table: Table<A>,
    parent: Table<A>,
    /// The parent's level.
    level: Level,
    va: VirtAddr,
    raw: u64,
    /// The machine's unlink generation with this unlink.
    generation: u64,
    /// Set until the value has been brought to an end.
    armed: bool,
}

impl<'m, A: Arch> Place<'m, A> {
    fn disarm(mut self) -> Table<A> {
        self.armed = false;
        self.table
    }

    fn relink(self, cpu: &'static Cpu<A>, guard: &mut TableGuard<A>, drained: bool) {
        if !drained {
            two_word::wait_for_readers(cpu);
        }
        assert!(guard.table() == self.parent, "a table is put back into another parent than it was taken from");
        self.table.frame().set_state(FrameState::Table);
        cpu.events.write(EventKind::Relink, self.mm.id, self.table.pfn().0.into(), self.va.0);
        guard.set(self.level, self.va, self.raw);
        self.disarm();
    }
}

impl<A: Arch> Drop for Place<'_, A> {
    fn drop(&mut self) {
        if self.armed {
            panic!(
                "the table in frame {} (unlinked from {} of mm {}) was dropped before it was reused, retired or put back",
                self.table.pfn(),
                self.va,
                self.mm.id
            );
        }
    }
}

/// No entry points at the table any more. TLBs and walks may still know it.
#[must_use = "an unlinked table must be flushed"]
pub struct Unlinked<'m, A: Arch>(Place<'m, A>);

impl<'m, A: Arch> Unlinked<'m, A> {
    /// Only [`TableGuard::unlink`] makes one.
    pub(super) fn new(
        mm: &'m Mm<A>,
        table: Table<A>,
        parent: Table<A>,
        level: Level,
        va: VirtAddr,
        raw: u64,
        generation: u64,
    ) -> Unlinked<'m, A> {
        table.frame().set_state(FrameState::UnlinkedTable);
        Unlinked(Place { mm, table, parent, level, va, raw, generation, armed: true })
    }

    /// The table, to look at.
    pub fn table(&self) -> Table<A> {
        self.0.table
    }

    /// Invalidates what the table mapped, leaves and paging-structure caches, everywhere.
    pub fn flush(self, cpu: &'static Cpu<A>) -> Flushed<'m, A> {
        if !guard!(UnlinkFlush) {
            return Flushed { place: self.0, coverage: Coverage::of_no_flush(cpu.id) };
        }
        let start = self.0.va;
        let what = Invalidation {
            start,
            end: start.add(self.0.level.entry_size()),
            stride: Level::Pte,
            tables: true,
            all: false,
            recursive: self_map::covering::<A>(self.0.level.below()),
        };
        let coverage = transport::flush(cpu, self.0.mm, what);
        Flushed { place: self.0, coverage }
    }

    /// Where it was linked.
    pub(super) fn va(&self) -> VirtAddr {
        self.0.va
    }

    /// The level of the table that it was linked in.
    pub(super) fn parent_level(&self) -> Level {
        self.0.level
    }

    /// Hands the table to a gather, which flushes and retires it.
    pub(super) fn into_gather(self) -> Table<A> {
        self.0.disarm()
    }
}

/// Cached nowhere; walks may still hold it.
#[must_use = "a flushed table must be drained, retired or put back"]
pub struct Flushed<'m, A: Arch> {
    place: Place<'m, A>,
    coverage: Coverage,
}

impl<'m, A: Arch> Flushed<'m, A> {
    /// What its flush proved.
    pub fn coverage(&self) -> &Coverage {
        &self.coverage
    }

    /// Puts the table back where it was, unchanged: walks that hold it are right again.
    pub fn relink(self, cpu: &'static Cpu<A>, parent: &mut TableGuard<A>) {
        self.place.relink(cpu, parent, false);
    }

    /// The table, for [`crate::mm::gather`] alone, which waits for a grace period and frees it.
    pub(super) fn into_table(self) -> Table<A> {
        self.place.disarm()
    }

    /// Frees the table after a grace period, without waiting.
    pub fn retire(self, cpu: &'static Cpu<A>) {
        retire(cpu, self.place.disarm());
    }

    /// Does what the strategy of the run asks for, so that the table can be used again.
    pub fn drain(self, cpu: &'static Cpu<A>) -> Drained<'m, A> {
        let party = Party {
            mm: self.place.mm.id,
            mask: self.place.mm.mask.load(core::sync::atomic::Ordering::Relaxed),
            coverage: self.coverage,
        };
        let ask = Ask {
            party,
            left_behind: &CpuMask::EMPTY,
            left_before: false,
            generation: self.place.generation,
            gather_interrupted: self.coverage.interrupts() != 0,
        };
        let fresh = settle(cpu, self.place.table, &ask, &[self.place.mm.id]);
        Drained { place: self.place, fresh }
    }
}

/// Held by no walk, if the strategy is right.
#[must_use = "a drained table must be reused, retired or put back"]
pub struct Drained<'m, A: Arch> {
    place: Place<'m, A>,
    /// The strategy wants another table to be used instead of this one, which was not drained.
    fresh: bool,
}

impl<'m, A: Arch> Drained<'m, A> {
    /// The table, to look at.
    pub fn table(&self) -> Table<A> {
        self.place.table
    }

    /// Puts the table back where it was, unchanged.
    pub fn relink(self, cpu: &'static Cpu<A>, parent: &mut TableGuard<A>) {
        // Nobody was waited for where the strategy meant to use another one.
        self.place.relink(cpu, parent, !self.fresh);
    }

    /// An empty table to use again: this one, or under a strategy that never uses one again, another.
    pub fn reuse(self, cpu: &'static Cpu<A>) -> Result<Table<A>, (Drained<'m, A>, OutOfFrames)> {
        let (owner, level, va) = (self.place.mm.id, self.place.table.frame().level(), self.place.va);
        if self.fresh {
            return match table::alloc(cpu, owner, level, va) {
                Ok(fresh) => {
                    retire(cpu, self.place.disarm());
                    Ok(fresh)
                }
                Err(error) => Err((self, error)),
            };
        }
        let table = self.place.table;
        pause!(cpu, BeforeReuse);
        oracle::on_reuse(cpu, table, &[self.place.mm.id]);
        cpu.events.write(EventKind::Reuse, owner, table.pfn().0.into(), va.0);
        for index in 0..crate::addr::ENTRIES {
            A::store_entry(table.slot(index), 0);
        }
        table.frame().become_table(owner, level, va.0);
        pause!(cpu, AfterReuse);
        oracle::whole_until_here(&self);
        Ok(self.place.disarm())
    }
}

/// Frees a table that was deposited and never linked again, after a grace period.
pub(super) fn retire_deposited<A: Arch>(cpu: &'static Cpu<A>, table: Table<A>) {
    table.frame().set_state(FrameState::UnlinkedTable);
    retire(cpu, table);
}

/// Frees a flushed table after a grace period.
pub(super) fn retire<A: Arch>(cpu: &'static Cpu<A>, table: Table<A>) {
    cpu.events.write(EventKind::Retire, 0, table.pfn().0.into(), 0);
    oracle::on_retire(cpu, table);
    if guard!(GraceBeforeFree) {
        rcu::retire(cpu, table.pfn());
    } else {
        table::free(cpu, table.pfn());
    }
}
