//! The orderings of the kernel as they are written: each half of each, with the line that has it and the litmus test
//! that a comment there names.
//!
//! Written are an `Ordering` at an access, and a full fence where it is called for. The comment of one stands on its
//! line, or is the next one above, with no empty line and no other ordering between; it names a test as
//! `tests/litmus/NAME`. What the compiler alone keeps in order (`compiler_fence`) is between a CPU and its own
//! interrupts, and is not listed.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::arm::{self, Half};

/// Folders of what is in the images.
const FOLDERS: [&str; 4] = ["kernel/src", "arch-x86_64/src", "arch-aarch64/src", "platform/src"];

/// The atomics themselves, which hand on what they are given.
const NOT_HERE: &str = "kernel/src/atomic/";

/// Files whose orderings are all of one shape, and do not name it at each.
const ALL_OF: [(&str, &str); 1] = [("kernel/src/workload/store_buffer.rs", "hand-over")];

/// How far above an ordering its comment may begin.
const REACH: usize = 12;

/// One half of one ordering.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Written {
    /// File, from the root of the repository.
    pub file: String,
    /// Line in it, counted from 1.
    pub line: usize,
    /// Which half.
    pub half: Half,
    /// The line, without its indentation.
    pub text: String,
    /// The litmus tests that a comment names.
    pub litmus: Vec<String>,
}

/// A line that makes an access with an ordering that is written elsewhere, once for all: table entries.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Use {
    /// File, from the root of the repository.
    pub file: String,
    /// Line in it, counted from 1.
    pub line: usize,
    /// Name of the constant.
    pub of: &'static str,
}

