//! The strategies: which sync follows a flush.

use crate::suite::Named;

/// All strategies, in the order of their numbers.
pub const NAMES: &[Named] = &[
    ("none", "never sync (negative control)"),
    ("sync-all", "interrupt every other CPU (Linux 6.1 to 7.3)"),
    ("static-hook", "skip the sync if the transport's flush interrupts (RFC, v1, v2, v5 to v10)"),
];
