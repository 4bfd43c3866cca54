//! What this CPU can do with translations, by CPUID; nothing of it is assumed.
//!
//! | | found by | without it |
//! |---|---|---|
//! | tags: PCID *and* INVPCID | leaf 1, ECX\[17\]; leaf 7, EBX\[10\] | every mm has tag 0, and a write of CR3 drops what the last one left |
//! | broadcast: INVLPGB and TLBSYNC | leaf 8000_0008, EBX\[3\]; pages in one, less one: EDX\[15:0\] | an NMI plays it ([`kernel::tlb::transport::nmi`]) |
//!
//! PCID without INVPCID (Intel before Haswell) is left alone: nothing could then drop what is tagged with an mm that is
//! not loaded, but by loading it. The boot CPU asks, before anything is mapped; all CPUs are taken to be alike. QEMU's
//! emulated CPUs have neither.

use core::sync::atomic::{AtomicU32, Ordering};

use raw_cpuid::{CpuId, CpuIdReader};

/// How many tags PCID has.
pub const PCIDS: u32 = 1 << 12;

/// What was found.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Translation {
    /// Translations can be tagged.
    pub tags: bool,
    /// How many pages one INVLPGB can take; 0 where there is no such instruction.
    pub broadcast_pages: u32,
}

impl Translation {
    /// As `cpuid` says.
    pub fn of<R: CpuIdReader>(cpuid: &CpuId<R>) -> Translation {
        let pcid = cpuid.get_feature_info().is_some_and(|f| f.has_pcid());
        let invpcid = cpuid.get_extended_feature_info().is_some_and(|f| f.has_invpcid());
        let capacity = cpuid.get_processor_capacity_feature_info();
        let broadcast = capacity.filter(|f| f.has_invlpgb()).map_or(0, |f| u32::from(f.invlpgb_max_pages()) + 1);
        Translation { tags: pcid && invpcid, broadcast_pages: broadcast }
    }
}

/// Bit 0: tags. Above: pages in one INVLPGB.
static FOUND: AtomicU32 = AtomicU32::new(0);

/// Notes what the boot CPU has found.
pub fn note(found: Translation) {
    // Relaxed, here and below: other CPUs are started afterwards, which orders it.
    FOUND.store(found.broadcast_pages << 1 | u32::from(found.tags), Ordering::Relaxed);
}

/// Whether translations are tagged.
#[inline(always)]
pub fn tags() -> bool {
    FOUND.load(Ordering::Relaxed) & 1 != 0
}

/// How many pages one INVLPGB takes; 0 where there is none.
#[inline(always)]
pub fn broadcast_pages() -> u32 {
    FOUND.load(Ordering::Relaxed) >> 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use raw_cpuid::CpuIdResult;

    /// A CPU that answers these leaves, and others with zeroes.
    #[derive(Clone)]
    struct Answers {
        vendor: [u32; 3],
        leaf_1_ecx: u32,
        leaf_7_ebx: u32,
        capacity_ebx: u32,
        capacity_edx: u32,
    }

    const AMD: [u32; 3] = [0x6874_7541, 0x444d_4163, 0x6974_6e65];
    const INTEL: [u32; 3] = [0x756e_6547, 0x6c65_746e, 0x4965_6e69];

    impl CpuIdReader for Answers {
        fn cpuid2(&self, eax: u32, _ecx: u32) -> CpuIdResult {
            let answer = |eax, ebx, ecx, edx| CpuIdResult { eax, ebx, ecx, edx };
            match eax {
                0 => answer(7, self.vendor[0], self.vendor[1], self.vendor[2]),
                1 => answer(0, 0, self.leaf_1_ecx, 0),
                7 => answer(0, self.leaf_7_ebx, 0, 0),
                0x8000_0000 => answer(0x8000_0008, 0, 0, 0),
                0x8000_0008 => answer(0x3030, self.capacity_ebx, 0, self.capacity_edx),
                _ => answer(0, 0, 0, 0),
            }
        }
    }

    const NOTHING: Answers = Answers { vendor: AMD, leaf_1_ecx: 0, leaf_7_ebx: 0, capacity_ebx: 0, capacity_edx: 0 };

    fn found(answers: Answers) -> Translation {
        Translation::of(&CpuId::with_cpuid_reader(answers))
    }

    #[test]
    fn nothing_is_assumed() {
        assert_eq!(found(NOTHING), Translation::default());
        // All bits but those that count, and a count without its instruction.
        let others = Answers {
            leaf_1_ecx: !(1 << 17),
            leaf_7_ebx: !(1 << 10),
            capacity_ebx: !(1 << 3),
            capacity_edx: 7,
            ..NOTHING
        };
        assert_eq!(found(others), Translation::default());
    }

    #[test]
    fn tags_take_both_bits() {
        let both = Answers { vendor: INTEL, leaf_1_ecx: 1 << 17, leaf_7_ebx: 1 << 10, ..NOTHING };
        assert_eq!(found(both.clone()), Translation { tags: true, broadcast_pages: 0 });
        assert!(!found(Answers { leaf_1_ecx: 0, ..both.clone() }).tags);
        assert!(!found(Answers { leaf_7_ebx: 0, ..both }).tags);
    }

    /// The count in CPUID is of pages beyond the first.
    #[test]
    fn a_broadcast_takes_one_page_more_than_its_count() {
        let zen = Answers { capacity_ebx: 1 << 3, capacity_edx: 7, ..NOTHING };
        assert_eq!(found(zen.clone()), Translation { tags: false, broadcast_pages: 8 });
        assert_eq!(found(Answers { capacity_edx: 0xabcd_0000, ..zen.clone() }).broadcast_pages, 1);
        assert_eq!(found(Answers { capacity_edx: 0xffff, ..zen }).broadcast_pages, 0x1_0000);
    }
}
