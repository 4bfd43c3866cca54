//! The simulated machine: hardware that may do everything that its architecture allows, on the host.
//!
//! QEMU's MMU is kinder than real ones: it has no paging-structure caches, its invalidations stop every CPU, and it
//! completes them at once. So "no violation seen" there says little. Here there are two tiers that say more, and one
//! that counts:
//!
//! - [`model`]: the strategies' own decision code, linked into an explicit-state model of everything around it.
//!   Exhaustive within bounds that are printed with every verdict.
//! - [`machine`]: the unchanged kernel core, on memory of the host, under a scheduler and an MMU that do what they
//!   like, by a seed.
//! - [`explore`]: all interleavings of a few CPUs, less those that differ in nothing; [`agreement`] asks both tiers
//!   about the same cells.
//! - [`scale`]: a model of another kind: no hardware that misbehaves, but thousands of CPUs and a cost for each
//!   interrupt.
//! - [`matrix`]: the first of them asked for every strategy, transport, operation and class of walker, and compared
//!   with what each strategy promises.

pub mod agreement;
pub mod by_core;
pub mod explore;
pub mod follow;
pub mod machine;
pub mod matrix;
pub mod model;
pub mod results;
pub mod run;
pub mod scale;
pub mod told;
