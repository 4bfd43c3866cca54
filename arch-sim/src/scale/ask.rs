//! Asks the kernel's own `Strategy::decide` on machines that have more CPUs than a kernel's mask.
//!
//! A strategy looks at each CPU by itself: whether it is a target depends on what that CPU has loaded, published and
//! acknowledged, and on facts that are the same for all (the hook, the gather's flag). So a machine of any size is
//! asked about block by block, the initiator in each, and the targets are those of all blocks together; a sync is left
//! out if every block leaves it out. `blocks_decide_as_one` checks that on every strategy.

use kernel::addr::{CpuId, MAX_CPUS};
use kernel::ledger::Elision;
use kernel::smp::mask::CpuMask;
use kernel::sync::{Ask, Decision, LoadedMm, Party, View};
use kernel::tlb::coverage::Coverage;
use kernel::tlb::transport::TransportId;

/// A decision for a machine of any size.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Wide {
    Elide(Elision),
    Interrupt(Vec<u32>),
    Grace,
    Fresh,
}

/// What a strategy may look at, for each CPU by its number.
pub(super) trait Facts {
    fn cpus(&self) -> u32;
    fn transport(&self) -> TransportId;
    fn loaded(&self, cpu: u32) -> Option<u32>;
    /// The mm that it shows to be walking, or 0.
    fn slot(&self, cpu: u32) -> u64;
    fn acknowledged_generation(&self, cpu: u32) -> u64;
}

/// What it is asked.
pub(super) struct Question<'a> {
    pub(super) initiator: u32,
    pub(super) mm: u32,
    pub(super) generation: u64,
    /// In the mm's mask, after the flush.
    pub(super) in_mask: &'a dyn Fn(u32) -> bool,
    /// Interrupted by the flush, and acknowledged.
    pub(super) interrupted: &'a dyn Fn(u32) -> bool,
}

/// A part of the machine: local number 0 is the initiator.
struct Block<'a> {
    facts: &'a dyn Facts,
    cpus: &'a [u32],
    initiator: u32,
}

impl Block<'_> {
    fn real(&self, cpu: CpuId) -> u32 {
        cpu.index().checked_sub(1).map_or(self.initiator, |i| self.cpus[i])
    }

    fn those(&self, yes: &dyn Fn(u32) -> bool) -> CpuMask {
        CpuMask::first(self.cpus.len() + 1).iter().filter(|cpu| yes(self.real(*cpu))).collect()
    }
}

impl View for Block<'_> {
    fn initiator(&self) -> CpuId {
        CpuId(0)
    }
    fn online(&self) -> CpuMask {
        CpuMask::first(self.cpus.len() + 1)
    }
    fn loaded(&self, cpu: CpuId) -> LoadedMm {
        self.facts.loaded(self.real(cpu)).map_or(LoadedMm::None, LoadedMm::Mm)
    }
    fn slot(&self, cpu: CpuId) -> u64 {
        self.facts.slot(self.real(cpu))
    }
    fn hook(&self) -> bool {
        self.facts.transport().flush_implies_interrupt()
    }
    fn transport(&self) -> TransportId {
        self.facts.transport()
    }
    fn acknowledged_generation(&self, cpu: CpuId) -> u64 {
        self.facts.acknowledged_generation(self.real(cpu))
    }
    // Nothing is reordered in a model that does one thing after the other.
    fn fence(&self) {}
    fn read_fence(&self) {}
}

/// What the strategy decides for the whole machine.
pub(super) fn decide(decide: fn(&dyn View, &Ask<'_>) -> Decision, facts: &dyn Facts, question: &Question<'_>) -> Wide {
    decide_in_blocks(decide, facts, question, MAX_CPUS - 1)
}

fn decide_in_blocks(
    decide: fn(&dyn View, &Ask<'_>) -> Decision,
    facts: &dyn Facts,
    question: &Question<'_>,
    size: usize,
) -> Wide {
    let others: Vec<u32> = (0..facts.cpus()).filter(|cpu| *cpu != question.initiator).collect();
    let any = (0..facts.cpus()).any(question.interrupted);
    let mut targets = Vec::new();
    let mut elided = Elision::Never;
    for cpus in others.chunks(size).chain(others.is_empty().then_some(&[][..])) {
        let block = Block { facts, cpus, initiator: question.initiator };
        let mut acknowledged = block.those(question.interrupted);
        let interrupts = acknowledged.count();
        acknowledged.insert(CpuId(0));
        let party = Party {
            mm: question.mm,
            mask: block.those(question.in_mask),
            coverage: Coverage::claimed_by_a_model(acknowledged, interrupts),
        };
        let ask = Ask {
            party,
            left_behind: &CpuMask::EMPTY,
            left_before: false,
            generation: question.generation,
            gather_interrupted: any,
        };
        match decide(&block, &ask) {
            Decision::Elide(reason) => elided = reason,
            Decision::Interrupt(mut mask) => {
                mask.remove(CpuId(0));
                targets.extend(mask.iter().map(|cpu| block.real(cpu)));
            }
            Decision::Grace => return Wide::Grace,
            Decision::Fresh => return Wide::Fresh,
        }
    }
    if targets.is_empty() { Wide::Elide(elided) } else { Wide::Interrupt(targets) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::strategies::everyone;

    struct Mixed(TransportId);

    impl Facts for Mixed {
        fn cpus(&self) -> u32 {
            500
        }
        fn transport(&self) -> TransportId {
            self.0
        }
        fn loaded(&self, cpu: u32) -> Option<u32> {
            [Some(1), Some(2), None][cpu as usize % 3]
        }
        fn slot(&self, cpu: u32) -> u64 {
            if cpu % 7 == 1 { 1 } else { 0 }
        }
        fn acknowledged_generation(&self, cpu: u32) -> u64 {
            (cpu % 5).into()
        }
    }

    #[test]
    fn blocks_decide_as_one() {
        let mut interrupting = 0;
        for transport in [TransportId::Ipi, TransportId::Broadcast] {
            let facts = Mixed(transport);
            let interrupted = |cpu: u32| transport == TransportId::Ipi && cpu.is_multiple_of(6) && cpu != 17;
            let in_mask = |cpu: u32| cpu.is_multiple_of(3) || cpu == 17;
            for one in everyone() {
                let question =
                    Question { initiator: 17, mm: 1, generation: 3, in_mask: &in_mask, interrupted: &interrupted };
                let whole = decide_in_blocks(one.decide, &facts, &question, 499);
                let parts = decide_in_blocks(one.decide, &facts, &question, 63);
                assert_eq!(whole, parts, "{} on {transport:?}", one.name);
                interrupting += usize::from(matches!(whole, Wide::Interrupt(_)));
            }
        }
        assert!(interrupting > 8, "the question is one that makes a difference");
    }
}
