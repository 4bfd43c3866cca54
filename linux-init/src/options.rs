//! What the init is told: `workload=…`, `mode=…` and `ops=…`, behind `-- count` on Linux's command line.
//!
//! Linux gives its init what stands behind `--`, and before that every word that it does not know itself.

/// An operation, as the system call that does it; the names are those of our kernel's workloads, of which each is the
/// model or the copy.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub enum Workload {
    Munmap2m,
    Munmap4k,
    Dontneed2m,
    Dontneed4k,
    Mprotect2m,
    Mprotect4k,
    CollapseAnon,
    CollapseShmem,
    MunmapPrivate,
    UnshareMunmapLast,
    UnshareMunmap3way,
    UnshareMprotectLast,
    UnshareExit,
}

impl Workload {
    /// All, in the order of their names.
    pub const ALL: [Workload; 13] = [
        Workload::Munmap2m,
        Workload::Munmap4k,
        Workload::Dontneed2m,
        Workload::Dontneed4k,
        Workload::Mprotect2m,
        Workload::Mprotect4k,
        Workload::CollapseAnon,
        Workload::CollapseShmem,
        Workload::MunmapPrivate,
        Workload::UnshareMunmapLast,
        Workload::UnshareMunmap3way,
        Workload::UnshareMprotectLast,
        Workload::UnshareExit,
    ];

    /// Its name. What only hugetlb has is called so; the sharing of tables is called as in our kernel.
    pub const fn name(self) -> &'static str {
        match self {
            Workload::Munmap2m => "munmap_2m",
            Workload::Munmap4k => "munmap_4k",
            Workload::Dontneed2m => "dontneed_2m",
            Workload::Dontneed4k => "dontneed_4k",
            Workload::Mprotect2m => "mprotect_2m",
            Workload::Mprotect4k => "mprotect_4k",
            Workload::CollapseAnon => "collapse_anon",
            Workload::CollapseShmem => "collapse_shmem_ptemapped",
            Workload::MunmapPrivate => "hugetlb_munmap_private",
            Workload::UnshareMunmapLast => "unshare_munmap_last",
            Workload::UnshareMunmap3way => "unshare_munmap_3way",
            Workload::UnshareMprotectLast => "unshare_mprotect_last",
            Workload::UnshareExit => "unshare_exit",
        }
    }
}

/// What the other CPUs do meanwhile.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// A thread of the same process on each walks by `get_user_pages_fast`, on pages of its own.
    Same,
    /// Another process on each does.
    Other,
    /// Nothing.
    Idle,
    /// A thread of the same process on each reads memory in user mode.
    Spin,
}

impl Mode {
    /// All, in the order of their names.
    pub const ALL: [Mode; 4] = [Mode::Same, Mode::Other, Mode::Idle, Mode::Spin];

    /// Its name, as in our kernel.
    pub const fn name(self) -> &'static str {
        match self {
            Mode::Same => "same",
            Mode::Other => "other",
            Mode::Idle => "idle",
            Mode::Spin => "spin",
        }
    }
}

/// Operations that are prepared together and done one after the other between two readings of the counters.
pub const BATCH: u64 = 8;

/// Stands before the words that are meant for the init.
pub const BEGIN: &str = "count";

/// What is to be done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Options<'a> {
    workloads: &'a str,
    modes: &'a str,
    /// Operations of each cell: a multiple of [`BATCH`].
    pub ops: u64,
}

impl<'a> Options<'a> {
    /// Reads the words behind [`BEGIN`]; the error is the word that is not understood, or the key that is missing.
    pub fn parse(words: impl Iterator<Item = &'a str>) -> Result<Options<'a>, &'a str> {
        let (mut workloads, mut modes, mut ops) = ("", "", 0);
        for word in words.skip_while(|word| *word != BEGIN).skip(1) {
            let (key, value) = word.split_once('=').ok_or(word)?;
            match key {
                "workload" if value.split(',').all(|name| workload(name).is_some()) => workloads = value,
                "mode" if value.split(',').all(|name| mode(name).is_some()) => modes = value,
                "ops" => ops = value.parse().ok().filter(|n| *n > 0 && *n % BATCH == 0).ok_or(word)?,
                _ => return Err(word),
            }
        }
        match (workloads, modes, ops) {
            ("", _, _) => Err("workload"),
            (_, "", _) => Err("mode"),
            (_, _, 0) => Err("ops"),
            _ => Ok(Options { workloads, modes, ops }),
        }
    }

    /// The operations.
    pub fn workloads(&self) -> impl Iterator<Item = Workload> + use<'a> {
        self.workloads.split(',').filter_map(workload)
    }

    /// The modes.
    pub fn modes(&self) -> impl Iterator<Item = Mode> + use<'a> {
        self.modes.split(',').filter_map(mode)
    }
}

fn workload(name: &str) -> Option<Workload> {
    Workload::ALL.into_iter().find(|w| w.name() == name)
}

fn mode(name: &str) -> Option<Mode> {
    Mode::ALL.into_iter().find(|m| m.name() == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_read_in_any_order() {
        let words = ["nokaslr", "count", "ops=24", "mode=same,idle", "workload=unshare_exit,munmap_2m"];
        let options = Options::parse(words.into_iter()).unwrap();
        assert_eq!(options.ops, 24);
        assert!(options.workloads().eq([Workload::UnshareExit, Workload::Munmap2m]));
        assert!(options.modes().eq([Mode::Same, Mode::Idle]));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let wrong = |words: &'static str| Options::parse([BEGIN].into_iter().chain(words.split(' '))).unwrap_err();
        assert_eq!(wrong("ops=24 mode=same"), "workload");
        assert_eq!(wrong("ops=24 workload=munmap_2m"), "mode");
        assert_eq!(wrong("mode=same workload=munmap_2m"), "ops");
        assert_eq!(wrong("ops=12 mode=same workload=munmap_2m"), "ops=12");
        assert_eq!(wrong("mode=contend"), "mode=contend");
        assert_eq!(wrong("workload=munmap_2m,fork"), "workload=munmap_2m,fork");
        assert_eq!(wrong("quiet"), "quiet");
        assert_eq!(Options::parse(["mode=same"].into_iter()), Err("workload"));
    }
}
