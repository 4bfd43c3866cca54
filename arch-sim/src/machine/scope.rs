//! What is explored of the core: one operation on one CPU, and on each other CPU one thing that disturbs it.

use kernel::sync::{self, Setting};
use kernel::tlb::transport::TransportId;
use kernel::workload::WorkloadId;
use kernel::workload::walker::WalkerClass;

use super::staging::Staging;
use super::{Conflict, Deed, Hardware, Sim};

/// What the machine is like.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Profile {
    /// Translations are not tagged; total store order; flushes interrupt.
    X86,
    /// Translations are tagged and outlive a switch; an invalidation is broadcast; total store order, which is stronger
    /// than the architecture.
    Arm,
    /// What either allows: few tags, which outlive a switch; a broadcast that is late; a 2 MiB leaf that can be read as
    /// a table; an invalidation by address that leaves what is not on the way to it; two entries for one address with
    /// any outcome. With a store buffer, if the scope asks for it.
    Weakest,
}

impl Profile {
    /// All, with the names of the command line.
    pub const NAMES: [(&'static str, Profile); 3] =
        [("x86_64", Profile::X86), ("aarch64", Profile::Arm), ("weakest", Profile::Weakest)];

    /// Its hardware, with nothing taken away.
    pub fn hardware(self) -> Hardware {
        match self {
            Profile::X86 => Hardware { on_the_way: false, conflict: Conflict::Either, ..Hardware::SOUND },
            Profile::Arm => Hardware::SOUND,
            Profile::Weakest => Hardware { asids: Some(8), broadcast: Some(true), ..Hardware::SOUND },
        }
    }

    /// How its usual kernels flush.
    pub fn transport(self) -> TransportId {
        match self {
            Profile::X86 => TransportId::Ipi,
            Profile::Arm | Profile::Weakest => TransportId::Broadcast,
        }
    }

    /// As on the command line.
    pub fn name(self) -> &'static str {
        Profile::NAMES[self as usize].0
    }
}

/// What another CPU does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// It has the mm loaded and walks one page of it.
    Walk,
    /// It loads the mm, walks one page of it, and unloads it.
    LoadAndWalk,
    /// It has the mm loaded and reads the tables under RCU with interrupts enabled.
    Read,
    /// It has not loaded the mm, and walks it.
    Foreign,
    /// It has the mm loaded, lazily, and does nothing.
    Lazy,
    /// It has had the mm loaded, and loads nothing now.
    Left,
    /// It has the mm loaded and writes to one page of it, as a program does.
    Write,
    /// It has the mm loaded and walks one page of it, reading each entry as two words.
    TwoWord,
    /// It loads the mm, and keeps it.
    Load,
    /// It has the mm loaded, and does nothing.
    Loaded,
}

impl Role {
    /// All, with the names of the command line.
    pub const NAMES: [(&'static str, Role); 10] = [
        ("walk", Role::Walk),
        ("load", Role::LoadAndWalk),
        ("read", Role::Read),
        ("foreign", Role::Foreign),
        ("lazy", Role::Lazy),
        ("left", Role::Left),
        ("write", Role::Write),
        ("two-word", Role::TwoWord),
        ("load-only", Role::Load),
        ("loaded", Role::Loaded),
    ];

    /// As on the command line.
    pub fn name(self) -> &'static str {
        Role::NAMES[self as usize].0
    }

    fn class(self) -> WalkerClass {
        match self {
            Role::Walk | Role::LoadAndWalk | Role::Lazy | Role::Left | Role::Write | Role::Load | Role::Loaded => {
                WalkerClass::Gup
            }
            Role::Read => WalkerClass::Rcu,
            Role::Foreign => WalkerClass::Foreign,
            Role::TwoWord => WalkerClass::TwoWord,
        }
    }
}

/// What is explored.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Scope {
    /// What the machine is like.
    pub profile: Profile,
    /// Number of the strategy in [`sync::NAMES`].
    pub strategy: usize,
    /// How flushes travel.
    pub transport: TransportId,
    /// The operation of the first CPU.
    pub workload: WorkloadId,
    /// An operation of the machine's own instead.
    pub deed: Option<Deed>,
    /// What each of the other CPUs does; nothing where there is a staging.
    pub roles: Vec<Role>,
    /// What each CPU does and has in the beginning, thing by thing.
    pub staging: Option<Staging>,
    /// Stores wait in buffers before others see them.
    pub buffers: bool,
    /// What the hardware does as it should.
    pub hardware: Hardware,
    /// Guards of the kernel that are taken away: bits of [`mod@kernel::guard`].
    pub guards: u64,
}

impl Scope {
    /// On a machine as `profile` is by itself, with all guards: `workload` under the strategy with this number, beside
    /// one CPU for each of `roles`.
    pub fn of(profile: Profile, strategy: usize, workload: WorkloadId, roles: Vec<Role>) -> Scope {
        Scope {
            profile,
            strategy,
            transport: profile.transport(),
            workload,
            deed: None,
            roles,
            staging: None,
            buffers: false,
            hardware: profile.hardware(),
            guards: 0,
        }
    }

    /// How many CPUs.
    pub fn cpus(&self) -> usize {
        self.staging.as_ref().map_or(self.roles.len() + 1, Staging::cpus)
    }

    /// By CPU, how often the hypervisor may stop it.
    pub fn freezes(&self) -> Vec<u32> {
        let paravirt = self.transport == TransportId::Paravirt && self.hardware.parts.freezes;
        let each = |i: usize| u32::from(i > 0 && paravirt);
        self.staging.as_ref().map_or_else(|| (0..self.cpus()).map(each).collect(), |staging| staging.freezes.clone())
    }

    /// Where the strategy runs, for what it promises.
    pub fn setting(&self) -> Setting {
        let staged = self.staging.as_ref().and_then(Staging::class);
        let walker = staged.or(self.roles.iter().map(|role| role.class()).max_by_key(|class| *class as u8));
        Setting {
            transport: self.transport,
            hook: self.transport.flush_implies_interrupt(),
            chain: self.workload == WorkloadId::UnshareChain,
            batch: false,
            walker: walker.unwrap_or(WalkerClass::Gup),
        }
    }

    /// The strategy's name.
    pub fn strategy_name(&self) -> &'static str {
        sync::NAMES[self.strategy].0
    }

    /// In one line.
    pub fn in_words(&self) -> String {
        let mut roles: Vec<&str> = self.roles.iter().map(|role| role.name()).collect();
        roles.extend(self.staging.as_ref().map(|staging| &*staging.walker));
        let workload = WorkloadId::name_of(self.workload as u16).unwrap_or("?");
        format!(
            "{} on {}, {}, {} against {}{}",
            self.strategy_name(),
            self.transport.name(),
            self.profile.name(),
            self.deed.map_or(workload, Deed::name),
            roles.join(" and "),
            if self.buffers { ", with store buffers" } else { "" },
        )
    }

    /// What the strategy promises there.
    pub fn promised(&self) -> kernel::record::cell::Verdict {
        (sync::all::<Sim<false>>()[self.strategy].promises)(self.setting())
    }
}
