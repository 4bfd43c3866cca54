//! The walk of strategy `self-map` against collapse, split, reuse and `MADV_DONTNEED`, in every order: one walker, one
//! updater, one address, whose PTE can be read through one recursive address. Written from the argument in
//! `kernel::mm::self_walk`, which is what it checks; the kernel's code is not run.
//!
//! The flush is a broadcast: it removes the translation and waits for nobody. The hardware may cache the recursive
//! translation at any moment. Where a 2 MiB leaf reads as a table, the first page of it holds what its owner wrote
//! there: the very entry that the old table had.

use std::collections::{HashMap, VecDeque};

/// What the machine and the kernel do.
#[derive(Clone, Copy)]
struct Rules {
    /// x86_64: a 2 MiB leaf is a valid page where a recursive walk ends on it.
    leaf_reads: bool,
    /// Guard `SelfMapFlush`.
    flush_table: bool,
    /// Guard `SelfMapLeaf`.
    flush_leaf: bool,
    /// Guard `SelfMapReuse`.
    see_reuse: bool,
    /// The second look at the PMD entry, after the generation and before the first read of the PTE.
    second_look: bool,
    /// A look at the PMD entry between the PTE and the reference, as in the order first written down. The kernel does
    /// without.
    look_between: bool,
}

const X86: Rules = Rules {
    leaf_reads: true,
    flush_table: true,
    flush_leaf: true,
    see_reuse: true,
    second_look: true,
    look_between: false,
};
/// None of the guards against leaves: none is needed.
const ARM: Rules = Rules {
    leaf_reads: false,
    flush_table: true,
    flush_leaf: false,
    see_reuse: false,
    second_look: false,
    look_between: false,
};

/// What a PMD entry says, and what a cached translation of the recursive address leads to. Tables are 0 and 1.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Points {
    Nowhere,
    Table(u8),
    Leaf,
}
use Points::{Leaf, Nowhere, Table};

/// A step of the updater.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Do {
    /// Clears the PMD entry.
    Clear,
    /// Flushes the recursive address because a table was unlinked.
    FlushTable,
    /// The same because a leaf was removed.
    FlushLeaf,
    /// Freezes the page and gives it to somebody else, or puts the table back and gives up; the table is then used
    /// again.
    FreezeAndReuse,
    /// Puts the 2 MiB leaf there.
    InstallLeaf,
    /// Links the table again that the collapse had kept, with an entry for the page that is there now.
    LinkAgain,
    /// A fault links another table, with a new page.
    LinkOther,
    /// The kept table becomes somebody else's, with an entry of theirs.
    GiveAway,
}

const COLLAPSE: &[Do] = &[Do::Clear, Do::FlushTable, Do::FreezeAndReuse, Do::InstallLeaf];
const SPLIT: &[Do] = &[Do::Clear, Do::FlushLeaf, Do::LinkAgain];
/// The leaf goes under the map lock for reading; a fault is quicker than the flush of the gather, which comes last.
const DONTNEED: &[Do] = &[Do::Clear, Do::FlushLeaf, Do::GiveAway, Do::LinkOther, Do::FlushTable];

/// `munmap` and a new mapping: the table goes, and another one comes.
const REMAP: &[Do] = &[Do::Clear, Do::FlushTable, Do::GiveAway, Do::LinkOther];

/// The page that is mapped at first; somebody else's from the start; and the first of those that come later, which are
/// all different: a page that a walk refers to is not given out anew.
const FIRST: u8 = 1;
const FOREIGN: u8 = 2;
const FRESH: u8 = 3;

#[derive(Clone, PartialEq, Eq, Hash)]
struct State {
    pmd: Points,
    cached: Points,
    /// The PTE of each table; 0 is absent.
    pte: [u8; 2],
    generation: [u8; 2],
    /// Pages that are somebody else's, as bits.
    others: u16,
    /// The next page that comes.
    fresh: u8,
    /// What the 2 MiB page holds where the entry would be: the entry of the page that was given away last.
    word: u8,
    /// The updater's next step.
    at: usize,
    walk: Walk,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
struct Walk {
    step: u8,
    table: u8,
    generation: u8,
    raw: u8,
    /// The page that it has a reference to.
    has: u8,
}

const OVER: u8 = 10;

impl State {
    fn new() -> State {
        State {
            pmd: Table(0),
            cached: Nowhere,
            pte: [FIRST, 0],
            generation: [0; 2],
            others: 1 << FOREIGN,
            fresh: FRESH,
            word: 0,
            at: 0,
            walk: Walk::default(),
        }
    }

