//! The table of workload `db_exit`: what one exit costs, where two dozen processes that share tables exit at once.

use kernel::workload::WorkloadId;
use kernel::workload::predict::programs::{EXITS, EXITS_SHARE};

use crate::rows::Row;
use crate::table::{self, Cell, Line};

/// The table of one architecture's rows; nothing where no process exits so.
pub(crate) fn of(rows: &[Row]) -> String {
    let is_one = |row: &&Row| row.cell.workload == WorkloadId::DbExit as u16 && row.cell.ops > 0;
    let rows: Vec<Row> = rows.iter().filter(is_one).cloned().collect();
    let Some(first) = rows.first() else { return String::new() };
    let bold = anstyle::Style::new().bold();
    let mut out = format!("{bold}An exit{bold:#} on {}\n", first.arch.name());
    out += &format!(
        "In db_exit {EXITS} processes share {EXITS_SHARE} tables with each other and with one that stays, and exit at once.\n\
         A table is used again by its last sharer: so {EXITS} exits ask the strategy {EXITS_SHARE} times, in whatever\n\
         order they come. Interrupts in targets, for one exit; form: {EXITS_SHARE} times what the strategy sends, by {EXITS}.\n"
    );
    for transport in table::distinct(&rows, |r| r.transport) {
        let lines: Vec<Line> = rows.iter().filter(|r| r.transport == transport).map(line).collect();
        let headings = [transport, "flush", "sync", "redundant", "elided", "form of sync"];
        out += &format!("\n{}", table::layout(&[("", 5)], &headings, &lines));
    }
    out + "\n"
}

fn line(row: &Row) -> Line {
    let each = |count: Option<f64>| Cell::count(count.map(|n| n / EXITS as f64));
    let of = |count: u64| each(row.per_op(count));
    let form = each(row.predicted_per_op(row.cell.predicted_sync));
    Line::Cells(vec![
        Cell::plain(format!("  {}", row.strategy)),
        of(row.cell.flush_ipis),
        of(row.cell.sync_ipis),
        of(row.cell.redundant_sync_ipis),
        of(row.cell.syncs_elided),
        if row.cell.miscounted != 0 { form.marked() } else { form },
    ])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arch::Arch;
    use crate::rows::tests::cell;
    use crate::table::tests::bare;
    use kernel::record::cell::CellRow;
    use kernel::suite::Mode;

    #[test]
    fn an_exit_as_it_is_printed() {
        let row = |strategy, sync, redundant, predicted_sync, syncs_elided| {
            let counts = CellRow {
                ops: 2,
                sync_ipis: sync,
                redundant_sync_ipis: redundant,
                predicted_sync,
                syncs_elided,
                ..cell(strategy, WorkloadId::DbExit as u16, Mode::Contend)
            };
            Row::resolve(Arch::X86_64, counts).unwrap()
        };
        let text = bare(&of(&[row(1, 24, 24, 24, 0), row(11, 0, 0, u64::MAX, 8)]));
        let expected = "ipi          flush sync redundant elided form of sync\n\
                        \u{20} sync-all       0  0.5       0.5      0 0.5\n\
                        \u{20} coverage       0    0         0  0.167 -\n\n";
        assert!(text.ends_with(expected), "{text}");
        assert!(text.contains("24 exits ask the strategy 4 times"), "{text}");
        assert!(text.lines().all(|line| line.len() <= 100), "{text}");
        assert_eq!(of(&[]), "");
    }
}
