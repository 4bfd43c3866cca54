//! The matrix: strategies against transports, a verdict per cell, each over all workloads.

use kernel::record::cell::Verdict;

use crate::rows::Row;
use crate::table::{self, Cell, Line};

/// The matrix of one architecture's rows. A cell says how many of its workloads were found unsafe, and is marked if any
/// row of it, in whatever mode, is not as expected.
pub(crate) fn of(rows: &[Row]) -> String {
    let transports = table::distinct(rows, |r| r.transport);
    let workloads = table::distinct(rows, |r| r.workload).len();
    let mut headings = vec!["strategy"];
    headings.extend(&transports);
    let lines: Vec<Line> = table::distinct(rows, |r| r.strategy)
        .into_iter()
        .map(|strategy| {
            let mut cells = vec![Cell::plain(strategy)];
            cells.extend(transports.iter().map(|transport| {
                let of_cell = |r: &&Row| r.strategy == strategy && r.transport == *transport;
                cell(&rows.iter().filter(of_cell).collect::<Vec<_>>())
            }));
            Line::Cells(cells)
        })
        .collect();
    let table = table::layout(&[("", transports.len())], &headings, &lines);
    format!(
        "{table}\nunsafe n: in n of {workloads} workloads. refused: the strategy refuses these walkers. na: QEMU cannot show it.\n"
    )
}

fn cell(rows: &[&Row]) -> Cell {
    let unsafe_workloads = {
        let mut found: Vec<&str> = rows.iter().filter(|r| r.verdict == Verdict::Unsafe).map(|r| r.workload).collect();
        found.dedup();
        found.len()
    };
    let mut cell = table::verdict_cell(rows);
    if unsafe_workloads > 0 {
        cell = cell.with_text(format!("unsafe {unsafe_workloads}"));
    } else if let Some(other) = rows.iter().find(|r| r.verdict != Verdict::Safe) {
        cell = cell.with_text(other.verdict.name());
    }
    if rows.iter().any(|r| r.is_unexpected()) { cell.marked() } else { cell }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arch::Arch;
    use crate::rows::tests::cell as forged;
    use kernel::record::cell::CellRow;
    use kernel::suite::Mode;

    fn row(strategy: u16, workload: u16, transport: u16, verdict: Verdict, expected: Verdict) -> Row {
        let cell = CellRow {
            transport,
            verdict: verdict as u8,
            expected: expected as u8,
            ..forged(strategy, workload, Mode::Contend)
        };
        Row::resolve(Arch::X86_64, cell).unwrap()
    }

    #[test]
    fn a_cell_counts_unsafe_workloads_and_marks_what_is_unexpected() {
        use Verdict::{Refused, Safe, Unsafe};
        let rows = [
            row(0, 6, 0, Safe, Safe),
            row(0, 6, 1, Unsafe, Unsafe),
            row(0, 8, 1, Unsafe, Unsafe),
            row(1, 6, 0, Unsafe, Safe),
            row(1, 6, 1, Refused, Refused),
        ];
        let text = crate::table::tests::bare(&of(&rows));
        let line =
            |start: &str| text.lines().find(|l| l.starts_with(start)).unwrap().split_whitespace().collect::<Vec<_>>();
        assert_eq!(line("none"), ["none", "safe", "unsafe", "2"]);
        assert_eq!(line("sync-all"), ["sync-all", "unsafe", "1", "!", "refused"]);
    }
}
