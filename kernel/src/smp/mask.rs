//! Sets of CPUs: a plain value, and one that several CPUs change.

use crate::addr::{CpuId, MAX_CPUS};
use crate::atomic::{AtomicU64, Ordering};

const WORDS: usize = MAX_CPUS / 64;

/// A set of CPUs, by value.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct CpuMask {
    words: [u64; WORDS],
}

impl CpuMask {
    /// No CPU.
    pub const EMPTY: CpuMask = CpuMask { words: [0; WORDS] };

    /// The CPUs below `count`.
    pub fn first(count: usize) -> CpuMask {
        let mut mask = CpuMask::EMPTY;
        for i in 0..count {
            mask.insert(CpuId(i as u16));
        }
        mask
    }

    /// One CPU.
    pub fn only(cpu: CpuId) -> CpuMask {
        let mut mask = CpuMask::EMPTY;
        mask.insert(cpu);
        mask
    }

    /// Adds `cpu`.
    #[inline]
    pub fn insert(&mut self, cpu: CpuId) {
        self.words[cpu.index() / 64] |= 1 << (cpu.index() % 64);
    }

    /// Removes `cpu`.
    #[inline]
    pub fn remove(&mut self, cpu: CpuId) {
        self.words[cpu.index() / 64] &= !(1 << (cpu.index() % 64));
    }

    /// Whether `cpu` is in it.
    #[inline]
    pub fn contains(&self, cpu: CpuId) -> bool {
        self.words[cpu.index() / 64] & (1 << (cpu.index() % 64)) != 0
    }

    /// Whether it is empty.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.words.iter().all(|w| *w == 0)
    }

    /// How many CPUs are in it.
    #[inline]
    pub fn count(&self) -> u32 {
        self.words.iter().map(|w| w.count_ones()).sum()
    }

    /// The CPUs of both sets together.
    pub fn union(&self, other: &CpuMask) -> CpuMask {
        CpuMask { words: core::array::from_fn(|i| self.words[i] | other.words[i]) }
    }

    /// The CPUs that are in both sets.
    pub fn intersection(&self, other: &CpuMask) -> CpuMask {
        CpuMask { words: core::array::from_fn(|i| self.words[i] & other.words[i]) }
    }

    /// The CPUs of this set that are not in `other`.
    pub fn without(&self, other: &CpuMask) -> CpuMask {
        CpuMask { words: core::array::from_fn(|i| self.words[i] & !other.words[i]) }
    }

    /// Whether every CPU of this set is in `other`.
    pub fn is_subset(&self, other: &CpuMask) -> bool {
        self.without(other).is_empty()
    }

    /// The CPUs in ascending order.
    #[inline]
    pub fn iter(&self) -> Cpus<'_> {
        Cpus { words: &self.words, at: 0, left: self.words[0] }
    }
}

/// The CPUs of a set, in ascending order.
#[derive(Clone, Debug)]
pub struct Cpus<'m> {
    words: &'m [u64; WORDS],
    /// The word that is under way.
    at: usize,
    /// What is left of it.
    left: u64,
}

impl Iterator for Cpus<'_> {
    type Item = CpuId;

    #[inline]
    fn next(&mut self) -> Option<CpuId> {
        while self.left == 0 {
            self.left = *self.words.get(self.at + 1)?;
            self.at += 1;
        }
        let bit = self.left.trailing_zeros() as u16;
        self.left &= self.left - 1;
        Some(CpuId((self.at * 64) as u16 + bit))
    }
}

impl FromIterator<CpuId> for CpuMask {
    fn from_iter<I: IntoIterator<Item = CpuId>>(cpus: I) -> CpuMask {
        let mut mask = CpuMask::EMPTY;
        for cpu in cpus {
            mask.insert(cpu);
        }
        mask
    }
}

/// A set of CPUs that several CPUs change and read.
#[derive(Default)]
pub struct AtomicCpuMask {
    words: [AtomicU64; WORDS],
}

impl AtomicCpuMask {
    /// No CPU.
    pub fn new() -> AtomicCpuMask {
        AtomicCpuMask::default()
    }

    /// Adds `cpu`; says whether it was in already. The caller's ordering: see each use for what it pairs with.
    #[inline]
    #[cfg_attr(any(loom, feature = "observed"), track_caller)]
    pub fn insert(&self, cpu: CpuId, order: Ordering) -> bool {
        let bit = 1 << (cpu.index() % 64);
        self.words[cpu.index() / 64].fetch_or(bit, order) & bit != 0
    }

    /// Removes `cpu`.
    #[inline]
    #[cfg_attr(any(loom, feature = "observed"), track_caller)]
    pub fn remove(&self, cpu: CpuId, order: Ordering) {
        self.words[cpu.index() / 64].fetch_and(!(1 << (cpu.index() % 64)), order);
    }

    /// Whether `cpu` is in it.
    #[inline]
    pub fn contains(&self, cpu: CpuId) -> bool {
        self.words[cpu.index() / 64].load(Ordering::Relaxed) & (1 << (cpu.index() % 64)) != 0
    }

    /// A copy. Words are read one by one.
    #[inline]
    #[cfg_attr(any(loom, feature = "observed"), track_caller)]
    pub fn load(&self, order: Ordering) -> CpuMask {
        let mut mask = CpuMask::EMPTY;
        for (to, from) in mask.words.iter_mut().zip(&self.words) {
            *to = from.load(order);
        }
        mask
    }

    /// Takes all CPUs out, in ascending order, and does `what` for each; there are no others than the first `cpus`.
    /// Acquire: pairs with the release of [`AtomicCpuMask::insert`].
    #[inline]
    pub fn take_each(&self, cpus: usize, mut what: impl FnMut(CpuId)) {
        for (at, word) in self.words.iter().take(cpus.div_ceil(64)).enumerate() {
            // A plain read first: most words are empty, and a read-modify-write of each would cost more than the call.
            if word.load(Ordering::Relaxed) == 0 {
                continue;
            }
            let mut taken = word.swap(0, Ordering::Acquire);
            while taken != 0 {
                what(CpuId((at * 64) as u16 + taken.trailing_zeros() as u16));
                taken &= taken - 1;
            }
        }
    }

    /// Replaces the set.
    #[cfg_attr(any(loom, feature = "observed"), track_caller)]
    pub fn store(&self, mask: &CpuMask, order: Ordering) {
        for (word, value) in self.words.iter().zip(mask.words) {
            word.store(value, order);
        }
    }
}
