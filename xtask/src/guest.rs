//! A running QEMU: started, watched, read from, and always ended.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context;
use kernel::boot::ExitCode;
use kernel::record::cell::CellRow;
use kernel::record::shared::RunState;

use crate::arch::Arch;
use crate::child;
use crate::error::bad_input;
use crate::hang;
use crate::image::Image;
use crate::panic_report;
use crate::profile::Profile;
use crate::qemu::{self, Launch};
use crate::shared_memory::{GuestMemory, Standing};
use crate::structured_log;

const POLL: Duration = Duration::from_millis(2);
/// How long QEMU may take to leave after the guest said that it is done.
const LEAVE_LIMIT: Duration = Duration::from_secs(5);
/// No run is longer than this.
const TIME_LIMIT: Duration = Duration::from_secs(4 * 3600);

/// What is remarkable about a guest that finished.
#[derive(Clone, Debug, Default)]
pub(crate) struct Report {
    /// When the first byte came from the serial port.
    pub(crate) first_output: Option<Duration>,
    /// From start to end.
    pub(crate) took: Duration,
    /// What the serial port and the structured log said.
    pub(crate) log: Vec<String>,
}

/// The kernel failed by itself: it panicked, stopped making progress, or reset the machine.
#[derive(Debug)]
pub(crate) struct KernelFault {
    sentence: String,
    details: String,
}

impl KernelFault {
    /// What happened, without the backtrace.
    pub(crate) fn sentence(self) -> String {
        self.sentence
    }
}

impl std::fmt::Display for KernelFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}{}", self.sentence, self.details)
    }
}

impl std::error::Error for KernelFault {}

/// A guest that runs.
pub(crate) struct Guest {
    launch: Launch,
    image: Image,
    child: Child,
    memory: GuestMemory,
    serial: File,
    stderr: File,
    begin: Instant,
    first_output: Option<Duration>,
}

impl Drop for Guest {
    fn drop(&mut self) {
        child::kill_group(&mut self.child);
    }
}

/// Why a guest was given up.
enum GivenUp {
    /// No progress for this long.
    Hang(Duration),
    /// It said that it is done, and QEMU stayed.
    Stays,
    /// It ran for [`TIME_LIMIT`].
    TooLong,
}

impl Guest {
    /// Starts QEMU. Memory and output are files without names, so that nothing is left behind however this ends.
    pub(crate) fn start(mut launch: Launch) -> anyhow::Result<Guest> {
        let image = Image::open(&launch.image)?;
        let root = image.physical_address("SHARED")?;
        let needed = (root - launch.arch.ram_base().min(root)).div_ceil(1 << 20) + 1;
        if needed > u64::from(launch.memory_mib) {
            let (given, arch) = (launch.memory_mib, launch.arch.name());
            return Err(bad_input(format!(
                "{given} MiB of memory do not hold the {arch} kernel; give at least {needed}"
            )));
        }
        let (ram, serial, stderr) =
            (child::anonymous_file("ram")?, child::anonymous_file("serial")?, child::anonymous_file("stderr")?);
        ram.set_len(u64::from(launch.memory_mib) << 20).context("cannot make the guest's memory")?;
        launch.ram = format!("/proc/self/fd/{}", ram.as_raw_fd()).into();
        launch.serial = format!("/proc/self/fd/{}", serial.as_raw_fd()).into();
        let mut command = Command::new(&launch.qemu);
        command.args(qemu::arguments(&launch)).stdin(Stdio::null()).stdout(Stdio::null()).stderr(stderr.try_clone()?);
        child::tie(&mut command);
        let begin = Instant::now();
        let child = command.spawn().with_context(|| format!("cannot start {}", launch.qemu.display()))?;
        let memory = GuestMemory::new(ram, launch.arch.ram_base(), root);
        Ok(Guest { launch, image, child, memory, serial, stderr, begin, first_output: None })
    }

    /// Waits for the guest's end and hands on its rows as they come; a guest without progress for `patience` is ended.
    pub(crate) fn supervise(
        self,
        patience: Option<Duration>,
        stop: &dyn Fn() -> bool,
        on_row: &mut dyn FnMut(CellRow, Option<Profile>),
    ) -> anyhow::Result<Report> {
        self.supervise_and(patience, stop, on_row, &mut |_| {})
    }

