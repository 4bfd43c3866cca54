//! Where in the kernel's source each kind of event is written.

use std::path::Path;

use kernel::record::event::EventKind;
use kernel::scenario::Point;

use crate::build::repository;

/// `file:line` of every place under the kernel's source that writes an event of `kind`; nothing where the source is not
/// at hand.
pub(crate) fn places(kind: EventKind) -> Vec<String> {
    everywhere(|line| line.contains(&format!("events.write(EventKind::{kind:?},")))
}

/// `file:line` of every place that passes the pause point.
pub(crate) fn pauses(point: Point) -> Vec<String> {
    everywhere(|line| line.contains("pause!(") && line.contains(&format!(", {point:?});")))
}

/// `file:line` of where the oracle writes a violation down.
pub(crate) fn violations() -> Vec<String> {
    everywhere(|line| line.contains("fn report<A: Arch>(cpu: &Cpu<A>, violation: Violation)"))
}

/// `file:line` of every line under the kernel's source that is `wanted`.
fn everywhere(wanted: impl Fn(&str) -> bool) -> Vec<String> {
    let root = repository().join("kernel/src");
    let mut files = Vec::new();
    collect(&root, &mut files);
    files.sort();
    let mut found = Vec::new();
    for file in files {
        let Ok(text) = std::fs::read_to_string(&file) else { continue };
        let shown = file.strip_prefix(repository()).unwrap_or(&file).display().to_string();
        found.extend(lines(&text, &wanted).into_iter().map(|line| format!("{shown}:{line}")));
    }
    found
}

fn collect(directory: &Path, files: &mut Vec<std::path::PathBuf>) {
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|e| e == "rs") {
            files.push(path);
        }
    }
}

/// Numbers of the lines that are `wanted`.
fn lines(text: &str, wanted: &impl Fn(&str) -> bool) -> Vec<usize> {
    text.lines().enumerate().filter(|(_, line)| wanted(line)).map(|(i, _)| i + 1).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_found_by_the_call_in_it() {
        let text = "fn f() {\n    cpu.events.write(EventKind::Unlink, mm.id, 1, 2);\n    // EventKind::Unlink\n}\n";
        assert_eq!(lines(text, &|line: &str| line.contains("events.write(EventKind::Unlink,")), [2]);
        assert!(pauses(Point::AfterUnlink).iter().any(|p| p.starts_with("kernel/src/mm/table.rs:")));
    }

    #[test]
    fn the_kinds_that_a_counterexample_needs_are_written_somewhere() {
        for kind in [EventKind::WalkBegin, EventKind::Unlink, EventKind::Reuse, EventKind::Violation] {
            assert!(places(kind).iter().all(|p| p.starts_with("kernel/src/")), "{kind:?}");
            assert!(!places(kind).is_empty(), "{kind:?}");
        }
    }
}
