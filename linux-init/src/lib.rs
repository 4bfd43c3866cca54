//! What the init of the Linux beside our kernel reads and writes: `/proc/interrupts`, its own arguments, its records.
//!
//! The program itself is `main.rs`, for the bare-metal targets only. Records are defined here once: the program writes
//! them, the runner reads them.
#![cfg_attr(target_os = "none", no_std)]

pub mod interrupts;
pub mod options;
pub mod record;