    /// The same; however the guest ended, `at_end` sees its memory.
    pub(crate) fn supervise_and(
        mut self,
        patience: Option<Duration>,
        stop: &dyn Fn() -> bool,
        on_row: &mut dyn FnMut(CellRow, Option<Profile>),
        at_end: &mut dyn FnMut(&GuestMemory),
    ) -> anyhow::Result<Report> {
        let mut seen = Standing::default();
        let mut rows = 0;
        let mut last_change = Instant::now();
        let (status, given_up) = loop {
            let status = self.child.try_wait()?;
            child::check_interrupted()?;
            if stop() {
                return Err(crate::error::Interrupted.into());
            }
            let now = self.memory.standing()?;
            self.note_first_output();
            while now.started && rows < now.cells_done {
                on_row(self.memory.row(&now, rows)?, self.memory.profile(&now, rows)?);
                rows += 1;
            }
            if now != seen {
                seen = now;
                last_change = Instant::now();
            }
            let done = !matches!(seen.run_state(), Some(RunState::Booting | RunState::Running));
            let given_up = match patience {
                _ if self.begin.elapsed() > TIME_LIMIT => Some(GivenUp::TooLong),
                _ if done && last_change.elapsed() > LEAVE_LIMIT => Some(GivenUp::Stays),
                Some(limit) if last_change.elapsed() > limit => Some(GivenUp::Hang(limit)),
                _ => None,
            };
            if status.is_some() || given_up.is_some() {
                break (status, given_up);
            }
            std::thread::sleep(POLL);
        };
        let took = self.begin.elapsed();
        at_end(&self.memory);
        let ending = match (status, given_up) {
            (Some(status), _) => conclude(self.launch.arch, status, &seen),
            (None, Some(GivenUp::Hang(limit))) => Err(Ending::Hang(limit)),
            (None, Some(GivenUp::TooLong)) => Err(Ending::Hang(TIME_LIMIT)),
            // QEMU stayed although the kernel was done: what the kernel said counts most.
            (None, _) => Err(match seen.run_state() {
                Some(RunState::Panicked) => Ending::Panicked,
                Some(RunState::Refused) => Ending::Refused,
                _ => Ending::Stayed,
            }),
        };
        match ending {
            Ok(()) => Ok(Report { first_output: self.first_output, took, log: self.log() }),
            Err(ending) => Err(self.failure(ending, &seen)),
        }
    }

    fn note_first_output(&mut self) {
        if self.first_output.is_none() && self.serial.metadata().is_ok_and(|m| m.len() > 0) {
            self.first_output = Some(self.begin.elapsed());
        }
    }

    /// What the kernel said, on the serial port and in its structured log.
    fn log(&mut self) -> Vec<String> {
        let serial = child::text_of(&mut self.serial).unwrap_or_default();
        let mut lines: Vec<String> = serial.lines().map(|l| l.trim_end_matches('\r').to_owned()).collect();
        let structured = self.memory.structured_log().and_then(|ring| structured_log::lines(&self.image, &ring));
        match structured {
            Ok(more) => lines.extend(more),
            Err(error) => lines.push(format!("(the structured log cannot be read: {error:#})")),
        }
        lines
    }

    fn failure(&mut self, ending: Ending, seen: &Standing) -> anyhow::Error {
        let arch = self.launch.arch.name();
        let program = self.launch.arch.qemu();
        let message = self.memory.message().unwrap_or_default();
        let mut details = Vec::new();
        let sentence = match ending {
            Ending::Refused => return bad_input(format!("the {arch} kernel refuses: {message}")),
            Ending::Panicked => {
                let (cpu, addresses) = self.memory.backtrace().unwrap_or_default();
                details.extend(panic_report::backtrace(&self.image, &addresses));
                format!("the {arch} kernel panicked on cpu {cpu}: {message}")
            }
            Ending::Hang(limit) => {
                let states = self.memory.cpu_states().unwrap_or_default();
                details.extend(hang::report(&states));
                let hint = hang::hint(&states);
                let place = match seen.run_state() {
                    Some(RunState::Booting) => format!("during bring-up, with {} cpus online", seen.cpus),
                    _ => format!("in cell {} of {}", seen.cells_done + 1, seen.cells_planned),
                };
                format!("the {arch} kernel made no progress for {} s {place}, and was stopped{hint}", limit.as_secs())
            }
            Ending::Stayed => format!("the {arch} kernel finished, but {program} did not leave and was stopped"),
            Ending::Silent => format!(
                "{program} left without a word from the {arch} kernel (status 0): a triple fault, a reset, or QEMU was \
                 told to quit"
            ),
            Ending::Qemu(status) => {
                let stderr = child::text_of(&mut self.stderr).unwrap_or_default();
                let last = child::last_lines(&stderr, 1).concat();
                let why = if last.is_empty() { "it did not say why".into() } else { last };
                format!("{program} failed with status {status}: {why}")
            }
            Ending::Signal(signal) => format!("{program} was killed by signal {signal}{}", signal_hint(signal)),
            Ending::Incomplete => format!(
                "the {arch} kernel left early, with {} of {} cells done: {}",
                seen.cells_done,
                seen.cells_planned,
                if message.is_empty() { "it did not say why" } else { &message }
            ),
        };
        let mut log = self.log();
        if ending == Ending::Panicked {
            // The bare addresses: they are in the backtrace with their names.
            log.retain(|line| !line.contains("]   at 0x"));
        }
        let tail = &log[log.len().saturating_sub(8)..];
        if !tail.is_empty() {
            details.push("last messages of the kernel:".into());
            details.extend(tail.iter().map(|l| format!("  {l}")));
        }
        let details: String = details.iter().map(|line| format!("\n  {line}")).collect();
        match ending {
            Ending::Panicked | Ending::Hang(_) | Ending::Silent => KernelFault { sentence, details }.into(),
            _ => anyhow::anyhow!("{sentence}{details}"),
        }
    }
}

