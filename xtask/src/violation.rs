//! A row's first violation, and its wrong counts, in words.

use kernel::record::cell::{Verdict, Violation, ViolationKind};

use crate::rows::Row;
use crate::table::count;

/// The first violation of `row`: which walk, which table, both CPUs, and the order of events. Empty without one.
pub(crate) fn in_words(row: &Row) -> String {
    let Some(kind) = row.violation() else { return String::new() };
    let v = &row.cell.first;
    let end = match kind {
        ViolationKind::FreedWhileHeld | ViolationKind::ReadPoison => "freed it",
        ViolationKind::ReusedWhileHeld => "reused it",
        _ => "changed it",
    };
    let subject = match kind {
        ViolationKind::WrongPage | ViolationKind::StaleTranslation => format!("page in frame {:#x}", v.pfn),
        _ => format!("{} table in frame {:#x}", level_name(v.level), v.pfn),
    };
    let (kind_in_words, order) = (kind.in_words(), order(kind, v.times));
    let who = format!("cpu {} in its walk {} to {:#x} (mm {})", v.walker, v.walk, v.address, v.mm);
    if kind == ViolationKind::StaleRecursion {
        return format!(
            "{kind_in_words}: {who} had found the {subject} in its PMD entry, in operation {}; {order}",
            v.op
        );
    }
    if v.updater == Violation::NOBODY {
        // The walk found it out itself; who had changed what it read is not noted.
        return format!("{kind_in_words}: {who} came to the {subject}, in operation {}; {order}", v.op);
    }
    format!("{kind_in_words}: {who} held the {subject}; cpu {} {end} in operation {}; {order}", v.updater, v.op)
}

fn level_name(level: u16) -> &'static str {
    ["PTE", "PMD", "PUD", "PGD"].get(level as usize).copied().unwrap_or("page")
}

/// The events that have a time, by time.
fn order(kind: ViolationKind, times: [u64; 4]) -> String {
    let last = match kind {
        ViolationKind::ReusedWhileHeld => "table reused",
        ViolationKind::FreedWhileHeld | ViolationKind::ReadPoison => "table freed",
        _ => "seen",
    };
    let names = ["walk began", "table unlinked", "flush completed", last];
    let mut events: Vec<(u64, &str)> = times.into_iter().zip(names).filter(|(time, _)| *time != 0).collect();
    // Stable: events of the same time keep the order in which they must have been.
    events.sort_by_key(|(time, _)| *time);
    let Some(&(begin, _)) = events.first() else { return "the order of events is not known".into() };
    let words: Vec<String> = events
        .iter()
        .enumerate()
        .map(|(i, (time, name))| if i == 0 { format!("{name} at {time}") } else { format!("{name} +{}", time - begin) })
        .collect();
    format!("order: {} instructions", words.join(", "))
}

/// The exit status of a program in words: `programs/src/lib.rs` says what those mean that no program chooses itself.
fn program_status(status: u64) -> String {
    let line = status & 0xffff_ffff;
    match status >> 32 {
        0xdead => format!("a panic in line {line} of its source"),
        0xbad => format!("a check that failed in line {line} of its source"),
        _ => match kernel::abi::Status::from_number(status) {
            Some(ended) => format!("status {status} ({})", ended.in_words()),
            None => format!("status {status:#x}"),
        },
    }
}

