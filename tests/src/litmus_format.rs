//! The format of litmus tests as herd7 reads it, strictly: what a file must have before a verdict of it means anything.
//!
//! A test whose last line names a register that nobody writes, or whose code jumps to a label that is not there, still
//! has a verdict, of something else. So every name that is used must be made first: registers by the initial state or
//! by an instruction before, labels below their jump, threads by their column.

use std::collections::BTreeSet;

/// The languages that are used here.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Language {
    X86,
    AArch64,
}

/// What one instruction does with names.
#[derive(Default)]
struct Effect {
    reads: Vec<String>,
    writes: Vec<String>,
    /// Registers that must contain an address.
    addresses: Vec<String>,
    jump: Option<String>,
}

/// Checks a test that is to be called `name`; the error says what is wrong.
pub fn check(name: &str, text: &str) -> Result<(), String> {
    let mut lines = text.lines();
    let language = match lines.next().and_then(|line| line.split_once(' ')) {
        Some(("X86", called)) if called == name => Language::X86,
        Some(("AArch64", called)) if called == name => Language::AArch64,
        other => return Err(format!("the first line is {other:?}, not a language and {name}")),
    };
    let said = lines.next().unwrap_or_default();
    if !(said.len() > 2 && said.starts_with('"') && said.ends_with('"') && said.matches('"').count() == 2) {
        return Err(format!("the second line is not one text in quotes: {said}"));
    }
    if lines.next() != Some("{") {
        return Err("the third line does not open the initial state".into());
    }
    let mut initial = Vec::new();
    let mut closed = false;
    for line in lines.by_ref() {
        if line == "}" {
            closed = true;
            break;
        }
        if line.trim().is_empty() {
            continue;
        }
        let line = line.trim().strip_suffix(';').ok_or(format!("no semicolon at the end of {line}"))?;
        initial.extend(line.split(';').map(str::trim));
    }
    let rest: Vec<&str> = lines.filter(|line| !line.trim().is_empty()).collect();
    let (last, code) = rest.split_last().filter(|_| closed).ok_or("the initial state is not closed")?;
    let columns = columns(code)?;
    let mut threads: Vec<BTreeSet<String>> = vec![BTreeSet::new(); columns.len()];
    let mut addresses = threads.clone();
    let mut variables = BTreeSet::new();
    for entry in initial {
        let (left, right) = entry.split_once('=').ok_or(format!("{entry} is no equation"))?;
        match left.split_once(':') {
            Some((thread, register)) if language == Language::AArch64 && register.starts_with('X') => {
                let thread: usize = thread.parse().map_err(|_| format!("{thread} is no thread"))?;
                let known = addresses.get_mut(thread).ok_or(format!("there is no thread {thread}"))?;
                if !is_variable(right) || !known.insert(register.to_owned()) {
                    return Err(format!("{entry} gives no variable, or not the first one"));
                }
                variables.insert(right.to_owned());
            }
            None if is_variable(left) && right.parse::<i64>().is_ok() => {
                variables.insert(left.to_owned());
            }
            _ => return Err(format!("{entry} is no initial value")),
        }
    }
    for (thread, cells) in columns.iter().enumerate() {
        for (at, cell) in cells.iter().enumerate().filter(|(_, cell)| !cell.is_empty() && !cell.ends_with(':')) {
            let effect = match language {
                Language::X86 => x86(cell, &mut variables),
                Language::AArch64 => aarch64(cell),
            };
            let effect = effect.ok_or(format!("P{thread}: {cell} is no instruction that is used here"))?;
            if let Some(register) = effect.reads.iter().find(|r| !threads[thread].contains(*r)) {
                return Err(format!("P{thread}: {cell} reads {register}, which nothing before it writes"));
            }
            if let Some(register) = effect.addresses.iter().find(|r| !addresses[thread].contains(*r)) {
                return Err(format!("P{thread}: {cell} uses {register}, which has no address"));
            }
            if effect.jump.is_some_and(|label| !cells[at..].iter().any(|c| *c == format!("{label}:"))) {
                return Err(format!("P{thread}: {cell} jumps to where nothing is"));
            }
            threads[thread].extend(effect.writes);
        }
    }
    let inner =
        last.strip_prefix("exists (").and_then(|l| l.strip_suffix(')')).ok_or(format!("{last} asks nothing"))?;
    for part in inner.split("/\\").map(str::trim) {
        let (left, right) = part.split_once('=').ok_or(format!("{part} is no equation"))?;
        right.parse::<i64>().map_err(|_| format!("{part} compares with no number"))?;
        let known = match left.split_once(':') {
            Some((thread, register)) => {
                let thread: usize = thread.parse().map_err(|_| format!("{thread} is no thread"))?;
                threads.get(thread).is_some_and(|written| written.contains(&number(register)))
            }
            None => variables.contains(left),
        };
        if !known {
            return Err(format!("{left} is asked for and never written"));
        }
    }
    Ok(())
}