/// Which function uses which constant.
const USES: [(&str, &str); 4] = [
    ("load_entry(", "ENTRY_LOAD"),
    ("store_entry(", "ENTRY_STORE"),
    ("swap_entry(", "ENTRY_SWAP"),
    ("replace_entry(", "ENTRY_SWAP"),
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn files_below(folder: &Path, found: &mut BTreeSet<PathBuf>) {
    let entries = std::fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    for path in entries.map(|entry| entry.expect("it can be read").path()) {
        if path.is_dir() {
            files_below(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") && path.file_name().is_none_or(|n| n != "tests.rs") {
            found.insert(path);
        }
    }
}

/// All that is written, in the order of files and lines; and where constants are used.
pub fn all() -> (Vec<Written>, Vec<Use>) {
    let mut files = BTreeSet::new();
    FOLDERS.iter().for_each(|folder| files_below(&root().join(folder), &mut files));
    let (mut written, mut uses) = (Vec::new(), Vec::new());
    for path in files {
        let name = path.strip_prefix(root()).expect("it is below").display().to_string();
        if !name.starts_with(NOT_HERE) {
            let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{name}: {e}"));
            of_file(&name, &text, &mut written, &mut uses);
        }
    }
    (written, uses)
}

/// The part of a line that is code.
fn code(line: &str) -> &str {
    line.split("//").next().unwrap_or_default()
}

fn of_file(name: &str, text: &str, written: &mut Vec<Written>, uses: &mut Vec<Use>) {
    // Tests of a file stand at its end.
    let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    for (at, line) in lines.iter().enumerate() {
        for half in halves(code(line)) {
            let (file, mut litmus) = (name.to_owned(), named(&lines[at.saturating_sub(REACH)..=at]));
            litmus.extend(ALL_OF.iter().filter(|(of, _)| *of == name).map(|(_, test)| (*test).to_owned()));
            written.push(Written { file, line: at + 1, half, text: line.trim().into(), litmus });
        }
        let used = USES.iter().filter(|(function, _)| code(line).contains(&format!("::{function}")));
        uses.extend(used.map(|(_, of)| Use { file: name.to_owned(), line: at + 1, of }));
    }
}

/// The halves that a line of code writes, each once.
fn halves(code: &str) -> BTreeSet<Half> {
    let mut halves = BTreeSet::new();
    // The definition of the full fence, which is wanted where it is called.
    if code.contains("compiler_fence") || code.contains("fence(Ordering::SeqCst)") {
        return halves;
    }
    let words: [(&str, &[Half]); 5] = [
        ("Ordering::Acquire", &[Half::Acquire]),
        ("Ordering::Release", &[Half::Release]),
        ("Ordering::AcqRel", &[Half::Acquire, Half::Release]),
        ("Ordering::SeqCst", &[Half::Acquire, Half::Release, Half::Full]),
        ("::fence()", &[Half::Full]),
    ];
    for (word, of) in words {
        if code.contains(word) {
            halves.extend(of);
        }
    }
    halves
}

/// The tests that the comment of the last of `lines` names: what stands on it, or the next comment above, if no line
/// with an ordering of its own is between, or it says that it is of both.
fn named(lines: &[&str]) -> Vec<String> {
    let Some((last, above)) = lines.split_last() else { return Vec::new() };
    if let Some((_, comment)) = last.split_once("//") {
        return names(comment);
    }
    let is_comment = |line: &str| line.trim_start().starts_with("//");
    let above = above.iter().rev().take_while(|line| !line.trim().is_empty());
    let mut another = false;
    let mut comment = Vec::new();
    for line in above {
        if is_comment(line) {
            comment.insert(0, line.trim_start().trim_start_matches('/'));
        } else if !comment.is_empty() {
            break;
        } else {
            another |= !halves(code(line)).is_empty();
        }
    }
    let comment = comment.join("");
    if another && !comment.contains("of both") { Vec::new() } else { names(&comment) }
}

/// The tests that a comment names.
fn names(comment: &str) -> Vec<String> {
    let rests = comment.split("tests/litmus/").skip(1);
    let end = |rest: &str| rest.find(|c: char| !(c.is_ascii_lowercase() || c == '-')).unwrap_or(rest.len());
    rests.map(|rest| rest[..end(rest)].trim_end_matches('-').to_owned()).collect()
}

/// What a litmus test says of one half of an ordering.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Litmus {
    /// What it asks for never happens, with that half and without.
    Indifferent,
    /// It happens all the same: the half is a control's, which is not enough.
    Happens,
    /// It never happens, and does when one of the test's instructions loses such a half.
    Needs,
}

/// What the litmus test of this name says of such a half.
///
/// # Errors
/// The test is not there, or is not understood.
pub fn litmus_says(name: &str, half: Half) -> Result<Litmus, String> {
    let path = format!("tests/litmus/{name}.aarch64.litmus");
    let text = std::fs::read_to_string(root().join(&path)).map_err(|e| format!("{path}: {e}"))?;
    let test = arm::parse(&text).map_err(|e| format!("{path}: {e}"))?;
    Ok(match (test.happens(), test.happens_without(half)) {
        (true, _) => Litmus::Happens,
        (false, true) => Litmus::Needs,
        (false, false) => Litmus::Indifferent,
    })
}

/// Whether the litmus test of this name needs such a half.
///
/// # Errors
/// As [`litmus_says`].
pub fn litmus_needs(name: &str, half: Half) -> Result<bool, String> {
    litmus_says(name, half).map(|says| says != Litmus::Indifferent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comment_is_of_the_next_ordering_below() {
        let of = |text: &str| named(&text.lines().collect::<Vec<_>>()).join(",");
        let one =
            "/// Pairs (tests/litmus/a,\n    /// tests/litmus/b).\n#[inline]\nfn x() {\n  y.load(Ordering::Acquire)";
        assert_eq!(of(one), "a,b");
        assert_eq!(of(&format!("{one}\n  z.load(Ordering::Acquire)")), "");
        assert_eq!(
            of("// Acquire, of both (tests/litmus/a).\ny.load(Ordering::Acquire);\nz.load(Ordering::Acquire)"),
            "a"
        );
        assert_eq!(of("// tests/litmus/a\n\ny.load(Ordering::Acquire);"), "");
        assert_eq!(of("// tests/litmus/a\ny.load(Ordering::Acquire); // tests/litmus/b"), "b");
    }

    #[test]
    fn halves_are_found_where_they_are_written() {
        let (mut written, mut uses) = (Vec::new(), Vec::new());
        let text = "// Acquire, see tests/litmus/far.\n\n    // Pairs with b: tests/litmus/a-b.\n    x.swap(1, Ordering::AcqRel);\n\
                    compiler_fence(Ordering::SeqCst);\n\n// Ordering::Acquire\nA::fence();\nA::load_entry(x);\n\
                    #[cfg(test)]\nmod tests {\n A::fence();\n";
        of_file("f.rs", text, &mut written, &mut uses);
        let found: Vec<_> = written.iter().map(|w| (w.line, w.half, w.litmus.join(","))).collect();
        let of_line_4 = [Half::Acquire, Half::Release].map(|half| (4, half, "a-b".to_owned()));
        assert_eq!(found, [&of_line_4[..], &[(8, Half::Full, String::new())]].concat());
        assert_eq!(uses, [Use { file: "f.rs".into(), line: 9, of: "ENTRY_LOAD" }]);
    }
}
