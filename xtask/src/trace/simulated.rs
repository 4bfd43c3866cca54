//! What the simulated machine tells of the interleavings that it plays (`cargo xtask sim --trace`): a line of JSON for
//! each, as `arch-sim/src/told/format.rs` defines it.

use std::path::Path;

use anyhow::Context;
use kernel::record::cell::Violation;
use kernel::record::event::Event;

use self::format::{Told, VERSION};
use super::{Recording, Trace, TraceOption};
use crate::shared_memory::CpuEvents;

/// The definition that the simulated machine writes by: compiled here too, since a runner that linked it would link a
/// second kernel core.
#[expect(unreachable_pub, reason = "the simulated machine, a library, offers it to others")]
#[path = "../../../arch-sim/src/told/format.rs"]
mod format;

impl Told {
    fn recording(self) -> Recording {
        let ring = |(i, events): (usize, Vec<_>)| CpuEvents {
            events: events.into_iter().map(Event::from).collect(),
            overwritten: self.overwritten.get(i).copied().unwrap_or(0),
            dropped: self.dropped.get(i).copied().unwrap_or(0),
        };
        let heading = self.heading;
        let violation = |found| (heading, Violation::from(found));
        Recording {
            title: self.title,
            cells: Vec::new(),
            cpus: self.cpus.into_iter().enumerate().map(ring).collect(),
            violations: self.violation.map(violation).into_iter().collect(),
        }
    }
}

impl TraceOption {
    /// Takes the option out of words that are handed on to another program.
    pub(crate) fn taken_from(words: &mut Vec<String>) -> TraceOption {
        let Some(at) = words.iter().position(|word| word == "--trace" || word.starts_with("--trace=")) else {
            return TraceOption::none();
        };
        let given = words.remove(at);
        let path = match given.split_once('=') {
            Some((_, path)) => path.to_owned(),
            None if words.get(at).is_some_and(|next| !next.starts_with('-')) => words.remove(at),
            None => "target/trace.json".to_owned(),
        };
        TraceOption { trace: Some(path.into()) }
    }
}

impl Trace {
    /// Adds what the simulated machine has told in `file`.
    pub(crate) fn add_simulated(&mut self, file: &Path) -> anyhow::Result<()> {
        let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        for (order, line) in text.lines().enumerate() {
            let told: Told = serde_json::from_str(line).with_context(|| format!("in {}", file.display()))?;
            anyhow::ensure!(told.version == VERSION, "{} has version {}", file.display(), told.version);
            self.add(order, told.recording());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> (Vec<String>, TraceOption) {
        let mut words = text.split(' ').map(String::from).collect();
        let option = TraceOption::taken_from(&mut words);
        (words, option)
    }

    #[test]
    fn the_option_is_found_anywhere() {
        for (given, left, path) in [
            ("--replay a.toml --trace b.txt", "--replay a.toml", Some("b.txt")),
            ("--trace --replay a.toml", "--replay a.toml", Some("target/trace.json")),
            ("--trace=b.csv --core", "--core", Some("b.csv")),
            ("--core --print all", "--core --print all", None),
        ] {
            let (words, option) = words(given);
            assert_eq!(words.join(" "), left);
            assert_eq!(option.trace.as_deref(), path.map(Path::new), "{given}");
        }
    }

    #[test]
    fn what_is_told_becomes_a_recording() {
        let line = r#"{"version":1,"title":"t","heading":"h","cpus":[[[5,6,0,1,119,64]],[]],"overwritten":[2,0],"dropped":[0,0],
            "violation":{"kind":1,"walker":1,"updater":0,"level":0,"mm":1,"pfn":119,"address":64,"walk":1,"op":0,"times":[1,2,3,4]}}"#;
        let recording = serde_json::from_str::<Told>(line).unwrap().recording();
        assert_eq!(recording.cpus[0].events, [Event { time: 5, kind: 6, cpu: 0, mm: 1, a: 119, b: 64 }]);
        assert_eq!((recording.cpus.len(), recording.cpus[0].overwritten), (2, 2));
        let (heading, violation) = &recording.violations[0];
        assert_eq!((heading.as_str(), violation.pfn, violation.times), ("h", 119, [1, 2, 3, 4]));
    }
}
