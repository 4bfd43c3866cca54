//! Programs in user mode.
//!
//! The kernel is event-driven: one kernel stack per CPU, none per thread. Each CPU picks a thread, loads its mm, lets
//! it run in user mode until something stops it ([`user::UserEvent`]), and handles that to completion or blocks the
//! thread.

pub(crate) mod deadline;
pub mod fast;
pub mod load;
pub mod module;
pub(crate) mod place;
pub mod program;
pub mod sched;
pub mod turn;
pub mod user;
