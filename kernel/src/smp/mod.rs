//! Several CPUs: each one's area, calls between them, waits with a bound, grace periods.

pub mod cpu;
