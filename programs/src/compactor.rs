//! What the compactor is asked for. The server is `src/bin/compactor.rs`.

/// Words: this, an address, bytes; with a capability to the process. Its pages there are made huge from now on,
/// whenever they can be.
pub const WATCH: u64 = 2;
/// Nothing is made huge any more. The answer: how many collapses succeeded, how many found all pages and then gave up,
/// how many found some missing.
pub const REST: u64 = 3;
