//! Hardware behaviour that QEMU does not have: with the guard against it the model is safe, without it it is not. The
//! numbers are those of the catalogue of negative controls in `docs/simulated-machine.md`.

use arch_sim::matrix::{Round, scenario};
use arch_sim::model::check::{Limits, explore};
use arch_sim::model::scenario::{Operation, Removal, Removed, Scenario};
use arch_sim::model::state::Broken;
use arch_sim::model::strategies::listed;
use arch_sim::model::words;
use kernel::tlb::transport::TransportId::{self, Broadcast, Ipi, Mixed, Paravirt};
use kernel::workload::walker::WalkerClass;

/// A control: where it shows, and as what.
#[derive(Clone, Copy)]
struct Control {
    transport: TransportId,
    operation: Operation,
    walker: WalkerClass,
    tagged: bool,
    removed: Removal,
    broken: Broken,
}

impl Control {
    fn on(transport: TransportId, operation: Operation, removed: Removal, broken: Broken) -> Control {
        Control { transport, operation, walker: WalkerClass::Gup, tagged: transport == Broadcast, removed, broken }
    }

    /// With the guard nothing is violated, in all states; without it this is.
    fn must_show(self) {
        // The strategy that interrupts everybody: what shows is the hardware's doing, not a sync that is missing.
        self.must_show_under("sync-all");
    }

    /// The same; and with that part of the machine off it does not show without the guard either.
    fn must_show_by(self, off: impl Fn(Scenario) -> Scenario) {
        self.must_show();
        let strategy = listed().into_iter().find(|s| s.name == "sync-all").expect("the kernel lists it");
        let round = Round { cpus: 2, moves: true };
        let base = scenario(&strategy, self.transport, self.operation, self.walker, round);
        let removed = Removed::these(&[self.removed]);
        let without = explore(&off(Scenario { tagged: self.tagged, removed, ..base }), Limits::default());
        assert!(without.exhausted, "{:?}, with that part off: {:?}", self.removed, without.counterexample);
    }

    fn must_show_under(self, name: &str) {
        let strategy = listed().into_iter().find(|s| s.name == name).expect("the kernel lists it");
        let round = Round { cpus: 2, moves: true };
        let base = scenario(&strategy, self.transport, self.operation, self.walker, round);
        let guarded = Scenario { tagged: self.tagged, ..base };
        let with = explore(&guarded, Limits::default());
        let text = |e: &arch_sim::model::check::Exploration| {
            e.counterexample.as_ref().map(|c| words::interleaving(&e.scenario, c)).unwrap_or_default()
        };
        assert!(with.exhausted, "{:?}, with the guard:\n{}", self.removed, text(&with));
        let without = explore(&Scenario { removed: Removed::these(&[self.removed]), ..guarded }, Limits::default());
        let broken = without.counterexample.as_ref().map(|c| c.broken);
        assert_eq!(broken, Some(self.broken), "{:?}, without the guard:\n{}", self.removed, text(&without));
    }
}

/// Each CPU keeps what it has loaded, and never idles.
fn nobody_moves(scenario: Scenario) -> Scenario {
    Scenario { moves: false, ..scenario }
}

/// Translations are not tagged.
fn no_tags(scenario: Scenario) -> Scenario {
    Scenario { tagged: false, ..scenario }
}

/// Control 19: a lazy CPU is skipped although a table was unlinked.
#[test]
fn lazy_cpus_are_reached_when_tables_were_unlinked() {
    for operation in [Operation::UnshareLast, Operation::Collapse, Operation::Free] {
        Control::on(Ipi, operation, Removal::LazyReached, Broken::StaleTranslation).must_show_by(nobody_moves);
    }
}

/// A lazy CPU is skipped by a flush of pages; it catches up before it uses the mm again.
#[test]
fn a_lazy_cpu_catches_up() {
    Control::on(Ipi, Operation::Pages, Removal::CatchUp, Broken::StaleTranslation).must_show_by(nobody_moves);
}

/// Where translations are tagged, loading the root drops nothing: catching up takes an invalidation.
#[test]
fn catching_up_drops_what_is_tagged() {
    let control = Control::on(Ipi, Operation::Pages, Removal::CatchUpInvalidates, Broken::StaleTranslation);
    Control { tagged: true, ..control }.must_show_by(no_tags);
}

/// Where translations are tagged, a CPU that comes back to an mm still has what it had of it. It reads the newest
/// generation, so the handler of a flush whose interrupt is pending does nothing; and a flush that skipped it while it
/// was lazy is forgotten.
#[test]
fn tags_outlive_a_switch() {
    for operation in [Operation::Free, Operation::Pages] {
        let control = Control::on(Ipi, operation, Removal::TagsOutliveSwitch, Broken::StaleTranslation);
        Control { tagged: true, ..control }.must_show_by(no_tags);
    }
}

