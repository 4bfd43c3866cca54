//! Pages of a long message: pinned by a lockless walk of the mm that the CPU has loaded, and looked at again.
//!
//! Pinning takes many steps, and servers may change the mm between any two. So when all pages are pinned the buffer is
//! walked once more ([`Pinned::is_still_there`]). If every page is the one that was pinned, then **there was a moment,
//! the beginning of the second walk, when all of them were mapped there at once**: a pinned frame cannot be freed, so
//! it cannot have gone and come back as another page; an anonymous page that was unmapped is never mapped again; and a
//! page of frames that was mapped again is the same memory. The same walk, made by the receiver before it goes on, says
//! that the message lies where the receiver reads.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;

use arrayvec::ArrayVec;

use crate::abi::{MOST_BYTES, Status};
use crate::addr::{Level, PAGE_SIZE, Pfn, VirtAddr};
use crate::arch::Arch;
use crate::guard;
use crate::mm::address_space::{MapError, Mm};
use crate::mm::{fault, page};
use crate::object::account::{Account, Paid, Price};
use crate::oracle::ghost;
use crate::smp::cpu::Cpu;

/// How often pinning begins again because a page was another one at the second walk.
const TRIES: usize = 8;
/// Pages that the second walk looks at at once.
const CHUNK: usize = 32;

/// Why a buffer was not pinned.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PinError {
    /// It is not of whole pages of the user half, or too long.
    #[error("a buffer begins at a page and has 1 to {MOST_BYTES} bytes")]
    Bad,
    /// A page is not there, and the kernel does not know what belongs there.
    #[error("the page at {at} cannot be had: {error}")]
    Fault {
        /// The page.
        at: VirtAddr,
        /// Why.
        error: MapError,
    },
    /// The pages changed again and again.
    #[error("the pages did not stay for long enough")]
    Unsteady,
    /// Pinned pages are charged.
    #[error("the account has not enough left")]
    Quota,
}

impl PinError {
    /// What a program is told.
    pub fn status(self) -> Status {
        match self {
            PinError::Bad => Status::BadArgument,
            PinError::Fault { error: MapError::OutOfFrames(_), .. } => Status::OutOfMemory,
            PinError::Fault { .. } | PinError::Unsteady => Status::BufferGone,
            PinError::Quota => Status::Quota,
        }
    }
}

/// A buffer whose pages are pinned.
pub struct Pinned<A: Arch> {
    mm: Arc<Mm<A>>,
    start: VirtAddr,
    bytes: u64,
    pages: Vec<Pfn>,
    paid: Option<Paid>,
    /// False without the guard: nothing keeps the pages.
    held: bool,
}

impl<A: Arch> Pinned<A> {
    /// Pins `bytes` from `start` on in `mm`, which this CPU has loaded; for writing if a message shall go there.
    pub fn new(
        cpu: &'static Cpu<A>,
        mm: &Arc<Mm<A>>,
        payer: &Arc<Account>,
        start: VirtAddr,
        bytes: u64,
        write: bool,
    ) -> Result<Box<Pinned<A>>, PinError> {
        assert!(cpu.loaded.mm() == mm.id, "{} pins pages of an mm that it has not loaded", cpu.id);
        let inside = start.0.checked_add(MOST_BYTES).is_some_and(|end| end <= A::USER_END.0);
        if !start.is_aligned(Level::Pte) || bytes == 0 || bytes > MOST_BYTES || !inside {
            return Err(PinError::Bad);
        }
        let count = bytes.div_ceil(PAGE_SIZE) as usize;
        let list = payer
            .charge(Price::array::<Pfn>(count as u64).and(Price::array::<Pinned<A>>(1)))
            .map_err(|_| PinError::Quota)?;
        let pages = Vec::with_capacity(count);
        let mut pinned = Box::new(Pinned { mm: mm.clone(), start, bytes, pages, paid: None, held: true });
        for _ in 0..TRIES {
            pinned.take(cpu, count, write)?;
            if !guard!(IpcPinAgain) || pinned.is_still_there(cpu) {
                let price = Price::frames(pinned.frames()).and(list.price());
                drop(list);
                pinned.paid = Some(payer.charge(price).map_err(|_| PinError::Quota)?);
                if !guard!(IpcPin) {
                    pinned.let_go(cpu);
                    pinned.held = false;
                }
                return Ok(pinned);
            }
            pinned.let_go(cpu);
            pinned.pages.clear();
        }
        Err(PinError::Unsteady)
    }

