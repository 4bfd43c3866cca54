//! Interrupt lines. A handler cannot take locks: it notes that the line was raised ([`Lines::raise`]), and the CPU's
//! loop sets the bits of the notification that is bound to it. A line that has fired is silent until it is
//! acknowledged; what comes meanwhile is remembered, once.
//!
//! Line `n` is the timer of CPU `n`, whose ticks are the only interrupts that this machine has and the kernel does not
//! need for itself alone.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::ObjectError;
use super::account::{Account, Paid, Price};
use super::capability::Node;
use super::notification::{Bound, signal_bound};
use crate::arch::Arch;
use crate::smp::cpu::Cpu;
use crate::smp::lock::Mutex;

/// How many lines there may be.
pub const LINES: usize = 64;

/// A line's number, and who has it.
type Known<A> = (usize, Arc<Interrupt<A>>);

/// Which lines were raised, and who has them.
pub struct Lines<A: Arch> {
    raised: AtomicU64,
    known: Mutex<A, Vec<Known<A>>>,
}

impl<A: Arch> Default for Lines<A> {
    fn default() -> Self {
        Lines { raised: AtomicU64::new(0), known: Mutex::<A, _>::new(Vec::new()) }
    }
}

impl<A: Arch> Lines<A> {
    /// `line` was raised. May be called from an interrupt handler.
    pub fn raise(&self, line: usize) {
        if line < LINES {
            self.raised.fetch_or(1 << line, Ordering::Relaxed);
        }
    }

    /// Whether a line was raised that nobody has been told of.
    pub fn any(&self) -> bool {
        self.raised.load(Ordering::Relaxed) != 0
    }

    /// Tells whoever is bound to the lines that were raised since.
    #[inline]
    pub fn deliver(&self, cpu: &'static Cpu<A>) {
        if self.any() {
            self.deliver_raised(cpu);
        }
    }

    #[cold]
    fn deliver_raised(&self, cpu: &'static Cpu<A>) {
        let raised = self.raised.swap(0, Ordering::Relaxed);
        for line in (0..LINES).filter(|line| raised & (1 << line) != 0) {
            let found = self.known.lock().iter().find(|(number, _)| *number == line).map(|(_, it)| it.clone());
            if let Some(interrupt) = found {
                interrupt.fire(cpu);
            }
        }
    }
}

/// An interrupt line.
pub struct Interrupt<A: Arch> {
    line: usize,
    bound: Mutex<A, Option<Bound<A>>>,
    /// It has fired and was not acknowledged.
    fired: AtomicBool,
    /// It was raised meanwhile.
    again: AtomicBool,
    _paid: Paid,
}

impl<A: Arch> Interrupt<A> {
    /// `line`, which nobody else has.
    pub fn new(payer: &Arc<Account>, line: usize) -> Result<Arc<Interrupt<A>>, ObjectError> {
        let mut known = A::machine().objects.lines.known.lock();
        if line >= LINES || known.iter().any(|(number, _)| *number == line) {
            return Err(ObjectError::BadArgument(1));
        }
        let own = Price::of::<Interrupt<A>>().and(Price::of::<Node<A>>());
        let paid = payer.charge(own.and(Price::growing::<Known<A>>(1)))?;
        let interrupt = Arc::new(Interrupt {
            line,
            bound: Mutex::<A, _>::new(None),
            fired: AtomicBool::new(false),
            again: AtomicBool::new(false),
            _paid: paid,
        });
        known.push((line, interrupt.clone()));
        Ok(interrupt)
    }

    fn fire(&self, cpu: &'static Cpu<A>) {
        if self.fired.swap(true, Ordering::Relaxed) {
            self.again.store(true, Ordering::Relaxed);
            return;
        }
        let bound = self.bound.lock().clone();
        signal_bound(cpu, bound);
    }

    /// Has `bits` set when it fires in the notification that `node` names, for as long as that is there.
    pub fn bind(&self, node: &Arc<Node<A>>, bits: u64) {
        *self.bound.lock() = Some((Arc::downgrade(node), bits));
        self.fired.store(false, Ordering::Relaxed);
    }

    /// It may fire again, and does at once if it was raised meanwhile.
    pub fn acknowledge(&self, cpu: &'static Cpu<A>) {
        self.fired.store(false, Ordering::Relaxed);
        if self.again.swap(false, Ordering::Relaxed) {
            self.fire(cpu);
        }
    }

    /// Its original capability is gone: nobody is told any more, and somebody else may have the line.
    pub(super) fn unbind(&self) {
        *self.bound.lock() = None;
        A::machine().objects.lines.known.lock().retain(|(line, _)| *line != self.line);
    }
}
