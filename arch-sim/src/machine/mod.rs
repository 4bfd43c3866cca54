//! The unchanged kernel core on a simulated machine, on the host.
//!
//! [`Sim`] implements [`kernel::arch::Arch`] over memory of the host. Each simulated CPU is a coroutine, and only one
//! runs at a time: every call of the boundary, so every access to a table entry, every fence, every masking of
//! interrupts, is a place where the scheduler may turn to another CPU, deliver an interrupt, let the hardware cache an
//! entry ahead of any use, or let a broadcast invalidation arrive. All choices come from one seed: the same seed is the
//! same run.
//!
//! - `Sim<false>` is like x86_64: translations are not tagged, flushes go by interrupt.
//! - `Sim<true>` is like aarch64: translations are tagged and outlive a switch, and one instruction invalidates
//!   everywhere, sooner or later.
//!
//! It boots by [`kernel::boot::run`] and runs the kernel's own suite, so the verdicts are those of the kernel's own
//! oracle. One check is the machine's own: when a frame is cleared for its next use, no TLB and no paging-structure
//! cache may lead to it.

mod act;
mod arch;
mod codec;
mod deed;
mod directed;
mod direction;
mod driving;
mod ending;
mod hardware;
mod mmu;
mod programs;
pub mod prove;
pub mod recording;
mod retried;
mod run;
pub mod scope;
pub mod staging;
mod translate;
mod world;

pub use arch::Sim;
pub use codec::Codec;
pub use deed::Deed;
pub use directed::Directed;
pub use hardware::{Conflict, Hardware, Parts};
pub use programs::{Programs, run_programs};
pub use run::{Execution, RunError, run};
