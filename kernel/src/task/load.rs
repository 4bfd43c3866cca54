//! From a program's file to a process: each segment anonymous memory, what has bytes in the file filled by the kernel, the rest left to faults. The process pays.

use alloc::sync::Arc;

use super::program::{Program, Segment};
use crate::abi::Rights;
use crate::addr::{Level, PAGE_SIZE, Pfn, VirtAddr};
use crate::arch::Arch;
use crate::mm::address_space::{MapError, Mm};
use crate::mm::entry::{Entry, Perm};
use crate::mm::fault;
use crate::object::ObjectError;
use crate::object::process::Process;
use crate::smp::cpu::Cpu;

/// Maps `program` into `process`, which has not run yet.
pub fn load<A: Arch>(
    cpu: &'static Cpu<A>,
    process: &Arc<Process<A>>,
    program: &Program<'_>,
) -> Result<(), ObjectError> {
    program.segments.iter().try_for_each(|segment| load_segment(cpu, process, segment))
}

fn load_segment<A: Arch>(
    cpu: &'static Cpu<A>,
    process: &Arc<Process<A>>,
    segment: &Segment<'_>,
) -> Result<(), ObjectError> {
    let mut rights = Rights::READ;
    rights.set(Rights::WRITE, segment.perm.contains(Perm::WRITE));
    rights.set(Rights::EXECUTE, segment.perm.contains(Perm::EXEC));
    let range = &segment.range;
    process.map_anonymous(&process.account, range.start, range.end.0 - range.start.0, rights)?;
    let mut at = segment.start;
    let mut left = segment.bytes;
    while !left.is_empty() {
        let offset = at.0 % PAGE_SIZE;
        let (now, later) = left.split_at(left.len().min((PAGE_SIZE - offset) as usize));
        let page = VirtAddr(at.0 - offset);
        fault::handle(cpu, &process.mm, page, false)?;
        let pfn = page_at(&process.mm, page).ok_or(MapError::NotMapped(page))?;
        let to = A::direct_map(pfn.addr()).wrapping_add(offset as usize);
        // SAFETY: the direct map covers the page, which was just allocated for this mm, and nobody has the mm loaded; `now` ends within the page.
        unsafe { core::ptr::copy_nonoverlapping(now.as_ptr(), to, now.len()) };
        if segment.perm.contains(Perm::EXEC) {
            A::publish_code(to, now.len());
        }
        at = at.add(now.len() as u64);
        left = later;
    }
    Ok(())
}

/// The 4 KiB page that `mm` has at `va`. The caller is the only one who changes the mm.
fn page_at<A: Arch>(mm: &Mm<A>, va: VirtAddr) -> Option<Pfn> {
    match mm.table_at(Level::Pte, va)?.entry(Level::Pte, va) {
        Entry::Leaf { page, .. } => Some(page.pfn()),
        _ => None,
    }
}