    /// What translating the recursive address by the present tables gives.
    fn translated(&self, rules: Rules) -> Points {
        if self.pmd == Leaf && !rules.leaf_reads { Nowhere } else { self.pmd }
    }

    /// Reads the PTE through the recursive address; 0 where that faults.
    fn probe(&mut self, rules: Rules) -> u8 {
        if self.cached == Nowhere {
            self.cached = self.translated(rules);
        }
        match self.cached {
            Nowhere => 0,
            Table(table) => self.pte[table as usize],
            Leaf => self.word,
        }
    }

    fn over(&mut self) {
        self.walk = Walk { step: OVER, ..Walk::default() };
    }

    fn walk(&mut self, rules: Rules) -> String {
        let step = self.walk.step;
        self.walk.step += 1;
        match step {
            0 => match self.pmd {
                Table(table) => self.walk.table = table,
                _ => self.over(),
            },
            1 => self.walk.generation = self.generation[self.walk.table as usize],
            2 if rules.second_look && self.pmd != Table(self.walk.table) => self.over(),
            2 => {}
            3 => {
                self.walk.raw = self.probe(rules);
                if self.walk.raw == 0 {
                    self.over();
                }
            }
            4 if rules.look_between && self.pmd != Table(self.walk.table) => self.over(),
            4 => {}
            5 => self.walk.has = self.walk.raw,
            6 if self.probe(rules) != self.walk.raw => self.over(),
            7 if self.pmd != Table(self.walk.table) => self.over(),
            8 if rules.see_reuse && self.generation[self.walk.table as usize] != self.walk.generation => self.over(),
            _ => {}
        }
        let what = [
            "reads the PMD entry",
            "reads the table's generation",
            "reads the PMD entry again",
            "reads the PTE",
            "reads the PMD entry between",
            "takes a reference",
            "reads the PTE again",
            "reads the PMD entry a last time",
            "reads the generation again",
        ];
        let through = if matches!(step, 3 | 6) { format!(", through {:?}", self.cached) } else { String::new() };
        let end = if self.walk.step == OVER { ", and gives up" } else { "" };
        format!("walk: {}{through}{end}", what[step as usize])
    }

