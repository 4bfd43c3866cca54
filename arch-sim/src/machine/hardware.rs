//! What the simulated hardware does, part by part, each with where it is written; and what it does as it should, which
//! can be taken away.
//!
//! Each part has a switch ([`Parts`], or one of [`Hardware`]'s own), and a control that is wrong with the part on and
//! its guard taken away, and not wrong with the part off: `tests/parts.rs`.
//!
//! | part | where | from |
//! |---|---|---|
//! | translations, tagged by address space, or global | [`super::mmu`], `Leaf` | Intel SDM vol. 3A, 4.10.1 and 4.10.2; Arm ARM (DDI 0487), chapter D8 (TLB entries: nG, ASID) |
//! | entries above the leaves, by level | [`super::mmu`], `Above`; [`Parts::walk_caches`] | Intel SDM vol. 3A, 4.10.3; Arm ARM, chapter D8 (intermediate caching of walks) |
//! | walks step by step: between two reads a walk has the address of a table | [`Parts::stepwise`] | Intel SDM vol. 3A, 4.10.2.3 (a walk may be under way when its entries change); Arm ARM, chapter D8 (translation table walks, completion of TLBI) |
//! | walks at any time, also from a cached entry | `World::fill`, `World::hardware_acts`; [`Parts::speculation`] | Intel SDM vol. 3A, 4.10.2.3; Arm ARM, chapter D8 (TLBs may be filled at any time) |
//! | accessed and dirty bits | `Sim::write_user`, [`Hardware::preset`] | Intel SDM vol. 3A, 4.8; Arm ARM, chapter D8 (hardware management of the Access flag and dirty state) |
//! | invalidation by address: what it takes above the leaves | [`Hardware::on_the_way`] | Intel SDM vol. 3A, 4.10.4.1; AMD APM vol. 2, 5.5; Arm ARM, chapter D8 (TLBI, last level) |
//! | broadcast and its completion | [`Hardware::completion`] | Arm ARM, chapter D8 (completion of TLB maintenance); AMD APM vol. 3, INVLPGB and TLBSYNC |
//! | two entries for one address | [`Conflict`] | Intel SDM vol. 3A, 4.10.2.3; Arm ARM, chapter D8 (break-before-make, TLB conflict aborts) |
//! | stores seen late | [`crate::explore::hub`] | Sewell and others, x86-TSO, CACM 53(7), 2010 |
//! | a frozen CPU | [`crate::explore::Execution`], a process of its own | KVM: `KVM_VCPU_PREEMPTED`, `kvm_flush_tlb_multi` in Linux |

/// What may become of an access for which two entries are cached that do not agree.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Conflict {
    /// It goes by one of the two, either (x86).
    Either,
    /// By one of the two, by a mixture of both, or it faults (Arm: constrained unpredictable).
    Any,
}

/// What hardware does that nobody asked it to, and that no kernel can do without reckoning with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Parts {
    /// Translations are cached.
    pub tlb: bool,
    /// By level, PGD, PUD, PMD: entries that point at a table are cached.
    pub walk_caches: [bool; 3],
    /// A walk goes step by step: between two of its reads it has the address of a table, cached or not, and goes on
    /// with it whatever memory says by then, until an invalidation ends it as it would take a cached entry.
    pub stepwise: bool,
    /// Walks are made at any time, for any address that matters, and not only when a program translates.
    pub speculation: bool,
    /// A broadcast arrives as late as it may: when it is waited for. Off: when it is sent.
    pub late: bool,
    /// Global entries match whatever tag is current.
    pub global: bool,
    /// Hardware notes in an entry that it has written by it, where [`Hardware::preset`] leaves it that to do.
    pub dirty: bool,
    /// An invalidation by address leaves the rest of the address space cached. Off: it takes everything, as QEMU's does
    /// for a long range.
    pub by_address: bool,
    /// A hypervisor stops CPUs, on transport `paravirt`.
    pub freezes: bool,
}

impl Parts {
    /// All on.
    pub const ALL: Parts = Parts {
        tlb: true,
        walk_caches: [true; 3],
        stepwise: true,
        speculation: true,
        late: true,
        global: true,
        dirty: true,
        by_address: true,
        freezes: true,
    };
}

/// What the hardware does as it should; each can be taken away.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Hardware {
    /// How many address spaces can be told apart in a TLB, the kernel's included: 1 where translations are not tagged.
    /// `None`: as the machine has it, 1 on `Sim<false>`, 256 on `Sim<true>`. ASID; PCID.
    pub asids: Option<u32>,
    /// There are instructions that invalidate on all CPUs: `TLBI …IS`; INVLPGB. `None`: on `Sim<true>`.
    pub broadcast: Option<bool>,
    /// An invalidation for removed tables takes paging-structure caches too. Control 20: `TLBI VALE1IS` where `VAE1IS`
    /// is needed.
    pub all_levels: bool,
    /// An invalidation by address takes of the entries above the leaves those on the way to that address alone (Arm);
    /// else all of the address space (x86: INVLPG).
    pub on_the_way: bool,
    /// Whoever broadcasts waits until all have invalidated: DSB, TLBSYNC. Controls 21 (b), 23 (a).
    pub completion: bool,
    /// A broadcast reaches other CPUs: the inner-shareable form. Control 21 (d).
    pub shareable: bool,
    /// Entries of an address space are not global (nG, or G clear). Global ones match whatever tag is current, and an
    /// invalidation of an address space leaves them.
    pub not_global: bool,
    /// The wait for a broadcast ends when it is complete. False: when it is sent for the first time since the last
    /// wait, it may end early (control 21 e). Arm's Cortex-A76 erratum 1286807, A55 2441007, A510 2441009; in Linux
    /// `ARM64_WORKAROUND_REPEAT_TLBI`.
    pub in_time: bool,
    /// What the errata ask for: invalidate and wait, twice.
    pub repeated: bool,
    /// Leaves are made accessed and dirty, as both architectures' crates make them, so that hardware never writes to a
    /// table. False: it sets these bits itself, by atomic updates of the entry, the accessed bit also for a walk that
    /// nobody asked for.
    pub preset: bool,
    /// An entry is emptied by an exchange (`XCHG`, `SWPAL`), which no update by hardware comes between. False: by a
    /// load and a plain store.
    pub exchange: bool,
    /// What two entries for one address do.
    pub conflict: Conflict,
    /// What it does beside.
    pub parts: Parts,
}

impl Hardware {
    /// Nothing is taken away; of what architectures differ in, the weaker.
    pub const SOUND: Hardware = Hardware {
        asids: None,
        broadcast: None,
        all_levels: true,
        on_the_way: true,
        completion: true,
        shareable: true,
        not_global: true,
        in_time: true,
        repeated: false,
        preset: true,
        exchange: true,
        conflict: Conflict::Any,
        parts: Parts::ALL,
    };
    /// x86_64 with PCID, INVLPGB and TLBSYNC.
    pub const INVLPGB: Hardware = Hardware {
        asids: Some(8),
        broadcast: Some(true),
        on_the_way: false,
        conflict: Conflict::Either,
        ..Hardware::SOUND
    };
}

impl Default for Hardware {
    fn default() -> Hardware {
        Hardware::SOUND
    }
}
