//! Whether an execution of all threads is allowed.

use std::collections::BTreeMap;

use super::path::{Event, Kind, Path};

/// Numbers of events by event: a relation between at most 64 of them.
#[derive(Clone)]
struct Relation(Vec<u64>);

impl Relation {
    fn of(events: usize) -> Relation {
        Relation(vec![0; events])
    }

    fn add(&mut self, from: usize, to: usize) {
        self.0[from] |= 1 << to;
    }

    fn has_circle(mut self) -> bool {
        for middle in 0..self.0.len() {
            for from in 0..self.0.len() {
                if self.0[from] >> middle & 1 != 0 {
                    self.0[from] |= self.0[middle];
                }
            }
        }
        self.0.iter().enumerate().any(|(at, to)| to >> at & 1 != 0)
    }
}

/// One way through each thread, all events numbered: initial writes first.
pub(super) struct Candidate {
    events: Vec<Event>,
    /// Thread of each event, `usize::MAX` for initial writes.
    thread: Vec<usize>,
    /// What the architecture keeps in order within each thread.
    kept: Relation,
}

impl Candidate {
    pub(super) fn new(initial: &BTreeMap<String, i64>, paths: &[&Path]) -> Candidate {
        let mut events: Vec<Event> = initial
            .iter()
            .map(|(variable, value)| Event {
                kind: Kind::Write,
                variable: variable.clone(),
                value: *value,
                ordered: false,
                modifies: false,
                data: 0,
                control: 0,
            })
            .collect();
        let mut thread = vec![usize::MAX; events.len()];
        let firsts: Vec<usize> = paths
            .iter()
            .enumerate()
            .map(|(number, path)| {
                let first = events.len();
                events.extend(path.events.iter().cloned());
                thread.extend(std::iter::repeat_n(number, path.events.len()));
                first
            })
            .collect();
        assert!(events.len() <= 64, "a test has more events than there are numbers");
        let mut kept = Relation::of(events.len());
        for (path, first) in paths.iter().zip(firsts) {
            for (a, b) in (0..path.events.len()).flat_map(|b| (0..b).map(move |a| (a, b))) {
                if path.keeps(a, b) {
                    kept.add(first + a, first + b);
                }
            }
        }
        Candidate { events, thread, kept }
    }

    fn is(&self, at: usize, kind: Kind) -> bool {
        self.events[at].kind == kind
    }

    /// Whether the execution in which each read finds `source[read]`, and stores have the order `rank`, is allowed.
    fn allowed(&self, source: &BTreeMap<usize, usize>, rank: &[usize]) -> bool {
        let count = self.events.len();
        let (mut alone, mut ordered) = (Relation::of(count), self.kept.clone());
        let mut communicate = |from: usize, to: usize| {
            alone.add(from, to);
            if self.thread[from] != self.thread[to] {
                ordered.add(from, to);
            }
        };
        let same = |a: usize, b: usize| self.events[a].variable == self.events[b].variable;
        for (read, write) in source {
            communicate(*write, *read);
            for later in (0..count).filter(|w| self.is(*w, Kind::Write) && same(*w, *read)) {
                if rank[later] > rank[*write] {
                    communicate(*read, later);
                    // The read's own other half must come next.
                    let half = read + 1;
                    let modifies = self.events.get(half).is_some_and(|e| e.modifies);
                    if modifies && rank[later] < rank[half] {
                        return false;
                    }
                }
            }
            let half = read + 1;
            if self.events.get(half).is_some_and(|e| e.modifies) && rank[half] < rank[*write] {
                return false;
            }
        }
        for a in (0..count).filter(|w| self.is(*w, Kind::Write)) {
            for b in (0..count).filter(|w| self.is(*w, Kind::Write) && same(a, *w) && rank[a] < rank[*w]) {
                communicate(a, b);
            }
        }
        for (a, b) in (0..count).flat_map(|b| (0..b).map(move |a| (a, b))) {
            let accesses = !matches!(self.events[a].kind, Kind::Fence(_)) && same(a, b);
            if accesses && self.thread[a] == self.thread[b] && self.thread[a] != usize::MAX {
                alone.add(a, b);
            }
        }
        !alone.has_circle() && !ordered.has_circle()
    }
}

impl Candidate {
    /// Calls `each` with what memory contains after each allowed execution.
    pub(super) fn executions(&self, each: &mut dyn FnMut(&BTreeMap<String, i64>)) {
        let count = self.events.len();
        let writes: Vec<usize> = (0..count).filter(|w| self.is(*w, Kind::Write)).collect();
        let reads: Vec<usize> = (0..count).filter(|r| self.is(*r, Kind::Read)).collect();
        let sources: Vec<Vec<usize>> = reads
            .iter()
            .map(|r| {
                let (variable, value) = (&self.events[*r].variable, self.events[*r].value);
                let fits = |w: &usize| self.events[*w].variable == *variable && self.events[*w].value == value;
                writes.iter().copied().filter(fits).collect()
            })
            .collect();
        if sources.iter().any(Vec::is_empty) {
            return;
        }
        let mut by_variable: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        for write in writes.iter().filter(|w| self.thread[**w] != usize::MAX) {
            by_variable.entry(&self.events[*write].variable).or_default().push(*write);
        }
        let all: Vec<Vec<Vec<usize>>> = by_variable.values().map(|writes| orders(writes)).collect();
        let all: Vec<Vec<&Vec<usize>>> = all.iter().map(|orders| orders.iter().collect()).collect();
        let initial: BTreeMap<String, i64> = writes
            .iter()
            .filter(|w| self.thread[**w] == usize::MAX)
            .map(|w| (self.events[*w].variable.clone(), self.events[*w].value))
            .collect();
        choices(&all, &mut Vec::new(), &mut |orders| {
            // Initial writes have rank 0.
            let mut rank = vec![0; count];
            let mut last = initial.clone();
            for order in orders {
                order.iter().enumerate().for_each(|(at, write)| rank[*write] = at + 1);
                if let Some(write) = order.last() {
                    last.insert(self.events[*write].variable.clone(), self.events[*write].value);
                }
            }
            let mut any = false;
            choices(&sources, &mut Vec::new(), &mut |chosen| {
                any = any || self.allowed(&reads.iter().copied().zip(chosen.iter().copied()).collect(), &rank);
            });
            if any {
                each(&last);
            }
        });
    }
}
/// Calls `each` with every choice of one item from each list.
pub(super) fn choices<T: Copy>(lists: &[Vec<T>], chosen: &mut Vec<T>, each: &mut dyn FnMut(&[T])) {
    let Some(list) = lists.get(chosen.len()) else { return each(chosen) };
    for item in list {
        chosen.push(*item);
        choices(lists, chosen, each);
        chosen.pop();
    }
}

/// All orders of `items`.
fn orders(items: &[usize]) -> Vec<Vec<usize>> {
    let Some((first, rest)) = items.split_first() else { return vec![Vec::new()] };
    orders(rest)
        .into_iter()
        .flat_map(|order| {
            (0..=order.len()).map(move |at| {
                let mut order = order.clone();
                order.insert(at, *first);
                order
            })
        })
        .collect()
}
