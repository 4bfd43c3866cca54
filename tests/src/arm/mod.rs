//! Every execution of a small AArch64 program that the architecture's memory model allows.
//!
//! The model is the axiomatic one of the Arm Architecture Reference Manual (DDI 0487, B2.3), for ordinary memory and
//! without mixed sizes, as in Pulte et al. 2018 ("Simplifying ARM concurrency"), and with what was made stronger in
//! 2022: a read-modify-write that both acquires and releases is ordered before everything behind it. An execution is a
//! choice of what each load reads and in which order stores to one variable happen; it is allowed if each variable
//! alone behaves, if nothing comes between the halves of a read-modify-write, and if what is observed and what is
//! ordered make no circle.

mod candidate;
mod parse;
mod path;

use std::collections::{BTreeMap, BTreeSet};

pub use parse::{Half, Test, parse};

use candidate::{Candidate, choices};
use path::{Kind, Path, paths};

/// What an operand is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Value {
    /// A register, or the one that is always zero.
    Register(u8),
    /// WZR.
    Zero,
}

/// How a read-modify-write makes the new value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Change {
    /// SWP.
    Swap,
    /// LDADD.
    Add,
    /// LDSET.
    Set,
    /// LDCLR.
    Clear,
}

/// Which barrier.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Barrier {
    /// DMB ISH.
    Full,
    /// DMB ISHLD.
    Loads,
    /// DMB ISHST.
    Stores,
    /// DMB ISHLD and DMB ISHST: what an acquire-release fence of the language is.
    LoadsAndStores,
    /// One that was taken away.
    Nothing,
}

/// Which variable an instruction is about, and what it orders.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Access {
    /// Its name.
    pub at: String,
    /// A load keeps later accesses behind it.
    pub acquire: bool,
    /// A store keeps earlier accesses before it.
    pub release: bool,
}

/// One instruction. Variables are named, registers numbered.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Op {
    /// MOV.
    Move(u8, i64),
    /// LDR, or LDAR, of a variable into a register.
    Load(Access, u8),
    /// STR, or STLR.
    Store(Access, Value),
    /// SWP and its like: the operand, and the register that gets what was there.
    Modify(Access, Change, Value, u8),
    /// CAS: the register that is compared and gets what was there, and what is stored if both are the same.
    CompareAndSwap(Access, u8, Value),
    /// DMB.
    Barrier(Barrier),
    /// CBNZ: on to the instruction of this number.
    JumpUnlessZero(u8, usize),
}

/// What is left: registers as `0:X2`, and memory.
pub type Outcome = BTreeMap<String, i64>;

/// All outcomes of `program`, started with `memory`, which names every variable.
pub fn outcomes(memory: &BTreeMap<String, i64>, program: &[Vec<Op>]) -> BTreeSet<Outcome> {
    // What loads may find: grows until no store makes anything new.
    let mut domain: BTreeSet<i64> = memory.values().copied().collect();
    let paths = loop {
        let paths: Vec<Vec<Path>> = program.iter().map(|code| paths(code, &domain)).collect();
        let before = domain.len();
        let events = paths.iter().flatten().flat_map(|path| &path.events);
        domain.extend(events.filter(|e| e.kind == Kind::Write && e.value < 16).map(|e| e.value));
        if domain.len() == before {
            break paths;
        }
    };
    let lists: Vec<Vec<&Path>> = paths.iter().map(|paths| paths.iter().collect()).collect();
    let mut found = BTreeSet::new();
    choices(&lists, &mut Vec::new(), &mut |paths| {
        let candidate = Candidate::new(memory, paths);
        candidate.executions(&mut |last| {
            let mut outcome: Outcome = last.clone();
            for (i, path) in paths.iter().enumerate() {
                outcome.extend(path.registers.iter().map(|(r, (v, _))| (format!("{i}:X{r}"), *v)));
            }
            found.insert(outcome);
        });
    });
    found
}
