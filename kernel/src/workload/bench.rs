//! What a walk costs: `bench=walk` on the kernel's command line.
//!
//! For each strategy, [`PAGES`] pages at a time, `ops` walks of a populated range of the loaded mm, while every other
//! CPU is idle. Only the walk lies between two readings of the instruction counter, and what two readings with nothing
//! between them count is taken off; references are dropped outside. Under `-icount` the count is exact, and in the
//! plain image a walk has no oracle and no schedule point in it.
//!
//! Each result is one [`CellRow`], in which only these fields mean something: `strategy`, `transport`, `hook`, `mode`
//! (idle), `cpus`, `ops` and `walks` (walks made), `pages` (pages that all of them returned) and `instructions` (of all
//! walks).

use core::ops::Range;

use super::cell::CellError;
use super::walker::WalkerClass;
use super::{HERE, OpError};
use crate::addr::{PAGE_SIZE, Pfn, VirtAddr};
use crate::arch::Arch;
use crate::mm::address_space::{Backing, Mm};
use crate::mm::entry::Perm;
use crate::mm::page;
use crate::mm::{exit, fault};
use crate::record::cell::{CellRow, Verdict};
use crate::smp::cpu::Cpu;
use crate::suite::{Mode, Suite};
use crate::sync::{self, Setting};
use crate::tlb::switch;

/// How many pages the walks of a row ask for: one row each.
pub const PAGES: [usize; 4] = [1, 8, 64, 512];
/// The most of them.
const MOST: usize = PAGES[PAGES.len() - 1];

/// Measures all strategies of `suite`, leaving each row where the runner finds it.
pub fn run_all<A: Arch>(
    cpu: &'static Cpu<A>,
    suite: &Suite,
    mut done: impl FnMut(usize, CellRow),
) -> Result<(), CellError> {
    let machine = A::machine();
    let range = HERE..HERE.add(MOST as u64 * PAGE_SIZE);
    let set_up = |error| CellError::SetUp(OpError::Map(error));
    let mm = Mm::new(cpu, 0).map_err(set_up)?;
    mm.map(range.clone(), Perm::WRITE, Backing::Anon).map_err(set_up)?;
    fault::populate(cpu, &mm, range.clone()).map_err(set_up)?;
    switch::load(cpu, &mm);
    let (transport, hook) = (suite.transport, suite.hook);
    let setting = Setting { transport, hook, chain: false, batch: false, walker: WalkerClass::Gup };
    let mut index = 0;
    for strategy in &suite.strategies {
        machine.policy.set(&sync::all::<A>()[*strategy], setting);
        for pages in PAGES {
            let (instructions, returned) = measure(cpu, &mm, &range, pages, suite.ops);
            let row = CellRow {
                strategy: *strategy as u16,
                transport: setting.transport as u16,
                hook: setting.hook.into(),
                mode: Mode::Idle as u16,
                expected: Verdict::Safe as u8,
                verdict: Verdict::Safe as u8,
                cpus: machine.online_mask().count(),
                ops: suite.ops,
                walks: suite.ops,
                pages: returned,
                instructions,
                ..CellRow::default()
            };
            done(index, row);
            index += 1;
        }
    }
    switch::unload(cpu);
    exit::exit(cpu, mm);
    Ok(())
}

/// Instructions of `walks` walks of `count` pages each, and the pages that they returned.
fn measure<A: Arch>(cpu: &'static Cpu<A>, mm: &Mm<A>, range: &Range<VirtAddr>, count: usize, walks: u64) -> (u64, u64) {
    let walk = A::machine().policy.strategy().get_user_pages_fast;
    let mut pages = [Pfn(0); MOST];
    let (mut instructions, mut returned) = (0, 0);
    // The first round only warms up: what a TLB miss costs is no matter of instructions, what a first call does may be.
    for round in 0..=walks {
        let empty = A::instructions();
        let before = A::instructions();
        let got = walk(cpu, mm, range.start, false, &mut pages[..count]);
        let after = A::instructions();
        for pfn in &pages[..got] {
            page::put_walked(cpu, *pfn);
        }
        if round > 0 {
            instructions += (after - before).saturating_sub(before - empty);
            returned += got as u64;
        }
    }
    (instructions, returned)
}
