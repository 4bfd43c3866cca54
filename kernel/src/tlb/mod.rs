//! Translation look-aside buffers: what to invalidate, how that reaches other CPUs, and what the caller learns of it.
//!
//! A flush is asked for in terms of an mm and an [`invalidation::Invalidation`]; the [`transport`] chosen for the run
//! carries it out and returns a [`coverage::Coverage`]: which CPUs have, since the flush began, acknowledged it at
//! interrupt level. Nothing else in the kernel says what a flush has synchronised with; no constant per architecture is
//! consulted.

pub mod coverage;
pub mod invalidation;
pub mod switch;
pub mod tag;
pub mod transport;
