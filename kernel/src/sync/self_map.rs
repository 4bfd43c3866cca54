//! `self-map`: the flush is the sync. Ours, a hypothesis.
//!
//! Walks read tables through a recursive mapping of their own mm ([`crate::mm::self_walk`]). What they hold is a
//! translation, never a table's address; and a flush takes translations away wherever it reaches, whether or not it
//! interrupts anybody. When it is complete, the next read of a removed table faults, the exception table says "nothing
//! there", and the walk ends. So a table can be used again as soon as its flush is complete, on every transport: a
//! broadcast that interrupts nobody will do, and a frozen CPU, which flushes before it resumes, will too. Freeing a
//! table still takes a grace period.
//!
//! The price: a flush also covers the recursive addresses of what was removed ([`crate::mm::self_map`]), and on x86_64
//! that of 2 MiB leaves.
//!
//! It holds only if a completed flush of an address leaves no cached translation of it behind, however it came to be
//! cached: hardware may fill its TLB speculatively from entries that were there before. What was measured, and what
//! QEMU cannot show, is in `docs/self-map.md`.

use super::{Ask, Decision, Predicted, Round, Setting, Strategy, View};
use crate::ledger::Elision;
use crate::record::cell::Verdict;
use crate::workload::walker::WalkerClass;

/// The flush was enough.
pub struct SelfMap;

impl Strategy for SelfMap {
    const NAME: &'static str = "self-map";
    const ABOUT: &'static str =
        "walk through a recursive mapping, so that the flush alone is the sync (ours, a hypothesis)";
    const SELF_MAP: bool = true;

    fn promises(setting: Setting) -> Verdict {
        // Recursive addresses lead to the tables of the mm that is loaded; a reader that has a table's address is not
        // stopped by a fault; and on machines whose return from a fault unmasks NMIs, one in an NMI may not fault.
        if setting.walker == WalkerClass::Gup { Verdict::Safe } else { Verdict::Refused }
    }

    fn predicts(_round: &Round) -> Option<Predicted> {
        // Whoever walks, and however the flush travelled.
        Some(Predicted::Elided)
    }

    fn decide(_view: &dyn View, _ask: &Ask<'_>) -> Decision {
        Decision::Elide(Elision::SelfMap)
    }
}
