//! What the share server is asked for. The server is `src/bin/share.rs`.

/// Words: this, a number below [`MOST`]. The answer has a capability to that table, which is made when it is first
/// asked for.
pub const GET: u64 = 2;
/// Words: this, a number. The table goes: it is unmapped wherever it was, and is a new one when it is next asked for.
pub const DROP: u64 = 3;
/// How many tables there may be.
pub const MOST: u64 = 32;
/// Bytes of addresses that one table maps. Only who maps all of them shares it.
pub const SPAN: u64 = 1 << 30;
/// Pages of 2 MiB that each has.
pub const PAGES: u64 = 2;
