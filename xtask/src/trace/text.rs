//! A recording as text in two columns, for a mail: first what led to each violation, then every event that is left.

use std::fmt::Write;

use super::Recording;
use super::timeline::Timeline;
use crate::table::{grouped, paragraph};

/// The whole file.
pub(crate) fn text(recordings: &[Recording]) -> String {
    let mut out = String::new();
    for recording in recordings {
        let _ = writeln!(out, "{}\n{}\n", recording.title, "=".repeat(recording.title.chars().count()));
        for line in lost(recording) {
            let _ = writeln!(out, "{line}");
        }
        for (heading, violation) in &recording.violations {
            let story = Timeline::around(violation, &recording.cpus).text();
            let _ = writeln!(out, "\n{}\n{story}", paragraph(0, heading));
        }
        let _ = writeln!(out, "\nAll events:\n\n{}", Timeline::everything(&recording.cpus).text());
    }
    out
}

/// What is not there any more, a line for each CPU that lost something.
pub(crate) fn lost(recording: &Recording) -> Vec<String> {
    let cpus = recording.cpus.iter().enumerate().filter(|(_, ring)| ring.overwritten + ring.dropped > 0);
    cpus.map(|(cpu, ring)| {
        let kept = ring.events.len() as u64;
        let dropped = match ring.dropped {
            0 => String::new(),
            n => format!(", and {} came in the middle of another and were dropped", grouped(n)),
        };
        let (overwritten, kept) = (grouped(ring.overwritten), grouped(kept));
        format!("cpu {cpu}: the last {kept} events; {overwritten} before them were overwritten{dropped}.")
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::super::forged::recording;
    use super::*;

    #[test]
    fn losses_come_first_then_the_violation_then_everything() {
        let recording = recording();
        let count: usize = recording.cpus.iter().map(|c| c.events.len()).sum();
        let text = text(&[recording]);
        let at = |part: &str| text.find(part).unwrap_or_else(|| panic!("{part} is not in\n{text}"));
        assert!(at("cpu 0: the last ") < at("the violation's heading"));
        assert!(text.contains("9 before them were overwritten."));
        assert!(text.contains("and 1 came in the middle of another and were dropped."));
        assert!(at("the violation's heading") < at("All events:"));
        let all = &text[at("All events:")..];
        let numbered = all.lines().filter(|l| l.split_whitespace().nth(1).is_some_and(|w| w.starts_with('+'))).count();
        // The heading of the columns has a plus as well.
        assert_eq!(numbered, count + 1, "{all}");
        assert!(all.contains("cpu 2: acknowledges cpu 0 (flush of tables)"), "{all}");
    }
}
