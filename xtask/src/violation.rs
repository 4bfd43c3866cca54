//! A row's first violation, and its wrong counts, in words.

use kernel::record::cell::{Verdict, Violation, ViolationKind};

use crate::rows::Row;
use crate::table::count;

/// The first violation of `row`: which walk or CPU, which table or page, and the order of events. Empty without one.
pub(crate) fn in_words(row: &Row) -> String {
    use ViolationKind::*;
    let Some(kind) = row.violation() else { return String::new() };
    let v = &row.cell.first;
    let [began, unlinked, _, seen] = v.times;
    let walk = format!("cpu {} in its walk {} to {:#x} (mm {})", v.walker, v.walk, v.address, v.mm);
    let table = format!("{} table in frame {:#x}", level_name(v.level), v.pfn);
    let page = format!("page in frame {:#x}", v.pfn);
    let who = match kind {
        ReusedWhileHeld | FreedWhileHeld | ReadPoison | TornEntry if v.updater != Violation::NOBODY => {
            let end = match kind {
                ReusedWhileHeld => "reused",
                TornEntry => "changed",
                _ => "freed",
            };
            let who = format!("{walk} held the {table}; cpu {} {end} it in operation {}", v.updater, v.op);
            return format!("{}: {who}; {}", kind.in_words(), order(v.times, &format!("table {end}")));
        }
        // The walk found it out itself; who had changed what it read is not noted.
        ReusedWhileHeld | FreedWhileHeld | ReadPoison | TornEntry => format!("{walk} came to the {table}"),
        WrongPage | PageForTable => format!("{walk} came to the {page}"),
        StaleRecursion => format!("{walk} had found the {table} in its PMD entry"),
        PinnedAndShared => format!("{walk} pinned the {page}"),
        // No walk found these.
        StaleTranslation => format!("cpu {} read {:#x} through its TLB", v.walker, v.address),
        LostMapping | Miscounted => format!("cpu {} came to the {table}, of {:#x}", v.walker, v.address),
    };
    let times = match kind {
        PinnedAndShared => [began, 0, 0, seen],
        StaleTranslation => [0, 0, 0, seen],
        LostMapping | Miscounted => [0, unlinked, 0, seen],
        _ => v.times,
    };
    format!("{}: {who}, in operation {}; {}", kind.in_words(), v.op, order(times, "seen"))
}

fn level_name(level: u16) -> &'static str {
    ["PTE", "PMD", "PUD", "PGD"].get(level as usize).copied().unwrap_or("page")
}

/// The events that have a time, by time; `last` is what the last of them is called.
fn order(times: [u64; 4], last: &str) -> String {
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
        0xbad => match kernel::abi::Status::from_number(line >> 24).filter(|_| line >> 24 != 0) {
            // `must!` says why.
            Some(why) => format!(
                "a system call in line {} of its source that was answered {why:?}: {}",
                line & 0xff_ffff,
                why.in_words()
            ),
            None => format!("a check that failed in line {line} of its source"),
        },
        _ => match kernel::abi::Status::from_number(status).filter(|ended| *ended as u64 != 0) {
            // The kernel ends a program so that touches what it may not.
            Some(ended) => format!(
                "status {status}: its own, or the kernel's ({}; --log debug says which, and where)",
                ended.in_words()
            ),
            None => format!("status {status:#x}, its own"),
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
    fn what_no_walk_found_names_none() {
        let mut row = unsafe_row();
        row.cell.first.updater = Violation::NOBODY;
        let mut told = |kind| {
            row.cell.first.kind = kind as u16;
            in_words(&row)
        };
        let stale = told(ViolationKind::StaleTranslation);
        assert!(
            stale.ends_with(
                ": cpu 2 read 0x4000200000 through its TLB, in operation 5; order: seen at 1100 instructions"
            ),
            "{stale}"
        );
        let lost = told(ViolationKind::LostMapping);
        assert!(
            lost.ends_with(
                ": cpu 2 came to the PTE table in frame 0x1234, of 0x4000200000, in operation 5; order: table unlinked \
                 at 1040, seen +60 instructions"
            ),
            "{lost}"
        );
        assert!(
            told(ViolationKind::PinnedAndShared).contains("(mm 3) pinned the page in frame 0x1234, in operation 5;")
        );
        assert!(told(ViolationKind::ReadPoison).contains("seen +100"), "who reads poison does not free");
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
