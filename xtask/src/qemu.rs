//! QEMU's command line, from what is to be run: pure functions, and the question which version is installed.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, anyhow};

use crate::arch::Arch;
use crate::build::guest_dir;
use crate::child;
use crate::suite::Engine;

/// The oldest QEMU that has what the machines need.
pub(crate) const OLDEST: Version = Version { major: 7, minor: 2, patch: 0 };
/// The largest guest, in MiB: what a microvm has below its device window.
pub(crate) const MAX_MEMORY_MIB: u32 = 3072;

/// A QEMU version.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Version {
    major: u32,
    minor: u32,
    patch: u32,
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

/// One machine to start.
#[derive(Clone, Debug)]
pub(crate) struct Launch {
    /// Which.
    pub(crate) arch: Arch,
    /// The emulator.
    pub(crate) qemu: PathBuf,
    /// CPUs.
    pub(crate) cpus: u32,
    /// RAM.
    pub(crate) memory_mib: u32,
    /// The kernel.
    pub(crate) image: PathBuf,
    /// The file that backs the RAM.
    pub(crate) ram: PathBuf,
    /// Where the first serial port writes.
    pub(crate) serial: PathBuf,
    /// The archive of programs; `None` where no cell runs any.
    pub(crate) module: Option<PathBuf>,
    /// The kernel's command line.
    pub(crate) command_line: String,
    /// How the CPUs run.
    pub(crate) engine: Engine,
    /// Wait for a debugger before the first instruction.
    pub(crate) gdb: bool,
}

/// RAM for `cpus` CPUs when nobody chooses.
pub(crate) fn default_memory_mib(cpus: u32) -> u32 {
    512 + 4 * cpus
}

/// QEMU's arguments.
pub(crate) fn arguments(launch: &Launch) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    all.extend(launch.arch.machine_args().iter().map(|s| s.to_string()));
    all.extend(quiet_args(&launch.serial));
    all.extend(engine_args(launch.engine));
    all.extend(memory_args(launch.memory_mib, &launch.ram));
    all.extend(["-smp".into(), launch.cpus.to_string()]);
    let (words, more) = module_args(launch);
    all.extend(kernel_args(&launch.image, &format!("{}{words}", launch.command_line)));
    all.extend(more);
    if launch.gdb {
        let socket = format!("unix:{},server=on,wait=off", gdb_socket().display());
        all.extend(["-gdb".into(), socket, "-S".into()]);
    }
    all
}

/// Where the guest of this process that a debugger is on waits for it.
pub(crate) fn gdb_socket() -> PathBuf {
    guest_dir().join(format!("gdb-{}.sock", std::process::id()))
}

/// No device, no window, no restart; the serial port as a file.
pub(crate) fn quiet_args(serial: &Path) -> Vec<String> {
    // The serial port writes to a file, which never makes the guest wait: a pipe could, and then two runs would differ.
    let serial = format!("file:{}", serial.display());
    ["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-serial", &serial].map(String::from).to_vec()
}

/// How the CPUs run.
pub(crate) fn engine_args(engine: Engine) -> Vec<String> {
    match engine {
        Engine::Icount => ["-accel", "tcg", "-icount", "shift=0,sleep=off"].map(String::from).to_vec(),
        Engine::Mttcg => ["-accel", "tcg,thread=multi"].map(String::from).to_vec(),
    }
}

fn memory_args(mib: u32, ram: &Path) -> Vec<String> {
    let backend = format!("memory-backend-file,id=ram,size={mib}M,mem-path={},share=on", ram.display());
    ["-m", &mib.to_string(), "-object", &backend, "-machine", "memory-backend=ram"].map(String::from).to_vec()
}

/// How the module gets into memory, and what the kernel must be told of that: `virt` has no `-initrd` for a kernel that
/// is an ELF file, so there it is put at the end of the memory, in whole blocks of 2 MiB.
fn module_args(launch: &Launch) -> (String, Vec<String>) {
    let Some(module) = &launch.module else { return Default::default() };
    let file = module.display();
    match launch.arch {
        Arch::X86_64 => (String::new(), vec!["-initrd".into(), file.to_string()]),
        Arch::Aarch64 => {
            let bytes = module.metadata().map_or(0, |m| m.len());
            let end = launch.arch.ram_base() + (u64::from(launch.memory_mib) << 20);
            let start = end - bytes.next_multiple_of(2 << 20);
            let device = format!("loader,file={file},addr={start:#x},force-raw=on");
            (format!(" module={start:x},{bytes:x}"), vec!["-device".into(), device])
        }
    }
}

/// What is booted, and its command line.
pub(crate) fn kernel_args(image: &Path, command_line: &str) -> Vec<String> {
    vec!["-kernel".into(), image.display().to_string(), "-append".into(), command_line.into()]
}

/// The command line as a shell takes it.
pub(crate) fn shell_line(program: &Path, arguments: &[String]) -> String {
    let program = program.display().to_string();
    std::iter::once(&program).chain(arguments).map(|word| quote(word)).collect::<Vec<_>>().join(" ")
}

fn quote(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=,:+@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) { word.into() } else { format!("'{}'", word.replace('\'', r"'\''")) }
}

