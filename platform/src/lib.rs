//! What firmware leaves in memory, read with a check at every step.
//!
//! Nothing here touches the machine: tables are reached through [`PhysicalBytes`], so the same code reads real memory
//! in the image and prepared bytes in tests, and a table that was cut or corrupted is an error and never a wild read.
#![no_std]

#[cfg(test)]
extern crate std;

/// Memory by physical address.
pub trait PhysicalBytes {
    /// The `bytes` bytes at `at`; `None` where there is no memory that can be read.
    fn get(&self, at: u64, bytes: usize) -> Option<&[u8]>;
}

pub mod devicetree;
pub mod madt;
pub mod module;
pub mod pvh;
pub mod regions;
