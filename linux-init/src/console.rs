//! Records, put on the console.

use linux_init::record::{END, LONGEST, Record, SEPARATOR};

use crate::sys::file::CONSOLE;

/// Says it, in one write. What does not fit or cannot be written is lost, and the runner notices by the count in the
/// last record.
pub(crate) fn say(record: &Record) {
    let mut frame = [0; LONGEST];
    frame[0] = SEPARATOR;
    let Ok(length) = serde_json_core::to_slice(record, &mut frame[1..LONGEST - 1]) else { return };
    frame[1 + length] = END;
    let _ = CONSOLE.write_all(&frame[..length + 2]);
}
