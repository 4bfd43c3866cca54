//! `cargo xtask list`: every name that the command line knows.

use clap::Args;
use kernel::guard::Guard;
use kernel::injection::Fault;
use kernel::scenario::Point;
use kernel::scenario::script::Role;
use kernel::suite::{Mode, Named};
use kernel::workload::walker::WalkerClass;

use crate::error::Outcome;
use crate::output;

/// Names every strategy, transport, workload, mode and guard, with one line each
#[derive(Args)]
pub(crate) struct List {}

impl List {
    /// Prints the names.
    pub(crate) fn run(self) -> anyhow::Result<Outcome> {
        output::print(&text())?;
        Ok(Outcome::Expected)
    }
}

fn text() -> String {
    let bold = anstyle::Style::new().bold();
    let sections: [(&str, &[Named]); 10] = [
        ("Strategies (--strategy)", kernel::sync::NAMES),
        ("Transports (--transport)", kernel::tlb::transport::NAMES),
        ("Workloads (--workload)", kernel::workload::NAMES),
        ("Workloads of programs in user mode (--workload), not among all", kernel::workload::PROGRAMS),
        ("Modes (--mode): what the other CPUs do", Mode::NAMES),
        ("Walkers (--walker): who walks in mode contend", WalkerClass::NAMES),
        ("Faults (--inject NAME:N): what strikes once in N times", Fault::NAMES),
        ("Guards (--without): what can be taken away to see that it is noticed", Guard::NAMES),
        ("Pause points of scenarios (`cargo xtask scenario`)", Point::NAMES),
        ("Actors of scenarios", Role::NAMES),
    ];
    let width = sections.iter().flat_map(|(_, names)| names.iter()).map(|(name, _)| name.len()).max().unwrap_or(0);
    let mut out = String::new();
    for (title, names) in sections {
        out += &format!("{bold}{title}{bold:#}\n");
        for (name, meaning) in names {
            out += &format!("  {name:width$}  {meaning}\n");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_name_is_there() {
        let text = super::text();
        for (name, meaning) in kernel::sync::NAMES.iter().chain(kernel::workload::NAMES) {
            assert!(text.lines().any(|l| l.trim_start().starts_with(name) && l.ends_with(meaning)), "{name}");
        }
    }
}
