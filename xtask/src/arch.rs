//! The one table of architectures: everything that differs between them, seen from the host.

use crate::error::bad_input;

/// An architecture that the kernel boots on.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Arch {
    /// A microvm with local APICs.
    X86_64,
    /// The `virt` board with a GICv3.
    Aarch64,
}

impl Arch {
    /// All of them, in the order of reports.
    pub(crate) const ALL: [Arch; 2] = [Arch::X86_64, Arch::Aarch64];

    /// As on the command line and in the results.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Arch::X86_64 => "x86_64",
            Arch::Aarch64 => "aarch64",
        }
    }

    /// The compiler's target.
    pub(crate) fn target(self) -> &'static str {
        match self {
            Arch::X86_64 => "x86_64-unknown-none",
            Arch::Aarch64 => "aarch64-unknown-none-softfloat",
        }
    }

    /// Code generation beyond what every architecture gets.
    pub(crate) fn target_features(self) -> Option<&'static str> {
        match self {
            Arch::X86_64 => None,
            Arch::Aarch64 => Some("+lse"),
        }
    }

    /// The emulator's program.
    pub(crate) fn qemu(self) -> &'static str {
        match self {
            Arch::X86_64 => "qemu-system-x86_64",
            Arch::Aarch64 => "qemu-system-aarch64",
        }
    }

    /// The Debian package of the emulator.
    pub(crate) fn qemu_package(self) -> &'static str {
        match self {
            Arch::X86_64 => "qemu-system-x86",
            Arch::Aarch64 => "qemu-system-arm",
        }
    }

    /// Options that make the machine and its way out.
    pub(crate) fn machine_args(self) -> &'static [&'static str] {
        match self {
            Arch::X86_64 => &["-M", "microvm,rtc=off", "-cpu", "max", "-device", "isa-debug-exit,iobase=0xf4,iosize=4"],
            Arch::Aarch64 => &["-M", "virt,gic-version=3,dtb-randomness=off", "-cpu", "max", "-semihosting"],
        }
    }

    /// The most CPUs that the machine starts.
    pub(crate) fn max_cpus(self) -> u32 {
        match self {
            Arch::X86_64 => 255,
            Arch::Aarch64 => 512,
        }
    }

    /// Physical address of the first byte of the memory file.
    pub(crate) fn ram_base(self) -> u64 {
        match self {
            Arch::X86_64 => 0,
            Arch::Aarch64 => 0x4000_0000,
        }
    }

    /// The transport that this architecture's usual kernels flush with.
    pub(crate) fn native_transport(self) -> &'static str {
        match self {
            Arch::X86_64 => "ipi",
            Arch::Aarch64 => "broadcast",
        }
    }

    /// What the guest's exit number is, given QEMU's exit status.
    pub(crate) fn guest_exit(self, status: i32) -> Option<u8> {
        match self {
            // isa-debug-exit turns the number n into the status 2n + 1.
            Arch::X86_64 if status & 1 == 1 => u8::try_from(status >> 1).ok(),
            Arch::X86_64 => None,
            Arch::Aarch64 => u8::try_from(status).ok(),
        }
    }
}

/// The architectures that an `--arch` option names.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct ArchChoice(pub(crate) Vec<Arch>);

/// Reads an `--arch` option: a name or `all`.
pub(crate) fn choose(given: &str) -> anyhow::Result<ArchChoice> {
    if given == "all" {
        return Ok(ArchChoice(Arch::ALL.to_vec()));
    }
    if let Some(arch) = Arch::ALL.into_iter().find(|a| a.name() == given) {
        return Ok(ArchChoice(vec![arch]));
    }
    let names = Arch::ALL.map(Arch::name).into_iter().chain(["all"]);
    let hint = match given {
        "arm64" | "armv8" | "arm" => "aarch64",
        "x86" | "amd64" | "x64" | "x86-64" => "x86_64",
        _ => crate::names::nearest(given, names),
    };
    Err(bad_input(format!("there is no architecture \"{given}\"; did you mean \"{hint}\"? (x86_64, aarch64 or all)")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_or_all() {
        assert_eq!(choose("aarch64").unwrap().0, [Arch::Aarch64]);
        assert_eq!(choose("all").unwrap().0, Arch::ALL);
    }

    #[test]
    fn another_name_is_answered_with_the_nearest() {
        assert!(choose("arm64").unwrap_err().to_string().contains("\"aarch64\""));
        assert!(choose("x86-64").unwrap_err().to_string().contains("\"x86_64\""));
        assert!(choose("aarch").unwrap_err().to_string().contains("\"aarch64\""));
    }

    #[test]
    fn exit_statuses_are_decoded_as_each_machine_encodes_them() {
        assert_eq!(Arch::X86_64.guest_exit(0x21), Some(0x10));
        assert_eq!(Arch::X86_64.guest_exit(0), None);
        assert_eq!(Arch::Aarch64.guest_exit(0x10), Some(0x10));
    }
}
