//! The core under loom: one loom thread is one CPU, and each run of a model has a machine of its own.
//!
//! What is loom's: every atomic that the core takes from [`kernel::atomic`], and the table entries that a model names
//! ([`World::watch_entry`]). An interrupt is a bell that the target looks at when it has interrupts enabled and waits
//! ([`World::take_interrupts`]); it makes visible what was stored before, as [`kernel::arch::Arch::ring`] promises.
//! loom treats SeqCst accesses as AcqRel and knows no load buffering, so it is weaker than the language in one respect
//! and stronger in another; `tests/litmus` has the shapes for the two architectures.

mod machine;
mod mutants;
mod world;

pub use machine::Woven;
pub use mutants::{ALL, Sites, explore, violated, weakenings_show};
pub use world::World;
