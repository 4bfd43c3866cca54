//! Processes: an address space, the capability table and the account of what runs in it, its threads.
//!
//! A process ends when its original capability is deleted, when it is ended by [`Process::end`], or with its last
//! thread. Then its threads are stopped, on whatever CPUs they are; the CPU that sees the last of them leave takes the
//! process down ([`super::finish`]): the processes that it made end too, its table is emptied, which ends all objects
//! that it made and still has, its address space is unmapped. So everything charged to its account is given back, but
//! for objects whose original it moved nowhere: there is no way to.

use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};

use super::account::{Account, Paid, Price, trim};
use super::capability::{self, Node};
use super::endpoint::Endpoint;
use super::mapping::Mappings;
use super::removal::Removal;
use super::table::Table;
use super::thread::Thread;
use super::{Object, ObjectError};
use crate::abi::Rights;
use crate::arch::Arch;
use crate::mm::address_space::{MapError, Mm};
use crate::smp::cpu::Cpu;
use crate::smp::lock::{Mutex, RwLock};

/// Slots of a capability table, at most.
pub const MOST_SLOTS: u32 = 1 << 16;

/// The threads that have not ended.
struct Threads<A: Arch> {
    list: Vec<Arc<Thread<A>>>,
    ended: bool,
}

/// A process.
pub struct Process<A: Arch> {
    /// For reports.
    pub id: u32,
    /// Its address space.
    pub mm: Arc<Mm<A>>,
    /// Its capabilities.
    pub table: Arc<Table<A>>,
    /// Pays for what it asks for.
    pub account: Arc<Account>,
    /// The highest priority that its threads may have.
    pub highest: u8,
    pub(super) mappings: RwLock<A, Mappings<A>>,
    threads: Mutex<A, Threads<A>>,
    children: Mutex<A, Vec<Weak<Process<A>>>>,
    /// Who made it, if that was a process.
    parent: Mutex<A, Weak<Process<A>>>,
    /// The original capabilities of threads that strangers have made in it: see [`Process::has_guest`].
    guests: Mutex<A, Vec<Weak<Node<A>>>>,
    /// The capability by which somebody is called for faults.
    pager: Mutex<A, Weak<Node<A>>>,
    /// The next of the list of processes to be taken down.
    pub(super) next_ending: Mutex<A, Option<Arc<Process<A>>>>,
    /// How far it is taken down. Of whoever has taken it from that list.
    end: Mutex<A, End<A>>,
    status: AtomicU64,
    _paid: Paid,
}

/// How far a process is taken down.
#[derive(Default)]
enum End<A: Arch> {
    /// Not at all: its children come first, and its table is closed.
    #[default]
    Begins,
    /// The capabilities in slots from this one on are to go; the one before is going.
    Slots(u32, Option<Removal<A>>),
    /// Its mappings.
    Mappings,
    /// What is kept of them.
    List,
    /// Whole.
    Over,
}

/// Slots that are looked at in one step.
const SLOTS_AT_ONCE: u32 = 32;

/// What a process costs its maker, beside the limit of its account.
pub fn price<A: Arch>(slots: u32) -> Price {
    let root = Price { frames: 1, spaces: 1, ..Price::of::<Mm<A>>() };
    // A capability that is gone and that named its pager keeps its memory till then; so does one that its end has come
    // to.
    let own = Price::of::<Process<A>>()
        .and(Price::of::<Account>())
        .and(Price::of::<Node<A>>())
        .and(Price::of::<Node<A>>())
        .and(Price::growing::<Weak<Process<A>>>(1));
    root.and(own).and(Table::<A>::price(slots))
}

impl<A: Arch> Process<A> {
    /// An empty process for whom `payer` pays: with a table of `slots`, and an account of `limit`.
    pub fn new(
        cpu: &'static Cpu<A>,
        payer: &Arc<Account>,
        slots: u32,
        limit: Price,
        highest: u8,
    ) -> Result<Arc<Process<A>>, ObjectError> {
        Process::with(payer, slots, limit, highest, Price::NOTHING, || Mm::for_programs(cpu))
    }

