//! The classes of walkers: who walks, in which context, which mm. What a sync must wait for depends on it.

use crate::suite::Named;

/// A class of walkers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum WalkerClass {
    /// GUP-fast of the mm that is loaded, with interrupts masked.
    Gup = 0,
    /// The same, interrupted in the middle by an NMI that walks the same mm (Linux: `perf_get_page_size`).
    Nmi = 1,
    /// The same, interrupted by an NMI that walks another mm, which the CPU has not loaded.
    NmiOther = 2,
    /// A walk, with interrupts masked, of an mm that the CPU has not loaded (Linux: KVM's `host_pfn_mapping_level`).
    Foreign = 3,
    /// A reader in a read section of [`crate::smp::rcu`], with interrupts on, that does not lock what it finds.
    Rcu = 4,
    /// GUP-fast of the loaded mm, with interrupts masked, that reads each entry as two words ([`crate::mm::two_word`]).
    TwoWord = 5,
}

impl WalkerClass {
    /// All classes by name, in the order of their numbers.
    pub const NAMES: &'static [Named] = &[
        ("gup", "GUP-fast of the loaded mm"),
        ("nmi", "GUP-fast, interrupted by an NMI that walks the same mm"),
        ("nmi-other", "GUP-fast, interrupted by an NMI that walks an mm that is not loaded"),
        ("foreign", "a walk of an mm that is not loaded"),
        ("rcu", "a reader under RCU with interrupts on, that takes no lock"),
        ("two-word", "GUP-fast of the loaded mm, that reads each entry as two words, one after the other"),
    ];

    /// All classes, in the order of their numbers.
    pub const ALL: [WalkerClass; 6] = [
        WalkerClass::Gup,
        WalkerClass::Nmi,
        WalkerClass::NmiOther,
        WalkerClass::Foreign,
        WalkerClass::Rcu,
        WalkerClass::TwoWord,
    ];

    /// Whether all its walks are of an mm that the CPU has loaded: then every walker is in the mm's mask.
    pub const fn walks_loaded_mm_only(self) -> bool {
        matches!(self, WalkerClass::Gup | WalkerClass::Nmi | WalkerClass::TwoWord)
    }

    /// Whether it holds interrupts off: then an acknowledgement at interrupt level says that its walk is over.
    pub const fn masks_interrupts(self) -> bool {
        !matches!(self, WalkerClass::Rcu)
    }

    /// Whether it is interrupted by NMIs that walk.
    pub const fn nests(self) -> bool {
        matches!(self, WalkerClass::Nmi | WalkerClass::NmiOther)
    }
}
