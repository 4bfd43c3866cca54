//! Two architectures side by side: where they agree, and where they must differ.

use anstream::adapter::strip_str;
use kernel::record::cell::Verdict;

use crate::output;
use crate::rows::Row;
use crate::table::{COUNT_HEADINGS, Cell, JUDGED, Line, count_cells, distinct, layout, paragraph, verdict_cell};

/// Counts of each side that there is room for on a narrow terminal: the first of [`COUNT_HEADINGS`]. The others are in
/// each architecture's own table.
const NARROW: usize = 2;

/// The comparison of `left` and `right`, which ran the same suite.
pub(crate) fn side_by_side(left: &[Row], right: &[Row]) -> String {
    let mode = compared_mode(left);
    let whole = table(left, right, mode, COUNT_HEADINGS.len());
    let fits = |text: &str| strip_str(text).to_string().lines().all(|line| line.chars().count() <= output::width());
    let table = if fits(&whole) { whole } else { table(left, right, mode, NARROW) };
    format!("{table}{}", conclusions(left, right, mode).iter().map(|s| paragraph(0, s)).collect::<String>())
}

/// The table, with so many counts of each side.
fn table(left: &[Row], right: &[Row], mode: &str, counts: usize) -> String {
    let (Some(first_left), Some(first_right)) = (left.first(), right.first()) else { return String::new() };
    let mut lines = Vec::new();
    for workload in distinct(left, |r| r.workload) {
        lines.push(Line::Section(workload.to_owned()));
        for strategy in distinct(left, |r| r.strategy) {
            let mut cells = vec![Cell::plain(format!("  {strategy}"))];
            for rows in [left, right] {
                let pair: Vec<&Row> =
                    rows.iter().filter(|r| r.workload == workload && r.strategy == strategy).collect();
                cells.extend(count_cells(pair.iter().find(|r| r.mode == mode).copied()).into_iter().take(counts));
                cells.push(verdict_cell(&pair));
            }
            lines.push(Line::Cells(cells));
        }
    }
    let title = |row: &Row| format!("{} ({})", row.arch.name(), row.transport);
    let (title_left, title_right) = (title(first_left), title(first_right));
    let columns = counts + 1;
    let mut headings = vec![""];
    for _ in 0..2 {
        headings.extend(&COUNT_HEADINGS[..counts]);
        headings.push("verdict");
    }
    layout(&[(&title_left, columns), (&title_right, columns)], &headings, &lines)
}

fn compared_mode(rows: &[Row]) -> &'static str {
    distinct(rows, |r| r.mode).into_iter().find(|m| *m != JUDGED).unwrap_or(JUDGED)
}

/// The sentences under the table.
fn conclusions(left: &[Row], right: &[Row], mode: &str) -> Vec<String> {
    let pairs: Vec<(&Row, &Row)> = left
        .iter()
        .filter_map(|l| {
            let same = |r: &&Row| (r.strategy, r.workload, r.mode) == (l.strategy, l.workload, l.mode);
            Some((l, right.iter().find(same)?))
        })
        .collect();
    let in_mode: Vec<(&Row, &Row)> = pairs.iter().copied().filter(|(l, _)| l.mode == mode).collect();
    let mut out = vec![verdicts(&pairs)];
    let flushes = |r: &Row| r.cell.flush_ipis;
    let syncs = |r: &Row| r.cell.sync_ipis;
    out.push(counts("Flush interrupts", &in_mode, mode, flushes));
    out.push(counts("Sync interrupts", &in_mode, mode, syncs));
    out
}

fn verdicts(pairs: &[(&Row, &Row)]) -> String {
    let judged: Vec<&(&Row, &Row)> = pairs.iter().filter(|(l, _)| l.mode == JUDGED).collect();
    let judged: Vec<&(&Row, &Row)> = if judged.is_empty() { pairs.iter().collect() } else { judged };
    let differ: Vec<&&(&Row, &Row)> = judged.iter().filter(|(l, r)| l.verdict != r.verdict).collect();
    let must = judged.iter().filter(|(l, r)| l.expected != r.expected).count();
    let wrong = judged.iter().filter(|(l, r)| l.verdict != l.expected || r.verdict != r.expected).count();
    let mut text = format!("Verdicts agree in {} of {} cells", judged.len() - differ.len(), judged.len());
    if must > 0 || !differ.is_empty() {
        let names: Vec<String> = differ.iter().map(|(l, r)| differing(l, r)).collect();
        text += &format!(" and must differ in {must}");
        if !names.is_empty() {
            text += &format!(" ({})", names.join("; "));
        }
    }
    text += if wrong == 0 { "; all are as expected." } else { "; NOT all are as expected." };
    text
}