/// The cells of each thread. Bars and semicolons stand below each other, which herd7 does not ask for and a reader
/// does.
fn columns<'t>(code: &[&'t str]) -> Result<Vec<Vec<&'t str>>, String> {
    let marks = |line: &str| -> Vec<usize> { line.match_indices(['|', ';']).map(|(at, _)| at).collect() };
    let (head, body) = code.split_first().ok_or("there is no code")?;
    let threads: Vec<&str> = cells(head)?;
    if threads.iter().enumerate().any(|(i, name)| *name != format!("P{i}")) || threads.len() < 2 {
        return Err(format!("{head} does not name threads"));
    }
    let mut out = vec![Vec::new(); threads.len()];
    for line in body {
        if marks(line) != marks(head) {
            return Err(format!("columns of {line} are not those of {head}"));
        }
        for (column, cell) in out.iter_mut().zip(cells(line)?) {
            column.push(cell);
        }
    }
    Ok(out)
}

fn cells(line: &str) -> Result<Vec<&str>, String> {
    let line = line.trim_end().strip_suffix(';').ok_or(format!("no semicolon at the end of {line}"))?;
    Ok(line.split('|').map(str::trim).collect())
}

fn is_variable(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_lowercase())
}

/// One name for both widths of an AArch64 register.
fn number(register: &str) -> String {
    match register.strip_prefix(['W', 'X']) {
        Some(n) if n.parse::<u8>().is_ok_and(|n| n < 31) => format!("X{n}"),
        _ => register.to_owned(),
    }
}

fn in_brackets(operand: &str) -> Option<&str> {
    operand.strip_prefix('[')?.strip_suffix(']')
}

fn x86(text: &str, variables: &mut BTreeSet<String>) -> Option<Effect> {
    let register = |name: &str| ["EAX", "EBX", "ECX", "EDX"].contains(&name).then(|| name.to_owned());
    let constant = |text: &str| text.strip_prefix('$').is_some_and(|n| n.parse::<i64>().is_ok());
    let mut variable = |operand: &str| {
        let name = in_brackets(operand).filter(|name| is_variable(name))?;
        variables.insert(name.to_owned());
        Some(())
    };
    if ["MFENCE", "LFENCE", "SFENCE"].contains(&text) {
        return Some(Effect::default());
    }
    let (name, operands) = text.split_once(' ')?;
    let (to, from) = operands.split_once(',')?;
    let mut effect = Effect::default();
    match (name, register(to), register(from)) {
        ("MOV", None, None) if constant(from) => variable(to)?,
        ("MOV", None, Some(from)) => {
            variable(to)?;
            effect.reads.push(from);
        }
        ("MOV", Some(to), None) => {
            if !constant(from) {
                variable(from)?;
            }
            effect.writes.push(to);
        }
        ("XCHG", None, Some(from)) => {
            variable(to)?;
            effect.reads.push(from.clone());
            effect.writes.push(from);
        }
        _ => return None,
    }
    Some(effect)
}

fn aarch64(text: &str) -> Option<Effect> {
    let (name, operands) = text.split_once(' ')?;
    let operands: Vec<&str> = operands.split(',').collect();
    let word = |text: &str| (text.starts_with('W') && number(text) != text).then(|| number(text));
    // The register that is always zero may be read, not written.
    let value = |text: &str| if text == "WZR" { Some(None) } else { word(text).map(Some) };
    let address = |text: &str| in_brackets(text).filter(|r| r.starts_with('X')).map(number);
    let mut effect = Effect::default();
    let order = |stem: &str| name.strip_prefix(stem).is_some_and(|o| ["", "A", "L", "AL"].contains(&o));
    match operands[..] {
        [kind] if name == "DMB" && ["ISH", "ISHLD", "ISHST"].contains(&kind) => {}
        [to, from] if name == "MOV" && from.strip_prefix('#').is_some_and(|n| n.parse::<u32>().is_ok()) => {
            effect.writes.push(word(to)?);
        }
        [register, label] if name == "CBNZ" => {
            effect.reads.push(word(register)?);
            effect.jump = Some(label.to_owned());
        }
        [to, from] if ["LDR", "LDAR"].contains(&name) => {
            effect.addresses.push(address(from)?);
            effect.writes.push(word(to)?);
        }
        [from, to] if ["STR", "STLR"].contains(&name) => {
            effect.addresses.push(address(to)?);
            effect.reads.extend(value(from)?);
        }
        [from, to, at] if ["SWP", "LDADD", "LDSET", "LDCLR"].into_iter().any(order) => {
            effect.addresses.push(address(at)?);
            effect.reads.extend(value(from)?);
            effect.writes.push(word(to)?);
        }
        [compare, new, at] if order("CAS") => {
            effect.addresses.push(address(at)?);
            effect.reads.extend(value(new)?);
            effect.reads.push(word(compare)?);
            effect.writes.push(word(compare)?);
        }
        _ => return None,
    }
    Some(effect)
}
