//! From the events of each CPU to what took how long on it, what happened at a moment, and which interrupt led to which
//! handler.
//!
//! What one CPU does nests: an operation contains its flush, the flush its wait, the wait a handler that interrupted
//! it. A beginning whose end is not in the ring (or the other way round) is kept, open at that side, and says so;
//! nothing is made up in between.

use std::collections::HashMap;

use kernel::record::event::{BY_NMI, Event, EventKind, UNNAMED};

use super::words::{cause, handler, in_words, wait};
use crate::shared_memory::CpuEvents;

/// What took a while on one CPU.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Span {
    pub(crate) cpu: u16,
    pub(crate) from: u64,
    pub(crate) to: u64,
    pub(crate) name: String,
    /// Which sort: `walk`, `operation`, `flush`, `sync`, `wait`, `handler`, `cell`, `frozen`, `masked`, `interrupt`,
    /// `violation`.
    pub(crate) sort: &'static str,
    /// Its beginning or its end is not in the ring.
    pub(crate) cut: bool,
}

/// What happened at a moment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Mark {
    pub(crate) cpu: u16,
    pub(crate) at: u64,
    pub(crate) name: String,
    pub(crate) violation: bool,
}

/// From one CPU's moment to another's.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Arrow {
    pub(crate) name: &'static str,
    pub(crate) from: (u16, u64),
    pub(crate) to: (u16, u64),
}

/// All of it.
#[derive(Default)]
pub(crate) struct Spans {
    pub(crate) spans: Vec<Span>,
    /// Regions with interrupts masked; they nest among themselves.
    pub(crate) masked: Vec<Span>,
    pub(crate) marks: Vec<Mark>,
    pub(crate) arrows: Vec<Arrow>,
    /// Interrupts whose handler is not in a ring.
    pub(crate) unanswered: u64,
}

/// A beginning that waits for its end.
struct Open {
    ends: EventKind,
    from: u64,
    name: String,
    sort: &'static str,
    masked: bool,
}

impl Spans {
    /// Those of all CPUs. `cells` names the cells by their numbers, as far as they are known.
    pub(crate) fn of(rings: &[CpuEvents], cells: &[String]) -> Spans {
        let mut all = Spans::default();
        for (cpu, ring) in rings.iter().enumerate() {
            all.add_cpu(cpu as u16, &ring.events, cells);
        }
        all.add_arrows(rings);
        // The outer one first where two begin at once.
        for spans in [&mut all.spans, &mut all.masked] {
            spans.sort_by_key(|s| (s.cpu, s.from, std::cmp::Reverse(s.to)));
        }
        all.marks.sort_by_key(|m| (m.at, m.cpu));
        all
    }

    fn add_cpu(&mut self, cpu: u16, events: &[Event], cells: &[String]) {
        let (Some(first), Some(last)) = (events.first(), events.last()) else { return };
        let mut open: Vec<Open> = Vec::new();
        for event in events {
            let Some(kind) = EventKind::from_number(event.kind) else {
                self.mark(event, false);
                continue;
            };
            if let Some(begun) = begins(kind, event, cells) {
                open.push(begun);
            } else if is_end(kind) {
                match open.iter().rposition(|o| o.ends == kind) {
                    Some(at) => {
                        // What began inside and has no end of its own ends here, too.
                        let inner = open.split_off(at + 1);
                        inner.into_iter().for_each(|o| self.close(cpu, o, event.time, true));
                        if let Some(o) = open.pop() {
                            self.close(cpu, o, event.time, false);
                        }
                    }
                    None => {
                        // It began before the ring does, and so encloses what is open.
                        open.drain(..).for_each(|o| self.close(cpu, o, event.time, true));
                        if let Some(o) = unbegun(kind, event, first.time, cells) {
                            self.close(cpu, o, event.time, true);
                        }
                    }
                }
            } else {
                self.mark(event, kind == EventKind::Violation);
                let short = match kind {
                    EventKind::Interrupt => "interrupt",
                    EventKind::Violation => "violation",
                    _ => continue,
                };
                // As long as the write of the event at least; arrows begin and end at spans.
                let (from, to, name) = (event.time, event.time + 1, in_words(event));
                self.spans.push(Span { cpu, from, to, name, sort: short, cut: false });
            }
        }
        open.into_iter().for_each(|o| self.close(cpu, o, last.time, true));
    }

    fn close(&mut self, cpu: u16, open: Open, to: u64, cut: bool) {
        let Open { from, name, sort, masked, ends: _ } = open;
        if masked {
            let name = if sort == "masked" { name.clone() } else { format!("interrupts off: {sort}") };
            self.masked.push(Span { cpu, from, to, name, sort: "masked", cut });
        }
        if sort != "masked" {
            self.spans.push(Span { cpu, from, to, name, sort, cut });
        }
    }

