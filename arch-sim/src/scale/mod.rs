//! Scale by simulation: the strategies on 2 to 4,096 CPUs, as a discrete-event model with a cost for each step.
//!
//! The decisions are the kernel's own (`ask`); who interrupts whom, who waits for whom and which interrupts share a
//! vector follow the kernel's calls (`machine`); what each step takes is a number from a file, with its source
//! ([`costs`]). So counts of interrupts are as good as the kernel's own code and are checked against its closed forms;
//! **times are a model's** and are labelled so wherever they appear. Nothing here was measured on the machines that the
//! presets are named after.

mod ask;
pub mod costs;
pub mod curve;
mod machine;
pub mod picture;
pub mod published;
pub mod run;
pub mod sensitivity;

pub use machine::Counts;

#[cfg(test)]
mod tests {
    use kernel::suite::Mode;
    use kernel::sync::{self, Setting as Where};
    use kernel::tlb::transport::TransportId;
    use kernel::workload::WorkloadId;
    use kernel::workload::predict::predict;
    use kernel::workload::walker::WalkerClass;

    use super::costs::Preset;
    use super::run::{Outcome, Setting, Work, run};
    use crate::model::nowhere::Nowhere;
    use crate::model::strategies::everyone;

    fn setting(transport: TransportId, cpus: u32, work: Work) -> Setting {
        let costs = Preset::named(None, "x86-2s").unwrap();
        Setting { costs, transport, cpus, work, ops: 5, other_ns: 1000, seed: 1 }
    }

    fn is_conserved(outcome: &Outcome) {
        let counts = outcome.counts;
        assert_eq!(counts.flush_ipis + counts.sync_ipis, counts.served, "{counts:?}");
        assert_eq!(counts.served, counts.acknowledged, "{counts:?}");
        assert!(counts.vectors <= counts.served && counts.bystanders <= counts.served, "{counts:?}");
    }

    #[test]
    fn every_interrupt_is_acknowledged_and_every_operation_done() {
        let mut shared = 0;
        for transport in [TransportId::Ipi, TransportId::Broadcast] {
            for cpus in [1u32, 2, 3, 17, 100, 700] {
                let collapse = Work::Collapse { mask: cpus.div_ceil(2), walkers: cpus / 4 };
                let unshare = Work::Unshare { leavers: cpus.div_ceil(3).min(12) };
                for (work, workers) in [(collapse, 1), (unshare, cpus.div_ceil(3).min(12))] {
                    for strategy in everyone() {
                        let outcome = run(&setting(transport, cpus, work), &strategy);
                        is_conserved(&outcome);
                        assert_eq!(outcome.ops, 5 * u64::from(workers), "{} {cpus} {work:?}", strategy.name);
                        shared += outcome.counts.served - outcome.counts.vectors;
                    }
                }
            }
        }
        assert!(shared > 0, "some interrupts served several requests");
    }

    /// The closed forms of the kernel, for the modes in which every other CPU has the mm, or none.
    #[test]
    fn counts_are_those_of_the_closed_forms() {
        let mut compared = 0;
        for transport in [TransportId::Ipi, TransportId::Broadcast] {
            let hook = transport.flush_implies_interrupt();
            let place = Where { transport, hook, chain: false, batch: false, walker: WalkerClass::Gup };
            for (entry, listed) in sync::all::<Nowhere>().iter().zip(everyone()) {
                assert_eq!(entry.name, listed.name);
                for cpus in 2..=24 {
                    for (mode, mask) in [(Mode::Same, cpus), (Mode::Other, 1)] {
                        let form = predict(WorkloadId::CollapseAnon, entry, place, mode, cpus.into(), 5);
                        let work = Work::Collapse { mask, walkers: 0 };
                        let counts = run(&setting(transport, cpus, work), &listed).counts;
                        let pairs = [
                            (form.flush_ipis, counts.flush_ipis),
                            (form.sync_ipis, counts.sync_ipis),
                            (form.elided, counts.elided),
                        ];
                        for (form, count) in pairs {
                            // A fresh table is an elision for the model, and for the kernel's form a wait.
                            if let Some(form) = form.filter(|_| entry.name != "fresh-table") {
                                assert_eq!(form, count, "{} {transport:?} {cpus} {mode:?} {counts:?}", entry.name);
                                compared += 1;
                            }
                        }
                    }
                }
            }
        }
        assert!(compared > 2000, "{compared}");
    }

    #[test]
    fn the_same_setting_is_the_same_run() {
        for strategy in everyone() {
            let one = || run(&setting(TransportId::Ipi, 60, Work::Collapse { mask: 30, walkers: 20 }), &strategy);
            assert_eq!(one(), one());
        }
    }

    #[test]
    fn targeted_interrupts_those_who_walk_and_no_bystander() {
        let targeted = everyone().into_iter().find(|s| s.name == "targeted").unwrap();
        let work = Work::Collapse { mask: 40, walkers: 30 };
        let outcome = run(&setting(TransportId::Broadcast, 64, work), &targeted);
        let sync = outcome.counts.sync_ipis;
        assert!(0 < sync && sync < 30 * outcome.ops, "{sync} in {} operations", outcome.ops);
        assert_eq!(outcome.counts.bystanders, 0);
    }
}
