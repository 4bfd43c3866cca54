//! References to pages that walks take and give back, without a lock ([`crate::mm::frame`] has the protocol; the head
//! of [`crate::mm::walk`] says what a walk looks at again once it has one).

use crate::addr::Pfn;
use crate::arch::Arch;
use crate::guard;
use crate::mm::frame::FrameTable;
use crate::mm::page;
use crate::pause;
use crate::smp::cpu::Cpu;

/// Takes a reference, a full barrier, to the page that `pfn` lies in, unless it has none.
#[inline(always)]
pub(super) fn reference<A: Arch, const PIN: bool>(cpu: &'static Cpu<A>, frames: &FrameTable<A>, pfn: Pfn) -> bool {
    let Some(frame) = frames.lookup(pfn) else { return false };
    // A frame inside a 2 MiB page never has references: they are the head's. So one that has is a head, and stays one
    // while it is referred to.
    if !frame.try_get_once() {
        return reference_to_head::<A, PIN>(cpu, pfn);
    }
    if PIN {
        frame.add_pins(1);
    }
    true
}

/// The same where the page is a 2 MiB page that is mapped by PTEs, or another CPU has taken or dropped a reference at
/// the same moment.
#[cold]
#[inline(never)]
fn reference_to_head<A: Arch, const PIN: bool>(cpu: &'static Cpu<A>, pfn: Pfn) -> bool {
    let frames = &A::machine().frames;
    let inside = frames.get(pfn).is_tail();
    let head = page::head_of(pfn, inside);
    pause!(cpu, AfterHead);
    if !frames.get(head).try_get(1) {
        return false;
    }
    if PIN {
        frames.get(head).add_pins(1);
    }
    // A 2 MiB page may have been freed before the reference, and its first frame be somebody else's page by now. From
    // the reference on it cannot.
    if guard!(HeadRecheck) && frames.get(pfn).is_tail() != inside {
        drop_again::<A, PIN>(head, 1);
        return false;
    }
    true
}

/// Gives references back that a recheck forbade.
#[cold]
#[inline(never)]
pub(super) fn give_back<A: Arch, const PIN: bool>(pages: &[Pfn]) {
    for pfn in pages {
        // The reference has kept the page what it was when it was taken.
        drop_again::<A, PIN>(page::head::<A>(*pfn), 1);
    }
}

/// Gives `count` references to one page back. The last one may be ours, if the page was freed meanwhile.
#[cold]
pub(super) fn drop_again<A: Arch, const PIN: bool>(head: Pfn, count: u32) {
    if PIN {
        A::machine().frames.get(head).drop_pins(count);
    }
    page::put_from_walk(A::this_cpu(), head, count);
}
