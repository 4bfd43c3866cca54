//! The verdicts that the runner shows beside QEMU's are those of the model as it is: a sample of them, explored again.

use arch_sim::by_core;
use arch_sim::matrix::{Bounds, cell};
use arch_sim::model::scenario::walker_name;
use arch_sim::model::strategies::listed;
use arch_sim::results::{Row, VERSION, Verdicts};
use kernel::tlb::transport::TransportId;
use kernel::workload::walker::WalkerClass;

#[test]
fn the_kept_verdicts_are_those_of_the_model() {
    let kept: Verdicts =
        serde_json::from_str(include_str!("../../xtask/data/sim-verdicts.json")).expect("it is of the format");
    assert_eq!(kept.version, VERSION);
    let bounds = Bounds::default();
    let sample = [
        ("none", WalkerClass::Gup),
        ("gather-flag", WalkerClass::Gup),
        ("targeted-v4", WalkerClass::Gup),
        ("coverage", WalkerClass::Gup),
        ("none", WalkerClass::TwoWord),
        ("gather-flag", WalkerClass::TwoWord),
    ];
    for (name, walker) in sample {
        let strategy = listed().into_iter().find(|strategy| strategy.name == name).expect("the kernel lists it");
        for transport in TransportId::ALL {
            let verdicts: Vec<_> = bounds
                .operations
                .iter()
                .map(|operation| cell(&strategy, transport, *operation, walker, &bounds))
                .collect();
            let rows: Vec<Row> = verdicts.iter().map(Row::of).collect();
            let now = Verdicts::of(&rows, &bounds).expect("all of it is explored");
            assert_eq!(now.bounds, kept.bounds);
            assert_eq!(now.operations, kept.operations);
            let letters = |of: &Verdicts| of.verdicts[walker_name(walker)][transport.name()][strategy.name].clone();
            let hint = "write them anew: cargo xtask sim --save xtask/data/sim-verdicts.json";
            assert_eq!(letters(&now), letters(&kept), "{} on {}; {hint}", strategy.name, transport.name());
        }
    }
}

/// Those of the core: one transport of it explored again, refusals included.
#[test]
fn the_kept_verdicts_of_the_core_are_those_of_the_core() {
    let kept: Verdicts =
        serde_json::from_str(include_str!("../../xtask/data/sim-verdicts.json")).expect("it is of the format");
    let bounds = Bounds::default();
    for strategy in by_core::listed() {
        assert_eq!(kept.other_bounds[strategy], by_core::BOUNDS);
        for walker in &bounds.walkers {
            let of = |operation| by_core::row(strategy, TransportId::Broadcast, operation, *walker, bounds.core_time);
            let rows: Vec<Row> = bounds.operations.iter().map(|operation| of(*operation)).collect();
            assert!(rows.iter().all(|row| row.as_expected), "{rows:?}");
            assert!(rows.iter().all(|row| (row.states > 0) == (*walker == WalkerClass::Gup)), "{rows:?}");
            let now = Verdicts::of(&rows, &bounds).expect("all of it is explored");
            let letters = |of: &Verdicts| of.verdicts[walker_name(*walker)]["broadcast"][strategy].clone();
            assert_eq!(letters(&now), letters(&kept), "{}", walker_name(*walker));
        }
    }
}
