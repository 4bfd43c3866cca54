//! The control of a search for survivors: the same runs with every guard in place.

use kernel::record::cell::Verdict;
use serde::{Deserialize, Serialize};

use super::noticed;
use crate::rows::Row;

/// What the unmutated runs said.
#[derive(Default, Debug, Serialize, Deserialize)]
pub(super) struct Control {
    runs: usize,
    cells: usize,
    /// Cells in which a missing sync had to be found, and those in which it was.
    negative: usize,
    fired: usize,
    complaints: Vec<String>,
}

impl Control {
    /// Of so many runs, of which none has ended.
    pub(super) fn of(runs: usize) -> Control {
        Control { runs, ..Control::default() }
    }

    pub(super) fn add(&mut self, place: &str, rows: &[Row], fault: Option<&str>) {
        self.cells += rows.len();
        self.negative += rows.iter().filter(|r| r.expected == Verdict::Unsafe).count();
        self.fired += rows.iter().filter(|r| r.expected == Verdict::Unsafe && r.verdict == Verdict::Unsafe).count();
        if let Some(what) = noticed(rows, fault) {
            self.complaints.push(format!("{place}: {what}"));
        }
    }

    /// Whether the mutated runs say anything: nothing is wrong without a mutation, and the oracle does find what is
    /// wrong.
    pub(super) fn holds(&self) -> bool {
        self.complaints.is_empty() && (self.negative == 0 || self.fired > 0)
    }

    pub(super) fn text(&self) -> String {
        let mut out = format!(
            "Control: {} runs with every guard in place, {} cells; a sync that is never sent was found in {} of {} cells where it shows.\n",
            self.runs, self.cells, self.fired, self.negative
        );
        for complaint in &self.complaints {
            out += &crate::table::paragraph(2, complaint);
        }
        if !self.holds() {
            out += "VOID: the control is not as expected, so nothing follows from runs with a guard missing.\n";
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::tests::row;
    use super::*;

    #[test]
    fn a_control_that_finds_nothing_or_too_much_is_void() {
        use Verdict::{Safe, Unsafe, Void};
        let of = |rows: &[Row], fault| {
            let mut control = Control::default();
            control.add("x86_64, ipi, 1", rows, fault);
            control.holds()
        };
        assert!(of(&[row(Safe, Safe, 0), row(Unsafe, Unsafe, 0)], None));
        assert!(of(&[row(Safe, Safe, 0)], None));
        assert!(!of(&[row(Unsafe, Void, 0)], None));
        assert!(!of(&[row(Safe, Unsafe, 0)], None));
        assert!(!of(&[], Some("it hung")));
    }
}
