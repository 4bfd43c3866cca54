//! Capabilities: who may do what with which object, and who has it from whom.
//!
//! A capability is a [`Node`] in the slot of a process's [`Table`]. Each object has one *original*, made with it; every
//! other capability is derived from one that was there, with no more rights, and is its child in the derivation tree.
//! Deleting one makes its children those of its parent; deleting the original ends the object; revoking one deletes all
//! that descend from it. A mapping belongs to the capability that it was made with, and ends with it: so revoking
//! frames unmaps them everywhere.
//!
//! Locks: the machine's tree lock is held to change the tree, and with it the table's and the node's; never while a
//! mapping is undone, which flushes and waits for other CPUs: see `removal.rs`.
//!
//! Whatever is left behind to be used later (a pager, what is bound to a notification, a capability in a message) names
//! the capability, not the object: it ends with it.

use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, Ordering};

use super::account::trim;
use super::endpoint::Endpoint;
use super::process::Process;
use super::table::Table;
use super::{Object, ObjectError};
use crate::abi::{Kind, Rights};
use crate::arch::Arch;
use crate::guard;
use crate::smp::cpu::Cpu;
use crate::smp::lock::{Mutex, MutexGuard};

pub use super::removal::{delete, revoke};

/// Where a capability stands in the tree, and in which slot. Changed under the tree lock.
struct Place<A: Arch> {
    parent: Option<Arc<Node<A>>>,
    child: Weak<Node<A>>,
    next: Weak<Node<A>>,
    previous: Weak<Node<A>>,
    holder: Weak<Table<A>>,
    slot: u32,
}

impl<A: Arch> Place<A> {
    /// In no tree and no slot, which was this one.
    fn nowhere(slot: u32) -> Place<A> {
        let none = Weak::new();
        Place { parent: None, child: none.clone(), next: none.clone(), previous: none, holder: Weak::new(), slot }
    }
}

/// A mapping that was made with a capability: in which process, and where both have it.
pub(super) type Use<A> = (Weak<Process<A>>, Arc<Tie>);

/// Where a mapping is in the list of its process, and where in that of the capability that it was made with: each knows
/// the other without a search. Relaxed: each word is looked at and changed under its list's lock.
pub(super) struct Tie {
    /// Its index among the process's mappings, or [`NOWHERE`].
    pub(super) mapped: AtomicU32,
    /// Its index among the capability's uses, or [`NOWHERE`].
    used: AtomicU32,
}

/// In no list.
pub(super) const NOWHERE: u32 = u32::MAX;

impl Tie {
    /// One of nothing yet.
    pub(super) fn new() -> Arc<Tie> {
        Arc::new(Tie { mapped: AtomicU32::new(NOWHERE), used: AtomicU32::new(NOWHERE) })
    }
}

/// In [`Node::brief`] while it was not deleted or revoked.
const ALIVE: u32 = 1 << 1;
/// Where the kind is there, and all of its bits.
const KIND_SHIFT: u32 = 2;
const KIND_BITS: u32 = 0x1f << KIND_SHIFT;

/// What [`Node::brief`] is, or has: a capability to something of this kind, with those of these rights that calls look
/// at. They are beside the rest, one at each end, so that what is looked at is one run of bits.
const fn brief(kind: Kind, rights: Rights) -> u32 {
    let (read, write) = (rights.bits() & Rights::READ.bits(), rights.bits() & Rights::WRITE.bits());
    read | ALIVE | (kind as u32) << KIND_SHIFT | write << 6
}

/// A capability.
pub struct Node<A: Arch> {
    object: Object<A>,
    rights: Rights,
    badge: u32,
    /// All in one word, for one look: the kind of the object, whether it may be read and written, and [`ALIVE`]. Set to
    /// 0 once, under the tree lock and that of `uses`.
    brief: AtomicU32,
    /// How many threads revoke it just now. Changed under the tree lock.
    pub(super) revoking: AtomicU32,
    place: Mutex<A, Place<A>>,
    uses: Mutex<A, Vec<Use<A>>>,
}

impl<A: Arch> Node<A> {
    /// What it names.
    pub fn object(&self) -> &Object<A> {
        &self.object
    }

    /// What it allows.
    pub fn rights(&self) -> Rights {
        self.rights
    }

    /// What it tells the receiver of a call through it; 0 for none.
    pub fn badge(&self) -> u32 {
        self.badge
    }

