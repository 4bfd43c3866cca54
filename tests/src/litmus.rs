//! Reads the x86 tests of `tests/litmus`: enough of herd7's format for what is used there.

use std::collections::BTreeMap;

use crate::store_buffer::{Op, Outcome};

/// A test.
#[derive(Debug)]
pub struct Litmus {
    /// What memory contains at the start, where that is not 0.
    pub memory: BTreeMap<String, i64>,
    /// Instructions by thread.
    pub program: Vec<Vec<Op>>,
    /// What is asked: whether an outcome has all of these.
    pub exists: Vec<(String, i64)>,
}

impl Litmus {
    /// Reads an x86 test.
    pub fn parse(text: &str) -> Result<Litmus, String> {
        let (head, rest) = text.split_once('{').ok_or("no initial state")?;
        let (initial, rest) = rest.split_once('}').ok_or("no end of the initial state")?;
        if !head.starts_with("X86 ") {
            return Err(format!("not an x86 test: {head}"));
        }
        let memory = initial.split(';').filter(|s| !s.trim().is_empty()).map(equation).collect::<Result<_, _>>()?;
        let (code, last) = rest.split_once("exists").ok_or("no last line")?;
        let mut program = Vec::new();
        for (number, line) in code.lines().filter(|l| !l.trim().is_empty()).enumerate() {
            let line = line.trim().strip_suffix(';').ok_or("a line of code without its end")?;
            for (thread, cell) in line.split('|').map(str::trim).enumerate() {
                match number {
                    0 if cell == format!("P{thread}") => program.push(Vec::new()),
                    0 => return Err(format!("{cell} is not P{thread}")),
                    _ if cell.is_empty() => {}
                    _ => program.get_mut(thread).ok_or("too many columns")?.push(op(cell)?),
                }
            }
        }
        let exists = last.trim().trim_start_matches('(').trim_end_matches(')');
        let exists = exists.split("/\\").map(equation).collect::<Result<_, _>>()?;
        Ok(Litmus { memory, program, exists })
    }

    /// Whether `outcome` is what is asked for.
    pub fn matches(&self, outcome: &Outcome) -> bool {
        self.exists.iter().all(|(name, value)| outcome.get(name).copied().unwrap_or(0) == *value)
    }
}

fn equation(text: &str) -> Result<(String, i64), String> {
    let (name, value) = text.split_once('=').ok_or(format!("{text} is no equation"))?;
    Ok((name.trim().to_string(), value.trim().parse().map_err(|_| format!("{text}: not a number"))?))
}

fn op(text: &str) -> Result<Op, String> {
    let (name, operands) = text.split_once(' ').unwrap_or((text, ""));
    let memory = |s: &str| s.strip_prefix('[').and_then(|s| s.strip_suffix(']')).map(str::to_string);
    let constant = |s: &str| s.strip_prefix('$').and_then(|s| s.parse::<i64>().ok());
    let (to, from) = operands.split_once(',').unwrap_or((operands, ""));
    match (name, memory(to), memory(from), constant(from)) {
        ("MOV", Some(variable), _, Some(value)) => Ok(Op::Store(variable, value)),
        ("MOV", Some(variable), None, None) => Ok(Op::StoreRegister(variable, from.to_string())),
        ("MOV", None, Some(variable), _) => Ok(Op::Load(to.to_string(), variable)),
        ("MOV", None, None, Some(value)) => Ok(Op::Set(to.to_string(), value)),
        ("XCHG", Some(variable), None, None) => Ok(Op::Exchange(variable, from.to_string())),
        ("MFENCE", ..) => Ok(Op::Full),
        ("LFENCE" | "SFENCE", ..) => Ok(Op::Weak),
        _ => Err(format!("{text} is no instruction that is known here")),
    }
}
