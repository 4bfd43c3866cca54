//! A counterexample as one numbered timeline: what the walker did, what the updater did, in the order in which it
//! happened.

use kernel::record::cell::Violation;
use kernel::record::event::{Event, EventKind};

use super::in_order;
use super::words::in_words;
use crate::shared_memory::CpuEvents;

/// Width of one CPU's column.
const COLUMN: usize = 58;
/// Without a beginning that is known, so many events before the violation are shown.
const LAST: usize = 24;
/// More events of one kind in a row than this are told as a number.
const REPEATED: usize = 3;

/// The CPU that did it. Where the walker found it out itself that is the last other one that did something to the
/// frame, else the one that operates.
fn updater(violation: &Violation, rings: &[CpuEvents]) -> u16 {
    if violation.updater != Violation::NOBODY {
        return violation.updater;
    }
    let did = |e: &&Event| {
        let kinds = [EventKind::Unlink, EventKind::Reuse, EventKind::Retire, EventKind::Free];
        e.cpu != violation.walker && e.a == u64::from(violation.pfn) && kinds.into_iter().any(|kind| is(e, kind))
    };
    rings.iter().flat_map(|r| &r.events).filter(did).max_by_key(|e| e.time).map_or(0, |e| e.cpu)
}

/// The events around a violation, or, without one, before the end.
pub(crate) struct Timeline {
    events: Vec<Event>,
    /// `None` stands for every CPU but the updater: each line then names its CPU, and none is left out.
    walker: Option<u16>,
    updater: u16,
}

impl Timeline {
    /// The events of the two CPUs of `violation`, from the beginning of the walk on to a little after the violation.
    pub(crate) fn around(violation: &Violation, rings: &[CpuEvents]) -> Timeline {
        let (walker, updater) = (violation.walker, updater(violation, rings));
        let concerns = |e: &Event| e.cpu == walker || e.cpu == updater;
        let mut events: Vec<Event> = in_order(rings).into_iter().copied().filter(concerns).collect();
        let is_it = |e: &Event| {
            is(e, EventKind::Violation) && e.a == u64::from(violation.pfn) && e.b == u64::from(violation.walker)
        };
        let Some(at) = events.iter().position(is_it) else {
            let from = events.len().saturating_sub(LAST);
            return Timeline { events: events.split_off(from), walker: Some(walker), updater };
        };
        let end = end(&events, at, walker);
        events.truncate(end);
        let begin = begin(&events[..at], violation).unwrap_or(at.saturating_sub(LAST));
        Timeline { events: events.split_off(begin), walker: Some(walker), updater }
    }

    /// The last events of all CPUs; the one that operates is taken for the updater.
    pub(crate) fn end_of(rings: &[CpuEvents]) -> Timeline {
        let mut events: Vec<Event> = in_order(rings).into_iter().copied().collect();
        let walker = events.iter().rev().find(|e| e.cpu != 0).map_or(1, |e| e.cpu);
        events.retain(|e| e.cpu == 0 || e.cpu == walker);
        let from = events.len().saturating_sub(LAST);
        Timeline { events: events.split_off(from), walker: Some(walker), updater: 0 }
    }

    /// Every event of every CPU; the one that operates stands on the right.
    pub(crate) fn everything(rings: &[CpuEvents]) -> Timeline {
        Timeline { events: in_order(rings).into_iter().copied().collect(), walker: None, updater: 0 }
    }

    /// The kinds of events that occur, each once, in order of occurrence.
    pub(crate) fn kinds(&self) -> Vec<EventKind> {
        let mut kinds = Vec::new();
        for kind in self.events.iter().filter_map(|e| EventKind::from_number(e.kind)) {
            if !kinds.contains(&kind) {
                kinds.push(kind);
            }
        }
        kinds
    }

