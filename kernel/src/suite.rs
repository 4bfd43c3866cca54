//! What to run: the kernel command line, and the order of the cells that it stands for.
//!
//! Words are `key=value`, separated by spaces; lists are separated by commas. Keys: `strategies`, `transport`, `workloads`,
//! `modes`, `ops`, `seed`, `hook`, `engine`, `inject`. Unknown words are refused with the word in the message. Cells are ordered by
//! strategy, then workload, then mode, each in the order given.

/// A name of the command line, and what it stands for in one line.
pub type Named = (&'static str, &'static str);

/// What the other CPUs do while the operations run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Mode {
    /// Walkers of the same mm, on other pages.
    Same = 0,
    /// Walkers of the same mm, on the range that the operation changes: where verdicts come from.
    Contend = 1,
    /// Walkers of another mm.
    Other = 2,
    /// Nothing.
    Idle = 3,
    /// Loops that read user memory of the same mm through the TLB.
    Spin = 4,
    /// The mm stays loaded but unused.
    Lazy = 5,
}

impl Mode {
    /// All modes, in the order of their numbers.
    pub const NAMES: &'static [Named] = &[
        ("same", "walkers of the same mm on every other CPU, on other pages"),
        ("contend", "walkers on every other CPU, on the very range that the operation changes"),
        ("other", "walkers of another mm on every other CPU"),
        ("idle", "every other CPU is idle"),
        ("spin", "every other CPU reads user memory of the same mm through its TLB"),
        ("lazy", "every other CPU is idle with the mm still loaded"),
    ];
}
