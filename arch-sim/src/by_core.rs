//! Cells of the matrix that the core decides: those of strategies whose walks hold translations and no table, which the
//! model, whose walks hold tables, cannot judge.
//!
//! The unchanged core is explored in every interleaving of one operation on one CPU with one walk on another, on the
//! machines that have the cell's transport: each has to be explored to its end, and one wrong interleaving on one of
//! them makes the cell unsafe. [`machines`] says which; `cargo xtask sim --core --transport NAME` has the others.
//! Classes of walkers that a strategy refuses are refused here too: the core has no such walk
//! ([`kernel::mm::self_walk::Refused`]).

use std::fmt::Write;
use std::time::Duration;

use kernel::record::cell::Verdict as Outcome;
use kernel::sync;
use kernel::tlb::transport::TransportId;
use kernel::workload::WorkloadId;
use kernel::workload::walker::WalkerClass;

use crate::machine::prove::{Limits, Proof, Search, prove};
use crate::machine::recording;
use crate::machine::scope::{Profile, Role, Scope};
use crate::machine::staging::{Act, Staging};
use crate::model::nowhere::Nowhere;
use crate::model::scenario::{Operation, walker_name};
use crate::results::Row;

/// Within which everything is explored.
pub const BOUNDS: &str = "the core itself; two CPUs, one operation, one walk, every interleaving";

/// The strategies, in the kernel's order.
pub fn listed() -> impl Iterator<Item = &'static str> {
    sync::all::<Nowhere>().iter().filter(|entry| entry.self_map).map(|entry| entry.name)
}

/// The machines on which a cell of this transport is explored, and how many flushes the promotion of `mixed` has
/// behind it there: none, so that the next goes by interrupt, one for both ways, two for a broadcast.
pub fn machines(transport: TransportId) -> &'static [(Profile, u8)] {
    match transport {
        TransportId::Ipi | TransportId::Paravirt => &[(Profile::X86, 0)],
        TransportId::Broadcast => &[(Profile::Arm, 0), (Profile::Weakest, 0)],
        TransportId::Mixed => &[(Profile::Weakest, 0), (Profile::Weakest, 1), (Profile::Weakest, 2)],
    }
}

/// What is explored on one of them.
fn scope(strategy: usize, transport: TransportId, operation: Operation, (profile, promoted): (Profile, u8)) -> Scope {
    let workload = match operation {
        Operation::Collapse => WorkloadId::CollapseAnon,
        // The core collapses in no gather: what is flushed in one behind pages is a table that the mm shares.
        Operation::CollapseInBatch => WorkloadId::MunmapMany,
        Operation::UnshareThree => WorkloadId::UnshareChain,
        Operation::UnshareLast | Operation::Free | Operation::Pages => WorkloadId::UnshareMunmapLast,
    };
    let mut staging = None;
    if operation == Operation::CollapseInBatch || promoted > 0 {
        let mut staged = Staging::walks_of(1, WalkerClass::Gup, 1, Act::Walk(1));
        staged.promoted.fill(promoted);
        staged.freezes[1] = u32::from(transport == TransportId::Paravirt);
        staging = Some(staged);
    }
    let roles = if staging.is_some() { Vec::new() } else { vec![Role::Walk] };
    Scope { transport, staging, ..Scope::of(profile, strategy, workload, roles) }
}

/// The row of a cell that was not explored.
pub fn unexplored(strategy: &str, transport: TransportId, operation: Operation, walker: WalkerClass) -> Row {
    Row {
        strategy: strategy.into(),
        transport: transport.name().into(),
        operation: operation.name().into(),
        walker: walker_name(walker).into(),
        found: Outcome::Void.name().into(),
        expected: None,
        as_expected: false,
        states: 0,
        generated: 0,
        seconds: 0.0,
        violation: None,
        interleaving: None,
        by_core: true,
        report: String::new(),
    }
}

/// Explores one cell; `time` for all of it.
pub fn row(strategy: &str, transport: TransportId, operation: Operation, walker: WalkerClass, time: Duration) -> Row {
    let mut row = unexplored(strategy, transport, operation, walker);
    let number = sync::NAMES.iter().position(|(name, _)| *name == strategy).expect("it comes from the list");
    let mut first = scope(number, transport, operation, machines(transport)[0]);
    let promised = (sync::all::<Nowhere>()[number].promises)(kernel::sync::Setting { walker, ..first.setting() });
    row.expected = Some(promised.name().into());
    let mut found = Outcome::Refused;
    let mut report = format!("{strategy} on {}, {}, walker {}: ", row.transport, row.operation, row.walker);
    let mut parts = String::new();
    if promised != Outcome::Refused {
        found = Outcome::Safe;
        for machine in machines(transport) {
            first = scope(number, transport, operation, *machine);
            let left = time.saturating_sub(Duration::from_secs_f64(row.seconds));
            let proof = prove(&first, Search::Exhaustive, Limits { executions: u64::MAX, time: left }, &mut |_| {});
            found = match (proof.wrong, proof.explored.exhausted) {
                (0, true) => found,
                (0, false) => Outcome::Void,
                _ => Outcome::Unsafe,
            };
            add(&mut row, &mut parts, &first, machine.1, &proof);
            if found != Outcome::Safe {
                break;
            }
        }
    }
    row.found = found.name().into();
    row.as_expected = found == promised;
    let _ = writeln!(report, "{}", row.found);
    row.report = report + &parts;
    row
}

/// What was explored on one machine.
fn add(row: &mut Row, report: &mut String, scope: &Scope, promoted: u8, proof: &Proof) {
    let explored = &proof.explored;
    row.states += explored.executions;
    row.generated += explored.steps;
    row.seconds += proof.time.as_secs_f64();
    let stage = ["", ", by interrupt and by broadcast", ", by broadcast"][usize::from(promoted.min(2))];
    let _ = writeln!(
        report,
        "  on a machine like {}{stage}: {} classes of interleavings, {} steps, {:.1} s, {}",
        scope.profile.name(),
        explored.executions,
        explored.steps,
        proof.time.as_secs_f64(),
        if explored.exhausted { "everything explored" } else { "cut short" },
    );
    let Some(wrong) = &proof.shortest else { return };
    row.violation = Some(format!("{}, after {} steps", wrong.findings.join("; "), wrong.schedule.0.len()));
    if let Ok(replayed) = recording::again(scope, wrong) {
        let told = recording::interleaving(scope, wrong, &replayed);
        report.push_str(&told);
        row.interleaving = Some(told);
    }
}
