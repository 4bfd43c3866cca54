//! Address spaces and their page tables.
//!
//! Read in this order: [`table`] (entries, locks, counts), [`state`] (what becomes of a table that is unlinked),
//! [`walk`] (what may hold it), [`gather`] (many at once); then the operations, one file each.

pub mod address_space;
pub mod collapse;
pub mod entry;
pub mod exit;
pub mod fault;
pub mod file;
pub mod fork;
pub mod frame;
pub mod frame_alloc;
pub mod gather;
pub mod pace;
pub mod page;
pub mod protect;
pub mod rcu_walk;
pub mod reclaim;
mod reference;
pub mod retract;
pub mod self_map;
pub mod self_walk;
mod settle;
pub mod share;
pub mod state;
pub mod table;
pub mod truncate;
pub mod two_word;
pub mod unmap;
pub mod walk;
pub(crate) mod zap;
