//! Removal: revoking and deleting capabilities, and undoing what was mapped with them, a part at a time.
//!
//! A removal has steps, each of which is one look at the tree, one mapping undone, or one thread woken that waited for
//! what ends, whatever depends on it; between any two it can be left and gone on with ([`Removal::advance`]), and so can
//! the undoing of a mapping (`unmapping.rs`). So what takes long keeps nobody from its CPU who is more urgent. In
//! this order:
//!
//! - **All that descends is dead**: nothing can be derived from it and nothing mapped with it any more. Nothing is
//!   derived from what is being revoked either, so the number of what descends only falls.
//! - **One after the other is taken out**, those first from which nothing is derived: what was mapped with it is
//!   unmapped, then it leaves the tree. Whoever else revokes meanwhile finds each until nothing of it is mapped any
//!   more.
//! - **The capability itself**: what was mapped with it goes. If it is deleted, what is derived from it, which is
//!   something only where it is not the original, becomes its parent's, one after the other; then it is taken out.
//! - **The object**, if that was the original: whoever waits at it is told, one after the other, or its pages go, as
//!   many at a time as one table has. Nobody comes to wait any more from the first step on.
//!
//! The tree is changed under its lock, which is held for one step, or for some that change nothing. Mappings are undone
//! without it, since that flushes and waits for other CPUs. A capability is not deleted while another thread revokes
//! it, since what descends from it would be its parent's; and is not revoked once it is being deleted. Where two
//! removals meet in one part of the tree the second finds taken out where it was, and begins its step again.

use alloc::sync::{Arc, Weak};
use core::sync::atomic::Ordering;

use super::Object;
use super::ObjectError;
use super::capability::{Node, tree};
use super::process::Process;
use crate::arch::Arch;
use crate::guard;
use crate::pause;
use crate::smp::cpu::Cpu;

/// Nodes that are looked at under one hold of the tree's lock.
const AT_ONCE: usize = 16;

/// Where a removal is.
enum Step<A: Arch> {
    /// Everything up to this node, in the order of the tree, is dead; with `true` all below it too.
    Kills(Weak<Node<A>>, bool),
    /// This one is to be taken out when all below it is.
    Takes(Weak<Node<A>>),
    /// The capability's own mappings.
    Own,
    /// Its children, and itself.
    Out,
    /// Its object.
    Object,
    /// Nothing is left to do.
    Over,
}

/// One removal under way. It keeps nothing of what others have made: who has begun it may be kept from going on, by
/// threads of his own, for as long as he likes.
pub struct Removal<A: Arch> {
    /// If it is not there any more another has removed it.
    root: Weak<Node<A>>,
    /// The same, if it was made with its object.
    original: Option<Arc<Node<A>>>,
    /// It is deleted, not revoked.
    deletes: bool,
    step: Step<A>,
}

impl<A: Arch> Removal<A> {
    fn begin(root: &Arc<Node<A>>, deletes: bool) -> Removal<A> {
        let original = root.is_original().then(|| root.clone());
        let below = !deletes || original.is_some();
        let step = if below { Step::Kills(Arc::downgrade(root), false) } else { Step::Own };
        Removal { root: Arc::downgrade(root), original, deletes, step }
    }

    /// Begins to delete everything that descends from `root`, and to undo the mappings made with them and with `root`.
    ///
    /// # Errors
    /// [`ObjectError::Gone`] if it was deleted or revoked itself.
    pub fn revoke(root: &Arc<Node<A>>) -> Result<Removal<A>, ObjectError> {
        let _tree = tree::<A>();
        if !root.is_alive() {
            return Err(ObjectError::Gone);
        }
        root.revoking.fetch_add(1, Ordering::Relaxed);
        Ok(Removal::begin(root, false))
    }

    /// Begins to delete one capability. If it is the original, everything derived from it goes too and the object ends.
    /// `None`: it is gone.
    ///
    /// # Errors
    /// [`ObjectError::Revoked`] while another thread revokes it.
    pub fn delete(node: &Arc<Node<A>>) -> Result<Option<Removal<A>>, ObjectError> {
        // Nothing is derived from it from here on, nothing mapped, and nobody begins to revoke it.
        let _tree = tree::<A>();
        if node.revoking.load(Ordering::Relaxed) != 0 {
            return Err(ObjectError::Revoked);
        }
        if !node.is_alive() {
            return Ok(None);
        }
        node.kill();
        Ok(Some(Removal::begin(node, true)))
    }

    /// Begins to delete the original capability of an object with which nothing is mapped, and with it all that is
    /// derived from it, whoever may revoke that just now: of both nothing is left. `None`: it is gone.
    pub(super) fn delete_original(node: &Arc<Node<A>>) -> Option<Removal<A>> {
        let _tree = tree::<A>();
        if !node.is_alive() || !node.is_original() {
            return None;
        }
        node.kill();
        Some(Removal::begin(node, true))
    }

