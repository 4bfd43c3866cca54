//! Capabilities: who may do what with which object, and who has it from whom.
//!
//! A capability is a [`Node`] in the slot of a process's [`Table`]. Each object has one *original*, made with it; every
//! other capability is derived from one that was there, with no more rights, and is its child in the derivation tree.
//! Deleting one makes its children those of its parent; deleting the original ends the object; revoking one deletes all
//! that descend from it. A mapping belongs to the capability that it was made with, and ends with it: so revoking
//! frames unmaps them everywhere.
//!
//! Locks: the machine's tree lock is held to change the tree, and with it the table's and the node's; never while a
//! mapping is undone, which flushes and waits for other CPUs. Revocation therefore goes in two steps: first, under the
//! tree lock, all descendants are dead: nothing can be derived from them and nothing can be mapped with them any more,
//! so their number only falls; then of one after the other everything that was mapped with it is unmapped, and it is
//! taken out. In this order: whoever else revokes meanwhile finds each descendant until nothing of it is mapped any
//! more. A capability is not deleted while another thread revokes it, since what descends from it would be its
//! parent's.
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

/// Where a capability stands in the tree, and in which slot. Changed under the tree lock.
struct Place<A: Arch> {
    parent: Option<Arc<Node<A>>>,
    child: Weak<Node<A>>,
    next: Weak<Node<A>>,
    previous: Weak<Node<A>>,
    holder: Weak<Table<A>>,
    slot: u32,
}

/// A mapping that was made with a capability: in which process, and its number there.
pub(super) type Use<A> = (Weak<Process<A>>, u64);

/// In [`Node::brief`] while it was not deleted or revoked.
const ALIVE: u32 = 1 << 31;

/// What [`Node::brief`] is, or has: a capability to something of this kind, with these rights.
const fn brief(kind: Kind, rights: Rights) -> u32 {
    ALIVE | (kind as u32) << 16 | rights.bits()
}

/// A capability.
pub struct Node<A: Arch> {
    object: Object<A>,
    rights: Rights,
    badge: u32,
    /// All in one word, for one look: the kind of the object, what is allowed, and [`ALIVE`]. Set to 0 once, under the
    /// tree lock and that of `uses`.
    brief: AtomicU32,
    /// How many threads revoke it just now. Changed under the tree lock.
    revoking: AtomicU32,
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

    /// The endpoint that it names, if it is there and allows `rights`.
    #[inline(always)]
    pub(crate) fn endpoint(&self, rights: Rights) -> Option<&Arc<Endpoint<A>>> {
        let wanted = brief(Kind::Endpoint, rights);
        // All of the kind's bits, and of the others those that must be there. Relaxed: as in `is_alive`.
        let looked_at = wanted | 0xff << 16;
        if self.brief.load(Ordering::Relaxed) & looked_at != wanted {
            return None;
        }
        match &self.object {
            Object::Endpoint(endpoint) => Some(endpoint),
            // SAFETY: `brief` has said which it is.
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

    fn kill(&self) {
        let _uses = self.uses.lock();
        self.brief.store(0, Ordering::Relaxed);
    }

    /// Whether it was made with its object.
    pub(super) fn is_original(&self) -> bool {
        self.place.lock().parent.is_none()
    }

    /// Takes it out of the tree and out of its slot. Under the tree lock.
    fn take_out(self: &Arc<Node<A>>) {
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
    fn unmap_all(&self, cpu: &'static Cpu<A>) {
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
    fn following(self: &Arc<Node<A>>, root: &Arc<Node<A>>) -> Option<Arc<Node<A>>> {
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

fn tree<A: Arch>() -> MutexGuard<'static, A, ()> {
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

/// Deletes everything that descends from `root`, and undoes the mappings made with them and with `root`.
///
/// # Errors
/// [`ObjectError::Gone`] if it was deleted or revoked itself.
pub fn revoke<A: Arch>(cpu: &'static Cpu<A>, root: &Arc<Node<A>>) -> Result<(), ObjectError> {
    {
        let _tree = tree::<A>();
        if !root.is_alive() {
            return Err(ObjectError::Gone);
        }
        root.revoking.fetch_add(1, Ordering::Relaxed);
    }
    delete_below(cpu, root);
    let _tree = tree::<A>();
    root.revoking.fetch_sub(1, Ordering::Relaxed);
    Ok(())
}

fn delete_below<A: Arch>(cpu: &'static Cpu<A>, root: &Arc<Node<A>>) {
    {
        let _tree = tree::<A>();
        let mut at = root.following(root);
        while let Some(node) = at {
            node.kill();
            at = node.following(root);
        }
    }
    loop {
        let victim = {
            let _tree = tree::<A>();
            let victim = root.place.lock().child.upgrade();
            // It may have been derived since.
            victim.inspect(|victim| victim.kill())
        };
        let Some(victim) = victim else { break };
        if guard!(RevokeUnmaps) {
            victim.unmap_all(cpu);
        }
        let _tree = tree::<A>();
        victim.take_out();
    }
    if guard!(RevokeUnmaps) {
        root.unmap_all(cpu);
    }
}

/// Deletes one capability. If it is the original, everything derived from it goes too and the object ends.
///
/// # Errors
/// [`ObjectError::Revoked`] while another thread revokes it.
pub fn delete<A: Arch>(cpu: &'static Cpu<A>, node: &Arc<Node<A>>) -> Result<(), ObjectError> {
    let original = {
        // Nothing is derived from it from here on, nothing mapped, and nobody begins to revoke it.
        let _tree = tree::<A>();
        if node.revoking.load(Ordering::Relaxed) != 0 {
            return Err(ObjectError::Revoked);
        }
        if !node.is_alive() {
            return Ok(());
        }
        node.kill();
        node.is_original()
    };
    if original {
        delete_below(cpu, node);
    } else {
        node.unmap_all(cpu);
    }
    {
        let _tree = tree::<A>();
        node.take_out();
    }
    if original {
        node.object.end(cpu);
    }
    Ok(())
}
