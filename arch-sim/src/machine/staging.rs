//! A scope in which each CPU follows a list: what it has loaded in the beginning, what it does one thing after the
//! other, how often an NMI makes it walk and the hypervisor stops it.
//!
//! [`super::scope::Role`]s are what is explored; lists are what a counterexample of the model is made of when it is
//! played on the core ([`crate::follow`]). The operations are the kernel's own; what is made here is what there is
//! before them: address spaces, a shared table, the stage of promotion of an mm's flushes.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use kernel::addr::{CpuId, Level, PAGE_SIZE, PMD_SIZE, PUD_SIZE, Pfn, VirtAddr};
use kernel::arch::Arch;
use kernel::atomic::Ordering;
use kernel::guard::{self, Guard};
use kernel::mm::address_space::{Backing, Mm};
use kernel::mm::collapse::{CollapseError, collapse_anon};
use kernel::mm::entry::{Entry, Perm};
use kernel::mm::file::File;
use kernel::mm::unmap::munmap;
use kernel::mm::{exit, fault};
use kernel::smp::cpu::Cpu;
use kernel::tlb::invalidation::Invalidation;
use kernel::tlb::transport::{self, mixed};
use kernel::workload::walker::WalkerClass;
use kernel::workload::{HERE, OpError, Scene, Target, WorkloadId};
use serde::{Deserialize, Serialize};

use super::arch::Sim;

/// Number of an mm, from 1 on, in the order in which they leave the table.
pub type MmNumber = u8;

/// One thing that a CPU does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Act {
    /// Loads this mm.
    Load(MmNumber),
    /// Unloads what it has loaded.
    Unload,
    /// Becomes idle and keeps its mm.
    BecomeLazy,
    /// Uses the mm that it has kept again.
    LeaveLazy(MmNumber),
    /// Walks one page of this mm.
    Walk(MmNumber),
    /// The same, reading each entry as two words.
    WalkTwoWord(MmNumber),
    /// Reads the tables of this mm under RCU, interrupts enabled.
    Read(MmNumber),
    /// Says that it is in no walk.
    Quiescent,
    /// Writes to the page that is walked, as a program does.
    Write,
}

/// A word that is no act.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "\"{0}\" is nothing that a CPU does: load N, unload, idle, use N, walk N, walk-two-word N, read N, quiescent, write, where N is 1 to 3"
)]
pub struct BadAct(String);

impl fmt::Display for Act {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Act::Load(mm) => write!(f, "load {mm}"),
            Act::Unload => f.write_str("unload"),
            Act::BecomeLazy => f.write_str("idle"),
            Act::LeaveLazy(mm) => write!(f, "use {mm}"),
            Act::Walk(mm) => write!(f, "walk {mm}"),
            Act::WalkTwoWord(mm) => write!(f, "walk-two-word {mm}"),
            Act::Read(mm) => write!(f, "read {mm}"),
            Act::Quiescent => f.write_str("quiescent"),
            Act::Write => f.write_str("write"),
        }
    }
}

impl FromStr for Act {
    type Err = BadAct;

    fn from_str(text: &str) -> Result<Act, BadAct> {
        let (word, mm) = match text.split_once(' ') {
            Some((word, mm)) => (word, mm.parse().ok().filter(|mm| (1..=MOST_MMS).contains(mm))),
            None => (text, None),
        };
        Ok(match (word, mm) {
            ("load", Some(mm)) => Act::Load(mm),
            ("unload", None) => Act::Unload,
            ("idle", None) => Act::BecomeLazy,
            ("use", Some(mm)) => Act::LeaveLazy(mm),
            ("walk", Some(mm)) => Act::Walk(mm),
            ("walk-two-word", Some(mm)) => Act::WalkTwoWord(mm),
            ("read", Some(mm)) => Act::Read(mm),
            ("quiescent", None) => Act::Quiescent,
            ("write", None) => Act::Write,
            _ => return Err(BadAct(text.into())),
        })
    }
}

