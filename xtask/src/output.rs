//! Standard output: colours only where a terminal shows them, and a failure is an error like any other.

use std::io::{ErrorKind, Write};

use anyhow::Context;

/// Prints `text`. A reader that has gone away has seen enough.
pub(crate) fn print(text: &str) -> anyhow::Result<()> {
    let mut stdout = anstream::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error).context("cannot write to standard output"),
        _ => Ok(()),
    }
}
