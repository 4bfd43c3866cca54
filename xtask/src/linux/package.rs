//! The kernel package: found, fetched, checked and unpacked, never installed.
//!
//! apt does the finding and the checking, on directories of its own under `target/linux`: with Debian's sources instead
//! of the system's, for either architecture, and by Debian's keys. The system's packages and their lists are not
//! touched. What is kept is the kernel image, and a note of where it came from.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, anyhow, bail, ensure};

use crate::arch::Arch;
use crate::build::repository;
use crate::child;
use crate::error::bad_input;
use crate::progress::Step;
use crate::qemu::find_program;

const MIRROR: &str = "http://deb.debian.org";
const KEYS: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
/// Archives that have kernels, by mirror directory and suite. Lists of the first group are small; the others are asked
/// only if no kernel is found there.
const SUITES: [&[(&str, &str)]; 2] = [
    &[("debian-security", "bookworm-security"), ("debian-security", "trixie-security"), ("debian", "trixie-backports")],
    &[("debian", "bookworm"), ("debian", "trixie"), ("debian", "sid")],
];
const LIMIT: Duration = Duration::from_secs(1800);

/// A kernel that is ready to boot.
#[derive(Clone, Debug)]
pub(crate) struct Kernel {
    /// The image.
    pub(crate) image: PathBuf,
    /// Its release, as it names itself.
    pub(crate) release: String,
    /// Where it came from, in words.
    pub(crate) origin: String,
}

/// What Debian calls an architecture.
fn debian_name(arch: Arch) -> &'static str {
    match arch {
        Arch::X86_64 => "amd64",
        Arch::Aarch64 => "arm64",
    }
}

/// Where everything about Linux is kept.
pub(crate) fn directory() -> PathBuf {
    repository().join("target/linux")
}

/// The version that a person may name: numbers with points between them, as the beginning of a release.
pub(crate) fn check_version(version: &str) -> anyhow::Result<()> {
    let good = version.split('.').all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()));
    if good && version.contains('.') {
        return Ok(());
    }
    Err(bad_input(format!("--kernel {version} is not a version; give one like 6.12 or 6.12.117")))
}

/// A kernel of `version` for `arch`: from the cache, or the newest that Debian has.
pub(crate) fn obtain(arch: Arch, version: &str) -> anyhow::Result<Kernel> {
    if let Some(kernel) = cached(arch, version) {
        return Ok(kernel);
    }
    let apt = Apt::new(arch)?;
    for suites in SUITES {
        let names: Vec<&str> = suites.iter().map(|(_, suite)| *suite).collect();
        let step = Step::begin(format!("linux: reading the package lists of {} ({MIRROR})", names.join(", ")));
        apt.update(suites)?;
        step.done();
        if let Some(offer) = apt.newest(version)? {
            return fetch(&apt, &offer);
        }
    }
    Err(bad_input(format!("Debian has no kernel {version} for {}; --package takes a package file", arch.name())))
}

/// The kernel in a package file that a person gives.
pub(crate) fn given(arch: Arch, package: &Path) -> anyhow::Result<Kernel> {
    unpack(arch, package, &format!("{}\n", package.display()))
}

/// The newest cached kernel of a version.
fn cached(arch: Arch, version: &str) -> Option<Kernel> {
    let directory = directory().join("kernels");
    let releases = std::fs::read_dir(directory).ok()?.flatten().filter_map(|e| e.file_name().into_string().ok());
    let newest = releases.filter(|r| is_stock(r, arch) && is_of(r, version)).max_by_key(|r| numbers(r))?;
    kept(&newest)
}

fn kept(release: &str) -> Option<Kernel> {
    let image = directory().join("kernels").join(release).join("vmlinuz");
    let origin = std::fs::read_to_string(image.with_file_name("origin")).ok()?;
    image.is_file().then(|| Kernel { image, release: release.to_owned(), origin: origin.trim().to_owned() })
}

/// The numbers at the beginning of a release, for comparison; with that of its interface, where it has one.
fn numbers(release: &str) -> Vec<u64> {
    let end = release.find(|c: char| !c.is_ascii_digit() && !['.', '-'].contains(&c)).unwrap_or(release.len());
    release[..end].split(['.', '-']).map_while(|part| part.parse().ok()).collect()
}

fn is_of(release: &str, version: &str) -> bool {
    numbers(release).starts_with(&numbers(version))
}

/// Whether a release is the plain kernel for an architecture: between its version and the architecture's name there is
/// nothing, or, up to 6.1, the number of its interface.
fn is_stock(release: &str, arch: Arch) -> bool {
    let version = release.strip_suffix(debian_name(arch)).and_then(|r| r.strip_suffix('-'));
    let plain = |version: &str| version.split_once('-').is_none_or(|(_, rest)| rest.parse::<u32>().is_ok());
    version.is_some_and(plain)
}

/// A package, where it is, and what it weighs.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Offer {
    package: String,
    url: String,
    file: String,
    bytes: u64,
    hash: String,
}

