//! Reads the AArch64 tests of `tests/litmus`, whose format [`crate::litmus_format`] has checked, and takes halves of
//! orderings away from their instructions.

use std::collections::BTreeMap;

use super::{Access, Barrier, Change, Op, Outcome, Value, outcomes};

/// One half of an ordering.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Half {
    /// Later accesses stay behind.
    Acquire,
    /// Earlier accesses stay before.
    Release,
    /// A store stays before a later load.
    Full,
}

/// A test.
#[derive(Clone, Debug)]
pub struct Test {
    memory: BTreeMap<String, i64>,
    program: Vec<Vec<Op>>,
    asked: Vec<(String, i64)>,
}

/// Reads a test.
///
/// # Errors
/// What is not as it should be.
pub fn parse(text: &str) -> Result<Test, String> {
    let (head, rest) = text.split_once('{').ok_or("no initial state")?;
    let (initial, rest) = rest.split_once('}').ok_or("no end of the initial state")?;
    let (code, last) = rest.split_once("exists").ok_or("no last line")?;
    if !head.starts_with("AArch64 ") {
        return Err(format!("not an AArch64 test: {head}"));
    }
    let (mut memory, mut addresses) = (BTreeMap::new(), BTreeMap::new());
    for part in initial.split(';').map(str::trim).filter(|part| !part.is_empty()) {
        match part.split_once('=').ok_or(format!("{part} is no equation"))? {
            (register, variable) if register.contains(":X") => {
                memory.entry(variable.to_string()).or_insert(0);
                addresses.insert(register.to_string(), variable.to_string());
            }
            (variable, value) => {
                memory.insert(variable.to_string(), number(value)?);
            }
        }
    }
    let mut cells: Vec<Vec<&str>> = Vec::new();
    for line in code.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let line = line.strip_suffix(';').ok_or("a line of code without its end")?;
        for (thread, cell) in line.split('|').map(str::trim).enumerate().filter(|(_, cell)| !cell.is_empty()) {
            match cell == format!("P{thread}") {
                true => cells.push(Vec::new()),
                false => cells.get_mut(thread).ok_or("too many columns")?.push(cell),
            }
        }
    }
    let threads = cells.iter().enumerate();
    let program = threads.map(|(thread, cells)| instructions(thread, cells, &addresses)).collect::<Result<_, _>>()?;
    let asked = last.trim().trim_start_matches('(').trim_end_matches(')').split("/\\");
    let asked = asked.map(|part| {
        let (name, value) = part.trim().split_once('=').ok_or(format!("{part} is no equation"))?;
        Ok((name.replace(":W", ":X"), number(value)?))
    });
    Ok(Test { memory, program, asked: asked.collect::<Result<_, String>>()? })
}

fn number(text: &str) -> Result<i64, String> {
    text.trim().parse().map_err(|_| format!("{text} is not a number"))
}

/// The instructions of a thread; labels are gone.
fn instructions(thread: usize, cells: &[&str], addresses: &BTreeMap<String, String>) -> Result<Vec<Op>, String> {
    let mut labels = BTreeMap::new();
    let mut code = Vec::new();
    for cell in cells {
        match cell.strip_suffix(':') {
            Some(label) => {
                labels.insert(label, code.len());
            }
            None => code.push(*cell),
        }
    }
    let at = |operand: &str| {
        let register = operand.trim_start_matches('[').trim_end_matches(']');
        addresses.get(&format!("{thread}:{register}")).cloned().ok_or(format!("{register} has no address"))
    };
    code.into_iter().map(|cell| instruction(cell, &at, &labels)).collect()
}

fn instruction(
    cell: &str,
    at: &dyn Fn(&str) -> Result<String, String>,
    labels: &BTreeMap<&str, usize>,
) -> Result<Op, String> {
    let unknown = || format!("{cell} is no instruction that is known here");
    let (name, operands) = cell.split_once(' ').ok_or_else(unknown)?;
    let operands: Vec<&str> = operands.split(',').collect();
    let register = |text: &str| text[1..].parse::<u8>().map_err(|_| unknown());
    let value = |text: &str| match text {
        "WZR" => Ok(Value::Zero),
        text => register(text).map(Value::Register),
    };
    let modifies = [("SWP", Change::Swap), ("LDADD", Change::Add), ("LDSET", Change::Set), ("LDCLR", Change::Clear)];
    let order = |kind: &str| (kind.starts_with('A'), kind.ends_with('L'));
    let access = |operand: &str, (acquire, release)| Ok::<_, String>(Access { at: at(operand)?, acquire, release });
    Ok(match (name, &operands[..]) {
        ("MOV", [to, from]) => Op::Move(register(to)?, number(from.trim_start_matches('#'))?),
        ("LDR" | "LDAR", [to, from]) => Op::Load(access(from, (name == "LDAR", false))?, register(to)?),
        ("STR" | "STLR", [from, to]) => Op::Store(access(to, (false, name == "STLR"))?, value(from)?),
        ("DMB", ["ISH"]) => Op::Barrier(Barrier::Full),
        ("DMB", ["ISHLD"]) => Op::Barrier(Barrier::Loads),
        ("DMB", ["ISHST"]) => Op::Barrier(Barrier::Stores),
        ("CBNZ", [from, label]) => Op::JumpUnlessZero(register(from)?, *labels.get(label).ok_or_else(unknown)?),
        (_, [first, second, third]) => {
            if let Some(kind) = name.strip_prefix("CAS") {
                return Ok(Op::CompareAndSwap(access(third, order(kind))?, register(first)?, value(second)?));
            }
            let (stem, change) = *modifies.iter().find(|(stem, _)| name.starts_with(stem)).ok_or_else(unknown)?;
            Op::Modify(access(third, order(&name[stem.len()..]))?, change, value(first)?, register(second)?)
        }
        _ => return Err(unknown()),
    })
}

impl Op {
    /// The same without one half of its ordering, if it has that.
    fn without(&self, half: Half) -> Option<Op> {
        let mut op = self.clone();
        let left = match (&mut op, half) {
            (Op::Barrier(barrier @ Barrier::Full), Half::Full) => {
                *barrier = Barrier::LoadsAndStores;
                true
            }
            // What a read barrier keeps in order it keeps as a fence that acquires.
            (Op::Barrier(barrier @ Barrier::Loads), Half::Acquire) => {
                *barrier = Barrier::Nothing;
                true
            }
            (Op::Load(access, ..) | Op::Modify(access, ..) | Op::CompareAndSwap(access, ..), Half::Acquire) => {
                std::mem::take(&mut access.acquire)
            }
            (Op::Store(access, ..) | Op::Modify(access, ..) | Op::CompareAndSwap(access, ..), Half::Release) => {
                std::mem::take(&mut access.release)
            }
            _ => false,
        };
        left.then_some(op)
    }
}

impl Test {
    /// Whether some execution is what is asked for.
    pub fn happens(&self) -> bool {
        let asks = |outcome: &Outcome| self.asked.iter().all(|(name, value)| outcome.get(name) == Some(value));
        outcomes(&self.memory, &self.program).iter().any(asks)
    }

    /// The same of the tests in which one instruction has lost this half of its ordering.
    pub fn happens_without(&self, half: Half) -> bool {
        let mut weaker = Vec::new();
        for (thread, at) in (0..self.program.len()).flat_map(|t| (0..self.program[t].len()).map(move |at| (t, at))) {
            if let Some(op) = self.program[thread][at].without(half) {
                let mut test = self.clone();
                test.program[thread][at] = op;
                weaker.push(test);
            }
        }
        weaker.iter().any(Test::happens)
    }
}