    /// Whether it was not deleted or revoked.
    pub fn is_alive(&self) -> bool {
        // Relaxed: who finds it dead reads nothing more of it, and who must not miss that looks under the lock that
        // `kill` holds.
        self.brief.load(Ordering::Relaxed) != 0
    }

    /// Whether it is there, is an endpoint's, and allows `rights`, of reading and writing. Who asks with the endpoint's
    /// lock has an answer that holds until he drops it.
    #[inline(always)]
    pub(crate) fn is_endpoint(&self, rights: Rights) -> bool {
        let wanted = brief(Kind::Endpoint, rights);
        // All of the kind's bits, and of the others those that must be there. Relaxed: as in `is_alive`; and `kill`
        // comes before the endpoint's lock, which who asks has taken since, or waits for him there.
        self.brief.load(Ordering::Relaxed) & (wanted | KIND_BITS) == wanted
    }

    /// The endpoint that it names.
    ///
    /// # Safety
    /// [`Node::is_endpoint`] was true once.
    #[inline(always)]
    pub(crate) unsafe fn endpoint(&self) -> &Arc<Endpoint<A>> {
        match &self.object {
            Object::Endpoint(endpoint) => endpoint,
            // SAFETY: the caller's promise; a capability is to one object for ever.
            _ => unsafe { core::hint::unreachable_unchecked() },
        }
    }

    /// An error unless it allows all of `rights`.
    pub fn require(&self, rights: Rights) -> Result<(), ObjectError> {
        let missing = rights - self.rights;
        if missing.is_empty() { Ok(()) } else { Err(ObjectError::Forbidden(missing)) }
    }

    /// Does `map` and notes that it belongs to this capability, unless that is revoked already: of the two one comes
    /// first.
    pub(super) fn use_for(
        &self,
        what: Use<A>,
        map: impl FnOnce() -> Result<(), ObjectError>,
    ) -> Result<(), ObjectError> {
        let mut uses = self.uses.lock();
        if !self.is_alive() {
            return Err(ObjectError::Gone);
        }
        map()?;
        what.1.used.store(uses.len() as u32, Ordering::Relaxed);
        uses.push(what);
        Ok(())
    }

    /// A mapping ended by itself.
    pub(super) fn forget_use(&self, tie: &Tie) {
        let mut uses = self.uses.lock();
        let at = tie.used.swap(NOWHERE, Ordering::Relaxed);
        if at == NOWHERE {
            return;
        }
        uses.swap_remove(at as usize);
        if let Some((_, moved)) = uses.get(at as usize) {
            moved.used.store(at, Ordering::Relaxed);
        }
        trim(&mut uses);
    }

    pub(super) fn kill(&self) {
        {
            let _uses = self.uses.lock();
            self.brief.store(0, Ordering::Relaxed);
        }
        if let Object::Endpoint(endpoint) = &self.object
            && guard!(KillMeets)
        {
            // A short call that has found it alive has the endpoint's lock till it is done: that comes first.
            drop(endpoint.meeting.lock());
        }
    }

    /// Whether it was made with its object.
    pub(super) fn is_original(&self) -> bool {
        self.place.lock().parent.is_none()
    }

    /// What it was derived from; none of an original, nor of one that was taken out.
    pub(super) fn parent(&self) -> Option<Arc<Node<A>>> {
        self.place.lock().parent.clone()
    }

    /// What was derived from it last.
    pub(super) fn first_child(&self) -> Option<Arc<Node<A>>> {
        self.place.lock().child.upgrade()
    }

    /// What was derived before it from the same.
    pub(super) fn next_sibling(&self) -> Option<Arc<Node<A>>> {
        self.place.lock().next.upgrade()
    }

    /// Its first child becomes its parent's, right behind itself. False: there is none, or no parent. Under the tree
    /// lock.
    pub(super) fn hand_child_up(self: &Arc<Node<A>>) -> bool {
        let (Some(child), Some(parent)) = (self.first_child(), self.parent()) else { return false };
        let after = child.next_sibling();
        let next = self.next_sibling();
        if let Some(after) = &after {
            after.place.lock().previous = Weak::new();
        }
        if let Some(next) = &next {
            next.place.lock().previous = Arc::downgrade(&child);
        }
        {
            let mut place = self.place.lock();
            place.child = after.as_ref().map(Arc::downgrade).unwrap_or_default();
            place.next = Arc::downgrade(&child);
        }
        let mut place = child.place.lock();
        place.parent = Some(parent);
        place.previous = Arc::downgrade(self);
        place.next = next.as_ref().map(Arc::downgrade).unwrap_or_default();
        true
    }

