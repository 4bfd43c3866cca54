//! The core library's atomics, each access of which a simulated machine can take over: it decides when the access
//! happens, and whether a store is visible to others at once.
//!
//! A host thread that simulates CPUs says by [`observe`] who is to be asked. Where nobody is, each access is the core
//! library's. Every access carries the line of the kernel that makes it, so that an interleaving can be told in the
//! kernel's own words.

extern crate std;

use core::panic::Location;
use core::sync::atomic as plain;
pub use core::sync::atomic::{Ordering, compiler_fence};
use std::cell::Cell;

/// A word in memory.
#[derive(Clone, Copy, Debug)]
pub enum Word<'a> {
    /// One byte that is 0 or 1.
    Bool(&'a plain::AtomicBool),
    /// One byte.
    U8(&'a plain::AtomicU8),
    /// Two bytes.
    U16(&'a plain::AtomicU16),
    /// Four bytes.
    U32(&'a plain::AtomicU32),
    /// Eight bytes.
    U64(&'a plain::AtomicU64),
    /// As many bytes as an address.
    Usize(&'a plain::AtomicUsize),
}

impl Word<'_> {
    /// Where it is.
    pub fn address(&self) -> usize {
        match self {
            Word::Bool(word) => core::ptr::from_ref(*word) as usize,
            Word::U8(word) => core::ptr::from_ref(*word) as usize,
            Word::U16(word) => core::ptr::from_ref(*word) as usize,
            Word::U32(word) => core::ptr::from_ref(*word) as usize,
            Word::U64(word) => core::ptr::from_ref(*word) as usize,
            Word::Usize(word) => core::ptr::from_ref(*word) as usize,
        }
    }

    /// What memory has there.
    pub fn read(&self) -> u64 {
        match self {
            Word::Bool(word) => word.load(Ordering::SeqCst).into(),
            Word::U8(word) => word.load(Ordering::SeqCst).into(),
            Word::U16(word) => word.load(Ordering::SeqCst).into(),
            Word::U32(word) => word.load(Ordering::SeqCst).into(),
            Word::U64(word) => word.load(Ordering::SeqCst),
            Word::Usize(word) => word.load(Ordering::SeqCst) as u64,
        }
    }

    /// Makes memory have `value` there.
    pub fn write(&self, value: u64) {
        match self {
            Word::Bool(word) => word.store(value != 0, Ordering::SeqCst),
            Word::U8(word) => word.store(value as u8, Ordering::SeqCst),
            Word::U16(word) => word.store(value as u16, Ordering::SeqCst),
            Word::U32(word) => word.store(value as u32, Ordering::SeqCst),
            Word::U64(word) => word.store(value, Ordering::SeqCst),
            Word::Usize(word) => word.store(value as usize, Ordering::SeqCst),
        }
    }
}

/// Who makes the accesses of this host thread.
pub trait Observer {
    /// A load. Returns what it finds.
    fn load(&self, word: Word<'_>, at: &'static Location<'static>) -> u64;
    /// A store of `value`.
    fn store(&self, word: Word<'_>, value: u64, order: Ordering, at: &'static Location<'static>);
    /// A read-modify-write: `change` says what shall be there, if anything else. Returns what was.
    fn update(&self, word: Word<'_>, change: &mut dyn FnMut(u64) -> Option<u64>, at: &'static Location<'static>)
    -> u64;
    /// The oracle looks at the notes at this address, or changes them. Not an access of the machine.
    fn mark(&self, notes: usize, changed: bool);
}

std::thread_local! {
    static OBSERVER: Cell<Option<&'static dyn Observer>> = const { Cell::new(None) };
}

/// From now on `observer` makes the accesses of this host thread; `None`: nobody but the thread itself.
pub fn observe(observer: Option<&'static dyn Observer>) {
    OBSERVER.set(observer);
}

/// Whether somebody makes the accesses of this host thread.
pub fn is_observed() -> bool {
    observer().is_some()
}

/// Does `look` without anybody who makes its accesses.
pub(super) fn unobserved<R>(look: impl FnOnce() -> R) -> R {
    let observer = OBSERVER.replace(None);
    let result = look();
    OBSERVER.set(observer);
    result
}

fn observer() -> Option<&'static dyn Observer> {
    OBSERVER.get()
}

/// A fence between loads, or of the host's own: the machine's full one is [`crate::arch::Arch::fence`].
pub fn fence(order: Ordering) {
    if observer().is_none() {
        plain::fence(order);
    }
}

pub(super) fn marked(notes: usize, changed: bool) {
    if let Some(observer) = observer() {
        observer.mark(notes, changed);
    }
}

macro_rules! observed {
    ($($name:ident, $variant:ident: $value:ty, $into:expr, $from:expr;)*) => {$(
        /// As in the core library.
        #[derive(Debug, Default)]
        #[repr(transparent)]
        pub struct $name(plain::$name);
        #[allow(missing_docs)]
        impl $name {
            pub const fn new(value: $value) -> $name {
                $name(plain::$name::new(value))
            }
            #[inline]
            #[track_caller]
            pub fn load(&self, order: Ordering) -> $value {
                match observer() {
                    None => self.0.load(order),
                    Some(observer) => $from(observer.load(Word::$variant(&self.0), Location::caller())),
                }
            }
            #[inline]
            #[track_caller]
            pub fn store(&self, value: $value, order: Ordering) {
                match observer() {
                    None => self.0.store(value, order),
                    Some(observer) => {
                        observer.store(Word::$variant(&self.0), $into(value), order, Location::caller())
                    }
                }
            }
            #[inline]
            #[track_caller]
            pub fn swap(&self, value: $value, order: Ordering) -> $value {
                match observer() {
                    None => self.0.swap(value, order),
                    Some(observer) => {
                        $from(observer.update(Word::$variant(&self.0), &mut |_| Some($into(value)), Location::caller()))
                    }
                }
            }
            #[inline]
            #[track_caller]
            pub fn compare_exchange(
                &self,
                old: $value,
                new: $value,
                order: Ordering,
                failed: Ordering,
            ) -> Result<$value, $value> {
                let Some(observer) = observer() else {
                    return self.0.compare_exchange(old, new, order, failed);
                };
                let mut change = |now| ($from(now) == old).then_some($into(new));
                let was = $from(observer.update(Word::$variant(&self.0), &mut change, Location::caller()));
                if was == old { Ok(was) } else { Err(was) }
            }
            #[inline]
            #[track_caller]
            pub fn compare_exchange_weak(
                &self,
                old: $value,
                new: $value,
                order: Ordering,
                failed: Ordering,
            ) -> Result<$value, $value> {
                self.compare_exchange(old, new, order, failed)
            }
        }
    )*};
}

observed! {
    AtomicBool, Bool: bool, u64::from, |raw| raw != 0;
    AtomicU8, U8: u8, u64::from, |raw| raw as u8;
    AtomicU16, U16: u16, u64::from, |raw| raw as u16;
    AtomicU32, U32: u32, u64::from, |raw| raw as u32;
    AtomicU64, U64: u64, |value| value, |raw| raw;
    AtomicUsize, Usize: usize, |value| value as u64, |raw| raw as usize;
}

macro_rules! arithmetic {
    ($($name:ident, $variant:ident: $value:ty;)*) => {$(
        #[allow(missing_docs)]
        impl $name {
            #[inline]
            #[track_caller]
            pub fn fetch_add(&self, by: $value, order: Ordering) -> $value {
                match observer() {
                    None => self.0.fetch_add(by, order),
                    Some(observer) => {
                        let mut change = |now| Some((now as $value).wrapping_add(by) as u64);
                        observer.update(Word::$variant(&self.0), &mut change, Location::caller()) as $value
                    }
                }
            }
            #[inline]
            #[track_caller]
            pub fn fetch_sub(&self, by: $value, order: Ordering) -> $value {
                match observer() {
                    None => self.0.fetch_sub(by, order),
                    Some(_) => self.fetch_add(by.wrapping_neg(), order),
                }
            }
            #[inline]
            #[track_caller]
            pub fn fetch_or(&self, bits: $value, order: Ordering) -> $value {
                match observer() {
                    None => self.0.fetch_or(bits, order),
                    Some(observer) => {
                        let mut change = |now| Some(now | bits as u64);
                        observer.update(Word::$variant(&self.0), &mut change, Location::caller()) as $value
                    }
                }
            }
            #[inline]
            #[track_caller]
            pub fn fetch_and(&self, bits: $value, order: Ordering) -> $value {
                match observer() {
                    None => self.0.fetch_and(bits, order),
                    Some(observer) => {
                        let mut change = |now| Some(now & bits as u64);
                        observer.update(Word::$variant(&self.0), &mut change, Location::caller()) as $value
                    }
                }
            }
        }
    )*};
}

arithmetic! {
    AtomicU8, U8: u8;
    AtomicU16, U16: u16;
    AtomicU32, U32: u32;
    AtomicU64, U64: u64;
    AtomicUsize, Usize: usize;
}
