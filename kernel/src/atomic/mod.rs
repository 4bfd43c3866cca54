//! The atomics that the protocols between CPUs use: those of the core library.
//!
//! In a build with `--cfg loom` they are loom's, wrapped so that a test can weaken one ordering of the kernel at a time: see
//! `watched` there, and `tests/tests/loom_*.rs`. Words that only one CPU touches, and counts, stay the core library's in both builds.

#[cfg(not(loom))]
pub use core::sync::atomic::*;

#[cfg(loom)]
pub mod watched;
#[cfg(loom)]
pub use watched::*;
