//! QEMU with a Linux in it: started, listened to, and always ended.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::fd::AsRawFd;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use linux_init::options::BEGIN;
use linux_init::record::Record;

use crate::arch::Arch;
use crate::child;
use crate::error::Interrupted;
use crate::linux::speech;
use crate::qemu;
use crate::suite::Engine;

const POLL: Duration = Duration::from_millis(20);
/// How long QEMU may take to leave after the last record.
const LEAVE_LIMIT: Duration = Duration::from_secs(30);
/// No machine is up for longer than this.
const TIME_LIMIT: Duration = Duration::from_secs(4 * 3600);

/// One Linux to boot.
#[derive(Clone, Debug)]
pub(crate) struct Launch {
    /// On which machine.
    pub(crate) arch: Arch,
    /// The emulator.
    pub(crate) qemu: PathBuf,
    /// CPUs.
    pub(crate) cpus: u32,
    /// RAM.
    pub(crate) memory_mib: u32,
    /// The kernel's image.
    pub(crate) kernel: PathBuf,
    /// The archive with the init.
    pub(crate) initramfs: PathBuf,
    /// How the CPUs run.
    pub(crate) engine: Engine,
    /// Words for the init.
    pub(crate) words: String,
}

/// RAM for `cpus` CPUs: the kernel, huge pages in reserve, and the buffers of each CPU.
pub(crate) fn memory_mib(cpus: u32) -> u32 {
    640 + 16 * cpus
}

/// The machine of our own runs, but for what Linux needs: a clock in place of none (it would wait for one), and no
/// instruction that gives random numbers, so that a run is the same each time.
fn machine_args(arch: Arch) -> &'static [&'static str] {
    match arch {
        Arch::X86_64 => &["-M", "microvm", "-cpu", "max,-rdrand,-rdseed", "-rtc", "base=2026-01-01,clock=vm"],
        Arch::Aarch64 => {
            &["-M", "virt,gic-version=3,dtb-randomness=off", "-cpu", "neoverse-n1", "-rtc", "base=2026-01-01,clock=vm"]
        }
    }
}

/// Linux's command line: the console, an end instead of a halt, addresses that are the same each time.
fn command_line(arch: Arch, words: &str) -> String {
    let (console, restart) = match arch {
        Arch::X86_64 => ("ttyS0", " reboot=t"),
        Arch::Aarch64 => ("ttyAMA0", ""),
    };
    format!("console={console} loglevel=3 panic=-1{restart} nokaslr norandmaps -- {BEGIN} {words}")
}

/// QEMU's arguments.
pub(crate) fn arguments(launch: &Launch, serial: &Path) -> Vec<String> {
    let mut all: Vec<String> = machine_args(launch.arch).iter().map(|s| s.to_string()).collect();
    all.extend(qemu::quiet_args(serial));
    all.extend(qemu::engine_args(launch.engine));
    all.extend(["-m".into(), launch.memory_mib.to_string(), "-smp".into(), launch.cpus.to_string()]);
    all.extend(["-initrd".into(), launch.initramfs.display().to_string()]);
    all.extend(qemu::kernel_args(&launch.kernel, &command_line(launch.arch, &launch.words)));
    all
}

/// Ends the emulator, however its owner ends.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        child::kill_group(&mut self.0);
    }
}

