//! Entries that are read as two words, low, high, and low again: `kernel::mm::two_word`, one read per step.
//!
//! An entry that points at a table is, in memory, as it was ([`Content::Old`]), empty, or filled again: by a collapse
//! with a page of 2 MiB, whose low word is another, or by a fault with another table, whose low word is the same; the
//! high words of all four differ. A walk makes of what it reads: nothing, if the low word is that of an empty entry;
//! what was there, if both words are of one entry; else something that never was. Only the low word tells it, and
//! cannot tell one table from another: so who clears an entry waits for walks before it is filled again
//! ([`super::scenario::Removal::TwoWordSync`], or the strategy's own sync).
//!
//! The entry can be filled again by a fault when the mm's operation has let go of its lock, so by anybody; a collapse
//! fills it itself, or puts the table back that it took out, which a page in use makes it do.

use super::initiator::break_it;
use super::scenario::{MmNumber, Operation, Removal, Scenario};
use super::state::{Broken, Common, Stage, State, walk};
use super::step::{Step, present};

/// What memory has where an mm linked the table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Content {
    Empty,
    /// The table.
    Old,
    /// What the operation, or a fault, has put there.
    New,
}

/// What a low word says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Low {
    Absent,
    Table,
    Leaf,
}

/// The first low word has been read.
const LOW: [u8; 3] = [1, 2, 3];
/// Both have: the low one is of an empty entry, whatever the high one is; or of a table, and the high one of nothing,
/// of the table, of what is new; or both are of a page of 2 MiB.
const NOTHING: u8 = 4;
const TABLE_EMPTY: u8 = 5;
const TABLE_OLD: u8 = 6;
const TABLE_NEW: u8 = 7;
const LEAF: u8 = 8;

fn content(common: Common, mm: MmNumber) -> Content {
    match (common.links(mm), common.filled() >> (mm - 1) & 1 != 0) {
        (true, _) => Content::Old,
        (false, true) => Content::New,
        (false, false) => Content::Empty,
    }
}

fn low(scenario: &Scenario, content: Content) -> Low {
    match content {
        Content::Empty => Low::Absent,
        Content::New if scenario.operation.collapses() => Low::Leaf,
        Content::Old | Content::New => Low::Table,
    }
}

/// The low word that has been read, which both parts of a reading say.
fn first_low(reading: u8) -> Low {
    match reading {
        1 | NOTHING => Low::Absent,
        3 | LEAF => Low::Leaf,
        _ => Low::Table,
    }
}

/// Which of its three reads the walk makes next, in words.
pub(crate) fn next_read(reading: u8) -> &'static str {
    match reading {
        0 => "low word",
        1..=3 => "high word",
        _ => "low word again",
    }
}

/// What it has found in the word that it has read last, in words.
pub(crate) fn found(reading: u8) -> &'static str {
    match reading {
        1 | TABLE_EMPTY => "that of an empty entry",
        2 => "that of a table",
        3 | LEAF => "that of a page of 2 MiB",

        TABLE_OLD => "that of the table",
        TABLE_NEW => "that of what was put in its place",
        _ => "whatever",
    }
}

/// The walk of CPU `i` reads the next word.
pub(crate) fn read(scenario: &Scenario, state: &mut State, i: u8) {
    let common = state.common;
    let cpu = &mut state.cpus[i as usize];
    let mm = cpu.walk_mm();
    let content = content(common, mm);
    let now = low(scenario, content);
    let was = first_low(cpu.reading());
    match cpu.reading() {
        0 => cpu.set_reading(LOW[now as usize]),
        1..=3 => cpu.set_reading(match (was, content) {
            (Low::Absent, _) => NOTHING,
            (Low::Leaf, _) => LEAF,
            (Low::Table, Content::Empty) => TABLE_EMPTY,
            (Low::Table, Content::Old) => TABLE_OLD,
            (Low::Table, Content::New) => TABLE_NEW,
        }),
        _ if now != was && present(scenario, Removal::LowAgain) => cpu.set_reading(0),
        both => {
            cpu.set_reading(0);
            cpu.set_walk(walk::HOLDING);
            let new_is_table = low(scenario, Content::New) == Low::Table;
            match both {
                TABLE_OLD => {
                    let late = Broken::from_number(common.handed_over()).filter(|_| content != Content::Old);
                    late.into_iter().for_each(|broken| break_it(state, broken, i.into()));
                }
                TABLE_EMPTY => break_it(state, Broken::TornEntry, i.into()),
                TABLE_NEW if !new_is_table => break_it(state, Broken::TornEntry, i.into()),
                // It goes on with nothing in its hands that this is about.
                _ => cpu.set_walk_mm(0),
            }
        }
    }
}

/// Whether readers are to be waited for before the entry is filled again.
pub(crate) fn waits(scenario: &Scenario) -> bool {
    scenario.two_words() && present(scenario, Removal::TwoWordSync)
}

/// Interrupts every other CPU; the operation goes on when all have acknowledged.
pub(crate) fn wait_for_readers(scenario: &Scenario, state: &mut State) {
    state.common.write_back();
    for cpu in &mut state.cpus[1..scenario.cpus as usize] {
        cpu.set_sync_ipi(1);
    }
    state.common.set_stage(Stage::ReadersWait);
}

/// What can happen to the entry now.
pub(crate) fn possible(scenario: &Scenario, state: &State, steps: &mut Vec<Step>) {
    if !scenario.two_words() {
        return;
    }
    let common = state.common;
    let stage = common.stage();
    // A collapse behind other flushes stands for whatever syncs in a batch: the core collapses in none.
    if scenario.operation == Operation::Collapse && matches!(stage, Stage::Drained | Stage::Fresh) {
        steps.push(Step::PutBack);
    }
    for mm in 1..=scenario.operation.leavers() {
        let given_up = mm < common.leaver() || matches!(stage, Stage::Done | Stage::Retired);
        if given_up && common.former() >> (mm - 1) & 1 != 0 && content(common, mm) == Content::Empty {
            steps.push(Step::Fill(mm));
        }
    }
}

/// The entry of `mm` points at another table, or at a page of 2 MiB, from now on.
pub(crate) fn fill(state: &mut State, mm: MmNumber) {
    state.common.set_filled(state.common.filled() | 1 << (mm - 1));
}

/// The collapse fails: the table is put back as it was. Where the strategy meant to use another, nobody was waited for
/// until now.
pub(crate) fn put_back(scenario: &Scenario, state: &mut State) {
    if state.common.stage() == Stage::Fresh && waits(scenario) {
        return wait_for_readers(scenario, state);
    }
    state.common.write_back();
    state.common.set_linked(state.common.linked() | 1 << (state.common.leaver() - 1));
    state.common.set_stage(Stage::Done);
}