impl Serialize for Act {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Act {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Act, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// As many mms as there are at most.
pub const MOST_MMS: MmNumber = 3;

/// What there is before the operation, and what each CPU does.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Staging {
    /// The class of its walkers, by name.
    pub walker: String,
    /// By CPU, the mm that it has loaded in the beginning; 0 for none.
    pub loaded: Vec<MmNumber>,
    /// By CPU, how often the hypervisor may stop it.
    pub freezes: Vec<u32>,
    /// By mm, how many flushes the promotion of `mixed` is ahead: 0 by interrupt, 1 both, 2 by broadcast.
    pub promoted: Vec<u8>,
    /// By CPU, what it does; the first CPU does the operation instead.
    pub acts: Vec<Vec<Act>>,
    /// By CPU, what its NMIs walk, one after the other.
    pub nmis: Vec<Vec<MmNumber>>,
    /// Somebody has a reference to a page, so that a collapse puts the table back.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub in_use: bool,
    /// Mms that have another table where the shared one was, as soon as they have left that.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub filled: Vec<MmNumber>,
}

impl Staging {
    /// So many CPUs have mm number `mm` loaded, and do `act`.
    pub fn walks_of(mm: MmNumber, walker: WalkerClass, walkers: usize, act: Act) -> Staging {
        let cpus = walkers + 1;
        Staging {
            walker: WalkerClass::NAMES[walker as usize].0.into(),
            loaded: (0..cpus).map(|i| if i > 0 { mm } else { 0 }).collect(),
            freezes: vec![0; cpus],
            promoted: vec![0; MOST_MMS.into()],
            acts: (0..cpus).map(|i| vec![act; i.min(1)]).collect(),
            nmis: vec![Vec::new(); cpus],
            in_use: false,
            filled: Vec::new(),
        }
    }

    /// How many CPUs.
    pub fn cpus(&self) -> usize {
        self.loaded.len()
    }

    /// Whether each list is as long as there are CPUs, and each number one of an mm that there is.
    pub fn is_sound(&self) -> bool {
        let cpus = self.cpus();
        let known = |mm: &MmNumber| (1..=MOST_MMS).contains(mm);
        (1..=crate::model::scenario::MAX_CPUS).contains(&cpus)
            && [self.freezes.len(), self.acts.len(), self.nmis.len()] == [cpus; 3]
            && self.promoted.len() == usize::from(MOST_MMS)
            && self.loaded.iter().all(|mm| *mm == 0 || known(mm))
            && self.nmis.iter().flatten().chain(&self.filled).all(known)
            && self.class().is_some()
    }

    /// The class of its walkers.
    pub fn class(&self) -> Option<WalkerClass> {
        let at = WalkerClass::NAMES.iter().position(|(name, _)| *name == self.walker)?;
        WalkerClass::ALL.get(at).copied()
    }
}

/// One GiB that is shared, in 512 GiB that hold nothing else.
const GIB: VirtAddr = VirtAddr(0x100_0000_0000);
/// A page that stays mapped in the same 512 GiB.
const ANCHOR: VirtAddr = GIB.add(8 * PUD_SIZE);
/// Pages before it that go in the same gather: one more than a gather holds without a batch page, so that where there
/// is none they are flushed for themselves, once.
const PAGES_BEFORE: u64 = 9;

/// The mms and the table of a staged scope; the operation.
pub(super) struct Stage<const TAGGED: bool> {
    id: WorkloadId,
    pub(super) mms: Vec<Arc<Mm<Sim<TAGGED>>>>,
    file: Option<Arc<File<Sim<TAGGED>>>>,
    filled: Vec<MmNumber>,
}

impl<const TAGGED: bool> Stage<TAGGED> {
    /// Makes everything ready. Nobody else runs yet, and no mm is loaded anywhere.
    pub(super) fn new(cpu: &'static Cpu<Sim<TAGGED>>, id: WorkloadId, staging: &Staging) -> Result<Self, OpError> {
        let mms: Vec<_> = (0..MOST_MMS).map(|_| Mm::new(cpu, 0)).collect::<Result<_, _>>()?;
        for (mm, flushes) in mms.iter().zip(&staging.promoted) {
            promote(cpu, mm, *flushes);
        }
        let mut stage = Stage { id, mms, file: None, filled: staging.filled.clone() };
        if id == WorkloadId::CollapseAnon {
            let (mm, range) = (&stage.mms[0], HERE..HERE.add(PMD_SIZE));
            mm.map(range.clone(), Perm::WRITE, Backing::Anon)?;
            fault::populate(cpu, mm, range)?;
            let table = mm.table_at(Level::Pte, HERE).expect("it was made");
            if let Entry::Leaf { page, .. } = table.entry(Level::Pte, HERE)
                && staging.in_use
            {
                assert!(Sim::<TAGGED>::machine().frames.get(page.pfn()).try_get(1), "the page is mapped");
            }
            return Ok(stage);
        }
        let file = File::new();
        for mm in stage.sharers() {
            mm.map(GIB..GIB.add(PUD_SIZE), Perm::WRITE, Backing::Shared(file.clone(), 0))?;
            fault::handle(cpu, mm, GIB, false)?;
            // Else the table above would go too, by a flush of its own.
            mm.map(ANCHOR..ANCHOR.add(PAGE_SIZE), Perm::WRITE, Backing::Anon)?;
            fault::populate(cpu, mm, ANCHOR..ANCHOR.add(PAGE_SIZE))?;
        }
        stage.file = Some(file);
        if id == WorkloadId::MunmapMany {
            let range = VirtAddr(GIB.0 - PAGES_BEFORE * PAGE_SIZE)..GIB;
            // One page more, which stays: the table of these pages does not go.
            let all = VirtAddr(range.start.0 - PAGE_SIZE)..GIB;
            stage.mms[0].map(all.clone(), Perm::WRITE, Backing::Anon)?;
            fault::populate(cpu, &stage.mms[0], all)?;
            Sim::<TAGGED>::machine()
                .policy
                .injection
                .set(kernel::injection::Odds::NONE.with(kernel::injection::Fault::Batch, 1));
        }
        Ok(stage)
    }