    /// The timeline as text. Instructions are those of all CPUs together, since the line before.
    pub(crate) fn text(&self) -> String {
        let left = match self.walker {
            None => "all others".to_owned(),
            Some(walker) => format!("walker: cpu {walker}"),
        };
        let heading = if self.has_one_column() {
            format!("cpu {}", self.updater)
        } else {
            format!("{left:COLUMN$}| updater: cpu {}", self.updater)
        };
        let mut out = format!("{:>4} {:>9}  {heading}\n", "#", "+instr");
        let mut before = self.events.first().map_or(0, |e| e.time);
        let mut number = 0;
        let mut at = 0;
        while at < self.events.len() {
            let same = self.repeated(at);
            let shown = if same > REPEATED && self.walker.is_some() { 1 } else { same };
            for event in &self.events[at..at + shown] {
                number += 1;
                let delta = event.time.saturating_sub(before);
                before = event.time;
                out += &self.line(&number.to_string(), &format!("+{delta}"), event.cpu, &in_words(event));
            }
            if shown < same {
                let more = &self.events[at + shown..at + same];
                number += more.len();
                let last = more.last().map_or(before, |e| e.time);
                let text = format!("... and {} more of the kind", more.len());
                out += &self.line(&number.to_string(), &format!("+{}", last - before), self.events[at].cpu, &text);
                before = last;
            }
            at += same;
        }
        out
    }

    fn has_one_column(&self) -> bool {
        self.walker == Some(self.updater)
    }

    /// How many events from `at` on are of the same kind and CPU.
    fn repeated(&self, at: usize) -> usize {
        let first = &self.events[at];
        self.events[at..].iter().take_while(|e| e.kind == first.kind && e.cpu == first.cpu).count()
    }

    fn line(&self, number: &str, delta: &str, cpu: u16, text: &str) -> String {
        let columns = if self.has_one_column() {
            text.to_owned()
        } else if cpu == self.updater {
            format!("{:COLUMN$}| {text}", "")
        } else if self.walker.is_none() {
            format!("{:COLUMN$}|", format!("cpu {cpu}: {text}"))
        } else {
            format!("{text:COLUMN$}|")
        };
        format!("{number:>4} {delta:>9}  {}", columns.trim_end()) + "\n"
    }
}

fn is(event: &Event, kind: EventKind) -> bool {
    event.kind == kind as u16
}

/// Where the story begins: with the walk, or with the unlink of the table if that came first.
fn begin(before: &[Event], violation: &Violation) -> Option<usize> {
    let walk = before.iter().rposition(|e| e.cpu == violation.walker && is(e, EventKind::WalkBegin));
    let unlink = before.iter().rposition(|e| is(e, EventKind::Unlink) && e.a == u64::from(violation.pfn));
    match (walk, unlink) {
        (Some(walk), Some(unlink)) => Some(walk.min(unlink)),
        (found, None) | (None, found) => found,
    }
}

/// One past the last event to show: how the walk goes on after the violation, up to its end.
fn end(events: &[Event], violation: usize, walker: u16) -> usize {
    let rest = &events[violation + 1..];
    let goes_on = |e: &&Event| is(e, EventKind::WalkHolds) || is(e, EventKind::WalkEnd);
    match rest.iter().find(|e| e.cpu == walker) {
        Some(next) if goes_on(&next) => {
            let ends = rest.iter().position(|e| e.cpu == walker && is(e, EventKind::WalkEnd));
            // A walk that stops for long is not followed for ever.
            ends.filter(|n| *n < LAST).map_or(violation + 1, |n| violation + n + 2)
        }
        _ => violation + 1,
    }
}

#[cfg(test)]
mod tests {
    use super::super::forged::{event, ring};
    use super::*;

    fn forged() -> (Violation, Vec<CpuEvents>) {
        use EventKind::{FlushBegin, FlushEnd, Free, Reuse, Unlink, WalkBegin, WalkEnd, WalkHolds};
        let violation = Violation { walker: 1, updater: 0, pfn: 0x77, ..Violation::default() };
        let updater = vec![
            event(10, 0, Free, 0x5, 0),
            event(120, 0, Unlink, 0x77, 0x4000),
            event(130, 0, FlushBegin, 0x4000, 3),
            event(140, 0, FlushEnd, 0x4000, 0),
            event(150, 0, EventKind::Violation, 0x77, 1),
            event(151, 0, Reuse, 0x77, 0),
        ];
        let walker = vec![
            event(20, 1, WalkBegin, 0x1000, 0),
            event(30, 1, WalkEnd, 0x1000, 1),
            event(100, 1, WalkBegin, 0x4000, 0),
            event(110, 1, WalkHolds, 0x77, 0x4000),
            event(170, 1, WalkEnd, 0x4000, 0),
            event(180, 1, WalkBegin, 0x8000, 0),
        ];
        let other = vec![event(125, 2, WalkBegin, 0x9000, 0)];
        (violation, [updater, walker, other].map(ring).to_vec())
    }

