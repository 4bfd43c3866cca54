//! Every execution of a small x86 program with store buffers (x86-TSO: Owens, Sarkar, Sewell 2009): each thread's
//! stores wait in a queue of its own, are read from there by itself, and reach memory one by one at any time.

use std::collections::{BTreeMap, BTreeSet, HashSet};

/// One instruction.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Op {
    /// A constant into a register.
    Set(String, i64),
    /// A constant into memory.
    Store(String, i64),
    /// A register into memory.
    StoreRegister(String, String),
    /// Memory into a register.
    Load(String, String),
    /// Memory and a register, exchanged; a full barrier.
    Exchange(String, String),
    /// MFENCE.
    Full,
    /// LFENCE or SFENCE, which order nothing that is not ordered already.
    Weak,
}

#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default)]
struct Thread {
    at: usize,
    registers: BTreeMap<String, i64>,
    buffer: Vec<(String, i64)>,
}

/// What is left when all threads have ended and all stores have reached memory: registers as `0:EAX`, and memory.
pub type Outcome = BTreeMap<String, i64>;

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct State {
    memory: BTreeMap<String, i64>,
    threads: Vec<Thread>,
}

impl State {
    fn read(&self, thread: usize, variable: &str) -> i64 {
        let own = self.threads[thread].buffer.iter().rev().find(|(v, _)| v == variable).map(|(_, value)| *value);
        own.or_else(|| self.memory.get(variable).copied()).unwrap_or(0)
    }

    /// The state after the next instruction of `thread`, if it can be executed now.
    fn step(&self, thread: usize, program: &[Vec<Op>]) -> Option<State> {
        let op = program[thread].get(self.threads[thread].at)?;
        let mut next = self.clone();
        let own = &mut next.threads[thread];
        own.at += 1;
        match op {
            Op::Set(register, value) => {
                own.registers.insert(register.clone(), *value);
            }
            Op::Store(variable, value) => own.buffer.push((variable.clone(), *value)),
            Op::StoreRegister(variable, register) => {
                let value = own.registers.get(register).copied().unwrap_or(0);
                own.buffer.push((variable.clone(), value));
            }
            Op::Load(register, variable) => {
                own.registers.insert(register.clone(), self.read(thread, variable));
            }
            Op::Exchange(..) | Op::Full if !own.buffer.is_empty() => return None,
            Op::Exchange(variable, register) => {
                let new = own.registers.get(register).copied().unwrap_or(0);
                let old = next.memory.insert(variable.clone(), new).unwrap_or(0);
                own.registers.insert(register.clone(), old);
            }
            Op::Full | Op::Weak => {}
        }
        Some(next)
    }

    /// The state after the oldest waiting store of `thread` has reached memory.
    fn drain(&self, thread: usize) -> Option<State> {
        if self.threads[thread].buffer.is_empty() {
            return None;
        }
        let mut next = self.clone();
        let (variable, value) = next.threads[thread].buffer.remove(0);
        next.memory.insert(variable, value);
        Some(next)
    }
}

/// All outcomes of `program`, one list of instructions per thread, started with `memory`.
pub fn outcomes(memory: &BTreeMap<String, i64>, program: &[Vec<Op>]) -> BTreeSet<Outcome> {
    let first = State { memory: memory.clone(), threads: vec![Thread::default(); program.len()] };
    let mut seen = HashSet::from([first.clone()]);
    let mut left = vec![first];
    let mut found = BTreeSet::new();
    while let Some(state) = left.pop() {
        let threads = 0..program.len();
        let next: Vec<State> = threads.flat_map(|t| [state.step(t, program), state.drain(t)]).flatten().collect();
        if next.is_empty() {
            let mut outcome = state.memory.clone();
            for (i, thread) in state.threads.iter().enumerate() {
                outcome.extend(thread.registers.iter().map(|(r, v)| (format!("{i}:{r}"), *v)));
            }
            found.insert(outcome);
        }
        left.extend(next.into_iter().filter(|s| seen.insert(s.clone())));
    }
    found
}
