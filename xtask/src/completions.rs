//! `cargo xtask completions`: what a shell needs to complete the runner's commands and options.

use clap::Args;
use clap_complete::Shell;

use crate::error::Outcome;
use crate::output;

/// Prints completions for a shell
///
/// They are for a command called `xtask`, as `alias xtask='cargo xtask'` makes one: shells do not look behind `cargo`.
#[derive(Args)]
pub(crate) struct Completions {
    /// Which shell
    shell: Shell,
}

impl Completions {
    /// Prints them.
    pub(crate) fn run(self) -> anyhow::Result<Outcome> {
        output::print(&script(self.shell))?;
        Ok(Outcome::Expected)
    }
}

fn script(shell: Shell) -> String {
    let mut bytes = Vec::new();
    let mut command = crate::command_line().name("xtask").bin_name("xtask");
    clap_complete::generate(shell, &mut command, "xtask", &mut bytes);
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::ValueEnum;

    #[test]
    fn every_shell_is_told_of_every_command_and_its_options() {
        for shell in Shell::value_variants() {
            let script = script(*shell);
            for word in ["experiment", "scenario", "completions", "budget", "strategy"] {
                assert!(script.contains(word), "{shell}: {word}");
            }
        }
    }

    #[test]
    fn bash_completes_a_word() {
        let ask = format!(
            "{}\nCOMP_WORDS=(xtask expe)\nCOMP_CWORD=1\n_xtask xtask expe xtask\necho \"${{COMPREPLY[@]}}\"\n",
            script(Shell::Bash)
        );
        let done = std::process::Command::new("bash").args(["--norc", "-c", &ask]).output();
        let Ok(done) = done else { return eprintln!("SKIPPED: there is no bash") };
        assert_eq!(String::from_utf8_lossy(&done.stdout), "experiment\n", "{}", String::from_utf8_lossy(&done.stderr));
    }
}
