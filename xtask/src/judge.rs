//! `cargo xtask judge NAME`: everything that this platform can say about one strategy, in the order in which a person
//! wants to know it.
//!
//! It adds no engine and no verdict of its own. Each part is a command of this runner, whose words it prints, so that
//! each can be called again alone and with other bounds:
//!
//! 1. the strategy's decisions in the model, exhaustively within bounds, against every class of walkers;
//! 2. the kernel with it, on both architectures and every transport;
//! 3. whom it interrupts, beside what Linux does and what the core's best does;
//! 4. what a walk pays for it.
//!
//! A part whose verdict is not the promised one does not end it: a counterexample in the model is worth most beside the
//! run of the kernel that shows it too.

use anstyle::Style;
use clap::{Args, FromArgMatches};

use crate::error::Outcome;
use crate::{Cli, command_line, names, output};

/// What a strategy is measured by: what Linux does, and the core's own best.
const BESIDE: [&str; 2] = ["sync-all", "coverage"];
/// Operations that use a table again, at once or after another mm has left it.
const REUSES: &str = "collapse_anon,unshare_munmap_last,unshare_chain";

/// Says what one strategy is worth: its verdicts in the model and in QEMU, whom it interrupts, what a walk pays
///
/// A strategy is one file in strategies/, found by the build: docs/write-a-strategy.md takes a reader from nothing to
/// this.
#[derive(Args)]
pub(crate) struct Judge {
    /// The strategy, by its name
    #[arg(value_name = "NAME")]
    strategy: String,
    /// Operations of each cell of the kernel
    #[arg(long, value_name = "K", default_value_t = 64)]
    ops: u64,
    /// Seed of the kernel's schedules
    #[arg(long, value_name = "S", default_value_t = 1)]
    seed: u64,
}

/// One part: what it shows, and the command that does.
struct Part {
    about: &'static str,
    words: String,
}

impl Judge {
    /// Does it.
    pub(crate) fn run(self) -> anyhow::Result<Outcome> {
        let chosen = names::choose("strategy", std::slice::from_ref(&self.strategy), kernel::sync::NAMES)?;
        let mut unexpected = Vec::new();
        for strategy in &chosen {
            let about = kernel::sync::NAMES.iter().find(|(name, _)| name == strategy).map_or("", |(_, about)| about);
            output::print(&format!("{strategy}: {about}\n"))?;
            for (number, part) in (1..).zip(self.parts(strategy)) {
                let bold = Style::new().bold();
                output::print(&format!("\n{bold}{number}. {}{bold:#}\n   cargo xtask {}\n\n", part.about, part.words))?;
                let words = ["xtask"].into_iter().chain(part.words.split(' '));
                let matches = command_line().try_get_matches_from(words)?;
                if Cli::from_arg_matches(&matches)?.command.run()? == Outcome::Unexpected {
                    unexpected.push(format!("{number} of {strategy}"));
                }
            }
        }
        output::print(&verdict(&unexpected))?;
        Ok(if unexpected.is_empty() { Outcome::Expected } else { Outcome::Unexpected })
    }

    fn parts(&self, strategy: &str) -> Vec<Part> {
        let how = format!("--ops {} --seed {}", self.ops, self.seed);
        let beside: Vec<&str> = BESIDE.into_iter().filter(|name| *name != strategy).chain([strategy]).collect();
        let beside = beside.join(",");
        let part = |about, words| Part { about, words };
        vec![
            part(
                "Its decisions, in every interleaving within bounds",
                format!("sim --strategy {strategy} --print shortest"),
            ),
            part(
                "The kernel with it, on every transport",
                format!("run --arch all --strategy {strategy} --transport all --mode contend {how}"),
            ),
            part(
                "Whom it interrupts",
                format!("run --arch all --strategy {beside} --workload {REUSES} --mode same,other,idle {how}"),
            ),
            part("What a walk pays for it", format!("bench walk --strategy {strategy}")),
        ]
    }
}

fn verdict(unexpected: &[String]) -> String {
    let bold = Style::new().bold();
    if unexpected.is_empty() {
        return format!(
            "\n{bold}As promised{bold:#}, in the model, within its bounds, and in the kernel, in the schedules of this seed.\n"
        );
    }
    format!("\n{bold}NOT as promised{bold:#}: see part {}.\n", unexpected.join(" and part "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_part_is_a_command_that_the_runner_takes() {
        let judge = Judge { strategy: "targeted".into(), ops: 8, seed: 2 };
        for (strategy, _) in kernel::sync::NAMES {
            for part in judge.parts(strategy) {
                let words = ["xtask"].into_iter().chain(part.words.split(' '));
                assert!(command_line().try_get_matches_from(words).is_ok(), "{}", part.words);
                assert_eq!(part.words.matches(strategy).count(), 1, "{}", part.words);
            }
        }
    }

    #[test]
    fn a_broken_promise_is_said_with_its_part() {
        let said = anstream::adapter::strip_str(&verdict(&["2 of this-mm".into()])).to_string();
        assert_eq!(said, "\nNOT as promised: see part 2 of this-mm.\n");
        assert!(verdict(&[]).contains("As promised"));
    }
}