fn differing(l: &Row, r: &Row) -> String {
    let word = |row: &Row| match row.verdict {
        Verdict::Safe => format!("safe on {}", row.arch.name()),
        other => format!("{} on {}", other.name(), row.arch.name()),
    };
    format!("{} {}: {}, {}", l.strategy, l.workload, word(l), word(r))
}

fn counts(what: &str, pairs: &[(&Row, &Row)], mode: &str, count: fn(&Row) -> u64) -> String {
    let agree = pairs.iter().filter(|(l, r)| l.per_op(count(l)) == r.per_op(count(r))).count();
    let mut by_strategy: Vec<(&str, usize)> = Vec::new();
    for (l, _) in pairs.iter().filter(|(l, r)| l.per_op(count(l)) != r.per_op(count(r))) {
        match by_strategy.iter_mut().find(|(name, _)| *name == l.strategy) {
            Some((_, n)) => *n += 1,
            None => by_strategy.push((l.strategy, 1)),
        }
    }
    let wrong = pairs.iter().filter(|(l, r)| l.cell.miscounted != 0 || r.cell.miscounted != 0).count();
    let mut text = format!("{what} (mode {mode}) agree in {agree} of {} cells", pairs.len());
    if !by_strategy.is_empty() {
        let names: Vec<String> = by_strategy.iter().map(|(name, n)| format!("{name} in {n}")).collect();
        text += &format!(" and differ for {}", names.join(", "));
    }
    text += if wrong == 0 { ", each as predicted." } else { "; NOT all as predicted." };
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arch::Arch;
    use crate::table::tests::{bare, rows};

    #[test]
    fn agreement_and_difference_are_said() {
        let left = rows(Arch::X86_64);
        let mut right = rows(Arch::Aarch64);
        for row in &mut right {
            row.cell.flush_ipis = 0;
        }
        for row in right.iter_mut().filter(|r| r.mode == JUDGED && r.strategy == "static-hook") {
            row.verdict = Verdict::Unsafe;
            row.expected = Verdict::Unsafe;
        }
        let table = bare(&side_by_side(&left, &right));
        assert!(table.lines().all(|l| l.len() <= 100));
        let text = table.replace("\n  ", " ");
        assert!(text.contains("x86_64 (ipi)") && text.contains("aarch64"), "{text}");
        assert!(
            text.contains(
                "Verdicts agree in 1 of 2 cells and must differ in 1 (static-hook unshare_munmap_last: safe on \
                 x86_64, unsafe on aarch64); all are as expected."
            ),
            "{text}"
        );
        assert!(text.contains("Flush interrupts (mode same) agree in 0 of 2 cells and differ for sync-all in 1, static-hook in 1, each as predicted."), "{text}");
        assert!(text.contains("Sync interrupts (mode same) agree in 2 of 2 cells, each as predicted."), "{text}");
    }

    #[test]
    fn on_a_narrow_terminal_there_are_fewer_columns() {
        let (mut left, mut right) = (rows(Arch::X86_64), rows(Arch::Aarch64));
        for row in left.iter_mut().chain(&mut right) {
            row.strategy = "acked-generation";
        }
        let narrow = bare(&table(&left, &right, "same", NARROW));
        assert!(narrow.lines().all(|line| line.chars().count() <= 72), "{narrow}");
        assert!(narrow.contains("flush") && narrow.contains("verdict") && !narrow.contains("TLBI"), "{narrow}");
    }

    #[test]
    fn an_unexpected_verdict_is_not_called_agreement() {
        let left = rows(Arch::X86_64);
        let mut right = rows(Arch::Aarch64);
        right[5].verdict = Verdict::Unsafe;
        assert!(bare(&side_by_side(&left, &right)).contains("NOT all are as expected"));
    }
}
