//! `fresh-table`: never use a table again. Take another one, retire the old one; no sync at all. Proposed by David
//! Hildenbrand and Jann Horn.
//!
//! Where the table is not the operation's to give away (the last sharer keeps it, linked) there is nothing to replace,
//! and it is a grace period.

use super::{Ask, Decision, Predicted, Round, Setting, Strategy, View};
use crate::record::cell::Verdict;

/// Use another table.
pub struct FreshTable;

impl Strategy for FreshTable {
    const NAME: &'static str = "fresh-table";
    const ABOUT: &'static str = "never reuse: take a new table and retire the old one";

    fn promises(_setting: Setting) -> Verdict {
        Verdict::Safe
    }

    fn predicts(_round: &Round) -> Option<Predicted> {
        // Another table.
        Some(Predicted::Elided)
    }

    fn decide(_view: &dyn View, _ask: &Ask<'_>) -> Decision {
        Decision::Fresh
    }
}
