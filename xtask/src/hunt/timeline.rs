//! A counterexample as one numbered timeline: what the walker did, what the updater did, in the order in which it happened.

use kernel::ledger::Elision;
use kernel::record::cell::Violation;
use kernel::record::event::{Event, EventKind};

/// Width of one CPU's column.
const COLUMN: usize = 58;
/// Without a beginning that is known, so many events before the violation are shown.
const LAST: usize = 24;
/// More events of one kind in a row than this are told as a number.
const REPEATED: usize = 3;

/// The CPU that did it. Where the walker found it out itself that is the last other one that did something to the frame, else the one that operates.
fn updater(violation: &Violation, rings: &[Vec<Event>]) -> u16 {
    if violation.updater != Violation::NOBODY {
        return violation.updater;
    }
    let did = |e: &&Event| {
        let kinds = [EventKind::Unlink, EventKind::Reuse, EventKind::Retire, EventKind::Free];
        e.cpu != violation.walker && e.a == u64::from(violation.pfn) && kinds.into_iter().any(|kind| is(e, kind))
    };
    rings.iter().flatten().filter(did).max_by_key(|e| e.time).map_or(0, |e| e.cpu)
}

/// The events around a violation, or, without one, before the end.
pub(crate) struct Timeline {
    events: Vec<Event>,
    walker: u16,
    updater: u16,
}

impl Timeline {
    /// The events of the two CPUs of `violation`, from the beginning of the walk on to a little after the violation.
    pub(crate) fn around(violation: &Violation, rings: &[Vec<Event>]) -> Timeline {
        let (walker, updater) = (violation.walker, updater(violation, rings));
        let mut events: Vec<Event> =
            rings.iter().flatten().filter(|e| e.cpu == walker || e.cpu == updater).copied().collect();
        // Stable: of one CPU they stay in the order in which it wrote them.
        events.sort_by_key(|e| e.time);
        let is_it = |e: &Event| {
            is(e, EventKind::Violation) && e.a == u64::from(violation.pfn) && e.b == u64::from(violation.walker)
        };
        let Some(at) = events.iter().position(is_it) else {
            let from = events.len().saturating_sub(LAST);
            return Timeline { events: events.split_off(from), walker, updater };
        };
        let end = end(&events, at, walker);
        events.truncate(end);
        let begin = begin(&events[..at], violation).unwrap_or(at.saturating_sub(LAST));
        Timeline { events: events.split_off(begin), walker, updater }
    }

