//! Interrupt lines. A handler cannot take locks: it notes that the line was raised ([`Lines::raise`]), and the CPU's
//! loop sets the bits of the notification that is bound to it. A line that has fired is silent until it is
//! acknowledged; what comes meanwhile is remembered, once.
//!
//! Line `n` is the timer of CPU `n`, whose ticks are the only interrupts that this machine has and the kernel does not
//! need for itself alone. It ticks as long as somebody is bound to it, also where the CPU idles, which polls then
//! ([`crate::task::sched`]); and who acknowledges it there may say when it is to fire next. The first process has all
//! lines ([`crate::workload::programs`]).

use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};

use super::ObjectError;
use super::account::{Account, Paid, Price, trim};
use super::capability::Node;
use super::notification::{Bound, signal_bound};
use crate::addr::CpuId;
use crate::arch::Arch;
use crate::smp::cpu::Cpu;
use crate::smp::lock::Mutex;
use crate::task::sched;

/// How many lines there may be.
pub const LINES: usize = 64;

/// A line's number, and who has it.
type Known<A> = (usize, Arc<Interrupt<A>>);

/// Which lines were raised, and who has them.
pub struct Lines<A: Arch> {
    raised: AtomicU64,
    /// Those that somebody is bound to.
    wanted: AtomicU64,
    known: Mutex<A, Vec<Known<A>>>,
}

impl<A: Arch> Default for Lines<A> {
    fn default() -> Self {
        Lines { raised: AtomicU64::new(0), wanted: AtomicU64::new(0), known: Mutex::<A, _>::new(Vec::new()) }
    }
}

impl<A: Arch> Lines<A> {
    /// `line` was raised. May be called from an interrupt handler.
    pub fn raise(&self, line: usize) {
        if self.is_wanted(line) {
            self.raised.fetch_or(1 << line, Ordering::Relaxed);
        }
    }

    /// Whether the line of `cpu` was raised and nobody has been told of it.
    pub fn is_raised(&self, cpu: CpuId) -> bool {
        cpu.index() < LINES && self.raised.load(Ordering::Relaxed) & (1 << cpu.index()) != 0
    }

    /// Whether somebody is bound to `line`.
    pub fn is_wanted(&self, line: usize) -> bool {
        line < LINES && self.wanted.load(Ordering::Relaxed) & (1 << line) != 0
    }

    /// Tells whoever is bound to the line of `cpu`, which this is, if it was raised since.
    #[inline]
    pub fn deliver(&self, cpu: &'static Cpu<A>) {
        if self.is_raised(cpu.id) {
            self.deliver_raised(cpu);
        }
    }

    #[cold]
    fn deliver_raised(&self, cpu: &'static Cpu<A>) {
        let line = cpu.id.index();
        self.raised.fetch_and(!(1 << line), Ordering::Relaxed);
        let found = self.known.lock().iter().find(|(number, _)| *number == line).map(|(_, it)| it.clone());
        if let Some(interrupt) = found {
            interrupt.fire(cpu);
        }
    }
}

/// Who is told of a line, and whether he is to be.
struct State<A: Arch> {
    bound: Option<Bound<A>>,
    /// The capability to the line with which that was asked for: nobody is told whose own is gone.
    by: Weak<Node<A>>,
    /// It has fired and was not acknowledged.
    fired: bool,
    /// It was raised meanwhile.
    again: bool,
}

/// An interrupt line.
pub struct Interrupt<A: Arch> {
    line: usize,
    state: Mutex<A, State<A>>,
    _paid: Paid,
}

impl<A: Arch> Interrupt<A> {
    /// `line`, which nobody else has.
    pub fn new(payer: &Arc<Account>, line: usize) -> Result<Arc<Interrupt<A>>, ObjectError> {
        let mut known = A::machine().objects.lines.known.lock();
        if line >= LINES || known.iter().any(|(number, _)| *number == line) {
            return Err(ObjectError::BadArgument(1));
        }
        // Two capabilities that are gone keep their memory while it has their names.
        let own = Price::of::<Interrupt<A>>().and(Price::of::<Node<A>>()).and(Price::of::<Node<A>>());
        let paid = payer.charge(own.and(Price::growing::<Known<A>>(1)))?;
        let state = State { bound: None, by: Weak::new(), fired: false, again: false };
        let interrupt = Arc::new(Interrupt { line, state: Mutex::<A, _>::new(state), _paid: paid });
        known.push((line, interrupt.clone()));
        Ok(interrupt)
    }

    fn fire(&self, cpu: &'static Cpu<A>) {
        let bound = {
            let mut state = self.state.lock();
            if state.fired {
                state.again = true;
                return;
            }
            state.fired = true;
            if state.by.upgrade().is_none_or(|by| !by.is_alive()) {
                self.forget(&mut state);
            }
            state.bound.clone()
        };
        signal_bound(cpu, bound);
    }

    /// Nobody is told any more, and nobody wants its CPU to tick.
    fn forget(&self, state: &mut State<A>) {
        A::machine().objects.lines.wanted.fetch_and(!(1 << self.line), Ordering::Relaxed);
        (state.bound, state.by) = (None, Weak::new());
    }

    /// Has `bits` set when it fires in the notification that `node` names, for as long as that is there, and so is
    /// `by`, the caller's capability to the line.
    ///
    /// # Errors
    /// [`ObjectError::Gone`] if `by` is gone. Who deletes it and ends the line takes the lock of its state in between:
    /// that comes first, or undoes this.
    pub fn bind(
        &self,
        cpu: &'static Cpu<A>,
        by: &Arc<Node<A>>,
        node: &Arc<Node<A>>,
        bits: u64,
    ) -> Result<(), ObjectError> {
        {
            let mut state = self.state.lock();
            if !by.is_alive() {
                return Err(ObjectError::Gone);
            }
            let (bound, by) = (Some((Arc::downgrade(node), bits)), Arc::downgrade(by));
            *state = State { bound, by, fired: false, again: false };
            A::machine().objects.lines.wanted.fetch_or(1 << self.line, Ordering::Relaxed);
        }
        // Its CPU may sleep without a timer: it looks again, with interrupts masked, before it sleeps the next time.
        sched::look_again(cpu, CpuId(self.line as u16));
        Ok(())
    }

    /// It may fire again, and does at once if it was raised meanwhile. `when`: if this is the timer of the calling CPU,
    /// it is to fire then, or when the kernel wants it to, whatever comes first (`sched::tick_at`); 0 for the latter.
    pub fn acknowledge(&self, cpu: &'static Cpu<A>, when: u64) {
        if when != 0 && self.line == cpu.id.index() {
            sched::tick_at(cpu, when);
        }
        let again = {
            let mut state = self.state.lock();
            state.fired = false;
            core::mem::take(&mut state.again)
        };
        if again {
            self.fire(cpu);
        }
    }

    /// Its original capability is gone: nobody is told any more, and somebody else may have the line.
    pub(super) fn unbind(&self) {
        self.forget(&mut self.state.lock());
        let mut known = A::machine().objects.lines.known.lock();
        known.retain(|(line, _)| *line != self.line);
        trim(&mut known);
    }
}