/// What apt-get says of a package that it would download.
fn parse_offer(package: &str, text: &str) -> Option<Offer> {
    let mut words = text.lines().find(|l| l.starts_with('\''))?.split_ascii_whitespace();
    let url = words.next()?.trim_matches('\'').to_owned();
    let (file, bytes, hash) = (words.next()?.to_owned(), words.next()?.parse().ok()?, words.next()?.to_owned());
    Some(Offer { package: package.to_owned(), url, file, bytes, hash })
}

/// apt on directories of its own.
struct Apt {
    arch: Arch,
    root: PathBuf,
}

impl Apt {
    fn new(arch: Arch) -> anyhow::Result<Apt> {
        for program in ["apt-get", "dpkg-deb", "tar"] {
            ensure!(
                find_program(program).is_some(),
                "there is no {program}, which finds and unpacks Debian's kernels; give a kernel package with --package"
            );
        }
        ensure!(
            Path::new(KEYS).is_file(),
            "there is no {KEYS}, by which Debian's packages are checked; install debian-archive-keyring, or give a package with --package"
        );
        let root = directory().join(format!("apt-{}", arch.name()));
        for part in ["lists/partial", "cache/archives/partial"] {
            std::fs::create_dir_all(root.join(part)).with_context(|| format!("cannot write to {}", root.display()))?;
        }
        Ok(Apt { arch, root })
    }

    fn run(&self, program: &str, arguments: &[&str]) -> anyhow::Result<child::Finished> {
        let mut command = Command::new(program);
        let (root, name) = (self.root.display(), debian_name(self.arch));
        for setting in [
            format!("Dir::Etc::sourcelist={root}/sources.list"),
            "Dir::Etc::sourceparts=-".into(),
            format!("Dir::State::lists={root}/lists"),
            format!("Dir::Cache={root}/cache"),
            "Dir::State::status=/dev/null".into(),
            format!("APT::Architecture={name}"),
            format!("APT::Architectures={name}"),
            "Acquire::Languages=none".into(),
            "Acquire::Retries=3".into(),
            // As root, apt would give the download to a user who may not write here.
            "APT::Sandbox::User=root".into(),
        ] {
            command.arg("-o").arg(setting);
        }
        child::run(command.args(arguments).current_dir(&self.root), LIMIT, false)
    }

    fn update(&self, suites: &[(&str, &str)]) -> anyhow::Result<()> {
        let line =
            |(directory, suite): &(&str, &str)| format!("deb [signed-by={KEYS}] {MIRROR}/{directory} {suite} main\n");
        std::fs::write(self.root.join("sources.list"), suites.iter().map(line).collect::<String>())?;
        let done = self.run("apt-get", &["update"])?;
        let last = child::last_lines(&done.stderr, 2).join("; ");
        ensure!(done.status.success(), "Debian's package lists cannot be read: {last}; --package takes a package file");
        Ok(())
    }

    /// The newest stock kernel of a version, if the lists have one.
    fn newest(&self, version: &str) -> anyhow::Result<Option<Offer>> {
        const PREFIX: &str = "linux-image-";
        let done = self.run("apt-cache", &["pkgnames", PREFIX])?;
        let releases = done.stdout.lines().filter_map(|l| l.trim().strip_prefix(PREFIX));
        let mut releases: Vec<&str> =
            releases.filter(|r| is_stock(r, self.arch) && is_of(r, version) && numbers(r).len() > 2).collect();
        releases.sort_by_key(|r| std::cmp::Reverse(numbers(r)));
        // Names stay in the lists longer than packages do.
        for release in releases.into_iter().take(8) {
            // Of newer releases the image itself is in a package of its own, on which the one that is named for it
            // depends.
            for prefix in ["linux-binary-", PREFIX] {
                let package = format!("{prefix}{release}");
                let done = self.run("apt-get", &["--print-uris", "download", &package])?;
                if let Some(offer) = parse_offer(&package, &done.stdout) {
                    return Ok(Some(offer));
                }
            }
        }
        Ok(None)
    }
}

fn fetch(apt: &Apt, offer: &Offer) -> anyhow::Result<Kernel> {
    eprintln!("linux: {} is fetched and unpacked below {}, not installed", offer.package, directory().display());
    let megabytes = offer.bytes as f64 / 1e6;
    let step = Step::begin(format!("linux: fetching {} ({megabytes:.1} MB)", offer.url));
    let done = apt.run("apt-get", &["download", &offer.package])?;
    if !done.status.success() {
        step.failed();
        bail!("{} cannot be fetched: {}", offer.url, child::last_lines(&done.stderr, 2).join("; "));
    }
    step.done();
    // apt decodes the name in its URL, but for the characters that may not be in a file's name.
    let file = apt.root.join(offer.file.replace("%3a", ":"));
    let file = if file.is_file() { file } else { apt.root.join(&offer.file) };
    let kernel = unpack(apt.arch, &file, &format!("{} {}\n", offer.url, offer.hash));
    let _ = std::fs::remove_file(&file);
    kernel
}