    /// The last events of all CPUs; the one that operates is taken for the updater.
    pub(crate) fn end_of(rings: &[Vec<Event>]) -> Timeline {
        let mut events: Vec<Event> = rings.iter().flatten().copied().collect();
        events.sort_by_key(|e| e.time);
        let walker = events.iter().rev().find(|e| e.cpu != 0).map_or(1, |e| e.cpu);
        events.retain(|e| e.cpu == 0 || e.cpu == walker);
        let from = events.len().saturating_sub(LAST);
        Timeline { events: events.split_off(from), walker, updater: 0 }
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
        let one_cpu = self.walker == self.updater;
        let heading = if one_cpu {
            format!("cpu {}", self.walker)
        } else {
            format!("{:COLUMN$}| updater: cpu {}", format!("walker: cpu {}", self.walker), self.updater)
        };
        let mut out = format!("{:>4} {:>9}  {heading}\n", "#", "+instr");
        let mut before = self.events.first().map_or(0, |e| e.time);
        let mut number = 0;
        let mut at = 0;
        while at < self.events.len() {
            let same = self.repeated(at);
            let shown = if same > REPEATED { 1 } else { same };
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

    /// How many events from `at` on are of the same kind and CPU.
    fn repeated(&self, at: usize) -> usize {
        let first = &self.events[at];
        self.events[at..].iter().take_while(|e| e.kind == first.kind && e.cpu == first.cpu).count()
    }

    fn line(&self, number: &str, delta: &str, cpu: u16, text: &str) -> String {
        let columns = if self.walker == self.updater {
            text.to_owned()
        } else if cpu == self.walker {
            format!("{text:COLUMN$}|")
        } else {
            format!("{:COLUMN$}| {text}", "")
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

/// One event in words, its details as what they are.
fn in_words(event: &Event) -> String {
    let Some(kind) = EventKind::from_number(event.kind) else { return format!("event of kind {}", event.kind) };
    let (a, b) = details(kind);
    let words = match kind {
        EventKind::SyncElided => "sync for table {a} elided: {b}",
        _ => kind.in_words(),
    };
    let mut text = words.replace("{a}", &a.show(event.a)).replace("{b}", &b.show(event.b));
    if matches!(kind, EventKind::WalkBegin | EventKind::Unlink | EventKind::Switch | EventKind::FlushBegin) {
        text += &format!(" (mm {})", event.mm);
    }
    text
}

/// What a detail of an event is.
#[derive(Clone, Copy)]
enum Detail {
    /// A frame or an address.
    Place,
    /// A count or a name's number.
    Number,
    /// Why a sync was left out.
    Reason,
}

impl Detail {
    fn show(self, value: u64) -> String {
        match self {
            Detail::Place => format!("{value:#x}"),
            Detail::Number => value.to_string(),
            Detail::Reason => reason(value).map_or_else(|| value.to_string(), String::from),
        }
    }
}

/// An [`Elision`] in words.
fn reason(number: u64) -> Option<&'static str> {
    let all = [
        (Elision::Never, "never sent"),
        (Elision::StaticHook, "by the hook"),
        (Elision::Covered, "covered by the flush"),
        (Elision::NoWalker, "nobody walks"),
        (Elision::FreshTable, "another table is taken"),
    ];
    all.into_iter().find(|(elision, _)| *elision as u64 == number).map(|(_, words)| words)
}

fn details(kind: EventKind) -> (Detail, Detail) {
    use Detail::{Number, Place, Reason};
    match kind {
        EventKind::WalkHolds | EventKind::Unlink => (Place, Place),
        EventKind::CellStart | EventKind::CellEnd | EventKind::Acknowledge | EventKind::Pause => (Number, Number),
        EventKind::SyncElided => (Place, Reason),
        _ => (Place, Number),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(time: u64, cpu: u16, kind: EventKind, a: u64, b: u64) -> Event {
        Event { time, kind: kind as u16, cpu, mm: 3, a, b }
    }

    fn forged() -> (Violation, Vec<Vec<Event>>) {
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
        (violation, vec![updater, walker, other])
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
        rings[0].splice(2..2, (0..40).map(|n| event(121, 0, EventKind::Free, n, 0)));
        let text = Timeline::around(&violation, &rings).text();
        assert!(text.contains("| frame 0x0 freed\n") && text.contains("| ... and 39 more of the kind\n"), "{text}");
        assert_eq!(text.lines().count(), 11);
        assert!(text.lines().last().unwrap().starts_with("  48 "), "{text}");
    }

    #[test]
    fn events_that_were_overwritten_leave_the_end() {
        let (violation, rings) = forged();
        let late: Vec<Vec<Event>> =
            rings.iter().map(|r| r.iter().filter(|e| e.time > 150).copied().collect()).collect();
        assert_eq!(Timeline::around(&violation, &late).events.len(), 3);
    }

    #[test]
    fn a_violation_by_the_only_cpu_has_one_column() {
        let (mut violation, mut rings) = forged();
        violation.updater = 1;
        rings[1].insert(4, event(160, 1, EventKind::Violation, 0x77, 1));
        let text = Timeline::around(&violation, &rings).text();
        assert!(text.starts_with("   #    +instr  cpu 1\n") && !text.contains('|'), "{text}");
    }

    #[test]
    fn an_updater_that_was_not_noted_is_found_in_the_events() {
        let (mut violation, mut rings) = forged();
        violation.updater = Violation::NOBODY;
        assert_eq!(Timeline::around(&violation, &rings).updater, 0);
        rings[2].push(event(155, 2, EventKind::Free, 0x77, 0));
        assert_eq!(Timeline::around(&violation, &rings).updater, 2);
        violation.pfn = 0;
        assert_eq!(Timeline::around(&violation, &rings).updater, 0, "nothing is known of the frame");
    }

    #[test]
    fn a_sync_that_was_left_out_says_why() {
        let elided = in_words(&event(1, 0, EventKind::SyncElided, 0x77, Elision::NoWalker as u64));
        assert_eq!(elided, "sync for table 0x77 elided: nobody walks");
        assert!(in_words(&event(1, 0, EventKind::SyncElided, 0x77, 99)).ends_with("elided: 99"));
    }

    #[test]
    fn each_kind_occurs_once_in_the_legend() {
        let (violation, rings) = forged();
        let kinds = Timeline::around(&violation, &rings).kinds();
        assert_eq!(kinds.len(), 8);
        assert_eq!(kinds[0], EventKind::WalkBegin);
        assert_eq!(Timeline::end_of(&rings).walker, 1);
    }
}
