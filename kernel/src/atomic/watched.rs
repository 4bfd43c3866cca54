//! loom's atomics, each access known by the line of the kernel that makes it; a test may take one half of the ordering
//! of one such line away.

extern crate std;

use core::panic::Location;
use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;

use loom::sync::atomic as loomed;
pub use loom::sync::atomic::Ordering;

/// What can be taken from an ordering.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Half {
    /// That later accesses stay behind.
    Acquire,
    /// That earlier accesses stay before.
    Release,
    /// That a full fence orders a store against a later load.
    Full,
}

/// One half of the ordering of one line.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Site {
    /// File of the kernel.
    pub file: &'static str,
    /// Line in it.
    pub line: u32,
    /// Column, where a line has several.
    pub column: u32,
    /// What is, or would be, taken away.
    pub half: Half,
}

std::thread_local! {
    static WEAKENED: Cell<Option<Site>> = const { Cell::new(None) };
    static SEEN: RefCell<Option<BTreeSet<Site>>> = const { RefCell::new(None) };
}

/// Takes `site`'s half away in every access from now on, on this host thread.
pub fn weaken(site: Option<Site>) {
    WEAKENED.set(site);
}

/// Begins to note which lines order anything, on this host thread.
pub fn watch() {
    SEEN.set(Some(BTreeSet::new()));
}

/// What was noted since [`watch`].
pub fn watched() -> BTreeSet<Site> {
    SEEN.take().unwrap_or_default()
}

#[track_caller]
fn order(wanted: Ordering) -> Ordering {
    use Ordering::*;
    let halves: &[(Half, Ordering)] = match wanted {
        Acquire => &[(Half::Acquire, Relaxed)],
        Release => &[(Half::Release, Relaxed)],
        AcqRel => &[(Half::Acquire, Release), (Half::Release, Acquire)],
        _ => return wanted,
    };
    choose(wanted, halves)
}

#[track_caller]
fn choose(wanted: Ordering, halves: &[(Half, Ordering)]) -> Ordering {
    let at = Location::caller();
    let site = |half| Site { file: at.file(), line: at.line(), column: at.column(), half };
    SEEN.with_borrow_mut(|seen| {
        if let Some(seen) = seen {
            seen.extend(halves.iter().map(|(half, _)| site(*half)));
        }
    });
    let weakened = WEAKENED.get();
    halves.iter().find(|(half, _)| weakened == Some(site(*half))).map_or(wanted, |(_, left)| *left)
}

/// A fence. What is taken from a full one is only that it is full: acquire and release are left.
#[track_caller]
pub fn fence(wanted: Ordering) {
    match wanted {
        Ordering::SeqCst => loomed::fence(choose(wanted, &[(Half::Full, Ordering::AcqRel)])),
        // Nothing is left of these.
        Ordering::Relaxed => {}
        wanted => match order(wanted) {
            Ordering::Relaxed => {}
            left => loomed::fence(left),
        },
    }
}

macro_rules! watched {
    ($($name:ident: $value:ty;)*) => {$(
        /// As in the core library.
        #[derive(Debug, Default)]
        pub struct $name(loomed::$name);
        #[allow(missing_docs)]
        impl $name {
            pub fn new(value: $value) -> $name {
                $name(loomed::$name::new(value))
            }
            #[track_caller]
            pub fn load(&self, wanted: Ordering) -> $value {
                self.0.load(order(wanted))
            }
            #[track_caller]
            pub fn store(&self, value: $value, wanted: Ordering) {
                self.0.store(value, order(wanted))
            }
            #[track_caller]
            pub fn swap(&self, value: $value, wanted: Ordering) -> $value {
                self.0.swap(value, order(wanted))
            }
            #[track_caller]
            pub fn compare_exchange(
                &self,
                old: $value,
                new: $value,
                wanted: Ordering,
                failed: Ordering,
            ) -> Result<$value, $value> {
                self.0.compare_exchange(old, new, order(wanted), failed)
            }
            #[track_caller]
            pub fn compare_exchange_weak(
                &self,
                old: $value,
                new: $value,
                wanted: Ordering,
                failed: Ordering,
            ) -> Result<$value, $value> {
                self.0.compare_exchange_weak(old, new, order(wanted), failed)
            }
        }
    )*};
}

watched! {
    AtomicBool: bool;
    AtomicU8: u8;
    AtomicU16: u16;
    AtomicU32: u32;
    AtomicU64: u64;
    AtomicUsize: usize;
}

macro_rules! arithmetic {
    ($($name:ident: $value:ty;)*) => {$(
        #[allow(missing_docs)]
        impl $name {
            #[track_caller]
            pub fn fetch_add(&self, by: $value, wanted: Ordering) -> $value {
                self.0.fetch_add(by, order(wanted))
            }
            #[track_caller]
            pub fn fetch_sub(&self, by: $value, wanted: Ordering) -> $value {
                self.0.fetch_sub(by, order(wanted))
            }
            #[track_caller]
            pub fn fetch_or(&self, bits: $value, wanted: Ordering) -> $value {
                self.0.fetch_or(bits, order(wanted))
            }
            #[track_caller]
            pub fn fetch_and(&self, bits: $value, wanted: Ordering) -> $value {
                self.0.fetch_and(bits, order(wanted))
            }
        }
    )*};
}

arithmetic! {
    AtomicU8: u8;
    AtomicU16: u16;
    AtomicU32: u32;
    AtomicU64: u64;
    AtomicUsize: usize;
}