    fn at(&self, page: usize) -> VirtAddr {
        self.start.add(page as u64 * PAGE_SIZE)
    }

    fn take(&mut self, cpu: &'static Cpu<A>, count: usize, write: bool) -> Result<(), PinError> {
        let walk = A::machine().policy.strategy().pin_user_pages_fast;
        let mut chunk = [Pfn(0); CHUNK];
        while self.pages.len() < count {
            let want = (count - self.pages.len()).min(CHUNK);
            let at = self.at(self.pages.len());
            let got = walk(cpu, &self.mm, at, write, &mut chunk[..want]);
            let got = match got {
                0 => {
                    let pin = fault::pin_user_page(cpu, &self.mm, at, write);
                    chunk[0] = pin.map_err(|error| PinError::Fault { at, error })?;
                    1
                }
                got => got,
            };
            self.pages.extend_from_slice(&chunk[..got]);
            ghost::point(cpu);
        }
        Ok(())
    }

    /// Whether the CPU, which has the mm loaded, finds the same pages in the same places.
    pub fn is_still_there(&self, cpu: &'static Cpu<A>) -> bool {
        assert!(cpu.loaded.mm() == self.mm.id, "{} walks an mm that it has not loaded", cpu.id);
        let walk = A::machine().policy.strategy().get_user_pages_fast;
        let mut chunk = [Pfn(0); CHUNK];
        let mut done = 0;
        while done < self.pages.len() {
            let want = (self.pages.len() - done).min(CHUNK);
            let mut got = walk(cpu, &self.mm, self.at(done), false, &mut chunk[..want]);
            if got == 0 {
                match fault::get_user_pages(cpu, &self.mm, self.at(done), false, &mut chunk[..1]) {
                    Ok(1) => got = 1,
                    _ => return false,
                }
            }
            let same = chunk[..got] == self.pages[done..done + got];
            for pfn in &chunk[..got] {
                page::put_walked(cpu, *pfn);
            }
            if !same {
                return false;
            }
            done += got;
        }
        true
    }

    /// Frames that the pins keep: of a 2 MiB page all, once.
    fn frames(&self) -> u64 {
        let mut frames = 0;
        // More than this many different ones in 1 MiB are counted more than once: who pins them pays too much, never
        // too little.
        let mut huge = ArrayVec::<Pfn, 8>::new();
        for pfn in &self.pages {
            let head = page::head::<A>(*pfn);
            let order = A::machine().frames.get(head).order();
            if order == 0 {
                frames += 1;
            } else if !huge.contains(&head) {
                frames += 1u64 << order;
                let _ = huge.try_push(head);
            }
        }
        frames
    }

    /// Its length.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Where it begins.
    pub fn start(&self) -> VirtAddr {
        self.start
    }

    /// Copies this whole buffer to the beginning of `to`, which is at least as long, page by page.
    pub fn copy_to(&self, cpu: &'static Cpu<A>, to: &Pinned<A>) {
        assert!(self.bytes <= to.bytes, "a message of {} bytes does not go into {}", self.bytes, to.bytes);
        for (page, (from, into)) in self.pages.iter().zip(&to.pages).enumerate() {
            ghost::point(cpu);
            if from == into {
                continue;
            }
            let (source, target) = (A::direct_map(from.addr()), A::direct_map(into.addr()));
            let left = self.bytes - page as u64 * PAGE_SIZE;
            // SAFETY: the direct map covers both frames, which differ and which the pins keep; what user mode writes to
            // them meanwhile is its own affair.
            unsafe {
                if left >= PAGE_SIZE {
                    A::copy_frame(source, target);
                } else {
                    core::ptr::copy_nonoverlapping(source, target, left as usize);
                }
            }
        }
    }

    fn let_go(&mut self, cpu: &'static Cpu<A>) {
        if self.held {
            for pfn in &self.pages {
                page::unpin_walked(cpu, *pfn);
            }
        }
    }
}

impl<A: Arch> Drop for Pinned<A> {
    fn drop(&mut self) {
        self.let_go(A::this_cpu());
    }
}