    /// The mms that link the shared table: the leavers, and the one that has it in the end.
    fn sharers(&self) -> &[Arc<Mm<Sim<TAGGED>>>] {
        let count = if self.id == WorkloadId::UnshareChain { 3 } else { 2 };
        &self.mms[..count]
    }

    /// Mm number `mm` leaves the shared table; if it shall, it has another one there then.
    fn leave(
        &self,
        cpu: &'static Cpu<Sim<TAGGED>>,
        mm: MmNumber,
        range: std::ops::Range<VirtAddr>,
    ) -> Result<(), OpError> {
        let leaver = &self.mms[usize::from(mm) - 1];
        munmap(cpu, leaver, range)?;
        if self.filled.contains(&mm) {
            leaver.map(GIB..GIB.add(PAGE_SIZE), Perm::WRITE, Backing::Anon)?;
            fault::populate(cpu, leaver, GIB..GIB.add(PAGE_SIZE))?;
        }
        Ok(())
    }

    /// Where walks go.
    pub(super) fn va(&self) -> VirtAddr {
        if self.id == WorkloadId::CollapseAnon { HERE } else { GIB }
    }

    /// The table that changes hands.
    pub(super) fn table(&self) -> Pfn {
        let level = if self.id == WorkloadId::CollapseAnon { Level::Pte } else { Level::Pmd };
        self.mms[0].table_at(level, self.va()).expect("it was made").pfn()
    }
}

/// Brings `mm` so far in [`mixed`]: by as many flushes as that takes of an mm that has run on many CPUs, with nobody to
/// interrupt.
fn promote<const TAGGED: bool>(cpu: &'static Cpu<Sim<TAGGED>>, mm: &Mm<Sim<TAGGED>>, flushes: u8) {
    if flushes == 0 {
        return;
    }
    let many = || (1..=mixed::FEW as u16 + 1).map(|i| CpuId(cpu.id.0 + i));
    many().for_each(|id| _ = mm.mask.insert(id, Ordering::Relaxed));
    guard::remove(1 << Guard::FlushIpi as u64);
    let flush = || _ = transport::flush(cpu, mm, Invalidation::ALL);
    flush();
    many().for_each(|id| mm.mask.remove(id, Ordering::Relaxed));
    (1..flushes).for_each(|_| flush());
    guard::remove(0);
}

impl<const TAGGED: bool> Scene<Sim<TAGGED>> for Stage<TAGGED> {
    fn target(&self) -> Target<Sim<TAGGED>> {
        Target {
            mm: self.mms[0].clone(),
            second: None,
            range: self.va()..self.va().add(PAGE_SIZE),
            step: 0,
            anon: false,
            drops: false,
        }
    }

    fn prepare(&mut self, _cpu: &'static Cpu<Sim<TAGGED>>, _op: u64) -> Result<(), OpError> {
        Ok(())
    }

    fn operate(&mut self, cpu: &'static Cpu<Sim<TAGGED>>, _op: u64) -> Result<(), OpError> {
        let gib = GIB..GIB.add(PUD_SIZE);
        match self.id {
            WorkloadId::CollapseAnon => match collapse_anon(cpu, &self.mms[0], HERE) {
                // A walk has a reference: everything is as it was.
                Err(CollapseError::InUse(_)) => {}
                result => result?,
            },
            WorkloadId::UnshareChain => {
                self.leave(cpu, 1, gib.clone())?;
                self.leave(cpu, 2, gib)?;
            }
            WorkloadId::MunmapMany => {
                self.leave(cpu, 1, VirtAddr(GIB.0 - PAGES_BEFORE * PAGE_SIZE)..gib.end)?;
            }
            _ => self.leave(cpu, 1, gib)?,
        }
        Ok(())
    }

    fn finish(self: Box<Self>, cpu: &'static Cpu<Sim<TAGGED>>) {
        self.mms.into_iter().for_each(|mm| exit::exit(cpu, mm));
        self.file.iter().for_each(|file| file.destroy(cpu));
    }
}
