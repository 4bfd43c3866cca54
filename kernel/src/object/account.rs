//! Accounts: who pays for kernel memory.
//!
//! Whatever a program makes the kernel keep (frames for pages and for tables, heap for objects, mappings and capability
//! slots, tags of address spaces) is charged to the account of the process that asked, before it is allocated, for the
//! worst case; the receipt ([`Paid`]) lives in what was paid for and gives the amount back when that goes. A process
//! that is made gets its account out of its maker's: the whole limit is charged there. So the sum of what all programs
//! can use is what the first account was opened with, and nobody gets short because of another.
//!
//! The counters are Relaxed: they guard no memory, each is changed by read-modify-writes that never go over the limit,
//! and that is all that is asked of them.

use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};

/// How many kinds of things are paid for.
const KINDS: usize = 3;

/// How deep accounts may nest: when the last of a chain goes, so many destructors run within each other.
pub const MOST_NESTED: u32 = 32;

/// The block that the kernel's heap gives for so many bytes: of a power of two, as buddy allocators do.
const fn block(bytes: u64) -> u64 {
    if bytes == 0 { 0 } else { bytes.next_power_of_two() }
}

/// Entries of a node of `BTreeMap`, at most; and at least, but for the root.
const TREE_MOST: u64 = 11;
const TREE_LEAST: u64 = 5;

/// An amount.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Price {
    /// 4 KiB frames, for pages and for tables.
    pub frames: u64,
    /// Bytes of kernel heap.
    pub bytes: u64,
    /// Address spaces: their tags are few.
    pub spaces: u64,
}

impl Price {
    /// Nothing.
    pub const NOTHING: Price = Price { frames: 0, bytes: 0, spaces: 0 };

    /// So many frames.
    pub const fn frames(frames: u64) -> Price {
        Price { frames, ..Price::NOTHING }
    }

    /// A `T` on the heap, counted by references.
    pub const fn of<T>() -> Price {
        // Two counters of `Arc`.
        Price { bytes: block(size_of::<T>() as u64 + 16), ..Price::NOTHING }
    }

    /// An array of `count` `T` for ever.
    pub const fn array<T>(count: u64) -> Price {
        Price { bytes: block(count.saturating_mul(size_of::<T>() as u64)), ..Price::NOTHING }
    }

    /// `count` elements of an array of `T` that grows, and shrinks by `trim`: up to four times as long as what is in
    /// it, in a block that is up to twice as large as that. So it is enough for the old array beside the new while it
    /// grows, too.
    pub const fn growing<T>(count: u64) -> Price {
        Price { bytes: count.saturating_mul(8 * size_of::<T>() as u64), ..Price::NOTHING }
    }

    /// `count` entries of a `BTreeMap`.
    pub const fn tree<K, V>(count: u64) -> Price {
        // Entries, and who is above; above leaves, who is below too.
        let leaf = block(TREE_MOST * (size_of::<K>() + size_of::<V>()) as u64 + 16);
        let inner = block(TREE_MOST * (size_of::<K>() + size_of::<V>()) as u64 + 16 + (TREE_MOST + 1) * 8);
        // Of inner nodes there are fewer than leaves by `TREE_LEAST`, but for the root; those above them are fewer
        // again.
        let (leaves, inners) = (1 + count / TREE_LEAST, if count > TREE_MOST { 2 + count / 20 } else { 0 });
        let bytes = leaves.saturating_mul(leaf).saturating_add(inners.saturating_mul(inner));
        Price { bytes, ..Price::NOTHING }
    }

    /// Both together.
    ///
    /// # Errors
    /// None: saturates, and what is saturated is more than any account has.
    pub const fn and(self, other: Price) -> Price {
        Price {
            frames: self.frames.saturating_add(other.frames),
            bytes: self.bytes.saturating_add(other.bytes),
            spaces: self.spaces.saturating_add(other.spaces),
        }
    }

    const fn parts(self) -> [u64; KINDS] {
        [self.frames, self.bytes, self.spaces]
    }
}

/// Gives back room of an array that things have gone from and were paid for no more: see [`Price::growing`].
pub(crate) fn trim<T>(list: &mut Vec<T>) {
    if list.capacity() > 4 * list.len() {
        list.shrink_to(2 * list.len());
    }
}

/// The same of a queue, which may keep room for `free` elements that nobody pays for.
pub(crate) fn trim_queue<T>(queue: &mut VecDeque<T>, free: usize) {
    if queue.capacity() > free.max(4 * queue.len()) {
        queue.shrink_to(2 * queue.len());
    }
}

/// The account has not enough left.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the account has {left:?} left and {wanted:?} is needed")]
pub struct NotEnough {
    /// What was asked for.
    pub wanted: Price,
    /// What was left.
    pub left: Price,
}

/// One account.
pub struct Account {
    limit: Price,
    used: [AtomicU64; KINDS],
    depth: u32,
    /// What it was charged for in the account that it came out of.
    _share: Option<Paid>,
}

impl Account {
    /// The account that all others come out of.
    pub fn first(limit: Price) -> Arc<Account> {
        Arc::new(Account { limit, used: Default::default(), depth: 0, _share: None })
    }

    /// An account of `limit`, all of which is charged to this one.
    pub fn open(self: &Arc<Account>, limit: Price) -> Result<Arc<Account>, NotEnough> {
        if self.depth >= MOST_NESTED {
            return Err(NotEnough { wanted: limit, left: Price::NOTHING });
        }
        let share = self.charge(limit)?;
        Ok(Arc::new(Account { limit, used: Default::default(), depth: self.depth + 1, _share: Some(share) }))
    }

    /// Takes `price` out until the receipt is dropped.
    pub fn charge(self: &Arc<Account>, price: Price) -> Result<Paid, NotEnough> {
        let limits = self.limit.parts();
        for (kind, amount) in price.parts().into_iter().enumerate() {
            let within = |used: u64| used.checked_add(amount).filter(|sum| *sum <= limits[kind]);
            if self.used[kind].fetch_update(Ordering::Relaxed, Ordering::Relaxed, within).is_err() {
                for (kind, amount) in price.parts().into_iter().enumerate().take(kind) {
                    self.used[kind].fetch_sub(amount, Ordering::Relaxed);
                }
                return Err(NotEnough { wanted: price, left: self.left() });
            }
        }
        Ok(Paid { account: self.clone(), price })
    }

    /// What is in use.
    pub fn used(&self) -> Price {
        let [frames, bytes, spaces] = core::array::from_fn(|kind| self.used[kind].load(Ordering::Relaxed));
        Price { frames, bytes, spaces }
    }

    /// What it was opened with.
    pub fn limit(&self) -> Price {
        self.limit
    }

    /// What is left.
    pub fn left(&self) -> Price {
        let used = self.used();
        Price {
            frames: self.limit.frames - used.frames,
            bytes: self.limit.bytes - used.bytes,
            spaces: self.limit.spaces - used.spaces,
        }
    }
}

/// The receipt for a charge, which ends with it.
#[must_use = "a charge ends when its receipt is dropped"]
pub struct Paid {
    account: Arc<Account>,
    price: Price,
}

impl Paid {
    /// What was paid.
    pub fn price(&self) -> Price {
        self.price
    }

    /// Takes `price` out of the same account.
    pub fn more(&self, price: Price) -> Result<Paid, NotEnough> {
        self.account.charge(price)
    }
}

impl Drop for Paid {
    fn drop(&mut self) {
        for (kind, amount) in self.price.parts().into_iter().enumerate() {
            self.account.used[kind].fetch_sub(amount, Ordering::Relaxed);
        }
    }
}
