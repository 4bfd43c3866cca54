//! The matrix: every strategy on every transport, under every operation and every class of walker, explored and
//! compared with what is expected.
//!
//! What is expected is what the strategy promises.

use std::fmt::Write;
use std::time::Duration;

use kernel::record::cell::Verdict as Outcome;
use kernel::tlb::transport::TransportId;
use kernel::workload::walker::WalkerClass;

use crate::model::check::{Exploration, Limits, explore};
use crate::model::scenario::{Operation, Removed, Scenario, walker_name};
use crate::model::strategies::Listed;
use crate::model::words;

/// One exploration of a cell: how many CPUs, and whether they load and unload mms.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Round {
    /// How many CPUs; the first does the operation.
    pub cpus: u8,
    /// They load and unload mms and idle; else each keeps what it has.
    pub moves: bool,
}

/// Which cells, and how far.
#[derive(Clone, Debug)]
pub struct Bounds {
    /// What is explored for each cell, until something is violated.
    pub rounds: Vec<Round>,
    /// All rounds also for walks nested in walks, of which only the first is explored else, unless a violation is
    /// expected.
    pub all_rounds: bool,
    /// Only strategies of these names; all where empty.
    pub strategies: Vec<String>,
    /// Which transports.
    pub transports: Vec<TransportId>,
    /// Which operations.
    pub operations: Vec<Operation>,
    /// Which walkers.
    pub walkers: Vec<WalkerClass>,
    /// When to stop each exploration.
    pub limits: Limits,
    /// When to stop each cell that the core decides ([`crate::by_core`]).
    pub core_time: Duration,
}

impl Default for Bounds {
    /// All cells: two CPUs that do everything, then three that keep the mm that they have.
    fn default() -> Bounds {
        Bounds {
            rounds: vec![Round { cpus: 2, moves: true }, Round { cpus: 3, moves: false }],
            all_rounds: false,
            strategies: Vec::new(),
            transports: TransportId::ALL.to_vec(),
            operations: vec![
                Operation::Collapse,
                Operation::CollapseInBatch,
                Operation::UnshareLast,
                Operation::UnshareThree,
            ],
            walkers: WalkerClass::ALL.to_vec(),
            limits: Limits::default(),
            core_time: Duration::from_secs(600),
        }
    }
}

impl Bounds {
    /// Within which everything is explored.
    pub fn in_words(&self) -> String {
        let one = |round: &Round| {
            format!("{} CPUs that {}", round.cpus, if round.moves { "do everything" } else { "keep their mm" })
        };
        let rounds: Vec<String> = self.rounds.iter().map(one).collect();
        format!("one table, one operation; {}", rounds.join(", then "))
    }
}

/// What came out of one cell.
#[derive(Clone, Debug)]
pub struct Verdict {
    /// The strategy's name.
    pub strategy: &'static str,
    /// How flushes travelled.
    pub transport: TransportId,
    /// What was done.
    pub operation: Operation,
    /// Who walked.
    pub walker: WalkerClass,
    /// What was expected; none where nothing is.
    pub expected: Option<Outcome>,
    /// What was found: `Safe` only if everything within the bounds was explored, else `Void`.
    pub found: Outcome,
    /// The explorations, in the order of the rounds; the last one has the counterexample if there is one.
    pub explorations: Vec<Exploration>,
}

impl Verdict {
    /// Whether it is what was expected.
    pub fn is_as_expected(&self) -> bool {
        self.found != Outcome::Void && self.expected.is_none_or(|expected| expected == self.found)
    }

    /// Everything about it, the counterexample included.
    pub fn report(&self) -> String {
        let mut text = format!(
            "{} on {}, {}, walker {}: {}",
            self.strategy,
            self.transport.name(),
            self.operation.name(),
            walker_name(self.walker),
            self.found.name()
        );
        if let Some(expected) = self.expected.filter(|expected| *expected != self.found) {
            let _ = write!(text, " (expected {})", expected.name());
        }
        text.push('\n');
        for exploration in &self.explorations {
            let _ = writeln!(text, "  {}", words::summary(exploration));
            if let Some(counterexample) = &exploration.counterexample {
                text.push_str(&words::interleaving(&exploration.scenario, counterexample));
            }
        }
        text
    }
}

/// A scenario with every guard present. Translations are tagged where the broadcast instruction is native.
pub fn scenario(
    strategy: &Listed,
    transport: TransportId,
    operation: Operation,
    walker: WalkerClass,
    round: Round,
) -> Scenario {
    Scenario {
        cpus: round.cpus,
        moves: round.moves,
        operation,
        transport,
        walker,
        tagged: transport == TransportId::Broadcast,
        hook: transport.flush_implies_interrupt(),
        publication: strategy.publication,
        nested_restores: strategy.nested_restores,
        published: [1, 2, u64::MAX],
        decide: strategy.decide,
        removed: Removed::NOTHING,
        eager_fills: true,
        symmetric: true,
    }
}

/// Explores one cell.
pub fn cell(
    strategy: &Listed,
    transport: TransportId,
    operation: Operation,
    walker: WalkerClass,
    bounds: &Bounds,
) -> Verdict {
    let mut verdict = Verdict {
        strategy: strategy.name,
        transport,
        operation,
        walker,
        expected: None,
        found: Outcome::Safe,
        explorations: Vec::new(),
    };
    for round in &bounds.rounds {
        let scenario = scenario(strategy, transport, operation, walker, *round);
        verdict.expected = Some((strategy.promises)(scenario.setting()));
        if verdict.expected == Some(Outcome::Refused) {
            verdict.found = Outcome::Refused;
            break;
        }
        // A third CPU multiplies the states of walks nested in walks; it is added there only where it has something to
        // show.
        let enough = !verdict.explorations.is_empty() && walker.nests() && verdict.expected == Some(Outcome::Safe);
        if enough && !bounds.all_rounds {
            break;
        }
        let exploration = explore(&scenario, bounds.limits);
        let found = match (&exploration.counterexample, exploration.exhausted) {
            (Some(_), _) => Outcome::Unsafe,
            (None, true) => verdict.found,
            (None, false) => Outcome::Void,
        };
        verdict.explorations.push(exploration);
        verdict.found = found;
        if found == Outcome::Unsafe {
            break;
        }
    }
    verdict
}
