//! What a Linux says on its serial line: records of our init, and around them whatever the kernel prints.

use linux_init::record::{END, Record, SEPARATOR};

/// The frames that are complete in `bytes`, and how many bytes they and what is between them take.
pub(crate) fn frames(bytes: &[u8]) -> (Vec<&[u8]>, usize) {
    let (mut found, mut at) = (Vec::new(), 0);
    while let Some(begin) = bytes[at..].iter().position(|b| *b == SEPARATOR) {
        let begin = at + begin + 1;
        let Some(length) = bytes[begin..].iter().position(|b| *b == END) else { break };
        found.push(&bytes[begin..begin + length]);
        at = begin + length + 1;
    }
    (found, at)
}

/// Reads a frame.
pub(crate) fn record(frame: &[u8]) -> anyhow::Result<Record<'_>> {
    let torn = || anyhow::anyhow!("a record of Linux's init is damaged: {}", String::from_utf8_lossy(frame).trim());
    serde_json::from_slice(frame).map_err(|_| torn())
}

/// What the kernel said of its own end, if it panicked.
pub(crate) fn panic(text: &str) -> Option<&str> {
    let (_, what) = text.split_once("Kernel panic - not syncing: ")?;
    Some(what.lines().next().unwrap_or_default().trim())
}

/// The name of an error number, for those that the operations meet.
pub(crate) fn in_words(step: &str, errno: u32) -> String {
    match errno {
        0 => step.to_owned(),
        n => format!("{step}: {}", std::io::Error::from_raw_os_error(n as i32)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAID: &[u8] = b"Probing EDD... ok\r\n\x1e{\"start\":{\"release\":\"6.12.117+deb12-amd64\",\"cpus\":4}}\r\n\
                          [    1.2] clocksource: watchdog\r\n\x1e{\"end\":{\"cells\":0}}\r\n\x1e{\"start";

    #[test]
    fn frames_are_found_between_messages() {
        let (found, taken) = frames(SAID);
        assert_eq!(found.len(), 2);
        assert_eq!(&SAID[taken..], b"\x1e{\"start");
        assert_eq!(record(found[0]).unwrap(), Record::Start { release: "6.12.117+deb12-amd64", cpus: 4 });
        assert_eq!(record(found[1]).unwrap(), Record::End { cells: 0 });
    }

    #[test]
    fn a_message_in_the_middle_of_a_record_is_noticed() {
        let error = record(b"{\"end\":{\"ce[    1.2] clocksource: watchdog").unwrap_err().to_string();
        assert!(error.contains("damaged") && error.contains("watchdog"), "{error}");
        assert!(record(b"{\"start\":{\"cpus\":4}}").is_err());
    }

    #[test]
    fn a_panic_is_one_sentence() {
        let text =
            "[ 0.6] Kernel panic - not syncing: Attempted to kill init! exitcode=0x0000000b\r\n[ 0.6] CPU: 0\r\n";
        assert_eq!(panic(text), Some("Attempted to kill init! exitcode=0x0000000b"));
        assert_eq!(panic("all is well"), None);
    }

    #[test]
    fn errors_have_words() {
        assert_eq!(in_words("find a process", 0), "find a process");
        assert!(in_words("munmap", 12).starts_with("munmap: "));
    }
}
