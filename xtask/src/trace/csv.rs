//! A recording as CSV: one event a line, in the order of time, with its numbers as they were written and the same in
//! words.

use anyhow::Context;
use kernel::record::event::EventKind;

use super::{Recording, in_order};
use crate::trace::words::in_words;

/// The whole file. Lost events are lines of the kind `lost`, whose `a` says how many were overwritten and `b` how many
/// were dropped.
pub(crate) fn text(recordings: &[Recording]) -> anyhow::Result<String> {
    let mut file = csv::Writer::from_writer(Vec::new());
    let mut lines = || -> csv::Result<()> {
        file.write_record(["guest", "time", "cpu", "kind", "mm", "a", "b", "text"])?;
        for recording in recordings {
            let guest = recording.title.as_str();
            for (cpu, ring) in recording.cpus.iter().enumerate().filter(|(_, r)| r.overwritten + r.dropped > 0) {
                let first = ring.events.first().map_or(0, |e| e.time).to_string();
                let (cpu, a, b) = (cpu.to_string(), ring.overwritten.to_string(), ring.dropped.to_string());
                let words = format!("{a} events before were overwritten, {b} were dropped");
                file.write_record([guest, &first, &cpu, "lost", "0", &a, &b, &words])?;
            }
            for event in in_order(&recording.cpus) {
                let kind = EventKind::from_number(event.kind).map_or(event.kind.to_string(), |k| format!("{k:?}"));
                let numbers = [event.time, event.cpu.into(), event.mm.into(), event.a, event.b].map(|n| n.to_string());
                let [time, cpu, mm, a, b] = &numbers;
                file.write_record([guest, time, cpu, &kind, mm, a, b, &in_words(event)])?;
            }
        }
        Ok(())
    };
    lines().context("the trace cannot be written as CSV")?;
    let bytes = file.into_inner().map_err(|e| anyhow::anyhow!("the trace cannot be written as CSV: {e}"))?;
    String::from_utf8(bytes).context("the trace is not text")
}

#[cfg(test)]
mod tests {
    use super::super::forged::recording;
    use super::*;

    #[test]
    fn every_event_is_a_line_and_so_is_what_was_lost() {
        let recording = recording();
        let count: usize = recording.cpus.iter().map(|c| c.events.len()).sum();
        let text = text(&[recording]).unwrap();
        let mut reader = csv::Reader::from_reader(text.as_bytes());
        let rows: Vec<csv::StringRecord> = reader.records().collect::<Result<_, _>>().unwrap();
        assert_eq!(rows.len(), count + 2);
        assert_eq!(rows[0].iter().collect::<Vec<_>>()[2..7], ["0", "lost", "0", "9", "0"]);
        assert_eq!(rows[1].iter().collect::<Vec<_>>()[2..7], ["2", "lost", "0", "0", "1"]);
        let unlink = rows.iter().find(|r| &r[3] == "Unlink").unwrap();
        assert_eq!(unlink.iter().skip(1).collect::<Vec<_>>()[..6], ["120", "0", "Unlink", "3", "119", "16384"]);
        assert_eq!(&unlink[7], "table 0x77 unlinked from 0x4000 (mm 3)");
        let times: Vec<u64> = rows[2..].iter().map(|r| r[1].parse().unwrap()).collect();
        assert!(times.is_sorted());
    }
}
