//! The table of one architecture: workload by workload, a line for each strategy.

use anstyle::{AnsiColor, Style};
use kernel::record::cell::Verdict;

use crate::linux::{self, Reference};
use crate::output;
use crate::rows::Row;

/// The mode that verdicts come from.
pub(crate) const JUDGED: &str = "contend";
/// Modes side by side in one table.
const MODES_PER_TABLE: usize = 2;
const INDENT: &str = "  ";

/// A count per operation, as short as it is exact to three digits.
pub(crate) fn count(n: f64) -> String {
    if n.fract() == 0.0 {
        return format!("{n}");
    }
    let text = format!("{n:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// A large number with its thousands apart.
pub(crate) fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// Text broken into lines as wide as [`output::width`] allows, all but the first indented by `indent` more than the
/// first.
pub(crate) fn paragraph(indent: usize, text: &str) -> String {
    let width = output::width();
    let mut out = " ".repeat(indent);
    let mut column = indent;
    for (i, word) in text.split(' ').enumerate() {
        if i > 0 && column + 1 + word.len() > width {
            out += &format!("\n{}", " ".repeat(indent + 2));
            column = indent + 2;
        } else if i > 0 {
            out.push(' ');
            column += 1;
        }
        out += word;
        column += word.len();
    }
    out.push('\n');
    out
}

/// Text in a cell, and how it is coloured.
#[derive(Clone, Default)]
pub(crate) struct Cell {
    text: String,
    style: Style,
}

impl Cell {
    /// Without colour.
    pub(crate) fn plain(text: impl Into<String>) -> Cell {
        Cell { text: text.into(), style: Style::new() }
    }

    /// In this style.
    pub(crate) fn styled(text: impl Into<String>, style: Style) -> Cell {
        Cell { text: text.into(), style }
    }

    /// The same style, with another text.
    pub(crate) fn with_text(self, text: impl Into<String>) -> Cell {
        Cell { text: text.into(), ..self }
    }

    /// Marked as not expected.
    pub(crate) fn marked(self) -> Cell {
        let text = self.text.trim_end_matches(" !");
        Cell { text: format!("{text} !"), style: AnsiColor::Red.on_default().bold() }
    }

    /// A count per operation, or a dash.
    pub(crate) fn count(n: Option<f64>) -> Cell {
        Cell::plain(n.map_or("-".into(), count))
    }
}

/// The verdict of some rows of one strategy and workload: that of the judged mode, else the worst; marked if any is
/// unexpected.
pub(crate) fn verdict_cell(rows: &[&Row]) -> Cell {
    let judged = rows.iter().find(|r| r.mode == JUDGED).or_else(|| rows.iter().max_by_key(|r| r.verdict as u8));
    let Some(judged) = judged else { return Cell::plain("-") };
    let unexpected = rows.iter().any(|r| r.is_unexpected());
    let style = match (unexpected, judged.verdict) {
        (true, _) => AnsiColor::Red.on_default().bold(),
        (false, Verdict::Safe) if judged.met_nothing() => Style::new().dimmed(),
        (false, Verdict::Safe) => AnsiColor::Green.on_default(),
        (false, Verdict::Unsafe) => AnsiColor::Yellow.on_default(),
        (false, _) => Style::new().dimmed(),
    };
    let doubt = if unexpected {
        " !"
    } else if judged.met_nothing() {
        "?"
    } else {
        ""
    };
    Cell { text: format!("{}{doubt}", judged.verdict.name()), style }
}

/// Four counts of one row.
pub(crate) fn count_cells(row: Option<&Row>) -> [Cell; 4] {
    let per_op = |n: fn(&Row) -> u64| Cell::count(row.and_then(|r| r.per_op(n(r))));
    [
        per_op(|r| r.cell.flush_ipis),
        per_op(|r| r.cell.sync_ipis),
        per_op(|r| r.cell.syncs_elided),
        per_op(|r| r.cell.tlbi),
    ]
}

/// The headings of [`count_cells`].
pub(crate) const COUNT_HEADINGS: [&str; 4] = ["flush", "sync", "elided", "TLBI"];

/// One line of a table.
pub(crate) enum Line {
    /// A heading over lines that belong together.
    Section(String),
    /// Cells, one for each column.
    Cells(Vec<Cell>),
}

/// Columns under common headings, numbers to the right. `groups` names spans of columns after the first.
pub(crate) fn layout(groups: &[(&str, usize)], headings: &[&str], lines: &[Line]) -> String {
    let mut widths: Vec<usize> = headings.iter().map(|h| h.len()).collect();
    for line in lines {
        if let Line::Cells(cells) = line {
            for (width, cell) in widths.iter_mut().zip(cells) {
                *width = (*width).max(cell.text.len());
            }
        }
    }
    // Where a group begins there is more room.
    let mut gaps = vec![1; widths.len()];
    let mut at = 1;
    for (_, columns) in groups {
        if let Some(gap) = gaps.get_mut(at) {
            *gap = 3;
        }
        at += columns;
    }
    gaps[0] = 0;
    let mut out = String::new();
    if groups.iter().any(|(name, _)| !name.is_empty()) {
        let mut line = " ".repeat(widths[0]);
        let mut at = 1;
        for (name, columns) in groups {
            let span: usize = (at..at + columns).map(|c| widths[c] + gaps[c]).sum();
            let room = span - gaps[at];
            line += &" ".repeat(gaps[at]);
            line += &format!("{name:^room$}");
            at += columns;
        }
        out += &format!("{}\n", line.trim_end());
    }
    let heading = Line::Cells(headings.iter().map(|h| Cell::plain(*h)).collect());
    for line in std::iter::once(&heading).chain(lines) {
        match line {
            Line::Section(text) => out += &format!("{text}\n"),
            Line::Cells(cells) => out += &format!("{}\n", cells_line(cells, &widths, &gaps)),
        }
    }
    out
}

fn cells_line(cells: &[Cell], widths: &[usize], gaps: &[usize]) -> String {
    let mut line = String::new();
    let last = cells.len() - 1;
    for (column, cell) in cells.iter().enumerate() {
        line += &" ".repeat(gaps[column]);
        let padding = " ".repeat(widths[column] - cell.text.len());
        let (style, text) = (cell.style, &cell.text);
        // Names and verdicts to the left, numbers to the right.
        line += &match column {
            0 => format!("{style}{text}{style:#}{padding}"),
            _ if column == last => format!("{style}{text}{style:#}"),
            _ => format!("{padding}{style}{text}{style:#}"),
        };
    }
    line
}

/// The names of one field in the order of first appearance.
pub(crate) fn distinct(rows: &[Row], field: fn(&Row) -> &'static str) -> Vec<&'static str> {
    let mut names = Vec::new();
    for row in rows {
        if !names.contains(&field(row)) {
            names.push(field(row));
        }
    }
    names
}

/// The tables of one architecture's rows.
pub(crate) fn of(rows: &[Row], linux: &Reference) -> String {
    let modes = distinct(rows, |r| r.mode);
    // The judged mode's counts depend on what the walkers hit; they are shown where there are no others.
    let counted: Vec<&str> = modes.iter().copied().filter(|m| *m != JUDGED || modes.len() == 1).collect();
    let per_table = if output::width() < output::WIDEST { 1 } else { MODES_PER_TABLE };
    counted.chunks(per_table).map(|shown| one_table(rows, shown, linux)).collect::<Vec<_>>().join("\n")
}

fn one_table(rows: &[Row], modes: &[&str], linux: &Reference) -> String {
    let bold = Style::new().bold();
    let mut lines = Vec::new();
    for workload in distinct(rows, |r| r.workload) {
        let arch = rows[0].arch;
        let reference = linux
            .instructions(arch, workload)
            .map(|n| format!("{INDENT}(Linux {}: {} instructions per operation)", linux::KERNEL, grouped(n)));
        lines.push(Line::Section(format!("{bold}{workload}{bold:#}{}", reference.unwrap_or_default())));
        for strategy in distinct(rows, |r| r.strategy) {
            let of_pair: Vec<&Row> = rows.iter().filter(|r| r.workload == workload && r.strategy == strategy).collect();
            let mut cells = vec![Cell::plain(format!("{INDENT}{strategy}"))];
            for mode in modes {
                cells.extend(count_cells(of_pair.iter().find(|r| r.mode == *mode).copied()));
            }
            let instructions = of_pair.first().and_then(|r| r.instructions_per_op);
            cells.push(Cell::plain(instructions.map_or("-".into(), |n| grouped(n.round() as u64))));
            cells.push(verdict_cell(&of_pair));
            lines.push(Line::Cells(cells));
        }
    }
    let mut groups: Vec<(&str, usize)> = modes.iter().map(|m| (*m, COUNT_HEADINGS.len())).collect();
    groups.extend([("", 1), ("", 1)]);
    let mut headings = vec![""];
    modes.iter().for_each(|_| headings.extend(COUNT_HEADINGS));
    headings.extend(["instr/op", "verdict"]);
    layout(&groups, &headings, &lines)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::arch::Arch;
    use crate::rows::tests::cell;
    use kernel::record::cell::CellRow;
    use kernel::suite::Mode;

    #[test]
    fn numbers_are_short() {
        assert_eq!(
            (count(3.0), count(3.375), count(0.5), count(1.0 / 3.0)),
            ("3".into(), "3.375".into(), "0.5".into(), "0.333".into())
        );
        assert_eq!((grouped(0), grouped(999), grouped(1_234_567)), ("0".into(), "999".into(), "1,234,567".into()));
    }

    #[test]
    fn long_text_is_broken_between_words() {
        let text = paragraph(2, &"word ".repeat(50));
        assert!(text.lines().all(|l| l.len() <= 100 && l.starts_with("  ")) && text.lines().count() > 2);
        assert!(text.lines().nth(1).unwrap().starts_with("    word"));
        assert_eq!(paragraph(0, "short."), "short.\n");
    }

    pub(crate) fn rows(arch: Arch) -> Vec<Row> {
        let mut all = Vec::new();
        for (strategy, sync) in [(1, 192), (2, 0)] {
            for mode in [Mode::Same, Mode::Other, Mode::Contend] {
                let flush = if mode == Mode::Other { 0 } else { 216 };
                let cell = CellRow { flush_ipis: flush, sync_ipis: sync, tlbi: 4096, ..cell(strategy, 8, mode) };
                let mut row = Row::resolve(arch, cell).unwrap();
                row.instructions_per_op = Some(2345.6);
                all.push(row);
            }
        }
        all
    }

    /// What a terminal shows, without its colours.
    pub(crate) fn bare(text: &str) -> String {
        anstream::adapter::strip_str(text).to_string()
    }

    #[test]
    fn a_table_as_it_is_printed() {
        let mut rows = rows(Arch::X86_64);
        rows[5].verdict = Verdict::Unsafe;
        let expected = "                         same                    other\n\
                        \u{20}               flush sync elided TLBI   flush sync elided TLBI   instr/op   verdict\n\
                        unshare_munmap_last  (Linux 6.12: 11,623 instructions per operation)\n\
                        \u{20} sync-all      3.375    3      0   64       0    3      0   64      2,346   safe\n\
                        \u{20} static-hook   3.375    0      0   64       0    0      0   64      2,346   unsafe !\n";
        assert_eq!(bare(&of(&rows, &Reference::load())), expected);
    }

    #[test]
    fn the_widest_table_fits_a_terminal() {
        for line in bare(&of(&rows(Arch::Aarch64), &Reference::load())).lines() {
            assert!(line.len() <= 100, "{line}");
        }
    }

    #[test]
    fn the_modes_make_three_tables() {
        let all: Vec<Row> = Mode::NAMES
            .iter()
            .enumerate()
            .map(|(i, _)| Row::resolve(Arch::X86_64, CellRow { mode: i as u16, ..cell(0, 0, Mode::Same) }).unwrap())
            .collect();
        assert_eq!(bare(&of(&all, &Reference::load())).matches("instr/op").count(), 3);
    }
}