    /// The same, with the address space that `mm` makes, which costs `more`.
    pub(super) fn with(
        payer: &Arc<Account>,
        slots: u32,
        limit: Price,
        highest: u8,
        more: Price,
        mm: impl FnOnce() -> Result<Arc<Mm<A>>, MapError>,
    ) -> Result<Arc<Process<A>>, ObjectError> {
        if slots > MOST_SLOTS {
            return Err(ObjectError::BadArgument(1));
        }
        let paid = payer.charge(price::<A>(slots).and(more))?;
        let account = payer.open(limit)?;
        let mm = mm()?;
        Ok(Arc::new(Process {
            id: A::machine().objects.id(),
            mm,
            table: Table::new(slots),
            account,
            highest,
            mappings: RwLock::<A, _>::new(Mappings::default()),
            threads: Mutex::<A, _>::new(Threads { list: Vec::new(), ended: false }),
            children: Mutex::<A, _>::new(Vec::new()),
            parent: Mutex::<A, _>::new(Weak::new()),
            guests: Mutex::<A, _>::new(Vec::new()),
            pager: Mutex::<A, _>::new(Weak::new()),
            next_ending: Mutex::<A, _>::new(None),
            end: Mutex::<A, _>::new(End::Begins),
            status: AtomicU64::new(0),
            _paid: paid,
        }))
    }

    /// Makes a process out of this one's account and puts its original capability into `slot`. It ends when this one
    /// does.
    pub fn make_child(
        self: &Arc<Process<A>>,
        cpu: &'static Cpu<A>,
        slot: u32,
        slots: u32,
        limit: Price,
        highest: u8,
    ) -> Result<Arc<Process<A>>, ObjectError> {
        self.check_child(slot, highest)?;
        let child = Process::new(cpu, &self.account, slots, limit, highest)?;
        self.adopt(cpu, slot, child)
    }

    /// An error if this process may not make one in `slot` whose threads may have priority `highest`.
    pub(super) fn check_child(&self, slot: u32, highest: u8) -> Result<(), ObjectError> {
        if highest > self.highest {
            return Err(ObjectError::Forbidden(Rights::MANAGE));
        }
        self.table.check_free(slot)
    }

    /// `child` ends when this one does, at the latest; its original capability goes into `slot`.
    pub(super) fn adopt(
        self: &Arc<Process<A>>,
        cpu: &'static Cpu<A>,
        slot: u32,
        child: Arc<Process<A>>,
    ) -> Result<Arc<Process<A>>, ObjectError> {
        *child.parent.lock() = Arc::downgrade(self);
        self.children.lock().push(Arc::downgrade(&child));
        capability::install(cpu, &self.table, slot, Object::Process(child.clone()))?;
        Ok(child)
    }

    /// Chooses who is called for faults: by `node`, an endpoint's, for as long as that is there.
    pub fn set_pager(&self, node: &Arc<Node<A>>) {
        *self.pager.lock() = Arc::downgrade(node);
    }

    /// Who is called for faults, and the badge of the call.
    pub(crate) fn pager(&self) -> Option<(Arc<Endpoint<A>>, u32)> {
        let node = self.pager.lock().upgrade().filter(|node| node.is_alive())?;
        match node.object() {
            Object::Endpoint(endpoint) => Some((endpoint.clone(), node.badge())),
            _ => None,
        }
    }

    /// It is taken down: who made it keeps nothing of it.
    fn leave_parent(&self) {
        let Some(parent) = core::mem::take(&mut *self.parent.lock()).upgrade() else { return };
        let mut children = parent.children.lock();
        children.retain(|child| !core::ptr::eq(child.as_ptr(), self));
        trim(&mut children);
    }

    /// Whether `other` is neither this process nor who made it.
    pub(super) fn is_stranger(&self, other: &Process<A>) -> bool {
        !core::ptr::eq(self, other) && !core::ptr::eq(self.parent.lock().as_ptr(), other)
    }

    /// A stranger has made a thread here, whose original capability is `node`. That would keep what the process is made
    /// of for as long as the stranger likes, while another pays for it: so it goes when the process is taken down.
    pub(super) fn has_guest(&self, node: &Arc<Node<A>>) {
        self.guests.lock().push(Arc::downgrade(node));
    }

    /// The original capability of a thread of it is gone.
    pub(super) fn forget_guests(&self) {
        let mut guests = self.guests.lock();
        guests.retain(|guest| guest.upgrade().is_some_and(|guest| guest.is_alive()));
        trim(&mut guests);
    }

    /// A thread begins.
    pub(super) fn join(&self, thread: &Arc<Thread<A>>) -> Result<(), ObjectError> {
        let mut threads = self.threads.lock();
        if threads.ended {
            return Err(ObjectError::Gone);
        }
        threads.list.push(thread.clone());
        Ok(())
    }