/// The version of the emulator at `path`.
pub(crate) fn version(path: &Path) -> anyhow::Result<Version> {
    let done = child::run(Command::new(path).arg("--version"), Duration::from_secs(20), false)?;
    parse_version(&done.stdout).ok_or_else(|| anyhow!("{} --version did not name a version of QEMU", path.display()))
}

/// The version in the first line that `--version` prints.
pub(crate) fn parse_version(text: &str) -> Option<Version> {
    let mut parts = text.split_once("version ")?.1.split(|c: char| !c.is_ascii_digit() && c != '.').next()?.split('.');
    let mut part = || parts.next().map_or(Some(0), |p| p.parse().ok());
    Some(Version { major: part()?, minor: part()?, patch: part()? })
}

/// Where a program is, by the search path.
pub(crate) fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(name)).find(|file| is_program(file))
}

/// Whether a file is there and may be executed.
pub(crate) fn is_program(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    path.metadata().is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
}

/// Refuses a QEMU that `--qemu` names and that cannot do.
pub(crate) fn check_given(path: &Path) -> anyhow::Result<Version> {
    if !is_program(path) {
        return Err(crate::error::bad_input(format!("--qemu {} is not a program", path.display())));
    }
    let version = version(path).with_context(|| format!("--qemu {} cannot be used", path.display()))?;
    if version < OLDEST {
        return Err(crate::error::bad_input(format!(
            "--qemu {} is version {version}; {OLDEST} or newer is needed",
            path.display()
        )));
    }
    Ok(version)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn launch(arch: Arch) -> Launch {
        Launch {
            arch,
            qemu: "/usr/bin/qemu".into(),
            cpus: 4,
            memory_mib: 528,
            image: "target/guest/checking/k.elf".into(),
            ram: "/dev/shm/ram".into(),
            serial: "/dev/stderr".into(),
            module: None,
            command_line: "modes=same ops=64".into(),
            engine: Engine::Icount,
            gdb: false,
        }
    }

    #[test]
    fn x86_64() {
        assert_eq!(
            arguments(&launch(Arch::X86_64)).join(" "),
            "-M microvm,rtc=off -cpu max -device isa-debug-exit,iobase=0xf4,iosize=4 \
             -nodefaults -no-user-config -display none -no-reboot -serial file:/dev/stderr \
             -accel tcg -icount shift=0,sleep=off \
             -m 528 -object memory-backend-file,id=ram,size=528M,mem-path=/dev/shm/ram,share=on -machine memory-backend=ram \
             -smp 4 -kernel target/guest/checking/k.elf -append modes=same ops=64"
        );
    }

    #[test]
    fn aarch64() {
        assert_eq!(
            arguments(&launch(Arch::Aarch64)).join(" "),
            "-M virt,gic-version=3,dtb-randomness=off -cpu max -semihosting \
             -nodefaults -no-user-config -display none -no-reboot -serial file:/dev/stderr \
             -accel tcg -icount shift=0,sleep=off \
             -m 528 -object memory-backend-file,id=ram,size=528M,mem-path=/dev/shm/ram,share=on -machine memory-backend=ram \
             -smp 4 -kernel target/guest/checking/k.elf -append modes=same ops=64"
        );
    }

    #[test]
    fn programs_are_a_module() {
        let with = |arch, file: &str| arguments(&Launch { module: Some(file.into()), ..launch(arch) }).join(" ");
        let line = with(Arch::X86_64, "target/guest/p.cpio");
        assert!(line.ends_with(" -append modes=same ops=64 -initrd target/guest/p.cpio"), "{line}");
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
        let line = with(Arch::Aarch64, file);
        assert!(line.contains(" -append modes=same ops=64 module=60e00000,"), "{line}");
        assert!(line.ends_with(&format!(" -device loader,file={file},addr=0x60e00000,force-raw=on")), "{line}");
    }

    #[test]
    fn engine_and_debugger() {
        let line = arguments(&Launch { engine: Engine::Mttcg, gdb: true, ..launch(Arch::X86_64) }).join(" ");
        assert!(line.contains("-accel tcg,thread=multi ") && !line.contains("icount"));
        assert!(line.contains(" -gdb unix:") && line.ends_with(".sock,server=on,wait=off -S"), "{line}");
    }

    #[test]
    fn a_shell_reads_the_line_as_it_is_meant() {
        let line = shell_line(Path::new("/usr/bin/qemu"), &arguments(&launch(Arch::X86_64)));
        assert!(line.starts_with("/usr/bin/qemu -M microvm,rtc=off "));
        assert!(line.ends_with(" -append 'modes=same ops=64'"));
        assert_eq!(quote("it's"), r"'it'\''s'");
    }

    #[test]
    fn versions_are_read_and_compared() {
        let debian =
            parse_version("QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18+b3)\nCopyright").unwrap();
        assert_eq!(debian.to_string(), "7.2.22");
        assert!(debian > OLDEST);
        assert!(parse_version("QEMU emulator version 5.2.0").unwrap() < OLDEST);
        assert_eq!(parse_version("QEMU emulator version 11.0-rc1").unwrap().to_string(), "11.0.0");
        assert_eq!(parse_version("GNU bash"), None);
    }
}