/// What is wrong with an unexpected row, in one sentence.
pub(crate) fn complaint(row: &Row) -> String {
    let mut parts = Vec::new();
    if row.verdict != row.expected {
        parts.push(match row.verdict {
            Verdict::Void => {
                format!("the control did not fire, so the run says nothing (expected {})", row.expected.name())
            }
            Verdict::Failed => format!("a program ended with {}", program_status(row.cell.program_status)),
            verdict => format!("{}, expected {}", verdict.name(), row.expected.name()),
        });
    }
    if row.cell.miscounted != 0 {
        let counts = [
            ("flush IPIs", row.cell.flush_ipis, row.cell.predicted_flush),
            ("sync IPIs", row.cell.sync_ipis, row.cell.predicted_sync),
            ("syncs elided", row.cell.syncs_elided, row.cell.predicted_elided),
            ("invalidations", row.cell.tlbi, row.cell.predicted_tlbi),
            ("CPUs that held the table and were not waited for", row.cell.uncovered, 0),
            ("the bystander's flush IPIs", row.cell.bystander_flush, 0),
            ("the bystander's sync IPIs", row.cell.bystander_sync, row.cell.predicted_bystander),
            ("the bystander's NMIs", row.cell.bystander_nmi, 0),
        ];
        let wrong: Vec<String> = counts
            .into_iter()
            .filter(|(_, counted, predicted)| *predicted != u64::MAX && counted != predicted)
            .map(|(name, counted, predicted)| {
                let per_op = |n| row.per_op(n).map_or("-".into(), count);
                format!("{name} {} per operation, predicted {}", per_op(counted), per_op(predicted))
            })
            .collect();
        parts.push(if wrong.is_empty() { "counts differ from the prediction".into() } else { wrong.join("; ") });
    }
    parts.join("; ")
}

/// Where a row is from, as a heading. The transport is named where it is not the architecture's own.
pub(crate) fn heading(row: &Row) -> String {
    let native = row.transport == row.arch.native_transport();
    let transport = if native { String::new() } else { format!(" {}", row.transport) };
    format!("{}{transport} {}, {}, {}", row.arch.name(), row.workload, row.strategy, row.mode)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arch::Arch;
    use crate::rows::tests::cell;
    use kernel::record::cell::CellRow;
    use kernel::suite::Mode;

    fn unsafe_row() -> Row {
        let first = Violation {
            kind: ViolationKind::ReusedWhileHeld as u16,
            walker: 2,
            updater: 0,
            level: 0,
            mm: 3,
            pfn: 0x1234,
            address: 0x40_0020_0000,
            walk: 117,
            op: 5,
            times: [1000, 1040, 1090, 1100],
        };
        let cell = CellRow { verdict: 1, violations_ghost: 1, first, ..cell(0, 6, Mode::Contend) };
        Row::resolve(Arch::Aarch64, cell).unwrap()
    }

    #[test]
    fn it_names_walk_table_cpus_and_order() {
        assert_eq!(
            in_words(&unsafe_row()),
            "a table was reused while a walk that began before its unlink held it: cpu 2 in its walk 117 to \
             0x4000200000 (mm 3) held the PTE table in frame 0x1234; cpu 0 reused it in operation 5; order: walk began \
             at 1000, table unlinked +40, flush completed +90, table reused +100 instructions"
        );
    }

    #[test]
    fn who_is_not_noted_is_not_named() {
        let mut row = unsafe_row();
        row.cell.first.kind = ViolationKind::WrongPage as u16;
        row.cell.first.updater = Violation::NOBODY;
        let text = in_words(&row);
        assert!(
            text.contains(
                "cpu 2 in its walk 117 to 0x4000200000 (mm 3) came to the page in frame 0x1234, in operation 5;"
            ),
            "{text}"
        );
        assert!(!text.contains("cpu 0") && !text.contains("65535"), "{text}");
    }

    #[test]
    fn unknown_times_are_left_out() {
        let mut row = unsafe_row();
        row.cell.first.times = [0, 40, 0, 44];
        assert!(in_words(&row).ends_with("order: table unlinked at 40, table reused +4 instructions"));
        row.cell.first.times = [0; 4];
        assert!(in_words(&row).ends_with("the order of events is not known"));
    }

    #[test]
    fn complaints_say_what_was_expected() {
        assert_eq!(complaint(&unsafe_row()), "unsafe, expected safe");
        let mut row = unsafe_row();
        row.verdict = row.expected;
        row.cell.miscounted = 1;
        row.cell.flush_ipis = 192;
        row.cell.predicted_flush = 216;
        row.cell.predicted_sync = 0;
        assert_eq!(complaint(&row), "flush IPIs 3 per operation, predicted 3.375");
    }
}
