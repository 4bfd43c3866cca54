//! How a command ends: the exit status, and the one sentence that says why.

use std::fmt;
use std::process::ExitCode;

/// How a command that did its work ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Outcome {
    /// Everything is as expected.
    Expected,
    /// The work was done; a verdict, a count or a check is not as expected.
    Unexpected,
}

/// What was asked for does not exist or cannot be done; the sentence says what to do instead.
#[derive(Debug)]
pub(crate) struct BadInput(String);

impl fmt::Display for BadInput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for BadInput {}

/// The work was interrupted by Ctrl-C or a signal.
#[derive(Debug)]
pub(crate) struct Interrupted;

impl fmt::Display for Interrupted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("interrupted: nothing was left running")
    }
}

impl std::error::Error for Interrupted {}

/// An error for what the person asked.
pub(crate) fn bad_input(sentence: impl Into<String>) -> anyhow::Error {
    BadInput(sentence.into()).into()
}

/// The sentence of a longer report.
pub(crate) fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().to_owned()
}

/// Prints the error, if any, and gives the status that `--help` promises.
pub(crate) fn exit_code(result: anyhow::Result<Outcome>) -> ExitCode {
    let error = match result {
        Ok(Outcome::Expected) => return ExitCode::SUCCESS,
        Ok(Outcome::Unexpected) => return ExitCode::from(1),
        Err(error) => error,
    };
    let red = anstyle::AnsiColor::Red.on_default().bold();
    anstream::eprintln!("{red}error{red:#}: {error:#}");
    ExitCode::from(status(&error))
}

fn status(error: &anyhow::Error) -> u8 {
    if error.is::<BadInput>() {
        2
    } else if error.is::<Interrupted>() {
        130
    } else {
        3
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context;

    #[test]
    fn each_kind_of_error_has_its_status() {
        assert_eq!(status(&bad_input("no such thing")), 2);
        assert_eq!(status(&Interrupted.into()), 130);
        assert_eq!(status(&anyhow::anyhow!("QEMU went away")), 3);
    }

    #[test]
    fn context_does_not_hide_the_kind() {
        let error = Err::<(), _>(bad_input("no such thing")).context("while reading the options").unwrap_err();
        assert_eq!(status(&error), 2);
    }
}
