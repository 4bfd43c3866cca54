//! Child processes: bounded, interruptible, and gone when this process is gone.

use std::fs::File;
use std::io::{Read, Seek};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use crate::error::Interrupted;

static STOP: AtomicBool = AtomicBool::new(false);
/// Ctrl-C is somebody else's.
static NOT_OURS: AtomicBool = AtomicBool::new(false);

/// From now on Ctrl-C and termination end this process in an orderly way: whoever waits for a child stops it first.
pub(crate) fn stop_on_ctrl_c() {
    let _ = ctrlc::set_handler(|| {
        if NOT_OURS.load(Ordering::SeqCst) {
            return;
        }
        // A second Ctrl-C does not wait for an orderly end. Children die with this process (`tie`).
        if STOP.swap(true, Ordering::SeqCst) {
            std::process::exit(130);
        }
    });
}

/// From now on Ctrl-C is for a program in the foreground that runs in this one's stead.
pub(crate) fn leave_ctrl_c_to_others() {
    NOT_OURS.store(true, Ordering::SeqCst);
}

/// Fails once Ctrl-C was pressed.
pub(crate) fn check_interrupted() -> anyhow::Result<()> {
    if STOP.load(Ordering::SeqCst) { Err(Interrupted.into()) } else { Ok(()) }
}

/// Makes `command` lead its own process group, so that Ctrl-C reaches only us, and die when we die.
pub(crate) fn tie(command: &mut Command) -> &mut Command {
    command.process_group(0);
    #[cfg(target_os = "linux")]
    {
        let parent = std::process::id();
        let hook = move || {
            rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
            // The parent may have died before the line above.
            if rustix::process::getppid().is_none_or(|p| p.as_raw_nonzero().get() as u32 != parent) {
                return Err(std::io::ErrorKind::Interrupted.into());
            }
            Ok(())
        };
        // SAFETY: between fork and exec the hook makes two system calls; it allocates nothing and takes no lock.
        unsafe { command.pre_exec(hook) };
    }
    command
}

/// Kills `child` and all of its process group, and collects it.
pub(crate) fn kill_group(child: &mut Child) {
    if let Some(pid) = rustix::process::Pid::from_raw(child.id() as i32) {
        let _ = rustix::process::kill_process_group(pid, rustix::process::Signal::KILL);
    }
    let _ = child.kill();
    let _ = child.wait();
}

/// What a finished command left.
pub(crate) struct Finished {
    /// How it ended.
    pub(crate) status: ExitStatus,
    /// What it wrote to its standard output.
    pub(crate) stdout: String,
    /// What it wrote to its standard error, empty if that was shown.
    pub(crate) stderr: String,
}

/// Runs `command` to its end, at most for `limit`, keeping its output; with `show`, its standard error is passed on
/// instead.
pub(crate) fn run(command: &mut Command, limit: Duration, show: bool) -> anyhow::Result<Finished> {
    let name = command.get_program().to_string_lossy().into_owned();
    check_interrupted()?;
    tie(command);
    let (mut stdout, mut stderr) = (anonymous_file("stdout")?, anonymous_file("stderr")?);
    command.stdin(Stdio::null()).stdout(stdout.try_clone()?);
    command.stderr(if show { Stdio::inherit() } else { stderr.try_clone()?.into() });
    let child = command.spawn().with_context(|| format!("cannot start {name}"))?;
    let status = wait_or_kill(child, &name, limit)?;
    Ok(Finished { status, stdout: text_of(&mut stdout)?, stderr: text_of(&mut stderr)? })
}

/// Runs `command` to its end, keeping its output; nothing if it does not end within `limit`. Once `stop` holds it is
/// stopped, which is an error.
pub(crate) fn run_within(
    command: &mut Command,
    limit: Duration,
    stop: &dyn Fn() -> bool,
) -> anyhow::Result<Option<Finished>> {
    let name = command.get_program().to_string_lossy().into_owned();
    let begin = Instant::now();
    check_interrupted()?;
    tie(command);
    let (mut stdout, mut stderr) = (anonymous_file("stdout")?, anonymous_file("stderr")?);
    command.stdin(Stdio::null()).stdout(stdout.try_clone()?).stderr(stderr.try_clone()?);
    let mut child = command.spawn().with_context(|| format!("cannot start {name}"))?;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(Finished { status, stdout: text_of(&mut stdout)?, stderr: text_of(&mut stderr)? }));
        }
        if stop() || check_interrupted().is_err() {
            kill_group(&mut child);
            return Err(Interrupted.into());
        }
        if begin.elapsed() > limit {
            kill_group(&mut child);
            return Ok(None);
        }
        std::thread::sleep(Duration::from_millis(if begin.elapsed().as_millis() < 200 { 1 } else { 10 }));
    }
}

/// Runs `command` with our own standard streams, at most for `limit`.
pub(crate) fn run_visibly(command: &mut Command, limit: Duration) -> anyhow::Result<ExitStatus> {
    let name = command.get_program().to_string_lossy().into_owned();
    check_interrupted()?;
    tie(command);
    let child = command.stdin(Stdio::null()).spawn().with_context(|| format!("cannot start {name}"))?;
    wait_or_kill(child, &name, limit)
}