fn signal_hint(signal: i32) -> &'static str {
    match signal {
        7 => " (SIGBUS: the host has no memory left for the guest)",
        9 => " (SIGKILL: somebody killed it, or the host ran out of memory)",
        11 => " (SIGSEGV: QEMU itself crashed)",
        15 => " (SIGTERM: somebody ended it)",
        _ => "",
    }
}

/// How a guest ended that did not do its work.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Ending {
    /// The kernel refused what it was told.
    Refused,
    /// The kernel panicked.
    Panicked,
    /// No progress for this long.
    Hang(Duration),
    /// The kernel was done and QEMU stayed.
    Stayed,
    /// QEMU left with 0, which no kernel of ours asks for.
    Silent,
    /// QEMU failed by itself.
    Qemu(i32),
    /// QEMU was killed.
    Signal(i32),
    /// The kernel said that it finished, and had not.
    Incomplete,
}

/// Whether a guest did its work: its exit number, its state and its rows must all say so.
fn conclude(arch: Arch, status: ExitStatus, seen: &Standing) -> Result<(), Ending> {
    let Some(code) = status.code() else { return Err(Ending::Signal(status.signal().unwrap_or(0))) };
    if code == 0 {
        return Err(match seen.run_state() {
            Some(RunState::Panicked) => Ending::Panicked,
            Some(RunState::Refused) => Ending::Refused,
            _ => Ending::Silent,
        });
    }
    let number = arch.guest_exit(code);
    if number == Some(ExitCode::Panicked as u8) {
        Err(Ending::Panicked)
    } else if number == Some(ExitCode::Refused as u8) {
        Err(Ending::Refused)
    } else if number != Some(ExitCode::Finished as u8) {
        Err(Ending::Qemu(code))
    } else if seen.run_state() == Some(RunState::Finished) && seen.cells_done == seen.cells_planned {
        Ok(())
    } else {
        Err(Ending::Incomplete)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn standing(state: RunState, cells_done: u32, cells_planned: u32) -> Standing {
        Standing { started: true, state: state as u32, cells_done, cells_planned, ..Standing::default() }
    }

    fn exited(code: i32) -> ExitStatus {
        ExitStatus::from_raw(code << 8)
    }

    #[test]
    fn success_needs_exit_number_state_and_rows() {
        let whole = standing(RunState::Finished, 3, 3);
        assert_eq!(conclude(Arch::X86_64, exited(0x21), &whole), Ok(()));
        assert_eq!(conclude(Arch::Aarch64, exited(0x10), &whole), Ok(()));
        assert_eq!(conclude(Arch::X86_64, exited(0x21), &standing(RunState::Finished, 2, 3)), Err(Ending::Incomplete));
        assert_eq!(conclude(Arch::X86_64, exited(0x21), &standing(RunState::Running, 3, 3)), Err(Ending::Incomplete));
    }

    #[test]
    fn status_0_is_never_success() {
        for arch in Arch::ALL {
            assert_eq!(conclude(arch, exited(0), &standing(RunState::Finished, 3, 3)), Err(Ending::Silent));
            assert_eq!(conclude(arch, exited(0), &standing(RunState::Running, 1, 3)), Err(Ending::Silent));
        }
    }

    #[test]
    fn every_other_end_is_told_apart() {
        let running = standing(RunState::Running, 1, 3);
        assert_eq!(conclude(Arch::X86_64, exited(0x25), &running), Err(Ending::Panicked));
        assert_eq!(conclude(Arch::Aarch64, exited(0x11), &running), Err(Ending::Refused));
        assert_eq!(conclude(Arch::X86_64, exited(1), &running), Err(Ending::Qemu(1)));
        assert_eq!(conclude(Arch::Aarch64, exited(1), &running), Err(Ending::Qemu(1)));
        assert_eq!(conclude(Arch::X86_64, ExitStatus::from_raw(9), &running), Err(Ending::Signal(9)));
    }
}
