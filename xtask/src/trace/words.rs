//! One event in words, its details as what they are.

use kernel::ledger::{Cause, Elision};
use kernel::record::event::{BY_NMI, Event, EventKind, UNNAMED};
use kernel::record::shared::Doing;
use kernel::scenario::Point;

/// One event in words.
pub(crate) fn in_words(event: &Event) -> String {
    let Some(kind) = EventKind::from_number(event.kind) else { return format!("event of kind {}", event.kind) };
    let (a, b) = details(kind);
    let words = match kind {
        EventKind::SyncElided => "sync for table {a} elided: {b}",
        EventKind::Interrupt => "interrupts {b} ({a})",
        EventKind::Acknowledge => "acknowledges {b} ({a})",
        EventKind::WaitBegin => "{a}",
        EventKind::WaitEnd => "no longer {a}",
        EventKind::HandlerBegin => "{a} begins",
        EventKind::HandlerEnd => "{a} ends",
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
    /// Why one CPU interrupts another.
    Cause,
    /// A CPU.
    Cpu,
    /// What a wait is for.
    Wait,
    /// A pause point.
    Point,
    /// Which interrupt.
    Handler,
}

impl Detail {
    fn show(self, value: u64) -> String {
        let known = match self {
            Detail::Place => Some(format!("{value:#x}")),
            Detail::Number => None,
            Detail::Reason => reason(value).map(String::from),
            Detail::Cause => cause(value).map(String::from),
            Detail::Cpu if value == UNNAMED => Some("somebody".into()),
            Detail::Cpu => Some(format!("cpu {value}")),
            Detail::Wait => wait(value).map(String::from),
            Detail::Point => u8::try_from(value).ok().and_then(Point::from_number).map(|p| p.name().into()),
            Detail::Handler => handler(value).map(String::from),
        };
        known.unwrap_or_else(|| value.to_string())
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
        (Elision::SelfMap, "the flush took the walkers' mapping"),
    ];
    all.into_iter().find(|(elision, _)| *elision as u64 == number).map(|(_, words)| words)
}

/// A [`Cause`] in words.
pub(crate) fn cause(number: u64) -> Option<&'static str> {
    let all = [
        (Cause::FlushPages as u64, "flush of pages"),
        (Cause::FlushTables as u64, "flush of tables"),
        (Cause::Sync as u64, "sync"),
        (Cause::Online as u64, "bring-up"),
        (Cause::Wake as u64, "a job"),
        (BY_NMI, "broadcast by NMI"),
    ];
    all.into_iter().find(|(cause, _)| *cause == number).map(|(_, words)| words)
}

/// A [`Doing`] that waits, in words.
pub(crate) fn wait(number: u64) -> Option<&'static str> {
    let doing = u32::try_from(number).ok().and_then(Doing::from_number)?;
    doing.in_words().strip_prefix("is ").or(Some(doing.in_words()))
}

/// Which handler.
pub(crate) fn handler(number: u64) -> Option<&'static str> {
    ["interrupt handler", "NMI handler"].get(usize::try_from(number).ok()?).copied()
}

fn details(kind: EventKind) -> (Detail, Detail) {
    use Detail::{Cause, Cpu, Handler, Number, Place, Point, Reason, Wait};
    match kind {
        EventKind::WalkHolds | EventKind::Unlink | EventKind::Link => (Place, Place),
        EventKind::CellStart | EventKind::CellEnd | EventKind::OperationBegin | EventKind::OperationEnd => {
            (Number, Number)
        }
        EventKind::Acknowledge | EventKind::Interrupt => (Cause, Cpu),
        EventKind::WaitBegin | EventKind::WaitEnd => (Wait, Number),
        EventKind::HandlerBegin | EventKind::HandlerEnd => (Handler, Number),
        EventKind::Pause => (Point, Number),
        EventKind::SyncElided => (Place, Reason),
        _ => (Place, Number),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(kind: EventKind, a: u64, b: u64) -> String {
        in_words(&Event { kind: kind as u16, mm: 3, a, b, ..Event::default() })
    }

    #[test]
    fn a_sync_that_was_left_out_says_why() {
        let elided = words(EventKind::SyncElided, 0x77, Elision::NoWalker as u64);
        assert_eq!(elided, "sync for table 0x77 elided: nobody walks");
        assert!(words(EventKind::SyncElided, 0x77, 99).ends_with("elided: 99"));
    }

    #[test]
    fn numbers_that_stand_for_names_are_named() {
        assert_eq!(words(EventKind::Interrupt, Cause::Sync as u64, 2), "interrupts cpu 2 (sync)");
        assert_eq!(words(EventKind::Acknowledge, BY_NMI, UNNAMED), "acknowledges somebody (broadcast by NMI)");
        assert_eq!(words(EventKind::WaitBegin, Doing::WaitGrace as u64, 0), "waits for a grace period");
        assert_eq!(words(EventKind::HandlerBegin, 1, 0), "NMI handler begins");
        assert_eq!(words(EventKind::Pause, Point::AfterPmdRead as u64, 0), "held at pause point after_pmd_read");
        assert_eq!(words(EventKind::OperationBegin, 12, 0), "operation 12 begins");
    }

    #[test]
    fn a_kind_that_is_not_known_is_told_by_its_number() {
        assert_eq!(in_words(&Event { kind: 999, ..Event::default() }), "event of kind 999");
    }
}
