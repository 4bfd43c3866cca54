//! The runner in a shell: colours only where they are wanted, lines that fit, statuses that say how it ended.

use std::process::{Command, Output};

/// The runner with these words and variables, its output in a pipe.
fn xtask(words: &[&str], variables: &[(&str, &str)]) -> Output {
    let mut command = match std::env::var_os("XTASK") {
        Some(program) => Command::new(program),
        None => {
            let mut cargo = Command::new(env!("CARGO"));
            cargo.args(["run", "--quiet", "--package", "xtask", "--"]);
            cargo
        }
    };
    for name in ["NO_COLOR", "CLICOLOR_FORCE", "CLICOLOR"] {
        command.env_remove(name);
    }
    command.args(words).envs(variables.iter().copied()).output().expect("the runner starts")
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

const COLOUR: char = '\u{1b}';

#[test]
fn colours_are_for_those_who_want_them() {
    let coloured = |variables: &[(&str, &str)]| text(&xtask(&["list"], variables)).contains(COLOUR);
    assert!(!coloured(&[]), "a pipe gets none");
    assert!(coloured(&[("CLICOLOR_FORCE", "1")]), "there are colours");
    assert!(!coloured(&[("CLICOLOR_FORCE", "1"), ("NO_COLOR", "1")]), "NO_COLOR is stronger");
}

#[test]
fn what_is_piped_fits_and_is_whole() {
    let experiments = text(&xtask(&["experiment", "--list"], &[("COLUMNS", "40")]));
    assert!(experiments.lines().all(|line| line.chars().count() <= 100), "{experiments}");
    assert!(experiments.contains("flush-is-the-sync"));
}

#[test]
fn bad_input_is_status_2_and_says_what_to_do() {
    for (words, hint) in [
        (&["experiment", "flush-is-sync"][..], "did you mean \"flush-is-the-sync\"?"),
        (&["experiment", "a", "b", "--folder", "c"], "did you mean"),
        (&["diff", "target"], "needs --budget"),
        (&["report", "no-such-folder"], "`cargo xtask experiment NAME` makes one"),
        (&["completions", "basch"], "bash"),
    ] {
        let output = xtask(words, &[]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{words:?}: {said}");
        assert!(said.contains(hint), "{words:?}: {said}");
    }
}

/// On a terminal of 80 columns, which `script` plays.
#[test]
fn a_narrow_terminal_gets_narrow_lines() {
    let Some(program) = std::env::var_os("XTASK") else {
        eprintln!("SKIPPED: `cargo xtask test` says where the runner is");
        return;
    };
    let line = format!("stty cols 80 rows 24; {} experiment --list", program.to_string_lossy());
    let Ok(output) =
        Command::new("script").args(["-qc", &line, "/dev/null"]).stdin(std::process::Stdio::null()).output()
    else {
        eprintln!("SKIPPED: there is no `script`");
        return;
    };
    let text = text(&output).replace('\r', "");
    assert!(text.contains("flush-is-the-sync"), "{text}");
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
}
