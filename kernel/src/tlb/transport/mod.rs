//! The transports: how a flush reaches other CPUs.

use crate::suite::Named;

/// All transports, in the order of their numbers.
pub const NAMES: &[Named] = &[
    ("ipi", "interrupt the CPUs of the mm; each invalidates in its handler"),
    ("broadcast", "one instruction reaches every TLB and interrupts nobody"),
];
