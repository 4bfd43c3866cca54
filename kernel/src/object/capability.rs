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
pub(super) struct Place<A: Arch> {
    parent: Option<Arc<Node<A>>>,
    pub(super) child: Weak<Node<A>>,
    next: Weak<Node<A>>,
    previous: Weak<Node<A>>,
    holder: Weak<Table<A>>,
    slot: u32,
}

/// A mapping that was made with a capability: in which process, and its number there.
pub(super) type Use<A> = (Weak<Process<A>>, u64);

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
    pub(super) place: Mutex<A, Place<A>>,
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
        // All of the kind's bits, and of the others those that must be there. Relaxed: as in `is_alive`; and `kill` comes
        // before the endpoint's lock, which who asks has taken since, or waits for him there.
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
        uses.push(what);
        Ok(())
    }

    /// A mapping ended by itself.
    pub(super) fn forget_use(&self, process: &Process<A>, token: u64) {
        let mut uses = self.uses.lock();
        uses.retain(|(of, number)| !(*number == token && core::ptr::eq(of.as_ptr(), process)));
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

    /// Takes it out of the tree and out of its slot. Under the tree lock.
    pub(super) fn take_out(self: &Arc<Node<A>>) {
        self.kill();
        let (parent, first, next, previous, holder, slot) = {
            let place = self.place.lock();
            (
                place.parent.clone(),
                place.child.upgrade(),
                place.next.upgrade(),
                place.previous.upgrade(),
                place.holder.upgrade(),
                place.slot,
            )
        };
        // Its children take its place among its siblings.
        let (mut head, mut last) = (next.clone(), None);
        if let Some(first) = first {
            head = Some(first.clone());
            let mut child = Some(first);
            while let Some(now) = child {
                let mut place = now.place.lock();
                place.parent = parent.clone();
                child = place.next.upgrade();
                drop(place);
                last = Some(now);
            }
        }
        if let (Some(last), Some(next)) = (&last, &next) {
            last.place.lock().next = Arc::downgrade(next);
            next.place.lock().previous = Arc::downgrade(last);
        } else if let (None, Some(next)) = (&last, &next) {
            next.place.lock().previous = previous.as_ref().map(Arc::downgrade).unwrap_or_default();
        }
        if last.is_some()
            && let Some(head) = &head
        {
            head.place.lock().previous = previous.as_ref().map(Arc::downgrade).unwrap_or_default();
        }
        let head = head.as_ref().map(Arc::downgrade).unwrap_or_default();
        match (&previous, &parent) {
            (Some(previous), _) => previous.place.lock().next = head,
            (None, Some(parent)) => parent.place.lock().child = head,
            (None, None) => {}
        }
        *self.place.lock() = Place {
            parent: None,
            child: Weak::new(),
            next: Weak::new(),
            previous: Weak::new(),
            holder: Weak::new(),
            slot,
        };
        if let Some(holder) = holder {
            holder.empty(slot, self);
        }
    }

    /// Undoes the mappings that were made with it.
    pub(super) fn unmap_all(&self, cpu: &'static Cpu<A>) {
        loop {
            // It stays in the list until it is undone: who comes second waits for who is at it.
            let Some((process, token)) = self.uses.lock().last().cloned() else { return };
            match process.upgrade() {
                Some(process) => process.unmap_use(cpu, self, token),
                None => {
                    let mut uses = self.uses.lock();
                    uses.retain(|(of, _)| of.strong_count() != 0);
                    trim(&mut uses);
                }
            }
        }
    }

    /// The next of those that descend from `root`, each before its children.
    pub(super) fn following(self: &Arc<Node<A>>, root: &Arc<Node<A>>) -> Option<Arc<Node<A>>> {
        let mut at = self.clone();
        if let Some(child) = at.place.lock().child.upgrade() {
            return Some(child);
        }
        while !Arc::ptr_eq(&at, root) {
            let (next, parent) = {
                let place = at.place.lock();
                (place.next.upgrade(), place.parent.clone())
            };
            if next.is_some() {
                return next;
            }
            at = parent?;
        }
        None
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
    let place = Place {
        parent,
        child: Weak::new(),
        next: Weak::new(),
        previous: Weak::new(),
        holder: Arc::downgrade(table),
        slot,
    };
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
) -> Result<(), ObjectError> {
    let result = {
        let _tree = tree::<A>();
        table.fill(slot, &node(table, slot, object.clone(), Rights::all(), 0, None))
    };
    if result.is_err() {
        object.end(cpu);
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
