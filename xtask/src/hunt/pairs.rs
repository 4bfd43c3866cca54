//! What a search has seen of walkers and updaters meeting: pairs of what a walker inside a walk had done last, and what
//! another CPU then did.

use std::collections::BTreeSet;

use kernel::record::event::{Event, EventKind};

use crate::shared_memory::CpuEvents;

/// Pairs (walker at, updater at), by the names of events. Counted over what the rings still held when each run ended.
#[derive(Default, PartialEq, Eq, Debug)]
pub(crate) struct Pairs(BTreeSet<(String, String)>);

impl Pairs {
    /// Adds those of one run.
    pub(crate) fn add(&mut self, rings: &[CpuEvents]) {
        let mut events: Vec<&Event> = rings.iter().flat_map(|ring| &ring.events).collect();
        events.sort_by_key(|e| e.time);
        let mut walkers: Vec<Option<EventKind>> = vec![None; rings.len()];
        for event in events {
            let Some(kind) = EventKind::from_number(event.kind) else { continue };
            match kind {
                EventKind::WalkBegin | EventKind::WalkHolds => set(&mut walkers, event.cpu, Some(kind)),
                EventKind::WalkEnd => set(&mut walkers, event.cpu, None),
                _ if updates(kind) => {
                    let others = walkers.iter().enumerate().filter(|(cpu, _)| *cpu != usize::from(event.cpu));
                    let pairs = others.filter_map(|(_, at)| Some((format!("{:?}", (*at)?), format!("{kind:?}"))));
                    self.0.extend(pairs);
                }
                _ => {}
            }
        }
    }

    /// Adds those of another.
    pub(crate) fn join(&mut self, other: Pairs) {
        self.0.extend(other.0);
    }

    /// In words, a line.
    pub(crate) fn text(&self) -> String {
        let all: Vec<String> = self.0.iter().map(|(walker, updater)| format!("{walker} and {updater}")).collect();
        format!("Walker at, updater at, {} pairs: {}.", all.len(), all.join(", "))
    }
}

fn set(walkers: &mut [Option<EventKind>], cpu: u16, at: Option<EventKind>) {
    if let Some(slot) = walkers.get_mut(usize::from(cpu)) {
        *slot = at;
    }
}

/// Whether it is a step of an operation, and not of a walk or of the workload.
fn updates(kind: EventKind) -> bool {
    use EventKind::{FlushBegin, FlushEnd, Free, Relink, Retire, Reuse, SyncBegin, SyncElided, SyncEnd, Unlink};
    matches!(kind, FlushBegin | FlushEnd | Free | Relink | Retire | Reuse | SyncBegin | SyncElided | SyncEnd | Unlink)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::forged::ring;

    fn event(time: u64, cpu: u16, kind: EventKind) -> Event {
        Event { time, kind: kind as u16, cpu, ..Event::default() }
    }

    #[test]
    fn only_walks_under_way_meet_an_updater() {
        use EventKind::{FlushBegin, FlushEnd, Unlink, WalkBegin, WalkEnd, WalkHolds};
        let updater =
            vec![event(5, 0, Unlink), event(15, 0, FlushBegin), event(25, 0, FlushBegin), event(40, 0, FlushEnd)];
        let walker = vec![event(10, 1, WalkBegin), event(20, 1, WalkHolds), event(30, 1, WalkEnd)];
        let mut pairs = Pairs::default();
        pairs.add(&[ring(updater), ring(walker)]);
        assert_eq!(pairs.text(), "Walker at, updater at, 2 pairs: WalkBegin and FlushBegin, WalkHolds and FlushBegin.");
    }

    #[test]
    fn a_cpu_does_not_meet_itself() {
        let mut pairs = Pairs::default();
        pairs.add(&[ring(vec![event(1, 0, EventKind::WalkBegin), event(2, 0, EventKind::Free)])]);
        assert_eq!(pairs, Pairs::default());
    }
}
