//! What a hunt looked at that found nothing: seeds and cells, what was not run and why, and which pause points were
//! crossed.

use kernel::record::cell::Verdict;
use kernel::scenario::Point;
use kernel::suite::Named;

use super::pairs::Pairs;
use crate::rows::Row;

/// What was looked at without anything found.
#[derive(Default, PartialEq, Eq, Debug)]
pub(super) struct Covered {
    pub(super) seeds: u64,
    pub(super) cells: usize,
    pub(super) ops: u64,
    pub(super) walks: u64,
    pub(super) pages: u64,
    /// Cells in which a violation was to be expected.
    pub(super) expected: usize,
    /// Cells that were not run: refused by the strategy, and such that this engine cannot show.
    pub(super) not_run: [usize; 2],
    pub(super) pairs: Pairs,
    /// Pause points that were crossed, one bit each.
    pub(super) points: u64,
}

impl Covered {
    /// One seed's rows.
    pub(super) fn add(&mut self, rows: &[Row]) {
        self.seeds += 1;
        self.cells += rows.len();
        self.ops += rows.iter().map(|r| r.cell.ops).sum::<u64>();
        self.walks += rows.iter().map(|r| r.cell.walks).sum::<u64>();
        self.pages += rows.iter().map(|r| r.cell.pages).sum::<u64>();
        self.expected += rows.iter().filter(|r| r.expected == Verdict::Unsafe).count();
        for (count, verdict) in self.not_run.iter_mut().zip([Verdict::Refused, Verdict::NotApplicable]) {
            *count += rows.iter().filter(|r| r.verdict == verdict).count();
        }
    }

    /// What was not run, and why; nothing if all was.
    pub(super) fn not_run(&self) -> String {
        let [refused, cannot] = self.not_run;
        let mut out = String::new();
        if refused > 0 {
            out += &format!("{refused} of these cells were not run: the strategy refuses such walkers there.\n");
        }
        if cannot > 0 {
            out += &format!(
                "{cannot} of these cells were not run: QEMU cannot show them (`cargo xtask sim` explores them in a model).\n"
            );
        }
        if refused + cannot == self.cells {
            out += "So nothing was searched.\n";
        }
        out
    }
}

/// Pause points that were crossed, and those that were not, by name.
pub(super) fn crossed(points: u64) -> String {
    let (seen, unseen): (Vec<_>, Vec<_>) =
        Point::NAMES.iter().enumerate().partition(|(number, _)| points >> number & 1 != 0);
    let names = |list: &[(usize, &Named)]| list.iter().map(|(_, (name, _))| *name).collect::<Vec<_>>().join(", ");
    let mut out = format!("Pause points crossed, {} of {}: {}", seen.len(), Point::NAMES.len(), names(&seen));
    if !unseen.is_empty() {
        out += &format!("; not {}", names(&unseen));
    }
    out + "."
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arch::Arch;
    use crate::rows::tests::cell;
    use kernel::record::cell::CellRow;
    use kernel::suite::Mode;

    #[test]
    fn what_was_covered_is_added_up() {
        let row = |expected: Verdict| {
            let record = CellRow { walks: 10, pages: 30, expected: expected as u8, ..cell(0, 6, Mode::Contend) };
            Row::resolve(Arch::Aarch64, record).unwrap()
        };
        let mut covered = Covered::default();
        assert_eq!(covered.not_run, [0, 0]);
        covered.add(&[row(Verdict::Safe), row(Verdict::Unsafe)]);
        assert_eq!(covered.not_run(), "");
        let skipped = Row { verdict: Verdict::NotApplicable, ..row(Verdict::NotApplicable) };
        let mut nothing = Covered::default();
        nothing.add(&[skipped.clone(), skipped]);
        assert!(nothing.not_run().starts_with("2 of these cells were not run: QEMU cannot show them"));
        assert!(nothing.not_run().ends_with("So nothing was searched.\n"));
        covered.add(&[row(Verdict::Safe)]);
        let numbers = (covered.seeds, covered.cells, covered.ops, covered.walks, covered.pages, covered.expected);
        assert_eq!(numbers, (2, 3, 192, 30, 90, 1));
    }

    #[test]
    fn points_are_named_whether_they_were_crossed_or_not() {
        let text = crossed(0b101);
        let all = Point::NAMES.len();
        assert!(
            text.starts_with(&format!("Pause points crossed, 2 of {all}: walk_begin, after_pgd_read; not published, ")),
            "{text}"
        );
        assert!(!crossed(u64::MAX).contains("; not"));
    }
}
