//! The table of mode `isolated` and of workload `rt_bystander`: what reached a CPU that has nothing to do with any mm
//! of the others.

use crate::rows::Row;
use crate::table::{self, Cell, Line, grouped};

/// The bystander's table of one architecture's rows; nothing where none stood by.
pub(crate) fn of(rows: &[Row]) -> String {
    let rows: Vec<Row> = rows.iter().filter(|r| r.has_bystander()).cloned().collect();
    let Some(first) = rows.first() else { return String::new() };
    let bold = anstyle::Style::new().bold();
    let mut out = format!("{bold}The bystander{bold:#}: CPU {} of {}\n", first.cell.cpus - 1, first.arch.name());
    if rows.iter().any(|r| !r.has_periodic_thread()) {
        out += "It spins outside every mm while others operate and walk (mode isolated). Interrupts taken, per\n\
                operation, and the longest that it was kept from its loop, in its own instructions (plain image).\n";
    }
    if rows.iter().any(|r| r.is_of_programs() && !r.has_periodic_thread()) {
        out += "Where programs operate it idles instead, and has no loop to be kept from.\n";
    }
    if rows.iter().any(Row::has_periodic_thread) {
        out += "In rt_bystander a periodic thread of the highest priority has it, in a process of its own, and waits for\n\
                its timer. Interrupts taken, per operation; and how long it takes, from when the timer is due, until\n\
                the thread does something, in instructions of that CPU, whatever it executes in between (plain image,\n\
                of the times that no other CPU ran meanwhile).\n";
    }
    for transport in table::distinct(&rows, |r| r.transport) {
        for periodic in [false, true] {
            let wanted = |r: &&Row| r.transport == transport && r.has_periodic_thread() == periodic;
            let rows: Vec<Row> = rows.iter().filter(wanted).cloned().collect();
            let mut lines = Vec::new();
            for workload in table::distinct(&rows, |r| r.workload) {
                lines.push(Line::Section(format!("{bold}{workload}{bold:#}")));
                lines.extend(rows.iter().filter(|r| r.workload == workload).map(line));
            }
            let gaps: &[&str] = if periodic { &["runs", "least", "median", "longest"] } else { &["longest gap"] };
            let headings = [&[transport, "flush", "sync", "NMI"], gaps].concat();
            if !rows.is_empty() {
                out += &format!("\n{}", table::layout(&[("", 4)], &headings, &lines));
            }
        }
    }
    out + "\n"
}

fn line(row: &Row) -> Line {
    let count = |n| Cell::count(row.of_bystander(n));
    let wrong = row.cell.miscounted != 0;
    let number = |n: Option<u64>| Cell::plain(n.filter(|n| *n > 0).map_or("-".into(), grouped));
    let mut cells = vec![
        Cell::plain(format!("  {}", row.strategy)),
        count(row.cell.bystander_flush),
        count(row.cell.bystander_sync),
        count(row.cell.bystander_nmi),
    ];
    if row.has_periodic_thread() {
        cells.extend([row.gap.map(|g| g.times), row.gap.map(|g| g.least), row.gap.map(|g| g.median)].map(number));
    }
    let longest = number(row.gap.map(|g| g.longest));
    cells.push(if wrong { longest.marked() } else { longest });
    Line::Cells(cells)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arch::Arch;
    use crate::rows::Gap;
    use crate::rows::tests::cell;
    use crate::table::tests::bare;
    use kernel::record::cell::CellRow;
    use kernel::suite::Mode;
    use kernel::workload::WorkloadId;

    fn row(strategy: u16, sync: u64, gap: u64) -> Row {
        let cell = CellRow { bystander_sync: sync, ..cell(strategy, 6, Mode::Isolated) };
        let mut row = Row::resolve(Arch::X86_64, cell).unwrap();
        row.gap = Some(Gap { longest: gap, times: 0, least: 0, median: 0 });
        row
    }

    #[test]
    fn the_bystander_has_a_table_of_its_own() {
        let text = bare(&of(&[row(0, 0, 6), row(1, 64, 1234)]));
        assert!(text.starts_with("The bystander: CPU 3 of x86_64\n"), "{text}");
        let table = "ipi          flush sync NMI longest gap\ncollapse_anon\n\
                     \u{20} none           0    0   0 6\n\u{20} sync-all       0    1   0 1,234\n\n";
        assert!(text.ends_with(table), "{text}");
        assert!(text.lines().all(|l| l.len() <= 100));
    }

    #[test]
    fn a_periodic_thread_has_one_with_what_it_measured() {
        let cell = CellRow { bystander_sync: 128, ..cell(1, WorkloadId::RtBystander as u16, Mode::Contend) };
        let mut row = Row::resolve(Arch::X86_64, CellRow { cpus: 4, ops: 64, ..cell }).unwrap();
        row.gap = Some(Gap { longest: 2345, times: 678, least: 2111, median: 2112 });
        let text = bare(&of(&[row]));
        let table = "ipi          flush sync NMI runs least median longest\nrt_bystander\n\
                     \u{20} sync-all       0    2   0  678 2,111  2,112 2,345\n\n";
        assert!(text.ends_with(table), "{text}");
        assert!(text.lines().all(|l| l.len() <= 110), "{text}");
    }

    #[test]
    fn without_one_there_is_none() {
        assert_eq!(of(&[Row::resolve(Arch::X86_64, cell(0, 6, Mode::Same)).unwrap()]), "");
    }
}
