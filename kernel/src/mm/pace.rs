//! How long a long operation goes on before it asks whether its CPU is wanted for something else.
//!
//! Work is counted in entries of page tables that are cleared, so that to be asked often costs nothing beside it. An
//! operation that asks is at a place where it can be left and gone on with later.

use crate::addr::ENTRIES;

/// Entries that are cleared between two questions, at least: what one table has. Twice as many at most.
const BETWEEN: u64 = ENTRIES as u64;

/// See the head of this module.
pub struct Pace<'a> {
    done: u64,
    stops: &'a mut dyn FnMut() -> bool,
}

impl<'a> Pace<'a> {
    /// That of an operation that is left where `stops` says so.
    pub fn new(stops: &'a mut dyn FnMut() -> bool) -> Pace<'a> {
        Pace { done: 0, stops }
    }

    /// So much was done.
    pub(super) fn did(&mut self, work: u64) {
        self.done += work;
    }

    /// Whether the operation shall be left here: never before one table's worth is done, so that what is left again and
    /// again comes to an end nevertheless.
    pub(super) fn stops(&mut self) -> bool {
        if self.done < BETWEEN {
            return false;
        }
        self.done = 0;
        (self.stops)()
    }
}
