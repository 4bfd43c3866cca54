//! The life of each table: linked, unlinked, flushed, drained, used again, retired, freed; from the events of all CPUs.

use std::collections::BTreeMap;

use kernel::record::event::{Event, EventKind};

use crate::shared_memory::CpuEvents;

/// A part of a table's life.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Phase {
    pub(crate) name: String,
    pub(crate) from: u64,
    pub(crate) to: u64,
}

/// One table's life: phases without a gap between a link and a free.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Life {
    pub(crate) phases: Vec<Phase>,
    /// When somebody still held it who must not.
    pub(crate) violations: Vec<u64>,
    /// The CPU and mm of an unlink that no flush has followed yet.
    unlinked_by: Option<(u16, u32)>,
}

impl Life {
    fn enter(&mut self, name: String, at: u64) {
        self.leave(at);
        self.phases.push(Phase { name, from: at, to: u64::MAX });
    }

    fn leave(&mut self, at: u64) {
        if let Some(last) = self.phases.last_mut().filter(|p| p.to == u64::MAX) {
            last.to = at;
        }
    }
}

/// The lives of all tables to which something happened, by frame.
pub(crate) fn lives(rings: &[CpuEvents]) -> BTreeMap<u64, Life> {
    let mut events: Vec<&Event> = rings.iter().flat_map(|ring| &ring.events).collect();
    events.sort_by_key(|e| e.time);
    let (Some(first), Some(last)) = (events.first(), events.last()) else { return BTreeMap::new() };
    let mut lives: BTreeMap<u64, Life> = BTreeMap::new();
    for event in &events {
        step(&mut lives, event, first.time);
    }
    for life in lives.values_mut() {
        life.leave(last.time);
    }
    // A page's frame may be in a violation, or a root be retired, without having been a table that was linked.
    lives.retain(|_, life| !life.phases.is_empty());
    lives
}

fn step(lives: &mut BTreeMap<u64, Life>, event: &Event, begin: u64) {
    use EventKind as K;
    let (frame, at, mm) = (event.a, event.time, event.mm);
    let Some(kind) = EventKind::from_number(event.kind) else { return };
    let name = match kind {
        K::Link => format!("linked at {:#x} (mm {mm})", event.b),
        K::Unlink => format!("unlinked by cpu {} (mm {mm})", event.cpu),
        K::Relink => format!("put back (mm {mm})"),
        K::StillLinked => format!("linked by {} others", event.b),
        K::Drained => "drained".to_owned(),
        K::Reuse => "reused".to_owned(),
        K::Retire => "retired, waits for a grace period".to_owned(),
        K::FlushEnd => {
            let flushed = |life: &&mut Life| life.unlinked_by == Some((event.cpu, mm));
            for life in lives.values_mut().filter(flushed) {
                life.enter(format!("flushed, {} interrupted", event.b), at);
                life.unlinked_by = None;
            }
            return;
        }
        K::Free => {
            if let Some(life) = lives.get_mut(&frame) {
                life.leave(at);
                life.unlinked_by = None;
            }
            return;
        }
        K::Violation => {
            lives.entry(frame).or_default().violations.push(at);
            return;
        }
        _ => return,
    };
    let life = lives.entry(frame).or_default();
    if life.phases.is_empty() && kind == K::Unlink && at > begin {
        life.enter("linked".to_owned(), begin);
    }
    life.unlinked_by = (kind == K::Unlink).then_some((event.cpu, mm));
    life.enter(name, at);
}

#[cfg(test)]
mod tests {
    use super::super::forged::{event, ring, story};
    use super::*;

    fn phases(life: &Life) -> Vec<(&str, u64, u64)> {
        life.phases.iter().map(|p| (p.name.as_str(), p.from, p.to)).collect()
    }

    #[test]
    fn a_life_from_link_to_reuse() {
        let lives = lives(&story());
        assert_eq!(lives.keys().copied().collect::<Vec<_>>(), [0x77]);
        assert_eq!(
            phases(&lives[&0x77]),
            [
                ("linked at 0x4000 (mm 3)", 15, 120),
                ("unlinked by cpu 0 (mm 3)", 120, 300),
                ("flushed, 1 interrupted", 300, 310),
                ("drained", 310, 325),
                ("reused", 325, 400),
            ]
        );
        assert_eq!(lives[&0x77].violations, [320]);
    }

    #[test]
    fn a_table_that_was_linked_before_the_ring_is_linked_from_its_beginning() {
        use EventKind::{Free, Retire, Switch, Unlink};
        let events = vec![
            event(10, 0, Switch, 0, 0),
            event(50, 0, Unlink, 0x9, 0x4000),
            event(60, 0, Retire, 0x9, 0),
            event(90, 0, Free, 0x9, 0),
            event(95, 0, Switch, 0, 0),
        ];
        let lives = lives(&[ring(events)]);
        let names: Vec<_> = phases(&lives[&0x9]);
        assert_eq!(names[0], ("linked", 10, 50));
        // It was never flushed: its guard was taken away.
        assert_eq!(names[1].0, "unlinked by cpu 0 (mm 3)");
        assert_eq!(names[2], ("retired, waits for a grace period", 60, 90));
        assert_eq!(names.len(), 3);
    }

    #[test]
    fn only_the_flush_of_who_unlinked_it_counts() {
        use EventKind::{FlushEnd, Unlink};
        let mine = vec![event(10, 0, Unlink, 0x9, 0x4000), event(40, 0, FlushEnd, 0x4000, 0)];
        let other = vec![event(20, 1, FlushEnd, 0x4000, 3)];
        let lives = lives(&[ring(mine), ring(other)]);
        assert_eq!(phases(&lives[&0x9])[1], ("flushed, 0 interrupted", 40, 40));
    }
}
