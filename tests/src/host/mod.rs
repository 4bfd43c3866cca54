//! The smallest machine that runs the core: RAM in an array, CPUs that take turns on one host thread, TLBs that keep
//! what they have until they are told.
//!
//! A CPU runs when a test says so ([`World::on`]). An interrupt is handled at once if its target has interrupts
//! enabled, else as soon as it enables them; an NMI at once. Interleavings are made by letting another CPU do something
//! at a read of a table entry ([`World::after_load`]), at a pause point ([`World::at_point`]), or while a CPU waits
//! ([`World::while_waiting`]). There is no reordering and there are no paging-structure caches; `tests/loom_*.rs` and
//! `arch-sim` have those.

mod cpus;
mod machine;
mod mmu;
mod world;

pub use machine::{Codec, Host};
pub use world::{World, run_on, while_waiting};

/// A machine whose translations are not tagged and whose flushes interrupt, as x86_64 without PCID.
pub type Untagged = Host<1, false>;
/// A machine whose translations are tagged and whose flushes are broadcast, as aarch64.
pub type Tagged = Host<64, true>;
