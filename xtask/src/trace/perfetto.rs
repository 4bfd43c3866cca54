//! A recording as JSON in the trace-event format, which Perfetto's UI opens (<https://ui.perfetto.dev>, and
//! `chrome://tracing`).
//!
//! The format was chosen before Perfetto's own protobuf because it has all that is needed here (tracks, nested spans,
//! arrows, markers), can be read and checked by any JSON parser, and needs no crate that this runner does not have.
//! Times are in microseconds there: one instruction of the machine stands for one nanosecond. Each guest is two groups
//! of tracks (`pid`): its CPUs, each with a track of its interrupts-off regions below it, and its tables.

use serde_json::{Value, json};

use super::Recording;
use super::lives::{self, Life};
use super::spans::{Span, Spans};

/// The whole file.
pub(crate) fn document(recordings: &[Recording]) -> Value {
    let mut events = Vec::new();
    let mut arrows = 0;
    let mut lost = Vec::new();
    for (i, recording) in recordings.iter().enumerate() {
        let group = Group { cpus: 2 * i as u64 + 1, tables: 2 * i as u64 + 2 };
        let spans = Spans::of(&recording.cpus, &recording.cells);
        group.name(recording, &mut events);
        group.spans(&spans, &mut events);
        group.arrows(&spans, &mut arrows, &mut events);
        group.tables(recording, &mut events);
        lost.push(json!({
            "guest": recording.title,
            "events": recording.cpus.iter().map(|c| c.events.len()).collect::<Vec<_>>(),
            "overwritten": recording.cpus.iter().map(|c| c.overwritten).collect::<Vec<_>>(),
            "dropped": recording.cpus.iter().map(|c| c.dropped).collect::<Vec<_>>(),
            "interrupts_without_handler": spans.unanswered,
        }));
    }
    json!({
        "traceEvents": events,
        "displayTimeUnit": "ns",
        "otherData": { "unit": "one nanosecond stands for one instruction of the machine", "guests": lost },
    })
}

/// The two groups of one guest.
struct Group {
    cpus: u64,
    tables: u64,
}

/// A moment as the format has it.
fn time(instructions: u64) -> Value {
    json!(instructions as f64 / 1000.0)
}

fn track(cpu: u16) -> u64 {
    2 * u64::from(cpu) + 1
}

fn masked_track(cpu: u16) -> u64 {
    track(cpu) + 1
}

impl Group {
    fn name(&self, recording: &Recording, events: &mut Vec<Value>) {
        let title = &recording.title;
        for (pid, what) in [(self.cpus, "CPUs"), (self.tables, "tables")] {
            events.push(
                json!({"ph": "M", "pid": pid, "name": "process_name", "args": {"name": format!("{title}: {what}")}}),
            );
            events.push(json!({"ph": "M", "pid": pid, "name": "process_sort_index", "args": {"sort_index": pid}}));
        }
        for (cpu, ring) in recording.cpus.iter().enumerate() {
            let cpu = cpu as u16;
            let lost = match ring.overwritten + ring.dropped {
                0 => String::new(),
                n => format!(" ({n} events lost)"),
            };
            self.thread(self.cpus, track(cpu), &format!("cpu {cpu}{lost}"), events);
            self.thread(self.cpus, masked_track(cpu), &format!("cpu {cpu}, interrupts off"), events);
        }
    }

    fn thread(&self, pid: u64, tid: u64, name: &str, events: &mut Vec<Value>) {
        events.push(json!({"ph": "M", "pid": pid, "tid": tid, "name": "thread_name", "args": {"name": name}}));
        events
            .push(json!({"ph": "M", "pid": pid, "tid": tid, "name": "thread_sort_index", "args": {"sort_index": tid}}));
    }

    fn spans(&self, spans: &Spans, events: &mut Vec<Value>) {
        let one = |span: &Span, tid: u64| {
            let mut args = json!({"at": span.from});
            if span.cut {
                args["cut"] = json!("its beginning or its end is not in the ring");
            }
            json!({
                "ph": "X", "pid": self.cpus, "tid": tid, "ts": time(span.from), "dur": time(span.to - span.from),
                "name": span.name, "cat": span.sort, "args": args,
            })
        };
        events.extend(spans.spans.iter().map(|s| one(s, track(s.cpu))));
        events.extend(spans.masked.iter().map(|s| one(s, masked_track(s.cpu))));
        for mark in &spans.marks {
            // A violation is drawn across all tracks.
            let (scope, category) = if mark.violation { ("g", "violation") } else { ("t", "event") };
            events.push(json!({
                "ph": "i", "s": scope, "pid": self.cpus, "tid": track(mark.cpu), "ts": time(mark.at),
                "name": mark.name, "cat": category, "args": {"at": mark.at},
            }));
        }
    }

