//! Examples in the help of each command.

/// For each command that does something, a few lines that a person may want to type.
const EXAMPLES: &[(&str, &[&str])] = &[
    (
        "run",
        &[
            "cargo xtask run --arch all",
            "cargo xtask run --arch aarch64 --strategy none,sync-all --workload collapse_anon --mode contend --ops 256",
            "cargo xtask run --arch x86_64 --transport all --strategy all --mode contend --json target/matrix.json",
        ],
    ),
    ("judge", &["cargo xtask judge coverage", "cargo xtask judge targeted-v4 --ops 16"]),
    (
        "scenario",
        &[
            "cargo xtask scenario",
            "cargo xtask scenario 01-no-pmd-recheck --arch aarch64",
            "cargo xtask scenario --list",
        ],
    ),
    (
        "experiment",
        &[
            "cargo xtask experiment --list",
            "cargo xtask experiment flush-is-the-sync",
            "cargo xtask experiment my.toml --folder target/experiments/monday",
            "cargo xtask experiment --all",
        ],
    ),
    (
        "report",
        &[
            "cargo xtask report target/experiments",
            "cargo xtask report target/experiments/promises --out /tmp/for-a-colleague",
        ],
    ),
    (
        "diff",
        &[
            "cargo xtask diff target/experiments/monday target/experiments/tuesday",
            "cargo xtask diff target/experiments --budget bench/budget.toml",
        ],
    ),
    ("list", &["cargo xtask list"]),
    ("doctor", &["cargo xtask doctor"]),
    ("build", &["cargo xtask build --arch aarch64 --verbose"]),
    ("test", &["cargo xtask test", "cargo xtask test --host", "cargo xtask test --arch x86_64"]),
    ("sim", &["cargo xtask sim --strategy coverage", "cargo xtask sim --help"]),
    ("scale", &["cargo xtask scale", "cargo xtask scale --help"]),
    ("ci", &["cargo xtask ci"]),
    ("mutate", &["cargo xtask mutate --guard PmdRecheck --arch aarch64"]),
    (
        "hunt",
        &[
            "cargo xtask hunt --arch aarch64 --strategy none",
            "cargo xtask hunt --arch x86_64 --strategy targeted-v4 --transport paravirt --seeds 1..200",
        ],
    ),
    ("linux", &["cargo xtask linux --arch all", "cargo xtask linux --arch aarch64 --kernel 6.12"]),
    ("parity", &["cargo xtask parity", "cargo xtask parity --strategy coverage --cpus 4"]),
    ("barriers", &["cargo xtask barriers --arch x86_64 --tries 10000"]),
    ("bench", &["cargo xtask bench walk", "cargo xtask bench ops --arch x86_64"]),
    ("soak", &["cargo xtask soak --minutes 10", "cargo xtask soak --seed 7 --mixes 1"]),
    (
        "completions",
        &[
            "cargo xtask completions bash > ~/.local/share/bash-completion/completions/xtask",
            "alias xtask='cargo xtask'",
        ],
    ),
];

/// The examples of the command `name`.
pub(crate) fn of(name: &str) -> Option<&'static [&'static str]> {
    EXAMPLES.iter().find(|(command, _)| *command == name).map(|(_, lines)| *lines)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command_line;

    #[test]
    fn every_command_has_an_example_and_says_how_it_ends() {
        for command in command_line().get_subcommands() {
            let name = command.get_name();
            assert!(of(name).is_some_and(|lines| !lines.is_empty()), "{name} has no example");
            assert!(command.get_after_help().is_some_and(|text| text.to_string().contains("Exit status: ")), "{name}");
        }
        assert_eq!(EXAMPLES.len(), command_line().get_subcommands().count());
    }

    #[test]
    fn every_example_is_a_command_that_the_runner_takes() {
        for line in EXAMPLES.iter().flat_map(|(_, lines)| *lines) {
            let Some(words) = line.strip_prefix("cargo xtask ") else { continue };
            let words = words.split(" > ").next().unwrap_or_default();
            // Help is an answer too.
            let answer = command_line().try_get_matches_from(["xtask"].into_iter().chain(words.split(' ')));
            assert!(
                answer.as_ref().err().is_none_or(|e| e.kind() == clap::error::ErrorKind::DisplayHelp),
                "{line}: {answer:?}"
            );
        }
    }
}