    /// A thread has ended, with `status`, and runs nowhere any more.
    pub(super) fn leave(self: &Arc<Process<A>>, thread: &Thread<A>, status: u64) {
        let mut threads = self.threads.lock();
        threads.list.retain(|other| !core::ptr::eq(&**other, thread));
        trim(&mut threads.list);
        if threads.list.is_empty() {
            let first = !core::mem::replace(&mut threads.ended, true);
            drop(threads);
            if first {
                self.status.store(status, Ordering::Relaxed);
            }
            self.hand_over();
        }
    }

    /// What it ended with: that of its last thread, or of [`Process::end`].
    pub fn status(&self) -> u64 {
        self.status.load(Ordering::Relaxed)
    }

    /// Whether no thread is left and none can begin.
    pub fn has_ended(&self) -> bool {
        let threads = self.threads.lock();
        threads.ended && threads.list.is_empty()
    }

    /// Whether it is taken down, too: nothing is mapped in it any more, and its capabilities are gone.
    pub fn is_down(&self) -> bool {
        // While somebody takes it down, this is where it begins.
        matches!(*self.end.lock(), End::Over)
    }

    /// Ends it with `status`: all its threads are stopped.
    pub fn end(self: &Arc<Process<A>>, cpu: &'static Cpu<A>, status: u64) {
        let list = {
            let mut threads = self.threads.lock();
            if core::mem::replace(&mut threads.ended, true) {
                return;
            }
            self.status.store(status, Ordering::Relaxed);
            threads.list.clone()
        };
        if list.is_empty() {
            self.hand_over();
        }
        for thread in list {
            thread.end(cpu, status);
        }
    }

    /// Puts it on the list of processes to be taken down: by whoever saw the last thread leave, and by whoever leaves
    /// it for later.
    pub(super) fn hand_over(self: &Arc<Process<A>>) {
        let mut ending = A::machine().objects.ending.lock();
        *self.next_ending.lock() = ending.take();
        *ending = Some(self.clone());
        A::machine().objects.ends.fetch_add(1, Ordering::Relaxed);
    }

    /// Takes it down until that is done, which is `true`, or `stops` says so, which is asked before each step.
    pub(super) fn take_down(self: &Arc<Process<A>>, cpu: &'static Cpu<A>, mut stops: impl FnMut() -> bool) -> bool {
        // Only who has it from the list comes here; what is done needs the lock of none of this.
        let mut end = core::mem::take(&mut *self.end.lock());
        loop {
            if !matches!(end, End::Over) && stops() {
                *self.end.lock() = end;
                return false;
            }
            end = match end {
                End::Begins => {
                    for child in core::mem::take(&mut *self.children.lock()) {
                        if let Some(child) = child.upgrade() {
                            child.end(cpu, self.status());
                        }
                    }
                    self.table.close();
                    End::Slots(0, None)
                }
                End::Slots(next, Some(mut removal)) => {
                    let done = removal.advance(cpu, &mut stops);
                    End::Slots(next, (!done).then_some(removal))
                }
                End::Slots(next, None) => self.next_slot(next),
                End::Mappings if self.unmap_everything(cpu, &mut stops) => End::List,
                End::Mappings => End::Mappings,
                End::List if self.forget_some() => {
                    self.leave_parent();
                    End::Over
                }
                End::List => End::List,
                End::Over => {
                    *self.end.lock() = End::Over;
                    return true;
                }
            };
        }
    }

    /// Begins to delete the next capability.
    fn next_slot(&self, next: u32) -> End<A> {
        let guest = self.guests.lock().pop();
        if let Some(guest) = guest {
            let removal = guest.upgrade().and_then(|node| Removal::delete_original(&node));
            return End::Slots(next, removal);
        }
        let len = self.table.len();
        let last = next.saturating_add(SLOTS_AT_ONCE).min(len);
        for slot in next..last {
            // Nobody is about to revoke it: that is for threads of this process, which are gone.
            if let Ok(node) = self.table.get(slot)
                && let Ok(Some(removal)) = Removal::delete(&node)
            {
                return End::Slots(slot + 1, Some(removal));
            }
        }
        if last < len {
            return End::Slots(last, None);
        }
        *self.pager.lock() = Weak::new();
        End::Mappings
    }
}