    fn mark(&mut self, event: &Event, violation: bool) {
        self.marks.push(Mark { cpu: event.cpu, at: event.time, name: in_words(event), violation });
    }

    /// From each interrupt to its acknowledgement, and from each walk that held a table wrongly to the violation.
    fn add_arrows(&mut self, rings: &[CpuEvents]) {
        let mut events: Vec<&Event> = rings.iter().flat_map(|ring| &ring.events).collect();
        events.sort_by_key(|e| e.time);
        let mut under_way: HashMap<(u64, u64), (u64, u64)> = HashMap::new();
        let mut held: HashMap<(u64, u64), u64> = HashMap::new();
        for event in events {
            let cpu = u64::from(event.cpu);
            match EventKind::from_number(event.kind) {
                Some(EventKind::Interrupt) => {
                    let before = under_way.insert((cpu, event.b), (event.time, event.a));
                    self.unanswered += u64::from(before.is_some());
                }
                Some(EventKind::Acknowledge) => {
                    let from = if event.b == UNNAMED {
                        // One broadcast by NMI is under way at a time.
                        under_way
                            .iter()
                            .find(|((_, to), (_, a))| *to == cpu && *a == BY_NMI)
                            .map(|((from, _), _)| *from)
                    } else {
                        Some(event.b)
                    };
                    if let Some((from, (time, a))) = from.and_then(|f| Some((f, under_way.remove(&(f, cpu))?))) {
                        let name = cause(a).unwrap_or("interrupt");
                        self.arrows.push(Arrow { name, from: (from as u16, time), to: (event.cpu, event.time) });
                    }
                }
                Some(EventKind::WalkHolds) => drop(held.insert((cpu, event.a), event.time)),
                Some(EventKind::Violation) => {
                    if let Some(since) = held.get(&(event.b, event.a)) {
                        let from = (event.b as u16, *since);
                        self.arrows.push(Arrow { name: "still held", from, to: (event.cpu, event.time) });
                    }
                }
                _ => {}
            }
        }
        self.unanswered += under_way.len() as u64;
    }
}

fn is_end(kind: EventKind) -> bool {
    use EventKind::{CellEnd, FlushEnd, HandlerEnd, MaskEnd, OperationEnd, Resume, SyncEnd, WaitEnd, WalkEnd};
    matches!(kind, CellEnd | FlushEnd | HandlerEnd | MaskEnd | OperationEnd | Resume | SyncEnd | WaitEnd | WalkEnd)
}

/// What `event` begins, if it begins something.
fn begins(kind: EventKind, event: &Event, cells: &[String]) -> Option<Open> {
    use EventKind as K;
    let (ends, sort, name) = match kind {
        K::CellStart => (K::CellEnd, "cell", cell_name(event.a, cells)),
        K::OperationBegin => (K::OperationEnd, "operation", format!("operation {}", event.a)),
        K::WalkBegin => (K::WalkEnd, "walk", format!("walk {:#x} (mm {})", event.a, event.mm)),
        K::FlushBegin => (K::FlushEnd, "flush", format!("flush {:#x} (mm {})", event.a, event.mm)),
        K::SyncBegin => (K::SyncEnd, "sync", format!("sync for table {:#x}, {} interrupted", event.a, event.b)),
        K::WaitBegin => (K::WaitEnd, "wait", wait(event.a).unwrap_or("waits").to_owned()),
        K::HandlerBegin => (K::HandlerEnd, "handler", handler(event.a).unwrap_or("handler").to_owned()),
        K::MaskBegin => (K::MaskEnd, "masked", "interrupts off".to_owned()),
        K::Freeze => (K::Resume, "frozen", "frozen by the hypervisor".to_owned()),
        _ => return None,
    };
    let masked = matches!(sort, "masked" | "handler") || (kind == K::WalkBegin && event.b != 0);
    Some(Open { ends, from: event.time, name, sort, masked })
}

/// What `event` ends and whose beginning is not in the ring, which begins at `from`.
fn unbegun(kind: EventKind, event: &Event, from: u64, cells: &[String]) -> Option<Open> {
    use EventKind as K;
    let begin = match kind {
        K::CellEnd => K::CellStart,
        K::OperationEnd => K::OperationBegin,
        K::WalkEnd => K::WalkBegin,
        K::FlushEnd => K::FlushBegin,
        K::SyncEnd => K::SyncBegin,
        K::WaitEnd => K::WaitBegin,
        K::HandlerEnd => K::HandlerBegin,
        K::MaskEnd => K::MaskBegin,
        _ => K::Freeze,
    };
    // What `b` was is not known.
    begins(begin, &Event { time: from, b: 0, ..*event }, cells)
}

