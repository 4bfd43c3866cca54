//! What a run prints on standard output: tables, comparison, violations, verdict. It depends on the rows and the
//! options only.

use kernel::oracle::VERSION;
use kernel::workload::WorkloadId;

use crate::arch::Arch;
use crate::bystander;
use crate::compare;
use crate::engines;
use crate::exits;
use crate::linux::{self, Reference};
use crate::matrix;
use crate::profile;
use crate::rows::{Row, Setting};
use crate::table::{self, paragraph};
use crate::violation;

/// What an operation is to cost, as a part of what it costs on Linux.
const AIM: f64 = 0.25;

/// Everything that goes to standard output.
pub(crate) fn text(rows: &[Row], archs: &[Arch], setting: &Setting) -> String {
    let linux = Reference::load();
    let bold = anstyle::Style::new().bold();
    let of_arch = |arch: Arch| rows.iter().filter(|r| r.arch == arch).cloned().collect::<Vec<_>>();
    let mut out = String::new();
    let walker = rows.first().map_or("-", |r| r.walker);
    let several = table::distinct(rows, |r| r.transport).len() > 1
        && archs.iter().any(|&a| table::distinct(&of_arch(a), |r| r.transport).len() > 1);
    if several {
        for &arch in archs {
            out += &format!(
                "{bold}{}{bold:#}: {} CPUs, {} operations per cell, seed {}, {}, walkers {walker}, oracle {VERSION}, QEMU {}\n\n{}\n",
                arch.name(),
                setting.cpus,
                setting.ops,
                setting.seed,
                setting.engine,
                setting.qemu,
                matrix::of(&of_arch(arch))
            );
            out += &bystander::of(&of_arch(arch));
            out += &exits::of(&of_arch(arch));
            out += &profile::table::of(&of_arch(arch));
        }
        out += &engines::of(rows, setting.engine);
        out += &met_nothing(rows);
        out += &violations(rows);
        out += &verdict_line(rows);
        return out;
    }
    for &arch in archs {
        let rows = of_arch(arch);
        let transport = rows.first().map_or("-", |r| r.transport);
        let by_whom = if !rows.is_empty() && rows.iter().all(Row::is_of_programs) {
            "Programs in user mode did all of it.\n"
        } else {
            ""
        };
        out += &format!(
            "{bold}{}{bold:#}: transport {transport}, {} CPUs, {} operations per cell, seed {}, {}, oracle {VERSION}, QEMU {}\n\
             Interrupts in targets, per operation. Verdicts are those of mode {}, where it was run.\n{by_whom}\n{}\n",
            arch.name(),
            setting.cpus,
            setting.ops,
            setting.seed,
            setting.engine,
            setting.qemu,
            table::JUDGED,
            table::of(&rows, &linux)
        );
        out += &instructions(&rows, &linux);
        out += &bystander::of(&rows);
        out += &exits::of(&rows);
        out += &profile::table::of(&rows);
    }
    if let [left, right] = archs {
        out += &format!("{bold}Comparison{bold:#}\n\n{}\n", compare::side_by_side(&of_arch(*left), &of_arch(*right)));
    }
    out += &engines::of(rows, setting.engine);
    out += &met_nothing(rows);
    out += &violations(rows);
    out += &verdict_line(rows);
    out
}

/// The rows of which "safe" says nothing; nothing if there are none.
fn met_nothing(rows: &[Row]) -> String {
    let rows: Vec<Row> = rows.iter().filter(|r| r.met_nothing()).cloned().collect();
    let (meet, alone): (Vec<Row>, Vec<Row>) = rows.into_iter().partition(|row| {
        let id = WorkloadId::ALL.into_iter().chain(WorkloadId::PROGRAMS).find(|id| *id as u16 == row.cell.workload);
        id.is_some_and(WorkloadId::walks_by_messages)
    });
    let mut out = String::new();
    let mut say = |rows: &[Row], why: &str| {
        let mut alike: Vec<(String, Vec<&str>)> = Vec::new();
        for workload in table::distinct(rows, |r| r.workload) {
            let of_it: Vec<Row> = rows.iter().filter(|r| r.workload == workload).cloned().collect();
            let transports = table::distinct(&of_it, |r| r.transport).join(", ");
            let of_whom = format!("({transports}): {}", table::distinct(&of_it, |r| r.strategy).join(", "));
            match alike.iter_mut().find(|(other, _)| *other == of_whom) {
                Some((_, workloads)) => workloads.push(workload),
                None => alike.push((of_whom, vec![workload])),
            }
        }
        for (of_whom, workloads) in alike {
            out += &paragraph(2, &format!("{} {of_whom}; {why}.", workloads.join(", ")));
        }
    };
    say(&meet, "a walk and a reuse that it holds up meet by chance; --seed and --ops try more");
    say(&alone, "nobody walks a table there that is used again");
    if out.is_empty() {
        return out;
    }
    format!("\"safe?\" is no verdict: the strategy promises nothing on that transport, and nothing was met.\n{out}\n")
}

