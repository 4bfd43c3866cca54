//! The table of `--profile`: how long operations, handlers and walks took, and how much memory waited.

use kernel::record::profile::Role;

use crate::rows::Row;
use crate::table::{self, Cell, Line, grouped};

/// The table of one architecture's rows; nothing where none was recorded.
pub(crate) fn of(rows: &[Row]) -> String {
    let rows: Vec<Row> = rows.iter().filter(|r| r.profile.is_some()).cloned().collect();
    let Some(first) = rows.first() else { return String::new() };
    let bold = anstyle::Style::new().bold();
    let mut out = format!("{bold}Durations{bold:#} on {}: median and longest, in ticks\n", first.arch.name());
    out += "An operation, a handler of an interrupt, a walk. A tick is an instruction of the whole machine,\n\
            in the checking image. Waiting: the most frames that waited for a grace period.\n";
    for mode in table::distinct(&rows, |r| r.mode) {
        let rows: Vec<Row> = rows.iter().filter(|r| r.mode == mode).cloned().collect();
        let mut lines = Vec::new();
        for workload in table::distinct(&rows, |r| r.workload) {
            lines.push(Line::Section(format!("{bold}{workload}{bold:#}")));
            lines.extend(rows.iter().filter(|r| r.workload == workload).filter_map(line));
        }
        let headings = [mode, "median", "longest", "median", "longest", "median", "longest", "frames"];
        let groups = [("operation", 2), ("handler", 2), ("walk", 2), ("waiting", 1)];
        out += &format!("\n{}", table::layout(&groups, &headings, &lines));
    }
    out + "\n"
}

fn line(row: &Row) -> Option<Line> {
    let profile = row.profile.as_ref()?;
    let ticks = |ticks: Option<u64>| Cell::plain(ticks.map_or("-".into(), grouped));
    let mut cells = vec![Cell::plain(format!("  {}", row.strategy))];
    for role in [Role::Initiator, Role::Responder, Role::Walker] {
        cells.extend([ticks(profile.quantile(role, 500)), ticks(profile.longest(role))]);
    }
    cells.push(Cell::plain(profile.waiting.iter().max().map_or("-".into(), u32::to_string)));
    Some(Line::Cells(cells))
}

#[cfg(test)]
mod tests {
    use kernel::suite::Mode;

    use super::*;
    use crate::arch::Arch;
    use crate::profile::tests::some;
    use crate::rows::tests::cell;
    use crate::table::tests::bare;

    #[test]
    fn durations_have_a_table_of_their_own() {
        let mut row = Row::resolve(Arch::X86_64, cell(1, 6, Mode::Same)).unwrap();
        assert_eq!(of(std::slice::from_ref(&row)), "");
        row.profile = Some(some());
        let text = bare(&of(&[row]));
        let last: Vec<&str> = text.lines().rev().nth(1).unwrap().split_whitespace().collect();
        assert_eq!(last, ["sync-all", "1,000", "2,011", "40", "40", "100", "913", "3"]);
        assert!(text.lines().all(|l| l.len() <= 100), "{text}");
    }
}