    /// Takes it out of the tree and out of its slot; it has no children. Under the tree lock.
    pub(super) fn take_out(self: &Arc<Node<A>>) {
        self.kill();
        let (slot, out) = {
            let mut place = self.place.lock();
            let slot = place.slot;
            (slot, core::mem::replace(&mut *place, Place::nowhere(slot)))
        };
        debug_assert!(out.child.strong_count() == 0);
        if let Some(next) = out.next.upgrade() {
            next.place.lock().previous = out.previous.clone();
        }
        if let Some(previous) = out.previous.upgrade() {
            previous.place.lock().next = out.next;
        } else if let Some(parent) = &out.parent {
            parent.place.lock().child = out.next;
        }
        if let Some(holder) = out.holder.upgrade() {
            holder.empty(slot, self);
        }
    }

    /// Undoes one of the mappings that were made with it, or some of one if `stops` says so. False: there is none.
    pub(super) fn unmap_one(&self, cpu: &'static Cpu<A>, stops: &mut dyn FnMut() -> bool) -> bool {
        // It stays in the list until it is undone: who comes second waits for who is at it.
        let Some((process, tie)) = self.uses.lock().last().cloned() else { return false };
        match process.upgrade() {
            Some(process) => process.unmap_use(cpu, self, &tie, stops),
            None => self.forget_use(&tie),
        }
        true
    }
}

pub(super) fn tree<A: Arch>() -> MutexGuard<'static, A, ()> {
    A::machine().objects.tree.lock()
}

fn node<A: Arch>(
    table: &Arc<Table<A>>,
    slot: u32,
    object: Object<A>,
    rights: Rights,
    badge: u32,
    parent: Option<Arc<Node<A>>>,
) -> Arc<Node<A>> {
    let place = Place { parent, holder: Arc::downgrade(table), ..Place::nowhere(slot) };
    let brief = AtomicU32::new(brief(object.kind(), rights));
    Arc::new(Node {
        object,
        rights,
        badge,
        brief,
        revoking: AtomicU32::new(0),
        place: Mutex::<A, _>::new(place),
        uses: Mutex::<A, _>::new(Vec::new()),
    })
}

/// Puts the original capability of a new object into `slot`: all rights. If there is no room the object ends.
pub fn install<A: Arch>(
    cpu: &'static Cpu<A>,
    table: &Arc<Table<A>>,
    slot: u32,
    object: Object<A>,
) -> Result<Arc<Node<A>>, ObjectError> {
    let result = {
        let _tree = tree::<A>();
        let node = node(table, slot, object.clone(), Rights::all(), 0, None);
        table.fill(slot, &node).map(|()| node)
    };
    if result.is_err() {
        while !object.end_some(cpu) {}
        super::finish(cpu);
    }
    result
}

/// Derives a capability from `from` into `slot` of `table`, with `rights`, which `from` must have. If it has a badge
/// the new one has the same.
pub fn derive<A: Arch>(
    from: &Arc<Node<A>>,
    table: &Arc<Table<A>>,
    slot: u32,
    rights: Rights,
    badge: u32,
) -> Result<Arc<Node<A>>, ObjectError> {
    if guard!(RightsShrink) {
        from.require(rights)?;
    }
    if from.badge != 0 && badge != 0 && badge != from.badge {
        return Err(ObjectError::Badged(from.badge));
    }
    let badge = if from.badge != 0 { from.badge } else { badge };
    let _tree = tree::<A>();
    if !from.is_alive() {
        return Err(ObjectError::Gone);
    }
    if from.revoking.load(Ordering::Relaxed) != 0 {
        return Err(ObjectError::Revoked);
    }
    let derived = node(table, slot, from.object.clone(), rights, badge, Some(from.clone()));
    table.fill(slot, &derived)?;
    let mut parent = from.place.lock();
    if let Some(sibling) = parent.child.upgrade() {
        sibling.place.lock().previous = Arc::downgrade(&derived);
        derived.place.lock().next = Arc::downgrade(&sibling);
    }
    parent.child = Arc::downgrade(&derived);
    drop(parent);
    Ok(derived)
}
