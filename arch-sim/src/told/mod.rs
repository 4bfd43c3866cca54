//! Interleavings of the core as data for whoever makes traces of them (`cargo xtask sim --trace`).

pub mod format;

use self::format::{Told, VERSION};
use crate::machine::prove::Replayed;
use crate::machine::scope::Scope;

/// The line of `replayed`, a run of `scope`.
pub fn line(scope: &Scope, replayed: &Replayed) -> String {
    let mut cpus = vec![Vec::new(); scope.cpus()];
    for event in &replayed.events {
        cpus[usize::from(event.cpu)].push((*event).into());
    }
    let told = Told {
        version: VERSION,
        title: scope.in_words(),
        heading: replayed.findings.join("; "),
        cpus,
        overwritten: replayed.overwritten.clone(),
        dropped: replayed.dropped.clone(),
        violation: replayed.violation.map(Into::into),
    };
    serde_json::to_string(&told).expect("strings and numbers") + "\n"
}
