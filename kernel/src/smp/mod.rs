//! Several CPUs: each one's area, calls between them, waits with a bound, locks, grace periods.

pub mod call;
pub mod cpu;
pub mod irq;
pub mod lock;
pub mod mask;
pub mod nmi;
pub mod rcu;
pub mod wait;