    fn update(&mut self, program: &[Do], rules: Rules) -> String {
        let what = program[self.at];
        self.at += 1;
        match what {
            Do::Clear => self.pmd = Nowhere,
            Do::FlushTable if rules.flush_table => self.cached = Nowhere,
            Do::FlushLeaf if rules.flush_leaf => self.cached = Nowhere,
            Do::FlushTable | Do::FlushLeaf => {}
            Do::FreezeAndReuse => {
                let page = self.pte[0];
                if self.walk.has == page {
                    // Not with anybody's reference: everything as it was, and no more operations.
                    self.pmd = Table(0);
                    self.at = program.len();
                } else {
                    self.others |= 1 << page;
                    self.word = page;
                    self.generation[0] += 1;
                    self.pte[0] = 0;
                }
            }
            Do::InstallLeaf => self.pmd = Leaf,
            Do::LinkAgain => {
                self.pte[0] = self.fresh;
                self.fresh += 1;
                self.pmd = Table(0);
            }
            Do::LinkOther => {
                self.pte[1] = self.fresh;
                self.fresh += 1;
                self.pmd = Table(1);
            }
            Do::GiveAway => {
                // After a grace period, which a walk that knows the table holds up.
                if self.walk.step > 0 && self.walk.step < OVER {
                    self.at = program.len();
                } else {
                    self.pte[0] = FOREIGN;
                    self.generation[0] += 1;
                }
            }
        }
        format!("updater: {what:?}")
    }
}

/// The shortest way to a page that is somebody else's, if there is one; and how many states there are.
fn explore(program: &[Do], rules: Rules) -> (Option<Vec<String>>, usize) {
    let start = State::new();
    let mut seen: HashMap<State, Option<(State, String)>> = HashMap::from([(start.clone(), None)]);
    let mut queue = VecDeque::from([start]);
    while let Some(state) = queue.pop_front() {
        if state.walk.step == 9 {
            if state.others & 1 << state.walk.has != 0 {
                let mut steps = vec![format!("walk: returns page {}, which is somebody else's", state.walk.has)];
                let mut at = &state;
                while let Some((before, step)) = &seen[at] {
                    steps.push(step.clone());
                    at = before;
                }
                steps.reverse();
                return (Some(steps), seen.len());
            }
            // Returned, given back, and another walk may begin.
            let next = State { walk: Walk::default(), ..state.clone() };
            visit(&mut seen, &mut queue, &state, next, "walk: returns; another begins".into());
            continue;
        }
        if state.walk.step == OVER {
            let next = State { walk: Walk::default(), ..state.clone() };
            visit(&mut seen, &mut queue, &state, next, "walk: another begins".into());
        } else {
            let mut next = state.clone();
            let step = next.walk(rules);
            visit(&mut seen, &mut queue, &state, next, step);
        }
        if state.at < program.len() {
            let mut next = state.clone();
            let step = next.update(program, rules);
            visit(&mut seen, &mut queue, &state, next, step);
        }
        if state.cached == Nowhere && state.translated(rules) != Nowhere {
            let next = State { cached: state.translated(rules), ..state.clone() };
            visit(&mut seen, &mut queue, &state, next, "hardware: caches the recursive translation".into());
        }
    }
    (None, seen.len())
}

fn visit(
    seen: &mut HashMap<State, Option<(State, String)>>,
    queue: &mut VecDeque<State>,
    from: &State,
    to: State,
    step: String,
) {
    if !seen.contains_key(&to) {
        seen.insert(to.clone(), Some((from.clone(), step)));
        queue.push_back(to);
    }
}

/// Every program of interest; two rounds of each, so that an entry can change and come back twice within one walk.
fn programs() -> Vec<Vec<Do>> {
    [
        vec![COLLAPSE],
        vec![REMAP],
        vec![COLLAPSE, SPLIT],
        vec![COLLAPSE, SPLIT, COLLAPSE, SPLIT],
        vec![COLLAPSE, DONTNEED],
        vec![COLLAPSE, SPLIT, COLLAPSE, DONTNEED],
    ]
    .into_iter()
    .map(|parts| parts.concat())
    .collect()
}

fn counterexample(rules: Rules) -> Option<Vec<String>> {
    programs().iter().find_map(|program| explore(program, rules).0)
}

#[track_caller]
fn is_safe(rules: Rules) {
    for program in programs() {
        let (found, states) = explore(&program, rules);
        assert_eq!(found, None, "{program:?}");
        assert!(states > 50, "{program:?} was not explored: {states} states");
    }
}

#[track_caller]
fn is_unsafe(rules: Rules, way: &[&str]) {
    let steps = counterexample(rules).expect("a counterexample");
    let text = steps.join("\n");
    println!("{text}\n");
    for part in way {
        assert!(text.contains(part), "no \"{part}\" in\n{text}");
    }
}

#[test]
fn with_everything_in_place_no_page_of_others_is_returned() {
    is_safe(X86);
}

/// A block is no page at the last level: nothing but the flush of tables, and the last two reads, is there.
#[test]
fn where_a_leaf_is_no_table_the_flush_of_tables_is_enough() {
    is_safe(ARM);
}

/// Without the generation it is the order as first written down. Between two reads of the PMD entry that agree a
/// collapse puts a leaf there, through which the PTE is read from user memory, and a split links the same table again.
#[test]
fn without_the_generation_a_collapse_and_a_split_deceive_the_walk() {
    let way = ["InstallLeaf", "through Leaf", "LinkAgain"];
    for (second_look, look_between) in [(false, true), (true, false), (true, true)] {
        is_unsafe(Rules { see_reuse: false, second_look, look_between, ..X86 }, &way);
    }
}

/// The generation alone is not enough either: it may be read when the leaf is there already.
#[test]
fn without_the_second_look_the_generation_says_nothing() {
    is_unsafe(Rules { second_look: false, ..X86 }, &["through Leaf", "LinkAgain"]);
}

/// A leaf that is removed without a flush of its recursive address is still read through when another table is linked.
#[test]
fn without_the_flush_of_leaves_a_new_table_is_read_from_the_old_page() {
    is_unsafe(Rules { flush_leaf: false, ..X86 }, &["Clear", "through Leaf"]);
}

/// A table that the flush did not cover is still read when it is somebody else's.
#[test]
fn without_the_flush_of_tables_somebody_elses_table_is_read() {
    for rules in [ARM, X86] {
        is_unsafe(Rules { flush_table: false, ..rules }, &["Clear", "through Table(0)"]);
    }
}
