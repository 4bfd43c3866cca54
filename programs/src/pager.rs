//! What the pager is asked for. The server is `src/bin/pager.rs`.
//!
//! The pager has one template, and gives every client a copy of it page by page: what a client reads is the template's
//! own page, and what it writes to becomes a page of its own. Faults come to it as calls of the kernel's; which
//! client's they are it knows by the badge of the endpoint that was set as the process's pager.
//!
//! A fork gets nothing at first: it reads what it inherits from its parent's own pages, which the parent may not write
//! to meanwhile; whoever writes first has the fork get a page of its own. Of a fork's fork nothing is inherited: its
//! parent gets pages of its own before.

/// Words: this, a client's number, the address of its copy; with a capability to its process. Faults with this number
/// as their badge are dealt with from now on.
pub const SERVE: u64 = 2;
/// Words: this, a client's number, which may be given to another then. The answer: how many pages it read, how many are
/// its own, and how many of these it inherited and got when it or its parent wrote.
pub const FORGET: u64 = 3;
/// Words: this, the number of a client, another one's, which is a fork of it: it begins with what the first has now;
/// with a capability to its process.
pub const FORK: u64 = 4;
/// How many clients there may be; their numbers begin with 1.
pub const MOST: u64 = 32;
/// Pages of the template, and so of each copy.
pub const PAGES: u64 = 8;

/// What the template has in word `word` of page `page`.
pub const fn template(page: u64, word: u64) -> u64 {
    0x7e_0000_0000 | page << 16 | word
}
