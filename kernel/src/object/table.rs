//! Capability tables: numbered slots, of which a process has as many as its maker paid for.

use alloc::sync::Arc;
use alloc::vec::Vec;

use super::ObjectError;
use super::account::Price;
use super::capability::Node;
use crate::arch::Arch;
use crate::smp::lock::Mutex;

/// The capability table of a process.
pub struct Table<A: Arch> {
    slots: Mutex<A, Slots<A>>,
}

struct Slots<A: Arch> {
    slots: Vec<Option<Arc<Node<A>>>>,
    /// Nothing comes in any more.
    closed: bool,
}

impl<A: Arch> Table<A> {
    /// What `slots` slots cost, with everything that may come into them.
    pub fn price(slots: u32) -> Price {
        let nodes = Price { bytes: u64::from(slots) * Price::of::<Node<A>>().bytes, ..Price::NOTHING };
        Price::of::<Table<A>>().and(Price::array::<Option<Arc<Node<A>>>>(slots.into())).and(nodes)
    }

    /// An empty table. The caller has paid.
    pub fn new(slots: u32) -> Arc<Table<A>> {
        let mut empty = Vec::new();
        empty.resize_with(slots as usize, || None);
        Arc::new(Table { slots: Mutex::<A, _>::new(Slots { slots: empty, closed: false }) })
    }

    /// What is in `slot`.
    pub fn get(&self, slot: u32) -> Result<Arc<Node<A>>, ObjectError> {
        let slots = self.slots.lock();
        let node = slots.slots.get(slot as usize).and_then(Option::as_ref);
        node.filter(|node| node.is_alive()).cloned().ok_or(ObjectError::NoCapability(slot))
    }

    /// What is in `slot`, dead or alive, if that can be seen without a wait.
    pub(crate) fn try_get(&self, slot: u32) -> Option<Arc<Node<A>>> {
        self.slots.try_lock()?.slots.get(slot as usize)?.clone()
    }

    /// An error unless `slot` is there and empty.
    pub fn check_free(&self, slot: u32) -> Result<(), ObjectError> {
        let slots = self.slots.lock();
        match slots.slots.get(slot as usize) {
            Some(None) if !slots.closed => Ok(()),
            Some(None) => Err(ObjectError::Gone),
            Some(Some(_)) => Err(ObjectError::SlotTaken(slot)),
            None => Err(ObjectError::NoCapability(slot)),
        }
    }

    /// How many slots it has.
    pub fn len(&self) -> u32 {
        self.slots.lock().slots.len() as u32
    }

    /// Whether it has no slot.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Nothing comes in any more.
    pub(super) fn close(&self) {
        self.slots.lock().closed = true;
    }

    /// Puts a node in. Under the tree lock.
    pub(super) fn fill(&self, slot: u32, node: &Arc<Node<A>>) -> Result<(), ObjectError> {
        self.check_free(slot)?;
        // Only under the tree lock is anything put in or taken out, so it still is free.
        self.slots.lock().slots[slot as usize] = Some(node.clone());
        Ok(())
    }

    /// Takes it out again, if it is there. Under the tree lock.
    pub(super) fn empty(&self, slot: u32, node: &Arc<Node<A>>) {
        if let Some(here) = self.slots.lock().slots.get_mut(slot as usize)
            && here.as_ref().is_some_and(|here| Arc::ptr_eq(here, node))
        {
            *here = None;
        }
    }
}
