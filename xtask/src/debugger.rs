//! `run --gdb`: a debugger on the guest, stopped where a person asked for it. Each CPU is one of its threads.
//!
//! QEMU waits at the first instruction until the debugger has connected, over a socket in `target/guest`. Pause points
//! need no code of their own in the kernel: they are the lines of its source that pass the point, so the image is the
//! one that is run without a debugger. The same seed is the same run with one. How gdb shows tables, frames, address
//! spaces and type states is in `xtask/gdb/kernel.py`.

use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use kernel::scenario::Point;

use crate::build::repository;
use crate::child;
use crate::error::{Interrupted, Outcome};
use crate::guest::Guest;
use crate::hunt::emitters;
use crate::names;
use crate::qemu::{self, Launch};
use crate::setup;

/// How gdb shows what is in the kernel.
const SHOWING: &str = "xtask/gdb/kernel.py";
/// QEMU makes its socket before anything else.
const SOCKET_LIMIT: Duration = Duration::from_secs(30);

/// Where the machine stops for the first time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Stop {
    /// At the first instruction.
    Start,
    /// When a CPU passes a pause point.
    At(Point),
    /// When the oracle finds a violation.
    Violation,
}

impl std::str::FromStr for Stop {
    type Err = String;

    fn from_str(word: &str) -> Result<Stop, String> {
        match word {
            "start" => Ok(Stop::Start),
            "violation" => Ok(Stop::Violation),
            _ => Point::named(word).map(Stop::At).ok_or_else(|| {
                let points = Point::NAMES.iter().map(|(name, _)| *name);
                let hint = names::nearest(word, ["start", "violation"].into_iter().chain(points));
                format!("it is start, violation or a pause point; did you mean \"{hint}\"?")
            }),
        }
    }
}

impl Stop {
    /// The lines of the kernel's source to stop at.
    fn places(self) -> anyhow::Result<Vec<String>> {
        let places = match self {
            Stop::Start => return Ok(Vec::new()),
            Stop::At(point) => emitters::pauses(point),
            Stop::Violation => emitters::violations(),
        };
        if places.is_empty() {
            bail!("the kernel's source is not at hand, so the line to stop at is not known");
        }
        Ok(places)
    }
}

/// The words for gdb: connect, stop where it was asked for, then `commands`, if there are any, and end.
fn arguments(image: &str, socket: &str, places: &[String], commands: &[String]) -> Vec<String> {
    let mut all: Vec<String> = vec!["-q".into(), "-nx".into()];
    let mut run = |command: String| all.extend(["-ex".into(), command]);
    run("set pagination off".into());
    run("set confirm off".into());
    run(format!("source {}", repository().join(SHOWING).display()));
    run(format!("target remote {socket}"));
    for place in places {
        run(format!("break {place}"));
    }
    if !places.is_empty() {
        run("continue".into());
    }
    for command in commands {
        run(command.clone());
    }
    if !commands.is_empty() {
        all.insert(0, "-batch".into());
    }
    all.push(image.into());
    all
}

/// Starts the guest and the debugger, and ends the guest when the debugger ends.
pub(crate) fn session(launch: Launch, stop: Stop, commands: &[String]) -> anyhow::Result<Outcome> {
    let places = stop.places()?;
    let program = setup::debugger()?;
    let (socket, image) = (qemu::gdb_socket(), launch.image.clone());
    let guest = Guest::start(launch)?;
    let begin = Instant::now();
    while !socket.exists() {
        child::check_interrupted()?;
        if begin.elapsed() > SOCKET_LIMIT {
            bail!("QEMU has not opened {} for the debugger", socket.display());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let words = arguments(&image.display().to_string(), &socket.display().to_string(), &places, commands);
    // It is the debugger's from now on: it stops the guest.
    child::leave_ctrl_c_to_others();
    let over = AtomicBool::new(false);
    let (status, guest) = std::thread::scope(|scope| {
        let watch = scope.spawn(|| guest.supervise(None, &|| over.load(Ordering::SeqCst), &mut |_, _| {}));
        let status = Command::new(&program).args(&words).status();
        over.store(true, Ordering::SeqCst);
        (status, watch.join())
    });
    let _ = std::fs::remove_file(&socket);
    let status = status.with_context(|| format!("cannot start {}", program.display()))?;
    match guest {
        Ok(Err(error)) if !error.is::<Interrupted>() => eprintln!("run: {error:#}"),
        _ => {}
    }
    if !status.success() {
        bail!("{} ended with {status}", program.display());
    }
    Ok(Outcome::Expected)
}

/// Where the debugger is, for who asks for it.
pub(crate) const PROGRAM: &str = "gdb-multiarch";

/// The program, if it is installed.
pub(crate) fn installed() -> Option<PathBuf> {
    qemu::find_program(PROGRAM)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_to_stop_is_the_start_or_a_pause_point() {
        assert_eq!("start".parse(), Ok(Stop::Start));
        assert_eq!("after_unlink".parse(), Ok(Stop::At(Point::AfterUnlink)));
        assert_eq!("violation".parse(), Ok(Stop::Violation));
        assert!("after_unlnk".parse::<Stop>().unwrap_err().contains("after_unlink"));
    }

    #[test]
    fn every_pause_point_has_a_line() {
        for point in Point::ALL {
            let places = Stop::At(*point).places().unwrap();
            assert!(!places.is_empty() && places.iter().all(|p| p.starts_with("kernel/src/")), "{places:?}");
        }
        assert_eq!(Stop::Violation.places().unwrap().len(), 1);
        assert!(Stop::Start.places().unwrap().is_empty());
    }

    #[test]
    fn commands_end_the_session_and_places_are_gone_to() {
        let words = arguments("k.elf", "s", &["a.rs:1".into()], &["info threads".into()]);
        assert_eq!(words[0], "-batch");
        let commands: Vec<&str> = words.windows(2).filter(|w| w[0] == "-ex").map(|w| w[1].as_str()).collect();
        assert_eq!(commands[3..], ["target remote s", "break a.rs:1", "continue", "info threads"]);
        let waiting = arguments("k.elf", "s", &[], &[]);
        assert!(!waiting.contains(&"-batch".into()) && !waiting.contains(&"continue".into()));
        assert_eq!(waiting.last().map(String::as_str), Some("k.elf"));
    }
}