/// How the instructions compare with Linux's; nothing where they were not measured.
fn instructions(rows: &[Row], linux: &Reference) -> String {
    let mut above = Vec::new();
    let mut compared = 0;
    for workload in table::distinct(rows, |r| r.workload) {
        let ours = rows.iter().filter(|r| r.workload == workload).filter_map(|r| r.instructions_per_op);
        let most = ours.fold(0.0, f64::max);
        let Some(theirs) = linux.instructions(rows[0].arch, workload).filter(|_| most > 0.0) else { continue };
        compared += 1;
        let ratio = most / theirs as f64;
        if ratio > AIM {
            above.push(format!("{workload} {ratio:.2}"));
        }
    }
    if compared == 0 {
        return String::new();
    }
    let mut text = format!(
        "Instructions per operation (aim: at most {AIM} of Linux {}'s): reached in {} of {compared} workloads",
        linux::KERNEL,
        compared - above.len()
    );
    if !above.is_empty() {
        text += &format!("; not in {}", above.join(", "));
    }
    paragraph(0, &format!("{text}.")) + "\n"
}

fn violations(rows: &[Row]) -> String {
    let mut out = String::new();
    let expected: Vec<&Row> = rows.iter().filter(|r| r.violation().is_some() && !r.is_unexpected()).collect();
    if !expected.is_empty() {
        out += "Violations that had to be found:\n";
        expected
            .iter()
            .for_each(|r| out += &paragraph(2, &format!("{}: {}.", violation::heading(r), violation::in_words(r))));
        out += "\n";
    }
    let late: Vec<&Row> = expected.into_iter().filter(|r| r.cell.seeds > 1).collect();
    if !late.is_empty() {
        out += "Of these, controls that the seed itself did not show, and one derived from it did. A cell beside them that is\n\
                safe was tried with one seed: --ops and --seed try more.\n";
        late.iter().for_each(|r| out += &paragraph(2, &format!("{}: seed {}.", violation::heading(r), r.cell.seeds)));
        out += "\n";
    }
    let unexpected: Vec<&Row> = rows.iter().filter(|r| r.is_unexpected()).collect();
    if !unexpected.is_empty() {
        out += "Not as expected:\n";
        for row in unexpected {
            out += &paragraph(2, &format!("{}: {}.", violation::heading(row), violation::complaint(row)));
            if row.violation().is_some() {
                out += &paragraph(4, &format!("{}.", violation::in_words(row)));
            }
        }
        out += "\n";
    }
    out
}

fn verdict_line(rows: &[Row]) -> String {
    use anstyle::AnsiColor::{Green, Red};
    let unexpected = rows.iter().filter(|r| r.is_unexpected()).count();
    if unexpected == 0 {
        let good = Green.on_default().bold();
        format!("{good}As expected{good:#}: every verdict and every predicted count, rows: {}.\n", rows.len())
    } else {
        let bad = Red.on_default().bold();
        format!("{bad}NOT as expected{bad:#}: {unexpected} of {} rows.\n", rows.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::tests::setting;
    use crate::table::tests::{bare, rows};
    use kernel::record::cell::Verdict;

    #[test]
    fn a_run_ends_with_its_verdict() {
        let good = bare(&text(&rows(Arch::X86_64), &[Arch::X86_64], &setting()));
        assert!(good.starts_with(&format!(
            "x86_64: transport ipi, 4 CPUs, 64 operations per cell, seed 7, icount, oracle {VERSION}, QEMU 7.2.22\n"
        )));
        assert!(good.contains("(aim: at most 0.25 of Linux 6.12's): reached in 1 of 1 workloads.\n"), "{good}");
        assert!(good.ends_with("As expected: every verdict and every predicted count, rows: 6.\n"), "{good}");
    }

    #[test]
    fn what_programs_did_not_meet_is_no_proof() {
        use crate::rows::tests::cell;
        use kernel::record::cell::CellRow;
        use kernel::suite::Mode;
        let row = |strategy, workload: WorkloadId, promised: Verdict| {
            let of_it = cell(strategy, workload as u16, Mode::Contend);
            Row::resolve(Arch::Aarch64, CellRow { user: 1, promised: promised as u64, ..of_it }).unwrap()
        };
        let storm = |strategy, promised| row(strategy, WorkloadId::IpcStorm, promised);
        let rows = [
            storm(0, Verdict::Unsafe),
            storm(1, Verdict::Safe),
            row(0, WorkloadId::DbExit, Verdict::Unsafe),
            row(1, WorkloadId::DbExit, Verdict::Safe),
        ];
        let text = bare(&text(&rows, &[Arch::Aarch64], &setting()));
        assert_eq!(text.matches("   safe?\n").count(), 2, "{text}");
        let note = "\"safe?\" is no verdict: the strategy promises nothing on that transport, and nothing was met.\n\
                    \u{20} ipc_storm (ipi): none; a walk and a reuse that it holds up meet by chance; --seed and --ops try\n";
        assert!(text.contains(note), "{text}");
        assert!(text.contains("  db_exit (ipi): none; nobody walks a table there that is used again.\n"), "{text}");
    }

    #[test]
    fn what_is_not_as_expected_is_listed() {
        let mut both = [rows(Arch::X86_64), rows(Arch::Aarch64)].concat();
        both[2].verdict = Verdict::Unsafe;
        both[2].cell.first.kind = 1;
        let text = bare(&text(&both, &Arch::ALL, &setting()));
        assert!(text.contains("Comparison\n"), "{text}");
        assert!(
            text.contains(
                "x86_64 unshare_munmap_last, sync-all, contend: unsafe, expected safe.\n    a table was reused"
            ),
            "{text}"
        );
        assert!(text.ends_with("NOT as expected: 1 of 12 rows.\n"), "{text}");
    }
}
