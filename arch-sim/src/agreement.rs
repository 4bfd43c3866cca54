//! The core and the model on the same cells: what all interleavings of the one come to, and all states of the other.
//!
//! The model's steps other than the strategies are its own words for what the core does. Where the two come to
//! different verdicts about a cell, one of them is wrong, and this says so.

use std::fmt::Write;

use kernel::record::cell::Verdict as Outcome;
use kernel::sync;
use kernel::tlb::transport::TransportId;
use kernel::workload::WorkloadId;
use kernel::workload::walker::WalkerClass;

use crate::machine::prove::{Limits, Proof, Search, prove};
use crate::machine::scope::{Profile, Role, Scope};
use crate::machine::staging::{Act, Staging};
use crate::matrix::{Round, scenario};
use crate::model::check;
use crate::model::scenario::{Operation, Scenario, walker_name};
use crate::model::strategies::listed;

/// Operations that both know, and what the core calls them.
pub const OPERATIONS: [(Operation, WorkloadId); 3] = [
    (Operation::Collapse, WorkloadId::CollapseAnon),
    (Operation::UnshareLast, WorkloadId::UnshareMunmapLast),
    (Operation::UnshareThree, WorkloadId::UnshareChain),
];

/// Walkers that both know, and what the core calls them.
pub const WALKERS: [(WalkerClass, Role); 4] = [
    (WalkerClass::Gup, Role::Walk),
    (WalkerClass::Foreign, Role::Foreign),
    (WalkerClass::Rcu, Role::Read),
    (WalkerClass::TwoWord, Role::TwoWord),
];

/// One cell, in both.
#[derive(Clone, Debug)]
pub struct Cell {
    /// In the core.
    pub scope: Scope,
    /// What is done, in the model's words.
    pub operation: Operation,
    /// Who walks, in the model's words.
    pub walker: WalkerClass,
}

/// What became of it.
#[derive(Clone, Debug)]
pub struct Agreed {
    /// Of what.
    pub cell: Cell,
    /// What the strategy promises.
    pub promised: Outcome,
    /// What all interleavings of the core come to; void if not all were seen.
    pub core: Outcome,
    /// What all states of the model come to.
    pub model: Outcome,
    /// The core's exploration; none of a refused cell.
    pub proof: Option<Proof>,
}

impl Cell {
    /// A cell on as many CPUs as walk, and the one that operates; where walks are of an mm that is not loaded, and must
    /// be found, one more that has it loaded. `None` if one of the two does not know it.
    pub fn new(
        profile: Profile,
        strategy: &str,
        transport: TransportId,
        operation: Operation,
        walker: WalkerClass,
        walkers: usize,
    ) -> Option<Cell> {
        let (_, workload) = OPERATIONS.into_iter().find(|(known, _)| *known == operation)?;
        let (_, role) = WALKERS.into_iter().find(|(known, _)| *known == walker)?;
        let strategy = sync::NAMES.iter().position(|(name, _)| *name == strategy)?;
        let scope = Scope { transport, ..Scope::of(profile, strategy, workload, vec![role; walkers]) };
        let mut cell = Cell { scope, operation, walker };
        if operation.is_chain() && walker == WalkerClass::TwoWord {
            // Who reads two words for the first that leaves has been waited for when the second leaves: the walks are
            // of that one.
            cell.scope.staging = Some(Staging::walks_of(2, walker, walkers, Act::WalkTwoWord(2)));
            cell.scope.roles.clear();
        }
        // Of those who find a violation here some find it only if the flush interrupts somebody.
        if walker == WalkerClass::Foreign && cell.scope.promised() == Outcome::Unsafe {
            cell.scope.roles.push(Role::Loaded);
        }
        Some(cell)
    }

    /// The same in the model: CPUs keep the mm that they have, as in the core's scopes.
    fn scenario(&self) -> Option<Scenario> {
        let strategy = listed().into_iter().find(|s| s.name == self.scope.strategy_name())?;
        let round = Round { cpus: self.scope.cpus() as u8, moves: false };
        let scenario = scenario(&strategy, self.scope.transport, self.operation, self.walker, round);
        Some(Scenario { tagged: self.scope.profile != Profile::X86, ..scenario })
    }

    /// Explores both.
    pub fn decide(self, search: Search, limits: Limits, progress: &mut dyn FnMut(u64)) -> Agreed {
        let promised = self.scope.promised();
        if promised == Outcome::Refused {
            return Agreed { cell: self, promised, core: promised, model: promised, proof: None };
        }
        let model = self.scenario().map_or(Outcome::NotApplicable, |scenario| {
            let exploration = check::explore(&scenario, check::Limits::default());
            match (exploration.counterexample.is_some(), exploration.exhausted) {
                (true, _) => Outcome::Unsafe,
                (false, true) => Outcome::Safe,
                (false, false) => Outcome::Void,
            }
        });
        let proof = prove(&self.scope, search, limits, progress);
        let core = match (proof.wrong, proof.explored.exhausted) {
            (0, true) => Outcome::Safe,
            (0, false) => Outcome::Void,
            _ => Outcome::Unsafe,
        };
        Agreed { cell: self, promised, core, model, proof: Some(proof) }
    }
}

impl Agreed {
    /// Whether core and model say the same, or the model does not know the cell. What was cut short agrees with
    /// nothing.
    pub fn agrees(&self) -> bool {
        self.core != Outcome::Void && (self.core == self.model || self.model == Outcome::NotApplicable)
    }

    /// One line.
    pub fn line(&self) -> String {
        let scope = &self.cell.scope;
        let mut text = format!(
            "{:<8} {:<9} {:<13} {:<8} {:<16} {:<8} {:<8}",
            scope.profile.name(),
            scope.transport.name(),
            self.cell.operation.name(),
            walker_name(self.cell.walker),
            scope.strategy_name(),
            self.core.name(),
            self.model.name(),
        );
        if let Some(proof) = &self.proof {
            let explored = &proof.explored;
            let _ = write!(
                text,
                " {:>8} {:>8} {:>7} {:>9.1}  {}",
                explored.executions,
                explored.asleep,
                explored.longest,
                proof.time.as_secs_f64(),
                if explored.exhausted { "all" } else { "cut short" },
            );
        }
        if !self.agrees() {
            text.push_str("  !");
        }
        text.trim_end().into()
    }
}

/// The line above those of [`Agreed::line`].
pub fn heading() -> String {
    format!(
        "{:<8} {:<9} {:<13} {:<8} {:<16} {:<8} {:<8} {:>8} {:>8} {:>7} {:>9}",
        "profile",
        "transport",
        "operation",
        "walker",
        "strategy",
        "core",
        "model",
        "runs",
        "asleep",
        "longest",
        "seconds"
    )
}
