//! exit: an address space ends. Nothing of it is left in any table, list, TLB or mask.

use alloc::sync::Arc;

use crate::addr::{Level, VirtAddr};
use crate::arch::Arch;
use crate::guard;
use crate::ledger::Cause;
use crate::mm::address_space::Mm;
use crate::mm::gather::Gather;
use crate::mm::pace::Pace;
use crate::mm::unmap;
use crate::object::account::trim;
use crate::smp::call::call_many;
use crate::smp::cpu::Cpu;
use crate::smp::rcu;
use crate::tlb::switch;

/// Regions that go with one gather, at most.
const AT_ONCE: usize = 256;

/// Ends `mm`, which no other CPU uses any more (it may still be loaded, lazily). The calling CPU unloads it if it has
/// it.
pub fn exit<A: Arch>(cpu: &'static Cpu<A>, mm: Arc<Mm<A>>) {
    while !exit_some(cpu, &mm, &mut || false) {}
}

/// The same, until it is over, which is `true`, or some regions are gone and others are left, or `stops` says that it
/// shall be left; it is then to be called again, and no more when it is over. Nothing is mapped any more from before
/// the first call on.
pub fn exit_some<A: Arch>(cpu: &'static Cpu<A>, mm: &Arc<Mm<A>>, stops: &mut dyn FnMut() -> bool) -> bool {
    if cpu.loaded.mm() == mm.id {
        switch::unload(cpu);
    }
    let mut map = mm.map.write();
    let mut gather = Gather::new(cpu, mm);
    let mut pace = Pace::new(stops);
    let some = map.len().min(AT_ONCE);
    let mut gone = 0;
    for region in &mut map[..some] {
        // What lies below is gone.
        let free = VirtAddr(0)..region.range.end;
        if !unmap::go(cpu, mm, region, &free, &mut gather, &mut pace) {
            break;
        }
        gone += 1;
        if pace.stops() {
            break;
        }
    }
    let over = gone == map.len();
    if over {
        let everything = VirtAddr(0)..A::USER_END;
        unmap::free_tables(cpu, mm, mm.root(), Level::Pgd, &everything, &everything, &mut gather);
        forget_recursion(mm);
        gather.whole_mm();
    }
    gather.finish();
    map.drain(..gone).for_each(|region| unmap::leave_file(mm, &region));
    trim(&mut map);
    if !over {
        return false;
    }
    drop(map);
    // A flush by interrupt has made lazy CPUs unload it; after another one they are asked to. Those too that just leave
    // it, and are asked when they have: they look at it until then.
    let others = A::machine().online().filter(|other| other.id != cpu.id);
    let lazy = others.filter(|other| other.loaded.may_translate(mm)).map(|other| other.id).collect();
    if guard!(ExitUnloads) {
        call_many(cpu, &lazy, Cause::Wake, |cpu, id| switch::unload_if(cpu, id as u32), mm.id as usize);
    }
    // The root goes last, and after a grace period: a walk may have begun before.
    rcu::retire(cpu, mm.root().pfn());
    mm.release_asid();
    true
}

/// The root points at itself no more, from the last flush on. A CPU that still has the root loaded, lazily or because
/// it is just switching away, could else cache that entry again under the mm's tag after the flush; and whoever gets
/// the tag next would read the old tables through it.
fn forget_recursion<A: Arch>(mm: &Mm<A>) {
    if A::SELF_MAP != VirtAddr(0) && guard!(SelfMapExit) {
        A::store_entry(mm.root().slot(A::SELF_MAP.index(Level::Pgd)), 0);
    }
}