    #[test]
    fn it_tells_the_walk_and_what_was_done_to_it_in_two_columns() {
        let (violation, rings) = forged();
        let gap = " ".repeat(COLUMN);
        let left = |text: &str| format!("{text:COLUMN$}|");
        let expected = [
            format!("   #    +instr  {:COLUMN$}| updater: cpu 0", "walker: cpu 1"),
            format!("   1        +0  {}", left("walk begins at 0x4000 (mm 3)")),
            format!("   2       +10  {}", left("walk to 0x4000 holds table 0x77")),
            format!("   3       +10  {gap}| table 0x77 unlinked from 0x4000 (mm 3)"),
            format!("   4       +10  {gap}| flush from 0x4000 begins, 3 other CPUs may have it (mm 3)"),
            format!("   5       +10  {gap}| flush from 0x4000 ends, 0 interrupted"),
            format!("   6       +10  {gap}| VIOLATION: frame 0x77 still held by cpu 1"),
            format!("   7        +1  {gap}| table 0x77 reused"),
            format!("   8       +19  {}", left("walk at 0x4000 ends with 0 pages")),
        ];
        let text = Timeline::around(&violation, &rings).text();
        assert_eq!(text.lines().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn many_of_a_kind_are_told_as_a_number() {
        let (violation, mut rings) = forged();
        rings[0].events.splice(2..2, (0..40).map(|n| event(121, 0, EventKind::Free, n, 0)));
        let text = Timeline::around(&violation, &rings).text();
        assert!(text.contains("| frame 0x0 freed\n") && text.contains("| ... and 39 more of the kind\n"), "{text}");
        assert_eq!(text.lines().count(), 11);
        assert!(text.lines().last().unwrap().starts_with("  48 "), "{text}");
    }

    #[test]
    fn events_that_were_overwritten_leave_the_end() {
        let (violation, rings) = forged();
        let late = |r: &CpuEvents| ring(r.events.iter().filter(|e| e.time > 150).copied().collect());
        let late: Vec<CpuEvents> = rings.iter().map(late).collect();
        assert_eq!(Timeline::around(&violation, &late).events.len(), 3);
    }

    #[test]
    fn a_violation_by_the_only_cpu_has_one_column() {
        let (mut violation, mut rings) = forged();
        violation.updater = 1;
        rings[1].events.insert(4, event(160, 1, EventKind::Violation, 0x77, 1));
        let text = Timeline::around(&violation, &rings).text();
        assert!(text.starts_with("   #    +instr  cpu 1\n") && !text.contains('|'), "{text}");
    }

    #[test]
    fn an_updater_that_was_not_noted_is_found_in_the_events() {
        let (mut violation, mut rings) = forged();
        violation.updater = Violation::NOBODY;
        assert_eq!(Timeline::around(&violation, &rings).updater, 0);
        rings[2].events.push(event(155, 2, EventKind::Free, 0x77, 0));
        assert_eq!(Timeline::around(&violation, &rings).updater, 2);
        violation.pfn = 0;
        assert_eq!(Timeline::around(&violation, &rings).updater, 0, "nothing is known of the frame");
    }

    #[test]
    fn each_kind_occurs_once_in_the_legend() {
        let (violation, rings) = forged();
        let kinds = Timeline::around(&violation, &rings).kinds();
        assert_eq!(kinds.len(), 8);
        assert_eq!(kinds[0], EventKind::WalkBegin);
        assert_eq!(Timeline::end_of(&rings).walker, Some(1));
    }
}