fn cell_name(index: u64, cells: &[String]) -> String {
    let known = usize::try_from(index).ok().and_then(|i| cells.get(i));
    known.map_or_else(|| format!("cell {index}"), |name| format!("cell {index}: {name}"))
}

#[cfg(test)]
mod tests {
    use super::super::forged::{event, ring, story};
    use super::*;
    use EventKind::{FlushBegin, FlushEnd, HandlerBegin, HandlerEnd, WaitBegin, WaitEnd, WalkBegin, WalkEnd};

    fn times(spans: &[Span], sort: &str) -> Vec<(u16, u64, u64, bool)> {
        spans.iter().filter(|s| s.sort == sort).map(|s| (s.cpu, s.from, s.to, s.cut)).collect()
    }

    #[test]
    fn beginnings_and_ends_make_spans() {
        let spans = Spans::of(&story(), &["first".into()]);
        assert_eq!(times(&spans.spans, "cell"), [(0, 5, 400, false)]);
        assert_eq!(times(&spans.spans, "operation"), [(0, 110, 360, false)]);
        assert_eq!(times(&spans.spans, "walk"), [(1, 20, 30, false), (1, 100, 340, false)]);
        assert_eq!(times(&spans.spans, "flush"), [(0, 130, 300, false)]);
        assert_eq!(times(&spans.spans, "wait"), [(0, 150, 290, false)]);
        assert_eq!(times(&spans.spans, "handler"), [(2, 200, 220, false)]);
        assert_eq!(spans.spans.iter().find(|s| s.sort == "cell").unwrap().name, "cell 0: first");
    }

    #[test]
    fn walks_and_handlers_are_masked() {
        let masked = Spans::of(&story(), &[]).masked;
        let all: Vec<_> = masked.iter().map(|s| (s.cpu, s.from, s.to)).collect();
        assert_eq!(all, [(1, 20, 30), (1, 100, 340), (2, 200, 220)]);
        let open = [ring(vec![event(1, 0, WalkBegin, 0x1000, 0), event(9, 0, WalkEnd, 0x1000, 0)])];
        assert!(Spans::of(&open, &[]).masked.is_empty(), "a reader with interrupts on masks nothing");
    }

    #[test]
    fn an_interrupt_leads_to_its_handler_and_a_hold_to_the_violation() {
        let spans = Spans::of(&story(), &[]);
        assert_eq!(
            spans.arrows,
            [
                Arrow { name: "flush of tables", from: (0, 140), to: (2, 210) },
                Arrow { name: "still held", from: (1, 115), to: (0, 320) },
            ]
        );
        assert_eq!(spans.unanswered, 0);
    }

    #[test]
    fn an_interrupt_without_an_answer_is_counted() {
        let mut rings = story();
        rings[2].events.clear();
        let spans = Spans::of(&rings, &[]);
        assert_eq!((spans.arrows.len(), spans.unanswered), (1, 1));
    }

    #[test]
    fn what_began_before_the_ring_is_cut_and_encloses_what_is_in_it() {
        let events = vec![
            event(50, 0, WaitBegin, 4, 0),
            event(60, 0, WaitEnd, 4, 0),
            event(70, 0, FlushEnd, 0x4000, 1),
            event(80, 0, FlushBegin, 0x5000, 0),
        ];
        let spans = Spans::of(&[ring(events)], &[]);
        assert_eq!(times(&spans.spans, "flush"), [(0, 50, 70, true), (0, 80, 80, true)]);
        assert_eq!(times(&spans.spans, "wait"), [(0, 50, 60, false)]);
    }

    #[test]
    fn spans_of_a_cpu_nest_even_where_events_are_missing() {
        let events = vec![
            event(10, 0, FlushBegin, 0x4000, 0),
            event(20, 0, HandlerBegin, 0, 0),
            // The handler's end was dropped.
            event(30, 0, FlushEnd, 0x4000, 0),
            event(40, 0, HandlerEnd, 0, 0),
        ];
        let spans = Spans::of(&[ring(events)], &[]).spans;
        for a in &spans {
            for b in &spans {
                let apart = a.to <= b.from || b.to <= a.from;
                let within = (a.from <= b.from && b.to <= a.to) || (b.from <= a.from && a.to <= b.to);
                assert!(apart || within, "{a:?} {b:?}");
            }
        }
        assert_eq!(times(&spans, "handler"), [(0, 10, 40, true), (0, 20, 30, true)]);
    }
}
