//! Translation look-aside buffers: what to invalidate, how that reaches other CPUs, and what the caller learns of it.

pub mod invalidation;
pub mod transport;