/// Control 20: the invalidation of an unshared table takes leaves only; the entry that points at the table stays in the
/// paging-structure caches.
#[test]
fn an_unlinked_table_is_invalidated_at_all_levels() {
    for transport in [Ipi, Broadcast] {
        let control = Control::on(transport, Operation::UnshareLast, Removal::AllLevels, Broken::StaleTranslation);
        control.must_show();
    }
}

/// Controls 21 (b) and 23 (a): the frame changes hands before the broadcast is complete, for want of the second DSB, or
/// of TLBSYNC.
#[test]
fn a_broadcast_is_waited_for() {
    for transport in [Broadcast, Mixed] {
        Control::on(transport, Operation::Free, Removal::Completion, Broken::StaleTranslation).must_show();
    }
    Control::on(Broadcast, Operation::Pages, Removal::Completion, Broken::StaleTranslation).must_show();
}

/// Control 21 (a): the invalidation overtakes the store that it is for, for want of the first DSB: the old entry is
/// cached again.
#[test]
fn an_invalidation_comes_after_the_store() {
    Control::on(Broadcast, Operation::Pages, Removal::StoreBeforeFlush, Broken::StaleTranslation).must_show();
}

/// Control 21 (d): an invalidation that stays at home.
#[test]
fn an_invalidation_reaches_other_cpus() {
    for transport in [Ipi, Broadcast] {
        Control::on(transport, Operation::Free, Removal::Shareable, Broken::StaleTranslation).must_show();
    }
}

/// Controls 22 and 34: the order in which a CPU loads an mm.
#[test]
fn a_cpu_enters_the_mask_then_reads_the_generation_then_loads_the_root() {
    for removed in [Removal::GenerationBeforeRoot, Removal::MaskBeforeRoot] {
        Control::on(Ipi, Operation::Free, removed, Broken::StaleTranslation).must_show_by(nobody_moves);
    }
}

/// Control 28: two valid entries for one address.
#[test]
fn an_entry_is_broken_before_another_is_made() {
    Control::on(Broadcast, Operation::Collapse, Removal::BreakBeforeMake, Broken::Conflict).must_show();
}

#[test]
fn a_table_is_freed_after_a_grace_period() {
    let control = Control::on(Broadcast, Operation::Free, Removal::GraceBeforeFree, Broken::FreedWhileHeld);
    control.must_show();
    let control = Control::on(Ipi, Operation::Free, Removal::GraceBeforeFree, Broken::FreedWhileHeld);
    Control { walker: WalkerClass::Rcu, ..control }.must_show();
}

#[test]
fn the_last_sharer_waits_for_walkers() {
    Control::on(Broadcast, Operation::UnshareLast, Removal::UnshareSync, Broken::ReusedWhileHeld).must_show();
}

/// A CPU that was frozen while it had one mm loaded may have cached another: where translations are tagged, what it
/// owes is owed for all.
#[test]
fn a_resumed_cpu_makes_every_flush_good() {
    let control = Control::on(Paravirt, Operation::UnshareLast, Removal::ResumeFlushesAll, Broken::StaleTranslation);
    Control { tagged: true, ..control }.must_show_by(no_tags);
}

/// Entries that are read as two words: the low one is read again, whatever else is waited for.
#[test]
fn the_low_word_is_read_again() {
    for (transport, operation) in
        [(Ipi, Operation::Collapse), (Broadcast, Operation::UnshareLast), (Broadcast, Operation::Free)]
    {
        let control = Control::on(transport, operation, Removal::LowAgain, Broken::TornEntry);
        Control { walker: WalkerClass::TwoWord, ..control }.must_show();
    }
}

/// Where nobody is asked for a sync, readers of two words are waited for before the entry is filled again: a table that
/// is freed, one that others still share, one that is put back because another would have been used. Where the flush
/// interrupts it has waited for them already.
#[test]
fn readers_of_two_words_are_waited_for() {
    for (strategy, operation) in
        [("sync-all", Operation::Free), ("coverage", Operation::UnshareThree), ("fresh-table", Operation::Collapse)]
    {
        let control = Control::on(Broadcast, operation, Removal::TwoWordSync, Broken::TornEntry);
        Control { walker: WalkerClass::TwoWord, ..control }.must_show_under(strategy);
    }
    let strategy = listed().into_iter().find(|s| s.name == "sync-all").expect("the kernel lists it");
    let by_interrupt = scenario(&strategy, Ipi, Operation::Free, WalkerClass::TwoWord, Round { cpus: 2, moves: true });
    let without = Scenario { removed: Removed::these(&[Removal::TwoWordSync]), ..by_interrupt };
    assert!(explore(&without, Limits::default()).exhausted);
}
