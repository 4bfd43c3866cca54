//! Address spaces and their page tables.

pub mod entry;
