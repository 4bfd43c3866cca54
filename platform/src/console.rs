//! The serial log, for people: `log` records as lines `[cpu0] text`.
//!
//! A line is formatted first, into a buffer on the stack, and then written at once under a lock, so lines of different
//! CPUs do not mix and nobody waits for somebody's formatting. Longer ones are cut. The level is `info`, or what the
//! word `log=` of the kernel command line says.

use core::fmt::{self, Write};

use log::{Level, LevelFilter, Log, Metadata, Record};

use crate::lock::Lock;
use crate::machine;

/// Bytes of a line, with its end.
const LINE_BYTES: usize = 512;
/// How long a panic waits for the serial line before it writes anyway.
const PANIC_PATIENCE: u32 = 1 << 20;

static LOCK: Lock = Lock::new();
static LOG: SerialLog = SerialLog;

/// The word `log=` names no level.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("\"{0}\" is no log level; the levels are off, error, warn, info, debug and trace")]
pub(crate) struct UnknownLevel(&'static str);

/// Makes `log` work, with the level that the command line asks for.
pub(crate) fn init(command_line: &'static str) -> Result<(), UnknownLevel> {
    init_default();
    let asked = command_line.split_ascii_whitespace().filter_map(|word| word.strip_prefix("log=")).next_back();
    if let Some(name) = asked {
        log::set_max_level(name.parse().map_err(|_| UnknownLevel(name))?);
    }
    Ok(())
}

/// Makes `log` work before the command line is known.
pub(crate) fn init_default() {
    // It fails only where it was done before.
    if log::set_logger(&LOG).is_ok() {
        log::set_max_level(LevelFilter::Info);
    }
}

/// Text that is cut where it gets too long, and always ends in a newline when written out.
pub(crate) struct Line {
    bytes: [u8; LINE_BYTES],
    used: usize,
}

impl Line {
    /// What `arguments` say, as far as it fits.
    pub(crate) fn new(arguments: fmt::Arguments<'_>) -> Line {
        let mut line = Line { bytes: [0; LINE_BYTES], used: 0 };
        // A line never reports an error: what does not fit is dropped.
        let _ = line.write_fmt(arguments);
        line
    }

    /// The text.
    pub(crate) fn as_str(&self) -> &str {
        core::str::from_utf8(&self.bytes[..self.used]).unwrap_or("(not UTF-8)")
    }

    /// The text and a newline.
    fn terminated(&mut self) -> &[u8] {
        self.bytes[self.used] = b'\n';
        &self.bytes[..self.used + 1]
    }
}

impl Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        // One byte stays for the newline.
        let mut fits = text.len().min(LINE_BYTES - 1 - self.used);
        while !text.is_char_boundary(fits) {
            fits -= 1;
        }
        self.bytes[self.used..self.used + fits].copy_from_slice(&text.as_bytes()[..fits]);
        self.used += fits;
        Ok(())
    }
}

/// Writes one line from a panic: waits for the lock only so long, then writes without.
pub(crate) fn write_in_panic(arguments: fmt::Arguments<'_>) {
    let mut line = Line::new(format_args!("[cpu{}] {}", cpu_number(), arguments));
    let entry = LOCK.enter_within(PANIC_PATIENCE);
    machine::console_write(line.terminated());
    if let Some(entry) = entry {
        LOCK.leave(entry);
    }
}

/// The boot CPU is number 0 also before it has its area.
fn cpu_number() -> u16 {
    machine::cpu_number().unwrap_or(0)
}

struct SerialLog;

impl Log for SerialLog {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let severity = match record.level() {
            Level::Error => "error: ",
            Level::Warn => "warning: ",
            Level::Info | Level::Debug | Level::Trace => "",
        };
        let mut line = Line::new(format_args!("[cpu{}] {severity}{}", cpu_number(), record.args()));
        let entry = LOCK.enter();
        machine::console_write(line.terminated());
        LOCK.leave(entry);
    }

    fn flush(&self) {}
}
