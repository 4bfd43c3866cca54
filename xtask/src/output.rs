//! Standard output: colours only where a terminal shows them, and a failure is an error like any other.

use std::io::{ErrorKind, Write};
use std::sync::OnceLock;

use anyhow::Context;

/// The most characters of a line.
pub(crate) const WIDEST: usize = 100;
/// The fewest: narrower terminals break lines themselves.
const NARROWEST: usize = 60;

/// How wide lines may be: as wide as a terminal that is narrower, and always the same in a file or a pipe.
pub(crate) fn width() -> usize {
    static WIDTH: OnceLock<usize> = OnceLock::new();
    *WIDTH.get_or_init(|| {
        let terminal = if cfg!(test) { None } else { terminal_size::terminal_size_of(std::io::stdout()) };
        terminal.map_or(WIDEST, |(columns, _)| usize::from(columns.0).clamp(NARROWEST, WIDEST))
    })
}

/// Prints `text`. A reader that has gone away has seen enough.
pub(crate) fn print(text: &str) -> anyhow::Result<()> {
    let mut stdout = anstream::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error).context("cannot write to standard output"),
        _ => Ok(()),
    }
}