/// Takes the kernel image out of a package.
fn unpack(arch: Arch, package: &Path, origin: &str) -> anyhow::Result<Kernel> {
    let step = Step::begin(format!("linux: unpacking the kernel image of {}", package.display()));
    let place = directory().join("kernels").join(format!("new-{}", std::process::id()));
    std::fs::create_dir_all(&place).with_context(|| format!("cannot write to {}", place.display()))?;
    let result = unpack_into(arch, package, origin, &place);
    let _ = std::fs::remove_dir_all(&place);
    if result.is_ok() {
        step.done()
    } else {
        step.failed()
    }
    result
}

fn unpack_into(arch: Arch, package: &Path, origin: &str, place: &Path) -> anyhow::Result<Kernel> {
    let taken = |which: &str, renamed: &str| {
        let (mut from, mut to) = (Command::new("dpkg-deb"), Command::new("tar"));
        from.arg("--fsys-tarfile").arg(package);
        to.args(["-x", "--wildcards", "--no-same-owner", "--transform", renamed, "-C"]).arg(place).arg(which);
        child::pipe(&mut from, &mut to, LIMIT)
    };
    // Where older packages have it, and newer ones.
    taken("./boot/vmlinuz-*", r"s,^\./boot/,,")
        .or_else(|_| taken("./usr/lib/modules/*/vmlinuz", r"s,^.*/\([^/]*\)/vmlinuz$,vmlinuz-\1,"))
        .with_context(|| format!("{} cannot be unpacked", package.display()))?;
    let images: Vec<String> =
        std::fs::read_dir(place)?.flatten().filter_map(|e| e.file_name().into_string().ok()).collect();
    let release = images.iter().find_map(|name| name.strip_prefix("vmlinuz-"));
    let release = release.ok_or_else(|| bad_input(format!("there is no kernel in {}", package.display())))?.to_owned();
    if !release.ends_with(debian_name(arch)) {
        return Err(bad_input(format!("the kernel {release} in {} is not for {}", package.display(), arch.name())));
    }
    let kept_in = directory().join("kernels").join(&release);
    std::fs::write(place.join("origin"), origin)?;
    std::fs::rename(place.join(format!("vmlinuz-{release}")), place.join("vmlinuz"))?;
    let _ = std::fs::remove_dir_all(&kept_in);
    std::fs::rename(place, &kept_in)?;
    kept(&release).ok_or_else(|| anyhow!("{} was unpacked and is gone", kept_in.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_offer_is_read() {
        let text = "Warning: something\n'http://deb.debian.org/debian-security/pool/l/linux-image-6.12.117%2bdeb12-arm64_6.12.117-1%7edeb12u1_arm64.deb' \
                    linux-image-6.12.117+deb12-arm64_6.12.117-1~deb12u1_arm64.deb 93045540 SHA256:29593b2a\n";
        let offer = parse_offer("linux-image-6.12.117+deb12-arm64", text).unwrap();
        assert_eq!((offer.bytes, offer.hash.as_str()), (93_045_540, "SHA256:29593b2a"));
        assert_eq!(offer.file, "linux-image-6.12.117+deb12-arm64_6.12.117-1~deb12u1_arm64.deb");
        assert!(offer.url.starts_with("http://") && offer.url.ends_with("_arm64.deb"));
        assert_eq!(parse_offer("x", "E: Unable to locate package x"), None);
    }

    #[test]
    fn only_stock_kernels_of_the_version_count() {
        assert!(is_stock("6.12.117+deb12-amd64", Arch::X86_64) && is_of("6.12.117+deb12-amd64", "6.12"));
        assert!(is_stock("6.1.0-42-amd64", Arch::X86_64) && is_of("6.1.0-42-amd64", "6.1"));
        assert!(numbers("6.1.0-42-amd64") > numbers("6.1.0-9-amd64"));
        for other in [
            "6.1.0-42-cloud-amd64",
            "6.12.117+deb12-rt-amd64",
            "6.12.117+deb12-amd64-unsigned",
            "6.12.117+deb12-arm64",
            "amd64",
        ] {
            assert!(!is_stock(other, Arch::X86_64), "{other}");
        }
        assert!(!is_stock("6.12.117+deb12-arm64-16k", Arch::Aarch64));
        assert!(!is_of("6.1.176-amd64", "6.12") && !is_of("6.12.117+deb12-amd64", "6.1"));
        assert!(is_of("6.12.117+deb12-amd64", "6.12.117"));
        assert!(numbers("6.12.117+deb12-amd64") > numbers("6.12.99+deb12-amd64"));
    }

    #[test]
    fn versions_are_numbers() {
        assert!(check_version("6.12").is_ok() && check_version("6.12.117").is_ok());
        for wrong in ["6", "v6.12", "6.12-rc1", "6..12", ""] {
            assert!(check_version(wrong).is_err(), "{wrong}");
        }
    }
}
