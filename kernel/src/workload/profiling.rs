//! Records a cell's [`Profile`]: which part of the cell is under way, and, between operations, how much memory waits
//! for a grace period. The rest is made of events ([`crate::ledger::profile`]).

use core::marker::PhantomData;
use core::sync::atomic::Ordering;

use crate::arch::Arch;
use crate::ledger::profile::CpuProfile;
use crate::record::profile::{LINES, PARTS, Profile, part};
use crate::smp::cpu::Cpu;
use crate::suite::Suite;

/// A recording under way, or none where no profile is wanted.
pub(super) struct Profiling<A: Arch> {
    profile: Option<&'static Profile>,
    ops: u64,
    /// When the first operation began.
    began: Option<u64>,
    arch: PhantomData<A>,
}

impl<A: Arch> Profiling<A> {
    /// Nothing has happened yet.
    pub(super) fn new(suite: &Suite, profile: Option<&'static Profile>) -> Profiling<A> {
        Profiling { profile, ops: suite.ops, began: None, arch: PhantomData }
    }

    /// Operation `op` is about to begin.
    pub(super) fn open(&mut self, op: u64) {
        if self.profile.is_some() {
            self.began.get_or_insert_with(A::instructions);
            Self::set_part(Some(part(op, self.ops)));
        }
    }

    /// It is over.
    pub(super) fn close(&self, op: u64) {
        let Some(profile) = self.profile else { return };
        Self::set_part(None);
        let part = part(op, self.ops);
        let waiting: u32 = A::machine().online().map(|cpu| cpu.rcu.pending()).sum();
        profile.waiting[part].fetch_max(waiting, Ordering::Relaxed);
        profile.ends[part].store(A::instructions() - self.began.unwrap_or(0), Ordering::Relaxed);
    }

    /// All operations are over and the other CPUs have gone home: what each recorded is put together.
    pub(super) fn end(self) {
        let Some(profile) = self.profile else { return };
        let machine = A::machine();
        let cpus = machine.cpus.len();
        for (cpu, recorded) in Self::recording() {
            recorded.hand_over(profile, cpu.id, cpus);
        }
        profile.parts.store(self.ops.min(PARTS as u64) as u32, Ordering::Relaxed);
        profile.lines.store(cpus.min(LINES) as u32, Ordering::Relaxed);
    }

    fn recording() -> impl Iterator<Item = (&'static Cpu<A>, &'static CpuProfile)> {
        A::machine().online().filter_map(|cpu| Some((cpu, cpu.events.profile()?)))
    }

    fn set_part(part: Option<usize>) {
        Self::recording().for_each(|(_, recorded)| recorded.set_part(part));
    }
}
