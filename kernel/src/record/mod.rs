//! What the guest leaves in memory for the runner: defined once, used on both sides.
//!
//! The runner backs the guest's RAM by a file and reads it there; nothing is sent. The image has one symbol, `SHARED`
//! (of type [`shared::Shared`]), which the runner finds in the ELF file; from there everything is reached by physical
//! address. A guest that dies leaves what it had written: rows of finished cells, events up to the last one, what each
//! CPU waited for.

pub mod cell;
pub mod event;
pub mod profile;
pub mod ring;
pub mod shared;
pub mod step;