/// Runs `from` and gives its output to `to`, at most for `limit`; both must succeed.
pub(crate) fn pipe(from: &mut Command, to: &mut Command, limit: Duration) -> anyhow::Result<()> {
    let (first, second) =
        (from.get_program().to_string_lossy().into_owned(), to.get_program().to_string_lossy().into_owned());
    check_interrupted()?;
    let (mut stderr, mut stderr_of_first) = (anonymous_file("stderr")?, anonymous_file("stderr")?);
    tie(from).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(stderr_of_first.try_clone()?);
    let mut writer = from.spawn().with_context(|| format!("cannot start {first}"))?;
    let output = writer.stdout.take().map_or_else(Stdio::null, Stdio::from);
    let reader = tie(to).stdin(output).stdout(Stdio::null()).stderr(stderr.try_clone()?).spawn();
    let read = reader.with_context(|| format!("cannot start {second}")).and_then(|r| wait_or_kill(r, &second, limit));
    let read = match read {
        Ok(status) => status,
        Err(error) => {
            kill_group(&mut writer);
            return Err(error);
        }
    };
    let written = wait_or_kill(writer, &first, limit)?;
    for (name, status, stderr) in [(first, written, &mut stderr_of_first), (second, read, &mut stderr)] {
        if !status.success() {
            bail!("{name} failed: {}", last_lines(&text_of(stderr)?, 1).concat());
        }
    }
    Ok(())
}

fn wait_or_kill(mut child: Child, name: &str, limit: Duration) -> anyhow::Result<ExitStatus> {
    let begin = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        if let Err(interrupted) = check_interrupted() {
            kill_group(&mut child);
            return Err(interrupted);
        }
        if begin.elapsed() > limit {
            kill_group(&mut child);
            bail!("{name} did not finish within {} s and was stopped", limit.as_secs());
        }
        std::thread::sleep(Duration::from_millis(if begin.elapsed().as_millis() < 200 { 1 } else { 10 }));
    }
}

/// A file without a name, gone with its last user. A child that is given it can open it again as `/proc/self/fd/N`.
pub(crate) fn anonymous_file(name: &str) -> anyhow::Result<File> {
    // Without CLOEXEC: children are to inherit it.
    #[cfg(target_os = "linux")]
    let file = rustix::fs::memfd_create(name, rustix::fs::MemfdFlags::empty()).map(File::from);
    #[cfg(not(target_os = "linux"))]
    let file = std::io::Result::<File>::Err(std::io::ErrorKind::Unsupported.into());
    file.with_context(|| format!("cannot make a file in memory for {name}"))
}

/// All of a file, from its start.
pub(crate) fn text_of(file: &mut File) -> anyhow::Result<String> {
    let mut bytes = Vec::new();
    file.rewind()?;
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The last `n` lines of `text` that are not empty.
pub(crate) fn last_lines(text: &str, n: usize) -> Vec<&str> {
    let lines: Vec<&str> = text.lines().filter(|l| !l.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(n)..].to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_and_status_are_kept() {
        let done =
            run(Command::new("sh").args(["-c", "echo out; echo err >&2; exit 3"]), Duration::from_secs(10), false)
                .unwrap();
        assert_eq!((done.status.code(), done.stdout.as_str(), done.stderr.as_str()), (Some(3), "out\n", "err\n"));
    }

    #[test]
    fn a_command_that_does_not_end_is_stopped() {
        let begin = Instant::now();
        let error = run(Command::new("sleep").arg("60"), Duration::from_millis(50), false).err().unwrap();
        assert!(error.to_string().contains("sleep did not finish"), "{error}");
        assert!(begin.elapsed() < Duration::from_secs(10));
    }

    #[test]
    fn what_is_late_is_no_error_and_what_is_stopped_is() {
        let second = Duration::from_secs(1);
        let sleep = |time: &str| {
            let mut command = Command::new("sleep");
            command.arg(time);
            command
        };
        assert!(run_within(&mut sleep("0"), 10 * second, &|| false).unwrap().is_some_and(|f| f.status.success()));
        assert!(run_within(&mut sleep("60"), second / 20, &|| false).unwrap().is_none());
        assert!(run_within(&mut sleep("60"), 10 * second, &|| true).err().unwrap().is::<Interrupted>());
    }

    #[test]
    fn a_pipe_ends_with_both_or_says_which_failed() {
        let sh = |script: &str| {
            let mut command = Command::new("sh");
            command.args(["-c", script]);
            command
        };
        let limit = Duration::from_secs(10);
        pipe(&mut sh("echo out"), &mut sh("grep -q out"), limit).unwrap();
        let error = |a: &str, b: &str, limit| pipe(&mut sh(a), &mut sh(b), limit).unwrap_err().to_string();
        assert_eq!(error("echo no >&2; exit 1", "cat", limit), "sh failed: no");
        assert_eq!(error("true", "echo no room >&2; exit 1", limit), "sh failed: no room");
        assert!(error("sleep 60", "cat", Duration::from_millis(50)).contains("did not finish"));
    }

    #[test]
    fn a_missing_program_is_named() {
        let error = run(&mut Command::new("no-such-program"), Duration::from_secs(1), false).err().unwrap();
        assert!(error.to_string().contains("no-such-program"));
    }

    #[test]
    fn last_lines_skip_empty_ones() {
        assert_eq!(last_lines("a\n\nb\nc\n\n", 2), ["b", "c"]);
    }
}
