//! Removal: revoking and deleting capabilities, and what was mapped with them.
//!
//! Mappings are undone without the tree lock, since that flushes and waits for other CPUs. Revocation therefore goes in
//! two steps: first, under the tree lock, all descendants are dead: nothing can be derived from them and nothing can be
//! mapped with them any more, so their number only falls; then of one after the other everything that was mapped with
//! it is unmapped, and it is taken out. In this order: whoever else revokes meanwhile finds each descendant until
//! nothing of it is mapped any more. A capability is not deleted while another thread revokes it, since what descends
//! from it would be its parent's.

use alloc::sync::Arc;
use core::sync::atomic::Ordering;

use super::ObjectError;
use super::capability::{Node, tree};
use crate::arch::Arch;
use crate::guard;
use crate::smp::cpu::Cpu;

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
        node.object().end(cpu);
    }
    Ok(())
}