    fn arrows(&self, spans: &Spans, number: &mut u64, events: &mut Vec<Value>) {
        for arrow in &spans.arrows {
            *number += 1;
            let end = |phase: &str, (cpu, at): (u16, u64)| {
                json!({
                    "ph": phase, "id": *number, "pid": self.cpus, "tid": track(cpu), "ts": time(at),
                    "name": arrow.name, "cat": "arrow", "bp": "e",
                })
            };
            events.push(end("s", arrow.from));
            events.push(end("f", arrow.to));
        }
    }

    fn tables(&self, recording: &Recording, events: &mut Vec<Value>) {
        for (frame, life) in lives::lives(&recording.cpus) {
            self.thread(self.tables, frame, &format!("table {frame:#x}"), events);
            self.life(frame, &life, events);
        }
    }

    fn life(&self, frame: u64, life: &Life, events: &mut Vec<Value>) {
        for phase in &life.phases {
            events.push(json!({
                "ph": "X", "pid": self.tables, "tid": frame, "ts": time(phase.from), "dur": time(phase.to - phase.from),
                "name": phase.name, "cat": "table", "args": {"at": phase.from},
            }));
        }
        for at in &life.violations {
            events.push(json!({
                "ph": "i", "s": "t", "pid": self.tables, "tid": frame, "ts": time(*at),
                "name": "VIOLATION: still held", "cat": "violation", "args": {"at": at},
            }));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::forged::recording;
    use super::*;

    /// What a reader of the file gets.
    fn parsed() -> Value {
        serde_json::from_str(&document(&[recording(), recording()]).to_string()).unwrap()
    }

    fn events<'v>(document: &'v Value, phase: &str) -> Vec<&'v Value> {
        let all = document["traceEvents"].as_array().unwrap();
        all.iter().filter(|e| e["ph"] == phase).collect()
    }

    #[test]
    fn every_track_has_a_name_and_every_event_a_track() {
        let document = parsed();
        let named: Vec<(u64, u64)> = events(&document, "M")
            .iter()
            .filter(|e| e["name"] == "thread_name")
            .map(|e| (e["pid"].as_u64().unwrap(), e["tid"].as_u64().unwrap()))
            .collect();
        // Three CPUs with two tracks and a table, twice.
        assert_eq!(named.len(), 14);
        for event in document["traceEvents"].as_array().unwrap().iter().filter(|e| e["ph"] != "M") {
            let at = (event["pid"].as_u64().unwrap(), event["tid"].as_u64().unwrap());
            assert!(named.contains(&at), "{event}");
            assert!(event["ts"].as_f64().unwrap() >= 0.0 && event["name"].is_string(), "{event}");
        }
    }

    #[test]
    fn arrows_have_two_ends_that_lie_on_spans() {
        let document = parsed();
        let (begin, end) = (events(&document, "s"), events(&document, "f"));
        assert_eq!((begin.len(), end.len()), (4, 4));
        for (s, f) in begin.iter().zip(&end) {
            assert_eq!(s["id"], f["id"]);
            for end in [s, f] {
                let ts = end["ts"].as_f64().unwrap();
                let on = events(&document, "X").into_iter().any(|x| {
                    let from = x["ts"].as_f64().unwrap();
                    x["pid"] == end["pid"]
                        && x["tid"] == end["tid"]
                        && from <= ts
                        && ts <= from + x["dur"].as_f64().unwrap()
                });
                assert!(on, "{end} is on no span");
            }
        }
    }

    #[test]
    fn the_violation_is_marked_for_all_and_on_its_table() {
        let document = parsed();
        let marks: Vec<&Value> = events(&document, "i")
            .into_iter()
            .filter(|e| e["cat"] == "violation" && e["pid"].as_u64() < Some(3))
            .collect();
        assert_eq!(marks.len(), 2);
        assert!(marks.iter().any(|m| m["s"] == "g" && m["ts"] == 0.32), "{marks:?}");
        assert!(marks.iter().any(|m| m["pid"] == 2 && m["tid"] == 0x77), "{marks:?}");
    }

    #[test]
    fn what_was_lost_is_in_the_file() {
        let document = parsed();
        assert_eq!(document["otherData"]["guests"][0]["overwritten"], json!([9, 0, 0]));
        assert_eq!(document["otherData"]["guests"][0]["dropped"], json!([0, 0, 1]));
        let names = events(&document, "M");
        assert!(names.iter().any(|e| e["args"]["name"] == "cpu 0 (9 events lost)"));
    }
}
