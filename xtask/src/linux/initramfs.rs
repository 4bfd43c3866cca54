//! The init program for Linux, and the archive that Linux unpacks into its first file system.

use std::io::Cursor;
use std::path::PathBuf;

use anyhow::{Context, bail};
use cpio::newc::{Builder, ModeFileType, trailer};

use crate::arch::Arch;
use crate::build::{self, guest_dir, repository};
use crate::child;
use crate::linux::package::directory;
use crate::progress::Step;
use crate::toolchain::RustFacts;

/// Device numbers of `/dev/console` and `/dev/null`, as Linux assigns them.
const DEVICES: [(&str, u32, u32); 2] = [("dev/console", 5, 1), ("dev/null", 1, 3)];

/// Builds the init of each architecture and packs it.
pub(crate) fn build(archs: &[Arch], verbose: bool) -> anyhow::Result<()> {
    let facts = RustFacts::gather()?;
    let toolchain = facts.usable(archs).context("no toolchain can build for the bare-metal targets")?;
    let _lock = build::lock()?;
    for &arch in archs {
        let step = Step::begin(format!("build: init for Linux on {}", arch.name()));
        let target = guest_dir().join("build");
        let mut command = toolchain.build_command(&facts, arch);
        command.current_dir(repository()).args(["--package", "linux-init", "--bin", "linux-init", "--target-dir"]);
        let done = child::run(command.arg(&target), build::BUILD_LIMIT, verbose)?;
        if !done.status.success() {
            step.failed();
            eprint!("{}", done.stderr);
            bail!("the init for Linux on {} does not build; what cargo said is above", arch.name());
        }
        let program = std::fs::read(target.join(arch.target()).join("release/linux-init"))?;
        std::fs::create_dir_all(directory())?;
        std::fs::write(path(arch), archive(&program)?).context("cannot keep the archive for Linux")?;
        step.done();
    }
    Ok(())
}

/// Where the archive is.
pub(crate) fn path(arch: Arch) -> PathBuf {
    directory().join(format!("initramfs-{}.cpio", arch.name()))
}

/// The archive: directories to mount on, the two devices that the program uses, and the program.
fn archive(program: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut out = Vec::new();
    let mut inode = 0;
    let mut entry = |name: &str, kind: ModeFileType, mode: u32| {
        inode += 1;
        Builder::new(name).ino(inode).mode(mode).set_mode_file_type(kind)
    };
    for name in ["dev", "proc", "sys"] {
        entry(name, ModeFileType::Directory, 0o755).write(&mut out, 0).finish()?;
    }
    for (name, major, minor) in DEVICES {
        let device = entry(name, ModeFileType::Char, 0o666).rdev_major(major).rdev_minor(minor);
        device.write(&mut out, 0).finish()?;
    }
    let length = u32::try_from(program.len()).map_err(std::io::Error::other)?;
    let mut writer = entry("init", ModeFileType::Regular, 0o755).write(&mut out, length);
    std::io::copy(&mut Cursor::new(program), &mut writer)?;
    writer.finish()?;
    trailer(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads a header field of the format by its place, as Linux's own unpacker does.
    fn field(header: &[u8], index: usize) -> u32 {
        let text = std::str::from_utf8(&header[6 + 8 * index..14 + 8 * index]).unwrap();
        u32::from_str_radix(text, 16).unwrap()
    }

    /// Name, mode, device numbers, contents.
    type Entry = (String, u32, (u32, u32), Vec<u8>);

    /// Reads the entries by the description of the format (Documentation/driver-api/early-userspace).
    fn entries(mut bytes: &[u8]) -> Vec<Entry> {
        let mut out = Vec::new();
        loop {
            assert_eq!(&bytes[..6], b"070701");
            let (size, name_length) = (field(bytes, 6) as usize, field(bytes, 11) as usize);
            let data = (110 + name_length).next_multiple_of(4);
            let name = std::str::from_utf8(&bytes[110..110 + name_length - 1]).unwrap().to_owned();
            assert_eq!(bytes[110 + name_length - 1], 0);
            if name == "TRAILER!!!" {
                return out;
            }
            let device = (field(bytes, 9), field(bytes, 10));
            out.push((name, field(bytes, 1), device, bytes[data..data + size].to_vec()));
            bytes = &bytes[(data + size).next_multiple_of(4)..];
        }
    }

    #[test]
    fn the_archive_is_as_linux_reads_it() {
        let entries = entries(&archive(b"\x7fELF1").unwrap());
        let names: Vec<(&str, u32)> = entries.iter().map(|(name, mode, ..)| (name.as_str(), *mode)).collect();
        let expected = [
            ("dev", 0o040755),
            ("proc", 0o040755),
            ("sys", 0o040755),
            ("dev/console", 0o020666),
            ("dev/null", 0o020666),
            ("init", 0o100755),
        ];
        assert_eq!(names, expected);
        assert_eq!((entries[3].2, entries[4].2), ((5, 1), (1, 3)));
        assert_eq!(entries[5].3, b"\x7fELF1");
    }
}
