//! The core of a research kernel about one question: when does changing a page table need an interrupt to every CPU,
//! and when is that interrupt redundant?
//!
//! Nothing here names an architecture: [`arch::Arch`] is the whole boundary. Start reading at [`mm`] (tables and the
//! types that keep them alive), [`tlb`] (flushes and what they cover) and [`sync`] (the strategies).
#![no_std]

extern crate alloc;
// A strategy in `strategies/` names the kernel as a test does.
extern crate self as kernel;

pub mod abi;
pub mod addr;
pub mod arch;
pub mod atomic;
pub mod boot;
pub mod guard;
pub mod injection;
pub mod ipc;
pub mod ledger;
pub mod machine;
pub mod mm;
pub mod object;
pub mod oracle;
pub mod record;
pub mod scenario;
pub mod smp;
pub mod suite;
pub mod sync;
pub mod syscall;
pub mod task;
pub mod tlb;
pub mod upcall;
pub mod workload;
