//! What `cargo xtask mutate` finds of a guard, and how it tells it.
//!
//! A guard is missed if the checks find a run without it wrong: by the oracle's verdict, by a count that is not its
//! closed form's, or by an end that no row tells. One that is missed on no architecture survives, which fails the
//! command.

use kernel::guard::{Guard, ShownBy};
use kernel::record::cell::Verdict;
use serde::{Deserialize, Serialize};

use super::{by_scenario, transports};
use crate::arch::Arch;
use crate::error;
use crate::rows::Row;

/// How it was noticed that a guard is missing.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Notice {
    /// A transport and a seed, or a scenario.
    pub(super) place: String,
    pub(super) what: String,
}

/// What became of one guard on one architecture: `None` if nothing noticed in so many runs.
#[derive(Clone, Debug)]
pub(super) struct Finding {
    pub(super) guard: &'static str,
    pub(super) arch: Arch,
    pub(super) runs: usize,
    pub(super) notice: Option<Notice>,
}

/// What the checks say of a run without a guard, if they say anything. A negative control that did not fire is no
/// notice.
pub(super) fn noticed(rows: &[Row], fault: Option<&str>) -> Option<String> {
    // What the oracle saw says more than a count.
    let wrong = rows.iter().find(|r| is_wrong(r)).or_else(|| rows.iter().find(|r| r.cell.miscounted != 0));
    let of_row = wrong.map(|row| {
        let what = match row.violation() {
            Some(kind) if is_wrong(row) => kind.in_words().to_owned(),
            _ => crate::violation::complaint(row),
        };
        format!("{}, {}: {what}", row.workload, row.strategy)
    });
    of_row.or_else(|| fault.map(error::first_line))
}

/// Found unsafe where it had to be safe.
fn is_wrong(row: &Row) -> bool {
    row.verdict == Verdict::Unsafe && row.expected != Verdict::Unsafe
}

/// Guards whose absence was noticed nowhere.
pub(super) fn survivors(findings: &[Finding]) -> Vec<&'static str> {
    let mut guards: Vec<&'static str> = findings.iter().map(|f| f.guard).collect();
    guards.dedup();
    guards.retain(|g| findings.iter().filter(|f| f.guard == *g).all(|f| f.notice.is_none()));
    guards
}

pub(super) fn table(findings: &[Finding]) -> String {
    let width = findings.iter().map(|f| f.guard.len()).max().unwrap_or(0);
    let mut out = String::from("\n");
    let mut last = "";
    for finding in findings {
        let name = if finding.guard == last { "" } else { finding.guard };
        last = finding.guard;
        let what = match &finding.notice {
            Some(notice) => format!("{}: {}", notice.place, notice.what),
            None if by_scenario(finding.guard) => format!("not noticed in {} cells of its scenarios", finding.runs),
            None => format!("not noticed in {} runs ({})", finding.runs, transports(finding.guard).join(", ")),
        };
        out += &format!("{name:width$}  {:7}  {what}\n", finding.arch.name());
    }
    let host = Guard::NAMES.iter().zip(Guard::SHOWN_BY).filter(|(_, by)| **by == ShownBy::Host);
    for ((name, _), _) in host {
        out += &format!("{name:width$}  -        left to the checks on the host\n");
    }
    let free = Guard::NAMES.iter().zip(Guard::SHOWN_BY).filter(|(_, by)| **by == ShownBy::Barriers);
    for ((name, _), _) in free {
        out += &format!("{name:width$}  -        left to `cargo xtask barriers`\n");
    }
    let programs = Guard::NAMES.iter().zip(Guard::SHOWN_BY).filter(|(_, by)| **by == ShownBy::Programs);
    for ((name, _), _) in programs {
        out += &format!("{name:width$}  -        left to the tests of programs in user mode\n");
    }
    out
}

pub(super) fn verdict(survivors: &[&str], guards: usize) -> String {
    use anstyle::AnsiColor::{Green, Red};
    if survivors.is_empty() {
        let good = Green.on_default().bold();
        return format!("\n{good}As expected{good:#}: each of {guards} guards is missed when it is taken away.\n");
    }
    let bad = Red.on_default().bold();
    format!("\n{bad}NOT as expected{bad:#}: nothing notices when these are taken away: {}.\n", survivors.join(", "))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::rows::tests::cell;
    use kernel::record::cell::{CellRow, Violation, ViolationKind};
    use kernel::suite::Mode;

    pub(in crate::mutate) fn row(expected: Verdict, verdict: Verdict, miscounted: u8) -> Row {
        let first = Violation { kind: ViolationKind::WrongPage as u16, ..Violation::default() };
        let record = CellRow {
            expected: expected as u8,
            verdict: verdict as u8,
            miscounted,
            first,
            ..cell(1, 6, Mode::Contend)
        };
        Row::resolve(Arch::X86_64, record).unwrap()
    }

    #[test]
    fn what_counts_as_a_notice() {
        use Verdict::{Safe, Unsafe, Void};
        assert_eq!(noticed(&[row(Safe, Safe, 0), row(Unsafe, Unsafe, 0), row(Unsafe, Void, 0)], None), None);
        let seen = noticed(&[row(Safe, Safe, 0), row(Safe, Unsafe, 0)], None).unwrap();
        assert_eq!(seen, "collapse_anon, sync-all: a walk returned a page that its address did not map");
        assert!(noticed(&[row(Safe, Safe, 1)], None).unwrap().contains("counts differ"));
        assert_eq!(noticed(&[row(Safe, Safe, 0)], Some("it panicked\n  at x")).unwrap(), "it panicked");
    }

    #[test]
    fn a_survivor_is_missed_on_no_architecture() {
        let notice = Some(Notice { place: "ipi, seed 1".into(), what: "seen".into() });
        let finding = |guard, arch, notice| Finding { guard, arch, runs: 2, notice };
        let findings = [
            finding("A", Arch::X86_64, None),
            finding("A", Arch::Aarch64, notice),
            finding("B", Arch::X86_64, None),
            finding("B", Arch::Aarch64, None),
        ];
        assert_eq!(survivors(&findings), ["B"]);
        assert!(verdict(&["B"], 2).contains("these are taken away: B."));
        let text = table(&findings);
        assert!(text.contains("aarch64  ipi, seed 1: seen\n") && text.contains("not noticed in 2 runs"), "{text}");
    }
}
