//! What one thread may do, and what the architecture keeps in order of that.

use std::collections::{BTreeMap, BTreeSet};

use super::{Access, Barrier, Change, Op, Value};

/// Reads of a thread, by their number in it.
type Set = u64;

#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    Read,
    Write,
    Fence(Barrier),
}

/// One effect of a thread.
#[derive(Clone, Debug)]
pub(super) struct Event {
    pub(super) kind: Kind,
    pub(super) variable: String,
    pub(super) value: i64,
    /// A read that acquires, or a write that releases.
    pub(super) ordered: bool,
    /// The second half of a read-modify-write, whose first is the event before.
    pub(super) modifies: bool,
    /// Reads of this thread, by their number in it, that its value was made of.
    pub(super) data: Set,
    /// Reads that decided whether it happens.
    pub(super) control: Set,
}

/// One way through a thread, with what its loads are supposed to find.
#[derive(Clone, Default)]
pub(super) struct Path {
    pub(super) events: Vec<Event>,
    pub(super) registers: BTreeMap<u8, (i64, Set)>,
    at: usize,
    control: Set,
}

impl Path {
    fn get(&self, value: &Value) -> (i64, Set) {
        match value {
            Value::Zero => (0, 0),
            Value::Register(register) => self.registers.get(register).copied().unwrap_or((0, 0)),
        }
    }

    fn event(&self, kind: Kind, variable: &str, value: i64) -> Event {
        let variable = variable.to_owned();
        Event { kind, variable, value, ordered: false, modifies: false, data: 0, control: self.control }
    }

    fn read(&mut self, access: &Access, value: i64) -> Set {
        let event = Event { ordered: access.acquire, ..self.event(Kind::Read, &access.at, value) };
        self.events.push(event);
        1 << (self.events.len() - 1)
    }

    fn write(&mut self, access: &Access, (value, data): (i64, Set), modifies: bool) {
        let event = Event { ordered: access.release, modifies, data, ..self.event(Kind::Write, &access.at, value) };
        self.events.push(event);
    }

    /// All that may come of the next instruction, if loads find any of `domain`.
    fn step(mut self, op: &Op, domain: &BTreeSet<i64>) -> Vec<Path> {
        self.at += 1;
        let found = |path: Path, access: &Access, then: &dyn Fn(&mut Path, i64, Set)| -> Vec<Path> {
            domain
                .iter()
                .map(|value| {
                    let mut path = path.clone();
                    let read = path.read(access, *value);
                    then(&mut path, *value, read);
                    path
                })
                .collect()
        };
        match op {
            Op::Move(to, value) => {
                self.registers.insert(*to, (*value, 0));
            }
            Op::Load(access, to) => {
                return found(self, access, &|path, value, read| {
                    path.registers.insert(*to, (value, read));
                });
            }
            Op::Store(access, value) => {
                let value = self.get(value);
                self.write(access, value, false);
            }
            Op::Modify(access, change, value, old) => {
                let (by, data) = self.get(value);
                return found(self, access, &|path, was, read| {
                    let (new, of) = match change {
                        Change::Swap => (by, data),
                        Change::Add => (was + by, data | read),
                        Change::Set => (was | by, data | read),
                        Change::Clear => (was & !by, data | read),
                    };
                    path.write(access, (new, of), true);
                    path.registers.insert(*old, (was, read));
                });
            }
            Op::CompareAndSwap(access, compare, new) => {
                let (wanted, new) = (self.get(&Value::Register(*compare)).0, self.get(new));
                return found(self, access, &|path, was, read| {
                    if was == wanted {
                        path.write(access, new, true);
                    }
                    path.registers.insert(*compare, (was, read));
                });
            }
            Op::Barrier(barrier) => {
                let fence = self.event(Kind::Fence(*barrier), "", 0);
                self.events.push(fence);
            }
            Op::JumpUnlessZero(register, to) => {
                let (value, of) = self.get(&Value::Register(*register));
                self.control |= of;
                if value != 0 {
                    self.at = *to;
                }
            }
        }
        vec![self]
    }
}

/// All ways through `code`.
pub(super) fn paths(code: &[Op], domain: &BTreeSet<i64>) -> Vec<Path> {
    let (mut left, mut done) = (vec![Path::default()], Vec::new());
    while let Some(path) = left.pop() {
        match code.get(path.at) {
            Some(op) => left.extend(path.step(op, domain)),
            None => done.push(path),
        }
    }
    done
}

impl Path {
    /// Whether event `a` is ordered before event `b`, which comes later in the program.
    pub(super) fn keeps(&self, a: usize, b: usize) -> bool {
        let (first, second) = (&self.events[a], &self.events[b]);
        let read = |e: &Event| e.kind == Kind::Read;
        let write = |e: &Event| e.kind == Kind::Write;
        if matches!(first.kind, Kind::Fence(_)) || matches!(second.kind, Kind::Fence(_)) {
            return false;
        }
        let between = |barrier: Barrier| self.events[a..b].iter().any(|e| e.kind == Kind::Fence(barrier));
        let (loads, stores) = (between(Barrier::Loads), between(Barrier::Stores));
        let both = between(Barrier::LoadsAndStores);
        // Barriers.
        between(Barrier::Full)
            || read(first) && (loads || both)
            || write(first) && write(second) && (stores || both)
            // Acquire, release.
            || read(first) && first.ordered
            || write(second) && second.ordered
            || write(first) && first.ordered && read(second) && second.ordered
            // A read-modify-write that does both.
            || first.modifies && first.ordered && self.events[a - 1].ordered
            // Its halves.
            || second.modifies && a + 1 == b
            // Dependencies.
            || second.data >> a & 1 != 0
            || write(second) && second.control >> a & 1 != 0
    }
}