/// Boots it, hands on every record as it comes, and waits for the end; a machine that says nothing for `patience` is
/// ended, and one that `stop` wants ended. Gives back all that was said.
pub(crate) fn boot(
    launch: &Launch,
    patience: Duration,
    stop: &dyn Fn() -> bool,
    on_record: &mut dyn FnMut(Record<'_>) -> anyhow::Result<()>,
) -> anyhow::Result<String> {
    let (mut serial, mut stderr) = (child::anonymous_file("serial")?, child::anonymous_file("stderr")?);
    let path = PathBuf::from(format!("/proc/self/fd/{}", serial.as_raw_fd()));
    let mut command = Command::new(&launch.qemu);
    command.args(arguments(launch, &path)).stdin(Stdio::null()).stdout(Stdio::null()).stderr(stderr.try_clone()?);
    child::tie(&mut command);
    let child = command.spawn().with_context(|| format!("cannot start {}", launch.qemu.display()))?;
    let mut running = Running(child);
    let (begin, mut last) = (Instant::now(), Instant::now());
    let (mut taken, mut ended) = (0, false);
    let mut listen = |serial: &mut File, ended: &mut bool| -> anyhow::Result<bool> {
        let bytes = from(serial, taken)?;
        let (frames, length) = speech::frames(&bytes);
        for frame in frames {
            let record = speech::record(frame)?;
            *ended |= matches!(record, Record::End { .. });
            on_record(record)?;
        }
        taken += length as u64;
        Ok(length > 0)
    };
    let status = loop {
        let status = running.0.try_wait()?;
        child::check_interrupted()?;
        if stop() {
            return Err(Interrupted.into());
        }
        if listen(&mut serial, &mut ended)? {
            last = Instant::now();
        }
        if status.is_some() {
            break status;
        }
        let limit = if ended { LEAVE_LIMIT } else { patience };
        if last.elapsed() > limit || begin.elapsed() > TIME_LIMIT {
            break None;
        }
        std::thread::sleep(POLL);
    };
    drop(running);
    let said = child::text_of(&mut serial)?;
    let arch = launch.arch.name();
    if let Some(what) = speech::panic(&said) {
        bail!("Linux panicked on {arch}: {what}");
    }
    match status {
        // All was said: how the machine went off does not matter.
        _ if ended => Ok(said),
        None => bail!(
            "Linux on {arch} said nothing new for {} s and was ended; --patience allows more, --verbose shows what it said{}",
            patience.as_secs(),
            tail(&said)
        ),
        Some(status) if !status.success() => {
            let how =
                status.signal().map_or(format!("status {}", status.code().unwrap_or(-1)), |n| format!("signal {n}"));
            let why = child::text_of(&mut stderr)?;
            bail!("QEMU for {arch} ended with {how}: {}", child::last_lines(&why, 2).join("; "))
        }
        Some(_) => bail!("Linux on {arch} went off before its init was done{}", tail(&said)),
    }
}

/// The last line that was said, to stand at the end of a sentence.
fn tail(said: &str) -> String {
    let last = child::last_lines(said, 1).concat().replace('\x1e', "");
    if last.is_empty() { String::new() } else { format!("; its last line: {}", last.trim()) }
}

/// The bytes of a file from `at` on.
fn from(file: &mut File, at: u64) -> std::io::Result<Vec<u8>> {
    // QEMU writes by a description of its own, so that moving ours does not move its.
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(at))?;
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn launch(arch: Arch) -> Launch {
        Launch {
            arch,
            qemu: "/usr/bin/qemu".into(),
            cpus: 4,
            memory_mib: memory_mib(4),
            kernel: "target/linux/vmlinuz".into(),
            initramfs: "target/linux/a.cpio".into(),
            engine: Engine::Icount,
            words: "ops=24".into(),
        }
    }

    #[test]
    fn command_lines() {
        let line = |arch| arguments(&launch(arch), Path::new("/dev/stderr")).join(" ");
        assert_eq!(
            line(Arch::X86_64),
            "-M microvm -cpu max,-rdrand,-rdseed -rtc base=2026-01-01,clock=vm \
             -nodefaults -no-user-config -display none -no-reboot -serial file:/dev/stderr \
             -accel tcg -icount shift=0,sleep=off -m 704 -smp 4 -initrd target/linux/a.cpio -kernel target/linux/vmlinuz \
             -append console=ttyS0 loglevel=3 panic=-1 reboot=t nokaslr norandmaps -- count ops=24"
        );
        assert!(
            line(Arch::Aarch64).ends_with("console=ttyAMA0 loglevel=3 panic=-1 nokaslr norandmaps -- count ops=24")
        );
    }

    fn shell(script: &str) -> Launch {
        // A stand-in for QEMU: a shell that finds the serial file in its arguments and writes to it.
        let directory = std::env::temp_dir().join(format!("linux-machine-{}-{}", std::process::id(), script.len()));
        std::fs::create_dir_all(&directory).unwrap();
        let program = directory.join("qemu");
        let find = "for a; do case $a in file:*) out=${a#file:};; esac; done\n";
        std::fs::write(&program, format!("#!/bin/sh\n{find}{script}\n")).unwrap();
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        Launch { qemu: program, ..launch(Arch::X86_64) }
    }

    fn listen(script: &str, patience: Duration) -> (usize, anyhow::Result<String>) {
        let mut records = 0;
        let launch = shell(script);
        let result = boot(&launch, patience, &|| false, &mut |_| {
            records += 1;
            Ok(())
        });
        let _ = std::fs::remove_dir_all(launch.qemu.parent().unwrap());
        (records, result)
    }

    #[test]
    fn an_orderly_end_gives_all_records() {
        let script = "printf 'hello\\n\\036{\"start\":{\"release\":\"6.12\",\"cpus\":4}}\\r\\n\\036{\"end\":{\"cells\":0}}\\r\\n' > $out";
        let (records, result) = listen(script, Duration::from_secs(20));
        assert!(result.unwrap().starts_with("hello"));
        assert_eq!(records, 2);
    }

    #[test]
    fn a_panic_is_told() {
        let (_, result) = listen("printf 'Kernel panic - not syncing: no init\\n' > $out", Duration::from_secs(20));
        assert_eq!(result.unwrap_err().to_string(), "Linux panicked on x86_64: no init");
    }

    #[test]
    fn silence_is_ended() {
        let (records, result) = listen("printf 'booting\\n' > $out; sleep 60", Duration::from_millis(300));
        let error = result.unwrap_err().to_string();
        assert!(error.contains("said nothing new") && error.contains("its last line: booting"), "{error}");
        assert_eq!(records, 0);
    }

    #[test]
    fn an_early_end_is_not_a_result() {
        let (records, result) = listen(
            "printf '\\036{\"start\":{\"release\":\"6.12\",\"cpus\":4}}\\n' > $out; true",
            Duration::from_secs(20),
        );
        assert!(result.unwrap_err().to_string().contains("before its init was done"));
        assert_eq!(records, 1);
        let (_, result) = listen("echo no such machine >&2; exit 1", Duration::from_secs(20));
        assert!(result.unwrap_err().to_string().ends_with("status 1: no such machine"));
    }
}
