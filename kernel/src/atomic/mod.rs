//! The atomics that the protocols between CPUs use: those of the core library.
//!
//! In a build with `--cfg loom` they are loom's, wrapped so that a test can weaken one ordering of the kernel at a
//! time: see `watched` there, and `tests/tests/loom_*.rs`. With the feature `observed` they are the core library's, and
//! a simulated machine on the host may take each access over: see `observed`, and `arch-sim`. Words that only one CPU
//! touches, and counts, stay the core library's in all builds.

#[cfg(not(any(loom, feature = "observed")))]
pub use core::sync::atomic::*;

#[cfg(loom)]
pub mod watched;
#[cfg(loom)]
pub use watched::*;

#[cfg(all(feature = "observed", not(loom)))]
pub mod observed;
#[cfg(all(feature = "observed", not(loom)))]
pub use observed::*;

/// The oracle reads words of the protocols: no access of the machine.
#[inline(always)]
pub fn unseen<R>(look: impl FnOnce() -> R) -> R {
    #[cfg(all(feature = "observed", not(loom)))]
    return observed::unobserved(look);
    #[cfg(not(all(feature = "observed", not(loom))))]
    look()
}

/// The oracle looks at notes of its own, or changes them. They are no part of a protocol, and what writes them orders
/// nothing; but a machine that tries all orders of accesses has to try both orders of these.
#[inline(always)]
pub fn mark<T>(notes: &T, changed: bool) {
    #[cfg(all(feature = "observed", not(loom)))]
    observed::marked(core::ptr::from_ref(notes) as usize, changed);
    #[cfg(not(all(feature = "observed", not(loom))))]
    let _ = (notes, changed);
}