    /// Goes on until it is over, which is `true`, or `stops` says so, which is asked after each step or few.
    pub fn advance(&mut self, cpu: &'static Cpu<A>, mut stops: impl FnMut() -> bool) -> bool {
        loop {
            self.step(cpu, &mut stops);
            pause!(cpu, RemovalStep);
            if let Step::Over = self.step {
                return true;
            }
            if stops() {
                return false;
            }
        }
    }

    /// The process that ends with it, if one does.
    pub(crate) fn process(&self) -> Option<&Arc<Process<A>>> {
        match self.original.as_ref().filter(|_| self.deletes)?.object() {
            Object::Process(process) => Some(process),
            _ => None,
        }
    }

    fn step(&mut self, cpu: &'static Cpu<A>, stops: &mut dyn FnMut() -> bool) {
        let Some(root) = &self.root.upgrade() else {
            self.step = Step::Over;
            return;
        };
        self.step = match core::mem::replace(&mut self.step, Step::Over) {
            Step::Kills(at, all) => Removal::kill_some(root, at, all),
            Step::Takes(at) => Removal::take_one(cpu, root, at, stops),
            Step::Own => {
                // Deleting is no revocation: without the guard it unmaps nevertheless.
                let unmaps = guard!(RevokeUnmaps) || (self.deletes && self.original.is_none());
                if unmaps && root.unmap_one(cpu, stops) {
                    Step::Own
                } else if self.deletes {
                    Step::Out
                } else {
                    let _tree = tree::<A>();
                    root.revoking.fetch_sub(1, Ordering::Relaxed);
                    Step::Over
                }
            }
            Step::Out => {
                let _tree = tree::<A>();
                if root.hand_child_up() {
                    Step::Out
                } else {
                    root.take_out();
                    if self.original.is_some() { Step::Object } else { Step::Over }
                }
            }
            Step::Object => {
                if root.object().end_some(cpu) {
                    Step::Over
                } else {
                    Step::Object
                }
            }
            Step::Over => Step::Over,
        };
    }

    /// Where to go on in the tree: at `at`, or at the root if that was taken out meanwhile. Under the tree lock.
    fn found(root: &Arc<Node<A>>, at: &Weak<Node<A>>) -> (Arc<Node<A>>, bool) {
        match at.upgrade().filter(|at| Arc::ptr_eq(root, at) || at.parent().is_some()) {
            Some(at) => (at, true),
            None => (root.clone(), false),
        }
    }

    fn kill_some(root: &Arc<Node<A>>, at: Weak<Node<A>>, all: bool) -> Step<A> {
        let _tree = tree::<A>();
        let (mut at, there) = Removal::found(root, &at);
        let mut all = all && there;
        for _ in 0..AT_ONCE {
            if !all && let Some(child) = at.first_child() {
                child.kill();
                at = child;
            } else if Arc::ptr_eq(&at, root) {
                return Step::Takes(Arc::downgrade(&at));
            } else if let Some(next) = at.next_sibling() {
                next.kill();
                (at, all) = (next, false);
            } else if let Some(parent) = at.parent() {
                (at, all) = (parent, true);
            }
        }
        Step::Kills(Arc::downgrade(&at), all)
    }

    fn take_one(
        cpu: &'static Cpu<A>,
        root: &Arc<Node<A>>,
        at: Weak<Node<A>>,
        stops: &mut dyn FnMut() -> bool,
    ) -> Step<A> {
        let at = {
            let _tree = tree::<A>();
            let (at, _) = Removal::found(root, &at);
            if let Some(child) = at.first_child() {
                // It is dead, unless it was handed up by one that was deleted meanwhile.
                child.kill();
                return Step::Takes(Arc::downgrade(&child));
            }
            at
        };
        if Arc::ptr_eq(&at, root) {
            return Step::Own;
        }
        if guard!(RevokeUnmaps) && at.unmap_one(cpu, stops) {
            return Step::Takes(Arc::downgrade(&at));
        }
        let _tree = tree::<A>();
        let parent = at.parent();
        at.take_out();
        // Gone by another's hand: from the root again.
        Step::Takes(Arc::downgrade(parent.as_ref().unwrap_or(root)))
    }
}

/// [`Removal::revoke`] to its end.
///
/// # Errors
/// As there.
pub fn revoke<A: Arch>(cpu: &'static Cpu<A>, root: &Arc<Node<A>>) -> Result<(), ObjectError> {
    Removal::revoke(root)?.advance(cpu, || false);
    Ok(())
}

/// [`Removal::delete`] to its end.
///
/// # Errors
/// As there.
pub fn delete<A: Arch>(cpu: &'static Cpu<A>, node: &Arc<Node<A>>) -> Result<(), ObjectError> {
    if let Some(mut removal) = Removal::delete(node)? {
        removal.advance(cpu, || false);
    }
    Ok(())
}
